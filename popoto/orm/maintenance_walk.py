"""Walking what a model keeps: its keys in the key space, told apart, and the members of its indexes.

One SCAN of the key space, in steps; the names tell what a key is:

    M:part...            a record             M:part...::$occ, M:part...::name   belongs to that record
    $Prefix:M:field...   belongs to an index

Whether a member of an index leads anywhere is asked of the server (lua/check_places.lua, lua/clean_places.lua), which
decides, and removes, in one step. A key with more members than one call visits is read by SSCAN, ZSCAN or HSCAN.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from popoto.orm.commands import Command
from popoto.orm.fields.base import Field
from popoto.orm.fields.indexed import SetIndex
from popoto.orm.keys import ModelKeys
from popoto.orm.plan import pack
from popoto.orm.scripts import Script
from popoto.orm.slots import Slot

if TYPE_CHECKING:
    from popoto.orm.options import ModelOptions

MOST = 1000  # keys of one step of the scan
WORK = 1000  # entries compared in one call: about 10 ms
COMPOSITE_PREFIX = "$Index"
BUCKETS = ("key_fields", "sorted_fields", "geo_fields", "composite_indexes", "indexed_fields", "relationships", "lists")
OTHER = "other_fields"

Steps = Generator[Any, Any, Any]

CHECK_PLACES = Script("popoto.orm", "check_places", with_kinds=True, flags="no-writes")
CLEAN_PLACES = Script("popoto.orm", "clean_places", with_kinds=True, flags="allow-oom")

_GLOB = re.compile(r"([\\*?\[\]])")
_SCANS = {b"set": "SSCAN", b"zset": "ZSCAN", b"hash": "HSCAN"}

_further_bases: dict[str, Callable[[str], list[str]]] = {}


def register_bases(kind: str, further: Callable[[str], list[str]]) -> None:
    """Say which keys of an entry kind do not begin with the base of its slot.

    Args:
        further: from that base to what those keys begin with.
    """
    _further_bases[kind] = further


@dataclass(frozen=True, slots=True)
class Index:
    """What maintenance knows of one slot.

    Attributes:
        bucket, name: where check_indexes counts it: result[bucket][name].
        base: its key without value or partition.
        kinds: the entry kinds that share the base.
    """

    bucket: str
    name: str
    base: str
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """One key to look at: see walk_places in lua/lib_maintenance.lua.

    Attributes:
        index: the slot it belongs to; None for one of the model's own keys, `bucket` then says where it counts.
        owner: the record that the whole key belongs to.
    """

    key: str
    bucket: str
    index: Index | None = None
    owner: str | None = None

    def packed(self, members: list[bytes] | None = None) -> list[Any]:
        index = self.index
        base, kinds = (False, ()) if index is None else (index.base, index.kinds)
        return [self.key, base, kinds, self.owner or False, members or False]


@dataclass(slots=True)
class Found:
    """Keys of one step of the scan, told apart."""

    records: list[str] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)


class Catalog:
    """The keys of a model: which there can be, and which index each belongs to.

    Args:
        dropped: also take keys of index fields that the model does not have any more.
    """

    def __init__(self, meta: ModelOptions, keys: ModelKeys, dropped: bool = False) -> None:
        self.meta, self.keys = meta, keys
        self.indexes = {slot.name: _index_of(meta, slot, keys) for slot in meta.slots}
        self._by_base: dict[str, Index] = {}
        for index in self.indexes.values():
            first = self._by_base.get(index.base, index)
            if first is not index:
                index = replace(first, kinds=(*first.kinds, *index.kinds))
            self._by_base[index.base] = index
            further = _further_bases.get(index.kinds[0])
            self._by_base.update(dict.fromkeys(further(index.base) if further else (), index))
        self._by_field = {slot.field_name: self.indexes[slot.name] for slot in meta.slots}
        self._prefixes = _prefixes_of(Field) if dropped else frozenset()
        self._start = keys.record + ":"
        self.home = [
            Job(keys.class_set, "class_set"),
            Job(keys.order, "order"),
            Job(keys.expiry, "expiry"),
        ]

    def slice_of(self, batch_size: int) -> int:
        """Return how many records or members one call looks at: each costs what its record has of entries."""
        return min(batch_size, max(20, WORK // (1 + len(self.meta.slots))))

    @property
    def prefix(self) -> str:
        """What a record's key begins with."""
        return self._start

    @property
    def pattern(self) -> str:
        """A glob that matches every key of the model (and perhaps others)."""
        namespace, model = (_GLOB.sub(r"\\\1", part) for part in (self.keys.namespace, self.keys.model))
        return f"{namespace}*{model}*"

    def sort(self, raw_keys: Iterable[bytes]) -> Found:
        """Tell the keys of one step apart; what is not the model's is left out."""
        found = Found()
        seen: set[bytes] = set()
        for raw in raw_keys:
            if raw in seen:
                continue
            seen.add(raw)
            try:
                key = raw.decode()
            except UnicodeDecodeError:
                continue
            if key.startswith(self._start):
                self._sort_record_key(key, found)
            elif key.startswith(self.keys.namespace + "$"):
                job = self._index_job(key)
                if job is not None:
                    found.jobs.append(job)
        return found

    def _sort_record_key(self, key: str, found: Found) -> None:
        if self.meta.holds(key):
            found.records.append(key)
            return
        owner, mark, name = key.rpartition("::")
        if mark and self.meta.holds(owner):
            if name == "$occ":
                found.jobs.append(Job(key, "occupancy", owner=owner))
            elif name in self._by_field:
                index = self._by_field[name]
                found.jobs.append(Job(key, index.bucket, index, owner))

    def _index_job(self, key: str) -> Job | None:
        base = key
        while base:
            index = self._by_base.get(base)
            if index is not None:
                return Job(key, index.bucket, index)
            base = base.rpartition(":")[0]
        parts = key[len(self.keys.namespace) :].split(":", 3)
        if len(parts) < 3 or parts[0] not in self._prefixes or parts[1] != self.keys.model:
            return None
        base = f"{self.keys.namespace}{parts[0]}:{parts[1]}:{parts[2]}"
        return Job(key, "stale", Index("stale", parts[2], base, ()))


