"""What a field keeps beside the record: a slot is one place in which an index knows each record.

A field declares its slots; the model turns them into the entries of a save, and the server (lua/commit.lua) removes
exactly what the stored record occupied and the new one does not. A field of a user's own may declare slots in the same
way, of the kinds that exist (set, unique set, ordered set, companion hash) or of a kind of its own
(`popoto.orm.scripts.register_kind`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

KEEP = False  # a payload: keep what is stored

Made = tuple[list[str], "str | bool", Any]
"""(parts of the key, kept, payload): see lib_record.lua. Payload KEEP keeps the stored one."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One index entry that each record may have.

    Attributes:
        name: unique within the model; `field` or `field#role`.
        kind: entry kind: "s" set, "u" unique, "t" text, "tu" unique text, "z" ordered set, "h" companion hash, ...
        prefix: key prefix, e.g. "$KeyF".
        field_name: the field in the key.
        parts: names of the fields whose values make the parts of the key, in order.
        source: names of further fields that `kept` and the payload come from.
        make: from the record's values (name -> value) to the entry, or None when the record has none.
    """

    name: str
    kind: str
    prefix: str
    field_name: str
    parts: tuple[str, ...]
    source: tuple[str, ...]
    make: Callable[[Mapping[str, Any]], Made | None]

    whole: ClassVar[bool] = False  # True: it depends on the record as a whole, in a way that nobody can name

    def touched_by(self, names: frozenset[str]) -> bool:
        """Return True when a partial save of these fields changes the entry."""
        return not names.isdisjoint(self.parts) or not names.isdisjoint(self.source)


class WholeSlot(Slot):
    """A slot that depends on the whole record, as a function of the user's sees it.

    Each save writes it anew, partial ones too. As for any slot that a partial save makes anew from fields that it does
    not name, the save is refused (STALE) where one of these is stored otherwise than the caller has it;
    `popoto.orm.partial_save` then saves on what is stored.
    """

    __slots__ = ()

    whole: ClassVar[bool] = True

    def touched_by(self, names: frozenset[str]) -> bool:
        return True


def mixin_slots(model: type) -> list[Slot]:
    """Return the slots that a model has beside those of its fields.

    A mixin declares them by a class method `record_slots()`; those of all bases count.
    """
    declared = (vars(base).get("record_slots") for base in model.__mro__)
    return [slot for method in declared if method is not None for slot in method.__get__(None, model)()]
