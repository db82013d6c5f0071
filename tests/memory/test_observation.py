"""ObservationProtocol: a test a row of the matrix of effects, all of a batch or nothing, in one round trip."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from popoto import (
    AccessTrackerMixin,
    ConfidenceField,
    CyclicDecayField,
    DecayingSortedField,
    Defaults,
    Field,
    KeyField,
    Model,
    ModelException,
    ObservationProtocol,
    PredictionLedgerMixin,
    RecallProposal,
    redis_db,
)
from popoto.fields.observation import VALID_OUTCOMES
from popoto.memory import clock
from popoto.orm.scripts import Script
from tests.faults.proxy import cutting_proxy
from tests.memory.traces import WAYS, stored

DAY = 86_400.0
T0 = 1_700_000_000.5
OUTCOMES = ("acted", "used", "dismissed", "deferred", "contradicted")


class Observed(AccessTrackerMixin, PredictionLedgerMixin, Model):
    name = KeyField()
    team = Field(default="red")
    text = Field(default="")
    seen = DecayingSortedField()
    due = CyclicDecayField(cycles=[(DAY, 10.0), (7 * DAY, 1.0, DAY)], pressure_rate=0.5, partition_by="team")
    swing = CyclicDecayField(cycles=[(DAY, 2.0)])
    certainty = ConfidenceField()
    trust = ConfidenceField(partition_by="team", initial_confidence=0.8)


class Bystander(Model):
    name = KeyField()


class OnlyTracked(AccessTrackerMixin, Model):
    name = KeyField()


class OnlyTurning(Model):
    name = KeyField()
    due = CyclicDecayField(cycles=[(DAY, 1.0)])


@pytest.fixture(params=WAYS, ids=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Callable[..., Any]:
    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        if request.param is WAYS[0]:
            return getattr(ObservationProtocol, name)(*args, **kwargs)
        return asyncio.run(getattr(ObservationProtocol, f"async_{name}")(*args, **kwargs))

    return call


@pytest.fixture(autouse=True)
def frozen() -> Iterator[clock.FrozenClock]:
    with clock.frozen(T0) as still:
        yield still


def prepared(name: str = "a") -> Observed:
    """A record with a staged read, an open prediction and a proposal each of two agents."""
    record = Observed.create(name=name)
    record.on_read()
    Observed.record_prediction(record, {"a": 1})
    for partition in (None, "ann"):
        RecallProposal.create_batch([record], partition=partition)
    return record


def state(server: redis.Redis, record: Observed) -> dict[str, Any]:
    """What the matrix speaks of, as the server has it."""
    data = Observed.get_prediction_data(record) or {}
    fresh = Observed.query.filter(name=record.name).no_track().first()
    scores = {name: server.zscore(key, record.pk) for name, key in TIMES.items()}
    assert scores == {name: getattr(fresh, name) for name in TIMES}, "hash and index agree"
    cycles = {name: [amplitude for _, amplitude, _ in record.strengthen_cycle(name, 1.0)] for name in ("due", "swing")}
    resolved = server.zscore("$CyclicDecayF:Observed:due:red:pressure::0.5", record.pk)
    return {
        "touched": {name: at for name, at in scores.items() if at != T0},
        "staged": server.llen(f"$AT:Observed:staged:{record.pk}"),
        "count": record.access_count,
        "cycles": cycles,
        "pressure since": resolved,
        "certainty": ConfidenceField.get_confidence(record, "certainty"),
        "trust": ConfidenceField.get_confidence(record, "trust"),
        "error": data.get("prediction_error"),
        "mode": data.get("resolution_mode"),
        "pending": [
            partition
            for partition in (None, "ann")
            if record.pk in dict(RecallProposal.get_pending(Observed, partition))
        ],
    }


TIMES = {
    "seen": "$DecayingSortF:Observed:seen",
    "due": "$CyclicDecayF:Observed:due:red",
    "swing": "$CyclicDecayF:Observed:swing",
}
UNTOUCHED: dict[str, Any] = {
    "touched": {},
    "staged": 1,
    "count": 0,
    "cycles": {"due": [10.0, 1.0], "swing": [2.0]},
    "pressure since": T0,
    "certainty": 0.5,
    "trust": 0.8,
    "error": None,
    "mode": None,
    "pending": [None, "ann"],
}
LATER = T0 + DAY
MATRIX: dict[str, dict[str, Any]] = {
    "acted": {
        "touched": {"seen": LATER, "due": LATER, "swing": LATER},
        "staged": 0,
        "count": 1,
        "cycles": {"due": [12.0, 1.2], "swing": [2.4]},
        "pressure since": LATER,
        "certainty": 0.9,
        "trust": 0.9,
        "error": 0.1,
        "mode": "observed",
        "pending": [],
    },
    "used": {"staged": 0, "count": 1, "error": 0.3, "mode": "observed", "pending": []},
    "dismissed": {
        "staged": 0,
        "cycles": {"due": [8.0, 0.8], "swing": [1.6]},
        "error": 0.5,
        "mode": "observed",
        "pending": [],
    },
    "deferred": {"staged": 0, "pending": []},
    "contradicted": {
        "staged": 0,
        "cycles": {"due": [5.0, 0.5], "swing": [1.0]},
        "pressure since": LATER,  # 0.5 + (0.1 - 0.5) is a little below 0.1
        "certainty": 0.5 + (0.1 - 0.5),
        "trust": 0.8 + (0.1 - 0.8),
        "error": 0.9,
        "mode": "observed",
        "pending": [],
    },
}


# -- the matrix --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_row_of_the_matrix_to_the_digit(
    server: redis.Redis, way: Callable[..., Any], frozen: clock.FrozenClock, outcome: str
) -> None:
    record, other = prepared(), prepared("other")
    assert state(server, record) == UNTOUCHED
    frozen.at = LATER
    assert way("on_context_used", [record], {record.pk: outcome}) is None
    found = state(server, record)
    assert found == {**UNTOUCHED, **MATRIX[outcome]}
    assert (record.certainty, record.trust) == (found["certainty"], found["trust"])
    assert {record.seen, record.due, record.swing} == ({LATER} if outcome == "acted" else {T0})
    assert state(server, other) == UNTOUCHED, "nobody else is changed"


def test_every_outcome_has_a_row() -> None:
    assert VALID_OUTCOMES == set(MATRIX) == set(OUTCOMES)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_model_without_a_capability_skips_it(server: redis.Redis, way: Callable[..., Any], outcome: str) -> None:
    bystander = Bystander.create(name="a")
    before = stored(server)
    RecallProposal.create_batch([bystander], partition="ann")
    way("on_context_used", [bystander], {bystander.pk: outcome})
    after = stored(server)
    assert {key: value for key, value in after.items() if b"$occ" not in key} == {
        key: value for key, value in before.items() if b"$occ" not in key
    }
    assert [key for key in after if b"$RP" in key] == []


def test_a_record_that_no_outcome_is_told_of_is_deferred(server: redis.Redis, way: Callable[..., Any]) -> None:
    record, other = prepared(), prepared("other")
    way("on_context_used", [record, other], {other.pk: "used"})
    assert state(server, record) == {**UNTOUCHED, **MATRIX["deferred"]}
    assert state(server, other) == {**UNTOUCHED, **MATRIX["used"]}


def test_keys_may_be_bytes_and_instances_any_iterable(server: redis.Redis, way: Callable[..., Any]) -> None:
    record = prepared()
    way("on_context_used", (r for r in [record]), {b"Observed:a": "used"})
    assert state(server, record)["error"] == 0.3


def test_keys_may_be_the_instances_themselves(server: redis.Redis, way: Callable[..., Any]) -> None:
    record = prepared()
    way("on_context_used", [record], {record: "used"})
    assert state(server, record) == {**UNTOUCHED, **MATRIX["used"]}


# -- contradicted ------------------------------------------------------------------------------------------------------


def test_a_contradiction_is_one_penalty(server: redis.Redis) -> None:
    """The error of 0.9 alone would send the low signal of 0.2 as well."""
    record = prepared()
    ObservationProtocol.on_context_used([record], {record.pk: "contradicted"})
    assert ConfidenceField.get_confidence_data(record, "certainty") == {
        "confidence": 0.5 + (0.1 - 0.5),
        "evidence_count": 1,
        "corroborations": 0,
        "contradictions": 1,
    }


def test_another_outcome_with_a_large_error_lowers_the_confidence(server: redis.Redis) -> None:
    class Severe(PredictionLedgerMixin, Model):
        name = KeyField()
        certainty = ConfidenceField()
        _pl_auto_resolve_errors = {"dismissed": 0.8}  # type: ignore[assignment]

    record = Severe.create(name="a")
    for outcome, expected in [("used", 0.5), ("dismissed", 0.2)]:
        Severe.record_prediction(record, {})
        ObservationProtocol.on_context_used([record], {record.pk: outcome})
        assert record.certainty == expected
    assert Severe.get_highest_errors(Severe) == [("Severe:a", 0.8)], "an outcome without an error resolves nothing"


def test_hardly_believed_records_are_relieved_of_their_pressure(
    server: redis.Redis, frozen: clock.FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "$CyclicDecayF:Observed:due:red:pressure::0.5"
    record = prepared()
    frozen.at = LATER
    monkeypatch.setattr(Defaults, "CONTRADICTED_CONFIDENCE_SIGNAL", 0.125)
    ObservationProtocol.on_context_used([record], {record.pk: "contradicted"})
    assert record.certainty == 0.125
    assert server.zscore(key, record.pk) == T0
    monkeypatch.setattr(Defaults, "AUTO_DISCHARGE_CONFIDENCE_THRESHOLD", 0.125)
    ObservationProtocol.on_context_used([record], {record.pk: "contradicted"})
    assert server.zscore(key, record.pk) == T0, "only below the threshold"
    monkeypatch.setattr(Defaults, "AUTO_DISCHARGE_CONFIDENCE_THRESHOLD", 0.126)
    ObservationProtocol.on_context_used([record], {record.pk: "contradicted"})
    assert server.zscore(key, record.pk) == LATER


# -- repeated, at once -------------------------------------------------------------------------------------------------


def test_repeating_an_outcome_repeats_only_what_counts(server: redis.Redis, frozen: clock.FrozenClock) -> None:
    record = prepared()
    ObservationProtocol.on_context_used([record], {record.pk: "used"})
    once = state(server, record)
    ObservationProtocol.on_context_used([record], {record.pk: "used"})
    assert state(server, record) == once
    ObservationProtocol.on_context_used([record, record], {record.pk: "acted"})
    found = state(server, record)
    assert found["cycles"]["swing"] == [2.0 * 1.2 * 1.2], "given twice, it counts twice"
    assert found["error"] == 0.3, "a prediction resolves once"
    assert ConfidenceField.get_confidence_data(record, "certainty")["evidence_count"] == 2


def test_twenty_records_with_all_effects_are_one_round_trip(server: redis.Redis, round_trips: Any) -> None:
    records = [prepared(f"r{number:02}") for number in range(20)]
    with round_trips() as trips:
        ObservationProtocol.on_context_used(
            records, {record.pk: OUTCOMES[number % 5] for number, record in enumerate(records)}
        )
    assert trips.count == 1
    for number, record in enumerate(records):
        assert state(server, record)["error"] == MATRIX[OUTCOMES[number % 5]].get("error")


def test_a_repeat_after_a_cut_reply_acts_once(server: redis.Redis, shared_server: Any, way: Callable[..., Any]) -> None:
    record = prepared()
    for script in Script._all:
        server.script_load(script.source)
    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        proxy.cut_replies(times=2)
        way("on_context_used", [record], {record.pk: "acted"})
        assert proxy.cuts == 2
        redis_db.configure_url(shared_server.url)
    assert state(server, record) == {**UNTOUCHED, **MATRIX["acted"], "touched": {}, "pressure since": T0}
    assert record.certainty == 0.9


def test_outcomes_of_many_agents_at_once_all_count(server: redis.Redis) -> None:
    record = prepared()

    async def report() -> None:
        await asyncio.gather(
            *(ObservationProtocol.async_on_context_used([record], {record.pk: "acted"}) for _ in range(30))
        )

    asyncio.run(report())
    assert state(server, record)["cycles"]["swing"] == [pytest.approx(min(100.0, 2.0 * 1.2**30))]
    assert ConfidenceField.get_confidence_data(record, "certainty")["evidence_count"] == 30


def test_records_of_several_models_in_one_batch(server: redis.Redis, way: Callable[..., Any]) -> None:
    record, tracked, turning = prepared(), OnlyTracked.create(name="a"), OnlyTurning.create(name="a")
    tracked.on_read()
    instances = [record, tracked, Bystander.create(name="a"), turning]
    way("on_context_used", instances, {r.pk: "acted" for r in instances})
    assert state(server, record)["count"] == tracked.access_count == 1
    assert turning.strengthen_cycle("due", 1.0)[0][1] == 1.2


# -- all or nothing ----------------------------------------------------------------------------------------------------


def test_nothing_to_tell_is_nothing(server: redis.Redis, way: Callable[..., Any], round_trips: Any) -> None:
    wrong: Any = None
    with round_trips() as trips:
        assert way("on_context_used", [], {"x": "nonsense"}) is None
        assert way("on_context_used", [], wrong) is None
        assert way("on_surfaced", []) is None
    assert trips.count == 0


@pytest.mark.parametrize("outcome", ["", "ACTED", None, 5], ids=str)
def test_an_unknown_outcome_changes_nothing(server: redis.Redis, way: Callable[..., Any], outcome: Any) -> None:
    record = prepared()
    before = stored(server)
    with pytest.raises(ValueError, match="an outcome is one of"):
        way("on_context_used", [record], {record.pk: "acted", "Observed:elsewhere": outcome})
    assert stored(server) == before


@pytest.mark.parametrize(
    ("model", "refused"),
    [
        (Observed, {"acted", "used", "dismissed", "contradicted"}),
        (OnlyTracked, {"acted", "used"}),
        (OnlyTurning, {"acted", "dismissed", "contradicted"}),
        (Bystander, set()),
    ],
    ids=lambda value: getattr(value, "__name__", "-"),
)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_unsaved_record_that_would_change_stops_the_batch(
    server: redis.Redis, way: Callable[..., Any], model: Any, refused: set[str], outcome: str
) -> None:
    record, unsaved = prepared(), model(name="new")
    before = stored(server)
    outcomes = {record.pk: "acted", unsaved.pk: outcome}
    if outcome in refused:
        with pytest.raises(TypeError, match="never saved"):
            way("on_context_used", [record, unsaved], outcomes)
        assert stored(server) == before
    else:
        way("on_context_used", [record, unsaved], outcomes)
        assert record.certainty == 0.9
        assert not server.exists(unsaved.pk)


def test_a_record_that_is_gone_is_passed_over(
    server: redis.Redis, way: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    gone, expired, record = prepared("gone"), prepared("expired"), prepared()
    Observed(name="gone").delete()
    server.pexpire(expired.pk, 1)
    time.sleep(0.01)
    with caplog.at_level(logging.WARNING, logger="popoto.memory"):
        way("on_context_used", [gone, expired, record], {r.pk: "acted" for r in (gone, expired, record)})
    assert record.certainty == 0.9
    assert (gone.certainty, gone.seen) == (0.5, T0)
    assert [entry.getMessage().split()[1] for entry in caplog.records] == ["Observed:gone", "Observed:expired"]
    assert not server.exists("Observed:gone", "$AT:Observed:meta:Observed:gone")


FOREIGN = {
    "$DecayingSortF:Observed:seen": "acted",
    "$CyclicDecayF:Observed:swing:cycles": "dismissed",
    "$CyclicDecayF:Observed:due:red:pressure": "acted",
    "$AT:Observed:meta:Observed:b": "used",
    "$ConfidencF:Observed:certainty:data": "contradicted",
    "$PL:Observed:errors:default": "used",
    "$RP:Observed:pending:ann": "deferred",
}


@pytest.mark.parametrize(("key", "outcome"), FOREIGN.items(), ids=FOREIGN.keys())
def test_a_foreign_key_in_the_way_stops_the_batch(server: redis.Redis, key: str, outcome: str) -> None:
    records = [prepared(name) for name in "ab"]
    server.delete(key)
    server.set(key, "mine")
    before = stored(server)
    with pytest.raises(ModelException, match="nothing was written"):
        ObservationProtocol.on_context_used(records, {record.pk: outcome for record in records})
    assert stored(server) == before


def test_a_batch_can_be_queued(server: redis.Redis, way: Callable[..., Any]) -> None:
    record, other = prepared(), Bystander.create(name="a")
    before = stored(server)
    pipeline = server.pipeline()
    assert way("on_context_used", [record, other], {record.pk: "acted"}, pipeline=pipeline) is pipeline
    assert stored(server) == before
    pipeline.execute()
    assert state(server, record) == {**UNTOUCHED, **MATRIX["acted"], "touched": {}, "pressure since": T0}
    with pytest.raises(TypeError, match="expected a redis-py Pipeline"):
        ObservationProtocol.on_context_used([record], {}, pipeline=True)


def test_effects_follow_the_defaults_of_the_moment(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in [
        ("ACTED_CONFIDENCE_SIGNAL", 0.6),
        ("ACTED_CYCLE_STRENGTHEN_FACTOR", 2.0),
        ("DISMISSED_CYCLE_WEAKEN_FACTOR", 0.5),
        ("CONTRADICTED_CYCLE_WEAKEN_FACTOR", 0.25),
        ("PL_AUTO_RESOLVE_ACTED", 0.15),
    ]:
        monkeypatch.setattr(Defaults, name, value)
    record = prepared()
    ObservationProtocol.on_context_used([record], {record.pk: "acted"})
    found = state(server, record)
    assert (found["certainty"], found["cycles"]["swing"], found["error"]) == (0.6, [4.0], 0.15)
    for outcome, amplitude in [("dismissed", 2.0), ("contradicted", 0.5)]:
        ObservationProtocol.on_context_used([record], {record.pk: outcome})
        assert state(server, record)["cycles"]["swing"] == [amplitude]


def test_effects_reach_the_partition_the_record_is_stored_in(server: redis.Redis) -> None:
    record = prepared()
    record.team = "blue"  # not saved
    ObservationProtocol.on_context_used([record], {record.pk: "acted"})
    assert not [key for key in server.keys("*") if b"blue" in key]
    assert server.hget("$ConfidencF:Observed:trust:data:red", record.pk) is not None


# -- the other two -----------------------------------------------------------------------------------------------------


def test_on_read_stages_where_reads_are_tracked(server: redis.Redis, way: Callable[..., Any]) -> None:
    tracked, bystander = OnlyTracked.create(name="a"), Bystander.create(name="a")
    assert way("on_read", tracked) is None
    assert way("on_read", bystander) is None
    assert tracked.confirm_access() == 1
    pipeline = server.pipeline()
    assert way("on_read", tracked, pipeline=pipeline) is pipeline
    assert way("on_read", bystander, pipeline=pipeline) is pipeline
    assert len(pipeline) == 1


def test_on_surfaced_makes_proposals_and_changes_nothing_else(server: redis.Redis, way: Callable[..., Any]) -> None:
    record = Observed.create(name="a")
    before = {key: value for key, value in stored(server).items() if b"$occ" not in key}
    assert way("on_surfaced", [record], reason="due", partition="ann") is None
    assert RecallProposal.get_pending(Observed, "ann") == [("Observed:a", T0)]
    after = {key: value for key, value in stored(server).items() if b"$occ" not in key and not key.startswith(b"$RP")}
    assert after == before
    pipeline = server.pipeline()
    assert way("on_surfaced", [record], pipeline=pipeline) is pipeline
    assert len(pipeline) == 1


def test_delete_leaves_nothing_of_a_record_with_everything(server: redis.Redis) -> None:
    record = prepared("quokka")
    ObservationProtocol.on_context_used([record], {record.pk: "acted"})
    prepared("quokka").delete()
    assert stored(server) == {}
