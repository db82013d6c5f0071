"""Models, records and queries as a user's type checker sees them; read by `mypy --strict`, never run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import redis
from typing_extensions import assert_type

import popoto
from popoto import Avg, Count, Expression, F, Field, IntField, KeyField, Model, Q, SortedField, StringField
from popoto.models.base import ModelOptions
from popoto.models.db_key import DB_key
from popoto.models.query import Query, QueryBuilder


class Restaurant(Model):
    name = KeyField()
    cuisine = StringField(null=True)
    rating = SortedField(type=float, default=0.0)
    visits = IntField(default=0)

    class Meta:
        ttl = timedelta(days=1)
        order_by = "-rating"

    def stars(self) -> str:
        return "*" * int(self.rating)


def records(restaurant: Restaurant) -> None:
    assert_type(Restaurant(name="x", rating=4.5), Restaurant)
    assert_type(restaurant.name, Any)
    assert_type(restaurant.pk, str)
    assert_type(restaurant.db_key, DB_key)
    assert_type(restaurant.is_valid(), bool)
    assert_type(restaurant.to_dict(), dict[str, Any])
    restaurant.rating = 4.0
    restaurant._ttl = 60
    assert_type(Restaurant.create(name="x"), Restaurant)
    assert_type(Restaurant.load(name="x"), Restaurant | None)
    assert_type(Restaurant.get_or_create(name="x", defaults={"rating": 1.0}), tuple[Restaurant, bool])
    assert_type(Restaurant.update_or_create(name="x"), tuple[Restaurant, bool])
    restaurant.refresh(fields=["rating"])
    assert_type(restaurant.save(update_fields=["rating"]), Any)
    assert_type(restaurant.delete(), Any)
    assert_type(restaurant.atomic_increment("visits", 1), Any)
    restaurant.save(update_field=["rating"])  # goes to pre_save and to the hooks
    restaurant.saev()  # type: ignore[attr-defined]


def classes() -> None:
    assert_type(Restaurant.cuisine, Field)
    assert_type(Restaurant._meta, ModelOptions)
    assert_type(Restaurant._options, ModelOptions)
    assert_type(Restaurant.get_info(), dict[str, Any])


def queries() -> None:
    query = Restaurant.query
    restaurants: list[Restaurant] = query.filter(rating__gte=4).order_by("-rating").limit(3).all()
    names = [restaurant.stars() for restaurant in restaurants]
    assert_type(names, list[str])
    assert_type(query.get(name="x"), Restaurant | None)
    assert_type(query.get_many(["Restaurant:x"]), list[Any])
    assert_type(query.filter(name="x"), QueryBuilder[Restaurant])
    assert_type(query.filter(name="x", values=("name",)), QueryBuilder[dict[str, Any]])
    assert_type(query.filter(name="x").values("name").all(), list[dict[str, Any]])
    assert_type(query.filter(name="x").exclude(cuisine="thai").first(), Restaurant | None)
    assert_type(query.all(), list[Restaurant])
    assert_type(query.count(cuisine="thai"), int)
    assert_type(query.exists(name="x"), bool)
    assert_type(query.first(), Restaurant | None)
    assert_type(query.keys(), list[bytes])
    assert_type(query.filter_for_keys_set(name="x"), set[bytes])
    assert_type(query.aggregate(n=Count(), mean=Avg("rating")), dict[str, Any])
    assert_type(query.distinct("cuisine"), list[Any])
    for one in query.order_by(F("rating") * F("visits"), "name"):
        assert_type(one, Restaurant)
    for one in query.iterate(chunk_size=100):
        assert_type(one, Restaurant)
    for several in query.filter(rating__gt=1).iterate().chunks():
        assert_type(several, list[Restaurant])
    same: Query[Restaurant] = Restaurant.objects
    assert_type(same.model_class, type[popoto.orm.model.Model])
    query.filter(5)  # type: ignore[call-overload]


def conditions() -> None:
    assert_type(Restaurant.rating > 4, Expression)
    assert_type(Restaurant.rating.between(1, 2), Expression)
    assert_type(~Q(name="x"), Q)
    Restaurant.query.filter((Restaurant.rating > 4) & (Restaurant.cuisine == "thai") | Q(name="x"), visits__gt=3)
    Restaurant.query.exclude(Restaurant.cuisine != "thai")


async def asynchronously(restaurant: Restaurant) -> None:
    assert_type(await Restaurant.async_create(name="x"), Restaurant)
    assert_type(await Restaurant.async_load(name="x"), Restaurant | None)
    assert_type(await Restaurant.async_get_or_create(name="x"), tuple[Restaurant, bool])
    assert_type(await restaurant.async_save(), Any)
    assert_type(await restaurant.async_delete(), Any)
    assert_type(await Restaurant.query.async_get(name="x"), Restaurant | None)
    assert_type(await Restaurant.query.async_filter(rating__gte=4), list[Restaurant])
    assert_type(await Restaurant.query.filter(rating__gte=4).async_last(), Restaurant | None)
    async for one in Restaurant.query.filter(rating__gte=4):
        assert_type(one, Restaurant)
    assert_type(await Restaurant.query.async_count(), int)
    Restaurant.query.async_count().bit_length()  # type: ignore[attr-defined]


def connections() -> None:
    popoto.redis_db.set_REDIS_DB_settings(host="localhost")
    assert_type(popoto.redis_db.check_connection(), bool)
    assert_type(popoto.redis_db.scan_keys("Restaurant:*"), list[bytes])
    client: redis.Redis = popoto.get_redis()
    client.ping()
    assert_type(popoto.__version__, str)
    print(popoto.Modell)  # type: ignore[attr-defined]


def errors() -> None:
    try:
        Restaurant.query.get(name="x")
    except popoto.QueryException as error:
        assert_type(error.message, str)
        root: popoto.PopotoException = error
        raise popoto.ModelException("x") from root
