"""Index maintenance: check, clean and rebuild what a model keeps beside its records.

    check_indexes()    counts what is wrong; writes nothing
    clean_indexes()    removes what leads to no record, or to a record that does not occupy it
    rebuild_indexes()  makes every record occupy what its values say, then cleans

All three run while others read and write. They look at the store in slices, a call of some ms each, and each slice
decides and acts in one step on the server, so that a record saved meanwhile neither counts as a fault nor loses an
entry.

rebuild_indexes works in place: it reads a record, computes its entries, and one script puts those that are missing
and drops those that are wrong, unless the record has changed since it was read; then it is read again. At no moment
does an index lack a record that it had, so no query sees a hole. New indexes built beside the old ones and swapped in
would need twice the memory, and every save during the build would have to write both. A rebuild that is killed leaves
each record either as it was or right; run it again, and it passes over what is right.

For the author of a field or an entry kind: entries of the ORM's own kinds (sets, ordered sets, companion hashes) are
looked after wherever a field puts them. A kind of your own says in its fragment `kind_X.lua` what
lua/lib_maintenance.lua asks: `places` (what an entry takes up) and `owner` (the record that a member stands for) are
the usual two; a kind without them is passed over, none of its keys is touched. A key of it begins with the slot's base,
or is `record key::field`; if not, `maintenance_walk.register_bases` says what it begins with. A field's class attribute
`index_bucket` names the part of check_indexes's result in which its entries count; without it, the rules of
`maintenance_walk.bucket_of` do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from popoto.exceptions import ModelException
from popoto.orm import shards
from popoto.orm.drivers import adrive, drive
from popoto.orm.maintenance_clean import clean_steps
from popoto.orm.maintenance_rebuild import Rebuilt, rebuild_steps
from popoto.orm.maintenance_records import RecordReader, sentence_of
from popoto.orm.maintenance_walk import (
    BUCKETS,
    CHECK_PLACES,
    MOST,
    OTHER,
    Catalog,
    Steps,
    place_steps,
    scan_steps,
)
from popoto.orm.record import Record

logger = logging.getLogger("popoto.maintenance")

Progress = Callable[[int, int], Any]


class IndexMaintenance(Record):
    """What `Model` offers for its indexes; see the module."""

    class Meta:
        abstract = True

    @classmethod
    def check_indexes(cls, batch_size: int = 1000) -> dict[str, Any]:
        """Count what is wrong with the indexes; nothing is written.

        What a record left that has expired is no fault: no query or count sees it, and later writes remove it.

        Args:
            batch_size: records or index members looked at in one call, at most; so that no call
                holds the server long it is often less.
        Returns: a dict of counts; each field is named, also where it has none.
            class_set, order, expiry, occupancy: entries of the model's own keys that lead to no record
            key_fields, sorted_fields, geo_fields, composite_indexes, indexed_fields, relationships, lists,
                other_fields: {field name, or key of a composite index: index entries that lead to no record}
            partial_writes: records that lack their auto key
            stale: entries of a living record that it should not have, or under another value than it has
            missing: entries that a living record should have and has not; so are all entries of an index key that holds
                another type than the index keeps there, and the log names the key
            unreadable: records that hold bytes which are no values of their fields
            total: the sum
        Raises: ModelException: `batch_size` is no positive int; a key of the model holds something else.
        """
        return drive(_checked(cls, _batch(batch_size)))

    @classmethod
    async def async_check_indexes(cls, batch_size: int = 1000) -> dict[str, Any]:
        """Await `check_indexes()`."""
        return await adrive(_checked(cls, _batch(batch_size)))

    @classmethod
    def clean_indexes(cls, batch_size: int = 1000) -> int:
        """Remove the index entries that lead to no record, or to a living one that does not occupy them.

        Each is tested and removed in one step: a record that is saved meanwhile keeps its entries. What expired records
        left is removed as well, uncounted. What a record lacks is put back by `rebuild_indexes()` only.

        Args:
            batch_size: as in `check_indexes()`.
        Returns: how many entries were removed.
        Raises: ModelException: as in `check_indexes()`.
        """
        removed: int = drive(_cleaned(cls, _batch(batch_size)))
        return removed

    @classmethod
    async def async_clean_indexes(cls, batch_size: int = 1000) -> int:
        """Await `clean_indexes()`."""
        removed: int = await adrive(_cleaned(cls, _batch(batch_size)))
        return removed

    @classmethod
    def rebuild_indexes(cls, batch_size: int = 1000, progress: Progress | None = None) -> Rebuilt:
        """Make every record occupy what its values say, and remove what is left over.

        Safe on a living store: queries see no hole, writers lose nothing, and it may be killed and run again. It also
        opens a store of an earlier version, and clears what fields that the model no longer has have left.

        Args:
            batch_size: as in `check_indexes()`.
            progress: called after each step with (records done, records there are, about).
        Returns: how many records were processed: an int with the attributes `skipped` {record key: why it could not be
            indexed} and `conflicts` {record key: sentences: unique values that another record has already; index keys
            that hold something else}. Both are logged as well.
        Raises: ModelException: as in `check_indexes()`.
        """
        rebuilt: Rebuilt = drive(_rebuilt(cls, _batch(batch_size), progress))
        return rebuilt

    @classmethod
    async def async_rebuild_indexes(cls, batch_size: int = 1000, progress: Progress | None = None) -> Rebuilt:
        """Await `rebuild_indexes()`."""
        rebuilt: Rebuilt = await adrive(_rebuilt(cls, _batch(batch_size), progress))
        return rebuilt


def _batch(batch_size: int) -> int:
    """Return how much one call looks at.

    Raises: ModelException: no positive int.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise ModelException(f"batch_size= expected a positive whole number, got {batch_size!r}.")
    return min(batch_size, MOST)


