"""Migration: bring the stored records of a model to its new definition, while programs read and write.

It walks all records in the order of their keys, in batches. Of each it computes what the steps and the new model make
of it: fields, key, index entries. One script call then writes that, if the record still is what was read
(lua/migrate.lua); if a program has changed it meanwhile, it is read and computed again. So each record is changed in
one atomic step, no write of a program is lost, and at every moment each record is as it was or as it is to be.

How far the walk is stands in a hash on the server. A migration that was killed goes on from there; what the batch at
hand had done already is recognised by its content. Two round trips a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from popoto import redis_db
from popoto.exceptions import ModelException
from popoto.migrations.conversion import Conversion, converted
from popoto.migrations.dry_run import Clashes, note_change
from popoto.migrations.report import FINISHED, INCOMPLETE, PLANNED, RUNNING, Report, together
from popoto.migrations.steps import RenameModel, Step
from popoto.migrations.stored import Row, Stored, field_bytes, field_text
from popoto.orm import shards
from popoto.orm.commands import Command, hash_of
from popoto.orm.drivers import adrive, drive
from popoto.orm.event_stream import with_events
from popoto.orm.keys import ModelKeys, model_keys
from popoto.orm.plan import pack
from popoto.orm.scripts import Script

if TYPE_CHECKING:
    from popoto.orm.model import Model

MIGRATE = Script("popoto.migrations", "migrate", with_kinds=True)
MIGRATE_LOGGED = with_events(MIGRATE)

ATTEMPTS: Final = 100  # how often a record that programs change all the time is computed anew

Progress = Callable[[int, int], Any]
"""Called after each batch with (records seen, records there are)."""

Steps = Generator[Any, Any, Any]


class Migration:
    """What has to be done to a model's stored records so that they fit its class as it is now.

    Args:
        name: names it on the server, within the model; a new migration needs a new name.
        model: the model as it is to be.
        steps: what happens to each record, in this order. Keys and index entries follow from the model: a migration
            without steps computes them anew.
        batch_size: records a batch.
    Raises: ModelException: a step does not fit the model.
    """

    def __init__(self, name: str, model: type[Model], steps: Sequence[Step] = (), batch_size: int = 500) -> None:
        if not isinstance(name, str) or not name:
            raise ModelException(f"Migration: name= expected a text, got {name!r}.")
        if not hasattr(model, "_meta") or model._meta.abstract:
            raise ModelException(f"Migration '{name}': model= expected a model that is not abstract, got {model!r}.")
        if type(batch_size) is not int or batch_size < 1:
            raise ModelException(f"Migration '{name}': batch_size= expected a positive number, got {batch_size!r}.")
        self.name, self.model, self.steps, self.batch_size = name, model, tuple(steps), batch_size
        try:
            for step in self.steps:
                step.bind(model._meta)
        except ModelException as error:
            raise ModelException(f"Migration '{name}': {error}") from None

    def __repr__(self) -> str:
        return f"<Migration {self.name} of {self.model.__name__}>"

    # -- calls --------------------------------------------------------------------------------------------------------

    def plan(self, progress: Progress | None = None) -> Report:
        """Say what `run()` would do, and which records it could not convert; writes nothing.

        Keys and unique values that two records would get are among the problems.
        """
        report: Report = drive(self._everywhere(self._plan, progress))
        return report

    async def async_plan(self, progress: Progress | None = None) -> Report:
        """Await `plan()`."""
        report: Report = await adrive(self._everywhere(self._plan, progress))
        return report

    def run(self, progress: Progress | None = None, again: bool = False) -> Report:
        """Convert all records; go on where an earlier run ended before it was done.

        A record that cannot be converted stays as it is and is in the report; the next run tries it again. A migration
        that is finished is not walked again.

        Args:
            progress: called after each batch with (records seen, records there are).
            again: walk a finished one again, for what programs with the old model have written since.
        Raises: ModelException: a key of the model holds something else. redis-py's errors: the connection;
            run it again.
        """
        report: Report = drive(self._everywhere(partial(self._run, again=again), progress))
        return report

    async def async_run(self, progress: Progress | None = None, again: bool = False) -> Report:
        """Await `run()`."""
        report: Report = await adrive(self._everywhere(partial(self._run, again=again), progress))
        return report

    def status(self) -> Report | None:
        """Return how far the migration is, in whatever process it runs; None if it was never run."""
        report: Report | None = drive(self._everywhere(self._status))
        return report

    async def async_status(self) -> Report | None:
        """Await `status()`."""
        report: Report | None = await adrive(self._everywhere(self._status))
        return report

    def _everywhere(self, part: Callable[[Progress | None], Steps], progress: Progress | None = None) -> Steps:
        """Do it in each shard of the model (popoto.orm.shards; off a cluster there is one), and return one report."""
        counts: list[tuple[int, int]] = []

        def make() -> Steps:
            place = len(counts)
            counts.append((0, 0))

            def told(done: int, total: int) -> None:
                counts[place] = (done, total)
                if progress is not None:
                    progress(sum(done for done, _ in counts), sum(total for _, total in counts))

            return part(told)

        reports = yield from shards.spread(self.model._meta, {}, make)
        return together(reports)

    # -- dry run ------------------------------------------------------------------------------------------------------

    def _plan(self, progress: Progress | None) -> Steps:
        stored = Stored(self._source(), self.batch_size)
        of_class, of_order = yield stored.sizes()
        report = Report(self.name, PLANNED, max(of_class, of_order), steps=self._no_steps())
        clashes = Clashes(self.model)
        while (rows := (yield from stored.scan(whole=of_order >= of_class))) is not None:
            conversions = self._conversions(rows, report)
            for conversion in conversions:
                note_change(report, conversion, self.model)
                clashes.take(conversion)
            moved = [c.new_key for c in conversions if c.new_key != c.key]
            if moved:
                there = yield [Command(("EXISTS", key)) for key in moved]
                clashes.exist(key for key, found in zip(moved, there, strict=True) if found)
            self._seen(report, len(rows))
            if progress is not None:
                progress(report.seen, report.total)
        for key, reason in clashes.found():
            report.fails(key, reason)
        return report

    # -- run ----------------------------------------------------------------------------------------------------------

    def _run(self, progress: Progress | None, again: bool) -> Steps:
        source = self._source()
        stored = Stored(source, self.batch_size)
        report, cursor, end = yield from self._opened(stored, again)
        if report.state == FINISHED:
            return report
        while True:
            before, refused = report.migrated, 0
            rows = (yield stored.after(cursor, end)) if end else []
            while rows:
                refused += yield from self._convert(rows, stored, source, report, end)
                cursor = rows[-1].key
                self._seen(report, len(rows))
                _, rows = yield [self._note(report, cursor), stored.after(cursor, end)]
                if progress is not None:
                    progress(report.seen, report.total)
            # what the server refused may be possible now: a key or a unique value that another record has given up
            if not refused or report.migrated == before:
                break
            report.failed, report.problems, report.seen, cursor = 0, [], 0, ""
        report.state = INCOMPLETE if report.failed else FINISHED
        report.seen = report.total = max(report.seen, report.total)
        _, held = yield [self._note(report, ""), Command(("HGETALL", self._progress_key()), hash_of)]
        report.migrated, report.moved = int(held.get(b"migrated", 0)), int(held.get(b"moved", 0))
        return report

    def _convert(self, rows: list[Row], stored: Stored, source: ModelKeys, report: Report, end: str) -> Steps:
        """Convert a batch; return how many the server refused."""
        keys, last, refused = self.model._meta.keys, field_bytes(rows[-1].key), 0
        for _ in range(ATTEMPTS):
            wanted = [c for c in self._conversions(rows, report) if c.needed]
            if not wanted:
                return refused
            outcomes = yield [self._command(conversion, source) for conversion in wanted]
            changed = []
            for conversion, outcome in zip(wanted, outcomes, strict=True):
                if outcome == b"done":
                    report.migrated += 1
                    report.moved += conversion.new_key != conversion.key
                    if source is keys and last < field_bytes(conversion.new_key) <= field_bytes(end):
                        report.seen -= 1  # it will be met again, further on
                    for step in conversion.steps:
                        report.steps[str(step)] += 1
                elif outcome == b"changed":
                    changed.append(conversion.key)
                elif outcome != b"gone":
                    refused += 1
                    report.fails(conversion.key, outcome[0].decode("utf-8", "replace").partition(" ")[2])
            if not changed:
                return refused
            rows = yield stored.read(keys=[field_bytes(key) for key in changed])
        for key in changed:
            report.fails(key, f"others changed it {ATTEMPTS} times while it was converted; run the migration again")
        return refused

    def _conversions(self, rows: Sequence[Row], report: Report) -> list[Conversion]:
        """Compute the conversions of records; those that cannot be converted go into the report."""
        keys, found = self.model._meta.keys, []
        for row in rows:
            if row.held == "none":
                continue  # deleted or expired
            if row.held != "hash":
                report.fails(row.key, f"the key holds a {row.held}, where a record is a hash")
                continue
            try:
                found.append(converted(self.model, keys, self.steps, row.key, row.raw, row.occupancy))
            except ModelException as error:
                report.fails(row.key, str(error))
        return found

    def _command(self, conversion: Conversion, source: ModelKeys) -> Command[Any]:
        meta = self.model._meta
        keys, script = meta.keys, MIGRATE
        request = {
            "key": conversion.new_key,
            "read": [part for name, raw in conversion.read.items() for part in (field_bytes(name), raw)],
            "unset": [field_bytes(name) for name in conversion.removed],
            "renamed": conversion.renamed,
        }
        plan: dict[str, Any] = {
            "hash": [part for name, raw in conversion.written.items() for part in (field_bytes(name), raw)],
            "payload": conversion.payloads,
        }
        if meta.stream is not None:
            touched = [*conversion.written, *conversion.removed]
            plan["event"], script = meta.stream.event(keys, ",".join(touched), conversion.values), MIGRATE_LOGGED
        args = (conversion.key, *keys.home[:3], *source.home[:3], self._progress_key(), keys.sentinel)
        packed = (pack(request), pack(plan), pack(conversion.entries))
        return Command((*args, *packed), script=script, key_count=9)

    # -- how far it is ------------------------------------------------------------------------------------------------

    def _source(self) -> ModelKeys:
        """Return the keys of the model as it was called before."""
        for step in self.steps:
            if isinstance(step, RenameModel):
                if redis_db.on_cluster():
                    raise ModelException(
                        f"Migration '{self.name}': on a cluster the records of {step.old} and of "
                        f"{self.model._meta.model_name} lie in different slots, so that none can move in one step. "
                        f"Keep the name in the store: give the class Meta.key_name = '{step.old}'."
                    )
                return model_keys(redis_db.key_namespace(), step.old)
        return self.model._meta.keys

    def _progress_key(self) -> str:
        return self.model._meta.keys.migration(self.name)

    def _no_steps(self) -> dict[str, int]:
        return {str(step): 0 for step in self.steps}

    def _opened(self, stored: Stored, again: bool) -> Steps:
        """Return (report, where to go on, where to end) of an earlier run, or of one that begins now.

        The walk ends at what is the last record when it begins: what lies behind it then is new.
        """
        held, *sizes = yield [Command(("HGETALL", self._progress_key()), hash_of), *stored.sizes()]
        steps = "; ".join(map(str, self.steps))
        same = held.get(b"steps") == steps.encode()
        if same and (held[b"state"] == RUNNING.encode() or (held[b"state"] == FINISHED.encode() and not again)):
            return self._report(held), field_text(held[b"cursor"]), field_text(held[b"end"])
        if sizes[1] < sizes[0]:
            yield stored.fill_order()
        end = yield stored.last()
        report = Report(self.name, RUNNING, max(sizes), steps=self._no_steps())
        if held and not same:  # another migration of this name
            yield Command(("DEL", self._progress_key()))
        yield self._note(report, "", "steps", steps, "total", report.total, "end", field_bytes(end))
        return report, "", end

    def _note(self, report: Report, cursor: str, *more: Any) -> Command[Any]:
        pairs = ("state", report.state, "cursor", field_bytes(cursor), "seen", report.seen, "failed", report.failed)
        return Command(("HSET", self._progress_key(), *pairs, *more))

    def _status(self, progress: Progress | None) -> Steps:
        held = yield Command(("HGETALL", self._progress_key()), hash_of)
        return self._report(held) if held else None

    def _report(self, held: dict[bytes, bytes]) -> Report:
        report = Report(self.name, held[b"state"].decode(), steps=self._no_steps())
        for name in ("total", "seen", "migrated", "moved", "failed"):
            setattr(report, name, int(held.get(name.encode(), 0)))
        return report

    @staticmethod
    def _seen(report: Report, count: int) -> None:
        report.seen += count
        report.total = max(report.total, report.seen)
