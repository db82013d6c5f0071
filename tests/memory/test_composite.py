"""composite_score: exact against brute force for every mix of signals, one round trip, few visits."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto import ConfidenceField, DecayingSortedField, Field, KeyField, Model, Q, QueryException, SortedField
from popoto.memory import composite
from popoto.memory.composite import composite_of, composite_steps
from popoto.memory.decay import decay_score
from popoto.orm.drivers import drive
from popoto.testing import frozen_time

NOW = 1_800_000_000.0


class RankedNote(Model):
    name = KeyField()
    agent = KeyField()
    importance = Field(type=float, default=1.0)
    relevance = DecayingSortedField(base_score_field="importance")
    certainty = ConfidenceField()
    rank = SortedField(type=float, default=0.0)
    per_agent = SortedField(type=float, default=0.0, partition_by="agent")
    kind = Field(type=list, null=True)


SIGNALS = ("relevance", "certainty", "rank", "per_agent")


def make(count, rng, agents=("a",), ties=False):
    numbers = [0.0, 1.0, 2.0] if ties else [rng.uniform(-3, 5) for _ in range(50)]
    notes = []
    for i in range(count):
        note = RankedNote(
            name=f"n{i:04}",
            agent=rng.choice(agents),
            importance=rng.choice(numbers),
            relevance=NOW - rng.choice([0, 10, 86400, 86400 * rng.uniform(0, 300)]),
            certainty=rng.choice([0.5, 0.5, 0.5, rng.random()]),
            rank=rng.choice(numbers),
            per_agent=rng.choice(numbers),
        )
        note.save(skip_auto_now=True)
        notes.append(note)
    return notes


def part_of(note, signal):
    if signal == "relevance":
        return decay_score(note.importance, note.relevance, NOW, RankedNote.relevance.decay_rate)
    return getattr(note, signal)


def brute(notes, indexes, aggregate="SUM", boosts=None, least=None, keep=lambda note: True):
    scored = []
    for note in notes:
        parts = [weight * part_of(note, signal) for signal, weight in indexes.items()]
        boost = (boosts or {}).get(note.pk)
        if boosts:
            parts.append(boost if boost is not None else (math.inf if aggregate == "MIN" else 0.0))
        score = {"SUM": sum, "MIN": min, "MAX": max}[aggregate](parts)
        if keep(note) and (least is None or score >= least):
            scored.append((score, note.pk))
    return sorted(scored, reverse=True)


def agree(found, expected):
    """Same records in the same order; where brute force has scores that differ in the last bits only, either order."""
    scores = [item._composite_score for item in found]
    assert scores == pytest.approx([score for score, _ in expected], rel=1e-12, abs=1e-12)
    wanted = {pk for _, pk in expected}
    for item in found:
        assert item.pk in wanted or any(math.isclose(item._composite_score, s, rel_tol=1e-12) for s, _ in expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    weights=st.dictionaries(st.sampled_from(SIGNALS), st.sampled_from([-1.0, 0.0, 0.3, 1.0, 2.5]), min_size=1),
    aggregate=st.sampled_from(["SUM", "MIN", "MAX"]),
    limit=st.integers(1, 12),
    ties=st.booleans(),
    boosted=st.booleans(),
    least=st.sampled_from([None, None, 0.5, -1.0]),
    small=st.booleans(),
)
def test_the_ranking_is_that_of_scoring_everything(
    server, seed, weights, aggregate, limit, ties, boosted, least, small
):
    server.flushall()
    rng = random.Random(seed)
    with frozen_time(NOW):
        notes = make(60, rng, agents=("a", "b"), ties=ties)
        boosts = {note.pk: rng.uniform(0, 2) for note in rng.sample(notes, 5)} if boosted else None
        mine = [note for note in notes if note.agent == "a"]
        old = composite.SLICE, composite.CHUNKS, composite.GATHER
        if small:
            composite.SLICE, composite.CHUNKS, composite.GATHER = 7, (2, 4), 0
        try:
            found = RankedNote.query.filter(agent="a").composite_score(
                weights, limit=limit, aggregate=aggregate, co_occurrence_boost=boosts, min_score=least
            )
        finally:
            composite.SLICE, composite.CHUNKS, composite.GATHER = old
    expected = brute(mine, weights, aggregate, boosts, least)[:limit]
    agree(found, expected)
    if ties and not {"relevance", "certainty"} & set(weights):
        assert [item.pk for item in found] == [pk for _, pk in expected]


def test_equal_scores_go_by_descending_key(server):
    for name in "bdac":
        RankedNote.create(name=name, agent="x", rank=1.0)
    assert [n.name for n in RankedNote.query.composite_score({"rank": 1.0}, limit=3)] == ["d", "c", "b"]


def test_one_round_trip_with_four_signals_and_a_boost(server, round_trips):
    notes = make(40, random.Random(1))
    boosts = {notes[3].pk: 2.0}
    with round_trips() as trips:
        found = RankedNote.query.filter(agent="a").composite_score(
            dict.fromkeys(SIGNALS, 0.25), co_occurrence_boost=boosts, limit=10
        )
    assert len(found) == 10
    assert trips.count == 1


def test_a_record_of_another_partition_never_appears(server):
    RankedNote.create(name="mine", agent="a", rank=1.0)
    RankedNote.create(name="theirs", agent="b", rank=9.0)
    other = RankedNote.create(name="boosted", agent="b", rank=1.0)
    found = RankedNote.query.filter(agent="a").composite_score({"rank": 1.0}, co_occurrence_boost={other.pk: 99.0})
    assert [n.name for n in found] == ["mine"]


def test_a_boost_makes_a_candidate(server):
    class Plain(Model):
        name = KeyField()
        rank = SortedField(type=float)

    one = Plain.create(name="one", rank=1.0)
    two = Plain.create(name="two", rank=2.0)
    found = Plain.query.composite_score({"rank": 1.0}, co_occurrence_boost={one.pk: 5.0, "Plain:gone": 50.0})
    assert [(n.name, n._composite_score) for n in found] == [("one", 6.0), ("two", 2.0)]
    assert two in found


def test_temperature_divides_what_is_shown_and_min_score_looks_at_the_raw_score(server):
    RankedNote.create(name="low", agent="a", rank=1.0)
    RankedNote.create(name="high", agent="a", rank=4.0)
    found = RankedNote.query.composite_score({"rank": 1.0}, temperature=0.5, min_score=2.0)
    assert [(n.name, n._composite_score) for n in found] == [("high", 8.0)]


def test_post_filter_never_starves_the_result(server):
    for i in range(200):
        RankedNote.create(name=f"n{i:03}", agent="a", rank=float(i))
    asked = []

    def every_ninth(key, score):
        asked.append((key, score))
        return int(key.split(":")[2][1:]) % 9 == 0

    found = RankedNote.query.composite_score({"rank": 1.0}, limit=15, post_filter=every_ninth, temperature=2.0)
    assert [n.name for n in found] == [f"n{i:03}" for i in range(198, 198 - 9 * 15, -9)]
    assert asked[0] == ("RankedNote:a:n199", 99.5)
    assert len(asked) == len(set(asked))


def test_filters_that_python_decides_restrict_the_candidates(server):
    for i in range(30):
        RankedNote.create(name=f"n{i:02}", agent="a", rank=float(i), kind=["even"] if i % 2 == 0 else ["odd"])
    found = RankedNote.query.filter(kind=["even"]).composite_score({"rank": 1.0}, limit=3)
    assert [n.name for n in found] == ["n28", "n26", "n24"]


def test_more_than_the_server_ranks_are_ranked_all_the_same(server, monkeypatch):
    monkeypatch.setattr(composite, "TOP_MAX", 5)
    notes = make(30, random.Random(5))
    with frozen_time(NOW):
        found = RankedNote.query.composite_score({"rank": 1.0, "relevance": 1.0}, limit=20)
    agree(found, brute(notes, {"rank": 1.0, "relevance": 1.0})[:20])


def test_an_expired_record_is_no_candidate(server):
    gone = RankedNote.create(name="gone", agent="a", rank=9.0)
    RankedNote.create(name="here", agent="a", rank=1.0)
    server.pexpire(gone.pk, 1)
    while server.exists(gone.pk):
        pass
    assert [n.name for n in RankedNote.query.composite_score({"rank": 1.0})] == ["here"]


def test_each_part_is_explained(server):
    with frozen_time(NOW):
        note = RankedNote(name="a", agent="a", importance=2.0, certainty=0.7, rank=3.0, relevance=NOW - 864000)
        note.save(skip_auto_now=True)
        (found,) = RankedNote.query.composite_score(
            {"relevance": 0.5, "certainty": 2.0}, co_occurrence_boost={"RankedNote:b:b": 1.0}, explain=True
        )
    decayed = decay_score(2.0, NOW - 864000, NOW, RankedNote.relevance.decay_rate)
    assert found._score_parts == {
        "relevance": pytest.approx(0.5 * decayed),
        "certainty": pytest.approx(1.4),
        "co_occurrence_boost": None,
    }
    assert sum(part or 0 for part in found._score_parts.values()) == pytest.approx(found._composite_score)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"indexes": {}}, "expected a dict"),
        ({"indexes": {"nope": 1.0}}, "no such field"),
        ({"indexes": {"importance": 1.0}}, "keeps no order"),
        ({"indexes": {"priority": 1.0}}, "WriteFilterMixin"),
        ({"indexes": {"access_count": 1.0}}, "AccessTrackerMixin"),
        ({"indexes": {"rank": "1"}}, "weight"),
        ({"indexes": {"rank": math.nan}}, "weight"),
        ({"indexes": {"rank": 1.0}, "aggregate": "AVG"}, "SUM, MIN, MAX"),
        ({"indexes": {"rank": 1.0}, "temperature": 0}, "above 0"),
        ({"indexes": {"rank": 1.0}, "min_score": "x"}, "min_score"),
        ({"indexes": {"rank": 1.0}, "post_filter": 3}, "post_filter"),
        ({"indexes": {"rank": 1.0}, "co_occurrence_boost": {"k": "x"}}, "co_occurrence_boost"),
        ({"indexes": {"per_agent": 1.0}}, "partitioned by agent"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_gets_a_sentence(server, arguments, says):
    with pytest.raises(QueryException, match=says):
        RankedNote.query.composite_score(**arguments)


def test_limits_of_zero_and_below_give_nothing(server):
    RankedNote.create(name="a", agent="a")
    assert RankedNote.query.composite_score({"rank": 1.0}, limit=0) == []
    assert RankedNote.query.composite_score({"rank": 1.0}, limit=-1) == []
    with pytest.raises(TypeError, match="whole number"):
        RankedNote.query.composite_score({"rank": 1.0}, limit=None)


def test_the_walk_stops_early_also_where_all_are_equal(server):
    for i in range(1500):
        RankedNote.create(name=f"n{i:04}", agent="a", rank=1.0, pipeline=None)
    stats: dict[str, int] = {}
    with frozen_time(NOW):
        drive(
            composite_steps(composite_of(RankedNote.query.filter(), {"rank": 1.0, "certainty": 1.0}), 10, stats=stats)
        )
    assert stats["visited"] <= 300
    assert stats["calls"] == 1


def test_why_not_says_what_kept_a_record_out(server):
    for i in range(5):
        RankedNote.create(name=f"n{i}", agent="a" if i < 4 else "b", rank=float(i))
    query = RankedNote.query.filter(agent="a")
    out = query.why_not("RankedNote:a:n1", {"rank": 1.0}, limit=2)
    assert (out.rank, out.score, out.last_score, out.missing, out.returned) == (3, 1.0, 2.0, 1.0, False)
    assert "number 3" in str(out) and "scores 2" in str(out)
    inside = query.why_not("RankedNote:a:n3", {"rank": 1.0}, limit=2)
    assert (inside.returned, inside.rank) == (True, 1)
    assert "among the results" in str(inside)
    other = query.why_not("RankedNote:b:n4", {"rank": 1.0})
    assert other.refused_by == ("agent='a'",)
    low = query.why_not("RankedNote:a:n1", {"rank": 1.0}, min_score=1.5)
    assert (low.below_minimum, low.missing) == (True, 0.5)
    refused = query.why_not("RankedNote:a:n3", {"rank": 1.0}, post_filter=lambda key, score: score < 2)
    assert refused.post_filtered and "post_filter" in str(refused)
    assert not query.why_not("RankedNote:a:nope", {"rank": 1.0}).stored


def test_the_partition_may_be_named_by_a_condition_as_well(server):
    for agent in "ab":
        RankedNote.create(name="n", agent=agent, per_agent=1.0, rank=2.0)
    for query in (RankedNote.query.filter(Q(agent="a")), RankedNote.query.filter(RankedNote.agent == "a")):
        assert [n.agent for n in query.composite_score({"per_agent": 1.0})] == ["a"]
        assert query.why_not("RankedNote:a:n", {"per_agent": 1.0}).returned


def test_why_not_names_the_condition_that_refuses(server):
    RankedNote.create(name="n", agent="a", rank=1.0)
    out = RankedNote.query.filter(~Q(agent="a")).why_not("RankedNote:a:n", {"rank": 1.0})
    assert (out.refused_by, out.returned) == ((repr(~Q(agent="a")),), False)


def test_why_not_names_a_tie_that_the_key_decides(server):
    for name in "abc":
        RankedNote.create(name=name, agent="a", rank=1.0)
    out = RankedNote.query.why_not("RankedNote:a:a", {"rank": 1.0}, limit=2)
    assert (out.returned, out.missing, out.rank) == (False, 0.0, 3)
    assert "by its key" in str(out)


def test_why_not_asks_for_a_record(server):
    for nothing in (None, ""):
        with pytest.raises(ValueError, match="expected an instance, a Redis key"):
            RankedNote.query.why_not(nothing, {"rank": 1.0})


@pytest.mark.parametrize("given", [[("RankedNote:a:a", 1.0)], "RankedNote:a:a", 1], ids=["pairs", "key", "number"])
def test_boosts_that_are_no_dict_are_refused(server, given):
    for name in ("co_occurrence_boost", "similarity_boost"):
        with pytest.raises(QueryException, match=f"composite_score\\({name}=.*expected a dict"):
            RankedNote.query.composite_score({"rank": 1.0}, **{name: given})


async def _both(query):
    return await query.async_composite_score({"rank": 1.0}, limit=2)


def test_the_async_twin_ranks_alike(server):
    import asyncio

    for i in range(5):
        RankedNote.create(name=f"n{i}", agent="a", rank=float(i))
    found = asyncio.run(_both(RankedNote.query))
    assert [n.name for n in found] == ["n4", "n3"]
