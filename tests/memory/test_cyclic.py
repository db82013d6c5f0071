"""CyclicDecayField: cycles and pressure to the digit, learnt amplitudes that last, a ranking equal to brute force."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto import (
    CyclicDecayField,
    DecayingSortedField,
    Field,
    FloatField,
    KeyField,
    Model,
    ModelException,
    QueryException,
    TemporalPeriod,
    redis_db,
)
from popoto.memory import clock
from popoto.memory.cyclic import cyclic_decay_score, cyclic_score, pressure_score
from popoto.memory.cyclic_ranking import score_command, top_by_decay_steps
from popoto.orm.drivers import drive, run
from popoto.orm.scripts import Script
from tests.faults.proxy import cutting_proxy
from tests.memory.traces import stored, traces

DAY = 86_400.0
T0 = 1_700_000_000.0
DAILY, WEEKLY = TemporalPeriod.DAILY, TemporalPeriod.WEEKLY


class Habit(Model):
    name = KeyField()
    text = Field(default="")
    weight = FloatField(default=1.0)
    due = CyclicDecayField(
        cycles=[(DAILY, 0.5), (WEEKLY, 2.0, 3 * DAY)], pressure_rate=0.25, base_score_field="weight", decay_rate=0.5
    )


class Chore(Model):
    name = KeyField()
    team = Field(default="red")
    due = CyclicDecayField(cycles=[(DAILY, 1.0)], pressure_rate=1.0, partition_by="team")


class Calm(Model):
    name = KeyField()
    seen = DecayingSortedField()
    due = CyclicDecayField()


@pytest.fixture(autouse=True)
def frozen() -> Iterator[clock.FrozenClock]:
    with clock.frozen(T0) as still:
        yield still


def companions(server: redis.Redis, base: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cycles and the pressure of one partition. Holds: the ordered sets for ranking say the same."""

    def hash_of(what: str) -> dict[str, Any]:
        return {key.decode(): msgpack.unpackb(raw) for key, raw in server.hgetall(f"{base}:{what}").items()}

    def ranked(names: str, root: str) -> dict[str, dict[str, float]]:
        found = {}
        for name in (raw.decode() for raw in server.smembers(names)):
            found[name] = {k.decode(): v for k, v in server.zrange(f"{root}::{name}", 0, -1, withscores=True)}
            assert found[name]
        return found

    cycles, pressure = hash_of("cycles"), hash_of("pressure")
    amplitudes: dict[str, dict[str, float]] = {}
    for key, its in cycles.items():
        for period, amplitude, phase in its:
            if amplitude:
                amplitudes.setdefault(f"{period:.17g}@{phase:.17g}", {})[key] = amplitude
    assert ranked(f"{base}:cycles::shapes", f"{base}:cycles") == amplitudes
    times: dict[str, dict[str, float]] = {}
    for key, data in pressure.items():
        times.setdefault(f"{data['rate']:.17g}", {})[key] = data["last_resolved"]
    assert ranked(f"{base}:pressure::rates", f"{base}:pressure") == times
    return cycles, pressure


HABIT = "$CyclicDecayF:Habit:due"
DEFINED = [[DAILY, 0.5, 0], [WEEKLY, 2, 3 * DAY]]


# -- definition --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"cycles": [(DAILY,)]},
        {"cycles": [(DAILY, 1, 0, 0)]},
        {"cycles": [(0, 1)]},
        {"cycles": [(-1, 1)]},
        {"cycles": [(DAILY, -0.1)]},
        {"cycles": [(DAILY, 100.1)]},
        {"cycles": [(DAILY, "1")]},
        {"cycles": [(DAILY, math.nan)]},
        {"cycles": ["ab"]},
        {"pressure_rate": -1},
        {"pressure_rate": "1"},
        {"pressure_rate": math.inf},
        {"decay_rate": 0},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ModelException):
        CyclicDecayField(**options)


