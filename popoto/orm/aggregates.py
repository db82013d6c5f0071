"""Aggregates over all records that match: count, sum, mean, least and greatest, computed on the server in slices.

What a slice returns of a field is partial (lua/aggregate.lua) and merged here, exactly where the type is exact: sums of
int and Decimal lose no digit. Where Python decides the filter, or the server cannot read a value, Python computes the
same.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Mapping
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from popoto.exceptions import QueryException
from popoto.orm import selection as running
from popoto.orm import shards
from popoto.orm.commands import Command
from popoto.orm.conditions import RANGE_TYPES, comparable
from popoto.orm.drivers import relayed
from popoto.orm.plan import pack
from popoto.orm.scripts import Script
from popoto.orm.slices import Slices
from popoto.orm.spread import SpreadSelection
from popoto.orm.suggestions import require_field

if TYPE_CHECKING:
    from popoto.orm.building import Building
    from popoto.orm.fields.base import Field
    from popoto.orm.selection import Selection

logger = logging.getLogger("popoto.query")
AGGREGATE = Script("popoto.orm", "aggregate", flags="no-writes")

_NUMBERS = (int, float, Decimal)
_ORDERED = RANGE_TYPES | {str, bool}
_EXACT = Context(prec=30_000, Emax=MAX_EMAX, Emin=MIN_EMIN)  # more digits than a stored sum can have


class Aggregate:
    """What is computed over the values of one field; None values do not count.

    Attributes:
        op: "count", "sum", "avg", "min" or "max".
        field: the field's name; None for the records themselves (Count).
    """

    op = ""
    types: frozenset[type] | None = None

    def __init__(self, field: str) -> None:
        self.field: str | None = field

    def needs(self) -> str:
        """Return what the server computes for it."""
        return "sum" if self.op == "avg" else self.op

    def finish(self, partial: Partial) -> Any:
        """Return the result of all that was merged."""
        return partial.best

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.field!r})" if self.field is not None else f"{type(self).__name__}()"


class Count(Aggregate):
    """How many records; with a field: how many have a value there that is not None."""

    op = "count"

    def __init__(self, field: str | None = None) -> None:
        self.field = field

    def finish(self, partial: Partial) -> int:
        return partial.count


class Sum(Aggregate):
    """The sum of an int, float or Decimal field, of the field's type; 0 for no values. Exact but for float."""

    op = "sum"
    types = frozenset(_NUMBERS)

    def finish(self, partial: Partial) -> Any:
        return partial.total()


class Avg(Aggregate):
    """The mean of an int, float or Decimal field (Decimal for Decimal, else float); None for no values."""

    op = "avg"
    types = frozenset(_NUMBERS)

    def finish(self, partial: Partial) -> Any:
        return partial.total() / partial.count if partial.count else None


class Min(Aggregate):
    """The least value; None for no values."""

    op = "min"
    types = _ORDERED


class Max(Aggregate):
    """The greatest value; None for no values."""

    op = "max"
    types = _ORDERED


