"""fuse: reciprocal rank fusion of ranked lists, filters respected, never starved."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from popoto import BM25Field, Field, IndexedField, KeyField, Model, QueryException
from popoto.memory.fusion import reciprocal_ranks


class Fused(Model):
    name = KeyField()
    who = IndexedField()
    text = Field(max_length=None)
    words = BM25Field("text")


def key(name: str) -> str:
    return f"Fused:{name}"


def ranked(names: str) -> list[tuple[str, float]]:
    return [(key(name), 0.0) for name in names]


def names_of(found: list[Any]) -> str:
    return "".join(record.name for record in found)


@pytest.fixture
def five(server: redis.Redis) -> list[Fused]:
    return [Fused.create(name=name, who="anna" if name in "ace" else "ben", text=f"word{name}") for name in "abcde"]


@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=12), min_size=1, max_size=4),
    st.sampled_from([0, 1, 60, 0.5]),
)
def test_scores_are_the_sum_of_reciprocal_places_of_each_occurrence(lists: list[list[str]], k: float) -> None:
    expected: dict[str, float] = {}
    for names in lists:
        for place, name in enumerate(names, start=1):
            expected[name] = expected.get(name, 0.0) + 1 / (k + place)
    found = reciprocal_ranks({f"list{i}": names for i, names in enumerate(lists)}, k)
    assert found == expected
    assert list(found.items()) == sorted(expected.items(), key=lambda pair: -pair[1])


def test_records_come_in_the_order_of_their_fused_scores_which_they_carry(five: list[Fused]) -> None:
    found = Fused.query.fuse(words=ranked("abc"), vectors=ranked("cb"))
    assert names_of(found) == "cba"
    assert [record._rrf_score for record in found] == [1 / 63 + 1 / 61, 1 / 62 + 1 / 62, 1 / 61]


def test_equal_scores_keep_the_order_in_which_they_are_met(five: list[Fused]) -> None:
    assert names_of(Fused.query.fuse(one=ranked("ae"), two=ranked("db"))) == "adeb"


def test_keys_bytes_instances_and_pairs_name_the_same_record(five: list[Fused]) -> None:
    a = five[0]
    lists: dict[str, Any] = {"p": [(a, 1.0)], "b": [(b"Fused:a", 1.0)], "i": [a], "keys": [key("a")], "none": None}
    found = Fused.query.fuse(**lists)
    assert names_of(found) == "a"
    assert found[0]._rrf_score == pytest.approx(4 / 61)


def test_filters_and_post_filter_choose_before_the_limit(five: list[Fused]) -> None:
    everyone = ranked("bdace")
    assert names_of(Fused.query.filter(who="anna").fuse(limit=2, words=everyone)) == "ac"
    seen: list[tuple[str, float]] = []

    def odd(redis_key: str, score: float) -> bool:
        seen.append((redis_key, score))
        return redis_key[-1] in "ae"

    assert names_of(Fused.query.fuse(limit=2, post_filter=odd, words=everyone)) == "ae"
    assert seen[0] == (key("b"), 1 / 61)


def test_a_record_that_is_gone_takes_no_place(five: list[Fused]) -> None:
    five[0].delete()
    assert names_of(Fused.query.fuse(limit=2, words=ranked("axbc"))) == "bc"


def test_a_key_of_another_model_is_no_result(five: list[Fused], server: redis.Redis) -> None:
    server.hset("Other:a", "name", b"\xa1a")
    assert names_of(Fused.query.fuse(words=[("Other:a", 1.0), *ranked("b")])) == "b"


def test_fusing_takes_one_round_trip(five: list[Fused], round_trips: Any) -> None:
    Fused.query.fuse(words=ranked("ab"))
    with round_trips() as trips:
        assert names_of(Fused.query.filter(who="anna").fuse(words=ranked("abc"), more=ranked("ca"))) == "ac"
    assert trips.count == 1


def test_results_of_searches_fuse_as_they_are(five: list[Fused]) -> None:
    by_words = BM25Field.search(Fused, "words", "wordb worda")
    assert names_of(Fused.query.fuse(words=by_words, again=Fused.query.keyword_search("worda"))) == "ab"


def test_what_asks_for_nothing_gets_nothing(five: list[Fused]) -> None:
    assert Fused.query.fuse(words=[], more=None) == []
    for limit in (0, -1):
        assert Fused.query.fuse(limit=limit, words=ranked("ab")) == []
    assert names_of(Fused.query.fuse(k=0, words=ranked("ab"))) == "ab"


@pytest.mark.parametrize(
    "arguments,says",
    [
        ({}, "at least one ranked list"),
        ({"k": -1, "words": []}, r"k=-1.*from 0 on"),
        ({"k": float("nan"), "words": []}, "from 0 on"),
        ({"words": "Fused:a"}, r"list of \(redis_key, score\)"),
        ({"words": {"Fused:a": 1.0}}, r"list of \(redis_key, score\)"),
        ({"words": [3]}, "got 3"),
        ({"words": [Fused(name="unsaved")]}, "saved instance"),
        ({"words": [], "post_filter": 3}, "expected a function"),
    ],
    ids=["nothing", "negative", "nan", "text", "dict", "number", "unsaved", "post-filter"],
)
def test_a_mistake_gets_a_sentence(server: redis.Redis, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(QueryException, match=says):
        Fused.query.fuse(**arguments)


def test_the_async_twin_gives_the_same(five: list[Fused]) -> None:
    async def both() -> list[str]:
        query = Fused.query
        return [
            names_of(await query.async_fuse(words=ranked("abc"), vectors=ranked("cb"))),
            names_of(await query.filter(who="anna").async_fuse(words=ranked("abc"))),
        ]

    assert asyncio.run(both()) == ["cba", "ac"]
