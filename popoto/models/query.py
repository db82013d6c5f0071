"""Import path of Query, QueryBuilder and QueryException; they live in popoto.memory.query and popoto.exceptions."""

from popoto.exceptions import QueryException
from popoto.memory.query import MemoryQuery as Query
from popoto.memory.query import MemoryQueryBuilder as QueryBuilder

__all__ = ["Query", "QueryBuilder", "QueryException"]
