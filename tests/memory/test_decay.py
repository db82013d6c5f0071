"""DecayingSortedField: what a save, a partial save, a touch and a delete do to the time and to both ordered sets."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
import redis.exceptions

from popoto import Field, FloatField, KeyField, Model, ModelException, QueryException
from popoto.memory import clock
from popoto.memory.decay import DecayingSortedField, base_number, decay_score, touch_command
from popoto.memory.defaults import Defaults, InteractionWeight, TemporalPeriod
from popoto.orm.drivers import run

NOW = 1_750_000_000.0


class DecayNote(Model):
    name = KeyField()
    agent = Field()
    importance = FloatField()
    relevance = DecayingSortedField(base_score_field="importance", partition_by="agent")


class DecayPlain(Model):
    name = KeyField()
    text = Field()
    relevance = DecayingSortedField()


def note(name: str = "a", agent: str = "x", importance: float | None = 2.0, **more: object) -> DecayNote:
    return DecayNote(name=name, agent=agent, importance=importance, **more)


def both_sets(server: redis.Redis, agent: str = "x") -> tuple[dict[str, float], dict[str, float]]:
    """What the index knows of a partition: key -> touched time, key -> base score."""

    def read(prefix: str) -> dict[str, float]:
        found = server.zrange(f"{prefix}:DecayNote:relevance:{agent}", 0, -1, withscores=True)
        return {key.decode(): score for key, score in found}

    return read("$DecayingSortF"), read("$DecayBase")


# -- the formula -------------------------------------------------------------------------------------------------------


def test_the_score_is_base_times_days_to_the_minus_rate() -> None:
    assert decay_score(3.0, NOW - 16 * 86400, NOW, 0.5) == 3.0 / 4.0
    assert decay_score(1.0, NOW - 86400, NOW, 0.1) == 1.0
    assert decay_score(2.0, NOW - 10 * 86400, NOW, 1.0) == pytest.approx(0.2, rel=1e-15)


@pytest.mark.parametrize("age_s", [-1e9, 0.0, 500.0, 864.0])
def test_the_factor_is_capped_at_a_hundredth_of_a_day(age_s: float) -> None:
    assert decay_score(1.0, NOW - age_s, NOW, 0.5) == pytest.approx(10.0, rel=1e-15)


def test_a_factor_is_never_zero_or_infinite() -> None:
    assert decay_score(0.0, NOW, NOW, 400.0) == 0.0
    assert decay_score(math.inf, -math.inf, NOW, 400.0) == math.inf


@pytest.mark.parametrize(
    ("value", "number"),
    [(2, 2.0), (-1.5, -1.5), (0, 0.0), (Decimal("2.5"), 2.5), (math.inf, math.inf), (10**400, math.inf), (-0.0, 0.0)]
    + [(odd, 1.0) for odd in (None, True, False, "7", math.nan, Decimal("NaN"), Decimal("sNaN"), [3])],
)
def test_numbers_count_as_base_and_anything_else_as_one(value: object, number: float) -> None:
    assert repr(base_number(value)) == repr(number)


# -- definition --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0, -1, -0.1, math.nan, math.inf, True, "0.5"])
def test_a_rate_that_is_no_positive_number_is_refused(rate: object) -> None:
    with pytest.raises(ModelException, match="decay_rate"):
        DecayingSortedField(decay_rate=rate)  # type: ignore[arg-type]


def test_a_rate_that_was_not_given_follows_the_default_as_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    given, taken = DecayingSortedField(decay_rate=0.3), DecayingSortedField()
    assert taken.decay_rate == 0.1
    monkeypatch.setattr(Defaults, "DECAY_RATE", 0.7)
    assert (given.decay_rate, taken.decay_rate) == (0.3, 0.7)


def test_the_type_is_float_whatever_is_asked_and_null_is_refused() -> None:
    assert DecayingSortedField(type=int).type is float
    with pytest.raises(ModelException, match="null"):
        DecayingSortedField(null=True)
    with pytest.raises(ModelException, match="partition_by"):
        DecayingSortedField(partition_by=["agent"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["importence", "relevance", "other"])
def test_the_base_field_must_be_a_field_that_does_not_decay_itself(name: str) -> None:
    with pytest.raises(ModelException, match=f"base_score_field= names '{name}'"):

        class DecayWrong(Model):
            importance = FloatField()
            other = DecayingSortedField()
            relevance = DecayingSortedField(base_score_field=name)


# -- saving ------------------------------------------------------------------------------------------------------------


def test_a_full_save_sets_the_time_to_now_whatever_was_assigned(server: redis.Redis) -> None:
    with clock.frozen(NOW) as at:
        one = note(relevance=5.0)
        one.save()
        assert one.relevance == NOW
        at.advance(60)
        one.save()
        assert one.relevance == DecayNote.query.get(name="a").relevance == NOW + 60
    assert both_sets(server) == ({"DecayNote:a": NOW + 60}, {"DecayNote:a": 2.0})


def test_skip_auto_now_keeps_the_assigned_time(server: redis.Redis) -> None:
    note(relevance=5.0).save(skip_auto_now=True)
    assert both_sets(server)[0] == {"DecayNote:a": 5.0}


def test_a_first_save_without_a_time_is_refused_before_any_write(server: redis.Redis) -> None:
    with pytest.raises(ModelException, match="relevance is None"):
        note().save(skip_auto_now=True)
    assert server.dbsize() == 0


def test_a_partial_save_leaves_the_time_unless_it_lists_it(server: redis.Redis) -> None:
    with clock.frozen(NOW) as at:
        one = note()
        one.save()
        at.advance(60)
        one.importance = 7.0
        one.save(update_fields=["importance"])
        assert both_sets(server) == ({"DecayNote:a": NOW}, {"DecayNote:a": 7.0})
        one.importance = 8.0  # not listed: neither stored nor ranked by
        one.save(update_fields=["relevance"])
    assert both_sets(server) == ({"DecayNote:a": NOW + 60}, {"DecayNote:a": 7.0})


def test_an_increment_of_the_base_field_is_ranked_by_at_once(server: redis.Redis) -> None:
    with clock.frozen(NOW):
        one = note(importance=2.0)
        one.save()
        one.atomic_increment("importance", 0.5)
    assert both_sets(server) == ({"DecayNote:a": NOW}, {"DecayNote:a": 2.5})


def test_a_moved_record_leaves_nothing_in_the_old_partition(server: redis.Redis) -> None:
    with clock.frozen(NOW):
        one = note()
        one.save()
        one.agent, one.importance, one.relevance = "y", 9.0, 1.0
        one.save(update_fields=["agent"])
    assert both_sets(server) == ({}, {})
    assert both_sets(server, "y") == ({"DecayNote:a": NOW}, {"DecayNote:a": 2.0})


def test_an_instance_without_a_time_does_not_tear_the_two_sets_apart(server: redis.Redis) -> None:
    with clock.frozen(NOW):
        one = note()
        one.save()
        one.agent, one.relevance = "y", None
        one.save(update_fields=["agent"])
    assert both_sets(server, "y") == ({"DecayNote:a": NOW}, {"DecayNote:a": 2.0})


def test_a_deleted_record_is_in_no_set_even_if_its_attributes_changed(server: redis.Redis) -> None:
    one = note()
    one.save()
    one.agent = "y"
    one.delete()
    assert server.keys("$Decay*") == []


@pytest.mark.parametrize(("value", "base"), [(None, 1.0), (0.0, 0.0), (-3.0, -3.0), (math.inf, math.inf)])
def test_the_base_set_holds_the_number_that_counts(server: redis.Redis, value: float | None, base: float) -> None:
    note(importance=value).save()
    assert both_sets(server)[1] == {"DecayNote:a": base}


def test_a_field_without_base_keeps_the_order_by_name_all_the_same(server: redis.Redis) -> None:
    DecayPlain(name="a").save()
    assert server.zrange("$DecayBase:DecayPlain:relevance", 0, -1, withscores=True) == [(b"DecayPlain:a", 1.0)]


def test_range_lookups_are_those_of_a_sorted_field(server: redis.Redis) -> None:
    for i in range(4):
        note(name=str(i), relevance=float(i)).save(skip_auto_now=True)
    found = DecayNote.query.filter(agent="x", relevance__gte=1.0, relevance__lt=3.0)
    assert [one.name for one in found] == ["1", "2"]
    with pytest.raises(QueryException, match="agent"):
        DecayNote.query.filter(relevance__gt=1.0).all()


# -- touch -------------------------------------------------------------------------------------------------------------


def test_touch_sets_hash_order_and_attribute_in_one_round_trip(server: redis.Redis, round_trips) -> None:
    with clock.frozen(NOW) as at:
        one = note()
        one.save()
        one.touch("relevance")  # the script is known from here on
        at.advance(0.25)
        with round_trips() as trips:
            assert one.touch("relevance") == NOW + 0.25
    assert trips.count == 1
    assert one.relevance == DecayNote.query.get(name="a").relevance == NOW + 0.25
    assert both_sets(server) == ({"DecayNote:a": NOW + 0.25}, {"DecayNote:a": 2.0})


def test_touch_writes_to_the_partition_in_which_the_record_is_stored(server: redis.Redis) -> None:
    with clock.frozen(NOW) as at:
        one = note()
        one.save()
        one.agent = "y"  # not saved
        at.advance(1)
        one.touch("relevance")
    assert both_sets(server)[0] == {"DecayNote:a": NOW + 1}
    assert both_sets(server, "y") == ({}, {})


def test_touch_keeps_what_else_the_record_holds(server: redis.Redis) -> None:
    one = note()
    one.save()
    server.expire("DecayNote:a", 100)
    one.touch("relevance")
    assert server.ttl("DecayNote:a") == 100
    assert DecayNote.query.get(name="a").importance == 2.0


def test_touch_refuses_in_this_order_unknown_field_then_type_then_unsaved(server: redis.Redis) -> None:
    one = note()
    with pytest.raises(AttributeError, match="no field 'relevence'"):
        one.touch("relevence")
    with pytest.raises(TypeError, match="is a FloatField"):
        one.touch("importance")
    with pytest.raises(TypeError, match="never saved"):
        one.touch("relevance")
    one.save()
    one.delete()
    with pytest.raises(TypeError, match="never saved"):
        one.touch("relevance")


def test_touch_does_not_revive_a_record_that_is_gone(server: redis.Redis) -> None:
    one = note()
    one.save()
    DecayNote.query.get(name="a").delete()
    with pytest.raises(TypeError, match="not stored"):
        one.touch("relevance")
    assert server.keys("*DecayNote*") == []


def test_touch_of_a_record_older_than_the_field_says_what_to_do(server: redis.Redis) -> None:
    one = note()
    one.save()
    server.delete("DecayNote:a::$occ")
    with pytest.raises(ModelException, match="rebuild_indexes"):
        run(touch_command(one, "relevance"))


def test_touch_in_a_pipeline_is_queued(server: redis.Redis) -> None:
    with clock.frozen(NOW) as at:
        one = note()
        one.save()
        at.advance(9)
        pipeline = server.pipeline()
        assert one.touch("relevance", pipeline=pipeline) is pipeline
        assert both_sets(server)[0] == {"DecayNote:a": NOW}
        pipeline.execute()
    assert both_sets(server)[0] == {"DecayNote:a": NOW + 9}


def test_touch_refuses_an_index_key_of_another_type_and_writes_nothing(server: redis.Redis) -> None:
    with clock.frozen(NOW) as at:
        one = note()
        one.save()
        server.delete("$DecayingSortF:DecayNote:relevance:x")
        server.set("$DecayingSortF:DecayNote:relevance:x", "mine")
        at.advance(1)
        with pytest.raises(ModelException, match="holds a string"):
            run(touch_command(one, "relevance"))
    assert DecayNote.query.get(name="a").relevance == NOW


# -- clock and constants -----------------------------------------------------------------------------------------------


def test_the_clock_stands_still_inside_frozen_blocks_which_nest() -> None:
    with clock.frozen(100) as outer:
        assert clock.now() == 100.0
        with clock.frozen() as inner:
            assert inner.advance(5) == clock.now() == 105.0
        assert clock.now() == outer.at == 100.0
    assert clock.now() > 1_600_000_000


def test_periods_are_seconds_and_weights_add_up() -> None:
    assert TemporalPeriod.YEARLY == 31_536_000 and TemporalPeriod.WEEKLY == 604_800
    assert InteractionWeight.combine(InteractionWeight.HUMAN, InteractionWeight.EXECUTIVE) == 50.0
