"""Running a selection: slices of lua/select.lua, what Python must decide, and reading records."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from popoto.exceptions import ModelException, QueryException
from popoto.orm.commands import Command, hash_of
from popoto.orm.drivers import Batch
from popoto.orm.fields.sorted import comparable
from popoto.orm.keys import ModelKeys, shared_key
from popoto.orm.lookups import Compiled
from popoto.orm.plan import pack
from popoto.orm.scripts import Script

if TYPE_CHECKING:
    from popoto.orm.model import Model

logger = logging.getLogger("popoto.query")

SELECT = Script("popoto.orm", "select", flags="no-writes")
COUNT = Script("popoto.orm", "count", flags="no-writes")
GATHER = 4000  # matches that are collected and sorted in one call: about 10 ms
SLICE = 10_000  # members visited in one call
ROWS = 2000  # records read in one call: about 8 ms
READ_CHUNK = 500

Steps = Generator[Any, Any, None]


@dataclass(frozen=True, slots=True)
class Order:
    """How a selection is ordered.

    Attributes:
        key: ordered set that the server walks.
        low, high: the part of it that a range condition leaves, as bounds; None for all of it.
        by: field that Python sorts by instead, or None.
        descending: exact reversal of ascending.
        field: the sorted field behind `key`, where its values may share a score.
    """

    key: str
    low: str | None = None
    high: str | None = None
    by: str | None = None
    descending: bool = False
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records, in which order, how many, and as what."""

    model: type[Model]
    keys: ModelKeys
    compiled: Compiled
    order: Order
    offset: int = 0
    limit: int | None = None
    values: tuple[str, ...] | None = None
    strict: bool = False

    @property
    def in_python(self) -> bool:
        """True when the server cannot decide or order alone."""
        return bool(self.compiled.tests) or self.order.by is not None

    @property
    def shared(self) -> list[str]:
        """Sets that must be empty for the server's answer to be exact."""
        order = [] if self.order.field is None else [shared_key(self.order.key)]
        return [*self.compiled.shared, *order]

    def by_value(self) -> Selection:
        """Return the same selection, decided and ordered by values instead of scores."""
        order = self.order
        if order.field is not None:
            order = Order(self.keys.order, by=order.field, descending=order.descending)
        return replace(self, compiled=self.compiled.loose or self.compiled, order=order)

    def whole(self) -> Selection:
        """Return all that match, whatever the order, offset and limit."""
        return Selection(self.model, self.keys, self.compiled, Order(self.keys.order))

    # -- steps (generators that yield commands; see popoto.orm.commands) ----------------------------------------------

    def results(self) -> Steps:
        """Yield batches of instances, or of dicts when values are asked for."""
        if self.limit == 0:
            return
        if self.in_python:
            yield from self.by_value()._results_by_value()
            return
        slices = Slices(self, "hash") if self.values is None else Slices(self, "fields", self._asked(self.values))
        while slices.more:
            rows = yield slices.command()
            if slices.refused:
                yield from self.by_value()._results_by_value()
                return
            flat = iter(rows)
            yield Batch(self._built((key.decode(), values) for key, values in zip(flat, flat, strict=True)))

    def collected(self, strict: bool = False) -> Generator[Any, Any, list[Any]]:
        """Return all results in one list.

        Raises: ModelException: with `strict`, a stored value is corrupt. (Else the record is left out and logged.)
        """
        steps = replace(self, strict=strict).results()
        items: list[Any] = []
        reply: Any = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration:
                return items
            if isinstance(step, Batch):
                items += step.items
                reply = None
            else:
                reply = yield step

    def _results_by_value(self) -> Steps:
        keys = yield from self._keys_by_value()
        for start in range(0, len(keys), READ_CHUNK):
            chunk = keys[start : start + READ_CHUNK]
            replies = yield [self._read_command(key) for key in chunk]
            yield Batch(self._built(zip(chunk, replies, strict=True)))

    def record_keys(self) -> Generator[Any, Any, list[str]]:
        """Return the keys of the matching records."""
        if self.limit == 0:
            return []
        if self.in_python:
            return (yield from self.by_value()._keys_by_value())
        found: list[str] = []
        slices = Slices(self, "keys")
        while slices.more:
            rows = yield slices.command()
            if slices.refused:
                return (yield from self.by_value()._keys_by_value())
            found.extend(key.decode() for key in rows)
        return found

    def count(self) -> Generator[Any, Any, int]:
        """Return how many records match, without offset and limit."""
        every = self.whole()
        if self.compiled.tests:
            return len((yield from every.by_value()._keys_by_value()))
        where = self.compiled.where
        if where[0] in ("all", "set", "range") and not self.compiled.shared and len(where) < READ_CHUNK:
            known: int | None = yield self._count_command(where)
            if known is not None:
                return known
        total = 0
        slices = Slices(every, "count")
        while slices.more:
            rows = yield slices.command()
            if slices.refused:
                return len((yield from every.by_value()._keys_by_value()))
            total += rows
        return total

    # -- parts --------------------------------------------------------------------------------------------------------

    def _keys_by_value(self) -> Generator[Any, Any, list[str]]:
        """Return the keys of the records that Python's tests accept, in Python's order, cut."""
        needed = list(self.compiled.tests)
        by = self.order.by
        if by is not None and by not in needed:
            needed.append(by)
        fields = self.model._meta.fields
        wanted = None if self.limit is None or by is not None else self.offset + self.limit
        found: list[tuple[str, Any]] = []
        every = Selection(self.model, self.keys, self.compiled, self.order)
        slices = Slices(every, "fields", self._asked(needed), exact=False)
        while slices.more and (wanted is None or len(found) < wanted):
            flat = iter((yield slices.command()))
            for raw_key, raw_values in zip(flat, flat, strict=True):
                key = raw_key.decode()
                values = self._decoded(key, needed, raw_values, fields)
                if values is not None and self.compiled.accepts(values):
                    found.append((key, values[by] if by is not None else None))
        if by is not None:
            found = _sorted_by_value(found, by, self.order.descending)
        stop = None if self.limit is None else self.offset + self.limit
        return [key for key, _ in found[self.offset : stop]]

    def _decoded(self, key: str, names: Iterable[str], raws: Any, fields: Any) -> dict[str, Any] | None:
        if raws is None or raws is False:
            logger.error("%s cannot be read (not a hash); skipped", key)
            return None
        values: dict[str, Any] = {}
        if not any(raw is not None for raw in raws):
            return None  # the record vanished
        for name, raw in zip(names, raws, strict=False):
            field = fields[name]
            try:
                values[name] = field.default_value() if raw is None else field.decode(raw)
            except ValueError as error:
                logger.error("%s: the stored value of field '%s' cannot be read: %s; skipped", key, name, error)
                return None
        return values

    def _count_command(self, where: list[Any]) -> Command[Any]:
        keys = self.keys
        return Command((keys.class_set, keys.expiry, keys.sentinel, *where), script=COUNT, key_count=3)

    def _read_command(self, key: str) -> Command[Any]:
        if self.values is None:
            return Command(("HGETALL", key))
        return Command(("HMGET", key, *self._asked(self.values)))

    def _asked(self, names: Iterable[str]) -> list[str]:
        """Return the fields to read: a key field behind those wanted tells a record from none."""
        return [*names, self.model._meta.key_names[0]]

    def _built(self, rows: Iterable[tuple[str, Any]]) -> list[Any]:
        """Return instances or dicts; a record that vanished meanwhile or is corrupt is left out and logged."""
        out: list[Any] = []
        fields = self.model._meta.fields
        for key, raw in rows:
            if self.values is not None:
                values = self._decoded(key, self.values, raw, fields)
                if values is not None:
                    out.append(values)
                continue
            if not raw:
                if raw is None or raw is False:
                    logger.error("%s cannot be read (not a hash); skipped", key)
                continue
            try:
                out.append(self.model._hydrated(key, hash_of(raw)))
            except ModelException as error:
                if self.strict:
                    raise
                logger.error("%s; skipped", error)
        return out


