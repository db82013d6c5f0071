"""All primitives in one model: rankings while others write, nothing left of what is gone, one round trip a call."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto import (
    AccessTrackerMixin,
    BM25Field,
    ConfidenceField,
    CoOccurrenceField,
    CyclicDecayField,
    DecayingSortedField,
    ExistenceFilter,
    Field,
    FrequencySketch,
    IndexedField,
    KeyField,
    Model,
    ModelException,
    ObservationProtocol,
    PredictionLedgerMixin,
    RecallProposal,
    SortedField,
    WriteFilterMixin,
)
from popoto.memory import composite
from popoto.memory.composite import composite_of, composite_steps
from popoto.memory.cyclic import cyclic_decay_score
from popoto.memory.decay import decay_score
from popoto.orm.drivers import drive
from popoto.orm.keys import model_keys
from popoto.testing import frozen_time
from tests.conftest import Server
from tests.faults.workers import ERRORS, start
from tests.memory.traces import stored, traces

DAY = 86_400.0
NAMES = [f"n{i:02}" for i in range(60)]


class Whole(AccessTrackerMixin, WriteFilterMixin, PredictionLedgerMixin, Model):
    """A model with every primitive."""

    name = KeyField()
    team = IndexedField(default="red")
    weight = Field(type=float, default=1.0)
    text = Field(default="", max_length=None)
    rank = SortedField(type=float, default=0.0)
    seen = DecayingSortedField(base_score_field="weight")
    due = CyclicDecayField(cycles=[(DAY, 2.0), (7 * DAY, 1.0, DAY)], pressure_rate=0.5, base_score_field="weight")
    certainty = ConfidenceField()
    trust = ConfidenceField(partition_by="team", initial_confidence=0.8)
    links = CoOccurrenceField()
    known = ExistenceFilter(fingerprint_fn=lambda record: record.text, capacity=1000)
    heard = FrequencySketch(fingerprint_fn=lambda record: record.text)
    words = BM25Field("text")

    def compute_filter_score(self) -> float:
        return self.weight


SIGNALS = ("seen", "due", "certainty", "rank", "access_count", "priority")
MIX = st.dictionaries(st.sampled_from(SIGNALS), st.sampled_from([-1.0, 0.0, 0.3, 1.0, 2.5]), min_size=1)


def write_at_random(seed: int, count: int) -> None:
    """Run in a process of its own: save, touch, rescore, read and delete shared records."""
    rng = random.Random(seed)
    for _ in range(count):
        name, kind = rng.choice(NAMES), rng.randrange(10)
        found = Whole.load(name=name)
        if kind < 3 or found is None:
            Whole(name=name, team=rng.choice(["red", "blue"]), weight=rng.uniform(0.2, 3), rank=rng.randrange(5)).save()
            continue
        try:
            if kind == 3:
                found.delete()
            elif kind == 4:
                found.touch(rng.choice(["seen", "due"]))
            elif kind == 5:
                found.rank = float(rng.randrange(5))
                found.save(update_fields=["rank"])
            elif kind == 6:
                ConfidenceField.update_confidence(found, "certainty", rng.random())
            elif kind == 7:
                found.strengthen_cycle("due", rng.choice([0.5, 1.5]))
            elif kind == 8:
                found.resolve_pressure("due")
            else:
                found.on_read()
                found.confirm_access()
        except (ModelException, TypeError) as refused:  # another process has deleted it in between
            if "not stored" not in str(refused) and "saved" not in str(refused):
                raise


def score_everything(server: redis.Redis, now: float) -> dict[str, dict[str, float | None]]:
    """Return each record's signals, from what is stored of it alone; None for one that does not hold it."""
    scores: dict[str, dict[str, float | None]] = {}
    field = Whole._meta.fields["due"]
    cycles = server.hgetall("$CyclicDecayF:Whole:due:cycles")
    pressure = server.hgetall("$CyclicDecayF:Whole:due:pressure")
    for record in Whole.query.no_track().all():
        key = record.pk.encode()
        its = msgpack.unpackb(cycles[key]) if key in cycles else []
        pressing = msgpack.unpackb(pressure[key]) if key in pressure else None
        due = (pressing["rate"], pressing["last_resolved"]) if pressing else None
        scores[record.pk] = {
            "seen": decay_score(record.weight, record.seen, now, Whole._meta.fields["seen"].decay_rate),
            "due": cyclic_decay_score(record.weight, record.due, now, field.decay_rate, its, due),
            "certainty": ConfidenceField.get_confidence(record, "certainty"),
            "rank": record.rank,
            "access_count": record.access_count or None,
            "priority": record.weight if record.weight >= 0.7 else None,
        }
    return scores


