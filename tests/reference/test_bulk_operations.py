"""The section "Bulk Operations" of the API reference."""

from __future__ import annotations

import asyncio
import csv
from datetime import datetime, timedelta

import pytest

from popoto import ModelException, get_redis


def test_bulk_create_returns_the_created_instances(town):
    made = [
        town.Restaurant(name="Taco Town", cuisine="Mexican", rating=4.2),
        town.Restaurant(name="Burger Palace", cuisine="American", rating=4.0),
        town.Restaurant(name="Sushi Spot", cuisine="Japanese", rating=4.8),
    ]
    created = town.Restaurant.bulk_create(made)
    assert len(created) == 3 and created == made
    assert town.Restaurant.query.count() == 3


def test_bulk_create_validates_each_instance_and_takes_one_model_only(town):
    wrong = town.Restaurant(name="b")
    wrong.rating = None
    with pytest.raises(ModelException):
        town.Restaurant.bulk_create([town.Restaurant(name="a"), wrong])
    with pytest.raises(ModelException):
        town.Restaurant.bulk_create([town.MenuItem(name="a", price=1.0)])
    assert town.Restaurant.query.count() == 0


def test_bulk_update_of_a_query_and_of_a_list(restaurants):
    model = restaurants.Restaurant
    count = model.bulk_update(model.query.filter(status="pending"), status="active")
    assert count == 3 == model.query.count(status="active")
    featured = list(model.query.filter(rating__lt=4.5))
    assert model.bulk_update(featured, is_featured=True, rating=5.0) == 2
    assert model.query.count(rating=5.0) == 2


def test_bulk_delete_of_a_query_and_of_a_list(restaurants):
    model = restaurants.Restaurant
    model.bulk_update(model.query.filter(name="Taco Town"), status="inactive")
    assert model.bulk_delete(model.query.filter(status="inactive")) == 1
    assert model.bulk_delete([model.load(name="Sushi Spot"), model.load(name="Burger Palace")]) == 2
    assert model.query.count() == 0 and model.check_indexes()["total"] == 0


def test_delete_all_removes_one_model_with_all_its_indexes(restaurants):
    restaurants.MenuItem.create(name="Taco", price=3.5)
    assert restaurants.Restaurant.delete_all() == 3
    assert [key for key in get_redis().keys("*Restaurant*") if b"$Token" not in key] == []
    for model in [restaurants.Order, restaurants.MenuItem, restaurants.Restaurant]:
        model.delete_all()
    assert restaurants.MenuItem.query.count() == 0


def test_more_instances_than_the_batch_size(town):
    large_list = [town.Restaurant(name=f"r{number}") for number in range(1200)]
    assert len(town.Restaurant.bulk_create(large_list, batch_size=500)) == 1200
    assert town.Restaurant.delete_all(batch_size=500) == 1200


def test_the_async_counterparts(town):
    model = town.Restaurant

    async def run():
        made = await model.async_bulk_create(
            [
                model(name="Async Eats", cuisine="Fusion", rating=4.5),
                model(name="Pipeline Pizzeria", cuisine="Italian", rating=4.3, status="closed"),
            ]
        )
        assert len(made) == 2
        assert await model.async_bulk_update(model.query.filter(rating__gte=4.0), is_featured=True) == 2
        assert await model.async_bulk_delete(model.query.filter(status="closed")) == 1
        assert await model.async_delete_all() == 1

    asyncio.run(run())


def test_the_import_of_a_csv_file(town, tmp_path):
    path = tmp_path / "restaurants.csv"
    path.write_text("name,cuisine,rating\nTaco Town,Mexican,4.2\nSushi Spot,Japanese,4.8\n", "utf-8")
    with open(path) as f:
        reader = csv.DictReader(f)
        instances = [
            town.Restaurant(name=row["name"], cuisine=row["cuisine"], rating=float(row["rating"])) for row in reader
        ]
    assert len(town.Restaurant.bulk_create(instances)) == 2


def test_the_batch_status_update_of_old_orders(town):
    for days in (1, 40, 50):
        town.Order.create(order_id=f"o{days}", created_at=datetime.now() - timedelta(days=days), status="done")
    cutoff = datetime.now() - timedelta(days=30)
    old_orders = town.Order.query.filter(created_at__lt=cutoff)
    assert town.Order.bulk_update(old_orders, status="archived") == 2
    assert town.Order.query.count(status="archived") == 2


def test_the_cleanup_of_soft_deleted_records(restaurants):
    model = restaurants.Restaurant
    model.bulk_update(model.query.filter(rating__lt=4.5), is_deleted=True)
    assert model.bulk_delete(model.query.filter(is_deleted=True)) == 2
    assert model.query.count() == 1
