"""Entries that depend on the whole record stay true to it, also after partial saves by stale instances."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis

from popoto import (
    ExistenceFilter,
    Field,
    FloatField,
    IndexedField,
    IntField,
    KeyField,
    Model,
    ModelException,
    SetField,
    SortedField,
    WriteFilterMixin,
)
from popoto.exceptions import RecordGoneError, StaleRecordError
from popoto.orm.codec import encoder_for
from tests.memory.traces import stored


class WholeText(Model):
    name = KeyField()
    text = Field(default="")
    count = IntField(default=0)
    known = ExistenceFilter(fingerprint_fn=lambda record: record.text, capacity=100)


class WholeWorth(WriteFilterMixin, Model):
    name = KeyField()
    worth = FloatField(default=0.5)
    bonus = FloatField(default=0.0)
    count = IntField(default=0)

    def compute_filter_score(self) -> float:
        return self.worth + self.bonus


known: Any = WholeText._meta.fields["known"]


def priority(server: redis.Redis) -> dict[bytes, float]:
    return dict(server.zrange("$WF:WholeWorth:priority", 0, -1, withscores=True))


def test_a_partial_save_of_a_stale_instance_forgets_no_word_of_what_is_stored(
    server: redis.Redis, way: Callable[..., Any]
) -> None:
    stale = WholeText.create(name="a", text="platypus")
    other = WholeText.query.get(name="a")
    other.text = "wombat"
    other.save()
    stale.count = 3
    assert way(stale.save, update_fields=["count"]) == 0
    assert known.might_exist(WholeText, "wombat")
    assert known.definitely_missing(WholeText, "platypus")
    found = WholeText.query.get(name="a")
    assert (found.text, found.count) == ("wombat", 3)
    assert stale.text == "platypus"  # what was not named is the instance's own affair
    assert WholeText.check_indexes()["total"] == 0


def test_maintenance_sees_the_whole_record_too(server: redis.Redis) -> None:
    WholeText.create(name="a", text="platypus")
    WholeWorth.create(name="a", worth=0.9)
    before = stored(server)
    for model in (WholeText, WholeWorth):
        assert model.check_indexes()["total"] == 0
        assert model.rebuild_indexes() == 1
    assert stored(server) == before


def test_the_priority_is_that_of_what_is_stored_and_what_is_named(server: redis.Redis, way: Callable[..., Any]) -> None:
    stale = WholeWorth.create(name="a", worth=0.9)
    other = WholeWorth.query.get(name="a")
    other.worth = 0.5
    other.save()
    assert priority(server) == {}
    stale.count = 1
    way(stale.save, update_fields=["count"])
    assert priority(server) == {}
    stale.bonus = 0.3
    way(stale.save, update_fields=iter(["bonus"]))
    assert priority(server) == {b"WholeWorth:a": 0.8}
    assert stale._write_filter_score == 0.8


def test_a_stale_save_that_the_stored_record_is_not_worth_is_skipped(
    server: redis.Redis, way: Callable[..., Any]
) -> None:
    stale = WholeWorth.create(name="a", worth=0.9)
    other = WholeWorth.query.get(name="a")
    other.worth = 0.2
    other.save()
    stale.bonus = -0.15
    before = stored(server)
    assert way(stale.save, update_fields=["bonus"]) is False
    assert stored(server) == before


def test_what_an_instance_has_unsaved_does_not_count(server: redis.Redis) -> None:
    record = WholeText.create(name="a", text="platypus")
    record.text = "wombat"
    record.count = 1
    record.save(update_fields=["count"])
    assert known.might_exist(WholeText, "platypus")
    assert known.definitely_missing(WholeText, "wombat")


@pytest.mark.parametrize("call", ["bulk_update", "raw_update"])
def test_setting_another_field_of_many_changes_nothing_of_the_whole(server: redis.Redis, call: str) -> None:
    WholeText.create(name="a", text="platypus")
    WholeWorth.create(name="a", worth=0.9)
    for model in (WholeText, WholeWorth):
        given = model.query.filter(name="a") if call == "bulk_update" else [f"{model.__name__}:a"]
        assert getattr(model, call)(given, count=7) == 1
        assert model.query.get(name="a").count == 7
    assert known.might_exist(WholeText, "platypus")
    assert priority(server) == {b"WholeWorth:a": 0.9}


def test_a_bulk_update_of_a_stale_instance_is_refused_and_named(server: redis.Redis) -> None:
    fresh, stale = WholeText.create(name="a", text="x"), WholeText.create(name="b", text="y")
    other = WholeText.query.get(name="b")
    other.text = "z"
    other.save()
    before = stored(server)
    with pytest.raises(StaleRecordError, match=r"number 1 .*WholeText:b.*field text"):
        WholeText.bulk_update([fresh, stale], count=1)
    assert stored(server) == before


def test_in_a_pipeline_the_refusal_comes_at_execute(server: redis.Redis) -> None:
    stale = WholeText.create(name="a", text="x")
    other = WholeText.query.get(name="a")
    other.text = "z"
    other.save()
    stale.count = 1
    pipeline = server.pipeline()
    stale.save(pipeline=pipeline, update_fields=["count"])
    with pytest.raises(redis.ResponseError, match=r"STALE WholeText:a .*field text"):
        pipeline.execute()
    assert WholeText.query.get(name="a").count == 0


def test_of_a_record_that_is_gone_it_says_so(server: redis.Redis, way: Callable[..., Any]) -> None:
    record = WholeText.create(name="a", text="x")
    record.delete()
    record._saved_key = "WholeText:a"
    with pytest.raises(RecordGoneError, match="not stored"):
        way(record.save, update_fields=["count"])


def test_it_costs_two_round_trips_more_and_only_where_the_record_was_changed(
    server: redis.Redis, round_trips: Any
) -> None:
    record = WholeText.create(name="a", text="x")
    with round_trips() as trips:
        record.save(update_fields=["count"])
    assert trips.count == 1
    other = WholeText.query.get(name="a")
    other.text = "z"
    other.save()
    with round_trips() as trips:
        record.save(update_fields=["count"])
    assert trips.count == 3


class TwoTexts(Model):
    name = KeyField()
    title = Field(default="")
    body = Field(default="")
    known = ExistenceFilter(source=("title", "body"), capacity=100)


def test_a_part_that_the_save_does_not_name_is_taken_from_what_is_stored(server: redis.Redis) -> None:
    stale = TwoTexts.create(name="a", title="platypus", body="numbat")
    other = TwoTexts.query.get(name="a")
    other.body = "wombat"
    other.save()
    stale.title = "quokka"
    stale.save(update_fields=["title"])
    field: Any = TwoTexts._meta.fields["known"]
    found = field.might_exist_batch(TwoTexts, ["platypus", "numbat", "wombat", "quokka"])
    assert found == {"platypus": False, "numbat": False, "wombat": True, "quokka": True}


# -- atomic_increment --------------------------------------------------------------------------------------------------


def test_an_increment_moves_what_depends_on_the_whole_record(server: redis.Redis, way: Callable[..., Any]) -> None:
    record = WholeWorth.create(name="a", worth=0.5)
    for delta, expected in ((0.25, {b"WholeWorth:a": 0.75}), (0.125, {b"WholeWorth:a": 0.875}), (-0.5, {})):
        way(record.atomic_increment, "bonus", delta)
        assert priority(server) == expected
        assert WholeWorth.check_indexes()["total"] == 0
    record.delete()
    assert stored(server) == {}


def test_such_an_increment_is_one_round_trip_and_three_by_a_stale_instance(
    server: redis.Redis, round_trips: Any
) -> None:
    record, stale = WholeWorth.create(name="a", worth=0.5), WholeWorth.query.get(name="a")
    record.atomic_increment("count", 1)  # the server knows the script now
    for instance, trips_wanted in ((record, 1), (stale, 3), (record, 3), (record, 1)):
        with round_trips() as trips:
            instance.atomic_increment("count", 1)
        assert trips.count == trips_wanted


def test_an_increment_by_a_stale_instance_goes_by_what_is_stored(server: redis.Redis, way: Callable[..., Any]) -> None:
    stale = WholeWorth.create(name="a", worth=0.9)
    other = WholeWorth.query.get(name="a")
    other.worth, other.bonus = 0.25, 0.25
    other.save()
    stale.count = 7  # never saved
    assert way(stale.atomic_increment, "bonus", 0.25) == 0.5 == stale.bonus
    assert priority(server) == {b"WholeWorth:a": 0.75}
    found = WholeWorth.query.get(name="a")
    assert (found.worth, found.bonus, found.count) == (0.25, 0.5, 0)
    assert WholeWorth.check_indexes()["total"] == 0


@pytest.mark.parametrize("wrong", ["no number", object()], ids=["text", "object"])
def test_what_stands_in_the_attributes_may_be_anything(server: redis.Redis, wrong: Any) -> None:
    record = WholeWorth.create(name="a", worth=0.5)
    record.bonus = record.count = wrong
    assert record.atomic_increment("bonus", 0.25) == 0.25
    assert priority(server) == {b"WholeWorth:a": 0.75}


def test_a_field_that_the_stored_record_lacks_counts_from_zero(server: redis.Redis) -> None:
    record = WholeWorth.create(name="a", worth=0.5)
    server.hdel("WholeWorth:a", "bonus")
    assert record.atomic_increment("bonus", 0.25) == 0.25
    assert priority(server) == {b"WholeWorth:a": 0.75}


class WholeCounted(Model):
    name = KeyField()
    count = IndexedField(type=int, default=0)
    rank = SortedField(type=int, default=0)
    tags = SetField()
    known = ExistenceFilter(fingerprint_fn=lambda record: f"word{record.count} rank{record.rank}", capacity=100)


def test_the_words_of_a_number_follow_it(server: redis.Redis, way: Callable[..., Any]) -> None:
    words: Any = WholeCounted._meta.fields["known"]
    record = WholeCounted.create(name="a", tags={"x", "y", "z"})
    way(record.atomic_increment, "count", 2)
    way(record.atomic_increment, "rank", 55)
    assert words.might_exist(WholeCounted, "word2") and words.might_exist(WholeCounted, "rank55")
    assert words.definitely_missing(WholeCounted, "word0")
    assert WholeCounted.check_indexes()["total"] == 0
    assert WholeCounted.query.filter(count=2, rank=55) == [record]
    record.delete()
    assert stored(server) == {}


def test_a_queued_increment_is_refused_where_the_instance_is_stale(server: redis.Redis) -> None:
    record, stale = WholeWorth.create(name="a", worth=0.5), WholeWorth.query.get(name="a")
    pipeline = server.pipeline()
    record.atomic_increment("bonus", 0.25, pipeline=pipeline)
    record.atomic_increment("bonus", 0.25, pipeline=pipeline)
    assert pipeline.execute() == [b"0.25", b"0.5"]
    assert priority(server) == {b"WholeWorth:a": 1.0}
    before = stored(server)
    with pytest.raises(redis.ResponseError, match="was changed since it was read"):
        stale.atomic_increment("bonus", 1.0, pipeline=server.pipeline()).execute()
    assert stored(server) == before


def test_an_increment_of_a_record_that_is_gone_says_so(server: redis.Redis, way: Callable[..., Any]) -> None:
    record = WholeWorth.create(name="a")
    server.delete("WholeWorth:a")
    with pytest.raises(TypeError, match="WholeWorth:a is not stored"):
        way(record.atomic_increment, "bonus", 1.0)


def test_a_sum_that_cannot_be_stored_is_refused(server: redis.Redis, way: Callable[..., Any]) -> None:
    record = WholeWorth.create(name="a", bonus=1e308)
    server.hset("WholeWorth:a", "bonus", encoder_for(float)(1.7e308))
    before = stored(server)
    with pytest.raises(ModelException, match="cannot be stored"):
        way(record.atomic_increment, "bonus", 1.7e308)
    assert stored(server) == before


def test_increments_of_many_lose_nothing_and_leave_the_priority_right(server: redis.Redis) -> None:
    WholeWorth.create(name="a", worth=0.5)

    async def count_up() -> None:
        mine = WholeWorth.query.get(name="a")
        for _ in range(20):
            await mine.async_atomic_increment("count", 1)
            await mine.async_atomic_increment("bonus", 0.125)

    async def all_at_once() -> None:
        await asyncio.gather(*[count_up() for _ in range(4)])

    asyncio.run(all_at_once())
    found = WholeWorth.query.get(name="a")
    assert (found.count, found.bonus) == (80, 10.0)
    assert priority(server) == {b"WholeWorth:a": 10.5}
    assert WholeWorth.check_indexes()["total"] == 0
