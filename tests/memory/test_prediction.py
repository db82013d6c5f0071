"""PredictionLedgerMixin: errors to the digit, one outcome a prediction, and nothing left of a record that goes."""

from __future__ import annotations

import asyncio
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from popoto import (
    ConfidenceField,
    Defaults,
    Field,
    KeyField,
    Model,
    ModelException,
    ObservationProtocol,
    PredictionLedgerMixin,
    redis_db,
)
from popoto.memory import clock, ledger_reading
from popoto.memory.ledger_summary import statistics_of
from popoto.orm.scripts import Script
from tests.faults.proxy import cutting_proxy
from tests.memory.traces import WAYS, stored, traces

T0 = 1_700_000_000.25
Ledger = PredictionLedgerMixin


class Guess(PredictionLedgerMixin, Model):
    name = KeyField()
    text = Field(default="")


class Foretold(PredictionLedgerMixin, Model):
    name = KeyField()
    team = Field(default="red")
    certainty = ConfidenceField()
    trust = ConfidenceField(initial_confidence=0.1, partition_by="team")


@pytest.fixture(autouse=True)
def frozen() -> Iterator[clock.FrozenClock]:
    with clock.frozen(T0) as still:
        yield still


def errors(server: redis.Redis, partition: str = "default", model: str = "Guess") -> dict[str, float]:
    found = server.zrange(f"$PL:{model}:errors:{partition}", 0, -1, withscores=True)
    return {key.decode(): error for key, error in found}


# -- the metric --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predicted", "actual", "expected"),
    [
        ({}, {}, 0.0),
        ({"a": 1}, {}, 1.0),
        ({}, {"a": 1, "b": 2}, 1.0),
        ({"a": 10}, {"a": 8}, 0.2),
        ({"a": 8}, {"a": 10}, 0.2),
        ({"a": 0.2}, {"a": 0.5}, 0.3),
        ({"a": 0}, {"a": 0}, 0.0),
        ({"a": -1}, {"a": 1}, 1.0),
        ({"a": -5}, {"a": -10}, 0.5),
        ({"a": True}, {"a": 0}, 1.0),
        ({"a": True}, {"a": 1.0}, 0.0),
        ({"a": "x"}, {"a": "x"}, 0.0),
        ({"a": "x"}, {"a": "y"}, 1.0),
        ({"a": "1"}, {"a": 1}, 1.0),
        ({"a": None}, {"a": None}, 0.0),
        ({"a": None}, {}, 1.0),
        ({"a": [1, 2]}, {"a": [1, 2]}, 0.0),
        ({"a": [1, 2]}, {"a": [1, 3]}, 1.0),
        ({"a": math.inf}, {"a": math.inf}, 0.0),
        ({"a": math.inf}, {"a": -math.inf}, 1.0),
        ({"a": 0}, {"a": math.inf}, 1.0),
        ({"a": 10**400}, {"a": -math.inf}, 1.0),
        ({"a": 10**400}, {"a": 0.5}, 1.0),
        ({"a": 10, "b": "x", "c": 1}, {"a": 8, "b": "y"}, (0.2 + 1 + 1) / 3),
    ],
    ids=str,
)
def test_the_error_to_the_digit(predicted: dict[str, Any], actual: dict[str, Any], expected: float) -> None:
    assert Ledger.compute_prediction_error(predicted, actual) == pytest.approx(expected, abs=1e-15)


NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans())
SIDES = st.dictionaries(st.sampled_from("abcd"), st.one_of(NUMBERS, st.sampled_from(["", "x", "1"]), st.none()))


@given(SIDES, SIDES)
def test_the_error_lies_between_0_and_1_and_is_the_same_both_ways(one: dict[str, Any], other: dict[str, Any]) -> None:
    error = Ledger.compute_prediction_error(one, other)
    assert 0.0 <= error <= 1.0
    assert error == Ledger.compute_prediction_error(other, one)
    assert Ledger.compute_prediction_error(one, dict(one)) == 0.0


def test_nan_cannot_be_compared() -> None:
    for one, other in [(math.nan, 1), (1, math.nan), (math.nan, math.nan), (math.nan, "x")]:
        with pytest.raises(ValueError, match="cannot be compared with NaN"):
            Ledger.compute_prediction_error({"a": one}, {"a": other})


