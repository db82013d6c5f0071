"""A ranking stages the reads of what it returns in the call that ranks: exactly one a record, and no call more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from popoto import (
    AccessTrackerMixin,
    ConfidenceField,
    CyclicDecayField,
    DecayingSortedField,
    Field,
    IndexedField,
    KeyField,
    Model,
    QueryException,
    SortedField,
    WriteFilterMixin,
    redis_db,
)
from popoto.memory import clock, composite, ranking
from popoto.orm.scripts import Script
from tests.faults.proxy import cutting_proxy
from tests.memory.traces import stored

T0 = 1_700_000_000.0


class StagedFact(AccessTrackerMixin, WriteFilterMixin, Model):
    name = KeyField()
    agent = IndexedField(default="a")
    text = Field(default="")
    worth = SortedField()
    relevance = DecayingSortedField(base_score_field="worth")
    swing = CyclicDecayField(cycles=[(86_400, 1.0)], pressure_rate=0.1)
    certainty = ConfidenceField()

    def compute_filter_score(self) -> float:
        return 0.2 + self.worth / 100


@pytest.fixture(autouse=True)
def frozen() -> Iterator[clock.FrozenClock]:
    with clock.frozen(T0) as still:
        yield still


@pytest.fixture
def facts(server: redis.Redis) -> redis.Redis:
    rng = random.Random(4)
    for number in range(60):
        fact = StagedFact(name=f"{number:02}", agent="ab"[number % 2], worth=rng.uniform(1, 80))
        fact.relevance, fact.swing = (T0 - rng.uniform(0, 30 * 86_400) for _ in range(2))
        fact.save(skip_auto_now=True)
    return server


def staged(server: redis.Redis) -> dict[str, int]:
    """Record key -> how many reads are staged."""
    prefix = "$AT:StagedFact:staged:"
    return {key.decode().removeprefix(prefix): server.llen(key) for key in server.keys(prefix + "*")}


FOUR = {"relevance": 0.4, "certainty": 0.3, "access_count": 0.2, "priority": 0.1}
BOOST = {"StagedFact:07": 3.0, "StagedFact:gone": 9.0}
RANKINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "decay": ("top_by_decay", {"field_name": "relevance", "n": 5}),
    "cyclic": ("top_by_decay", {"field_name": "swing", "n": 5}),
    "composite": ("composite_score", {"indexes": FOUR, "co_occurrence_boost": BOOST, "limit": 5}),
}


def called(query: Any, name: str, options: dict[str, Any], twin: bool) -> list[Any]:
    if twin:
        return asyncio.run(getattr(query, f"async_{name}")(**options))
    return getattr(query, name)(**options)


@pytest.mark.parametrize("twin", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("name", "options"), RANKINGS.values(), ids=RANKINGS.keys())
def test_a_ranking_of_tracked_records_is_one_round_trip(
    facts: redis.Redis, round_trips: Any, name: str, options: dict[str, Any], twin: bool
) -> None:
    plain = called(StagedFact.query.filter(agent="b").no_track(), name, options, twin)
    assert staged(facts) == {}
    with round_trips() as trips:
        found = called(StagedFact.query.filter(agent="b"), name, options, twin)
    assert twin or trips.count == 1  # what is counted is the sync client
    assert found == plain and len(found) == 5
    assert staged(facts) == {record.pk: 1 for record in found}


@pytest.mark.parametrize(("name", "options"), RANKINGS.values(), ids=RANKINGS.keys())
def test_a_walk_in_slices_stages_with_the_last_one(
    facts: redis.Redis, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any]
) -> None:
    for module in (composite, ranking):
        monkeypatch.setattr(module, "SLICE", 7)
        monkeypatch.setattr(module, "CHUNKS", (2, 4))
        monkeypatch.setattr(module, "GATHER", 0)
    found = called(StagedFact.query, name, {**options, "limit" if "indexes" in options else "n": 20}, False)
    assert len(found) == 20
    assert staged(facts) == {record.pk: 1 for record in found}


@pytest.mark.parametrize(
    "find",
    [
        lambda: StagedFact.query.composite_score(
            {"worth": 1}, limit=3, post_filter=lambda key, _: key > "StagedFact:3"
        ),
        lambda: StagedFact.query.composite_score({"worth": 1}, limit=3, explain=True),
        lambda: StagedFact.query.filter(text__isnull=False).composite_score({"worth": 1}, limit=3),
        lambda: StagedFact.query.limit(3).composite_score({"worth": 1}, limit=5000),
        lambda: StagedFact.query.limit(3).top_by_decay("relevance", n=9),
        lambda: StagedFact.query.limit(3).top_by_decay("relevance", n=5000),
        lambda: StagedFact.query.top_by_decay("relevance", n=3, base_score_field="certainty"),
    ],
    ids=["post_filter", "explain", "python filter", "more than ranked", "limit", "limit of many", "other base"],
)
def test_whatever_the_way_one_read_is_staged_of_each_result(facts: redis.Redis, find: Callable[[], list[Any]]) -> None:
    found = find()
    assert len(found) == 3
    assert staged(facts) == {record.pk: 1 for record in found}


def test_nothing_found_stages_nothing(facts: redis.Redis) -> None:
    assert StagedFact.query.filter(agent="nobody").top_by_decay("relevance") == []
    assert StagedFact.query.composite_score({"worth": 1}, min_score=1000) == []
    assert StagedFact.query.top_by_decay("relevance", n=0) == []
    assert staged(facts) == {}


def test_a_repeat_after_a_cut_reply_stages_once(facts: redis.Redis, shared_server: Any) -> None:
    for script in Script._all:
        facts.script_load(script.source)
    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        proxy.cut_replies(times=2)
        found = StagedFact.query.top_by_decay("relevance", n=4)
        assert proxy.cuts == 2
        redis_db.configure_url(shared_server.url)
    assert staged(facts) == {record.pk: 1 for record in found} and len(found) == 4


def test_a_foreign_key_in_place_of_an_index_is_named_as_for_any_read(facts: redis.Redis) -> None:
    facts.delete("$DecayingSortF:StagedFact:relevance")
    facts.set("$DecayingSortF:StagedFact:relevance", "foreign")
    before = stored(facts)
    said = []
    for query in (StagedFact.query, StagedFact.query.filter().no_track()):
        with pytest.raises(QueryException) as refused:
            query.top_by_decay("relevance")
        said.append(str(refused.value))
    assert said[0] == said[1] and "$DecayingSortF:StagedFact:relevance" in said[0]
    assert stored(facts) == before


def test_a_foreign_key_in_place_of_the_staged_reads_does_not_spoil_a_ranking(facts: redis.Redis) -> None:
    best = StagedFact.query.filter().no_track().composite_score({"worth": 1}, limit=2)
    facts.set(f"$AT:StagedFact:staged:{best[0].pk}", "foreign")
    assert StagedFact.query.composite_score({"worth": 1}, limit=2) == best
    assert facts.llen(f"$AT:StagedFact:staged:{best[1].pk}") == 1


def test_what_is_no_number_of_records_is_refused_as_before(facts: redis.Redis) -> None:
    wrong: Any
    for wrong in (None, "3", 2.0):
        with pytest.raises(TypeError, match="expected a whole number"):
            StagedFact.query.top_by_decay("relevance", n=wrong)
    assert staged(facts) == {}
