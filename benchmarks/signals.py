"""The memories that rankings of several signals are measured on, and the right answers.

As real stores are: few are touched often, most stand at their first confidence. One in OFTEN is read, 1 to 50 times by
a power law, and rated once. A memory was made up to a year ago, of late more often than long ago, and last touched when
it was last read: the latest of k times at random in its life lies, on the average, its age / (k + 1) back.

`related=False` gives an unfriendly store: reads are 1 to 4, all equally likely, and tell nothing of the age. Many then
share the highest count, and who is fresh is not who is read.

All values follow from the number.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import TypedDict

from . import data

OFTEN = 20  # one memory in so many is read and rated
DAILY, WEEKLY = 86_400, 604_800
WORDS_A_TEXT = 15
WORDS_A_QUERY = 3
VOCABULARY = 5000
K1, B = 1.2, 0.75
TWO = {"relevance": 0.1, "certainty": 1.0}
FOUR = {"relevance": 0.1, "certainty": 1.0, "access_count": 0.2, "priority": 0.5}
FIRST_CONFIDENCE = 0.5
PRIORITY = 0.7  # from here on a memory has priority
# Not compared with popoto 1.10.1: it moves confidences by another rule, and with cycles its order differs in places.
OWN_FORMULA = ("top_by_decay_cycles", "composite_two", "composite_four", "composite_unrelated")
DATASETS = ("signals", "unrelated")
YEAR = 365.0  # days
NEAR = 2e-3  # how far the minutes of a run may shift a score: see `is_right`

_ZIPF = list(itertools.accumulate(1 / rank for rank in range(1, VOCABULARY + 1)))
_STRIDE = 2_246_822_519


class SignalRow(TypedDict):
    agent_id: str
    name: str
    importance: float
    relevance: float
    rhythm: float
    text: str


def row(number: int, now: float, related: bool = True) -> SignalRow:
    """One memory: importance 1 to 10, touched up to a year before `now`, 15 words by Zipf's law."""
    touched = now - age_days(number, related) * data.SECONDS_A_DAY
    return {
        "agent_id": data.AGENT,
        "name": data.name_of(number),
        "importance": importance(number),
        "relevance": touched,
        "rhythm": touched,
        "text": " ".join(words(number, WORDS_A_TEXT)),
    }


def importance(number: int) -> float:
    return 1.0 + data.memory(number, 0.0)["importance"] * 0.9


def words(seed: int, count: int) -> list[str]:
    found = random.Random(seed).choices(range(VOCABULARY), cum_weights=_ZIPF, k=count)
    return [f"term{word:04d}" for word in found]


def query(call: int) -> str:
    return " ".join(words(-1 - call, WORDS_A_QUERY))


def reads(number: int, related: bool = True) -> int:
    """How often it was read; those that were read at all were rated once as well."""
    if number % OFTEN:
        return 0
    place = number // OFTEN * _STRIDE % 2**32
    return min(50, int(2**32 / (place + 1))) if related else 1 + place * 4 // 2**32


def age_days(number: int, related: bool = True) -> float:
    """Days since it was last touched, 1 to 365."""
    days = -data.memory(number, 0.0)["relevance"] / data.SECONDS_A_DAY  # 1 to 90, all equally likely
    days = 1.0 + (YEAR - 1.0) * ((days - 1.0) / 89.0) ** 2
    return max(1.0, days / (reads(number) + 1)) if related else days


def rating(number: int) -> float:
    """The signal that its confidence got; the first one replaces the prior."""
    return 0.5 + 0.5 * (number * _STRIDE % 2**32) / 2**32


def decayed(number: int, related: bool = True) -> float:
    return importance(number) * age_days(number, related) ** -data.DECAY_RATE


def with_cycles(number: int, now: float | None = None) -> float:
    """The decayed score with a daily and a weekly cycle, whose amplitudes have grown where it was read."""
    at = time.time() if now is None else now
    swing = 0.5 * math.cos(2 * math.pi * at / DAILY) + math.cos(2 * math.pi * at / WEEKLY)
    return decayed(number) + swing * (2.0 if reads(number) else 1.0)


def composite(number: int, weights: dict[str, float], related: bool = True) -> float:
    priority = importance(number) / 10
    parts = {
        "relevance": decayed(number, related),
        "certainty": rating(number) if reads(number) else FIRST_CONFIDENCE,
        "access_count": float(reads(number, related)),
        "priority": priority if priority >= PRIORITY else 0.0,
    }
    return sum(weight * parts[name] for name, weight in weights.items())


@lru_cache(maxsize=2)
def _postings(size: int) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for number in range(size):
        for word, count in Counter(words(number, WORDS_A_TEXT)).items():
            found.setdefault(word, {})[number] = count
    return found


def bm25(size: int, call: int) -> Callable[[int], float]:
    """Return what gives a memory's score for the query of this call; all texts are equally long."""
    postings = _postings(size)
    lists = [postings.get(word, {}) for word in dict.fromkeys(query(call).split())]
    weights = [math.log((size - len(have) + 0.5) / (len(have) + 0.5) + 1) for have in lists]

    def score(number: int) -> float:
        held = ((idf, have.get(number, 0)) for idf, have in zip(weights, lists, strict=True))
        return sum(idf * tf * (K1 + 1) / (tf + K1) for idf, tf in held)

    return score


def score_of(operation: str, size: int, call: int) -> Callable[[int], float]:
    if operation == "search":
        return bm25(size, call)
    if operation == "top_by_decay_cycles":
        now = time.time()
        return lambda number: with_cycles(number, now)
    weights = TWO if operation == "composite_two" else FOUR
    return lambda number: composite(number, weights, operation != "composite_unrelated")


def is_right(operation: str, size: int, call: int, answer: object) -> bool:
    """Whether an answer holds the best, up to equal scores and what the minutes of the run have changed."""
    if not isinstance(answer, list):
        return False
    score = score_of(operation, size, call)
    best = heapq.nlargest(data.PAGE, map(score, range(size)))
    best = [value for value in best if value > 0] if operation == "search" else best
    found = [score(data.number_of(name)) for name in answer]
    return len(set(answer)) == len(best) == len(found) and all(
        math.isclose(a, b, rel_tol=NEAR, abs_tol=NEAR) for a, b in zip(found, best, strict=True)
    )
