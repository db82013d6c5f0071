"""What the project promises of its own speed, and whether this run kept it."""

from __future__ import annotations

from dataclasses import dataclass

from .memory import TITLE, Memory
from .rounds import Cell, speed_ratio

Results = dict[tuple[str, int], dict[str, Cell]]  # (operation, size) -> contender -> cell


@dataclass(frozen=True, slots=True)
class Bar:
    """`ours` must be at least `times` as fast as `against` in `operation`; at `size`, or at every size if
    None."""

    operation: str
    against: str
    times: float
    size: int | None = None


BARS: tuple[Bar, ...] = (
    Bar("save", "raw", 0.8),
    Bar("save_pipelined", "peer", 5.0),
    Bar("bulk_create", "peer", 5.0),
    Bar("bulk_update", "peer", 5.0),
    Bar("delete_all", "peer", 5.0),
    Bar("get", "raw", 0.5),
    Bar("construct", "peer", 4.0),
    Bar("hydrate", "peer", 3.0),
    Bar("top_by_decay", "peer", 20.0, size=10_000),
    Bar("top_by_decay_cycles", "peer", 20.0, size=10_000),
    Bar("composite_two", "peer", 50.0, size=10_000),
    Bar("search", "peer", 5.0, size=10_000),
    Bar("order_by", "peer", 50.0, size=10_000),
    Bar("filter", "peer", 5.0, size=10_000),
    Bar("range", "peer", 5.0, size=10_000),
)


def judge(results: Results) -> list[str]:
    """One line a bar and size: kept, missed or not measured."""
    lines = []
    for bar in BARS:
        sizes = [size for operation, size in results if operation == bar.operation and bar.size in (None, size)]
        for size in sizes:
            cells = results[bar.operation, size]
            ratio = speed_ratio(cells.get("ours"), cells.get(bar.against))
            verdict = "not measured" if ratio is None else "kept" if ratio.median >= bar.times else "MISSED"
            if any("wrong" in cells[name].note for name in ("ours", bar.against) if name in cells):
                verdict = "WRONG ANSWER"  # a speed without the right answer counts for nothing
            found = "" if ratio is None else f", found {ratio}"
            lines.append(f"{verdict:<12} {bar.operation} at {size:,}: at least {bar.times}x {bar.against}{found}")
    return lines


def judge_memory(of_memory: Memory) -> list[str]:
    """One line a size: does a record of ours take no more memory than one of the peer's?"""
    lines = []
    for size, found in of_memory.items():
        ours, peer = found.get("ours"), found.get("peer")
        if ours is None or peer is None:
            lines.append(f"{'not measured':<12} {TITLE} at {size:,}: no more than peer")
            continue
        verdict = "kept" if ours <= peer else "MISSED"
        lines.append(f"{verdict:<12} {TITLE} at {size:,}: no more than peer, found {ours / peer:.2f} of it")
    return lines
