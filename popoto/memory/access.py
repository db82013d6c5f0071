"""AccessTrackerMixin: which records are read, in two stages, and how often that mattered.

A query stages a read of each record that it returns (one time a record, in one call for all of them). Whether the read
mattered shows later: `confirm_access()` moves the staged times to the record's log and adds them to its count,
`discard_staged_access()` forgets them. `ObservationProtocol.on_context_used()` does either by the outcome.

The counts stand in an ordered set, the signal "access_count" of `composite_score()`. All of it survives saves, follows
the record to another key and goes with it (lua/kind_access.lua).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from popoto.memory import clock
from popoto.memory.mixins import require_before_model
from popoto.memory.stored import require_stored, stored_keys
from popoto.orm.commands import Command, queue
from popoto.orm.drivers import arun, run
from popoto.orm.keys import ModelKeys
from popoto.orm.maintenance_walk import register_bases
from popoto.orm.scripts import Script, register_kind
from popoto.orm.slots import Made, Slot

_KIND = ("popoto.memory", "kind_access")
register_kind(*_KIND, "a")
register_bases("a", lambda base: [base.removesuffix("count") + name for name in ("staged", "access_log", "meta")])
FRAGMENTS = (("popoto.memory", "lib_claim"), _KIND)
STAGE = Script("popoto.memory", "stage_reads", FRAGMENTS, with_kinds=True)
CONFIRM = Script("popoto.memory", "confirm_reads", FRAGMENTS, with_kinds=True)
DISCARD = Script("popoto.memory", "discard_reads", FRAGMENTS, with_kinds=True)

PREFIX = "$AT"
SLOT = "@access"


class AccessTrackerMixin:
    """Counts the reads of a model's records that mattered: `class Memory(AccessTrackerMixin, Model)`.

    Attributes:
        _max_access_log: how many confirmed times a record keeps; the count goes on.
        _track_reads: False: queries stage nothing, only `on_read()` does.
    """

    _max_access_log: ClassVar[int] = 100
    _track_reads: ClassVar[bool] = True

    @classmethod
    def record_slots(cls) -> list[Slot]:
        """Return the index entry that each record has beside those of its fields.

        Raises: ModelException: the mixin stands behind Model among the bases.
        """
        require_before_model(cls, AccessTrackerMixin)

        def make(_: Mapping[str, Any]) -> Made | None:
            return [], False, None

        return [Slot(SLOT, "a", PREFIX, "count", (), (), make)]

    @classmethod
    def ranking_signals(cls, keys: ModelKeys) -> dict[str, str]:
        """Return the ordered sets that rankings may use, by name."""
        count = count_key(keys)
        return {"access_count": count, "access_score": count}

    @classmethod
    def _returned_command(cls, record_keys: Sequence[str]) -> Command[Any] | None:
        """Return what a query runs for the records that it returns; None where reads are not tracked."""
        return stage_command(cls, record_keys) if cls._track_reads else None

    def on_read(self, pipeline: Any = None) -> Any:
        """Stage a read of this record now; nothing where it is not stored. Queries call it for you.

        Returns: None, or the pipeline.
        """
        keys = stored_keys(self)
        if pipeline is not None:
            return queue(stage_command(type(self), keys), pipeline) if keys else pipeline
        if keys:
            run(stage_command(type(self), keys))
        return None

    async def async_on_read(self, pipeline: Any = None) -> Any:
        """Await `on_read()`."""
        keys = stored_keys(self)
        if pipeline is not None or not keys:
            return self.on_read(pipeline)
        await arun(stage_command(type(self), keys))
        return None

    def confirm_access(self, pipeline: Any = None) -> Any:
        """Move the staged reads to the log and add them to the count, atomically.

        Returns: how many they were (int), or the pipeline.
        Raises: TypeError: the record is not stored.
        """
        command = confirm_command(self)
        return run(command) if pipeline is None else queue(command, pipeline)

    async def async_confirm_access(self, pipeline: Any = None) -> Any:
        """Await `confirm_access()`."""
        command = confirm_command(self)
        return await arun(command) if pipeline is None else queue(command, pipeline)

    def discard_staged_access(self, pipeline: Any = None) -> Any:
        """Forget the staged reads; what is confirmed stays. Returns None, or the pipeline."""
        command = discard_command(self)
        return run(command) if pipeline is None else queue(command, pipeline)

    async def async_discard_staged_access(self, pipeline: Any = None) -> Any:
        """Await `discard_staged_access()`."""
        command = discard_command(self)
        return await arun(command) if pipeline is None else queue(command, pipeline)

    @property
    def access_count(self) -> int:
        """How many reads are confirmed, as the server has it: one round trip a look."""
        return run(_meta_command(self, "access_count", int)) or 0

    async def async_access_count(self) -> int:
        """Await `access_count`."""
        return await arun(_meta_command(self, "access_count", int)) or 0

    @property
    def last_accessed(self) -> float | None:
        """When the last confirmed read was, Unix seconds; None if there is none. One round trip a look."""
        found: float | None = run(_meta_command(self, "last_accessed", float))
        return found

    async def async_last_accessed(self) -> float | None:
        """Await `last_accessed`."""
        found: float | None = await arun(_meta_command(self, "last_accessed", float))
        return found


def count_key(keys: ModelKeys) -> str:
    """Return the ordered set of a model's records by confirmed reads."""
    return keys.base(PREFIX, "count")


def longest_log(model: Any) -> int:
    """Return how many times a record of the model keeps, at least 1."""
    return max(1, int(model._max_access_log))


def stage_command(model: Any, record_keys: Sequence[str]) -> Command[Any]:
    """Return the staging of one read of each of these records; those that are not stored are passed over."""
    keys = model._meta.keys_at(record_keys[0])
    args = (*record_keys, keys.sentinel, count_key(keys), repr(clock.now()), longest_log(model), "")
    return Command(args, script=STAGE, key_count=len(record_keys) + 1, repeat="token")


def confirm_command(instance: Any) -> Command[int]:
    """Return the confirmation of one record's staged reads.

    Raises: TypeError: it was never saved.
    """
    saved, keys = require_stored(instance, "confirm_access()")
    args = (saved, keys.sentinel, count_key(keys), longest_log(type(instance)), "")
    return Command(args, script=CONFIRM, key_count=2, repeat="token")


def discard_command(instance: Any) -> Command[None]:
    """Return the discarding of one record's staged reads."""
    keys = instance._meta.keys_at(instance.pk)
    args = (instance.pk, keys.sentinel, count_key(keys), "")
    return Command(args, lambda _: None, DISCARD, key_count=2, repeat="token")


def _meta_command(instance: Any, name: str, kind: type) -> Command[Any]:
    key = instance._meta.keys_at(instance.pk).base(PREFIX, "meta") + ":" + instance.pk
    return Command(("HGET", key, name), lambda raw: None if raw is None else kind(raw))