def _index_of(meta: ModelOptions, slot: Slot, keys: ModelKeys) -> Index:
    base = keys.base(slot.prefix, slot.field_name)
    if slot.prefix == COMPOSITE_PREFIX:
        return Index("composite_indexes", base.removeprefix(keys.namespace), base, (slot.kind,))
    name = slot.name.partition("#")[0]
    return Index(bucket_of(meta.fields.get(name)), name, base, (slot.kind,))


def bucket_of(index_field: Field | None) -> str:
    """Return the bucket of check_indexes in which a field's entries count; a field may name it: `index_bucket`."""
    named = getattr(index_field, "index_bucket", None)
    if isinstance(named, str):
        return named
    if index_field is None:
        return OTHER
    if index_field.is_sorted:
        return "sorted_fields"
    if index_field.is_key:
        return "key_fields"
    family = {base.__name__ for base in type(index_field).__mro__}
    if "GeoField" in family:
        return "geo_fields"
    if "Relationship" in family:
        return "relationships"
    if "ListField" in family:
        return "lists"
    return "indexed_fields" if isinstance(index_field, SetIndex) else OTHER


def _prefixes_of(kind: type[Field]) -> frozenset[str]:
    """Return the key prefixes of the field classes that keep an index of sets."""
    found = {kind.field_class_key} if kind.slots is not Field.slots else set()
    return frozenset(found).union(*(_prefixes_of(sub) for sub in kind.__subclasses__()))


# -- steps (generators that yield commands; see popoto.orm.drivers) ----------------------------------------------------


def scan_steps(catalog: Catalog, cursor: Any, batch_size: int) -> Steps:
    """Return (next cursor, Found) of one step of the scan; the walk is over when the cursor is 0 again."""
    reply = yield Command(("SCAN", cursor, "MATCH", catalog.pattern, "COUNT", batch_size))
    return int(reply[0]), catalog.sort(reply[1])


def place_steps(catalog: Catalog, jobs: Sequence[Job], script: Script, batch_size: int) -> Steps:
    """Look at keys of indexes, with check_places or clean_places.

    Returns: for each job with a fault (job, places that lead to no record, places of records that lie elsewhere).
    """
    batch_size = catalog.slice_of(batch_size)
    faults: list[tuple[Job, int, int]] = []
    at = 0
    while at < len(jobs):
        some = jobs[at : at + batch_size]
        counts = yield _place_command(catalog, [job.packed() for job in some], script, batch_size)
        pairs = list(zip(counts[::2], counts[1::2], strict=True))
        for job, (dead, stale) in zip(some, pairs, strict=False):
            if dead == -1:
                dead, stale = yield from _large_steps(catalog, job, _SCANS[bytes(stale)], script, batch_size)
            if dead or stale:
                faults.append((job, dead, stale))
        at += len(pairs)
    return faults


def _large_steps(catalog: Catalog, job: Job, scan: str, script: Script, batch_size: int) -> Steps:
    """Look at a key in parts; returns (dead, stale)."""
    cursor, dead, stale = 0, 0, 0
    while True:
        reply = yield Command((scan, job.key, cursor, "COUNT", batch_size))
        cursor = int(reply[0])
        members = _members(reply[1], scan)
        if members:
            found = yield _place_command(catalog, [job.packed(members)], script, batch_size)
            dead, stale = dead + found[0], stale + found[1]
        if not cursor:
            return dead, stale


def _members(items: Any, scan: str) -> list[Any]:
    """Return the members as lua/lib_maintenance.lua takes them, in whichever form redis-py has put the reply."""
    if isinstance(items, dict):
        return [part for pair in items.items() for part in pair]
    if scan == "ZSCAN":
        return [item[0] for item in items] if items and isinstance(items[0], (tuple, list)) else list(items[::2])
    return list(items)


def _place_command(catalog: Catalog, jobs: list[Any], script: Script, batch_size: int) -> Command[Any]:
    request = {"jobs": jobs, "most": batch_size, "prefix": catalog.prefix}
    return Command((*catalog.keys.home, pack(request)), script=script, key_count=4)
