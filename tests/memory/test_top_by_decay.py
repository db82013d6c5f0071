"""top_by_decay: the same answer as scoring everything, without scoring everything."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto import DecimalField, Field, FloatField, IndexedField, KeyField, Model, QueryException, SortedField, redis_db
from popoto.memory import clock, ranking
from popoto.memory.decay import DecayingSortedField, base_number, decay_score
from popoto.memory.defaults import Defaults
from popoto.memory.ranking import score_command, top_by_decay_steps
from popoto.orm.drivers import adrive, drive, run
from popoto.orm.scripts import read_lua

NOW = 1_750_000_000.0
DAY = 86_400.0


class Ranked(Model):
    name = KeyField()
    agent = Field()
    topic = IndexedField()
    note = Field()
    importance = FloatField()
    price = DecimalField()
    rank = SortedField(type=float, default=0.0)
    relevance = DecayingSortedField(base_score_field="importance", partition_by="agent")


class RankedPlain(Model):
    name = KeyField()
    importance = FloatField()
    relevance = DecayingSortedField(decay_rate=0.5)


class RankedBase(Model):
    name = KeyField()
    topic = IndexedField()
    importance = FloatField()
    relevance = DecayingSortedField(base_score_field="importance")


class RankedTwice(Model):
    name = KeyField()
    first = DecayingSortedField()
    second = DecayingSortedField()


class NothingRanked(Model):
    name = KeyField()


def stored(records: list[Any]) -> list[Any]:
    """Save with the given times, in pipelines."""
    pipeline = redis_db.get_REDIS_DB().pipeline(transaction=False)
    for number, one in enumerate(records):
        one.save(pipeline=pipeline, skip_auto_now=True)
        if number % 2000 == 1999:
            pipeline.execute()
    pipeline.execute()
    return records


def top(builder: Any, *args: Any, stats: dict[str, int] | None = None, **options: Any) -> list[Any]:
    return drive(top_by_decay_steps(builder, *args, stats=stats, **options))


def best_of(scores: dict[str, float], n: int) -> list[str]:
    """The n best keys: by score, equal ones by key, both descending."""
    return sorted(scores, key=lambda key: (scores[key], key.encode()), reverse=True)[:n]


# -- the score ---------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_formula_to_the_digit(server: redis.Redis) -> None:
    stored([RankedBase(name=str(i), importance=1.0 + i / 7, relevance=NOW - 4**i * DAY) for i in range(5)])
    with clock.frozen(NOW):
        found = top(RankedBase.query.filter(), decay_rate=0.5)
    assert [one.name for one in found] == ["0", "1", "2", "3", "4"]
    assert [one._decay_score for one in found] == [(1.0 + i / 7) / 2**i for i in range(5)]


def test_the_field_s_own_rate_and_the_default_count_as_they_are_now(
    server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored([RankedPlain(name="a", relevance=NOW - 16 * DAY), RankedBase(name="a", relevance=NOW - 16 * DAY)])
    with clock.frozen(NOW):
        assert top(RankedPlain.query.filter())[0]._decay_score == 0.25
        assert top(RankedBase.query.filter())[0]._decay_score == pytest.approx(16**-0.1, rel=1e-15)
        monkeypatch.setattr(Defaults, "DECAY_RATE", 0.25)
        assert top(RankedBase.query.filter())[0]._decay_score == 0.5


def test_a_touched_record_ranks_higher_at_once(server: redis.Redis) -> None:
    old, new = stored([RankedPlain(name="old", relevance=NOW - 9 * DAY), RankedPlain(name="new", relevance=NOW - DAY)])
    with clock.frozen(NOW):
        assert RankedPlain.query.top_by_decay() == [new, old]
        old.touch("relevance")
        assert RankedPlain.query.top_by_decay() == [old, new]


def test_results_are_whole_instances(server: redis.Redis) -> None:
    stored([Ranked(name="a", agent="x", topic="t", note="hello", importance=0.5, relevance=NOW)])
    (one,) = Ranked.query.filter(agent="x").top_by_decay()
    assert (one.note, one.topic, one.importance, one.relevance) == ("hello", "t", 0.5, NOW)
    one.note = "changed"
    one.save(update_fields=["note"])


def test_scores_of_given_records_come_in_one_call_without_those_that_are_gone(server: redis.Redis, round_trips) -> None:
    stored([Ranked(name=str(i), agent=str(i % 3), importance=2.0, relevance=NOW - 16 * DAY) for i in range(9)])
    keys = [f"Ranked:{i}" for i in range(10)]
    run(score_command(Ranked, "relevance", keys))
    with round_trips() as trips:
        scores = run(score_command(Ranked, "relevance", keys, NOW, decay_rate=0.5))
    assert trips.count == 1
    assert scores == {f"Ranked:{i}": 0.5 for i in range(9)}
    assert run(score_command(Ranked, "relevance", [])) == {}


# -- errors ------------------------------------------------------------------------------------------------------------


def test_the_field_may_be_left_out_only_where_there_is_one(server: redis.Redis) -> None:
    with pytest.raises(QueryException, match="no DecayingSortedField"):
        NothingRanked.query.top_by_decay()
    with pytest.raises(QueryException, match="first, second"):
        RankedTwice.query.top_by_decay()
    assert RankedTwice.query.top_by_decay("second") == []


@pytest.mark.parametrize(("name", "reason"), [("nothing", "is no field"), ("importance", "is a FloatField")])
def test_a_field_that_does_not_decay_is_refused(server: redis.Redis, name: str, reason: str) -> None:
    with pytest.raises(QueryException, match=reason):
        RankedPlain.query.top_by_decay(name)


def test_a_missing_partition_filter_is_refused_by_name(server: redis.Redis) -> None:
    with pytest.raises(QueryException, match="agent"):
        Ranked.query.top_by_decay()
    with pytest.raises(QueryException, match="agent"):
        Ranked.query.filter(topic="t").top_by_decay()


def test_n_is_a_whole_number_and_none_at_all_below_one(server: redis.Redis) -> None:
    stored([RankedPlain(name="a", relevance=NOW)])
    assert RankedPlain.query.top_by_decay(n=0) == RankedPlain.query.top_by_decay(n=-3) == []
    for wrong in (None, 2.0, "3", True):
        with pytest.raises(TypeError, match="n="):
            RankedPlain.query.top_by_decay(n=wrong)


@pytest.mark.parametrize("rate", [math.nan, math.inf, "1", True, 10**400])
def test_a_rate_that_is_no_finite_number_is_refused(server: redis.Redis, rate: Any) -> None:
    with pytest.raises(QueryException, match="decay_rate"):
        RankedPlain.query.top_by_decay(decay_rate=rate)


def test_an_unknown_base_field_is_refused(server: redis.Redis) -> None:
    with pytest.raises(QueryException, match="importence"):
        RankedPlain.query.top_by_decay(base_score_field="importence")


def test_what_has_no_meaning_before_a_ranking_is_refused(server: redis.Redis) -> None:
    with pytest.raises(QueryException, match="order_by"):
        RankedPlain.query.filter().order_by("name").top_by_decay()
    with pytest.raises(QueryException, match="values"):
        RankedPlain.query.filter().values("name").top_by_decay()


# -- the oracle --------------------------------------------------------------------------------------------------------

AGES_S = [-1e6, 0.0, 100.0, 864.0, 900.0, 1e4, DAY, DAY + 1e-3, 5 * DAY, 5 * DAY, 400 * DAY]
BASES = [None, 0.0, 1.0, 1.0, 2.0, 0.5, 1e-9, -1.0, -1.0, -0.25, 1e300, math.inf, -math.inf]
BASES += [2.0 - i * 2.0**-52 for i in range(3, 6)]  # products of neighbours may round to one number
RATES = [None, 0.1, 0.5, 1.0, -1.0, 3.0, 0.0, 0, -0.5, 200.0, -200.0]

ages = st.one_of(st.sampled_from(AGES_S), st.floats(0, 1e8))
bases = st.one_of(st.sampled_from(BASES), st.floats(-10, 10))
plain_bases = st.one_of(st.sampled_from([1.0, 2.0]), st.floats(0, 1))
# at rates 1 and -1 old and strong ones tie with young and weak ones
powers_of_two = st.sampled_from([DAY, 2 * DAY, 4 * DAY, 8 * DAY])
Drawn = tuple[float, "float | None", str, str]  # age, base, agent, topic


def by_sign(drawn: tuple[float, float]) -> Drawn:
    """A filter by topic then leaves the negative ones only, while the walks meet all."""
    return (*drawn, "x", "t" if drawn[1] < 0 else "u")


records: st.SearchStrategy[list[Drawn]] = st.one_of(
    st.lists(st.tuples(ages, bases, st.sampled_from("xy"), st.sampled_from("tu")), max_size=40),
    st.lists(st.tuples(ages, plain_bases, st.just("x"), st.sampled_from("tu")), min_size=20, max_size=60),
    st.lists(
        st.tuples(powers_of_two, st.sampled_from([1.0, 2.0, 4.0, -1.0, -2.0]), st.just("x"), st.sampled_from("tu")),
        max_size=40,
    ),
    st.lists(st.tuples(powers_of_two, st.sampled_from([1.0, 2.0, -1.0, -2.0, -4.0])).map(by_sign), max_size=40),
)
changes = st.lists(
    st.tuples(st.sampled_from(["touch", "rescore", "move", "delete", "vanish"]), st.integers(0, 59), bases), max_size=6
)
FILTERS: list[dict[str, Any]] = [{}, {}, {"topic": "t"}, {"topic": "t"}]
FILTERS += [{"rank__gte": 3.0}, {"note": "odd"}, {"importance": 1.0}]


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_answer_is_that_of_scoring_everything(server: redis.Redis, data: st.DataObject) -> None:
    server.flushdb()
    drawn = data.draw(records, "records")
    saved = stored(
        [
            Ranked(
                name=f"{i:b}", agent=agent, topic=topic, importance=base, relevance=NOW - age,
                rank=float(i % 7), note="odd" if i % 2 else "even",
            )
            for i, (age, base, agent, topic) in enumerate(drawn)
        ]
    )  # fmt: skip
    with clock.frozen(NOW):
        for change, number, base in data.draw(changes, "changes"):
            if number < len(saved) and saved[number]._saved_key and server.exists(saved[number].pk):
                changed(server, saved[number], change, base)
    alive = [Ranked._hydrated(one.pk, raw) for one in saved if (raw := server.hgetall(one.pk))]

    rate = data.draw(st.sampled_from(RATES), "rate")
    override = data.draw(st.sampled_from([None, None, None, "", "rank", "price", "note"]), "base_score_field")
    filters = data.draw(st.sampled_from(FILTERS), "filters")
    n = data.draw(st.integers(1, len(saved) + 2), "n")
    limits = {
        "SLICE": data.draw(st.sampled_from([3, 7, 4000]), "slice"),
        "CHUNKS": data.draw(st.sampled_from([(1, 1), (1, 2), (2, 8), (64, 512)]), "chunks"),
        "GATHER": data.draw(st.sampled_from([0, 5, 4000]), "gather"),
        "TOP_MAX": data.draw(st.sampled_from([4000, 4000, 2]), "top_max"),
        "ROWS": data.draw(st.sampled_from([1000, 1]), "rows"),
    }
    candidates = [one for one in alive if one.agent == "x" and matches(one, filters)]
    scores = run(score_command(Ranked, "relevance", [one.pk for one in candidates], NOW, rate, override))
    for one in candidates:
        base = 1.0 if override == "" else base_number(getattr(one, override or "importance"))
        expected = decay_score(base, one.relevance, NOW, 0.1 if rate is None else rate)
        assert scores[one.pk] == pytest.approx(expected, rel=1e-12, abs=0)

    with pytest.MonkeyPatch.context() as patch, clock.frozen(NOW):
        for name, value in limits.items():
            patch.setattr(ranking, name, value)
        found = top(Ranked.query.filter(agent="x", **filters), "relevance", n, rate, override)
    assert [one.pk for one in found] == best_of(scores, n)
    assert [one._decay_score for one in found] == [scores[one.pk] for one in found]


def changed(server: redis.Redis, one: Ranked, change: str, base: float | None) -> None:
    if change == "touch":
        one.touch("relevance")
    elif change == "rescore":
        one.importance = base
        one.save(update_fields=["importance"])
    elif change == "move":
        one.agent = "x" if one.agent == "y" else "y"
        one.save(update_fields=["agent"])
    elif change == "delete":
        one.delete()
    else:
        server.delete(one.pk)  # by hand: its index entries stay


def matches(one: Ranked, filters: dict[str, Any]) -> bool:
    rank = filters.get("rank__gte", -math.inf)
    return one.rank >= rank and all(
        getattr(one, name) == value for name, value in filters.items() if not name.endswith("__gte")
    )


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_field_without_base_ranks_by_age_and_name(server: redis.Redis, data: st.DataObject) -> None:
    server.flushdb()
    drawn = data.draw(st.lists(ages, max_size=40))
    saved = stored([RankedPlain(name=f"{i:02d}", relevance=NOW - age) for i, age in enumerate(drawn)])
    rate = data.draw(st.sampled_from(RATES), "rate")
    n = data.draw(st.integers(1, len(saved) + 2), "n")
    scores = run(score_command(RankedPlain, "relevance", [one.pk for one in saved], NOW, rate))
    with pytest.MonkeyPatch.context() as patch, clock.frozen(NOW):
        patch.setattr(ranking, "CHUNKS", data.draw(st.sampled_from([(1, 1), (2, 4), (64, 512)]), "chunks"))
        patch.setattr(ranking, "SLICE", data.draw(st.sampled_from([5, 4000]), "slice"))
        assert [one.pk for one in top(RankedPlain.query.filter(), None, n, rate)] == best_of(scores, n)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "CHUNKS", (1, 1))


def test_products_that_round_to_one_number_are_a_tie(server: redis.Redis, one_by_one: None) -> None:
    more, less = 2.0 - 3 * 2.0**-52, 2.0 - 4 * 2.0**-52
    factor_of = {rate: decay_score(1.0, NOW, NOW, rate) for rate in (number / 1000 for number in range(100, 200))}
    rate = next(rate for rate, factor in factor_of.items() if more * factor == less * factor)
    for age, (name, base) in enumerate([("m", more), ("l", more), ("z", less)]):
        stored([RankedBase(name=name, importance=base, relevance=NOW - age)])  # all within the floor
    with clock.frozen(NOW):
        assert [one.name for one in RankedBase.query.top_by_decay(n=1, decay_rate=rate)] == ["z"]


def test_times_walked_upwards_do_not_end_at_a_tie_by_name(server: redis.Redis, one_by_one: None) -> None:
    stored([RankedBase(name=name, importance=1.0, relevance=NOW - 2 * DAY) for name in "abcz"])
    stored([RankedBase(name="m", importance=2.0, relevance=NOW - DAY)])
    with clock.frozen(NOW):
        assert [one.name for one in RankedBase.query.top_by_decay(n=1, decay_rate=-1.0)] == ["z"]


def test_old_negatives_are_found_where_the_filter_leaves_nothing_else(
    server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "CHUNKS", (1, 32))
    monkeypatch.setattr(ranking, "GATHER", 0)
    stored([RankedBase(name=f"p{i}", topic="u", importance=5.0, relevance=NOW - DAY) for i in range(20)])
    stored([RankedBase(name="x", topic="t", importance=-1.0, relevance=NOW - DAY)])
    stored([RankedBase(name="q", topic="t", importance=-2.0, relevance=NOW - 8 * DAY)])
    with clock.frozen(NOW):
        (one,) = RankedBase.query.filter(topic="t").top_by_decay(n=1, decay_rate=1.0)
    assert (one.name, one._decay_score) == ("q", -0.25)


names = st.text("ab", max_size=5)
few_scores = st.sampled_from([0.0, 1.0, 2.0, -1.0, math.inf])
scored_names = st.dictionaries(names, few_scores, max_size=30)


def in_lua(server: redis.Redis, body: str, *args: Any) -> Any:
    """Run a piece of Lua with the fragments that the ranking is made of."""
    fragments = [read_lua("popoto.memory", name) for name in ("lib_top", "lib_walk")]
    return server.eval("\n".join(["#!lua", *fragments, body]), 0, *args)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(offers=scored_names, n=st.integers(1, 12))
def test_the_best_are_kept_by_score_and_then_by_name(server: redis.Redis, offers: dict[str, float], n: int) -> None:
    body = """
    local top = top_of(tonumber(ARGV[1]))
    for i = 2, #ARGV, 2 do
      local score = score_number(ARGV[i])
      if top.enters(score, ARGV[i + 1]) then top.put(score, ARGV[i + 1]) end
    end
    local names = {}
    for i, item in ipairs(top.sorted()) do names[i] = item[2] end
    return names
    """
    kept = in_lua(server, body, n, *(part for name, score in offers.items() for part in (score, name)))
    best = sorted(offers.items(), key=lambda item: (item[1], item[0]), reverse=True)
    assert kept == [name.encode() for name, _ in best[:n]]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    before=scored_names.filter(bool), after=scored_names, gone=st.sets(names), ascending=st.booleans(),
    taken=st.integers(1, 20), step=st.integers(1, 5),
)  # fmt: skip
def test_a_walk_goes_on_at_its_place_whatever_came_or_went_meanwhile(
    server: redis.Redis, before: dict[str, float], after: dict[str, float], gone: set[str], ascending: bool, taken: int,
    step: int,
) -> None:  # fmt: skip
    server.delete("walked")
    server.zadd("walked", before)
    first = """
    local walk = walk_of('walked', ARGV[1] == '1', nil)
    walk.take(tonumber(ARGV[2]))
    return {walk.text, walk.member}
    """
    at = in_lua(server, first, int(ascending), taken)
    if not at:
        return  # walked to the end
    if after:
        server.zadd("walked", after)
    if gone:
        server.zrem("walked", *gone)
    rest = """
    local walk = walk_of('walked', ARGV[1] == '1', {ARGV[3], ARGV[4]})
    local out = {}
    while not walk.done do
      local left = walk.left
      local members = walk.take(tonumber(ARGV[2]))
      for i = 1, #members do out[#out + 1] = members[i] end
      if left - #members ~= walk.left then return 'left is wrong' end
    end
    return out
    """
    there = {name: score for name, score in {**before, **after}.items() if name not in gone}
    ordered = sorted((score, name.encode()) for name, score in there.items())
    place = (float(at[0]), at[1])
    expected = [item for item in ordered if item >= place] if ascending else [i for i in ordered[::-1] if i <= place]
    assert in_lua(server, rest, int(ascending), step, *at) == [name for _, name in expected]


# -- who takes part ----------------------------------------------------------------------------------------------------


def test_the_filters_decide_before_n_counts_and_the_limit_too(server: redis.Redis) -> None:
    stored([Ranked(name=f"{i}", agent="x", topic="t" if i == 0 else "u", relevance=NOW - i * DAY) for i in range(9)])
    with clock.frozen(NOW):
        found = Ranked.query.filter(agent="x", topic="u").top_by_decay(n=3)
        assert [one.name for one in found] == ["1", "2", "3"]
        assert [one.name for one in Ranked.query.filter(agent="x").limit(2).top_by_decay(n=3)] == ["0", "1"]


def test_a_filter_that_only_python_can_decide_takes_part(server: redis.Redis) -> None:
    stored([RankedBase(name=f"{i}", topic="t", importance=float(i % 2), relevance=NOW - i * DAY) for i in range(9)])
    with clock.frozen(NOW):
        found = RankedBase.query.filter(importance=1.0).top_by_decay(n=3)
    assert [one.name for one in found] == ["1", "3", "5"]


def test_records_that_expired_never_appear_and_the_next_ones_take_their_place(server: redis.Redis) -> None:
    saved = stored([RankedBase(name=f"{i}", importance=1.0, relevance=NOW - i * DAY) for i in range(5)])
    for one in saved[:2]:
        server.pexpire(one.pk, 1)
    while server.exists(*(one.pk for one in saved[:2])):
        pass
    with clock.frozen(NOW):
        assert [one.name for one in RankedBase.query.top_by_decay(n=2)] == ["2", "3"]


def test_other_partitions_never_appear(server: redis.Redis) -> None:
    stored([Ranked(name=f"{i}", agent=agent, relevance=NOW) for i, agent in enumerate(["x", "y", "None", "a:b-*"])])
    for number, agent in enumerate(["x", "y", "None", "a:b-*"]):
        assert [one.name for one in Ranked.query.filter(agent=agent).top_by_decay()] == [str(number)]
    assert Ranked.query.filter(agent=None).top_by_decay() == []


def test_a_corrupt_record_is_left_out(server: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    stored([RankedBase(name=f"{i}", importance=1.0, relevance=NOW - i * DAY) for i in range(3)])
    server.hset("RankedBase:0", "importance", b"\xc1")
    assert [one.name for one in RankedBase.query.top_by_decay()] == ["1", "2"]
    assert "RankedBase:0" in caplog.text


def test_a_store_without_base_scores_is_ranked_by_what_the_records_hold(server: redis.Redis) -> None:
    stored([RankedBase(name=f"{i:02d}", importance=float(i % 5), relevance=NOW - i * DAY) for i in range(30)])
    with clock.frozen(NOW):
        wanted = [one.pk for one in RankedBase.query.top_by_decay(n=7)]
        server.zrem("$DecayBase:RankedBase:relevance", wanted[0])
        assert [one.pk for one in RankedBase.query.top_by_decay(n=7)] == wanted
        server.delete("$DecayBase:RankedBase:relevance")
        assert [one.pk for one in RankedBase.query.top_by_decay(n=7)] == wanted


# -- what it costs -----------------------------------------------------------------------------------------------------


def visited(builder: Any, **options: Any) -> int:
    stats: dict[str, int] = {}
    with clock.frozen(NOW):
        top(builder, stats=stats, **options)
    return stats["visited"]


def test_one_round_trip(server: redis.Redis, round_trips) -> None:
    topics = ["u", *"tttttttt"] * 33
    stored([RankedBase(name=f"{i}", topic=topic, importance=1.0, relevance=NOW - i) for i, topic in enumerate(topics)])
    RankedBase.query.top_by_decay()
    for builder in (RankedBase.query.filter(), RankedBase.query.filter(topic="t"), RankedBase.query.filter(topic="u")):
        for n in (1, 10, 300):
            with round_trips() as trips:
                assert len(builder.top_by_decay(n=n)) > 0
            assert trips.count == 1


def test_visits_grow_no_faster_than_the_square_root_of_the_records(server: redis.Redis) -> None:
    visits = []
    for count in (1000, 16_000):
        server.flushdb()
        rng = random.Random(count)
        # log-uniform ages give the decay factor as much weight as the base: the two compete
        saved = stored(
            [
                RankedBase(
                    name=f"{i}", topic=rng.choice("tuvw"), importance=rng.random(),
                    relevance=NOW - DAY * math.exp(rng.uniform(0, 9)),
                )
                for i in range(count)
            ]
        )  # fmt: skip
        scores = run(score_command(RankedBase, "relevance", [one.pk for one in saved], NOW))
        with clock.frozen(NOW):
            assert [one.pk for one in RankedBase.query.top_by_decay()] == best_of(scores, 10)
        visits.append(visited(RankedBase.query.filter()))
        assert visited(RankedBase.query.filter(topic="t")) < count / 2
    assert visits[1] <= 4 * visits[0] + 512
    assert visits[1] < 2000


@pytest.mark.parametrize("rate", [None, 0.0, -1.0])
def test_an_all_equal_store_is_not_read_whole(server: redis.Redis, rate: float | None) -> None:
    stored([RankedBase(name=f"{i:04d}", importance=0.5, relevance=NOW - DAY) for i in range(3000)])
    assert visited(RankedBase.query.filter(), decay_rate=rate) < 600
    assert visited(RankedBase.query.filter(), decay_rate=rate, base_score_field="") < 600
    with clock.frozen(NOW):
        assert [one.name for one in RankedBase.query.top_by_decay(n=2, decay_rate=rate)] == ["2999", "2998"]


@pytest.mark.parametrize("base", [1.0, 0.0, -1.0, None])
def test_a_store_saved_within_the_floor_is_not_read_whole(server: redis.Redis, base: float | None) -> None:
    rng = random.Random(7)
    stored([RankedBase(name=f"{i:04d}", importance=base, relevance=NOW - rng.random() * 800) for i in range(3000)])
    assert visited(RankedBase.query.filter()) < 600
    with clock.frozen(NOW):
        assert [one.name for one in RankedBase.query.top_by_decay(n=2)] == ["2999", "2998"]


def test_random_bases_within_the_floor_are_ranked_by_base(server: redis.Redis) -> None:
    rng = random.Random(8)
    stored([RankedBase(name=f"{i}", importance=rng.random(), relevance=NOW - rng.random() * 800) for i in range(3000)])
    assert visited(RankedBase.query.filter()) < 600


def test_no_call_visits_more_than_a_slice(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "SLICE", 100)
    stored([RankedPlain(name=f"{i}", importance=float(i % 11), relevance=NOW - i * DAY) for i in range(450)])
    stats: dict[str, int] = {}
    with clock.frozen(NOW):
        found = top(RankedPlain.query.filter(), base_score_field="importance", stats=stats)  # read from the records
    assert found[0].name == "10"
    assert stats == {"visited": 450, "calls": 5}


def test_changes_between_slices_leave_a_right_score(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "SLICE", 20)
    saved = stored([RankedPlain(name=f"{i:02d}", importance=1.0, relevance=NOW - (i + 1) * DAY) for i in range(60)])
    with clock.frozen(NOW):
        steps = top_by_decay_steps(RankedPlain.query.filter(), base_score_field="importance", n=5)
        command = next(steps)
        reply = run(command)
        saved[0].importance = 0.5
        saved[0].save(update_fields=["importance"])  # it was scored with 1.0
        saved[1].delete()
        with pytest.raises(StopIteration) as end:
            while True:
                reply = run(steps.send(reply))
        found = end.value.value
    assert [(one.name, one._decay_score) for one in found] == [
        ("02", 3**-0.5), ("03", 0.5), ("00", 0.5), ("04", 5**-0.5),
    ]  # fmt: skip


async def _awaited(builder: Any) -> list[Any]:
    return await adrive(top_by_decay_steps(builder))


def test_awaited_it_is_the_same(server: redis.Redis) -> None:
    import asyncio

    stored([RankedPlain(name=f"{i}", relevance=NOW - i * DAY) for i in range(5)])
    with clock.frozen(NOW):
        assert asyncio.run(_awaited(RankedPlain.query.filter())) == RankedPlain.query.top_by_decay()