def test_options_are_kept() -> None:
    field: Any = Habit._meta.fields["due"]
    assert field.cycles == [(DAILY, 0.5, 0.0), (WEEKLY, 2.0, 3 * DAY)]
    assert (field.pressure_rate, field.decay_rate, field.base_score_field) == (0.25, 0.5, "weight")
    plain: Any = CyclicDecayField()
    assert (plain.cycles, plain.pressure_rate) == ([], 0.0)
    assert len(CyclicDecayField(cycles=[(n + 1, 1) for n in range(500)]).cycles) == 500
    with pytest.raises(TypeError):
        CyclicDecayField(cycles=None)  # type: ignore[arg-type]


def test_the_documented_keys(server: redis.Redis) -> None:
    field: Any = Chore._meta.fields["due"]
    task = Chore.create(name="a", team="a-1")
    assert field.get_cycles_hash_key(task, "due") == "$CyclicDecayF:Chore:due:a/-1:cycles"
    assert field.get_pressure_hash_key(task, "due") == "$CyclicDecayF:Chore:due:a/-1:pressure"
    assert CyclicDecayField.get_cycles_hash_key_from_parts(Chore, "due", "x:y") == (
        "$CyclicDecayF:Chore:due:x{&#58;}y:cycles"
    )
    assert field.get_pressure_hash_key_from_parts(Habit, "due") == "$CyclicDecayF:Habit:due:pressure"
    assert server.exists(field.get_cycles_hash_key(task, "due"), field.get_pressure_hash_key(task, "due")) == 2


# -- formula -----------------------------------------------------------------------------------------------------------


def test_the_formula_to_the_digit() -> None:
    cycles = [(DAILY, 0.5, 0.0), (WEEKLY, 2.0, 3 * DAY)]
    assert cyclic_score(cycles, 0.0) == pytest.approx(0.5 + 2.0 * math.cos(2 * math.pi * -3 / 7), rel=1e-15)
    assert cyclic_score([(DAILY, 0.5, 0.0)], DAY / 2) == pytest.approx(-0.5)
    assert cyclic_score([(DAILY, 0.5, 0.0)], DAY / 4) == pytest.approx(0.0, abs=1e-12)
    assert cyclic_score([], 5.0) == 0.0
    assert pressure_score(0.25, 0.0, 4 * DAY) == 1.0
    assert pressure_score(0.25, DAY, 0.0) == 0.0, "a time in the future presses nothing"
    whole = cyclic_decay_score(3.0, 0.0, 4 * DAY, 0.5, cycles, (0.25, DAY))
    assert whole == pytest.approx(3.0 * 4**-0.5 + 0.5 + 2 * math.cos(2 * math.pi / 7) + 0.75)


def test_the_server_computes_the_same(server: redis.Redis, frozen: clock.FrozenClock) -> None:
    Habit.create(name="a", weight=3.0)
    Calm.create(name="a")
    frozen.at = T0 + 2.75 * DAY
    cycles = [(DAILY, 0.5, 0.0), (WEEKLY, 2.0, 3 * DAY)]
    expected = cyclic_decay_score(3.0, T0, frozen.at, 0.5, cycles, (0.25, T0))
    (habit,) = Habit.query.top_by_decay()
    assert habit._decay_score == pytest.approx(expected, rel=1e-14)
    assert run(score_command(Habit, "due", ["Habit:a", "Habit:gone"])) == pytest.approx({"Habit:a": expected})
    composite = Habit.query.composite_score({"due": 2.0})
    assert composite[0]._composite_score == pytest.approx(2 * expected, rel=1e-14)
    (calm,) = Calm.query.top_by_decay("due")
    assert calm._decay_score == pytest.approx(2.75**-0.1)
    assert run(score_command(Calm, "seen", ["Calm:a"])) == pytest.approx({"Calm:a": 2.75**-0.1})


# -- resolve_pressure, strengthen_cycle, weaken_cycle ------------------------------------------------------------------