class Partial:
    """What is known so far of one aggregate."""

    def __init__(self, field: Field | None, op: str) -> None:
        self.field, self.op = field, op
        self.count = 0
        self.best: Any = None
        self._addends: list[Any] = []

    def add(self, value: Any) -> None:
        """Take in one value."""
        if value is None:
            return
        self.count += 1
        self._take(value)

    def _take(self, value: Any) -> None:
        if self.op == "sum":
            self._addends.append(value)
            if len(self._addends) > 1000 and self.field is not None and self.field.type is not float:
                self._addends = [self.total()]
        elif self.op in ("min", "max") and value == value:
            if self.best is None:
                self.best = value
                return
            mine, other = comparable(value), comparable(self.best)
            if mine < other if self.op == "min" else mine > other:
                self.best = value

    def merge(self, count: int, missing: int, value: Any, odd: list[bytes]) -> None:
        """Take in what the server found in a slice: how many values, records without the field, the partial result,
        and the bytes that it leaves to Python."""
        field = self.field
        if field is None:
            self.count += count
            return
        self.count += count
        default = field.default_value() if missing else None
        for _ in range(missing if default is not None else 0):
            self.add(default)
        if self.op == "sum":
            self._addends += [float(part) for part in value] if field.type is float else [field.type(value.decode())]
        for raw in odd:
            try:
                found = field.decode(raw)
            except ValueError as error:
                logger.error("a stored value of field '%s' cannot be read: %s; left out", field.name, error)
                self.count -= 1
                continue
            if found is not None:
                self._take(found)

    def total(self) -> Any:
        """Return the sum."""
        kind = self.field.type if self.field is not None else int
        if kind is float:
            try:
                return math.fsum(self._addends)
            except (OverflowError, ValueError):  # beyond the largest float, or infinities of both signs
                return sum(self._addends)
        total = kind(0)
        for addend in self._addends:
            total = _EXACT.add(total, addend) if kind is Decimal else total + addend
        return total


def named_aggregates(builder: Building[Any], args: Any, named: Mapping[str, Any]) -> dict[str, Aggregate]:
    """Return name -> aggregate of the arguments of `aggregate()`.

    Raises: QueryException: an unknown field, an aggregate that its type does not have, or none at all.
    """
    meta = builder.model_class._meta
    wanted: dict[str, Any] = {}
    for given in args:
        if isinstance(given, str):
            require_field(meta, f"aggregate({given!r})", given)
            kinds = [Count, *(k for k in (Sum, Avg, Min, Max) if meta.fields[given].type in (k.types or ()))]
            wanted.update({kind.op: kind(given) for kind in kinds})
        elif isinstance(given, Aggregate):
            wanted[f"{given.field}__{given.op}" if given.field is not None else given.op] = given
        else:
            raise QueryException(f"aggregate({given!r}): expected a field name, or Count, Sum, Avg, Min or Max of one.")
    wanted.update(named)
    if not wanted:
        raise QueryException("aggregate(): expected at least one, such as total=Sum('price').")
    for name, aggregate in wanted.items():
        if not isinstance(aggregate, Aggregate):
            raise QueryException(f"aggregate({name}={aggregate!r}): expected Count, Sum, Avg, Min or Max of a field.")
        if aggregate.field is None:
            continue
        require_field(meta, f"aggregate({name}={aggregate!r})", aggregate.field)
        kind = meta.fields[aggregate.field].type
        if aggregate.types is not None and kind not in aggregate.types:
            allowed = ", ".join(sorted(t.__name__ for t in aggregate.types))
            raise QueryException(
                f"aggregate({name}={aggregate!r}): '{aggregate.field}' is of type {kind.__name__}; expected {allowed}."
            )
    return wanted


# -- steps -------------------------------------------------------------------------------------------------------------


def aggregate_steps(
    builder: Building[Any], args: tuple[Any, ...], named: Mapping[str, Any]
) -> Generator[Any, Any, dict[str, Any]]:
    """Return name -> result."""
    wanted = named_aggregates(builder, args, named)
    meta = builder.model_class._meta
    fields = meta.fields
    needs = dict.fromkeys((a.needs() if a.field is not None else "count", a.field) for a in wanted.values())
    partials = {need: Partial(fields[need[1]] if need[1] is not None else None, need[0]) for need in needs}
    yield from shards.spread(meta, builder.exact(), partial(_gather, builder, partials))
    return {
        name: aggregate.finish(partials[aggregate.needs() if aggregate.field is not None else "count", aggregate.field])
        for name, aggregate in wanted.items()
    }


