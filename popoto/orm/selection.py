"""Running a selection: slices of lua/select.lua, what Python must decide, and reading records."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import TYPE_CHECKING, Any

from popoto.orm import shards
from popoto.orm.commands import Command
from popoto.orm.counting import counted_by_index
from popoto.orm.drivers import Batch, relayed
from popoto.orm.fields.capped import read_into_dicts
from popoto.orm.keys import ModelKeys, shared_key
from popoto.orm.lookups import Compiled
from popoto.orm.nearest import Nearest
from popoto.orm.ordering import Found, Term, sort_found, term
from popoto.orm.reading import Reader, asked, decoded, name_of, names_of
from popoto.orm.related import Cohort, prefetch
from popoto.orm.slices import Slices

if TYPE_CHECKING:
    from popoto.orm.fields.geo import Near
    from popoto.orm.model import Model

GATHER = 4000  # matches that are collected and sorted in one call: about 10 ms
SLICE = 10_000  # members visited in one call
ROWS = 2000  # records read in one call: about 8 ms
READ_CHUNK = 2000  # records read by their keys in one round trip

Steps = Generator[Any, Any, None]


@dataclass(slots=True)  # never changed; not frozen, for those take three times as long to make
class Order:
    """How a selection is ordered.

    Attributes:
        key: ordered set that the server walks.
        low, high: the part of it that a range condition leaves, as bounds; None for all of it.
        descending: the server's order is reversed.
        field: the sorted field behind `key`, where its values may share a score.
        terms: what Python sorts by instead; () where the server's order is right.
        near: the centre by the distance from which results come instead; lua/nearest.lua does that where it can.
        computed: (function of a result, reverse): what Python sorts the results by at the end, or None.
    """

    key: str
    low: str | None = None
    high: str | None = None
    descending: bool = False
    field: str | None = None
    terms: tuple[Term, ...] = ()
    near: Near | None = None
    computed: tuple[Callable[[Any], Any], bool] | None = None


@dataclass(slots=True)  # as Order
class Selection:
    """Which records, in which order, how many, and as what.

    Steps are generators that yield commands; see popoto.orm.drivers. `keys` are those that the conditions were compiled
    for: the same filter compiled for the keys of several shards makes a selection for each.
    """

    model: type[Model]
    keys: ModelKeys
    compiled: Compiled
    order: Order
    offset: int = 0
    limit: int | None = None
    values: tuple[str, ...] | None = None
    strict: bool = False
    track: bool = False  # the records are handed out: tell the model (Record._returned_command)
    prefetch: tuple[list[str], ...] = ()
    cohort: Cohort = field(default_factory=Cohort, repr=False, compare=False)

    @property
    def in_python(self) -> bool:
        """True when the server cannot decide or order alone."""
        order = self.order
        ordered = not order.terms and (order.near is None or not self.shared)
        return self.compiled.tests is not None or not ordered

    @property
    def shared(self) -> list[str]:
        """Sets that must be empty for the server's answer to be exact."""
        order = [] if self.order.field is None else [shared_key(self.order.key)]
        return [*self.compiled.shared, *order]

    def by_value(self) -> Selection:
        """Return the same selection, decided and ordered by values instead of scores."""
        order = self.order
        compiled = self.compiled.loose or self.compiled
        if order.field is not None:
            sign = "-" if order.descending else ""
            order = replace(Order(self.keys.order), terms=(term(sign + order.field),))
        return replace(self, compiled=compiled, order=order)

    def whole(self) -> Selection:
        """Return all that match, whatever the order, offset and limit."""
        return Selection(self.model, self.keys, self.compiled, Order(self.keys.order))

    # -- steps --------------------------------------------------------------------------------------------------------

    def results(self) -> Steps:
        """Yield batches of instances, or of dicts when values are asked for."""
        if self.limit == 0:
            return
        if self.order.computed is not None:
            yield from self._computed_results()
            return
        asked_before = bool(self.compiled.first)
        sharing = yield from self.settled()
        if self.in_python or sharing:
            yield from self.by_value().results_by_value(asked_before)
            return
        part: Selection | None = self
        left = self.limit
        while part is not None:
            part, left = yield from part._part(left)

    def _part(self, left: int | None) -> Generator[Any, Any, tuple[Selection | None, int | None]]:
        """Yield the results of this part as batches, at most `left`.

        Returns: the part behind it, where the limit cut this one and some that it named turned out to be gone or
        corrupt, so that there is room for others; and how many may come of it.
        """
        reader = self.reader()
        slices = self._record_slices(reader)
        named = 0
        while slices.more:
            rows = yield slices.command()
            if slices.refused:
                yield from (
                    replace(self, offset=self.offset + slices.given, limit=left).by_value().results_by_value(True)
                )
                return None, left
            if isinstance(slices, Slices):
                items, named = (yield from reader.take(rows)), named + slices.named
            else:
                flat = iter(rows)
                items = reader.read((name_of(key), row) for key, row in zip(flat, flat, strict=True))
                named += len(rows) // 2
            if left is not None:
                items = items[:left]
                left -= len(items)
            yield from self.handed_out(items)
        if not left or named < (self.limit or 0):
            return None, left
        return replace(self, offset=self.offset + named, limit=max(left, min(2 * named + 64, ROWS))), left

    def collected(self, strict: bool = False) -> Generator[Any, Any, list[Any]]:
        """Return all results in one list.

        Raises: ModelException: with `strict`, a stored value is corrupt. (Else the record is left out and logged.)
        """
        items: list[Any] = []
        yield from relayed(replace(self, strict=strict).results(), items.extend)
        return items

    def _computed_results(self) -> Steps:
        """Read all, sort by the user's function, cut."""
        order = self.order
        assert order.computed is not None
        key, reverse = order.computed
        everything = replace(self, order=replace(order, computed=None), offset=0, limit=None, track=False)
        items = yield from everything.collected(self.strict)
        items.sort(key=key, reverse=reverse)
        stop = None if self.limit is None else self.offset + self.limit
        yield from replace(self, prefetch=()).handed_out(items[self.offset : stop])

    def reads_at_once(self, asked_before: bool) -> bool:
        """Return True when what is decided by value is read whole, since another round trip is needed besides."""
        lists = not self.model._meta.lists.keys().isdisjoint(self.values or ())
        return asked_before or lists

    def results_by_value(self, asked_before: bool) -> Steps:
        """Decide and order, then read the records; where another round trip is needed, read them in the same one."""
        rows: dict[str, Any] | None = {} if self.reads_at_once(asked_before) else None
        keys = yield from self._keys_by_value(rows)
        for start in range(0, len(keys), READ_CHUNK):
            chunk = keys[start : start + READ_CHUNK]
            if rows is not None and all(key in rows for key in chunk):
                yield from self.handed_out(self.reader().read((key, rows[key]) for key in chunk))
            else:
                yield from self.handed_out((yield from self.read(chunk)))

    def read(self, keys: Sequence[str]) -> Generator[Any, Any, list[Any]]:
        """Read these records in one round trip; what vanished or is corrupt is left out."""
        reader = self.reader()
        replies = yield reader.commands(keys)
        return reader.read(zip(keys, replies, strict=True))

    def settled(self) -> Generator[Any, Any, bool]:
        """Fill in what the conditions need to know before they can be asked.

        Returns: True when it was asked beside, and the order's values share scores.
        """
        first, order, sharing = self.compiled.first, self.order, 0
        while first:
            asked = [steps() for steps in first]
            first.clear()
            if order.field is not None:
                sharing = (yield from shards.in_step([_one(Command(("SCARD", shared_key(order.key)))), *asked]))[0]
            else:
                yield from asked[0] if len(asked) == 1 else shards.in_step(asked)
        return bool(sharing)

    def handed_out(self, items: list[Any]) -> Steps:
        """Yield results as a batch; before, tell the model of them and read what they point to."""
        if self.values is None and (self.model._meta.relationships or self.model._meta.lists):
            self.cohort.add(items)
            if self.prefetch:
                yield from prefetch(items, self.prefetch)
        if self.track and self.values is None and items:
            command = self.model._returned_command([item._saved_key for item in items])
            if command is not None:
                yield command
        if self.values is not None and not self.model._meta.lists.keys().isdisjoint(self.values):
            yield from read_into_dicts(self.model, items)
        yield Batch(items)

    def record_keys(self) -> Generator[Any, Any, list[str]]:
        """Return the keys of the matching records."""
        if self.limit == 0:
            return []
        if self.order.computed is not None:
            items = yield from replace(self, values=None, track=False, prefetch=()).collected()
            return [item._saved_key for item in items]
        sharing = yield from self.settled()
        if self.in_python or sharing:
            return (yield from self.by_value()._keys_by_value())
        found: list[str] = []
        slices = self.slices("keys")
        while slices.more:
            rows = yield slices.command()
            if slices.refused:
                return found + (yield from self._behind(slices.given).by_value()._keys_by_value())
            found.extend(names_of(rows))
        return found

    def count(self) -> Generator[Any, Any, int]:
        """Return how many records match, without offset and limit."""
        every = self.whole()
        yield from self.settled()
        if self.compiled.tests is not None:
            return len((yield from every.by_value().found_by_value()))
        if not self.compiled.shared:
            known = yield from counted_by_index(self.model._meta, self.keys, self.compiled.where)
            if known is not None:
                return known
        total = 0
        slices = every.slices("count")
        while slices.more:
            rows = yield slices.command()
            if slices.refused:
                return (yield from every.by_value().count())
            total += rows
        return total

    # -- parts --------------------------------------------------------------------------------------------------------

    def reader(self) -> Reader:
        """Return what makes results of the server's rows."""
        return Reader(self.model, self.values, self.compiled.near, self.strict, self.compiled.holds)

    def _record_slices(self, reader: Reader) -> Slices | Nearest:
        """Return the calls that answer this selection with what the reader makes results of."""
        if self.order.near is not None:
            return self.slices("fields", reader.asked)
        return Slices(self, "records", columns=reader.columns, gather=GATHER, slice=SLICE, rows=ROWS)

    def slices(self, out: str, fields: Iterable[str] = ()) -> Slices | Nearest:
        """Return the calls that answer this selection on the server."""
        if self.order.near is not None:
            return Nearest(self, out, fields, gather=GATHER, visit=SLICE, rows=ROWS)
        rows = ROWS if out == "fields" else SLICE
        return Slices(self, out, fields, gather=GATHER, slice=SLICE, rows=rows)

    def _behind(self, given: int) -> Selection:
        """Return what comes after the first `given` results."""
        limit = None if self.limit is None else self.limit - given
        return replace(self, offset=self.offset + given, limit=limit)

    def _keys_by_value(self, rows: dict[str, Any] | None = None) -> Generator[Any, Any, list[str]]:
        """Return the keys of the records that Python's tests accept, in Python's order, cut; `rows`: see below."""
        found = yield from self.found_by_value(rows)
        stop = None if self.limit is None else self.offset + self.limit
        return [key for key, _ in found[self.offset : stop]]

    def values_by_value(
        self,
        names: Iterable[str],
        enough: int | None = None,
        rows: int = 0,
        after: tuple[Any, Any] | None = None,
        whole: dict[str, Any] | None = None,
    ) -> Generator[Any, Any, None]:
        """Yield commands and, as batches, (key, values, score) of what Python's tests accept, in the server's order.

        Args:
            names: fields to read besides those that the tests look at.
            enough: stop when so many were accepted.
            rows: records a round trip, with their scores; 0: as many as are right, scores None.
            after: (score, member) to go on behind.
            whole: gets what `reader()` reads of those accepted, by key: of all, or under a limit of the first slice.
        """
        yield from self.settled()
        compiled, model = self.compiled, self.model
        needed = tuple(dict.fromkeys((*compiled.reads, *names)))
        marks = range(len(compiled.marks))
        every = Selection(model, self.keys, compiled, replace(self.order, near=None))
        capped = rows > 0
        lean = asked(model, needed)
        fields = lean if whole is None else [*lean, *self.reader().asked]
        slices = Slices(
            every, "fields", fields, gather=GATHER, slice=SLICE, exact=False, marks=compiled.marks,
            rows=rows or (SLICE if enough is None and whole is None else ROWS), capped=capped, after=after,
        )  # fmt: skip
        accepted = 0
        tests = compiled.tests
        while slices.more and (enough is None or accepted < enough):
            batch = []
            answer = yield slices.command()
            flat = iter(answer)
            scores = iter(slices.scores) if capped else repeat(None)
            for raw_key, raw, score in zip(flat, flat, scores, strict=False):
                key = name_of(raw_key)
                values = decoded(model, key, needed, raw[: len(lean)] if raw else raw)
                if values is None:
                    continue
                for number in marks:
                    values[number] = raw[len(raw) - len(marks) + number]
                if tests is None or tests(values):
                    batch.append((key, values, score))
                    if whole is not None:
                        whole[key] = raw[len(lean) : len(raw) - len(marks)]
            accepted += len(batch)
            if whole is not None and self.limit is not None:
                whole, slices.query["fields"], slices.query["rows"] = None, lean, SLICE if enough is None else ROWS
            yield Batch(batch)

    def found_by_value(self, whole: dict[str, Any] | None = None) -> Generator[Any, Any, list[Found]]:
        """Return (key, what it sorts by) of the records that Python's tests accept, in Python's order.

        Args:
            whole: see `values_by_value`.
        """
        order = self.order
        terms = order.terms
        names = [name for wanted in terms for name in wanted.names]
        if order.near is not None:
            names.append(order.near.field)
        unordered = not terms and order.near is None
        enough = self.offset + self.limit if unordered and self.limit is not None else None
        found: list[Found] = []

        def add(items: list[Any]) -> None:
            if order.near is not None:
                found.extend((key, (order.near.metres_to(values[order.near.field]),)) for key, values, _ in items)
            else:
                found.extend((key, tuple(wanted.key(values) for wanted in terms)) for key, values, _ in items)

        yield from relayed(self.values_by_value(names, enough, whole=whole), add)
        if order.near is not None:
            found.sort(key=lambda item: (item[1], item[0].encode()))
        elif terms:
            sort_found(found, terms)
        return found


def _one(command: Command[Any]) -> Generator[Any, Any, Any]:
    return (yield command)
