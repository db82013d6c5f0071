"""The section "Model Class" of the API reference: each documented call with its documented result."""

from __future__ import annotations

import asyncio

import pytest

from popoto import KeyMutationError, ModelException, get_redis
from popoto.models.db_key import DB_key


def names(found):
    return [one.name for one in found]


def test_init_makes_an_instance_in_memory_only(town):
    restaurant = town.Restaurant(name="Burger Palace", cuisine="American", rating=4.5)
    assert (restaurant.name, restaurant.cuisine, restaurant.rating) == ("Burger Palace", "American", 4.5)
    assert get_redis().dbsize() == 0


def test_init_adds_an_auto_key_where_there_is_no_key_field(town):
    from popoto import Field, Model

    class Note(Model):
        text = Field()

    assert len(Note(text="x")._auto_key) == 32


def test_init_validates_types_and_not_nulls(town):
    with pytest.raises(ModelException):
        town.Restaurant(name="x", rating="good")
    town.Restaurant(name="x", rating=None)


def test_create_saves_and_returns_the_instance(town):
    restaurant = town.Restaurant.create(name="Taco Town", cuisine="Mexican", rating=4.2)
    assert isinstance(restaurant, town.Restaurant)
    assert town.Restaurant.query.get(name="Taco Town").cuisine == "Mexican"
    assert get_redis().type("Restaurant:Taco Town") == b"hash"


def test_create_with_a_pipeline_returns_the_pipeline(town):
    pipeline = get_redis().pipeline()
    assert town.Restaurant.create(pipeline=pipeline, name="Taco Town") is pipeline
    assert town.Restaurant.query.count() == 0
    pipeline.execute()
    assert town.Restaurant.query.count() == 1


def test_save_returns_the_response_of_hset(town):
    restaurant = town.Restaurant(name="Sushi Spot", cuisine="Japanese", rating=4.8)
    assert restaurant.save() == len(town.Restaurant._meta.fields)
    assert restaurant.save() == 0
    pipeline = get_redis().pipeline()
    assert restaurant.save(pipeline=pipeline) is pipeline


def test_a_partial_save_updates_only_the_rating(restaurants):
    restaurant = restaurants.Restaurant.query.get(name="Sushi Spot")
    restaurant.rating, restaurant.cuisine = 4.9, "changed"
    restaurant.save(update_fields=["rating"])
    stored = restaurants.Restaurant.query.get(name="Sushi Spot")
    assert (stored.rating, stored.cuisine) == (4.9, "Japanese")
    assert names(restaurants.Restaurant.query.filter(rating__gt=4.85)) == ["Sushi Spot"]
    assert restaurant.save(update_fields=[]) == 0


def test_ignore_errors_logs_and_returns_false(town, caplog):
    restaurant = town.Restaurant(name="x")
    restaurant.rating = None
    assert restaurant.save(ignore_errors=True) is False
    assert "rating" in caplog.text
    with pytest.raises(ModelException):
        restaurant.save()


def test_auto_now_is_suppressed_and_left_out_of_partial_saves(town):
    order = town.Order.create(status="active", order_id="o1")
    first = order.updated_at
    order.save(skip_auto_now=True)
    assert order.updated_at == first
    order.save(update_fields=["status"])
    assert town.Order.query.get(order_id="o1").updated_at == first
    order.save(update_fields=["status", "updated_at"])
    assert town.Order.query.get(order_id="o1").updated_at > first


def test_a_changed_key_raises_without_migrate_key_and_moves_everything_with_it(restaurants):
    restaurant = restaurants.Restaurant.query.get(name="Taco Town")
    restaurant.name = "Taco City"
    with pytest.raises(KeyMutationError):
        restaurant.save()
    restaurant.save(migrate_key=True)
    assert get_redis().exists("Restaurant:Taco Town") == 0
    assert sorted(names(restaurants.Restaurant.query.filter(rating__gte=4.0))) == [
        "Burger Palace",
        "Sushi Spot",
        "Taco City",
    ]
    assert restaurants.Restaurant.query.get(name="Taco City").cuisine == "Mexican"
    assert restaurants.Restaurant.check_indexes()["total"] == 0


