"""`popoto move`: copy the records of models from one server to a cluster (or to another server).

On a cluster each key stands behind a hash tag, and a model with `Meta.shard_by` has the keys of each shard apart. So
keys are not copied as they are: what belongs to a record goes where the record goes, under the name that it has there,
and record keys within sets and hashes likewise. `rebuild_indexes()` then makes every index entry right.

The source is only read. Nobody should write to it meanwhile: what is written behind the copy's back stays behind.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgpack

from popoto import _connection_settings, redis_db
from popoto.exceptions import ModelException
from popoto.orm import shards
from popoto.orm.claims import claim_commands, claims_of, confirm_commands
from popoto.orm.commands import Command
from popoto.orm.drivers import prepare, run_reads
from popoto.orm.keys import ModelKeys, model_keys, whole_key
from popoto.orm.plan import pack

_KEYS_A_STEP = 500
_REBUILT = ("$BM25", "$Token", "$Sentinel", "$Shards", "$Claim")  # made anew, or of no use elsewhere
_SIDE = b"::"
_LEX = b"\0\0"  # behind a text in a lexical index, before the record's key


@dataclass
class Moved:
    """What became of one model.

    Attributes:
        records: copied. conflicts: record key -> sentences, from rebuild_indexes().
        left: keys that could not be given to one shard and are no index; they were not copied.
    """

    model: str
    records: int = 0
    conflicts: dict[str, list[str]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def model_of(path: str) -> Any:
    """Return the model class of `package.module:Class`.

    Raises: ModelException: there is none.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
        found._meta.key_names  # noqa: B018 - tells a model from anything else
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelException(
            f"{path!r} names no model: expected package.module:Class, such as shop.models:Order ({error})."
        ) from error
    return found


def move(models: list[Any], source_url: str, target_url: str, again: bool, said: Callable[[str], Any]) -> list[Moved]:
    """Copy the models' records and all that belongs to them; return what became of each.

    Args:
        again: go on with a move that was interrupted, into models that have records already.
        said: told what is done, a line at a time.
    Raises: ModelException: the target has records of a model. ConnectionSettingsError: a URL cannot be used.
    """
    settings = _connection_settings.from_url(source_url, "--from")
    if settings.nodes:
        raise ModelException("--from names a cluster; expected one server: redis://host:port/db.")
    redis_db.configure_url(target_url)
    for model in models:
        if not again and (there := model.query.count()):
            raise ModelException(
                f"{model.__name__}: the target has {there} records already; nothing was copied. Empty it with "
                "delete_all(), or give --again to go on with a move that was interrupted."
            )
    source: Any = _connection_settings.sync_client(settings)
    try:
        return [_Move(model, source, said).run() for model in models]
    finally:
        source.connection_pool.disconnect()


