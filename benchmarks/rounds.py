"""Measures one operation for all contenders, round by round, in alternating order.

A machine's speed drifts, so the contenders of one round run directly after one another and ratios are taken
within the round; every other round runs in the opposite order (ABBA), so that no one always comes after the
same neighbour.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import data, signals
from .contender import Contender
from .operations import Operation

ROUND_SECONDS = 0.15  # what a round of one contender aims at: long beside the clock's grain, short beside drift
GRACE_SECONDS = 60.0  # for what is not timed: making records to delete, deleting those that were saved


@dataclass(slots=True)
class Cell:
    """What one contender showed in one operation at one size.

    Attributes:
        seconds_an_item: one value a round, seconds; aligned with the other contenders' rounds.
        round_trips_a_call: of the last round.
        visited: members that a ranking looked at in its last call, if the contender tells.
        note: why there is no value ("-", "skipped: ...", "error: ..."), or a warning beside one.
    """

    seconds_an_item: list[float | None] = field(default_factory=list)
    round_trips_a_call: float | None = None
    visited: int | None = None
    note: str = ""

    @property
    def median(self) -> float | None:
        values = [seconds for seconds in self.seconds_an_item if seconds is not None]
        return statistics.median(values) if values else None


@dataclass(frozen=True, slots=True)
class Ratio:
    """Speed of one contender over that of another: 2.0 = twice as fast. Median and quartiles over the
    rounds."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_short(self.median)}x ({_short(self.low)}-{_short(self.high)})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def speed_ratio(mine: Cell | None, other: Cell | None) -> Ratio | None:
    """How many times as fast as `other` is `mine`, from the rounds that both ran."""
    if mine is None or other is None:
        return None
    pairs = zip(mine.seconds_an_item, other.seconds_an_item, strict=False)
    ratios = [theirs / ours for ours, theirs in pairs if ours and theirs]
    if not ratios:
        return None
    if len(ratios) == 1:
        return Ratio(ratios[0], ratios[0], ratios[0])
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(median, low, high)


def _refusal(reply: dict[str, Any]) -> str | None:
    if reply.get("unsupported"):
        return "-"
    if "skipped" in reply:
        return f"skipped: {reply['skipped']}"
    if "error" in reply:
        return f"error: {reply['error']}"
    return None


def _is_right(contender: Contender, operation: Operation, size: int, call: int, answer: object) -> bool:
    if operation.dataset not in signals.DATASETS:
        return data.is_right(operation.name, size, call, answer)
    if operation.name in signals.OWN_FORMULA and not contender.spec.own_package:
        return True
    return signals.is_right(operation.name, size, call, answer)


def _find_repeat(contender: Contender, operation: Operation, size: int, cell: Cell, budget: float) -> int | None:
    """Warm up, and return how many calls make a round; None (and the reason in the cell) if not even one
    fits."""
    repeat, seconds = 1, 0.0
    while True:
        request = {"op": operation.name, "size": size, "repeat": repeat}
        reply = contender.ask_or_restart(request, budget + GRACE_SECONDS)
        refusal = _refusal(reply)
        if refusal is not None:
            cell.note = refusal
            return None
        if not _is_right(contender, operation, size, repeat - 1, reply.get("answer")):
            cell.note = "wrong answer"
        seconds = reply["seconds"]
        if seconds / repeat > budget:
            cell.note = f"skipped: over budget ({seconds / repeat:.2g} s a call)"
            return None
        if seconds >= ROUND_SECONDS / 4 or repeat >= operation.most_calls:
            return max(1, min(operation.most_calls, round(repeat * ROUND_SECONDS / max(seconds, 1e-6))))
        # The first call pays for imports, scripts and connections: grow step by step, not by its word.
        repeat = min(operation.most_calls, repeat * 8)


def measure(
    contenders: Sequence[Contender], operation: Operation, size: int, rounds: int, budget: float
) -> dict[str, Cell]:
    """Return a cell for each contender. `budget`: seconds that a contender's timed calls may take in all."""
    cells: dict[str, Cell] = {contender.spec.name: Cell() for contender in contenders}
    repeats: dict[str, int] = {}
    for contender in contenders:
        repeat = _find_repeat(contender, operation, size, cells[contender.spec.name], budget)
        if repeat is not None:
            repeats[contender.spec.name] = repeat
    spent = dict.fromkeys(repeats, 0.0)
    running = [contender for contender in contenders if contender.spec.name in repeats]
    for number in range(rounds):
        for contender in running if number % 2 == 0 else running[::-1]:
            name = contender.spec.name
            cell = cells[name]
            if spent[name] > budget:
                cell.seconds_an_item.append(None)
                continue
            request = {"op": operation.name, "size": size, "repeat": repeats[name]}
            reply = contender.ask_or_restart(request, budget + GRACE_SECONDS)
            refusal = _refusal(reply)
            if refusal is not None:
                cell.note = refusal
                cell.seconds_an_item.append(None)
                spent[name] = budget + 1.0
                continue
            spent[name] += reply["seconds"]
            cell.seconds_an_item.append(reply["seconds"] / (reply["calls"] * operation.items_a_call))
            cell.visited = reply.get("visited")
            cell.round_trips_a_call = reply["round_trips"] / reply["calls"]
    return cells