@pytest.mark.parametrize(
    ("predicted", "actual", "error"),
    [(Decimal(3), 4, 0.25), (0.5, Decimal("0.4"), 0.1), (3, Fraction(4), 0.25), (np.float32(3), 4, 0.25)],
    ids=repr,
)
def test_numbers_of_any_kind_compare_as_numbers(predicted: Any, actual: Any, error: float) -> None:
    found = Ledger.compute_prediction_error({"a": predicted}, {"a": actual})
    assert found == pytest.approx(error) and type(found) is float


# -- record ------------------------------------------------------------------------------------------------------------

PREDICTED = {
    "float": 2.0,
    "int": 2**60 + 1,
    "huge": 10**30,
    "none": None,
    "empty": {},
    "list": [],
    "nested": {"a": [1, (2, 3)], "when": datetime(2024, 1, 2, tzinfo=timezone.utc)},
    "decimal": Decimal("1.10"),
    "day": date(2024, 1, 2),
    "text": "é\0",
    "bytes": b"\xff",
}


def test_a_prediction_comes_back_as_it_was_given(server: redis.Redis, way: Callable[..., Any]) -> None:
    plan = Guess.create(name="a")
    assert way(Ledger.get_prediction_data, plan) is None
    assert way(Ledger.record_prediction, plan, PREDICTED) is None
    waiting = {
        "predicted": PREDICTED,
        "resolved": False,
        "resolution_mode": None,
        "prediction_error": None,
        "resolved_at": None,
        "recorded_at": T0,
    }
    assert way(Ledger.get_prediction_data, plan) == waiting
    assert way(Ledger.auto_resolve, plan, "acted") == 0.1
    found = way(Ledger.get_prediction_data, plan)
    assert found["predicted"] == PREDICTED and type(found["predicted"]["float"]) is float
    assert (found["resolved"], found["resolution_mode"]) == (True, "observed")
    assert (found["prediction_error"], found["resolved_at"], found["recorded_at"]) == (0.1, T0, T0)


def test_a_new_prediction_replaces_the_old_one(server: redis.Redis, frozen: clock.FrozenClock) -> None:
    plan = Guess.create(name="a")
    Guess.record_prediction(plan, {"a": 1})
    Guess.resolve_prediction(plan, {"a": 2})
    frozen.advance(5)
    Guess.record_prediction(plan, {})
    assert Guess.get_prediction_data(plan) == {
        "predicted": {},
        "resolved": False,
        "resolution_mode": None,
        "prediction_error": None,
        "resolved_at": None,
        "recorded_at": T0 + 5,
    }
    assert errors(server) == {"Guess:a": 0.5}, "the last error stands until there is another"
    assert Guess.resolve_prediction(plan, {}) == 0.0
    assert errors(server) == {"Guess:a": 0.0}


@pytest.mark.parametrize(
    ("predicted", "kind"),
    [(None, ValueError), ([1], TypeError), ("x", TypeError), ({"a": object()}, TypeError)],
    ids=["None", "list", "text", "object"],
)
def test_what_is_no_prediction_is_refused(
    server: redis.Redis, way: Callable[..., Any], predicted: Any, kind: type[Exception]
) -> None:
    plan = Guess.create(name="a")
    before = stored(server)
    with pytest.raises(kind, match="predicted="):
        way(Ledger.record_prediction, plan, predicted)
    with pytest.raises(kind):
        way(Ledger.record_prediction, Guess(name="never"), predicted)
    assert stored(server) == before


def test_a_record_that_is_not_stored_has_no_prediction(server: redis.Redis, way: Callable[..., Any]) -> None:
    unsaved, gone = Guess(name="a"), Guess.create(name="b")
    Guess(name="b").delete()
    for record in (unsaved, gone):
        with pytest.raises(TypeError):
            way(Ledger.record_prediction, record, {"a": 1})
        with pytest.raises(TypeError):
            way(Ledger.resolve_prediction, record, {"a": 1})
    assert way(Ledger.auto_resolve, unsaved, "acted") is None
    assert way(Ledger.get_prediction_data, unsaved) is None
    assert stored(server) == {}


def test_auto_resolve_of_a_record_that_is_gone_is_none(server: redis.Redis, way: Callable[..., Any]) -> None:
    gone = Guess.create(name="b")
    Guess(name="b").delete()
    assert way(Ledger.auto_resolve, gone, "acted") is None


