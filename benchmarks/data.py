"""The records that every contender stores, and the right answer to every question that is asked.

All values follow from the record's number alone, so that each worker makes the same data without being sent
any.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from functools import lru_cache
from typing import TypedDict

CATEGORIES = 20
CATEGORY_STRIDE = 7  # coprime to CATEGORIES: walks through all of them
PAGE = 10  # every limit and every top-k
BATCH = 1000  # records of one pipelined save and of one hydration
SCORE_RANGE = (200.0, 400.0)  # a fifth of all scores
NARROW_RANGE = (200.0, 210.0)  # a hundredth
AGENT = "agent_1"
SECONDS_A_DAY = 86400.0
DECAY_RATE = 0.1
FIRST_NEW = 100_000_000  # numbers of the records that save and delete make: clear of all that is loaded

# Multiplicative hashing (Knuth, TAOCP 6.4): odd multipliers, so no two numbers below 2**32 share a score.
_SCORE_MULTIPLIER = 2_654_435_761
_AGE_MULTIPLIER = 2_246_822_519
_BASE_MULTIPLIER = 3_266_489_917


class RecordRow(TypedDict):
    name: str
    category: str
    score: float
    rank: int
    note: str
    active: bool


class MemoryRow(TypedDict):
    agent_id: str
    name: str
    importance: float
    relevance: float


def _fraction(number: int, multiplier: int) -> float:
    return (number * multiplier % 2**32) / 2**32


def name_of(number: int) -> str:
    return f"name_{number:09d}"


def number_of(name: str) -> int:
    return int(name.rpartition("_")[2])


def score_of(number: int) -> float:
    return _fraction(number, _SCORE_MULTIPLIER) * 1000.0


def category_of(number: int) -> str:
    return f"category_{number * CATEGORY_STRIDE % CATEGORIES:02d}"


def record(number: int) -> RecordRow:
    """Six fields: a key, indexed text of 20 values, a sorted float, a sorted int, 60 characters, a bool."""
    return {
        "name": name_of(number),
        "category": category_of(number),
        "score": score_of(number),
        "rank": number * 40_503 % 1_000_003,
        "note": f"{number:010d} is a plain text that has just sixty characters.",
        "active": number % 3 != 0,
    }


def memory(number: int, now: float) -> MemoryRow:
    """One memory: importance uniform in (0, 10), last touched 1 to 90 days before `now` (Unix seconds)."""
    return {
        "agent_id": AGENT,
        "name": name_of(number),
        "importance": 10.0 * _fraction(number + 1, _BASE_MULTIPLIER),
        "relevance": now - SECONDS_A_DAY * (1.0 + 89.0 * _fraction(number, _AGE_MULTIPLIER)),
    }


# What the n-th call of a round asks for.


def loaded_number(call: int, size: int) -> int:
    """Some loaded record; the stride spreads neighbouring calls over the store."""
    return call * 7919 % size


def asked_category(call: int) -> str:
    return f"category_{call % CATEGORIES:02d}"


def asked_prefix(call: int, size: int) -> str:
    """A prefix that exactly ten names share."""
    return name_of(loaded_number(call, size))[:-1]


def new_numbers(first: int, count: int) -> Iterator[int]:
    return iter(range(FIRST_NEW + first, FIRST_NEW + first + count))


# The right answers, worked out without any store.


@lru_cache(maxsize=256)
def right_answer(operation: str, size: int, call: int) -> object:
    """What the operation must return for this call: names (a list is ordered, a set is not), a count, or None
    for operations that are checked otherwise."""
    numbers = range(size)
    if operation == "get":
        return [name_of(loaded_number(call, size))]
    if operation == "filter":
        low, high = SCORE_RANGE
        category = asked_category(call)
        return {name_of(n) for n in numbers if category_of(n) == category and low <= score_of(n) <= high}
    if operation == "range":
        low, high = NARROW_RANGE
        return {name_of(n) for n in numbers if low <= score_of(n) <= high}
    if operation == "count_range":
        low, high = SCORE_RANGE
        category = asked_category(call)
        return sum(1 for n in numbers if category_of(n) == category and low <= score_of(n) <= high)
    if operation == "order_by":
        return [name_of(n) for n in heapq.nlargest(PAGE, numbers, key=score_of)]
    if operation == "startswith":
        first = loaded_number(call, size) // 10 * 10
        return {name_of(n) for n in range(first, min(first + 10, size))}
    if operation in ("bulk_update", "delete_all"):
        return BATCH
    if operation == "count":
        return size
    if operation == "count_where":
        category = asked_category(call)
        return sum(1 for n in numbers if category_of(n) == category)
    if operation == "top_by_decay":
        return [name_of(n) for n in heapq.nlargest(PAGE, numbers, key=decayed)]
    return None


def decayed(number: int) -> float:
    """The decayed score of a memory at the moment it was loaded."""
    row = memory(number, 0.0)
    return row["importance"] * (-row["relevance"] / SECONDS_A_DAY) ** -DECAY_RATE


def is_right(operation: str, size: int, call: int, answer: object) -> bool:
    """Whether a contender's answer is right. A page of an unordered filter may be any PAGE of the matching
    records."""
    expected = right_answer(operation, size, call)
    if expected is None or answer is None:
        return True
    if isinstance(expected, set):
        if not isinstance(answer, list) or len(set(answer)) != len(answer):
            return False
        wanted = min(PAGE, len(expected)) if operation == "filter" else len(expected)
        return len(answer) == wanted and set(answer) <= expected
    if operation == "top_by_decay" and isinstance(answer, list) and isinstance(expected, list):
        # The minutes that pass during a run lower the factors by up to 1e-3, and of a million scores neighbours are
        # closer than that: places may change between such, and only between such.
        pairs = zip(answer, expected, strict=False)
        return len(set(answer)) == len(expected) and all(
            abs(decayed(number_of(a)) / decayed(number_of(e)) - 1) < 1e-3 for a, e in pairs
        )
    return answer == expected
