"""rebuild_indexes: record by record, what it occupies becomes what its values say (lua/rebuild_records.lua)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from popoto.orm.commands import Command
from popoto.orm.maintenance_clean import clean_steps
from popoto.orm.maintenance_records import RecordReader, Verdict, sentence_of
from popoto.orm.maintenance_walk import WORK, Catalog, Steps, scan_steps
from popoto.orm.plan import pack
from popoto.orm.scripts import Script

logger = logging.getLogger("popoto.maintenance")

REBUILD_RECORDS = Script("popoto.orm", "rebuild_records", with_kinds=True)
ENTRIES = 500  # entries written in one call: about 10 ms
TRIES = 10  # readings of a record that changes each time before it is written; a save has then put it right


class Rebuilt(int):
    """How many records were processed.

    Attributes:
        skipped: record key -> why its values cannot be read; its entries are as they were.
        conflicts: record key -> sentences, one for each entry that could not be written: a unique value that another
            record has already, an index key that holds something else.
    """

    skipped: dict[str, str]
    conflicts: dict[str, list[str]]

    @classmethod
    def of(cls, count: int, skipped: dict[str, str], conflicts: dict[str, list[str]]) -> Rebuilt:
        rebuilt = cls(count)
        rebuilt.skipped, rebuilt.conflicts = skipped, conflicts
        return rebuilt


def rebuild_steps(model: Any, batch_size: int, progress: Callable[[int, int], Any] | None) -> Steps:
    """Rebuild the indexes of a model; returns a Rebuilt."""
    catalog = Catalog(model._meta, model._meta.keys, dropped=True)
    reader = RecordReader(catalog)
    skipped: dict[str, str] = {}
    conflicts: dict[str, list[str]] = {}
    there_are = (yield Command(("SCARD", catalog.keys.class_set))) if progress is not None else 0
    done, cursor, going = 0, 0, True
    while going:
        cursor, found = yield from scan_steps(catalog, cursor, batch_size)
        going = cursor != 0
        size = catalog.slice_of(batch_size)
        for start in range(0, len(found.records), size):
            some = found.records[start : start + size]
            done += yield from _batch_steps(catalog, reader, some, skipped, conflicts)
            if progress is not None:
                progress(done, max(done, there_are))
    yield from clean_steps(model, batch_size, dropped=True)
    return Rebuilt.of(done, skipped, conflicts)


def _batch_steps(
    catalog: Catalog,
    reader: RecordReader,
    records: Sequence[str],
    skipped: dict[str, str],
    conflicts: dict[str, list[str]],
) -> Steps:
    """Bring some records right; returns how many."""
    done = 0
    for _ in range(TRIES):
        verdicts = yield from reader.read(records)
        wrong: list[Verdict] = []
        for verdict in verdicts:
            if verdict.unreadable is not None or verdict.partial:
                skipped[verdict.key] = verdict.unreadable or f"it has no field '{reader.auto_name}'"
                logger.error("%s is not indexed: %s", verdict.key, skipped[verdict.key])
            elif verdict.right:
                done += 1
            else:
                wrong.append(verdict)
        changed: list[str] = []
        step = max(1, ENTRIES // max(1, len(catalog.indexes)))
        while wrong:
            outcomes = yield _rebuild_command(catalog, reader, wrong[:step])
            some, wrong = wrong[: len(outcomes)], wrong[len(outcomes) :]
            for verdict, outcome in zip(some, outcomes, strict=True):
                if outcome == b"changed":
                    changed.append(verdict.key)
                elif outcome != b"gone":
                    done += 1
                    if isinstance(outcome, list):
                        conflicts[verdict.key] = [sentence_of(line) for line in outcome]
                        for sentence in conflicts[verdict.key]:
                            logger.error("%s is not indexed in full: %s", verdict.key, sentence)
        if not changed:
            return done
        records = changed
    for key in records:
        skipped[key] = f"it changed {TRIES} times while it was being read"
        logger.error("%s is not indexed: %s", key, skipped[key])
    return done


def _rebuild_command(catalog: Catalog, reader: RecordReader, verdicts: Sequence[Verdict]) -> Command[Any]:
    shape = catalog.meta.shape(catalog.keys)
    records = [
        [
            verdict.key,
            [False if raw is None else raw for raw in verdict.raws],
            verdict.entries,
            verdict.payloads,
            shape is not None and verdict.implied and shape.packed,
        ]
        for verdict in verdicts
    ]
    request = {"records": records, "fields": reader.names, "prefix": catalog.prefix, "most": WORK}
    return Command((*catalog.keys.home, pack(request)), script=REBUILD_RECORDS, key_count=4)
