"""Running a selection: slices of lua/select.lua, what Python must decide, and reading records."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from popoto.exceptions import ModelException, QueryException
from popoto.orm.commands import Batch, Command, hash_of
from popoto.orm.keys import ModelKeys
from popoto.orm.lookups import Compiled
from popoto.orm.plan import pack
from popoto.orm.scripts import Script

if TYPE_CHECKING:
    from popoto.orm.model import Model

logger = logging.getLogger("popoto.query")

SELECT = Script("popoto.orm", "select")
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
    """

    key: str
    low: str | None = None
    high: str | None = None
    by: str | None = None
    descending: bool = False


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

    @property
    def in_python(self) -> bool:
        """True when the server cannot decide or order alone."""
        return bool(self.compiled.tests) or self.order.by is not None

    # -- steps (generators that yield commands; see popoto.orm.commands) ----------------------------------------------

    def results(self) -> Steps:
        """Yield batches of instances, or of dicts when values are asked for."""
        if self.limit == 0:
            return
        if self.in_python:
            keys = yield from self._keys_by_value()
            for start in range(0, len(keys), READ_CHUNK):
                chunk = keys[start : start + READ_CHUNK]
                replies = yield [self._read_command(key) for key in chunk]
                yield Batch(self._built(zip(chunk, replies, strict=True)))
            return
        slices = Slices(self, "hash") if self.values is None else Slices(self, "fields", self.values)
        while slices.more:
            flat = iter((yield slices.command()))
            yield Batch(self._built((key.decode(), values) for key, values in zip(flat, flat, strict=True)))

    def record_keys(self) -> Generator[Any, Any, list[str]]:
        """Return the keys of the matching records."""
        if self.limit == 0:
            return []
        if self.in_python:
            return (yield from self._keys_by_value())
        found: list[str] = []
        slices = Slices(self, "keys")
        while slices.more:
            found.extend(key.decode() for key in (yield slices.command()))
        return found

    def count(self) -> Generator[Any, Any, int]:
        """Return how many records match, without offset and limit."""
        every = Selection(self.model, self.keys, self.compiled, Order(self.keys.order))
        if self.compiled.tests:
            return len((yield from every._keys_by_value()))
        total = 0
        slices = Slices(every, "count")
        while slices.more:
            total += yield slices.command()
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
        slices = Slices(every, "fields", needed)
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
        for name, raw in zip(names, raws, strict=True):
            field = fields[name]
            try:
                values[name] = field.default_value() if raw is None else field.decode(raw)
            except ValueError as error:
                logger.error("%s: the stored value of field '%s' cannot be read: %s; skipped", key, name, error)
                return None
        return values

    def _read_command(self, key: str) -> Command[Any]:
        if self.values is None:
            return Command(("HGETALL", key))
        return Command(("HMGET", key, *self.values))

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
                logger.error("%s; skipped", error)
        return out


class Slices:
    """The calls of lua/select.lua for one selection; each goes on where the last one stopped.

    Attributes:
        more: True while there is another slice to ask for.
    """

    def __init__(self, selection: Selection, out: str, fields: Iterable[str] = ()) -> None:
        order = selection.order
        self.more = True
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
            "gather": GATHER,
            "slice": SLICE,
            "rows": ROWS if out in ("hash", "fields") else SLICE,
        }

    def command(self) -> Command[Any]:
        """Return the next slice; its result is the rows."""
        return Command((*self._keys.home, pack(self._query)), self._rows, SELECT, key_count=4)

    def _rows(self, reply: Any) -> Any:
        after, rows = reply
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
        found.sort(
            key=lambda item: (item[1] is not None, item[1], item[0]) if item[1] is not None else (False, 0, item[0])
        )
    except TypeError as error:
        raise QueryException(f"order_by('{by}'): the values cannot be compared ({error}).") from None
    if descending:
        found.reverse()
    return found
