"""`filter_query` and `get_filter_query_params`: a field of the user's own answers filters with keys."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from popoto import (
    Field,
    GeoField,
    IndexedField,
    KeyField,
    Model,
    Q,
    QueryException,
    Relationship,
    SortedField,
    get_redis,
)


class SoundField(Field):
    """Finds texts by their first letter, whatever its case, in a set of its own."""

    @staticmethod
    def key(model: Any, field_name: str, letter: str) -> str:
        return f"sound:{model.__name__}:{field_name}:{letter.lower()}"

    @classmethod
    def on_save(cls, instance: Any, field_name: str, field_value: Any, pipeline: Any = None, **kwargs: Any) -> Any:
        return pipeline.sadd(cls.key(type(instance), field_name, field_value[0]), instance.db_key.redis_key)

    def get_filter_query_params(self, field_name: str) -> set[str]:
        return super().get_filter_query_params(field_name) | {f"{field_name}__sounds", f"{field_name}__loudly"}

    @classmethod
    def filter_query(cls, model: Any, field_name: str, **query_params: Any) -> set[bytes]:
        sounds = query_params.pop(f"{field_name}__sounds", None)
        loudly = query_params.pop(f"{field_name}__loudly", False)
        found = super().filter_query(model, field_name, **query_params)
        if sounds is not None:
            found &= get_redis().smembers(cls.key(model, field_name, sounds))
        return {key for key in found if not loudly or key.isupper()}


class LostField(Field):
    @classmethod
    def filter_query(cls, model: Any, field_name: str, **query_params: Any) -> Any:
        return query_params[field_name]


class HookedWord(Model):
    name = KeyField()
    text = SoundField()
    kind = IndexedField(null=True)
    lost = LostField()


class HookedNote(Model):
    name = KeyField()
    word = Relationship(model=HookedWord)


query = HookedWord.query


@pytest.fixture(autouse=True)
def words(server: Any) -> None:
    for name, text, kind in (("a", "Apple", "x"), ("b", "apricot", "y"), ("c", "Bee", "x")):
        HookedNote.create(name=f"n{name}", word=HookedWord.create(name=name, text=text, kind=kind))


def names(found: Any) -> list[str]:
    return [record.name for record in found]


def test_parameters_of_its_own_are_answered_and_listed():
    assert names(query.filter(text__sounds="A")) == ["a", "b"]
    assert query.count(text__sounds="b") == 1 and query.first(text__sounds="z") is None
    assert "text__sounds" in HookedWord.get_info()["query_filters"]
    assert "text__sounds" in HookedWord._meta.filter_query_params_by_field["text"]
    with pytest.raises(QueryException, match="text__sounds"):
        query.filter(text__nonsense=1)


def test_they_mix_with_every_other_condition():
    assert names(query.filter(text__sounds="a", kind="x")) == ["a"]
    assert names(query.filter(Q(text__sounds="b") | Q(kind="y"))) == ["b", "c"]
    assert names(query.exclude(text__sounds="a")) == ["c"]
    assert names(query.filter(text__sounds="a").order_by("-name").limit(1)) == ["b"]
    assert query.filter(text__sounds="a").values("name").all() == [{"name": "a"}, {"name": "b"}]
    assert names(HookedNote.query.filter(word__text__sounds="a")) == ["na", "nb"]
    assert [word.name for word in asyncio.run(query.async_filter(text__sounds="b"))] == ["c"]


def test_what_it_leaves_to_the_field_is_answered_as_ever():
    assert names(query.filter(text="Bee")) == ["c"]
    assert names(query.filter(text__in=["Bee", "Apple"], text__sounds="a")) == ["a"]


def test_all_parameters_of_one_field_come_in_one_call():
    assert query.filter(text__sounds="a", text__loudly=True).all() == []


@pytest.mark.parametrize("answer", ["HookedWord:a", 5, {1}])
def test_an_answer_that_is_no_set_of_keys_is_refused(answer):
    with pytest.raises(QueryException, match=r"LostField\.filter_query"):
        query.filter(lost=answer).all()


def test_keys_of_nothing_and_of_other_models_are_no_records():
    assert names(query.filter(lost={b"HookedWord:a", "HookedWord:none", "HookedNote:na", b"\xff"})) == ["a"]
    assert query.count(lost={"HookedWord:a", "HookedWord:none"}) == 1


# -- keys of indexes ---------------------------------------------------------------------------------------------------


class HookedPlace(Model):
    name = KeyField()
    team = IndexedField(null=True)
    rank = SortedField(type=Decimal, default=Decimal(0), partition_by="team")
    spot = GeoField()


@pytest.mark.parametrize("team", ["red: *", None, "None"])
def test_fields_tell_the_keys_of_their_indexes(server, team):
    place = HookedPlace.create(name="a", team=team, rank=Decimal("1.50"), spot=(1, 2))
    ranks = SortedField.get_sortedset_db_key(HookedPlace, "rank", team)
    assert SortedField.get_partitioned_sortedset_db_key(place, "rank") == ranks
    score = SortedField.convert_to_numeric(HookedPlace.rank, "1.5")
    assert server.zscore(ranks.redis_key, place.pk) == score == 1.5
    assert server.zscore(str(GeoField.get_geo_db_key(HookedPlace, "spot")), place.pk) is not None
    assert server.sismember(str(IndexedField.get_special_use_field_db_key(HookedPlace, "team", team)), place.pk)
    with pytest.warns(DeprecationWarning, match="partition_by"):
        assert HookedPlace.rank.sort_by == ("team",)
