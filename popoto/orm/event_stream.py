"""EventStreamMixin: each change of a record appends an entry to a Redis stream, in the same atomic step.

The server writes the entry (lua/lib_event.lua) from what is stored: whether the record existed, the partition it lies
in, the values of the metadata. So an entry stands in the stream if and only if its change happened, and a stale
instance cannot make it say something else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from popoto.exceptions import ModelException
from popoto.orm.scripts import Script

if TYPE_CHECKING:
    from popoto.orm.keys import ModelKeys
    from popoto.orm.options import ModelOptions

__all__ = ["EventStreamMixin"]

_PARTITION_TYPES = (str, int, bool)
_METADATA_TYPES = (str, int, float, bool, Decimal, date, datetime, time)

logger = logging.getLogger("popoto.model")


class EventStreamMixin:
    """Put before Model: `class Order(EventStreamMixin, Model)`. Its saves, increments and deletes are then logged, and
    what its memory fields learn (docs/event-streams.md).

    An entry has the texts `model`, `pk` (the record's key), `op` (create, update, delete), `ts` (the server's Unix
    seconds), `changed_fields` (names separated by commas, of a partial save or an increment; "" otherwise), and one for
    each metadata field ("" for None). A record that moved to another key adds `old_pk`. One that moved to another
    partition is an update in the new stream and a delete, with `moved_to`, in the old one.

    A record that expires logs nothing: no command does it.

    Attributes:
        _stream_name: the stream is `stream:<name>`.
        _stream_partition_field: a field of type str, int or bool; a record with a value in it is logged in
            `stream:<name>:<value>`.
        _stream_max_length: about how many entries a stream keeps; None for all.
        _stream_metadata_fields: names of fields whose values each entry carries.
    """

    _stream_name: ClassVar[str] = "mutations"
    _stream_partition_field: ClassVar[str | None] = None
    _stream_max_length: ClassVar[int | None] = 10000
    _stream_metadata_fields: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def event_stream_key(cls, partition: Any = None, shard: Any = None) -> str:
        """Return the key of the stream, for a StreamConsumer: that of a partition, or that of records without one.

        Args:
            shard: the value of the field that `Meta.shard_by` names, where that is another field than the partition: on
                a cluster each shard has streams of its own.
        Raises: QueryException: the model has shards, and none is named.
        """
        meta: Any = cls._meta  # type: ignore[attr-defined]
        if shard is None and meta.shard_by is not None and meta.shard_by == cls._stream_partition_field:
            shard = partition
        keys = meta.keys if shard is None or meta.shard_by is None else meta.keys_for({meta.shard_by: shard})
        key: str = keys.stream(cls._stream_name)
        return key if partition is None else f"{key}:{partition}"


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What the class attributes of a model say, checked."""

    model: str
    name: str
    part: str | None
    longest: int | None
    metadata: tuple[str, ...]

    def event(self, keys: ModelKeys, changed: str = "", values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the event that travels with a change (lua/lib_event.lua).

        Args:
            changed: names of the fields that are written, separated by commas; "" for a whole record.
            values: field name -> value, where the change writes the partition field; None where it does not.
        """
        event: dict[str, Any] = {
            "stream": keys.stream(self.name),
            "model": self.model,
            "meta": self.metadata,
            "changed": changed,
        }
        if self.longest is not None:
            event["longest"] = self.longest
        if self.part is not None:
            event["part"] = self.part
            if values is not None:
                value = values[self.part]
                event["value"] = False if value is None else str(value)
        return event


def with_events(script: Script) -> Script:
    """Return the variant of a script that can log its changes; the plain one stays free of what that takes."""
    return script.variant(("popoto.orm", "lib_number"), ("popoto.orm", "lib_event"))


def stream_settings(model: type, meta: ModelOptions) -> StreamSettings | None:
    """Return the settings of a model with the mixin, None for one without it.

    Raises: ModelException: a class attribute of it has a wrong value.
    """
    if not issubclass(model, EventStreamMixin) or meta.abstract:
        return None
    return StreamSettings(model.__name__, *_checked(model, meta))


def _checked(model: type[EventStreamMixin], meta: ModelOptions) -> tuple[str, str | None, int | None, tuple[str, ...]]:
    def refuse(attribute: str, expected: str) -> ModelException:
        return ModelException(f"{model.__name__}.{attribute}: expected {expected}, got {getattr(model, attribute)!r}.")

    name, part, longest = model._stream_name, model._stream_partition_field, model._stream_max_length
    if not isinstance(name, str) or not name or (part and ":" in name):
        raise refuse("_stream_name", "a name, without a colon where the stream has partitions")
    if part is not None and (part not in meta.fields or meta.fields[part].type not in _PARTITION_TYPES):
        raise refuse("_stream_partition_field", f"a field of type str, int or bool ({', '.join(meta.fields)}) or None")
    if longest is not None and (type(longest) is not int or longest < 1):
        raise refuse("_stream_max_length", "a positive number of entries or None")
    if isinstance(model._stream_metadata_fields, str):
        raise refuse("_stream_metadata_fields", "a tuple of field names")
    metadata = tuple(model._stream_metadata_fields)
    for field_name in metadata:
        field = meta.fields.get(field_name)
        if field is None:
            logger.warning("%s._stream_metadata_fields: there is no field %r", model.__name__, field_name)
        elif field.type not in _METADATA_TYPES:
            raise refuse("_stream_metadata_fields", f"fields with one value each, which '{field_name}' is not")
    return name, part, longest, metadata