class _Move:
    """The move of one model."""

    def __init__(self, model: Any, source: Any, said: Callable[[str], Any]) -> None:
        self.model, self.source, self.said = model, source, said
        self.meta = model._meta
        self.namespace = redis_db.key_namespace()
        self.there: ModelKeys = model_keys(self.namespace, self.meta.model_name)  # as one server spells them
        self._records = (self.there.record + ":").encode()
        self.result = Moved(model.__name__)

    def run(self) -> Moved:
        for number, keys in enumerate(self._steps(), 1):
            for key in keys:
                self._copy(key)
            self.said(f"{self.model.__name__}: {number * _KEYS_A_STEP} keys looked at, {self.result.records} records")
        rebuilt = self.model.rebuild_indexes()
        self.result.conflicts = {**rebuilt.conflicts, **{key: [why] for key, why in rebuilt.skipped.items()}}
        self._claim()
        return self.result

    def _steps(self) -> Iterator[list[bytes]]:
        batch: list[bytes] = []
        for key in self.source.scan_iter(match=f"{self.namespace}*{self.there.model}*".encode(), count=1000):
            batch.append(key)
            if len(batch) == _KEYS_A_STEP:
                yield batch
                batch = []
        if batch:
            yield batch

    # -- one key ------------------------------------------------------------------------------------------------------

    def _copy(self, key: bytes) -> None:
        record = self._record_in(key.partition(_SIDE)[0])
        if record is not None:
            if key == record:
                self._copy_record(key)
            elif key.endswith(b"::$occ"):
                self._write(self._key(key, record), key, b"string", self._occupancy(key, record))
            else:
                self._write(self._key(key, record), key, self.source.type(key), self._read(key))
            return
        text = key[len(self.namespace) :].decode("utf-8", "replace")
        parts = text.split(":")
        if len(parts) < 2 or not text.startswith("$") or parts[1] != self.there.model or parts[0] in _REBUILT:
            return
        if parts[0] == "$Order" or key.decode("utf-8", "replace") in self.there.home:
            return
        head = len(f"{self.namespace}{parts[0]}:{parts[1]}".encode())
        tail = key.rfind(b":" + self._records, head)
        record = self._record_in(key[tail + 1 :]) if tail > 0 else None
        kind, content = self.source.type(key), self._read(key)
        if record is not None:
            new = self._front(record) + key[: tail + 1] + self._key(record, record)
            self._write(new, key, kind, content)
        elif self.meta.shard_by is None:
            self._write(self._front(self._records + b"x") + key, key, kind, content)
        else:
            self._split(key, kind, content)

    def _copy_record(self, key: bytes) -> None:
        if self.source.type(key) != b"hash":
            return
        new = self._key(key, key)
        keys = self.meta.keys_at(new.decode())
        enter = shards.enter(self.meta, keys) if shards.is_sharded(self.meta) else None
        if enter is not None:
            run_reads([enter])
        self._write(new, key, b"hash", self._read(key))
        client = redis_db.get_REDIS_DB()
        client.sadd(keys.class_set, new)
        client.zadd(keys.order, {new: 0})
        self.result.records += 1

    def _occupancy(self, key: bytes, record: bytes) -> bytes | None:
        """Return what a record occupies, in the index keys that the target has."""
        packed = self.source.get(key)
        entries = [] if packed is None else msgpack.unpackb(packed, raw=True)
        front = self._front(record)
        moved: bytes = pack([[slot, kind, front + base, *rest] for slot, kind, base, *rest in entries])
        return moved

    def _split(self, key: bytes, kind: bytes, content: Any) -> None:
        """Give the members of an index of several shards to the shards of their records."""
        parts: dict[bytes, Any] = {}
        items = content.items() if isinstance(content, dict) else [(member, None) for member in content or ()]
        if kind not in (b"set", b"zset", b"hash"):
            items = []
        for member, value in items:
            record = self._owner(member)
            if record is not None:
                parts.setdefault(self._front(record), {})[member] = value
        if content and not parts:
            self.result.left.append(key.decode("utf-8", "replace"))
        for front, some in parts.items():
            self._write(front + key, key, kind, set(some) if kind == b"set" else some)

    # -- names --------------------------------------------------------------------------------------------------------

    def _record_in(self, text: bytes) -> bytes | None:
        """Return the text if it is a record's key as one server has it."""
        if not text.startswith(self._records):
            return None
        parts = text[len(self.namespace) :].count(b":") + 1
        return text if parts == self.meta.db_key_length else None

    def _owner(self, member: bytes) -> bytes | None:
        """Return the record that a member stands for."""
        return self._record_in(member.rpartition(_LEX)[2])

    def _front(self, record: bytes) -> bytes:
        return self._key(record, record)[: -len(record)]

    def _key(self, key: bytes, record: bytes) -> bytes:
        """Return the name that a key of a record has at the target."""
        local = record[len(self.namespace) :].decode("utf-8", "surrogateescape")
        whole = whole_key(self.namespace, local, redis_db.on_cluster()).encode("utf-8", "surrogateescape")
        return whole + key[len(record) :]

    def _member(self, member: Any) -> Any:
        """Return a member with the record's key in it as the target spells it."""
        record = self._owner(member) if isinstance(member, bytes) else None
        return member if record is None else member[: -len(record)] + self._key(record, record)

    # -- values -------------------------------------------------------------------------------------------------------

    def _read(self, key: bytes) -> Any:
        kind = self.source.type(key)
        if kind == b"hash":
            return self.source.hgetall(key)
        if kind == b"set":
            return self.source.smembers(key)
        if kind == b"zset":
            return dict(self.source.zrange(key, 0, -1, withscores=True))
        if kind == b"list":
            return self.source.lrange(key, 0, -1)
        return self.source.get(key) if kind == b"string" else None

    def _write(self, new: bytes, old: bytes, kind: bytes, content: Any) -> None:
        """Put a key's content under its new name, with the time that it has left."""
        if content is None:
            if kind != b"none":
                self.result.left.append(old.decode("utf-8", "replace"))
            return
        pipeline: Any = redis_db.get_REDIS_DB().pipeline()
        pipeline.delete(new)
        if kind == b"hash":
            pipeline.hset(new, mapping={self._member(name): value for name, value in content.items()})
        elif kind == b"set":
            pipeline.sadd(new, *map(self._member, content))
        elif kind == b"zset":
            pipeline.zadd(new, {self._member(member): score for member, score in content.items()})
        elif kind == b"list":
            pipeline.rpush(new, *map(self._member, content))
        else:
            pipeline.set(new, content)
        left_ms = self.source.pttl(old)
        if left_ms > 0:
            pipeline.pexpire(new, left_ms)
        pipeline.execute()

    def _claim(self) -> None:
        """Claim the unique values of a model with several shards."""
        if not shards.is_sharded(self.meta):
            return
        for record in self.model.query.filter().iterate():
            claims = claims_of(self.meta, record.__dict__, None)
            if claims:
                prepare(Command((), firsts=claim_commands(claims, record.pk)))
                run_reads(confirm_commands(claims, record.pk))
