"""From a stored record to what the new model makes of it: no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from popoto.exceptions import ModelException
from popoto.migrations.steps import Draft, Step
from popoto.migrations.stored import field_bytes
from popoto.orm import shards
from popoto.orm.keys import ModelKeys
from popoto.orm.plan import pack
from popoto.orm.slots import KEEP

if TYPE_CHECKING:
    from popoto.orm.model import Model
    from popoto.orm.options import ModelOptions

Raw = Mapping[str, bytes]
"""A stored hash: field name -> bytes."""


@dataclass(slots=True)
class Conversion:
    """What has to be done to one record.

    Attributes:
        key: where it lies.
        new_key: where it will.
        read: its hash as it was read.
        written: fields that get other bytes.
        removed: fields that it loses.
        renamed: (field, its new name).
        steps: the steps that changed it.
        entries, payloads: what it occupies afterwards, as lua/commit.lua takes them.
        indexed: its index entries are as they should be already.
        values: field name -> value afterwards.
    """

    key: str
    new_key: str
    read: Raw
    written: dict[str, bytes]
    removed: list[str]
    renamed: list[tuple[str, str]]
    steps: list[Step]
    entries: list[Any]
    payloads: list[Any]
    indexed: bool
    values: Mapping[str, Any]

    @property
    def needed(self) -> bool:
        return bool(self.written or self.removed or not self.indexed or self.new_key != self.key)

    def unique_places(self) -> list[str]:
        """Return the places that only one record may have: unique values."""
        return [
            ":".join([base, *parts])
            for _, kind, base, parts, kept in self.entries
            if kind in ("u", "tu") and kept is not True
        ]


def converted(
    model: type[Model], keys: ModelKeys, steps: Sequence[Step], key: str, raw: Raw, occupancy: bytes | None
) -> Conversion:
    """Return what the steps and the new model make of a record.

    Raises: ModelException: it cannot be converted; the text is the reason.
    """
    meta = model._meta
    draft = Draft(meta, key, raw)
    done = []
    for step in steps:
        try:
            if step.apply(draft):
                done.append(step)
        except ModelException as error:
            raise ModelException(f"{step}: {error}") from None
        except Exception as error:  # of a function of the caller's
            raise ModelException(f"{step}: {type(error).__name__}: {error}") from error
    for name in meta.key_names:
        field = meta.fields[name]
        if field.is_auto and name not in draft.raw:
            draft.put(name, field.default_value())
    instance = model._hydrated(key, {field_bytes(name): value for name, value in draft.raw.items()})
    instance._validate(None)
    values = instance.__dict__
    if all(values.get(name) is None for name in meta.key_names):
        raise ModelException(f"every key field would be None ({', '.join(meta.key_names)})")
    if shards.is_sharded(meta) and meta.keys_for(values) is not keys:
        raise ModelException(
            f"its {meta.shard_by} would become {values[meta.shard_by or '']!r}, and on a cluster a record "
            "does not move between shards; create it anew and delete this one"
        )
    new_key = keys.record_key([values[name] for name in meta.key_names])
    for name, field in meta.fields.items():
        if name not in draft.raw and callable(field.default):
            values[name] = None  # it is another value at each load, which no index can follow
    occupied = _by_slot(occupancy)
    entries, payloads = _entries(model, keys, values, occupied, draft.renamed)
    if shards.is_sharded(meta):
        _refuse_claims(meta, entries, occupied)
    return Conversion(
        key=key,
        new_key=new_key,
        read=raw,
        written={name: value for name, value in draft.raw.items() if raw.get(name) != value},
        removed=[name for name in raw if name not in draft.raw],
        renamed=draft.renamed,
        steps=done,
        entries=entries,
        payloads=payloads,
        indexed=occupied == _by_slot(pack(entries)),
        values=values,
    )


def _entries(
    model: type[Model], keys: ModelKeys, values: Mapping[str, Any], occupied: Mapping[str, Any], renamed: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    entries: list[Any] = []
    payloads: list[Any] = []
    earlier = {new: old for old, new in renamed}
    for slot, kind, base, make in model._meta.slot_heads(keys):
        made = make(values)
        if made is None:
            continue
        field, mark, role = slot.partition("#")
        stored = slot in occupied or f"{earlier.get(field, field)}{mark}{role}" in occupied
        if made[2] is KEEP and not stored:
            continue  # what only keeps, with nothing to keep
        entries.append((slot, kind, base, made[0], made[1]))
        payloads.append(KEEP if made[2] is None else made[2])
    return entries, payloads


def _refuse_claims(meta: ModelOptions, entries: Sequence[Any], occupied: Mapping[str, Any]) -> None:
    """Refuse a unique value that has to be claimed across shards, which is more than one step.

    Raises: ModelException.
    """
    own = {slot.name for slot in meta.slots if slot.parts == (meta.shard_by,)}
    after = _by_slot(pack(entries))
    for slot, kind, _, _, kept in entries:
        if kind in ("u", "tu") and kept is not True and slot not in own and occupied.get(slot) != after[slot]:
            raise ModelException(
                f"its unique value of '{slot}' would change, and on a cluster one that spans shards is not claimed in "
                "one step; save() the record instead"
            )


def _by_slot(packed: bytes | None) -> dict[str, Any]:
    """Return slot -> (kind, base, parts) of a packed occupancy; {} of one that cannot be read."""
    if packed is None:
        return {}
    try:
        entries = msgpack.unpackb(packed, raw=True, strict_map_key=False)
        return {slot.decode(): (kind, base, tuple(parts)) for slot, kind, base, parts, _ in entries}
    except (ValueError, TypeError, AttributeError):
        return {}