def test_pressure_builds_up_until_it_is_resolved(
    server: redis.Redis, way: Callable[..., Any], frozen: clock.FrozenClock, round_trips: Any
) -> None:
    task = Chore.create(name="a")
    frozen.advance(3 * DAY)
    task.touch("due")
    task.save()
    assert Chore.query.filter(team="red").top_by_decay()[0]._decay_score == pytest.approx(
        100**0.1 + math.cos(2 * math.pi * frozen.at / DAY) + 3.0
    )
    assert way(task.resolve_pressure, "due") == frozen.at
    assert companions(server, "$CyclicDecayF:Chore:due:red")[1] == {"Chore:a": {"rate": 1, "last_resolved": frozen.at}}
    assert Chore.query.filter(team="red").top_by_decay()[0]._decay_score == pytest.approx(
        100**0.1 + math.cos(2 * math.pi * frozen.at / DAY)
    )
    for call in (task.resolve_pressure, task.strengthen_cycle, task.weaken_cycle):
        with round_trips() as trips:
            call("due")
        assert trips.count == 1


def test_amplitudes_are_multiplied_clamped_and_snapped(server: redis.Redis, way: Callable[..., Any]) -> None:
    habit = Habit.create(name="a")
    assert way(habit.strengthen_cycle, "due") == [[DAILY, 0.6, 0.0], [WEEKLY, 2.4, 3 * DAY]]
    assert way(habit.weaken_cycle, "due", 0.5) == [[DAILY, 0.3, 0.0], [WEEKLY, 1.2, 3 * DAY]]
    assert way(habit.strengthen_cycle, "due", factor=1000) == [[DAILY, 100, 0.0], [WEEKLY, 100, 3 * DAY]]
    assert way(habit.weaken_cycle, "due", 0.0001) == [[DAILY, 0.01, 0.0], [WEEKLY, 0.01, 3 * DAY]]
    assert way(habit.weaken_cycle, "due") == [[DAILY, 0, 0.0], [WEEKLY, 0, 3 * DAY]]
    assert way(habit.strengthen_cycle, "due", 5) == [[DAILY, 0, 0.0], [WEEKLY, 0, 3 * DAY]], "0 stays 0"
    assert companions(server, HABIT)[0] == {"Habit:a": [[DAILY, 0, 0], [WEEKLY, 0, 3 * DAY]]}


def test_the_factor_goes_either_way(server: redis.Redis) -> None:
    habit = Habit.create(name="a")
    assert habit.strengthen_cycle("due", 0.5)[0][1] == 0.25
    assert habit.weaken_cycle("due", 2)[0][1] == 0.5
    assert habit.weaken_cycle("due", -1) == [[DAILY, 0, 0.0], [WEEKLY, 0, 3 * DAY]]
    for factor in (math.nan, math.inf, "2", None):
        with pytest.raises(ValueError, match="factor="):
            habit.strengthen_cycle("due", factor)


def test_a_record_without_cycles_has_none_to_multiply(server: redis.Redis) -> None:
    calm = Calm.create(name="a")
    before = stored(server)
    assert calm.strengthen_cycle("due") == []
    assert stored(server) == before


def test_mistakes_are_told_in_order(server: redis.Redis, way: Callable[..., Any]) -> None:
    unsaved, calm = Habit(name="a"), Calm.create(name="a")
    for call in (unsaved.resolve_pressure, unsaved.strengthen_cycle, unsaved.weaken_cycle):
        with pytest.raises(AttributeError, match="has no field 'missing'"):
            way(call, "missing")
        with pytest.raises(TypeError, match="expected a CyclicDecayField"):
            way(call, "weight")
        with pytest.raises(TypeError, match="never saved"):
            way(call, "due")
    with pytest.raises(TypeError, match="builds up no pressure"):
        way(calm.resolve_pressure, "due")
    with pytest.raises(TypeError, match="expected a CyclicDecayField"):
        way(calm.strengthen_cycle, "seen")
    gone = Habit.create(name="gone")
    Habit(name="gone").delete()
    for call in (gone.resolve_pressure, gone.strengthen_cycle, gone.weaken_cycle):
        with pytest.raises(TypeError, match="is not stored"):
            way(call, "due")


