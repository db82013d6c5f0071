"""ConfidenceField: what is learnt is exact, survives everything a record goes through, and leaves with it."""

from __future__ import annotations

import asyncio
import math
import random
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext
from typing import Any

import msgpack
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto import (
    ConfidenceField,
    Defaults,
    Field,
    IntField,
    KeyField,
    KeyMutationError,
    Model,
    ModelException,
    QueryException,
    redis_db,
)
from tests.conftest import Server
from tests.faults.proxy import cutting_proxy
from tests.faults.workers import DONE, ERRORS, start

RANK = ":data::rank"
DATA = ("confidence", "evidence_count", "corroborations", "contradictions")


class Belief(Model):
    name = KeyField()
    text = Field(default="")
    certainty = ConfidenceField()


class TeamBelief(Model):
    name = KeyField()
    team = Field()
    level = IntField(default=0)
    text = Field(default="")
    certainty = ConfidenceField(partition_by="team", initial_confidence=0.25)
    trust = ConfidenceField(partition_by=("team", "level"))


update = ConfidenceField.update_confidence
data_of = ConfidenceField.get_confidence_data


def synchronously(method: Any, *args: Any, **kwargs: Any) -> Any:
    return method(*args, **kwargs)


def asynchronously(method: Any, *args: Any, **kwargs: Any) -> Any:
    twin = getattr(method.__self__, f"async_{method.__name__}")
    return asyncio.run(twin(*args, **kwargs))


