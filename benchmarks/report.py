"""Turns cells into a Markdown table and into JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .bars import Results
from .contender import Contender
from .memory import Memory
from .operations import BY_NAME
from .rounds import Cell, speed_ratio


def _time(cell: Cell | None) -> str:
    if cell is None:
        return ""
    seconds = cell.median
    if seconds is None:
        return "error" if cell.note.startswith("error") else cell.note or "-"
    micros = seconds * 1e6
    shown = f"{micros:,.0f} µs" if micros >= 100 else f"{micros:.1f} µs" if micros >= 10 else f"{micros:.2f} µs"
    return f"{shown} ({cell.note})" if cell.note else shown


def _trips(cell: Cell | None) -> str:
    if cell is None or cell.round_trips_a_call is None:
        return "-"
    return f"{cell.round_trips_a_call:.3g}"


def table(results: Results, contenders: Sequence[Contender], size: int) -> str:
    """The rows of one size. Times are medians for one record (or one call); ratios are speeds: 2x = twice as
    fast."""
    names = [contender.spec.name for contender in contenders]
    heads = ["operation", *(contender.spec.title for contender in contenders)]
    pairs = [("ours", other) for other in names if other != "ours"] if "ours" in names else []
    heads += [f"ours : {other}" for _, other in pairs]
    heads.append("round trips a call (" + " / ".join(names) + ")")
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for (operation, at), cells in results.items():
        if at != size:
            continue
        row = [BY_NAME[operation].title, *(_time(cells.get(name)) for name in names)]
        row += [str(speed_ratio(cells.get(mine), cells.get(other)) or "-") for mine, other in pairs]
        row.append(" / ".join(_trips(cells.get(name)) for name in names))
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def visits(results: Results, size: int) -> list[str]:
    """One line an operation for which a contender tells how many members its ranking looks at."""
    return [
        f"{name}, {BY_NAME[operation].title}: {cell.visited:,} of {size:,} members visited"
        for (operation, at), cells in results.items()
        for name, cell in cells.items()
        if at == size and cell.visited is not None
    ]


def errors(results: Results) -> list[str]:
    """One line for each different error of the run, with where it came first."""
    seen: dict[tuple[str, str], str] = {}
    for (operation, size), cells in results.items():
        for name, cell in cells.items():
            if "error" in cell.note or "wrong" in cell.note:
                seen.setdefault((name, cell.note), f"{name}, {operation} at {size:,}: {cell.note}")
    return list(seen.values())


def as_json(
    results: Results, of_memory: Memory, contenders: Sequence[Contender], environment: dict[str, Any]
) -> dict[str, Any]:
    """Everything that was measured, every round of it."""
    rows = []
    for (operation, size), cells in results.items():
        for name, cell in cells.items():
            ratio = {other: speed_ratio(cell, cells.get(other)) for other in ("raw", "peer") if other != name}
            rows.append(
                {
                    "operation": operation,
                    "size": size,
                    "contender": name,
                    "seconds_an_item": cell.seconds_an_item,
                    "median": cell.median,
                    "round_trips_a_call": cell.round_trips_a_call,
                    "visited": cell.visited,
                    "note": cell.note,
                    "speed_over": {
                        other: {"median": r.median, "quartiles": [r.low, r.high]} for other, r in ratio.items() if r
                    },
                }
            )
    versions = {contender.spec.name: contender.failed or contender.versions for contender in contenders}
    return {"environment": environment, "contenders": versions, "results": rows, "bytes_a_record": of_memory}
