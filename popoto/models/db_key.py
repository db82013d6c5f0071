"""Import path of DB_key; it lives in popoto.orm.db_key."""

from popoto.orm.db_key import DB_key

__all__ = ["DB_key"]
