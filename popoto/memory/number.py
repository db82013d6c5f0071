"""What counts as a number among the arguments of the memory layer."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any


def is_number(value: Any) -> bool:
    """Return True for a finite real number, numpy's included, that a float can hold; False for a bool."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an int beyond all floats
        return False
