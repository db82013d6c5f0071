"""`filter_query` of a field of the user's own, whose sets lie beside the records of each shard."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from popoto import Field, IndexedField, KeyField, Model, Q, Relationship, get_redis
from popoto.orm.keys import front_of
from tests.cluster.nodes import Cluster

AGENTS = ("ann", "bob", "c:3", "{d}")


class SoundField(Field):
    """Finds texts by their first letter, in a set a shard."""

    @classmethod
    def on_save(cls, instance: Any, field_name: str, field_value: Any, pipeline: Any = None, **kwargs: Any) -> Any:
        return pipeline.sadd(f"{front_of(instance.pk)}sound:{field_value[0]}", instance.pk)

    def get_filter_query_params(self, field_name: str) -> set[str]:
        return super().get_filter_query_params(field_name) | {f"{field_name}__sounds"}

    @classmethod
    def filter_query(cls, model: Any, field_name: str, **query_params: Any) -> set[bytes]:
        letter = query_params.pop(f"{field_name}__sounds", None)
        found = super().filter_query(model, field_name, **query_params)
        if letter is None:
            return found
        fronts = {front_of(key.decode()) for key in found}
        return found & {key for front in fronts for key in get_redis().smembers(f"{front}sound:{letter}")}


class SpokenWord(Model):
    agent = KeyField()
    name = KeyField()
    text = SoundField()
    kind = IndexedField(default="x")

    class Meta:
        shard_by = "agent"


class SpokenLine(Model):
    name = KeyField()
    word = Relationship(model=SpokenWord)


query = SpokenWord.query


@pytest.fixture(autouse=True)
def words(cluster: Cluster) -> None:
    for agent in AGENTS:
        for name, text, kind in (("1", "apple", "x"), ("2", "apricot", "y"), ("3", "bee", "x")):
            word = SpokenWord.create(agent=agent, name=name, text=text, kind=kind)
            SpokenLine.create(name=f"{agent} says {name}", word=word)


def names(found: Any) -> list[tuple[str, str]]:
    return sorted((word.agent, word.name) for word in found)


def each(*wanted: str) -> list[tuple[str, str]]:
    return sorted((agent, name) for agent in AGENTS for name in wanted)


def test_keys_of_several_shards_are_the_answer_of_all_of_them() -> None:
    assert names(query.filter(text__sounds="a")) == each("1", "2")
    assert query.count(text__sounds="b") == len(AGENTS) and query.first(text__sounds="z") is None
    assert names(asyncio.run(query.async_filter(text__sounds="b"))) == each("3")


def test_one_shard_is_asked_for_its_own() -> None:
    assert names(query.filter(text__sounds="a", agent="c:3")) == [("c:3", "1"), ("c:3", "2")]
    with SpokenWord.in_shard("{d}"):
        assert query.count(text__sounds="a") == 2


def test_they_mix_with_every_other_condition() -> None:
    assert names(query.filter(text__sounds="a", kind="x")) == each("1")
    assert names(query.filter(Q(text__sounds="b") | Q(kind="y"))) == each("2", "3")
    assert names(query.exclude(text__sounds="a")) == each("3")
    assert names(query.filter(text__sounds="a").order_by("-name").limit(4)) == each("2")


def test_they_are_asked_along_a_relationship() -> None:
    found = SpokenLine.query.filter(word__text__sounds="b")
    assert sorted(line.name for line in found) == sorted(f"{agent} says 3" for agent in AGENTS)
