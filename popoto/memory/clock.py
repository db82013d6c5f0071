"""The clock of the memory layer's formulas: that of the process, in Unix seconds (popoto._clock)."""

from popoto._clock import FrozenClock, frozen, now

__all__ = ["FrozenClock", "frozen", "now"]
