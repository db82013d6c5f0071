"""explain(): how a query runs and what it will touch, asked of the server without reading the answer."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from popoto.orm import selection as running
from popoto.orm import shards
from popoto.orm.commands import Command
from popoto.orm.plan import pack
from popoto.orm.scripts import Script
from popoto.orm.slices import Slices

if TYPE_CHECKING:
    from popoto.orm.building import Building
    from popoto.orm.selection import Selection

EXPLAIN = Script("popoto.orm", "explain", flags="no-writes")

_SAID: dict[str, str] = {
    "all": "every record",
    "set": "in a value's set",
    "range": "score in a range of",
    "starts": "text begins, in",
    "ends": "text ends, in",
    "contains": "text contains, scan of",
    "raw": "stored bytes of",
    "value": "stored value of",
    "between": "stored value of",
    "keys": "these records",
    "near": "within a radius, in",
    "related": "on the related record, over",
    "and": "all of",
    "or": "one of",
    "not": "not",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One condition of the plan.

    Attributes:
        depth: how deep it stands in the tree.
        text: what is asked, and of which key or field.
        size: records that satisfy it, at most; None where no index knows.
    """

    depth: int
    text: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How a query runs; `str()` is for people.

    Attributes:
        model: the model's name.
        records: how many it has.
        due: records that are due to expire, whose existence is checked.
        how: "gather" (the smallest index set is read, the rest tested, what is left is sorted), "walk" (the order is
            read until enough is found), "nearest" (places outwards from a centre) or "empty".
        order: key of the ordered set that is walked or sorted by.
        conditions: what the server decides, the tree in lines.
        touched: members of index sets that are looked at, about.
        python: what Python decides or sorts, in sentences; () when the server does all.
        round_trips: how many, about; more where slices see less than expected.
    """

    model: str
    records: int
    due: int
    how: str
    order: str
    conditions: tuple[Step, ...]
    touched: int
    python: tuple[str, ...]
    round_trips: int

    def __str__(self) -> str:
        ways = {
            "gather": "gather: read the smallest set, test the rest, sort what is left",
            "walk": "walk: read the order until enough is found, test each",
            "nearest": "nearest: search places outwards from the centre",
            "empty": "nothing to ask: the limit is 0",
        }
        lines = [f"{self.model}: {self.records:,} records", f"  {ways[self.how]}", f"  order: {self.order}"]
        lines.append("  conditions:")
        for step in self.conditions:
            size = "read from each candidate" if step.size is None else f"at most {step.size:,}"
            lines.append(f"    {'  ' * step.depth}{step.text}: {size}")
        if self.due:
            lines.append(f"  {self.due:,} records are due to expire: each candidate's existence is checked")
        lines += [f"  Python: {sentence}" for sentence in self.python]
        trips = "1 round trip" if self.round_trips == 1 else f"{self.round_trips} round trips"
        lines.append(f"  touches about {self.touched:,} index members, {trips}")
        return "\n".join(lines)

    __repr__ = __str__


def explain_steps(builder: Building[Any]) -> Generator[Any, Any, Plan]:
    """Return the plan of a builder; on a cluster, of one shard."""
    meta = builder.model_class._meta
    if shards.are_many(meta):
        return (yield from shards.alone(meta, builder.exact(), partial(explain_steps, builder)))
    selection = builder.selection()
    before = yield from _counted(selection.settled())
    reply = yield _command(selection)
    shared = bool(reply[6])
    if shared:
        selection = selection.by_value()
        reply = yield _command(selection)
    records, due, how, smallest, stretch, expected, _, sizes = reply
    python = _left_to_python(selection, shared)
    touched = smallest if how == b"gather" else stretch if python else expected
    return Plan(
        builder.model_class.__name__,
        records,
        due,
        "empty" if selection.limit == 0 else "nearest" if selection.order.near is not None else how.decode(),
        selection.order.key,
        tuple(_lines(selection.compiled.where, sizes)),
        touched,
        tuple(python),
        before + _trips(selection, shared, before > 0, touched, min(touched, smallest) if smallest >= 0 else touched),
    )


def _counted(steps: Generator[Any, Any, Any]) -> Generator[Any, Any, int]:
    """Run steps and return how many there were."""
    count, reply = 0, None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration:
            return count
        count, reply = count + 1, (yield step)


def _command(selection: Selection) -> Command[Any]:
    walked = replace(selection, order=replace(selection.order, near=None))
    slices = Slices(walked, "fields", (), gather=running.GATHER, slice=running.SLICE, rows=running.ROWS)
    query = {**slices.query, "conditions": [condition for _, condition in _flat(selection.compiled.where)]}
    if selection.in_python:
        query["limit"] = -1
    return Command((*selection.keys.home, pack(query)), script=EXPLAIN, key_count=4)


def _flat(condition: list[Any], depth: int = 0) -> list[tuple[int, list[Any]]]:
    found = [(depth, condition)]
    for part in condition[1:] if condition[0] in ("and", "or", "not") else ():
        found += _flat(part, depth + 1)
    return found


def _lines(where: list[Any], sizes: list[int]) -> list[Step]:
    steps = []
    for (depth, condition), size in zip(_flat(where), sizes, strict=True):
        op = condition[0]
        text = _SAID.get(op, op)
        if op == "set" and len(condition) > 2:
            text = f"in one of {len(condition) - 1} value sets"
        elif op == "keys":
            text = f"these {len(condition) - 1} records"
        elif op in ("and", "or", "not", "all"):
            pass
        elif op in ("starts", "ends", "contains"):
            text += f" {condition[1] or condition[2]}"
        elif len(condition) > 1:
            text += f" {condition[1]}"
        if op == "range":
            text += f" from {condition[2]} to {condition[3]}"
        steps.append(Step(depth, text, None if size < 0 else size))
    return steps


def _left_to_python(selection: Selection, shared: bool) -> list[str]:
    compiled, order = selection.compiled, selection.order
    python = []
    if shared:
        python.append("values share scores, so ranges and order are decided by value")
    if compiled.tests is not None:
        python.append(f"decides by {', '.join(compiled.reads)}, read from each candidate")
    if order.terms:
        python.append("sorts by " + ", ".join(t.text + (" descending" if t.descending else "") for t in order.terms))
    if order.computed is not None:
        python.append("sorts all results by a function")
    return python


def _trips(selection: Selection, shared: bool, asked_before: bool, touched: int, matching: int) -> int:
    if selection.limit == 0:
        return 0
    limit = None if selection.order.computed is not None else selection.limit
    read = matching if limit is None else min(matching, limit)
    visits = max(1, math.ceil(touched / running.SLICE))
    if not (selection.in_python or shared):
        return max(visits, math.ceil(read / running.ROWS) if touched > running.GATHER else 1)
    if selection.reads_at_once(asked_before or shared) and (limit is None or matching <= running.ROWS):
        return max(visits, math.ceil(matching / running.ROWS)) + (1 if shared else 0)
    return visits + max(1, math.ceil(read / running.READ_CHUNK)) + (1 if shared else 0)