def test_a_model_without_the_mixin_is_told_so(server: redis.Redis) -> None:
    class Bare(Model):
        name = KeyField()

    with pytest.raises(TypeError, match="Bare is no PredictionLedgerMixin"):
        Ledger.record_prediction(Bare.create(name="a"), {"a": 1})
    with pytest.raises(TypeError, match=r"auto_resolve\(\): Bare is no PredictionLedgerMixin"):
        Ledger.auto_resolve(Bare.create(name="b"), "acted")


def test_recording_can_be_queued(server: redis.Redis) -> None:
    plan = Guess.create(name="a")
    pipeline = server.pipeline()
    assert Guess.record_prediction(plan, {"a": 1}, pipeline=pipeline) is pipeline
    assert Guess.get_prediction_data(plan) is None
    pipeline.execute()
    assert Guess.resolve_prediction(plan, {"a": 1}) == 0.0


# -- resolve -----------------------------------------------------------------------------------------------------------


def test_an_outcome_resolves_once(server: redis.Redis, way: Callable[..., Any], frozen: clock.FrozenClock) -> None:
    plan = Guess.create(name="a")
    assert way(Guess.resolve_prediction, plan, {"a": 1}) is None
    assert way(Guess.auto_resolve, plan, "used") is None
    way(Guess.record_prediction, plan, {"a": 10, "b": "x"})
    frozen.advance(60)
    assert way(Guess.resolve_prediction, plan, {"a": 8, "b": "x"}) == pytest.approx(0.1)
    assert way(Guess.resolve_prediction, plan, {"a": 8}) is None
    assert way(Guess.auto_resolve, plan, "used") is None
    found = way(Guess.get_prediction_data, plan)
    assert (found["resolution_mode"], found["resolved_at"], found["recorded_at"]) == ("explicit", T0 + 60, T0)
    assert errors(server) == {"Guess:a": found["prediction_error"]}


@pytest.mark.parametrize(
    ("outcome", "error"), [("acted", 0.1), ("used", 0.3), ("dismissed", 0.5), ("contradicted", 0.9)]
)
def test_outcomes_have_their_errors(
    server: redis.Redis, way: Callable[..., Any], outcome: str, error: float, round_trips: Any
) -> None:
    plan = Guess.create(name="a")
    Guess.record_prediction(plan, {"a": 1})
    with round_trips() as trips:
        if way is WAYS[0]:
            assert Guess.auto_resolve(plan, outcome) == error
            assert trips.count == 1
        else:
            assert way(Guess.auto_resolve, plan, outcome) == error
    assert errors(server) == {"Guess:a": error}


def test_recording_is_one_round_trip_and_resolving_two(server: redis.Redis, round_trips: Any) -> None:
    plan = Guess.create(name="a")
    for call, most in [
        (lambda: Guess.record_prediction(plan, {}), 1),
        (lambda: Guess.resolve_prediction(plan, {}), 2),
    ]:
        with round_trips() as trips:
            call()
        assert trips.count == most