class Slices:
    """The calls of lua/select.lua for one selection; each goes on where the last one stopped.

    Attributes:
        more: True while there is another slice to ask for.
        refused: True when values share scores, so that the answer must be decided by value.
    """

    def __init__(self, selection: Selection, out: str, fields: Iterable[str] = (), exact: bool = True) -> None:
        order = selection.order
        self.more = True
        self.refused = False
        self._keys = selection.keys
        self._query: dict[str, Any] = {
            "where": selection.compiled.where if order.low is None else _without_range(selection.compiled.where, order),
            "order": order.key,
            "low": order.low or False,
            "high": order.high or False,
            "desc": order.descending,
            "offset": selection.offset,
            "limit": -1 if selection.limit is None else selection.limit,
            "out": out,
            "fields": list(fields),
            "after": False,
            "shared": selection.shared if exact else [],
            "gather": GATHER,
            "slice": SLICE,
            "rows": ROWS if out in ("hash", "fields") else SLICE,
        }

    def command(self) -> Command[Any]:
        """Return the next slice; its result is the rows."""
        return Command((*self._keys.home, pack(self._query)), self._rows, SELECT, key_count=4)

    def _rows(self, reply: Any) -> Any:
        if reply == b"shared":
            self.refused = True
            return None
        after, rows = reply
        self._query["shared"] = []  # asked once; what other writers store between two slices may go either way
        self.more = bool(after)
        if after:
            score, member, self._query["offset"], self._query["limit"] = after
            self._query["after"] = [score, member]
        return rows


def _without_range(where: list[Any], order: Order) -> list[Any]:
    """Leave out the range that the stretch of the order says already."""
    rest = [
        c for c in (where[1:] if where[0] == "and" else [where]) if c != ["range", order.key, order.low, order.high]
    ]
    return ["all"] if not rest else rest[0] if len(rest) == 1 else ["and", *rest]


def _sorted_by_value(found: list[tuple[str, Any]], by: str, descending: bool) -> list[tuple[str, Any]]:
    """Sort by value, None first, equal ones by key; descending is the exact reversal."""
    try:
        found.sort(key=lambda item: (False, 0, item[0]) if item[1] is None else (True, comparable(item[1]), item[0]))
    except TypeError as error:
        raise QueryException(f"order_by('{by}'): the values cannot be compared ({error}).") from None
    if descending:
        found.reverse()
    return found
