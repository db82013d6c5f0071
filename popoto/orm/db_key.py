"""DB_key: a record's key as its parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from popoto import redis_db
from popoto.orm.keys import escape, front_of, key_part, tag_of_record, unescape


class DB_key(list[Any]):
    """The unescaped parts of a Redis key; `str()` gives the key.

    Nested lists and tuples are flattened; the parts of a nested DB_key are taken as they are.
    """

    def __init__(self, *parts: Any) -> None:
        super().__init__(_flat(parts))

    @property
    def redis_key(self) -> str:
        """The key, escaped and joined, with the namespace (and on a cluster the hash tag) of the current settings."""
        local = ":".join(map(key_part, self))
        tag = tag_of_record(local) if redis_db.on_cluster() else ""
        return tag + redis_db.key_namespace() + local

    def __str__(self) -> str:
        return self.redis_key

    @classmethod
    def from_redis_key(cls, redis_key: str | bytes) -> DB_key:
        """Return the parts of a key."""
        text = redis_key.decode() if isinstance(redis_key, bytes) else redis_key
        tag = front_of(text) if redis_db.on_cluster() else ""
        text = text.removeprefix(tag).removeprefix(redis_db.key_namespace())
        return cls(*map(unescape, text.split(":")))

    @staticmethod
    def clean(text: str) -> str:
        """Return the text escaped as one part."""
        return escape(text)

    @staticmethod
    def unclean(text: str) -> str:
        """Return the text of an escaped part."""
        return unescape(text)

    def exists(self) -> bool:
        """Return True when a key of this name is stored."""
        return bool(redis_db.get_REDIS_DB().exists(self.redis_key))

    def get_instance(self, model: Any) -> Any:
        """Return the record of this key as an instance of `model`, or None."""
        return model.query.get(db_key=self)


def _flat(parts: Iterable[Any]) -> Iterable[Any]:
    for part in parts:
        if isinstance(part, (list, tuple, set)):
            yield from _flat(part)
        else:
            yield part
