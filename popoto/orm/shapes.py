"""What a record occupies, where that need not be kept: it follows from the record's key and the texts in its hash.

Most records of a model differ in these alone. So the server keeps what all of them have in common once, the model's
shape, and nothing at all beside such a record (lua/lib_occupancy.lua). This module says which models have a shape, and
which saves fit it.

A slot is in the shape when its entry is a place in a set or an ordered set, and each part of its key is

- a part of the record's key (key fields of text), or
- the text of an indexed field, as it is: the field's list of texts (`...::values`) then leads to the entry where the
  hash does not, because another program has changed or deleted it.

A model with any other slot (an IndexedField of numbers, a Relationship, a memory field) has no shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgpack

from popoto.orm.slots import KEEP, Slot

if TYPE_CHECKING:
    from popoto.orm.options import ModelOptions

_SETS = frozenset({"s", "u", "t", "tu"})
_WITH_TEXTS = frozenset({"t", "tu"})


class Shape:
    """The shape of a model, for the keys of one namespace.

    Attributes:
        packed: as the server keeps it: a list of [slot, kind, base key, origin].
        size: how many slots it has.
    """

    __slots__ = ("_origins", "packed", "size")

    def __init__(self, origins: Mapping[str, Any], heads: Sequence[tuple[str, str, str, Any]]) -> None:
        self._origins, self.size = origins, len(heads)
        rows = [[name, kind, base, origins[name]] for name, kind, base, _ in heads]
        self.packed: bytes = msgpack.packb(rows, use_bin_type=False)

    def texts(
        self, record_key: str, values: Mapping[str, Any], entries: Sequence[Any], payloads: Sequence[Any]
    ) -> list[Any] | None:
        """Return which entries of a full save follow from a text: their numbers, from 1, and fields; a flat list.

        None where an entry follows neither from a text nor from the record's key.
        """
        parts = record_key.split(":")
        flat: list[Any] = []
        for number, (name, kind, _, made, kept) in enumerate(entries, 1):
            origin = self._origins[name]
            if kept is not False or (kind == "z" and payloads[number - 1] is KEEP):
                return None
            if type(origin) is str:
                if made[0] != values[origin]:
                    return None
                flat += (number, origin)
            elif made != [parts[at] for at in origin]:
                return None
        return flat

    def texts_of_partial(
        self, values: Mapping[str, Any], plan: Mapping[str, Any], entries: Sequence[Any]
    ) -> list[Any] | None:
        """Return the same of a partial save: what it does not name follows from the key, as before."""
        flat: list[Any] = []
        for number, (name, kind, _, made, kept) in enumerate(entries, 1):
            origin, keep = self._origins[name], plan["keeps"][number - 1]
            if not keep and (kept is not False or (kind == "z" and plan["payload"][number - 1] is KEEP)):
                return None
            if type(origin) is str:
                if made[0] != values[origin]:
                    return None
                flat += (number, origin)
        return flat


def origins_of(meta: ModelOptions) -> dict[str, Any] | None:
    """Return where the parts of each slot's entry come from; None for a model without a shape.

    An origin is a list of places in the record's key, counted from its end (-1 is the last), or the field whose text is
    the only part.
    """
    origins: dict[str, Any] = {}
    for slot in meta.slots:
        origin = _origin(slot, meta)
        if origin is None:
            return None
        origins[slot.name] = origin
    return origins


def _origin(slot: Slot, meta: ModelOptions) -> Any:
    fields = [meta.fields.get(part) for part in slot.parts]
    if slot.whole or any(field is None or field.type is not str for field in fields):
        return None
    if slot.kind not in _SETS and slot.kind != "z":
        return None
    if all(part in meta.key_names for part in slot.parts):
        return [meta.key_names.index(part) - len(meta.key_names) for part in slot.parts]
    return slot.parts[0] if slot.kind in _WITH_TEXTS and len(slot.parts) == 1 else None


def imply(
    shape: Shape, plan: dict[str, Any], record_key: str, values: Mapping[str, Any], entries: Sequence[Any]
) -> None:
    """Tell the server, in the plan of a save, what it can do without keeping (lua/commit.lua)."""
    if plan.get("expire", ("persist",))[0] != "persist":
        return  # what expires needs a list
    if "partial" in plan:
        texts = shape.texts_of_partial(values, plan, entries)
    else:
        texts = shape.texts(record_key, values, entries, plan["payload"])
    if texts is not None:
        plan["shape"] = shape.packed
        if "partial" in plan or len(entries) == shape.size:
            plan["texts"] = texts
