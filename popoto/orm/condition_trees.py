"""Trees of server conditions (lua/lib_where.lua): and, or, not, with what is said twice left out."""

from __future__ import annotations

from typing import Any

ALL: list[Any] = ["all"]
NOTHING: list[Any] = ["not", ["all"]]


def all_of(conditions: list[list[Any]]) -> list[Any]:
    """Return the condition that all of these hold."""
    rest: list[list[Any]] = []
    for condition in conditions:
        if condition == NOTHING:
            return NOTHING
        if condition[0] == "and":
            rest += condition[1:]
        elif condition[0] != "all":
            rest.append(condition)
    if not rest:
        return ALL
    if len(rest) > 1 and sum(condition[0] == "range" for condition in rest) > 1:
        rest = _merged_ranges(rest)
    return rest[0] if len(rest) == 1 else ["and", *rest]


def _merged_ranges(conditions: list[list[Any]]) -> list[list[Any]]:
    """Make one range of those on one ordered set, so that a walk of it has both ends."""
    out: list[list[Any]] = []
    place: dict[str, int] = {}
    for condition in conditions:
        if condition[0] != "range":
            out.append(condition)
        elif condition[1] not in place:
            place[condition[1]] = len(out)
            out.append(condition)
        else:
            key = condition[1]
            _, _, low, high = out[place[key]]
            out[place[key]] = ["range", key, _higher(low, condition[2]), _lower(high, condition[3])]
    return out


def _higher(low: str, other: str) -> str:
    """Return the lower bound that leaves out more."""
    if low == "-inf" or other == "-inf":
        return other if low == "-inf" else low
    return max(low, other, key=lambda bound: (float(bound.lstrip("(")), bound[0] == "("))


def _lower(high: str, other: str) -> str:
    """Return the upper bound that leaves out more."""
    if high == "+inf" or other == "+inf":
        return other if high == "+inf" else high
    return min(high, other, key=lambda bound: (float(bound.lstrip("(")), bound[0] != "("))


def any_of(conditions: list[list[Any]]) -> list[Any]:
    """Return the condition that one of these holds."""
    rest: list[list[Any]] = []
    for condition in conditions:
        if condition[0] == "all":
            return ALL
        if condition[0] == "or":
            rest += condition[1:]
        elif condition != NOTHING:
            rest.append(condition)
    if not rest:
        return NOTHING
    return rest[0] if len(rest) == 1 else ["or", *rest]


def not_of(condition: list[Any]) -> list[Any]:
    """Return the complement of a condition."""
    return condition[1] if condition[0] == "not" else ["not", condition]