def _gather(builder: Building[Any], partials: Mapping[tuple[str, str | None], Partial]) -> Generator[Any, Any, None]:
    """Add what all matching records have to the partials; of the shard at work, if the model has several."""
    selection = builder.selection().whole()
    if set(partials) == {("count", None)}:
        partials["count", None].count += yield from selection.count()
        return
    yield from selection.settled()
    on_server = selection.compiled.tests is None and not any(p.field and p.field._own_codec for p in partials.values())
    if on_server and (yield from _on_server(selection, partials)):
        return
    selection = selection.by_value()
    if not on_server or selection.compiled.tests is not None or not (yield from _on_server(selection, partials)):
        yield from _in_python(selection, partials)


def _on_server(selection: Selection, partials: Mapping[tuple[str, str | None], Partial]) -> Generator[Any, Any, bool]:
    """Merge what the server computes; returns False when values share scores, before anything was merged."""
    query: dict[str, Any] = {
        "where": selection.compiled.where, "order": selection.keys.order, "low": False, "high": False, "desc": False,
        "offset": 0, "limit": -1, "after": False, "out": "keys", "capped": False, "shared": selection.compiled.shared,
        "gather": running.GATHER, "slice": running.SLICE, "rows": running.SLICE,
        "wants": [[op, name or False, p.field.type.__name__ if p.field else ""] for (op, name), p in partials.items()],
    }  # fmt: skip
    more = True
    while more:
        reply = yield Command((*selection.keys.home, pack(query)), script=AGGREGATE, key_count=4)
        if reply == b"shared":
            return False
        after, found = reply
        query["shared"] = []
        more = bool(after)
        if more:
            query["after"], query["offset"], query["limit"] = after[:2], after[2], after[3]
        for part, (count, missing, value, odd) in zip(partials.values(), found, strict=True):
            part.merge(count, missing, value, odd)
    return True


def _in_python(selection: Selection, partials: Mapping[tuple[str, str | None], Partial]) -> Generator[Any, Any, None]:
    names = dict.fromkeys(name for _, name in partials if name is not None)

    def add(items: list[Any]) -> None:
        for _, values, _ in items:
            for (_, name), part in partials.items():
                part.add(True if name is None else values[name])

    yield from relayed(selection.values_by_value(names), add)


def distinct_steps(builder: Building[Any], names: tuple[str, ...]) -> Generator[Any, Any, list[Any]]:
    """Return the different values of these fields, in the order of the builder."""
    meta = builder.model_class._meta
    for name in names:
        require_field(meta, f"distinct({name!r})", name)
    wanted = names or builder._values
    if not wanted:
        raise QueryException("distinct(): name the fields, distinct('cuisine'), or those of the dicts with values().")
    selection = builder._copy(_limit=None, _values=wanted, _computed=None, _track=False).selection()
    rows: list[dict[str, Any]] = []
    if isinstance(selection, SpreadSelection) or selection.in_python or selection.order.near is not None:
        rows = yield from selection.collected()
    elif (yield from selection.settled()) or not (yield from _distinct_rows(selection, rows)):
        yield from relayed(selection.by_value().results_by_value(True), rows.extend)
    found = _once(rows, wanted)[: builder._limit]
    if not names:
        return found
    return [row[names[0]] if len(names) == 1 else tuple(row[name] for name in names) for row in found]


def _distinct_rows(selection: Selection, rows: list[dict[str, Any]]) -> Generator[Any, Any, bool]:
    """Add the different dicts of each slice; returns False when values share scores, before anything was added."""
    reader = selection.reader()
    slices = Slices(selection, "distinct", reader.asked, gather=running.GATHER, slice=running.SLICE, rows=running.SLICE)
    while slices.more:
        reply = yield slices.command()
        if slices.refused:
            return False
        rows += reader.read(("", raw) for raw in reply)
    return True


def _once(rows: list[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the different ones, in order. Values that have no hash are compared one by one."""
    out: list[dict[str, Any]] = []
    seen: set[Any] = set()
    unhashable: list[tuple[Any, ...]] = []
    for row in rows:
        values = tuple(row[name] for name in names)
        try:
            if values in seen:
                continue
            seen.add(values)
        except TypeError:
            if values in unhashable:
                continue
            unhashable.append(values)
        out.append(row)
    return out
