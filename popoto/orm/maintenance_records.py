"""What a record should occupy, beside what it does: the comparison that check and rebuild are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from popoto.exceptions import ModelException
from popoto.orm.commands import Command
from popoto.orm.maintenance_walk import WORK, Catalog, Steps
from popoto.orm.plan import pack
from popoto.orm.scripts import Script
from popoto.orm.slots import KEEP

if TYPE_CHECKING:
    from popoto.orm.options import ModelOptions

UNDECLARED = b"+"  # what the name of a slot begins with that no save declares: it stays

CHECK_RECORDS = Script("popoto.orm", "check_records", with_kinds=True, flags="no-writes")


@dataclass(slots=True)
class Verdict:
    """What is wrong with one record's entries.

    Attributes:
        key: the record's.
        missing: entries that it should have and has not (its places among all records and in the order of names, its
            list of entries, its expiry included).
        stale: entries that it has, but under another value.
        partial: its auto key is missing: a write of single fields made it.
        unreadable: why its values cannot be read, or None.
        raws: the stored bytes of `RecordReader.names`.
        entries, payloads: what it should occupy, as lua/commit.lua takes them.
        implied: that follows from its key and texts, so that no list of it is needed (popoto.orm.shapes).
        needless: it has one all the same.
        foreign: sentences: keys of its entries that hold another type than the index keeps there.
    """

    key: str
    missing: int = 0
    stale: int = 0
    partial: bool = False
    unreadable: str | None = None
    raws: Sequence[bytes | None] = ()
    entries: list[Any] | None = None
    payloads: list[Any] | None = None
    implied: bool = False
    needless: bool = False
    foreign: Sequence[bytes] = ()

    @property
    def right(self) -> bool:
        return not (self.missing or self.stale or self.needless)


class RecordReader:
    """Reads records in batches and judges each.

    Attributes:
        names: the fields that the entries are made of.
    """

    def __init__(self, catalog: Catalog) -> None:
        meta: ModelOptions = catalog.meta
        self._catalog, self._meta = catalog, meta
        needed = {name for slot in meta.slots for name in (*slot.parts, *slot.source)} | set(meta.key_names)
        if meta.has_whole_slots:
            needed = set(meta.fields)
        self.names = [name for name in meta.fields if name in needed]
        auto = [name for name in meta.key_names if meta.fields[name].is_auto]
        self.auto_name = auto[0] if len(auto) == 1 else None
        self._heads = [
            (slot.name, slot.kind, catalog.keys.base(slot.prefix, slot.field_name), slot.make) for slot in meta.slots
        ]

    def read(self, records: Sequence[str]) -> Steps:
        """Read some records, in as many calls as their entries take; returns a Verdict for each stored as a hash."""
        verdicts: list[Verdict] = []
        while records:
            found = yield self._command(records)
            verdicts += [self._judged(k, row) for k, row in zip(records, found, strict=False) if isinstance(row, list)]
            records = records[len(found) :]
        return verdicts

    def _command(self, records: Sequence[str]) -> Command[Any]:
        request = {"records": list(records), "fields": self.names, "prefix": self._catalog.prefix, "most": WORK}
        return Command((*self._catalog.keys.home, pack(request)), script=CHECK_RECORDS, key_count=4)

    def _judged(self, key: str, found: list[Any]) -> Verdict:
        raws, occupancy, in_class, in_order, expiry, lies, lasting, foreign = found
        verdict = Verdict(key, raws=raws, foreign=foreign)
        if self.auto_name is not None and not raws[self.names.index(self.auto_name)]:
            verdict.partial = bool(in_class)
            verdict.unreadable = None if verdict.partial else f"it has no field '{self.auto_name}'"
            return verdict
        try:
            values = self._values(raws)
            verdict.entries, verdict.payloads = self._expected(values)
        except ModelException as error:
            verdict.unreadable = str(error)
            return verdict
        verdict.missing = (not in_class) + (not in_order) + (expiry == 1) + (not occupancy)
        verdict.stale = int(expiry == 2)
        self._compare(verdict, occupancy, lies)
        verdict.implied = self._implies(verdict, values, raws)
        verdict.needless = verdict.implied and bool(lasting)
        return verdict

    def _values(self, raws: Sequence[bytes | None]) -> dict[str, Any]:
        """Return the values as a load gives them; a default that is called anew at each load counts as None.

        Raises: ModelException: a key field is missing, or a value cannot be read.
        """
        fields = self._meta.fields
        values: dict[str, Any] = {}
        for name, raw in zip(self.names, raws, strict=True):
            field = fields[name]
            if raw is not None:
                try:
                    values[name] = field.decode(raw)
                except ValueError as error:
                    raise ModelException(f"the stored value of field '{name}' cannot be read: {error}") from None
            elif field.is_key:
                raise ModelException(f"it has no key field '{name}'")
            else:
                values[name] = None if callable(field.default) and field.in_hash else field.missing_value()
        return values

    def _expected(self, values: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
        entries: list[Any] = []
        payloads: list[Any] = []
        for slot_name, kind, base, make in self._heads:
            made = make(values)
            if made is not None:
                entries.append((slot_name, kind, base, made[0], made[1]))
                payloads.append(made[2])
        return entries, payloads

    def _implies(self, verdict: Verdict, values: Mapping[str, Any], raws: Sequence[bytes | None]) -> bool:
        """Return True when what the record should occupy follows from its key and the texts that are stored."""
        shape = self._meta.shape(self._catalog.keys)
        if shape is None or None in raws:
            return False
        return shape.texts(verdict.key, values, verdict.entries or (), verdict.payloads or ()) is not None

    def _leave_out(self, verdict: Verdict, by_slot: Mapping[bytes, Any]) -> None:
        """Leave out the entries that a record only keeps: one that says KEEP of itself, and has nothing stored."""
        made = zip(verdict.entries or (), verdict.payloads or (), strict=True)
        kept = [(entry, payload) for entry, payload in made if payload is not KEEP or entry[0].encode() in by_slot]
        verdict.entries = [entry for entry, _ in kept]
        verdict.payloads = [KEEP if payload is None else payload for _, payload in kept]

    def _compare(self, verdict: Verdict, occupancy: Any, lies: list[Any]) -> None:
        """Count the entries that differ: what is occupied, and whether it lies there, against what should be."""
        occupied = msgpack.unpackb(occupancy, raw=True, strict_map_key=False) if isinstance(occupancy, bytes) else []
        by_slot = {entry[0]: (entry, lie) for entry, lie in zip(occupied, lies, strict=True)}
        self._leave_out(verdict, by_slot)
        wanted = msgpack.unpackb(pack(verdict.entries), raw=True, strict_map_key=False)
        for entry, payload in zip(wanted, verdict.payloads or (), strict=True):
            stored, lie = by_slot.pop(entry[0], (None, 0))
            if stored is None or lie == 0:
                verdict.missing += 1
            elif stored != entry or (isinstance(lie, bytes) and not _same_score(lie, payload)):
                verdict.stale += 1
        verdict.stale += sum(not slot.startswith(UNDECLARED) for slot in by_slot)


def _same_score(text: bytes, payload: Any) -> bool:
    if payload is KEEP or not isinstance(payload, (int, float)):
        return True
    stored = float(text)
    return stored == payload or (math.isnan(stored) and math.isnan(payload))


def sentence_of(line: bytes) -> str:
    """Return a refusal of the server without its code."""
    code, _, sentence = line.decode("utf-8", "replace").partition(" ")
    return sentence if code.isupper() else line.decode("utf-8", "replace")
