"""Query: what `Model.query` is. Lookups of one record, and the way to builders."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import redis.exceptions

from popoto.exceptions import ModelException, QueryException
from popoto.orm import shards
from popoto.orm.commands import Command, hash_of
from popoto.orm.db_key import DB_key
from popoto.orm.drivers import adrive, drive
from popoto.orm.fetching import fetched
from popoto.orm.lookups import whole_key
from popoto.orm.related import together
from popoto.orm.shortcuts import M, Shortcuts

if TYPE_CHECKING:
    from popoto.orm.model import Model


class Query(Shortcuts[M]):
    """What `Model.query` is: lookups on one model. It keeps no state of a call."""

    def __init__(self, model: type[Model]) -> None:
        self.model_class = model

    @property
    def options(self) -> Any:
        return self.model_class._meta

    # -- one record ---------------------------------------------------------------------------------------------------

    def get(self, db_key: Any = None, redis_key: str | bytes | None = None, **kwargs: Any) -> M | None:
        """Return the one record with this key, or that these filters match; None if there is none.

        Raises: QueryException: several match, or a filter is unknown.
        """
        found: M | None = drive(self._get(db_key, redis_key, kwargs))
        return found

    async def async_get(self, db_key: Any = None, redis_key: str | bytes | None = None, **kwargs: Any) -> M | None:
        """Await `get()`."""
        found: M | None = await adrive(self._get(db_key, redis_key, kwargs))
        return found

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
            if filters and meta.shard_by is not None and shards.are_many(meta):
                one = partial(self._get, db_key, redis_key, filters)
                return (yield from shards.within(meta, meta.keys_at(key), one))
            if not filters:
                return (yield from self._handed_out([(yield from self._read(key))]))[0]
        selection = replace(self._builder().filter(**filters).selection(limit=2), track=False)
        if given is not None:
            selection.compiled.narrow(["keys", key])
        found = yield from selection.collected(strict=True)
        if len(found) > 1:
            raise QueryException(
                f"{self.model_class.__name__}.query.get({_shown(filters)}) matches more than one record, e.g. "
                f"{found[0].pk} and {found[1].pk}. Narrow the filter, or use filter()."
            )
        return (yield from self._handed_out(found))[0] if found else None

    def _handed_out(self, found: list[Any]) -> Generator[Any, Any, list[Any]]:
        """Tell the model which records are handed out, and return them."""
        keys = [record._saved_key for record in found if record is not None]
        for some in shards.lists(self.model_class._meta, keys):
            command = self.model_class._returned_command(some)
            if command is not None:
                yield command
        return found

    def _read(self, key: str) -> Generator[Any, Any, Any]:
        try:
            raw = hash_of((yield Command(("HGETALL", key))))
        except redis.exceptions.ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            raise ModelException(f"{key} holds no record: the key is not a hash, something else wrote there.") from None
        return self.model_class._hydrated(key, raw) if raw else None

    def get_many(self, redis_keys: Iterable[str | bytes | DB_key], skip_none: bool = False) -> list[Any]:
        """Return the records of these keys in one round trip, in their order; None (or nothing) for a missing one.

        What cannot be read (a corrupt value, a key that is no hash) counts as missing and is logged.
        """
        return drive(self._get_many(redis_keys, skip_none))

    async def async_get_many(self, redis_keys: Iterable[str | bytes | DB_key], skip_none: bool = False) -> list[Any]:
        """Await `get_many()`."""
        return await adrive(self._get_many(redis_keys, skip_none))

    def _get_many(self, redis_keys: Iterable[Any], skip_none: bool) -> Generator[Any, Any, list[Any]]:
        if isinstance(redis_keys, (str, bytes)):
            raise QueryException(f"get_many(): expected a list of keys, got the text {redis_keys!r}.")
        model, holds = self.model_class, self.model_class._meta.holds
        keys = [_key_text(key) for key in redis_keys or ()]
        records = yield from fetched(model, [key for key in keys if holds(key)])
        seen: set[str] = set()
        asked: list[Any] = []
        for key in keys:  # a key that is given twice gets two instances
            record = records.get(key)
            asked.append(copy.copy(record) if key in seen else record)
            seen.add(key)
        found = yield from self._handed_out(asked)
        together(self.model_class, found)
        return [item for item in found if item is not None] if skip_none else found


class QueryOf:
    """The type of `Model.query` for type checkers: a Query of that very model."""

    def __get__(self, instance: object, owner: type[M]) -> Query[M]:
        raise NotImplementedError


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