def test_calls_can_be_queued(server: redis.Redis, way: Callable[..., Any]) -> None:
    habit = Habit.create(name="a")
    pipeline = server.pipeline()
    for call in (habit.resolve_pressure, habit.strengthen_cycle, habit.weaken_cycle):
        assert way(call, "due", pipeline=pipeline) is pipeline
    assert companions(server, HABIT)[0] == {"Habit:a": DEFINED}
    pipeline.execute()
    assert companions(server, HABIT)[0]["Habit:a"][0][1] == pytest.approx(0.5 * 1.2 * 0.8)


def test_many_at_once_lose_nothing(server: redis.Redis) -> None:
    habit = Habit.create(name="a")
    strengthened = 1.01

    def work() -> None:
        for _ in range(25):
            habit.strengthen_cycle("due", strengthened)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert companions(server, HABIT)[0]["Habit:a"][0][1] == pytest.approx(0.5 * strengthened**100)

    async def more() -> None:
        await asyncio.gather(*(habit.async_weaken_cycle("due", 1 / strengthened) for _ in range(100)))

    asyncio.run(more())
    assert companions(server, HABIT)[0]["Habit:a"][0][1] == pytest.approx(0.5)


def test_a_repeat_after_a_cut_reply_multiplies_once(
    server: redis.Redis, shared_server: Any, way: Callable[..., Any]
) -> None:
    habit = Habit.create(name="a")
    for script in Script._all:
        server.script_load(script.source)
    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        proxy.cut_replies()
        assert way(habit.strengthen_cycle, "due")[0][1] == 0.6
        assert proxy.cuts == 1
        redis_db.configure_url(shared_server.url)
    assert companions(server, HABIT)[0]["Habit:a"][0][1] == 0.6


# -- what saves do -----------------------------------------------------------------------------------------------------


def test_saves_keep_what_is_learnt(server: redis.Redis, frozen: clock.FrozenClock) -> None:
    habit = Habit.create(name="a")
    assert companions(server, HABIT) == ({"Habit:a": DEFINED}, {"Habit:a": {"rate": 0.25, "last_resolved": T0}})
    habit.strengthen_cycle("due", 2)
    learnt = [[DAILY, 1, 0], [WEEKLY, 4, 3 * DAY]]
    frozen.advance(DAY)
    habit.save()
    habit.save(update_fields=["due"])
    habit.save(update_fields=["text"])
    Habit(name="a", text="another instance").save()
    habit.atomic_increment("weight", 1.0)
    assert companions(server, HABIT) == ({"Habit:a": learnt}, {"Habit:a": {"rate": 0.25, "last_resolved": T0}})


def test_a_new_definition_replaces_what_is_learnt_and_a_new_rate_keeps_the_time(
    server: redis.Redis, frozen: clock.FrozenClock
) -> None:
    first = Habit.create(name="a")
    first.strengthen_cycle("due", 2)

    class Changed(Model):
        name = KeyField()
        text = Field(default="")
        weight = FloatField(default=1.0)
        due = CyclicDecayField(cycles=[(DAILY, 0.7)], pressure_rate=0.5)

        class Meta:
            key_name = "Habit"

    frozen.advance(DAY)
    changed = Changed.query.get(name="a")
    changed.save()
    assert companions(server, HABIT) == (
        {"Habit:a": [[DAILY, 0.7, 0]]},
        {"Habit:a": {"rate": 0.5, "last_resolved": T0}},
    )

    class Without(Model):
        name = KeyField()
        text = Field(default="")
        weight = FloatField(default=1.0)
        due = CyclicDecayField()

        class Meta:
            key_name = "Habit"

    Without.query.get(name="a").save()
    assert companions(server, HABIT) == ({}, {})