@pytest.fixture(params=[synchronously, asynchronously], ids=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`way(update, ...)` calls it, or awaits its async twin."""
    return request.param  # type: ignore[no-any-return]


def expected(confidence: float, signals: list[float]) -> dict[str, float]:
    """What the formula gives, in 60 decimal digits."""
    with localcontext() as context:
        context.prec = 60
        c = Decimal(confidence)
        for evidence, signal in enumerate(signals):
            c += (Decimal(signal) - c) / Decimal(evidence + 1).sqrt()
            c = min(max(c, Decimal(0)), Decimal(1))
    high = sum(signal >= 0.5 for signal in signals)
    numbers = (float(c), len(signals), high, len(signals) - high)
    return dict(zip(DATA, numbers, strict=True))


def companions(server: redis.Redis, model: type[Model] = Belief, field: str = "certainty") -> dict[str, dict[str, Any]]:
    """What the server knows: partition (as in the key) -> record key -> data.

    Holds everywhere: the ordered set beside each hash has the same members and their confidences, and so has each
    record's own hash.
    """
    base = f"$ConfidencF:{model.__name__}:{field}:data"
    found: dict[str, dict[str, Any]] = {}
    ranked: dict[str, dict[str, float]] = {}
    for key in (raw.decode() for raw in server.keys("$ConfidencF:*")):
        if key.startswith(f"{base}::rank"):
            pairs = server.zrange(key, 0, -1, withscores=True)
            ranked[key.removeprefix(f"{base}::rank")] = {member.decode(): score for member, score in pairs}
        elif key == base or key.startswith(f"{base}:"):
            packed = server.hgetall(key)
            found[key.removeprefix(base)] = {member.decode(): msgpack.unpackb(raw) for member, raw in packed.items()}
    learnt = {part: {member: entry["confidence"] for member, entry in of.items()} for part, of in found.items()}
    assert ranked == learnt
    for members in learnt.values():
        for member, confidence in members.items():
            record = model.load(db_key=member)
            assert record is not None and getattr(record, field) == confidence
    return found


def left_over(server: redis.Redis) -> set[bytes]:
    return {key for key in server.keys("*") if not key.startswith(b"$Token:")}


# -- the formula -------------------------------------------------------------------------------------------------------


def test_the_documented_sequence_to_the_digit(server: redis.Redis) -> None:
    belief = Belief.create(name="a")
    learnt = [update(belief, "certainty", signal) for signal in (0.9, 0.1, 0.5, 0.49, 1, 0)]
    assert [round(c, 6) for c in learnt] == [0.9, 0.334315, 0.429973, 0.459987, 0.701488, 0.415107]
    assert learnt[0] == 0.9  # the first signal replaces the prior exactly
    exact = [expected(0.5, [0.9, 0.1, 0.5, 0.49, 1, 0][: n + 1])["confidence"] for n in range(6)]
    assert learnt == pytest.approx(exact, rel=1e-14)
    assert data_of(belief, "certainty") == {
        "confidence": learnt[-1],
        "evidence_count": 6,
        "corroborations": 3,
        "contradictions": 3,
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.floats(0, 1), signals=st.lists(st.floats(0, 1), max_size=12))
def test_any_signals_give_what_the_formula_gives(server: redis.Redis, start: float, signals: list[float]) -> None:
    Belief(name="h").delete()
    belief = Belief.create(name="h", certainty=start)
    for count, signal in enumerate(signals, 1):
        so_far = expected(start, signals[:count])
        assert update(belief, "certainty", signal) == pytest.approx(so_far["confidence"], abs=1e-14)
        assert 0 <= belief.certainty <= 1
    read = data_of(belief, "certainty")
    assert read == pytest.approx(expected(start, signals), abs=1e-14)
    assert read["confidence"] == belief.certainty
    assert [type(read[name]) for name in DATA] == [float, int, int, int]


@pytest.mark.parametrize(
    ("signal", "confidence"), [(0.5, 0.5), (1, 1.0), (0, 0.0), (True, 1.0), ("0.75", 0.75), (Decimal("0.25"), 0.25)]
)
def test_what_is_a_number_from_0_to_1_counts(server: redis.Redis, signal: Any, confidence: float) -> None:
    belief = Belief.create(name="a", certainty=0.6)
    learnt = update(belief, "certainty", signal)
    assert type(learnt) is float and learnt == confidence == ConfidenceField.get_confidence(belief, "certainty")
    entry = data_of(belief, "certainty")
    assert (entry["corroborations"], entry["contradictions"]) == ((1, 0) if confidence >= 0.5 else (0, 1))
    assert Belief.load(name="a").certainty == confidence
    assert [b.name for b in Belief.query.filter(certainty=confidence)] == ["a"]


# -- what is stored, and where -----------------------------------------------------------------------------------------


def test_a_new_record_has_the_initial_confidence_and_no_evidence(server: redis.Redis, way: Any) -> None:
    belief = Belief.create(name="a")
    assert belief.certainty == 0.5
    assert way(ConfidenceField.get_confidence, belief, "certainty") == 0.5
    assert way(ConfidenceField.get_confidence_data, belief, "certainty") == expected(0.5, [])
    assert msgpack.unpackb(server.hget("$ConfidencF:Belief:certainty:data", "Belief:a")) == expected(0.5, [])
    assert list(msgpack.unpackb(server.hget("$ConfidencF:Belief:certainty:data", "Belief:a"))) == list(DATA)


def test_a_confidence_given_at_creation_is_where_it_starts(server: redis.Redis) -> None:
    belief = Belief.create(name="a", certainty=0.8)
    assert companions(server) == {"": {"Belief:a": expected(0.8, [])}}
    update(belief, "certainty", 0.7)
    assert update(belief, "certainty", 0.3) == pytest.approx(0.7 - 0.4 / math.sqrt(2), rel=1e-15)


def test_the_default_is_read_when_it_is_used(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Defaults, "INITIAL_CONFIDENCE", 0.1)
    assert Belief.create(name="a").certainty == 0.1
    assert data_of(Belief(name="unsaved"), "certainty") == expected(0.1, [])
    assert TeamBelief.create(name="a").certainty == 0.25


def test_each_partition_has_a_hash_of_its_own(server: redis.Redis) -> None:
    for name, team, level in [("a", "atlas", 1), ("b", "atlas", 2), ("c", "x-y", 1), ("d", None, 1), ("e", "None", 1)]:
        TeamBelief.create(name=name, team=team, level=level)
    assert {part: set(of) for part, of in companions(server, TeamBelief).items()} == {
        ":atlas": {"TeamBelief:a", "TeamBelief:b"},
        ":x/-y": {"TeamBelief:c"},
        ":None": {"TeamBelief:d"},
        ":/None": {"TeamBelief:e"},
    }
    assert set(companions(server, TeamBelief, "trust")) == {":atlas:1", ":atlas:2", ":x/-y:1", ":None:1", ":/None:1"}


def test_no_two_partitions_share_a_key(server: redis.Redis) -> None:
    field = TeamBelief._meta.fields["trust"]
    values = ["a", "a:b", "b", "b:c", "c", "", "None", None, "{&#58;}", "/", "a/-b", "a-b", ":rank:x", "rank"]
    records = [TeamBelief(name="n", team=team, level=level) for team in values for level in (0, 1, None)]
    assert len({field.get_data_hash_key(record, "trust") for record in records}) == len(records)


def test_the_documented_keys() -> None:
    assert (
        Belief._options.fields["certainty"].get_data_hash_key(Belief(name="a"), "certainty")
        == Belief._meta.fields["certainty"].get_data_hash_key_from_values(Belief, "certainty", project="ignored")
        == "$ConfidencF:Belief:certainty:data"
    )
    field = TeamBelief._options.fields["certainty"]
    assert field.get_data_hash_key(TeamBelief(name="a", team="atlas"), "certainty") == (
        "$ConfidencF:TeamBelief:certainty:data:atlas"
    )
    both = TeamBelief._meta.fields["trust"]
    assert both.get_data_hash_key_from_values(TeamBelief, "trust", level=2, team="atlas") == (
        "$ConfidencF:TeamBelief:trust:data:atlas:2"
    )
    for values in ({}, {"team": "atlas"}, {"team": "atlas", "level": None}):
        with pytest.raises(QueryException, match=r"partitioned by team, level: give a value for .*level"):
            both.get_data_hash_key_from_values(TeamBelief, "trust", **values)


def test_the_old_key_is_where_the_data_lies(server: redis.Redis) -> None:
    field = TeamBelief._meta.fields["certainty"]
    belief = TeamBelief(name="a", team="red")
    assert field.get_old_data_hash_key(belief, "certainty") is None
    belief.save()
    belief.team = "blue"
    assert field.get_old_data_hash_key(belief, "certainty") == "$ConfidencF:TeamBelief:certainty:data:red"
    assert field.get_data_hash_key(belief, "certainty") == "$ConfidencF:TeamBelief:certainty:data:blue"
    belief.save()
    assert field.get_old_data_hash_key(belief, "certainty") == "$ConfidencF:TeamBelief:certainty:data:blue"
    belief.delete()
    assert field.get_old_data_hash_key(belief, "certainty") is None


# -- moving between partitions -----------------------------------------------------------------------------------------


@pytest.fixture
def moved(server: redis.Redis) -> TeamBelief:
    """A record with evidence whose team was changed from red to blue; not saved yet."""
    belief = TeamBelief.create(name="a", team="red")
    TeamBelief.create(name="other", team="red")
    update(belief, "certainty", 0.9)
    update(belief, "certainty", 0.1)
    belief.team = "blue"
    return belief


LEARNT = {"TeamBelief:a": expected(0.25, [0.9, 0.1])}
OTHER = {"TeamBelief:other": expected(0.25, [])}


@pytest.mark.parametrize(
    "fields", [None, ["team"], ["team", "certainty"], ["team", "text"], ["team", "level"]], ids=str
)
def test_evidence_follows_into_the_new_partition(server: redis.Redis, moved: TeamBelief, fields: Any) -> None:
    assert data_of(moved, "certainty") == LEARNT["TeamBelief:a"]  # before the save it lies where it lay
    moved.save(update_fields=fields)
    assert companions(server, TeamBelief) == {":red": OTHER, ":blue": LEARNT}
    assert set(companions(server, TeamBelief, "trust")) == {":red:0", ":blue:0"}
    moved.team = None
    moved.save(update_fields=fields)
    assert companions(server, TeamBelief) == {":red": OTHER, ":None": LEARNT}
    moved.team = "red"
    moved.save(update_fields=fields)
    assert companions(server, TeamBelief) == {":red": {**OTHER, **LEARNT}}


def test_a_part_that_is_not_named_does_not_move_it(server: redis.Redis, moved: TeamBelief) -> None:
    moved.level, moved.text = 7, "new"
    moved.save(update_fields=["level", "text"])
    assert companions(server, TeamBelief) == {":red": {**OTHER, **LEARNT}}
    assert set(companions(server, TeamBelief, "trust")) == {":red:0", ":red:7"}


def test_a_stale_instance_moves_what_is_learnt_since(server: redis.Redis) -> None:
    belief = TeamBelief.create(name="a", team="red")
    stale = TeamBelief.load(name="a")
    belief.team = "blue"
    belief.save()
    update(belief, "certainty", 0.9)
    assert update(stale, "certainty", 0.1) == expected(0.25, [0.9, 0.1])["confidence"]  # it finds the new partition
    stale.text = "late"
    stale.save(update_fields=["text"])
    assert companions(server, TeamBelief) == {":blue": LEARNT}
    stale.save()  # the whole record, with the team it knows
    assert companions(server, TeamBelief) == {":red": LEARNT}


def test_an_incremented_part_takes_the_evidence_along(server: redis.Redis) -> None:
    belief = TeamBelief.create(name="a", team="red", level=3)
    update(belief, "trust", 0.9)
    belief.atomic_increment("level", 2)
    assert companions(server, TeamBelief, "trust") == {":red:5": {"TeamBelief:a": expected(0.5, [0.9])}}


# -- saves, keys, deletion ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [None, ["certainty"], ["text"], ["text", "certainty"]], ids=str)
def test_a_save_never_overwrites_what_is_learnt(server: redis.Redis, fields: Any) -> None:
    belief = Belief.create(name="a")
    stale = Belief.load(name="a")
    update(belief, "certainty", 0.9)
    stale.certainty, stale.text = 0.2, "new"
    stale.save(update_fields=fields)
    assert companions(server) == {"": {"Belief:a": expected(0.5, [0.9])}}
    assert Belief.load(name="a").text == ("" if fields == ["certainty"] else "new")
    assert [b.name for b in Belief.query.filter(certainty=0.9)] == ["a"]
    assert Belief.query.filter(certainty=0.2).count() == 0


def test_a_value_set_later_moves_nothing_and_none_becomes_the_confidence(server: redis.Redis) -> None:
    belief = Belief.create(name="a")
    for value in (0.9, None):
        belief.certainty = value
        belief.save()
        belief.save(update_fields=["certainty"])
        assert companions(server) == {"": {"Belief:a": expected(0.5, [])}}
    assert Belief.create(name="none", certainty=None).pk in companions(server)[""]


def test_a_loaded_record_shows_the_present_confidence(server: redis.Redis) -> None:
    belief = Belief.create(name="a")
    for signal in (0.9, 1, 0, 1 / 3):
        update(belief, "certainty", signal)
        assert ConfidenceField.get_confidence(belief, "certainty") == belief.certainty
        assert Belief.load(name="a").certainty == belief.certainty
        assert Belief.query.filter(name="a")[0].certainty == belief.certainty
        assert Belief.query.filter(name="a").values("certainty").all() == [{"certainty": belief.certainty}]


def test_it_cannot_be_incremented_past_its_evidence(server: redis.Redis) -> None:
    belief = Belief.create(name="a")
    with pytest.raises(ModelException, match="certainty"):
        belief.atomic_increment("certainty", 0.1)
    assert companions(server) == {"": {"Belief:a": expected(0.5, [])}}


def test_evidence_follows_the_record_to_a_new_key(server: redis.Redis) -> None:
    belief = TeamBelief.create(name="a", team="red")
    update(belief, "certainty", 0.9)
    belief.name = "b"
    assert data_of(belief, "certainty") == expected(0.25, [0.9])
    with pytest.raises(KeyMutationError):
        belief.save()
    belief.save(migrate_key=True)
    assert companions(server, TeamBelief) == {":red": {"TeamBelief:b": expected(0.25, [0.9])}}
    belief.name, belief.team = "c", "blue"
    belief.save(migrate_key=True)
    assert companions(server, TeamBelief) == {":blue": {"TeamBelief:c": expected(0.25, [0.9])}}
    belief.name = "d"
    belief.save(update_fields=["text"], migrate_key=True)
    assert companions(server, TeamBelief) == {":blue": {"TeamBelief:d": expected(0.25, [0.9])}}
    assert update(belief, "certainty", 0.1) == expected(0.25, [0.9, 0.1])["confidence"]


def test_deleting_the_record_leaves_nothing(server: redis.Redis) -> None:
    one, two = TeamBelief.create(name="a", team="red"), TeamBelief.create(name="b", team="red")
    update(one, "certainty", 0.9)
    one.team = "green"  # deleted with another team than it was saved with
    assert one.delete() is True
    assert companions(server, TeamBelief) == {":red": {"TeamBelief:b": expected(0.25, [])}}
    two.delete()
    assert left_over(server) == set()
    one.save()
    assert companions(server, TeamBelief) == {":green": {"TeamBelief:a": {**expected(0.9, [])}}}


def test_an_expired_record_is_in_no_answer_and_leaves_nothing_to_its_successor(server: redis.Redis) -> None:
    belief = Belief(name="a")
    belief._ttl = 3600
    belief.save()
    Belief.create(name="b")
    update(belief, "certainty", 0.9)
    server.delete("Belief:a")  # what an expiry does to the hash
    assert ConfidenceField.get_confidence(belief, "certainty") == 0.5
    assert data_of(belief, "certainty") == expected(0.5, [])
    assert set(ConfidenceField.get_confidence_filtered(Belief, "certainty")) == {"Belief:b"}
    with pytest.raises(TypeError, match="not stored"):
        update(belief, "certainty", 0.9)
    Belief.create(name="a")
    assert companions(server) == {"": {f"Belief:{name}": expected(0.5, []) for name in "ab"}}


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initial", [-0.1, 1.1, math.nan, math.inf, 10**400, "0.5", [0.5]])
def test_an_initial_confidence_out_of_range_is_refused(initial: Any) -> None:
    with pytest.raises(ModelException, match="from 0 to 1"):
        ConfidenceField(initial_confidence=initial)


@pytest.mark.parametrize("partition", ["nowhere", ("team", "nowhere"), 5])
def test_a_partition_that_is_no_field_is_refused(partition: Any) -> None:
    with pytest.raises(ModelException, match="partition_by"):
        type("Wrong", (Model,), {"team": Field(), "certainty": ConfidenceField(partition_by=partition)})


@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan, "high"])
def test_a_record_takes_no_confidence_out_of_range(server: redis.Redis, value: Any) -> None:
    with pytest.raises(ModelException, match="certainty"):
        Belief.create(name="a", certainty=value)
    belief = Belief(name="a")
    belief.certainty = value
    with pytest.raises(ModelException, match="certainty"):
        belief.save()
    assert left_over(server) == set()


@pytest.mark.parametrize("signal", ["high", "", math.nan, math.inf, -0.1, 1.1, "nan", 10**400, [1], {}])
def test_a_signal_that_is_no_number_from_0_to_1_is_a_value_error(server: redis.Redis, way: Any, signal: Any) -> None:
    belief = Belief.create(name="a")
    with pytest.raises(ValueError, match="from 0 to 1"):
        way(update, belief, "certainty", signal)
    assert companions(server) == {"": {"Belief:a": expected(0.5, [])}}


def test_no_signal_is_a_type_error(server: redis.Redis, way: Any) -> None:
    with pytest.raises(TypeError, match="signal"):
        way(update, Belief.create(name="a"), "certainty", None)


def test_signal_then_field_then_record_are_checked(server: redis.Redis, way: Any) -> None:
    unsaved = Belief(name="a")
    with pytest.raises(ValueError, match="signal"):
        way(update, unsaved, "text", 2)
    with pytest.raises(TypeError, match=r"Belief.text is no ConfidenceField.*certainty"):
        way(update, unsaved, "text", 0.5)
    with pytest.raises(TypeError, match="nothing"):
        way(update, unsaved, "nothing", 0.5)
    with pytest.raises(TypeError, match="not stored"):
        way(update, unsaved, "certainty", 0.5)
    assert unsaved.certainty == 0.5
    assert left_over(server) == set()


@pytest.mark.parametrize("read", [ConfidenceField.get_confidence, data_of])
def test_a_wrong_field_is_a_type_error_for_readers_too(server: redis.Redis, way: Any, read: Any) -> None:
    with pytest.raises(TypeError, match="no ConfidenceField"):
        way(read, Belief(name="a"), "text")
    with pytest.raises(TypeError, match="no ConfidenceField"):
        way(ConfidenceField.get_confidence_filtered, Belief, "text")


def test_a_record_that_was_deleted_is_a_type_error_and_stays_deleted(server: redis.Redis, way: Any) -> None:
    belief = Belief.create(name="a")
    elsewhere = Belief.load(name="a")
    belief.delete()
    for instance in (belief, elsewhere):
        with pytest.raises(TypeError, match="not stored"):
            way(update, instance, "certainty", 0.5)
    assert left_over(server) == set()


def test_a_key_of_another_type_is_refused_before_anything_is_written(server: redis.Redis) -> None:
    belief = Belief.create(name="a")
    server.delete("$ConfidencF:Belief:certainty" + RANK)
    server.set("$ConfidencF:Belief:certainty" + RANK, "a string")
    with pytest.raises((TypeError, ModelException), match="nothing was written"):
        update(belief, "certainty", 0.9)
    with pytest.raises(ModelException, match="nothing was written"):
        belief.save()
    assert data_of(belief, "certainty") == expected(0.5, [])


def test_lost_or_corrupt_data_starts_anew(server: redis.Redis) -> None:
    belief = TeamBelief.create(name="a", team="red")
    update(belief, "certainty", 0.9)
    key = "$ConfidencF:TeamBelief:certainty:data:red"
    for damage in (lambda: server.hdel(key, belief.pk), lambda: server.hset(key, belief.pk, b"\xc1 nonsense")):
        damage()
        assert data_of(belief, "certainty") == expected(0.25, [])
        assert ConfidenceField.get_confidence_filtered(TeamBelief, "certainty", team="red") == {}
        assert update(belief, "certainty", 0.7) == 0.7
        assert companions(server, TeamBelief) == {":red": {"TeamBelief:a": expected(0.25, [0.7])}}


# -- many at once ------------------------------------------------------------------------------------------------------


def in_some_order(confidence: float, runs: list[list[Any]]) -> dict[str, float]:
    """Replay (signal, answer) lists of concurrent writers as one sequence; fail when no order explains the answers.

    Each answer is the exact double that the formula gives at its place in the sequence.
    """
    waiting = [run[::-1] for run in runs]
    signals: list[float] = []
    c = confidence
    while any(waiting):
        for run in waiting:
            if run:
                signal, answer = run[-1]
                if min(max(c + (signal - c) / math.sqrt(len(signals) + 1), 0.0), 1.0) == answer:
                    break
        else:
            nexts = [run[-1] for run in waiting if run]
            raise AssertionError(f"after {len(signals)} updates no order explains {nexts}")
        run.pop()
        signals.append(signal)
        c = answer
    high = sum(signal >= 0.5 for signal in signals)
    return dict(zip(DATA, (c, len(signals), high, len(signals) - high), strict=True))


def random_updates(seed: int, count: int) -> Iterator[tuple[float, float]]:
    belief = Belief.load(name="shared")
    for _ in range(count):
        signal = random.Random(seed).random()
        seed += 1
        yield signal, update(belief, "certainty", signal)


def test_updates_of_8_threads_all_count_in_some_order(server: redis.Redis) -> None:
    Belief.create(name="shared")
    runs: list[list[tuple[float, float]]] = [[] for _ in range(8)]

    def work(number: int) -> None:
        for pair in random_updates(1000 * number, 50):
            runs[number].append(pair)
            if number == 0:  # and somebody saves the record all the while
                Belief(name="shared", text=str(pair)).save()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    serial = in_some_order(0.5, runs)
    assert serial["evidence_count"] == 400
    assert companions(server) == {"": {"Belief:shared": serial}}


def process_work(seed: int, count: int) -> None:
    """Run in a process of its own: update, and leave (signal, answer) pairs on the server."""
    pairs = list(random_updates(seed, count))
    redis_db.get_REDIS_DB().hset(DONE, str(seed), msgpack.packb(pairs))


def test_updates_of_8_processes_all_count_in_some_order(server: redis.Redis, shared_server: Server) -> None:
    Belief.create(name="shared")
    processes = [start(process_work, shared_server.url, 1000 * number, 50) for number in range(8)]
    for process in processes:
        process.join(60)
    assert server.lrange(ERRORS, 0, -1) == []
    serial = in_some_order(0.5, [msgpack.unpackb(raw) for raw in server.hvals(DONE)])
    assert serial["evidence_count"] == 400
    assert companions(server) == {"": {"Belief:shared": serial}}


def test_updates_of_one_loop_all_count_in_some_order(server: redis.Redis) -> None:
    belief = Belief.create(name="shared")
    signals = [random.Random(n).random() for n in range(40)]

    async def at_once() -> list[float]:
        twin = ConfidenceField.async_update_confidence
        return await asyncio.gather(*(twin(belief, "certainty", signal) for signal in signals))

    answers = asyncio.run(at_once())
    serial = in_some_order(0.5, [[pair] for pair in zip(signals, answers, strict=True)])
    assert companions(server) == {"": {"Belief:shared": serial}}


def test_each_call_is_one_round_trip(server: redis.Redis, round_trips: Any) -> None:
    belief = TeamBelief.create(name="a", team="red")
    update(belief, "certainty", 0.5)
    data_of(belief, "certainty")
    for call in (
        lambda: update(belief, "certainty", 0.9),
        lambda: ConfidenceField.get_confidence(belief, "certainty"),
        lambda: data_of(belief, "certainty"),
        lambda: ConfidenceField.get_confidence_filtered(TeamBelief, "certainty", team="red"),
        lambda: belief.save(),
        lambda: belief.save(update_fields=["team"]),
    ):
        with round_trips() as trips:
            call()
        assert trips.count == 1


def test_an_update_whose_answer_is_cut_counts_once(server: redis.Redis, shared_server: Server, way: Any) -> None:
    belief = Belief.create(name="a")
    update(belief, "certainty", 0.5)  # loads the script
    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        proxy.cut_replies(times=2)
        assert way(update, belief, "certainty", 0.9) == expected(0.5, [0.5, 0.9])["confidence"]
        assert proxy.cuts == 2
        redis_db.configure_url(shared_server.url)
    assert companions(server) == {"": {"Belief:a": expected(0.5, [0.5, 0.9])}}


# -- get_confidence_filtered -------------------------------------------------------------------------------------------


def test_the_data_of_records_whose_key_matches(server: redis.Redis, way: Any) -> None:
    for name in ("cat", "cow", "dog", "a*b"):
        update(Belief.create(name=name), "certainty", 0.9)
    filtered = ConfidenceField.get_confidence_filtered
    entry = expected(0.5, [0.9])
    assert way(filtered, Belief, "certainty", "Belief:c*") == {"Belief:cat": entry, "Belief:cow": entry}
    assert set(way(filtered, Belief, "certainty")) == {"Belief:cat", "Belief:cow", "Belief:dog", "Belief:a/*b"}
    assert way(filtered, Belief, "certainty", "nothing*") == {}


def test_a_partition_is_read_alone(server: redis.Redis, way: Any) -> None:
    for name, team in [("a", "red"), ("b", "red"), ("c", "blue")]:
        TeamBelief.create(name=name, team=team)
    filtered = ConfidenceField.get_confidence_filtered
    assert set(way(filtered, TeamBelief, "certainty", team="red")) == {"TeamBelief:a", "TeamBelief:b"}
    assert set(way(filtered, TeamBelief, "trust", "*c", team="blue", level=0)) == {"TeamBelief:c"}
    assert way(filtered, TeamBelief, "certainty", team="green") == {}
    with pytest.raises(QueryException, match="give a value for team"):
        way(filtered, TeamBelief, "certainty")
    with pytest.raises(QueryException, match="give a value for level"):
        way(filtered, TeamBelief, "trust", team="red")


def test_all_pages_of_a_large_partition_are_read(server: redis.Redis) -> None:
    key, packed = "$ConfidencF:Belief:certainty:data", msgpack.packb(expected(0.5, []))
    server.hset(key, mapping={f"Belief:{n}": packed for n in range(3000)})
    assert len(ConfidenceField.get_confidence_filtered(Belief, "certainty")) == 3000


# -- everything together -----------------------------------------------------------------------------------------------

NAMES = st.sampled_from("abc")
TEAMS = st.sampled_from(["red", "a:b", None])
FIELDS = st.sampled_from([None, ["team"], ["certainty"], ["text"], ["level", "certainty"], ["team", "level"]])
ACTIONS = st.one_of(
    st.tuples(st.just("save"), NAMES, TEAMS, st.integers(0, 1), st.floats(0, 1), FIELDS),
    st.tuples(st.just("update"), NAMES, st.floats(0, 1)),
    st.tuples(st.just("move"), NAMES, NAMES),
    st.tuples(st.just("delete"), NAMES),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, max_size=14))
def test_whatever_happens_to_records_their_evidence_is_right(server: redis.Redis, actions: list[Any]) -> None:
    server.flushall()
    held: dict[str, TeamBelief] = {}  # by key name; each instance stays stale until it is used again
    stored: dict[str, tuple[Any, int]] = {}
    learnt: dict[str, tuple[float, list[float]]] = {}
    for what, name, *rest in actions:
        instance = held.get(name) or TeamBelief(name=name)
        if what == "save":
            instance.team, instance.level, instance.certainty, fields = rest
            if fields is not None and name not in stored:
                continue
            instance.save(update_fields=fields)
            held[name] = instance
            team, level = stored.get(name, (None, 0))
            team = instance.team if fields is None or "team" in fields else team
            level = instance.level if fields is None or "level" in fields else level
            stored[name] = (team, level)
            learnt.setdefault(name, (instance.certainty, []))
        elif name not in stored:
            with pytest.raises(TypeError):
                update(instance, "certainty", 0.5)
        elif what == "update":
            update(TeamBelief.load(name=name), "certainty", rest[0])  # `held` does not know
            learnt[name][1].append(rest[0])
        elif what == "move" and rest[0] not in stored:
            instance.name = rest[0]
            instance.team, instance.level = stored[name]
            instance.save(migrate_key=True)
            for table in (held, stored, learnt):
                table[rest[0]] = table.pop(name)
        elif what == "delete":
            instance.delete()
            for table in (held, stored, learnt):
                del table[name]
    field = TeamBelief._meta.fields["certainty"]
    wanted: dict[str, dict[str, Any]] = {}
    for name, (team, _) in stored.items():
        key = field.get_data_hash_key(TeamBelief(name=name, team=team), "certainty")
        part = key.removeprefix("$ConfidencF:TeamBelief:certainty:data")
        wanted.setdefault(part, {})[f"TeamBelief:{name}"] = pytest.approx(expected(*learnt[name]), abs=1e-14)
    assert companions(server, TeamBelief) == wanted
    if not stored:
        assert left_over(server) == set()