def brute(scores: dict[str, dict[str, float | None]], mix: dict[str, float], aggregate: str) -> dict[str, float]:
    """Aggregate all of it: what a record lacks counts 0, for MIN not at all."""
    found = {}
    for key, parts in scores.items():
        have = [weight * parts[name] for name, weight in mix.items() if parts[name] is not None]
        if have:
            lacking = [] if aggregate == "MIN" else [0.0] * (len(mix) - len(have))
            found[key] = {"SUM": sum, "MIN": min, "MAX": max}[aggregate](have + lacking)
    return found


def agree(found: list[Any], expected: dict[str, float], limit: int) -> None:
    best = sorted(expected.items(), key=lambda item: (item[1], item[0]), reverse=True)[:limit]
    shown = [record._composite_score for record in found]
    assert shown == pytest.approx([score for _, score in best], rel=1e-9, abs=1e-9)
    assert len({record.pk for record in found}) == len(found)
    for record in found:
        assert record._composite_score == pytest.approx(expected[record.pk], rel=1e-9, abs=1e-9)


def some_queries(rng: random.Random) -> Iterator[tuple[dict[str, float], str]]:
    while True:
        names = rng.sample(SIGNALS, rng.randint(1, len(SIGNALS)))
        yield {name: rng.choice([-1.0, 0.3, 1.0, 2.5]) for name in names}, rng.choice(["SUM", "MIN", "MAX"])


def test_every_mix_ranks_as_scoring_everything_while_others_write(server: redis.Redis, shared_server: Server) -> None:
    processes = [start(write_at_random, shared_server.url, seed, 150) for seed in range(4)]
    queries = some_queries(random.Random(1))
    asked = 0
    while any(process.is_alive() for process in processes):
        mix, aggregate = next(queries)
        found = Whole.query.no_track().filter(team="red").composite_score(mix, aggregate=aggregate)
        shown = [record._composite_score for record in found]
        assert shown == sorted(shown, reverse=True)
        assert len({record.pk for record in found}) == len(found) <= 10
        asked += 1
    for process in processes:
        process.join()
    assert server.lrange(ERRORS, 0, -1) == []
    assert asked > 3
    now = time.time()
    with frozen_time(now):
        scores = score_everything(server, now)
        assert any(parts["access_count"] for parts in scores.values())
        red = {record.pk for record in Whole.query.no_track().filter(team="red")}
        for _ in range(60):
            mix, aggregate = next(queries)
            expected = brute(scores, mix, aggregate)
            agree(Whole.query.no_track().composite_score(mix, aggregate=aggregate), expected, 10)
            mine = {key: score for key, score in expected.items() if key in red}
            agree(Whole.query.no_track().filter(team="red").composite_score(mix, aggregate=aggregate), mine, 10)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    mix=MIX,
    aggregate=st.sampled_from(["SUM", "MIN", "MAX"]),
    limit=st.integers(1, 12),
    small=st.booleans(),
)
def test_every_mix_of_signals_ranks_as_scoring_everything(
    server: redis.Redis, seed: int, mix: dict[str, float], aggregate: str, limit: int, small: bool
) -> None:
    server.flushall()
    write_at_random(seed, 80)
    sizes = composite.SLICE, composite.CHUNKS, composite.GATHER
    now = time.time() + 3 * DAY
    with frozen_time(now):
        if small:
            composite.SLICE, composite.CHUNKS, composite.GATHER = 7, (2, 4), 0
        try:
            found = Whole.query.no_track().composite_score(mix, limit=limit, aggregate=aggregate)
        finally:
            composite.SLICE, composite.CHUNKS, composite.GATHER = sizes
        agree(found, brute(score_everything(server, now), mix, aggregate), limit)


# -- nothing is left ---------------------------------------------------------------------------------------------------


def neighbour() -> Whole:
    return Whole.create(name="neighbour", text="plain neighbourly text", weight=1.0)


def live(record: Whole, other: Whole) -> None:
    """Use every primitive of the record."""
    record.touch("seen")
    record.strengthen_cycle("due")
    record.resolve_pressure("due")
    ConfidenceField.update_confidence(record, "certainty", 0.9)
    ConfidenceField.update_confidence(record, "trust", 0.2)
    links = Whole._meta.fields["links"]
    links.link(Whole, record.pk, other.pk)
    links.strengthen(Whole, other.pk, record.pk, 0.2)
    record.on_read()
    record.confirm_access()
    record.on_read()  # one that stays staged
    PredictionLedgerMixin.record_prediction(record, {"answer": 1.0})
    PredictionLedgerMixin.resolve_prediction(record, {"answer": 0.0})
    PredictionLedgerMixin.record_prediction(record, {"answer": 2.0})
    RecallProposal.create_batch([record, other])
    RecallProposal.create_batch([record], partition="elsewhere")
    Whole.query.composite_score({"seen": 1.0, "priority": 1.0})
    Whole.query.keyword_search("unmistakable")


