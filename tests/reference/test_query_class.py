"""The section "Query Class" of the API reference, as far as it speaks of records (rankings have tests of their own)."""

from __future__ import annotations

import asyncio

import pytest

from popoto import QueryException
from popoto.models.db_key import DB_key
from popoto.models.query import Query


@pytest.fixture
def menu(town):
    for number in range(1, 13):
        town.MenuItem.create(name=f"item{number:02}", price=number * 2.0)
    return town.MenuItem


def names(found):
    return [one.name for one in found]


def test_query_is_attached_to_every_model(town):
    assert isinstance(town.Restaurant.query, Query) and town.Restaurant.objects is town.Restaurant.query


def test_get_by_values_key_and_redis_key(restaurants):
    query = restaurants.Restaurant.query
    assert query.get(name="Taco Town").cuisine == "Mexican"
    assert query.get(db_key=DB_key("Restaurant", "Taco Town")).cuisine == "Mexican"
    assert query.get(redis_key="Restaurant:Taco Town").cuisine == "Mexican"
    assert query.get(name="nowhere") is None
    with pytest.raises(QueryException):
        query.get(status="pending")


def test_get_many_keeps_the_order_and_the_places_of_what_is_missing(restaurants):
    query = restaurants.Restaurant.query
    keys = ["Restaurant:Burger Palace", "Restaurant:Sushi Zen"]
    found = query.get_many(redis_keys=keys)
    assert found[0].name == "Burger Palace" and found[1] is None
    assert names(query.get_many(redis_keys=keys, skip_none=True)) == ["Burger Palace"]

    async def run():
        return await query.async_get_many(redis_keys=keys)

    assert asyncio.run(run()) == found


def test_filter_takes_lookups_and_the_reserved_keywords(menu):
    cheap_items = menu.query.filter(price__lte=9.99, order_by="price", limit=10)
    assert names(cheap_items) == ["item01", "item02", "item03", "item04"]
    assert names(menu.query.filter(order_by="-price", limit=2)) == ["item12", "item11"]
    assert list(menu.query.filter(price__lt=5, values=("name", "price"))) == [
        {"name": "item01", "price": 2.0},
        {"name": "item02", "price": 4.0},
    ]
    assert len(menu.query.filter()) == 12 and menu.query.filter(price=2.0)[0].name == "item01"


def test_all_takes_order_limit_and_values(menu):
    everything = menu.query.all()
    assert isinstance(everything, list) and len(everything) == 12
    assert names(menu.query.all(order_by="-price", limit=1)) == ["item12"]
    assert menu.query.all(limit=1, order_by="price", values=("name",)) == [{"name": "item01"}]


def test_count_with_and_without_filters(menu):
    assert menu.query.count() == 12
    assert menu.query.count(price__gte=20.0) == 3


def test_keys_are_bytes(menu):
    assert sorted(menu.query.keys())[0] == b"MenuItem:item01" and len(menu.query.keys()) == 12
    assert b"MenuItem:item01" in menu.query.keys(catchall=True)


def test_keys_can_be_cleaned_first(menu, server):
    server.delete("MenuItem:item01")
    assert b"MenuItem:item01" not in menu.query.keys(clean=True)
    assert menu.check_indexes()["total"] == 0


def test_the_async_counterparts(menu):
    async def run():
        assert (await menu.query.async_get(name="item01")).price == 2.0
        assert names(await menu.query.async_filter(price__lte=4.0)) == ["item01", "item02"]
        assert len(await menu.query.async_all()) == 12
        assert await menu.query.async_count(price__gte=20.0) == 3
        assert len(await menu.query.async_keys()) == 12

    asyncio.run(run())


def test_an_invalid_filter_raises(menu):
    with pytest.raises(QueryException):
        menu.query.filter(colour="red")
    with pytest.raises(QueryException):
        menu.query.filter(price__startswith=1)