def test_delete_says_whether_the_record_existed(restaurants):
    restaurant = restaurants.Restaurant.query.get(name="Taco Town")
    assert restaurant.delete() is True
    assert restaurant.delete() is False
    assert restaurants.Restaurant.query.get(name="Taco Town") is None
    pipeline = get_redis().pipeline()
    assert restaurant.delete(pipeline=pipeline) is pipeline


def test_atomic_increment_returns_the_new_value_and_updates_the_instance(restaurants):
    restaurant = restaurants.Restaurant.query.get(name="Burger Palace")
    new_count = restaurant.atomic_increment("order_count", 1)
    assert new_count == 43 == restaurant.order_count
    assert restaurant.atomic_increment("order_count", -5) == 38
    new_rating = restaurant.atomic_increment("score", 0.5)
    assert new_rating == 2.0 and isinstance(new_rating, float)


def test_atomic_increment_keeps_a_sorted_index_in_sync(restaurants):
    restaurants.Restaurant.query.get(name="Burger Palace").atomic_increment("rating", 0.9)
    assert names(restaurants.Restaurant.query.filter(rating__gte=4.85)) == ["Burger Palace"]


def test_atomic_increment_in_a_pipeline_is_queued(restaurants):
    restaurant = restaurants.Restaurant.query.get(name="Burger Palace")
    pipeline = get_redis().pipeline()
    assert restaurant.atomic_increment("order_count", 1, pipeline=pipeline) is pipeline
    assert restaurants.Restaurant.query.get(name="Burger Palace").order_count == 42
    pipeline.execute()
    assert restaurants.Restaurant.query.get(name="Burger Palace").order_count == 43


def test_atomic_increment_raises_what_is_documented(restaurants):
    restaurant = restaurants.Restaurant.query.get(name="Burger Palace")
    for field_name, delta in (("cuisine", 1), ("order_count", None)):
        with pytest.raises(TypeError):
            restaurant.atomic_increment(field_name, delta)
    with pytest.raises(TypeError):
        restaurants.Restaurant(name="unsaved").atomic_increment("order_count", 1)
    with pytest.raises(AttributeError):
        restaurant.atomic_increment("no_such_field", 1)


def test_load_by_key_field_values_and_by_key(restaurants):
    assert restaurants.Restaurant.load(name="Taco Town").cuisine == "Mexican"
    assert restaurants.Restaurant.load(db_key="Restaurant:Taco Town").cuisine == "Mexican"
    assert restaurants.Restaurant.load(name="nowhere") is None


def test_is_valid_checks_types_nulls_and_lengths(town):
    assert town.Restaurant(name="x", rating=1.0).is_valid() is True
    without = town.Restaurant(name="x")
    without.rating = None
    assert without.is_valid() is False and without.is_valid(null_check=False) is True
    too_long = town.Restaurant(name="x")
    too_long.cuisine = "x" * 1025
    assert too_long.is_valid() is False


def test_get_info_names_fields_and_filters(town):
    info = town.Restaurant.get_info()
    assert set(info) == {"name", "fields", "query_filters"}
    assert info["name"] == "Restaurant" and info["fields"][:2] == ["name", "cuisine"]
    assert {"name__startswith", "rating__gte", "location_radius"} <= set(info["query_filters"])


def test_db_key_is_made_of_the_class_name_and_the_sorted_key_fields(town):
    key = town.Subscriber(username="ada", email="ada@x").db_key
    assert isinstance(key, DB_key)
    assert str(key) == "Subscriber:ada@x:ada"


def test_each_model_method_has_an_async_counterpart(town):
    async def run():
        restaurant = await town.Restaurant.async_create(name="Async Eats", cuisine="Fusion", rating=4.5)
        restaurant.rating = 4.6
        assert await restaurant.async_save(update_fields=["rating"]) == 0
        loaded = await town.Restaurant.async_load(db_key="Restaurant:Async Eats")
        assert loaded.rating == 4.6
        made = await town.Restaurant.async_bulk_create([town.Restaurant(name="b"), town.Restaurant(name="c")])
        assert await town.Restaurant.async_bulk_update(made, rating=1.0) == 2
        assert await town.Restaurant.async_bulk_delete(made) == 2
        assert await loaded.async_delete() is True

    asyncio.run(run())
