"""Records that went behind popoto's back (EXPIRE or DEL by hand): what they do to answers until somebody cleans up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from popoto import Count, GeoField, IndexedField, KeyField, Model, SortedField, UniqueField


class ForeignExpiry(Model):
    name = KeyField()
    code = UniqueField()
    kind = IndexedField(null=True)
    rank = SortedField(type=int, default=0)
    place = GeoField()

    class Meta:
        indexes = ((("kind", "rank"), True),)


query = ForeignExpiry.query


@pytest.fixture(autouse=True)
def half_gone(server: Any) -> None:
    ForeignExpiry.bulk_create(
        ForeignExpiry(name=f"r{i}", code=f"c{i}", kind="a", rank=i, place=(i, i)) for i in range(6)
    )
    server.delete("ForeignExpiry:r0")
    server.pexpire("ForeignExpiry:r1", 1)
    while server.exists("ForeignExpiry:r1"):
        pass


def names(found: Any) -> list[str]:
    return [record.name for record in found]


def test_they_are_in_no_answer_and_make_room_under_a_limit():
    assert names(query.all()) == names(query.filter(kind="a")) == ["r2", "r3", "r4", "r5"]
    for builder in (query.filter(), query.filter(kind="a"), query.order_by("rank"), query.filter(rank__lt=4)):
        assert names(builder.limit(2)) == ["r2", "r3"]
        assert builder.first().name == builder[0].name == "r2"
        assert asyncio.run(builder.async_first()).name == "r2"
    assert query.values("name").limit(1).all() == [{"name": "r2"}]
    assert names(query.order_by("code").limit(1)) == ["r2"]
    assert names(query.filter(place=(0, 0), place_radius=2000, place_radius_unit="km").limit(1)) == ["r2"]
    assert names(query.filter(kind="a").limit(9)) == ["r2", "r3", "r4", "r5"]


def test_the_next_ones_are_one_round_trip_more_and_none_where_nobody_is_gone(round_trips):
    with round_trips() as counted:
        assert query.first().name == "r2"
    first = counted.count
    ForeignExpiry.clean_indexes()
    with round_trips() as counted:
        assert query.first().name == "r2"
    assert (first, counted.count) == (2, 1)


def test_they_do_not_exist_and_aggregates_leave_them_out():
    assert not query.exists(code="c0") and not query.exists(rank__lt=2) and query.exists(kind="a")
    assert asyncio.run(query.async_exists(code="c1")) is False
    assert query.get(code="c0") is None and query.get(name="r1") is None
    assert query.aggregate(n=Count("rank"))["n"] == 4
    assert query.distinct("code") == ["c2", "c3", "c4", "c5"]


def test_their_unique_values_and_keys_are_free():
    ForeignExpiry.create(name="new", code="c0", kind="a", rank=0)
    again = ForeignExpiry.create(name="r1", code="c9", kind="b", rank=1)
    assert query.get(code="c0").name == "new" and query.filter(kind="b").all() == [again]


def test_counts_and_keys_know_them_until_they_are_cleaned():
    assert query.count() == 6 and len(query.keys()) == 6
    assert ForeignExpiry.check_indexes()["total"] > 0
    assert ForeignExpiry.clean_indexes() > 0
    assert query.count() == len(query.keys()) == query.count(kind="a") == 4
    assert ForeignExpiry.check_indexes()["total"] == 0
