"""Memory a record: what all keys of a contender take on the server, over the number of its records.

The sum of `MEMORY USAGE key SAMPLES 0` over every key of its database, straight after loading. It leaves out what no
key can be charged with (the tables of the key space, scripts), and keys that expire: a retry token lives for a minute.
"""

from __future__ import annotations

from collections.abc import Sequence

from .contender import Contender

NAME = "memory"  # what `--only` calls it
TITLE = "memory a record"
SECONDS_A_RECORD = 0.0005  # of a contender's three or four keys, asked in pipelines: with room

Memory = dict[int, dict[str, float]]  # size -> contender -> bytes a record


def measure(contenders: Sequence[Contender], size: int) -> dict[str, float]:
    """Return bytes a record of those contenders that could tell; `size` records are stored."""
    found = {}
    for contender in contenders:
        reply = contender.ask_or_restart({"op": NAME}, timeout=30.0 + size * SECONDS_A_RECORD)
        if "bytes" in reply:
            found[contender.spec.name] = reply["bytes"] / size
    return found


def row(found: dict[str, float]) -> str:
    """The contenders' figures in one line."""
    return f"{TITLE}: " + ", ".join(f"{name} {value:,.0f} B" for name, value in found.items())
