"""What lies in place of an index: a query says which key it is, and what names no record spoils no answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from popoto import (
    IndexedField,
    KeyField,
    ListField,
    Model,
    Q,
    QueryException,
    Relationship,
    SortedField,
    Sum,
    UniqueField,
)
from tests.faults.test_corrupt import put_foreign


class MisplacedOwner(Model):
    name = KeyField()
    city = IndexedField(null=True)


class MisplacedRow(Model):
    name = KeyField()
    kind = IndexedField(null=True)
    code = UniqueField()
    rank = SortedField(type=int, default=0)
    owner = Relationship(model=MisplacedOwner)
    tags = ListField(max_length=3)


ALL = [f"r{i}" for i in range(4)]


@pytest.fixture
def rows(server: Any) -> list[Any]:
    ann = MisplacedOwner.create(name="ann", city="Bonn")
    return [MisplacedRow.create(name=n, kind="a", code=f"c{i}", rank=i, owner=ann, tags=[i]) for i, n in enumerate(ALL)]


def names(found: Any) -> list[str]:
    return [record.name for record in found]


query = MisplacedRow.query
QUERIES = {
    "$IndexF:MisplacedRow:kind:a": [
        lambda: query.filter(kind="a").all(),
        lambda: query.count(kind="a"),
        lambda: query.filter(kind="a").keys(),
        lambda: query.filter(Q(kind="a") | Q(rank__gt=1)).all(),
        lambda: query.filter(kind="a").aggregate(x=Sum("rank")),
        lambda: query.filter(kind="a").explain(),
        lambda: list(query.filter(kind="a").iterate(2)),
        lambda: asyncio.run(query.async_filter(kind="a")),
    ],
    "$IndexF:MisplacedRow:kind::values": [lambda: query.filter(kind__endswith="a").all()],
    "$SortF:MisplacedRow:rank": [
        lambda: query.filter(rank__gte=1).all(),
        lambda: query.count(rank__gte=1),
        lambda: query.order_by("rank").all(),
    ],
    "$UniquF:MisplacedRow:code:c1": [lambda: query.get(code="c1")],
    "$Order:MisplacedRow": [lambda: query.all()],
    "$Expiry:MisplacedRow": [lambda: query.all(), lambda: query.count()],
    "$Class:MisplacedRow": [lambda: query.count()],
    "$IndexF:MisplacedOwner:city:Bonn": [lambda: query.filter(owner__city="Bonn").all()],
}


@pytest.mark.parametrize("place", QUERIES, ids=lambda place: place.replace("$", "").replace(":", "-"))
def test_a_query_that_meets_a_foreign_key_names_it(server, rows, place):
    put_foreign(server, place, "list")
    for ask in QUERIES[place]:
        with pytest.raises(QueryException, match=r"holds a list where the index keeps a") as told:
            ask()
        assert place in str(told.value) and "rebuild_indexes" in str(told.value)
    server.delete(place)
    MisplacedRow.rebuild_indexes()
    MisplacedOwner.rebuild_indexes()
    assert names(query.filter(kind="a")) == ALL


def test_a_foreign_key_that_the_query_does_not_name_is_told_of_as_well(server, rows):
    put_foreign(server, "$RelationshipF:MisplacedRow:owner:MisplacedOwner:ann", "string")
    with pytest.raises(QueryException, match="holds another type"):
        query.filter(owner__city="Bonn").all()


def test_members_that_are_no_text_are_passed_over_by_every_query(server, rows):
    server.zadd("$Order:MisplacedRow", {b"\xff\xfe": 0})
    server.zadd("$SortF:MisplacedRow:rank", {b"\xff\xfe": 2})
    server.sadd("$IndexF:MisplacedRow:kind:a", b"\xff\xfe")
    assert names(query.all()) == names(query.filter(kind="a")) == names(query.order_by("rank")) == ALL
    assert names(query.filter(rank__gte=2)) == ["r2", "r3"] and names(query.order_by("-code")) == ALL[::-1]
    assert names(query.iterate(2)) == names(query.filter(rank__gte=0).iterate(1)) == ALL
    assert query.order_by("rank").keys() == [f"MisplacedRow:{name}".encode() for name in ALL]
    assert names(query.exclude(kind="b")) == ALL
    assert query.values("code").all() == [{"code": f"c{i}"} for i in range(4)]


@pytest.mark.parametrize("score", [-1, 5])
def test_a_score_where_there_should_be_none_does_not_hide_texts(server, rows, score):
    server.zadd("$Order:MisplacedRow", {"foreign": score})
    server.zadd("$IndexF:MisplacedRow:kind::values", {"foreign": score})
    assert names(query.filter(name__startswith="r")) == names(query.filter(kind__startswith="a")) == ALL


@pytest.mark.parametrize("foreign", ["string", "hash"])
def test_a_foreign_key_in_place_of_a_list_costs_that_row_of_values(server, rows, caplog, foreign):
    put_foreign(server, "MisplacedRow:r1::tags", foreign)
    assert [row["name"] for row in query.values("name", "tags")] == ["r0", "r2", "r3"]
    assert "MisplacedRow:r1::tags is no list" in caplog.text
    server.delete("MisplacedRow:r1::tags")
    server.rpush("MisplacedRow:r2::tags", b"\xc1")
    assert [row["name"] for row in query.values("name", "tags")] == ["r0", "r1", "r3"]


# -- an index entry that the record's value does not agree with -------------------------------------------------------


STALE = {
    "exact": ("kind", b"\xa1z", lambda: query.filter(kind="a")),
    "in": ("kind", b"\xa1z", lambda: query.filter(kind__in=["a", "q"])),
    "isnull": ("kind", b"\xc0", lambda: query.filter(kind__isnull=False)),
    "range": ("rank", b"\x7f", lambda: query.filter(rank__between=(0, 3))),
    "relation": ("owner", b"\xc0", lambda: query.filter(owner="MisplacedOwner:ann")),
}


@pytest.mark.parametrize("what", STALE)
def test_a_record_whose_value_was_changed_around_the_index_is_left_out(server, rows, caplog, what):
    field, raw, ask = STALE[what]
    assert names(ask()) == ALL
    server.hset("MisplacedRow:r1", field, raw)
    assert names(ask()) == names(ask().iterate(2)) == ["r0", "r2", "r3"]
    assert [row["name"] for row in ask().values("name", field)] == ["r0", "r2", "r3"]
    assert f"MisplacedRow:r1: the index of field '{field}' names it" in caplog.text
    assert MisplacedRow.check_indexes()["total"] > 0
    server.hdel("MisplacedRow:r1", field)
    assert names(ask()) == ALL, "a record that lacks the field, from before there was one, has nothing to say"


def test_an_entry_that_names_another_record_does_not_bring_it_up(server, rows):
    server.delete("$UniquF:MisplacedRow:code:c1")
    server.sadd("$UniquF:MisplacedRow:code:c1", "MisplacedRow:r2")
    assert query.get(code="c1") is None and query.get(code="c2").name == "r2"
