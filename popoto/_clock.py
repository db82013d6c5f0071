"""The one clock: the time of the process, which a test can freeze.

Formulas and the times that fields set themselves come from it. What is compared with a TTL counts on the server's
clock, which nothing freezes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, tzinfo


class FrozenClock:
    """A clock that stands still until it is moved.

    Attributes:
        at: the time it shows, Unix seconds.
    """

    def __init__(self, at: float) -> None:
        self.at = float(at)

    def advance(self, seconds: float) -> float:
        """Move the clock (back, with a negative number) and return the time it shows now."""
        self.at += seconds
        return self.at


_frozen: FrozenClock | None = None


def now() -> float:
    """Return the current time in Unix seconds."""
    return time.time() if _frozen is None else _frozen.at


def moment(zone: tzinfo | None = None) -> datetime:
    """Return the current time in a zone; without one naive, as the local clock shows it."""
    return datetime.now(zone) if _frozen is None else datetime.fromtimestamp(_frozen.at, zone)


@contextmanager
def frozen(at: float | None = None) -> Iterator[FrozenClock]:
    """Freeze the clock of the whole process (every thread) inside the block; blocks nest.

    Args:
        at: Unix seconds; None for the present moment.
    """
    global _frozen
    before = _frozen
    _frozen = FrozenClock(now() if at is None else at)
    try:
        yield _frozen
    finally:
        _frozen = before
