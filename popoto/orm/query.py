"""Query: what `Model.query` is. Lookups of one record, and the way to builders."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from popoto import redis_db
from popoto.exceptions import QueryException
from popoto.orm.builder import QueryBuilder
from popoto.orm.commands import Command, hash_of
from popoto.orm.db_key import DB_key
from popoto.orm.drivers import adrive, drive
from popoto.orm.lookups import whole_key

if TYPE_CHECKING:
    from popoto.orm.model import Model


class Query:
    """What `Model.query` is: lookups on one model. It keeps no state of a call."""

    builder_class: type[QueryBuilder] = QueryBuilder

    def __init__(self, model: type[Model]) -> None:
        self.model_class = model

    @property
    def options(self) -> Any:
        return self.model_class._meta

    def _builder(self) -> Any:
        return self.builder_class(self.model_class)

    # -- one record ---------------------------------------------------------------------------------------------------

    def get(self, db_key: Any = None, redis_key: str | bytes | None = None, **kwargs: Any) -> Any:
        """Return the one record with this key, or that these filters match; None if there is none.

        Raises: QueryException: several match, or a filter is unknown.
        """
        return drive(self._get(db_key, redis_key, kwargs))

    async def async_get(self, db_key: Any = None, redis_key: str | bytes | None = None, **kwargs: Any) -> Any:
        """Await `get()`."""
        return await adrive(self._get(db_key, redis_key, kwargs))

    def _get(self, db_key: Any, redis_key: Any, filters: dict[str, Any]) -> Generator[Any, Any, Any]:
        meta = self.model_class._meta
        given = redis_key if redis_key is not None else db_key
        if given is None and filters and all(name in meta.key_names for name in filters):
            given = whole_key(meta, filters)
            filters = {} if given is not None else filters
        if given is not None:
            key = _key_text(given)
            if not meta.holds(key):
                return None
            if not filters:
                return (yield self._read(key))
        selection = self._builder().filter(**filters).selection(limit=2)
        if given is not None:
            selection.compiled.narrow(["keys", key])
        found = yield from selection.collected(strict=True)
        if len(found) > 1:
            raise QueryException(
                f"{self.model_class.__name__}.query.get({_shown(filters)}) matches more than one record, e.g. "
                f"{found[0].pk} and {found[1].pk}. Narrow the filter, or use filter()."
            )
        return found[0] if found else None

    def _read(self, key: str) -> Command[Any]:
        model = self.model_class

        def parse(raw: Any) -> Any:
            return model._hydrated(key, hash_of(raw)) if raw else None

        return Command(("HGETALL", key), parse)

    def get_many(self, redis_keys: Iterable[str | bytes | DB_key], skip_none: bool = False) -> list[Any]:
        """Return the records of these keys in one round trip, in their order; None (or nothing) for a missing one."""
        return drive(self._get_many(redis_keys, skip_none))

    async def async_get_many(self, redis_keys: Iterable[str | bytes | DB_key], skip_none: bool = False) -> list[Any]:
        """Await `get_many()`."""
        return await adrive(self._get_many(redis_keys, skip_none))

    def _get_many(self, redis_keys: Iterable[Any], skip_none: bool) -> Generator[Any, Any, list[Any]]:
        if isinstance(redis_keys, (str, bytes)):
            raise QueryException(f"get_many(): expected a list of keys, got the text {redis_keys!r}.")
        holds = self.model_class._meta.holds
        keys = [_key_text(key) for key in redis_keys or ()]
        commands = [self._read(key) for key in keys if holds(key)]
        read = iter((yield commands) if commands else ())
        found = [next(read) if holds(key) else None for key in keys]
        return [item for item in found if item is not None] if skip_none else found

    # -- many ---------------------------------------------------------------------------------------------------------

    def filter(self, *args: Any, **kwargs: Any) -> Any:
        """Return a lazy QueryBuilder of the records that match all filters.

        Raises: QueryException: an unknown field or lookup; it lists those that exist.
        """
        return self._builder().filter(*args, **kwargs)

    def all(self, **kwargs: Any) -> list[Any]:
        """Return all records; keywords order_by, limit, values."""
        return self.filter(**kwargs).all()  # type: ignore[no-any-return]

    def count(self, **kwargs: Any) -> int:
        """Return how many records match; without filters in constant time."""
        return self.filter(**kwargs).count()  # type: ignore[no-any-return]

    def exists(self, **kwargs: Any) -> bool:
        """Return True when a record matches."""
        return self.filter(**kwargs).exists()  # type: ignore[no-any-return]

    def first(self, **kwargs: Any) -> Any:
        """Return the first match or None."""
        return self.filter(**kwargs).first()

    def last(self, **kwargs: Any) -> Any:
        """Return the last match or None."""
        return self.filter(**kwargs).last()

    def order_by(self, name: str | None) -> Any:
        return self._builder().order_by(name)

    def limit(self, n: int | None) -> Any:
        return self._builder().limit(n)

    def values(self, *names: str) -> Any:
        return self._builder().values(*names)

    def keys(self, catchall: bool = False, clean: bool = False, **kwargs: Any) -> list[bytes]:
        """Return the keys of the matching records.

        Args:
            catchall: debugging only: every key of the server with the model's name in it (SCAN).
            clean: not there yet.
        """
        if clean:
            raise QueryException("keys(clean=True) is not there yet: index entries of lost records are not removed.")
        if catchall:
            return redis_db.scan_keys(f"*{self.model_class._meta.model_name}*")
        return self.filter(**kwargs).keys()  # type: ignore[no-any-return]

    async def async_filter(self, **kwargs: Any) -> list[Any]:
        """Await `filter()`; returns a list."""
        return await self.filter(**kwargs).async_all()  # type: ignore[no-any-return]

    async def async_all(self, **kwargs: Any) -> list[Any]:
        """Await `all()`."""
        return await self.filter(**kwargs).async_all()  # type: ignore[no-any-return]

    async def async_count(self, **kwargs: Any) -> int:
        """Await `count()`."""
        return await self.filter(**kwargs).async_count()  # type: ignore[no-any-return]

    async def async_exists(self, **kwargs: Any) -> bool:
        """Await `exists()`."""
        return await self.filter(**kwargs).async_exists()  # type: ignore[no-any-return]

    async def async_first(self, **kwargs: Any) -> Any:
        """Await `first()`."""
        return await self.filter(**kwargs).async_first()

    async def async_keys(self, **kwargs: Any) -> list[bytes]:
        """Await `keys()`."""
        return await self.filter(**kwargs).async_keys()  # type: ignore[no-any-return]


def _key_text(key: Any) -> str:
    if isinstance(key, DB_key):
        return key.redis_key
    if isinstance(key, bytes):
        return key.decode()
    if isinstance(key, str):
        return key
    raise QueryException(f"expected a Redis key (str, bytes or DB_key), got {key!r}.")


def _shown(filters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}"[:60] for name, value in filters.items())
