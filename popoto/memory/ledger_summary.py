"""The arithmetic of predictions: how far one was off, and statistics of many. No I/O."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import datetime, tzinfo
from decimal import Decimal
from numbers import Real
from typing import Any

logger = logging.getLogger("popoto.memory")

Entry = tuple[str, float, "float | None"]
"""(record key, error, when it was resolved in Unix seconds or None)."""

_BUCKETS: dict[str, Callable[[datetime], Hashable]] = {
    "hour": lambda at: at.hour,
    "weekday": lambda at: at.weekday(),
    "day": lambda at: at.strftime("%Y-%m-%d"),
}


def prediction_error(predicted: Mapping[str, Any], actual: Mapping[str, Any]) -> float:
    """Return the mean error over the keys of both; 0.0 where there are none.

    Raises: ValueError: a number is NaN.
    """
    names = {**predicted, **actual}
    if not names:
        return 0.0
    one_sided = object()
    pairs = ((predicted.get(name, one_sided), actual.get(name, one_sided)) for name in names)
    return math.fsum(1.0 if p is one_sided or a is one_sided else _difference(p, a) for p, a in pairs) / len(names)


def _as_number(value: Any) -> Any:
    """Return a Decimal, a fraction or a number of numpy as a float; anything else as it is."""
    if isinstance(value, (int, float)) or not isinstance(value, (Real, Decimal)):
        return value
    return float(value)


def _difference(p: Any, a: Any) -> float:
    p, a = _as_number(p), _as_number(a)
    if (isinstance(p, float) and p != p) or (isinstance(a, float) and a != a):
        raise ValueError(f"a prediction cannot be compared with NaN: {p!r} and {a!r}. Leave such a key out.")
    if p == a:
        return 0.0
    if not (isinstance(p, (int, float)) and isinstance(a, (int, float))):
        return 1.0
    if math.inf in (abs(p), abs(a)):
        return 1.0
    try:
        return min(abs(p - a) / max(abs(p), abs(a), 1), 1.0)
    except OverflowError:  # an int beyond all floats
        return 1.0


def summary_of(entries: Iterable[Entry], group_by: Any, tz: tzinfo) -> dict[Any, dict[str, Any]]:
    """Return label -> statistics; see PredictionLedgerMixin.error_summary.

    Raises: ValueError: an unknown bucket. TypeError: `group_by` is neither text nor function, or gave a label that
        cannot be a key.
    """
    if group_by is None:
        return {"__all__": statistics_of([error for _, error, _ in entries])}
    groups: dict[Any, list[float]] = {}
    for key, error, label in _labelled(entries, group_by, tz):
        try:
            groups.setdefault(label, []).append(error)
        except TypeError:
            raise TypeError(f"error_summary(): group_by= gave {label!r} for {key}, which cannot be a label.") from None
    return {label: statistics_of(errors) for label, errors in groups.items()}


def _labelled(entries: Iterable[Entry], group_by: Any, tz: tzinfo) -> Iterable[tuple[str, float, Any]]:
    if isinstance(group_by, str):
        if group_by not in _BUCKETS:
            raise ValueError(f"error_summary(): group_by= expected one of {', '.join(_BUCKETS)}, got {group_by!r}.")
        bucket = _BUCKETS[group_by]
        return [(key, error, bucket(datetime.fromtimestamp(at, tz))) for key, error, at in entries if at is not None]
    if not callable(group_by):
        raise TypeError(f"error_summary(): group_by= expected a text, a function or None, got {group_by!r}.")
    out = []
    for key, error, _ in entries:
        try:
            out.append((key, error, group_by(key, error)))
        except Exception as problem:  # one record that the caller's function cannot judge does not spoil the rest
            logger.warning("error_summary(): group_by= failed for %s (%s); skipped", key, problem)
    return out


def statistics_of(errors: list[float]) -> dict[str, Any]:
    """Return count, mean, stddev (population), p50, p90, p99 (nearest rank, halves to even) and max; zeros for none."""
    n = len(errors)
    if n == 0:
        return {"count": 0, "mean": 0.0, "stddev": 0.0, "p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}
    ranked = sorted(errors)
    mean = math.fsum(errors) / n
    variance = math.fsum((error - mean) ** 2 for error in errors) / n
    p50, p90, p99 = (ranked[round(p / 100 * (n - 1))] for p in (50, 90, 99))
    return {
        "count": n,
        "mean": mean,
        "stddev": math.sqrt(variance),
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "max": ranked[-1],
    }
