"""`filter_query` of a field of the user's own: it answers its parameters of `filter()` with the keys of records.

It is called while a query is put together, and blocks if it reads. A `slots()` with a `condition()` costs less: the
server answers those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from popoto.exceptions import QueryException
from popoto.orm.conditions import Condition

_answering: ContextVar[tuple[Any, ...]] = ContextVar("popoto_fields_answering", default=())


@contextmanager
def answering_itself(model: Any, field_name: str) -> Iterator[None]:
    """Let the field's own index answer within: `filter_query` is not called again."""
    token = _answering.set((*_answering.get(), (model, field_name)))
    try:
        yield
    finally:
        _answering.reset(token)


def is_asked(model: Any, field_name: str) -> bool:
    """Return True when the field's `filter_query` is to be called."""
    return (model, field_name) not in _answering.get()


def hook_condition(model: Any, field: Any, parameters: Mapping[str, Any]) -> Condition:
    """Return the condition that a record is one of those that `filter_query` names.

    Raises: QueryException: it returned something else than keys.
    """
    given = type(field).filter_query(model, field.name, **parameters)
    label = f"{type(field).__name__}.filter_query(...)"
    if isinstance(given, (str, bytes)) or not hasattr(given, "__iter__"):
        raise QueryException(f"{label}: expected a set of record keys (bytes or str) as the answer, got {given!r}.")
    names = []
    for key in given:
        if not isinstance(key, (str, bytes)):
            raise QueryException(f"{label}: expected record keys (bytes or str) in the answer, got {key!r}.")
        name = key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else key
        if model._meta.holds(name):
            names.append(name)
    return Condition(["keys", *sorted(set(names))])
