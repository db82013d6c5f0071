"""What rankings of several signals cost at their worst: hardly more visits than there are records, and short calls."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto import (
    AccessTrackerMixin,
    ConfidenceField,
    CyclicDecayField,
    DecayingSortedField,
    FloatField,
    KeyField,
    Model,
    SortedField,
    redis_db,
)
from popoto.memory import clock, composite
from popoto.memory.composite import composite_of, composite_steps
from popoto.memory.cyclic_ranking import top_by_decay_steps
from popoto.memory.decay import decay_score
from popoto.orm.drivers import drive, run

NOW = 1_750_000_000.0
DAY = 86_400.0
LARGEST = composite.CHUNKS[1]


class Sorted(Model):
    """Signals without any formula: what is stored is what counts."""

    name = KeyField()
    a = SortedField(type=float, default=0.0)
    b = SortedField(type=float, default=0.0)
    c = SortedField(type=float, default=0.0)
    d = SortedField(type=float, default=0.0)


class Remembered(AccessTrackerMixin, Model):
    name = KeyField()
    weight = FloatField(default=1.0)
    seen = DecayingSortedField(base_score_field="weight")
    certainty = ConfidenceField()
    level = SortedField(type=float, default=0.0)


class Turning(Model):
    name = KeyField()
    weight = FloatField(default=1.0)
    due = CyclicDecayField(base_score_field="weight", cycles=[(DAY, 1.0)])


def stored(records: Iterable[Any]) -> list[Any]:
    """Save with the given times, in one pipeline."""
    pipeline = redis_db.get_REDIS_DB().pipeline(transaction=False)
    saved = list(records)
    for record in saved:
        record.save(pipeline=pipeline, skip_auto_now=True)
    pipeline.execute()
    return saved


def ranked(
    builder: Any, weights: dict[str, float], limit: int = 10, **options: Any
) -> tuple[list[Any], dict[str, int]]:
    stats: dict[str, int] = {}
    found = drive(composite_steps(composite_of(builder, weights, **options), limit, stats=stats))
    return found, stats


def best(scores: dict[str, float], limit: int = 10) -> list[str]:
    return sorted(scores, key=lambda key: (scores[key], key), reverse=True)[:limit]


AGGREGATES: dict[str, Callable[[Iterable[float]], float]] = {"SUM": sum, "MIN": min, "MAX": max}


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_unrelated_signals_cost_no_more_visits_than_records(server: redis.Redis, aggregate: str) -> None:
    rng = random.Random(4)
    notes = stored(Sorted(name=f"{i:04}", **{name: rng.random() for name in "abcd"}) for i in range(1500))
    weights = dict.fromkeys("abcd", 1.0)
    found, stats = ranked(Sorted.query.filter(), weights, aggregate=aggregate)
    scores = {note.pk: AGGREGATES[aggregate](getattr(note, name) for name in weights) for note in notes}
    assert [note.pk for note in found] == best(scores)
    assert stats["visited"] <= 1500


def test_signals_that_lead_astray_cost_hardly_more(server: redis.Redis) -> None:
    """Whoever is high in three of four signals is as low in the fourth: all sums are about 0. Yet each step into a set
    seems to be worth more than walking one set to its end, until all have been walked for three quarters."""
    count, rng = 3000, random.Random(5)
    notes = []
    for i in range(count):
        high = 10 * (1 - 0.75 * i / count) ** 6
        values = dict.fromkeys("abcd", high)
        values["abcd"[i % 4]] = rng.random() * 1e-3 - 3 * high
        notes.append(Sorted(name=f"{i:04}", **values))
    stored(notes)
    found, stats = ranked(Sorted.query.filter(), dict.fromkeys("abcd", 1.0))
    scores = {note.pk: sum(getattr(note, name) for name in "abcd") for note in notes}
    assert [one._composite_score for one in found] == pytest.approx([scores[key] for key in best(scores)])
    assert stats["visited"] <= 1.2 * count + LARGEST


def test_the_highest_of_several_signals_is_found_at_the_heads(server: redis.Redis) -> None:
    rng = random.Random(6)
    notes = stored(Sorted(name=f"{i:04}", **{name: rng.random() for name in "abcd"}) for i in range(1000))
    found, stats = ranked(Sorted.query.filter(), dict.fromkeys("abcd", 1.0), aggregate="MAX")
    assert [note.pk for note in found] == best({n.pk: max(n.a, n.b, n.c, n.d) for n in notes})
    assert stats["visited"] <= 4 * 64


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    levels=st.integers(1, 4),
    weights=st.dictionaries(
        st.sampled_from(["seen", "certainty", "level", "access_count"]),
        st.sampled_from([-1.0, 0.3, 1.0, 2.0]),
        min_size=1,
    ),
    aggregate=st.sampled_from(["SUM", "SUM", "MIN", "MAX"]),
    limit=st.sampled_from([1, 10, 40]),
    cut=st.booleans(),
)
def test_stores_larger_than_a_chunk_are_ranked_as_by_scoring_everything(
    server: redis.Redis, seed: int, levels: int, weights: dict[str, float], aggregate: str, limit: int, cut: bool
) -> None:
    server.flushdb()
    rng = random.Random(seed)
    notes = stored(
        Remembered(
            name=f"{i:03}", weight=rng.choice([1.0, 1.0, rng.uniform(-1, 5)]),
            seen=NOW - rng.expovariate(1 / (9 * DAY)), certainty=rng.choice([0.5, 0.5, 0.5, rng.random()]),
            level=float(rng.randrange(levels)),
        )
        for i in range(500)
    )  # fmt: skip
    reads = {note.pk: rng.choice([1.0, rng.random()]) for note in notes if rng.random() < 0.4}
    server.zadd("$AT:Remembered:count", reads)
    missing = float("inf") if aggregate == "MIN" else 0.0  # what does not hold a record does not count

    def part(note: Any, name: str) -> float:
        if name == "seen":
            return decay_score(note.weight, note.seen, NOW, Remembered.seen.decay_rate)
        if name == "access_count":
            return reads.get(note.pk, missing / weights[name])
        return float(getattr(note, name))

    held = [note for note in notes if set(weights) != {"access_count"} or note.pk in reads]
    scores = {n.pk: AGGREGATES[aggregate](w * part(n, name) for name, w in weights.items()) for n in held}
    with pytest.MonkeyPatch.context() as patch, clock.frozen(NOW):
        if cut:
            patch.setattr(composite, "SLICE", 60)
            patch.setattr(composite, "CHUNKS", (8, 40))
        found, _ = ranked(Remembered.query.no_track(), weights, limit, aggregate=aggregate)
    wanted = best(scores, limit)
    assert [one._composite_score for one in found] == pytest.approx(
        [scores[key] for key in wanted], rel=1e-12, abs=1e-12
    )
    if "seen" not in weights:
        assert [one.pk for one in found] == wanted


def test_no_call_looks_at_more_than_a_slice(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(8)
    notes = stored(Sorted(name=f"{i:04}", **{name: rng.random() for name in "abcd"}) for i in range(1500))
    whole, _ = ranked(Sorted.query.filter(), dict.fromkeys("abcd", 1.0))
    monkeypatch.setattr(composite, "SLICE", 100)
    steps = composite_steps(composite_of(Sorted.query.filter(), dict.fromkeys("abcd", 1.0)), 10)
    visits, command = [], next(steps)
    with pytest.raises(StopIteration) as end:
        while True:
            reply = run(command)
            visits.append(reply[3])
            command = steps.send(reply)
    assert [note.pk for note in end.value.value] == [note.pk for note in whole]
    assert max(visits) <= 100 < sum(visits) <= len(notes)


def test_a_long_list_is_scored_once_more_in_a_call_of_its_own(
    server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(Sorted(name=f"{i:04}", a=float(i % 97), b=float(i % 89)) for i in range(600))
    whole, _ = ranked(Sorted.query.filter(), {"a": 1.0, "b": 1.0}, 90)
    monkeypatch.setattr(composite, "SLICE", 100)
    found, stats = ranked(Sorted.query.filter(), {"a": 1.0, "b": 1.0}, 90)
    assert [note.pk for note in found] == [note.pk for note in whole]
    assert stats["calls"] > stats["visited"] / 100


def test_a_turning_store_of_unrelated_ages_and_bases_is_not_read_whole(server: redis.Redis) -> None:
    rng = random.Random(9)
    stored(Turning(name=f"{i:04}", weight=rng.uniform(1, 10), due=NOW - DAY * rng.uniform(1, 90)) for i in range(2000))
    stats: dict[str, int] = {}
    with clock.frozen(NOW):
        found = drive(top_by_decay_steps(Turning.query.filter(), n=10, stats=stats))
        every = drive(top_by_decay_steps(Turning.query.filter(), n=2000))
    assert [one.pk for one in found] == [one.pk for one in every[:10]]
    assert stats["visited"] < 600