def test_errors_of_outcomes_follow_the_defaults_and_the_model(
    server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(PredictionLedgerMixin, Model):
        name = KeyField()
        _pl_auto_resolve_errors = {"acted": 0.05}  # type: ignore[assignment]

    monkeypatch.setattr(Defaults, "PL_AUTO_RESOLVE_ACTED", 0.2)
    plan, own = Guess.create(name="a"), Own.create(name="a")
    for record in (plan, own):
        Ledger.record_prediction(record, {})
    assert (Ledger.auto_resolve(plan, "acted"), Ledger.auto_resolve(own, "acted")) == (0.2, 0.05)
    with pytest.raises(ValueError, match="expected one of acted, got 'used'"):
        Ledger.auto_resolve(own, "used")


@pytest.mark.parametrize("outcome", ["deferred", "", "ACTED", None], ids=str)
def test_an_unknown_outcome_is_refused(server: redis.Redis, way: Callable[..., Any], outcome: Any) -> None:
    with pytest.raises(ValueError, match="expected one of acted, used, dismissed, contradicted"):
        way(Ledger.auto_resolve, Guess.create(name="a"), outcome)


@pytest.mark.parametrize(("actual", "kind"), [(None, ValueError), ("x", TypeError)], ids=["None", "text"])
def test_what_is_no_outcome_is_refused(server: redis.Redis, actual: Any, kind: type[Exception]) -> None:
    plan = Guess.create(name="a")
    Guess.record_prediction(plan, {"a": 1})
    with pytest.raises(kind, match="actual="):
        Guess.resolve_prediction(plan, actual)
    with pytest.raises(ValueError, match="NaN"):
        Guess.resolve_prediction(plan, {"a": math.nan})
    assert Guess.get_prediction_data(plan)["resolved"] is False  # type: ignore[index]


def test_the_metric_of_the_model_counts_whoever_calls(server: redis.Redis, way: Callable[..., Any]) -> None:
    class Own(PredictionLedgerMixin, Model):
        name = KeyField()

        @staticmethod
        def compute_prediction_error(predicted: dict[str, Any], actual: dict[str, Any]) -> float:
            return predicted["a"] * 0.01  # type: ignore[no-any-return]

    own = Own.create(name="a")
    Ledger.record_prediction(own, {"a": 7})
    assert way(Ledger.resolve_prediction, own, {}) == 0.07
    Ledger.record_prediction(own, {"a": math.inf})
    with pytest.raises(ValueError, match="returned inf"):
        Own.resolve_prediction(own, {})


def test_a_prediction_recorded_meanwhile_is_judged_by_itself(server: redis.Redis) -> None:
    class Raced(PredictionLedgerMixin, Model):
        name = KeyField()

        @staticmethod
        def compute_prediction_error(predicted: dict[str, Any], actual: dict[str, Any]) -> float:
            if predicted["a"] == 1:
                Ledger.record_prediction(Raced.query.get(name="a"), {"a": 5})
            return predicted["a"] / 10  # type: ignore[no-any-return]

    raced = Raced.create(name="a")
    Ledger.record_prediction(raced, {"a": 1})
    assert Ledger.resolve_prediction(raced, {}) == 0.5
    assert Ledger.get_prediction_data(raced)["predicted"] == {"a": 5}  # type: ignore[index]


def test_one_of_many_resolvers_gets_the_error(server: redis.Redis) -> None:
    plan = Guess.create(name="a")
    Guess.record_prediction(plan, {"a": 1})

    async def resolve() -> list[Any]:
        return await asyncio.gather(*(Guess.async_resolve_prediction(plan, {"a": 2}) for _ in range(20)))

    found = asyncio.run(resolve())
    assert sorted(error is not None for error in found) == [False] * 19 + [True]


def test_a_repeat_after_a_cut_reply_gives_the_same_answer(
    server: redis.Redis, shared_server: Any, way: Callable[..., Any]
) -> None:
    belief = Foretold.create(name="a")
    for script in Script._all:
        server.script_load(script.source)
    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        proxy.cut_replies(times=2)
        way(Foretold.record_prediction, belief, {"a": "x"})
        proxy.cut_replies(times=2)
        assert way(Foretold.resolve_prediction, belief, {"a": "y"}) == 1.0
        assert proxy.cuts == 4
        redis_db.configure_url(shared_server.url)
    assert ConfidenceField.get_confidence_data(belief, "certainty")["evidence_count"] == 1


# -- what a large error does to the confidence -------------------------------------------------------------------------


def test_a_large_error_lowers_the_confidence(server: redis.Redis, way: Callable[..., Any]) -> None:
    belief = Foretold.create(name="a", certainty=0.9)
    way(Foretold.record_prediction, belief, {"a": "x"})
    assert way(Foretold.resolve_prediction, belief, {"a": "y"}) == 1.0
    lowered = 0.9 + (0.2 - 0.9)
    assert belief.certainty == lowered
    assert ConfidenceField.get_confidence_data(belief, "certainty") == {
        "confidence": lowered,
        "evidence_count": 1,
        "corroborations": 0,
        "contradictions": 1,
    }
    assert Foretold.query.get(name="a").certainty == lowered


def test_it_never_raises_a_confidence(server: redis.Redis) -> None:
    belief = Foretold.create(name="a")
    Foretold.record_prediction(belief, {})
    Foretold.auto_resolve(belief, "contradicted")
    assert belief.trust == 0.1, "the low signal of 0.2 would have raised it"
    assert ConfidenceField.get_confidence_data(belief, "trust")["contradictions"] == 1


def test_an_error_at_the_threshold_leaves_the_confidence(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Defaults, "PL_AUTO_RESOLVE_ACTED", 0.7)
    belief = Foretold.create(name="a")
    Foretold.record_prediction(belief, {})
    assert Foretold.auto_resolve(belief, "acted") == 0.7
    assert belief.certainty == 0.5
    monkeypatch.setattr(Defaults, "PL_CONFIDENCE_ERROR_THRESHOLD", 0.69)
    monkeypatch.setattr(Defaults, "PL_CONFIDENCE_LOW_SIGNAL", 0.3)
    Foretold.record_prediction(belief, {})
    Foretold.auto_resolve(belief, "acted")
    assert belief.certainty == 0.3


def test_the_models_own_threshold_and_signal_win(server: redis.Redis) -> None:
    class Own(PredictionLedgerMixin, Model):
        name = KeyField()
        certainty = ConfidenceField()
        _pl_confidence_error_threshold = 0.05  # type: ignore[assignment]
        _pl_confidence_low_signal = 0.4  # type: ignore[assignment]

    own = Own.create(name="a")
    Own.record_prediction(own, {})
    Own.auto_resolve(own, "acted")
    assert own.certainty == 0.4


# -- partitions --------------------------------------------------------------------------------------------------------


def test_errors_are_ranked_by_partition(server: redis.Redis, way: Callable[..., Any]) -> None:
    made = [("a", "acted", "x"), ("b", "contradicted", "x"), ("c", "used", "default"), ("d", "used", "x")]
    for name, outcome, partition in made:
        plan: Any = Guess.create(name=name)
        plan._pl_partition = partition
        Guess.record_prediction(plan, {})
        Guess.auto_resolve(plan, outcome)
    assert way(Guess.get_highest_errors, Guess, "x") == [
        ("Guess:b", 0.9),
        ("Guess:d", 0.3),
        ("Guess:a", 0.1),
    ]
    assert way(Guess.get_highest_errors, Guess) == [("Guess:c", 0.3)]
    assert way(Guess.get_highest_errors, Guess, "x", 2) == [("Guess:b", 0.9), ("Guess:d", 0.3)]
    assert way(Guess.get_highest_errors, Guess, "x", 0) == way(Guess.get_highest_errors, Guess, "x", -1) == []
    assert way(Guess.get_highest_errors, Guess, "nowhere") == []


def test_an_error_moves_with_the_partition_it_is_resolved_in(server: redis.Redis) -> None:
    plan: Any = Guess.create(name="a")
    for partition in ("one:two", "three"):
        plan._pl_partition = partition
        Guess.record_prediction(plan, {})
        Guess.auto_resolve(plan, "acted")
    assert Guess.get_highest_errors(Guess, "one:two") == []
    assert Guess.get_highest_errors(Guess, "three") == [("Guess:a", 0.1)]
    plan.delete()
    assert stored(server) == {}


def test_expired_records_take_no_place(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_reading, "PLACES_A_CALL", 2)
    for number in range(5):
        plan = Guess.create(name=f"brief{number}")
        Guess.record_prediction(plan, {})
        Guess.auto_resolve(plan, "contradicted")
        server.pexpire(plan.pk, 1)
    for name in "abc":
        lasting = Guess.create(name=name)
        Guess.record_prediction(lasting, {})
        Guess.auto_resolve(lasting, "acted")
    time.sleep(0.01)
    assert Guess.get_highest_errors(Guess, limit=2) == [("Guess:c", 0.1), ("Guess:b", 0.1)]
    assert Guess.error_summary(Guess)["__all__"]["count"] == 3


# -- error_summary -----------------------------------------------------------------------------------------------------

ZEROS = {"count": 0, "mean": 0.0, "stddev": 0.0, "p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}


@pytest.fixture
def summed(server: redis.Redis, frozen: clock.FrozenClock) -> redis.Redis:
    """Four errors: 0.1 and 0.3 on a Tuesday evening (UTC), 0.5 and 0.9 five hours later, on Wednesday."""
    start = datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc).timestamp()
    for number, outcome in enumerate(["acted", "used", "dismissed", "contradicted"]):
        frozen.at = start + (number // 2) * 5 * 3600
        plan = Guess.create(name=outcome)
        Guess.record_prediction(plan, {})
        Guess.auto_resolve(plan, outcome)
    return server


def test_the_summary_of_all_to_the_digit(summed: redis.Redis, way: Callable[..., Any], round_trips: Any) -> None:
    with round_trips() as trips:
        found = Guess.error_summary(Guess)
    assert trips.count == 1
    assert found == way(Guess.error_summary, Guess)
    assert list(found) == ["__all__"]
    stats = found["__all__"]
    assert (stats["count"], stats["max"]) == (4, 0.9)
    assert stats["mean"] == pytest.approx(0.45)
    assert stats["stddev"] == pytest.approx(0.29580398915498085, rel=1e-12)
    # round half to even: 0.5 * 3 = 1.5 -> place 2; 0.9 * 3 = 2.7 -> 3; 0.99 * 3 -> 3
    assert (stats["p50"], stats["p90"], stats["p99"]) == (0.5, 0.9, 0.9)


def test_groups_by_time(summed: redis.Redis, way: Callable[..., Any]) -> None:
    def maxima(**options: Any) -> dict[Any, tuple[int, float]]:
        found = way(Guess.error_summary, Guess, **options)
        return {label: (stats["count"], stats["max"]) for label, stats in found.items()}

    assert maxima(group_by="hour") == {22: (2, 0.3), 3: (2, 0.9)}
    assert maxima(group_by="weekday") == {1: (2, 0.3), 2: (2, 0.9)}
    assert maxima(group_by="day") == {"2023-11-14": (2, 0.3), "2023-11-15": (2, 0.9)}
    east = timezone(timedelta(hours=5))
    assert maxima(group_by="day", tz=east) == {"2023-11-15": (4, 0.9)}


def test_groups_of_ones_own(summed: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    def label(key: str, error: float) -> Any:
        if key == "Guess:used":
            raise KeyError("mine")
        return error > 0.4 or None

    found = Guess.error_summary(Guess, group_by=label)
    assert {key: stats["count"] for key, stats in found.items()} == {True: 2, None: 1}
    assert "Guess:used" in caplog.text
    with pytest.raises(TypeError, match="cannot be a label"):
        Guess.error_summary(Guess, group_by=lambda key, error: [key])


def test_a_limit_takes_the_largest(summed: redis.Redis) -> None:
    assert Guess.error_summary(Guess, limit=2)["__all__"]["mean"] == pytest.approx(0.7)
    assert Guess.error_summary(Guess, limit=0) == Guess.error_summary(Guess, limit=-3) == {"__all__": ZEROS}


def test_an_empty_summary(server: redis.Redis) -> None:
    assert Guess.error_summary(Guess) == {"__all__": ZEROS}
    assert Guess.error_summary(Guess, group_by="hour") == {}


def test_groups_that_do_not_exist_are_refused(server: redis.Redis) -> None:
    wrong: Any
    for wrong, kind in [("month", ValueError), ("", ValueError), (5, TypeError)]:
        with pytest.raises(kind, match="group_by="):
            Guess.error_summary(Guess, group_by=wrong)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_statistics_equal_those_of_the_library(found: list[float]) -> None:
    stats = statistics_of(found)
    assert stats["mean"] == pytest.approx(statistics.fmean(found))
    assert stats["stddev"] == pytest.approx(statistics.pstdev(found), abs=1e-9)
    assert stats["p50"] <= stats["p90"] <= stats["p99"] <= stats["max"] == max(found)
    if len(found) % 2:
        assert stats["p50"] == statistics.median(found)


# -- with the record ---------------------------------------------------------------------------------------------------


def quokka() -> Guess:
    plan = Guess.create(name="quokka")
    Guess.record_prediction(plan, {"a": "wombat"})
    Guess.resolve_prediction(plan, {"a": "wombat"})
    return plan


def test_saves_leave_it_alone(server: redis.Redis) -> None:
    plan = quokka()
    before = {key: value for key, value in stored(server).items() if key.startswith(b"$PL")}
    assert len(before) == 2
    plan.save()
    plan.save(update_fields=["text"])
    assert {key: value for key, value in stored(server).items() if key.startswith(b"$PL")} == before


@pytest.mark.parametrize("fields", [None, ["name"]], ids=["whole", "partial"])
def test_it_follows_the_record_to_another_key(server: redis.Redis, fields: list[str] | None) -> None:
    plan = quokka()
    before = Guess.get_prediction_data(plan)
    plan.name = "numbat"
    plan.save(migrate_key=True, update_fields=fields)
    assert Guess.get_prediction_data(plan) == before
    assert errors(server) == {"Guess:numbat": 0.0}
    assert traces(server, "quokka") == []


def test_delete_leaves_no_trace(server: redis.Redis) -> None:
    quokka().delete()
    assert stored(server) == {}
    plan = Guess.create(name="open")
    Guess.record_prediction(plan, {"a": 1})
    plan.delete()
    assert stored(server) == {}


def test_expiry_leaves_no_trace_after_the_next_write(server: redis.Redis) -> None:
    plan = quokka()
    plan._ttl = 0.02
    plan.save()
    Guess.create(name="b")
    time.sleep(0.05)
    Guess.create(name="c")
    assert traces(server, "quokka", "wombat") == []


def test_records_stored_before_the_mixin_was_there_are_cleaned_up_too(server: redis.Redis) -> None:
    class Early(Model):
        name = KeyField()

    Early.create(name="quokka")

    class Late(PredictionLedgerMixin, Model):
        name = KeyField()

        class Meta:
            key_name = "Early"

    late = Late.query.get(name="quokka")
    Late.record_prediction(late, {"a": 1})
    Late.auto_resolve(late, "acted")
    late.delete()
    assert stored(server) == {}


def test_a_foreign_key_in_place_of_the_confidences_leaves_the_prediction_open(
    server: redis.Redis, way: Callable[..., Any]
) -> None:
    plan = Foretold.create(name="a")
    Ledger.record_prediction(plan, {"a": "x"})
    server.delete("$ConfidencF:Foretold:certainty:data")
    server.set("$ConfidencF:Foretold:certainty:data", "foreign")
    before = stored(server)
    with pytest.raises(ModelException, match="nothing was written"):
        way(Ledger.resolve_prediction, plan, {"a": "y"})
    assert stored(server) == before
    assert way(Ledger.resolve_prediction, plan, {"a": "x"}) == 0.0, "a small error touches no confidence"


@pytest.mark.parametrize("error", [math.nan, math.inf, "0.1", None])
def test_an_error_of_the_model_that_is_no_number_changes_nothing(
    server: redis.Redis, way: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    monkeypatch.setattr(Guess, "_pl_auto_resolve_errors", {"acted": error, "used": 0.3})
    plan = Guess.create(name="a")
    Ledger.record_prediction(plan, {"a": 1})
    before = stored(server)
    for call in (
        lambda: way(Ledger.auto_resolve, plan, "acted"),
        lambda: ObservationProtocol.on_context_used([plan], {plan.pk: "acted"}),
    ):
        with pytest.raises(ValueError, match=r"Guess._pl_auto_resolve_errors\['acted'\]: expected a number"):
            call()
    assert stored(server) == before


@pytest.mark.parametrize("limit", [None, "3", 2.5])
def test_a_limit_is_a_whole_number(server: redis.Redis, way: Callable[..., Any], limit: Any) -> None:
    for call in (Ledger.get_highest_errors, Ledger.error_summary):
        with pytest.raises(TypeError, match="limit: expected a whole number"):
            way(call, Guess, limit=limit)


def test_foreign_keys_in_the_way_are_refused(server: redis.Redis) -> None:
    belief = Foretold.create(name="a")
    Foretold.record_prediction(belief, {})
    server.set("$PL:Foretold:errors:default", "mine")
    with pytest.raises(ModelException, match="nothing was written"):
        Foretold.auto_resolve(belief, "contradicted")
    assert belief.certainty == 0.5
    assert Foretold.get_prediction_data(belief)["resolved"] is False  # type: ignore[index]


def test_threads_that_record_and_resolve_leave_the_last_error(server: redis.Redis) -> None:
    plan = Guess.create(name="a")
    found: list[float] = []

    def work() -> None:
        for _ in range(20):
            Guess.record_prediction(plan, {"a": 1})
            error = Guess.resolve_prediction(plan, {"a": 2})
            if error is not None:
                found.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {0.5}
    assert errors(server) == {"Guess:a": 0.5}
