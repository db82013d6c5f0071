"""WriteFilterMixin: what is not worth storing is not stored, and the priority set mirrors what is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import redis

from popoto import (
    Defaults,
    Field,
    FloatField,
    IntField,
    KeyField,
    Model,
    ModelException,
    WriteFilterMixin,
)
from tests.memory.traces import stored, traces

SCORES: dict[str, Any] = {}


class Thought(WriteFilterMixin, Model):
    name = KeyField()
    worth = FloatField(default=0.5)
    text = Field(default="")
    count = IntField(default=0)

    def compute_filter_score(self) -> Any:
        return SCORES.get(self.name, self.worth)


class Strict(WriteFilterMixin, Model):
    name = KeyField()
    worth = FloatField(default=0.5)
    _wf_min_threshold = 0.9
    _wf_priority_threshold = 2.0

    def compute_filter_score(self) -> Any:
        return self.worth


@pytest.fixture(autouse=True)
def _no_scores() -> Any:
    SCORES.clear()
    yield
    SCORES.clear()


def priorities(server: redis.Redis, model: str = "Thought") -> dict[str, float]:
    return {key.decode(): score for key, score in server.zrange(f"$WF:{model}:priority", 0, -1, withscores=True)}


# -- the decision ------------------------------------------------------------------------------------------------------


def test_a_score_below_the_minimum_writes_nothing_at_all(
    server: redis.Redis, way: Callable[..., Any], round_trips: Any
) -> None:
    thought = Thought(name="a", worth=0.0999)
    with round_trips() as trips:
        assert way(thought.save) is False
    assert trips.count == 0
    assert stored(server) == {}
    assert thought._write_filter_score == 0.0999
    assert not thought._is_persisted


@pytest.mark.parametrize(
    ("worth", "is_stored", "has_priority"),
    [
        (0.0, False, False),
        (0.2, True, False),
        (0.5, True, False),
        (0.6999999999, True, False),
        (0.7, True, True),
        (1.0, True, True),
        (1.7, True, True),
        (-3.0, False, False),
    ],
)
def test_bounds_belong_to_what_is_above_them(
    server: redis.Redis, worth: float, is_stored: bool, has_priority: bool
) -> None:
    thought = Thought.create(name="a", worth=worth)
    assert thought._write_filter_score == worth
    assert Thought.query.count() == is_stored
    assert priorities(server) == ({"Thought:a": worth} if has_priority else {})


def test_the_minimum_itself_is_stored(server: redis.Redis) -> None:
    just_below = Defaults.WF_MIN_THRESHOLD - 1e-9
    assert Thought(name="a", worth=Defaults.WF_MIN_THRESHOLD).save()
    assert Thought(name="b", worth=just_below).save() is False


def test_thresholds_follow_the_defaults_of_the_moment(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Defaults, "WF_MIN_THRESHOLD", 0.6)
    monkeypatch.setattr(Defaults, "WF_PRIORITY_THRESHOLD", 0.65)
    assert Thought(name="a", worth=0.59).save() is False
    Thought.create(name="b", worth=0.64)
    Thought.create(name="c", worth=0.65)
    assert priorities(server) == {"Thought:c": 0.65}


def test_thresholds_of_the_model_win(server: redis.Redis) -> None:
    assert Strict(name="a", worth=0.8).save() is False
    Strict.create(name="b", worth=1.9)
    Strict.create(name="c", worth=2.0)
    assert priorities(server, "Strict") == {"Strict:c": 2.0}


@pytest.mark.parametrize("score", [None, "much", float("nan"), [], object()], ids=["None", "text", "nan", "list", "?"])
def test_what_is_no_number_counts_zero(server: redis.Redis, score: Any) -> None:
    SCORES["a"] = score
    thought = Thought(name="a")
    assert thought.save() is False
    assert thought._write_filter_score == 0.0
    assert stored(server) == {}


@pytest.mark.parametrize("score", [Decimal("0.9"), "0.9", True], ids=["Decimal", "numeric text", "bool"])
def test_what_is_a_number_in_another_form_counts(server: redis.Redis, score: Any) -> None:
    SCORES["a"] = score
    Thought.create(name="a")
    assert priorities(server) == {"Thought:a": float(score)}


def test_an_infinite_score_has_priority(server: redis.Redis) -> None:
    SCORES["a"] = float("inf")
    Thought.create(name="a")
    assert priorities(server) == {"Thought:a": float("inf")}


def test_a_model_without_a_score_says_what_is_missing(server: redis.Redis) -> None:
    class Nameless(WriteFilterMixin, Model):
        name = KeyField()

    with pytest.raises(NotImplementedError, match="compute_filter_score"):
        Nameless.create(name="a")
    assert stored(server) == {}


def test_an_error_of_the_score_reaches_the_caller(server: redis.Redis) -> None:
    class Broken(WriteFilterMixin, Model):
        name = KeyField()

        def compute_filter_score(self) -> float:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        Broken.create(name="a")
    assert stored(server) == {}


def test_the_filter_runs_before_the_values_are_checked(server: redis.Redis) -> None:
    wrong: Any = Thought(name="a", worth=0.0)
    wrong.count = "many"
    assert wrong.save() is False
    wrong.worth = 0.5
    with pytest.raises(ModelException):
        wrong.save()


def test_create_gives_back_what_was_not_stored(server: redis.Redis, way: Callable[..., Any]) -> None:
    thought = way(Thought.create, name="a", worth=0.01)
    assert isinstance(thought, Thought) and not thought._is_persisted
    assert Thought.query.count() == 0


def test_a_pipeline_gets_only_what_is_worth_it(server: redis.Redis) -> None:
    pipeline = server.pipeline()
    assert Thought(name="a", worth=0.0).save(pipeline) is pipeline
    assert len(pipeline) == 0
    Thought(name="b", worth=0.8).save(pipeline)
    pipeline.execute()
    assert priorities(server) == {"Thought:b": 0.8}


def test_a_hook_of_the_model_still_decides_too(server: redis.Redis) -> None:
    class Picky(Thought):
        def pre_save(self, *args: Any, **kwargs: Any) -> Any:
            self.worth = 0.75 if self.text else 0.0
            return super().pre_save(*args, **kwargs)

    assert Picky(name="a").save() is False
    Picky.create(name="b", text="x")
    assert priorities(server, "Picky") == {"Picky:b": 0.75}


# -- the priority set mirrors what is stored ---------------------------------------------------------------------------


def test_a_lower_score_takes_the_priority_away_and_a_higher_one_gives_it_back(
    server: redis.Redis, way: Callable[..., Any], round_trips: Any
) -> None:
    thought = Thought.create(name="a", worth=0.9)
    for worth, expected in [(0.5, {}), (0.8, {"Thought:a": 0.8}), (0.75, {"Thought:a": 0.75})]:
        thought.worth = worth
        way(thought.save)
        assert priorities(server) == expected
    with round_trips() as trips:
        thought.save()
    assert trips.count == 1


def test_a_stored_record_that_is_refused_keeps_its_old_values_and_place(server: redis.Redis) -> None:
    thought = Thought.create(name="a", worth=0.9, text="old")
    before = stored(server)
    thought.worth, thought.text = 0.0, "new"
    assert thought.save() is False
    assert thought.save(update_fields=["text"]) is False
    assert stored(server) == before


def test_a_partial_save_is_decided_and_placed_as_well(server: redis.Redis, way: Callable[..., Any]) -> None:
    thought = Thought.create(name="a", worth=0.9)
    thought.worth = 0.4
    way(thought.save, update_fields=["worth"])
    assert priorities(server) == {}
    thought.worth = 0.95
    way(thought.save, update_fields=["text"])
    assert priorities(server) == {}  # the stored record is worth 0.4 still
    way(thought.save, update_fields=["worth"])
    assert priorities(server) == {"Thought:a": 0.95}
    assert thought.save(update_fields=[]) == 0


def test_an_increment_moves_the_place_and_refuses_nothing(server: redis.Redis) -> None:
    thought = Thought.create(name="a", worth=0.75)
    assert thought.atomic_increment("count", 2) == 2
    assert priorities(server) == {"Thought:a": 0.75}
    assert thought.atomic_increment("worth", 0.125) == 0.875
    assert priorities(server) == {"Thought:a": 0.875}
    assert thought.atomic_increment("worth", -0.8125) == 0.0625  # below the minimum: a save would not store it
    assert priorities(server) == {}
    assert Thought.check_indexes()["total"] == 0


@pytest.mark.parametrize("fields", [None, ["name"]], ids=["whole", "partial"])
def test_it_follows_the_record_to_another_key(server: redis.Redis, fields: list[str] | None) -> None:
    thought = Thought.create(name="quokka", worth=0.9)
    thought.name = "numbat"
    thought.save(migrate_key=True, update_fields=fields)
    assert priorities(server) == {"Thought:numbat": 0.9}
    assert traces(server, "quokka") == []


def test_delete_and_expiry_leave_no_trace(server: redis.Redis) -> None:
    Thought.create(name="a", worth=0.9).delete()
    assert stored(server) == {}
    brief = Thought(name="quokka", worth=0.9)
    brief._ttl = 0.02
    brief.save()
    Thought.create(name="b")
    time.sleep(0.05)
    Thought.create(name="c")
    assert traces(server, "quokka") == []


def test_rankings_find_the_set(server: redis.Redis) -> None:
    assert Thought.ranking_signals(Thought._meta.keys) == {"priority": "$WF:Thought:priority"}


def test_many_writers_leave_the_score_of_the_last_one(server: redis.Redis) -> None:
    async def write() -> None:
        await asyncio.gather(*(Thought(name="a", worth=0.7 + n / 100).async_save() for n in range(20)))

    asyncio.run(write())
    assert priorities(server) == {"Thought:a": Thought.query.get(name="a").worth}


def test_the_mixin_stands_before_model() -> None:
    with pytest.raises(ModelException, match=r"Write class Wrong\(WriteFilterMixin, Model\)"):

        class Wrong(Model, WriteFilterMixin):
            name = KeyField()
