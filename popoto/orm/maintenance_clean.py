"""clean_indexes: remove the places of indexes that lead nowhere, each tested and removed in one step."""

from __future__ import annotations

from typing import Any

from popoto.orm.commands import Command
from popoto.orm.maintenance_records import RecordReader
from popoto.orm.maintenance_walk import CLEAN_PLACES, Catalog, Steps, place_steps, scan_steps
from popoto.orm.plan import pack
from popoto.orm.scripts import Script

CLEAN_PARTIAL = Script("popoto.orm", "clean_partial", with_kinds=True, flags="allow-oom")


def clean_steps(model: Any, batch_size: int, dropped: bool = False) -> Steps:
    """Clean the indexes of a model; returns how many places (and partial records) were removed.

    Args:
        dropped: also clear the indexes of fields that the model does not have any more.
    """
    catalog = Catalog(model._meta, model._meta.keys, dropped)
    reader = RecordReader(catalog)
    yield from _reap_steps(catalog)
    faults = yield from place_steps(catalog, catalog.home, CLEAN_PLACES, batch_size)
    removed = _sum(faults)
    cursor, going = 0, True
    while going:
        cursor, found = yield from scan_steps(catalog, cursor, batch_size)
        going = cursor != 0
        if reader.auto_name is not None:
            size = catalog.slice_of(batch_size)
            for start in range(0, len(found.records), size):
                verdicts = yield from reader.read(found.records[start : start + size])
                partial = [verdict.key for verdict in verdicts if verdict.partial]
                if partial:
                    deleted, _ = yield _partial_command(catalog, partial, reader.auto_name)
                    removed += deleted
        removed += _sum((yield from place_steps(catalog, found.jobs, CLEAN_PLACES, batch_size)))
    return removed


def _reap_steps(catalog: Catalog) -> Steps:
    left = 1
    while left:
        _, left = yield _partial_command(catalog, [], "")


def _partial_command(catalog: Catalog, records: list[str], auto: str) -> Command[Any]:
    return Command((*catalog.keys.home, pack({"records": records, "auto": auto})), script=CLEAN_PARTIAL, key_count=4)


def _sum(faults: list[Any]) -> int:
    return sum(dead + stale for _, dead, stale in faults)