def test_what_is_stored_without_an_index_entry_is_kept(server: redis.Redis) -> None:
    """A store of another make: companions as documented, but no list of what the record occupies."""
    habit = Habit.create(name="a")
    server.hset(f"{HABIT}:cycles", "Habit:a", msgpack.packb([[DAILY, 0.9, 0.0]]))
    server.hset(f"{HABIT}:pressure", "Habit:a", msgpack.packb({"rate": 0.25, "last_resolved": 5.0}))
    for key in server.keys("*::*"):
        server.delete(key)
    habit.save()
    assert companions(server, HABIT) == (
        {"Habit:a": [[DAILY, 0.9, 0]]},
        {"Habit:a": {"rate": 0.25, "last_resolved": 5}},
    )


@pytest.mark.parametrize("fields", [None, ["team"]], ids=["whole", "partial"])
def test_it_moves_to_another_partition(server: redis.Redis, fields: list[str] | None) -> None:
    task, other = Chore.create(name="a"), Chore.create(name="b")
    task.strengthen_cycle("due", 3)
    task.team = "blue"
    task.save(update_fields=fields)
    assert companions(server, "$CyclicDecayF:Chore:due:red")[0] == {other.pk: [[DAILY, 1, 0]]}
    assert companions(server, "$CyclicDecayF:Chore:due:blue") == (
        {"Chore:a": [[DAILY, 3, 0]]},
        {"Chore:a": {"rate": 1, "last_resolved": T0}},
    )
    task.team = "green"  # not saved: calls go to where the record is stored
    assert task.weaken_cycle("due", 0.5) == [[DAILY, 1.5, 0.0]]
    task.resolve_pressure("due")
    assert companions(server, "$CyclicDecayF:Chore:due:blue")[0] == {"Chore:a": [[DAILY, 1.5, 0]]}
    task.delete()
    other.delete()
    assert stored(server) == {}


@pytest.mark.parametrize("fields", [None, ["name"]], ids=["whole", "partial"])
def test_it_follows_the_record_to_another_key(server: redis.Redis, fields: list[str] | None) -> None:
    habit = Habit.create(name="quokka")
    habit.strengthen_cycle("due", 2)
    habit.name = "numbat"
    habit.save(migrate_key=True, update_fields=fields)
    assert companions(server, HABIT) == (
        {"Habit:numbat": [[DAILY, 1, 0], [WEEKLY, 4, 3 * DAY]]},
        {"Habit:numbat": {"rate": 0.25, "last_resolved": T0}},
    )
    assert traces(server, "quokka") == []


def test_delete_and_expiry_leave_no_trace(server: redis.Redis) -> None:
    habit = Habit.create(name="quokka")
    habit.strengthen_cycle("due")
    habit.delete()
    assert stored(server) == {}
    brief = Habit.create(name="quokka")
    brief._ttl = 0.02
    brief.save()
    Habit.create(name="b")
    time.sleep(0.05)
    Habit.create(name="c")
    assert traces(server, "quokka") == []


def test_foreign_keys_in_the_way_are_refused(server: redis.Redis) -> None:
    habit = Habit.create(name="a")
    server.delete(f"{HABIT}:cycles")
    server.set(f"{HABIT}:cycles", "mine")
    before = stored(server)
    for call in (habit.save, lambda: habit.strengthen_cycle("due")):
        with pytest.raises(ModelException, match="nothing was written"):
            call()
    assert stored(server) == before


# -- ranking -----------------------------------------------------------------------------------------------------------


class TurningNote(Model):
    name = KeyField()
    team = Field(default="red")
    weight = FloatField(default=1.0)
    other = FloatField(default=1.0)
    due = CyclicDecayField(
        cycles=[(DAILY, 0.5), (WEEKLY, 1.0, 2 * DAY)],
        pressure_rate=0.3,
        base_score_field="weight",
        decay_rate=0.4,
        partition_by="team",
    )