def bits(server: redis.Redis) -> dict[bytes, Any]:
    """Return the existence filter as it is stored, which holds words as hashes only; zeros at an end mean nothing."""
    found = {key: content for key, content in stored(server).items() if key.startswith(b"$EF:")}
    assert found
    return {key: content.rstrip(b"\0") if isinstance(content, bytes) else content for key, content in found.items()}


@pytest.mark.parametrize("way", ["delete", "expiry", "migration", "query"])
def test_what_is_gone_leaves_nothing_in_any_key_of_any_primitive(server: redis.Redis, way: str) -> None:
    other = neighbour()
    before = bits(server)
    record = Whole(name="departed", text="unmistakable peculiar wording", team="azure", weight=2.0, _ttl=1000)
    record.save()
    live(record, other)
    assert len(traces(server, "departed")) > 15
    words = ("departed", "unmistak", "peculiar", "azure")
    if way == "delete":
        record.delete()
    elif way == "query":
        Whole.bulk_delete(Whole.query.filter(name="departed"))
    elif way == "expiry":
        server.zadd(model_keys("", "Whole").expiry, {record.pk: 1.0})
        server.delete(record.pk)  # what is left when a TTL ends
        Whole(name="fresh", text="plain neighbourly text", _ttl=1000).save()  # a write clears away what has expired
        Whole.load(name="fresh").delete()
    else:
        record = Whole.load(name="departed")
        record.name, record.text, record.team = "moved", "entirely other", "ochre"
        record.save(migrate_key=True)
        assert len(traces(server, "moved")) > 15
    assert traces(server, *words) == []
    known = Whole._meta.fields["known"]
    for word in ("unmistakable", "peculiar", "wording"):
        assert known.definitely_missing(Whole, word)
    assert known.might_exist(Whole, "neighbourly")
    if way != "migration":
        assert bits(server) == before
        assert traces(server, "departed", "moved") == []
    assert Whole.query.keyword_search("neighbourly")[0].pk == other.pk


# -- one round trip ----------------------------------------------------------------------------------------------------


def test_each_operation_is_one_round_trip(server: redis.Redis, round_trips: Any) -> None:
    made = [Whole.create(name=f"n{i}", text=f"word{i} common", weight=1.0 + i) for i in range(25)]
    links, known = Whole._meta.fields["links"], Whole._meta.fields["known"]
    for record in made[1:]:
        links.link(Whole, made[0].pk, record.pk, initial_weight=0.9)
    for record in made:
        PredictionLedgerMixin.record_prediction(record, {"answer": 1.0})
    RecallProposal.create_batch(made)
    quiet = Whole.query.no_track().filter(team="red")
    outcomes = ("acted", "used", "dismissed", "deferred", "contradicted")
    outcome_map = {record.pk: outcomes[i % 5] for i, record in enumerate(made[:20])}
    four = {"seen": 1.0, "certainty": 0.5, "access_count": 0.1, "priority": 1.0}
    operations = {
        "top_by_decay": lambda: quiet.top_by_decay("seen", n=10),
        "top_by_decay, cycles": lambda: quiet.top_by_decay("due", n=10),
        "composite_score": lambda: quiet.composite_score(four, co_occurrence_boost={made[3].pk: 0.5}),
        "hop": lambda: links.propagate(Whole, [made[0].pk], depth=1),
        "might_exist_batch": lambda: known.might_exist_batch(Whole, [f"word{i}" for i in range(100)]),
        "search": lambda: BM25Field.search(Whole, "words", "common word3"),
        "keys of 20 outcomes": lambda: ObservationProtocol.on_context_used(made[:20], outcome_map),
    }
    for name, operation in operations.items():
        with round_trips() as trips:
            answer = operation()
        assert trips.count == 1, name
        if name != "keys of 20 outcomes":
            assert answer, name
    assert ConfidenceField.get_confidence(made[0], "certainty") != 0.5  # the outcomes did act


def test_visits_are_counted(server: redis.Redis) -> None:
    for i in range(300):
        Whole(name=f"n{i:03}", weight=1.0 + i % 7).save()
    stats: dict[str, int] = {}
    drive(composite_steps(composite_of(Whole.query.no_track(), {"seen": 1.0, "certainty": 1.0}), 3, stats=stats))
    assert stats["calls"] == 1
    assert 3 <= stats["visited"] < 300