# on a cluster a model may have several shards, each with indexes of its own


def _checked(model: Any, batch_size: int) -> Steps:
    found = yield from shards.spread(model._meta, {}, partial(_check_steps, model, batch_size))
    return (
        found[0]
        if len(found) == 1
        else shards.added(found or [_nothing(Catalog(model._meta, shards.some_keys(model._meta)))])
    )


def _cleaned(model: Any, batch_size: int) -> Steps:
    return sum((yield from shards.spread(model._meta, {}, partial(clean_steps, model, batch_size))))


def _rebuilt(model: Any, batch_size: int, progress: Progress | None) -> Steps:
    found = yield from shards.spread(model._meta, {}, partial(rebuild_steps, model, batch_size, progress))
    skipped = {key: why for part in found for key, why in part.skipped.items()}
    conflicts = {key: why for part in found for key, why in part.conflicts.items()}
    return found[0] if len(found) == 1 else Rebuilt.of(sum(found), skipped, conflicts)


def _check_steps(model: Any, batch_size: int) -> Steps:
    catalog = Catalog(model._meta, model._meta.keys)
    reader = RecordReader(catalog)
    result = _nothing(catalog)

    def count(faults: list[Any]) -> None:
        for job, dead, stale in faults:
            if job.index is None:
                result[job.bucket] += dead
            else:
                result[job.bucket][job.index.name] += dead
            result["stale"] += stale

    count((yield from place_steps(catalog, catalog.home, CHECK_PLACES, batch_size)))
    foreign: dict[str, None] = {}
    cursor, going = 0, True
    while going:
        cursor, found = yield from scan_steps(catalog, cursor, batch_size)
        going = cursor != 0
        size = catalog.slice_of(batch_size)
        for start in range(0, len(found.records), size):
            for verdict in (yield from reader.read(found.records[start : start + size])):
                result["partial_writes"] += verdict.partial
                result["stale"] += verdict.stale
                result["missing"] += verdict.missing
                if verdict.unreadable is not None:
                    result["unreadable"] += 1
                    logger.error("%s: %s", verdict.key, verdict.unreadable)
                foreign.update(dict.fromkeys(map(sentence_of, verdict.foreign)))
        count((yield from place_steps(catalog, found.jobs, CHECK_PLACES, batch_size)))
    for sentence in foreign:
        logger.error("%s: %s", catalog.meta.model_name, sentence)
    result["total"] = sum(sum(value.values()) if isinstance(value, dict) else value for value in result.values())
    return result


def _nothing(catalog: Catalog) -> dict[str, Any]:
    """Return the result in which nothing is wrong."""
    result: dict[str, Any] = {"class_set": 0, "partial_writes": 0}
    result.update({bucket: {} for bucket in (*BUCKETS, OTHER)})
    for index in catalog.indexes.values():
        result.setdefault(index.bucket, {})[index.name] = 0
    return {**result, "order": 0, "expiry": 0, "occupancy": 0, "stale": 0, "missing": 0, "unreadable": 0, "total": 0}