def expected_order(server: redis.Redis, now: float, rate: float = 0.4, base: str = "weight") -> list[tuple[str, float]]:
    """Every record's score from its stored parts, best first, equal ones by descending key."""
    key = "$CyclicDecayF:TurningNote:due:red"
    cycles, pressure = companions(server, key)
    found = []
    for record in TurningNote.query.filter(team="red"):
        data = pressure[record.pk]
        weight = getattr(record, base) if base else 1.0
        pressing = (data["rate"], data["last_resolved"])
        found.append((record.pk, cyclic_decay_score(weight, record.due, now, rate, cycles[record.pk], pressing)))
    return sorted(found, key=lambda item: (item[1], item[0]), reverse=True)


def same_ranking(found: list[Any], expected: list[tuple[str, float]], n: int) -> None:
    assert [record._decay_score for record in found] == pytest.approx([score for _, score in expected[:n]], rel=1e-12)
    near = {pk for pk, score in expected if score >= expected[min(n, len(expected)) - 1][1] - 1e-9}
    assert {record.pk for record in found} <= near and len(found) == min(n, len(expected))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_ranking_equals_scoring_everything(server: redis.Redis, data: st.DataObject) -> None:
    server.flushall()
    count = data.draw(st.integers(1, 25))
    spread = st.floats(0, 20 * DAY)
    with clock.frozen(T0) as still:
        for number in range(count):
            still.at = T0 + data.draw(spread)
            weight = data.draw(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.0, 3.0]))
            record = TurningNote(name=f"r{number}", weight=weight, other=-weight)
            record.save()
            factor = data.draw(st.sampled_from([None, None, 0.0, 0.5, 3.0]))
            if factor is not None:
                record.strengthen_cycle("due", factor)
            if data.draw(st.booleans()):
                still.advance(data.draw(spread))
                record.resolve_pressure("due")
        TurningNote.create(name="elsewhere", team="blue", weight=50.0)
        still.at = T0 + data.draw(st.floats(-DAY, 60 * DAY))
        n = data.draw(st.integers(1, 30))
        query = TurningNote.query.filter(team="red")
        same_ranking(query.top_by_decay(n=n), expected_order(server, still.at), n)
        rate = data.draw(st.sampled_from([0.0, -0.5, 2.0]))
        same_ranking(query.top_by_decay(n=n, decay_rate=rate), expected_order(server, still.at, rate), n)
        base = data.draw(st.sampled_from(["", "other"]))
        same_ranking(query.top_by_decay(n=n, base_score_field=base), expected_order(server, still.at, base=base), n)
        weighed = query.composite_score({"due": -2.0}, limit=n)
        worst = sorted(score for _, score in expected_order(server, still.at))[:n]
        assert [record._composite_score for record in weighed] == pytest.approx([-2 * score for score in worst])


def test_equal_scores_go_by_descending_key(server: redis.Redis) -> None:
    for name in ("b", "d", "a", "c"):
        Chore.create(name=name)
    assert [task.name for task in Chore.query.filter(team="red").top_by_decay(n=3)] == ["d", "c", "b"]


def test_filters_and_limits_restrict_the_ranking(server: redis.Redis) -> None:
    for number in range(20):
        Habit.create(name=f"h{number:02}", weight=float(number), text="even" if number % 2 == 0 else "odd")
    found = Habit.query.filter(text="even").top_by_decay(n=3)
    assert [habit.name for habit in found] == ["h18", "h16", "h14"]
    assert [habit.name for habit in Habit.query.filter(text="odd").limit(1).top_by_decay()] == ["h19"]
    assert Habit.query.top_by_decay(n=0) == []
    with pytest.raises(QueryException, match="partitioned by team"):
        Chore.query.top_by_decay()
    with pytest.raises(TypeError):
        Habit.query.top_by_decay(n=1.5)


def test_records_without_cycles_rank_by_their_decay_alone(server: redis.Redis) -> None:
    class Early(Model):
        name = KeyField()
        due = CyclicDecayField()

    Early.create(name="plain")

    class Late(Model):
        name = KeyField()
        due = CyclicDecayField(cycles=[(DAILY, 5.0, T0)])

        class Meta:
            key_name = "Early"

    Late.create(name="turning")
    assert [r.name for r in Late.query.top_by_decay()] == ["turning", "plain"]
    with clock.frozen(T0 + DAY / 2):
        assert [r.name for r in Late.query.top_by_decay()] == ["plain", "turning"]


def test_most_records_are_never_looked_at(server: redis.Redis, round_trips: Any) -> None:
    class Unpartitioned(Model):
        name = KeyField()
        due = CyclicDecayField(cycles=[(DAILY, 0.5)], pressure_rate=0.3, decay_rate=0.4)

    rng = random.Random(5)
    key = "$CyclicDecayF:Unpartitioned:due"
    pipeline = server.pipeline()
    for number in range(5000):
        rk = f"Unpartitioned:r{number:05}"
        pipeline.hset(rk, "name", msgpack.packb(f"r{number:05}"))
        pipeline.sadd("$Class:Unpartitioned", rk)
        pipeline.zadd("$Order:Unpartitioned", {rk: 0})
        pipeline.zadd(key, {rk: T0 - rng.expovariate(1 / (20 * DAY))})
        pipeline.zadd("$DecayBase:Unpartitioned:due", {rk: 1.0})
        pipeline.zadd(f"{key}:cycles::86400@0", {rk: rng.paretovariate(3)})
        pipeline.zadd(f"{key}:pressure::{0.3:.17g}", {rk: T0 - rng.paretovariate(1) * DAY / 10})
    pipeline.sadd(f"{key}:cycles::shapes", "86400@0")
    pipeline.sadd(f"{key}:pressure::rates", f"{0.3:.17g}")
    pipeline.execute()
    stats: dict[str, int] = {}
    with round_trips() as trips:
        found = drive(top_by_decay_steps(Unpartitioned.query.filter(), "due", 10, stats=stats))
    assert (len(found), trips.count) == (10, 1)
    assert stats["visited"] < 2500
    every = drive(top_by_decay_steps(Unpartitioned.query.filter(), "due", 5000))
    assert [r.pk for r in found] == [r.pk for r in every[:10]]


def test_an_all_equal_store_is_not_read_whole(server: redis.Redis) -> None:
    class Alike(Model):
        name = KeyField()
        due = CyclicDecayField(cycles=[(DAILY, 0.5)], pressure_rate=0.3)

    for number in range(1000):
        Alike(name=f"{number:04}").save()
    stats: dict[str, int] = {}
    found = drive(top_by_decay_steps(Alike.query.filter(), "due", 5, stats=stats))
    assert [record.name for record in found] == ["0999", "0998", "0997", "0996", "0995"]
    assert stats["visited"] < 600


def test_slices_give_what_one_call_gives(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    from popoto.memory import composite

    rng = random.Random(2)
    with clock.frozen(T0) as still:
        for number in range(150):
            still.at = T0 + rng.random() * 9 * DAY
            Habit.create(name=f"h{number}", weight=rng.random()).strengthen_cycle("due", rng.random() * 3)
        still.at = T0 + 12.3 * DAY
        whole = [(h.name, h._decay_score) for h in Habit.query.top_by_decay(n=20)]
        monkeypatch.setattr(composite, "SLICE", 30)
        monkeypatch.setattr(composite, "CHUNKS", (8, 16))
        stats: dict[str, int] = {}
        found = drive(top_by_decay_steps(Habit.query.filter(), "due", 20, stats=stats))
    assert [(h.name, h._decay_score) for h in found] == whole
    assert stats["calls"] > 1


def test_expired_records_take_no_place(server: redis.Redis) -> None:
    for number in range(5):
        Habit.create(name=f"brief{number}", weight=9.0)
        server.pexpire(f"Habit:brief{number}", 1)
    Habit.create(name="lasting")
    time.sleep(0.01)
    assert [habit.name for habit in Habit.query.top_by_decay(n=2)] == ["lasting"]
