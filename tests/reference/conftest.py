"""The models that the API reference speaks of, defined as it defines them or as its examples use them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from popoto import (
    AutoKeyField,
    BooleanField,
    DatetimeField,
    Field,
    GeoField,
    IndexedField,
    IntField,
    KeyField,
    Model,
    Relationship,
    SortedField,
    UniqueField,
    UniqueKeyField,
)


def define() -> SimpleNamespace:
    """Define the models anew; classes of a function may have the names of others."""

    class Restaurant(Model):
        name = KeyField()
        cuisine = Field(type=str)
        rating = SortedField(type=float, default=0.0)
        order_count = IntField(default=0)
        score = Field(type=float, default=0.0)
        status = IndexedField(default="pending")
        is_featured = BooleanField(default=False)
        is_deleted = BooleanField(default=False)
        location = GeoField()

    class MenuItem(Model):
        name = KeyField()
        price = SortedField(type=float)

    class User(Model):
        user_id = AutoKeyField()
        email = UniqueField(type=str)
        age = SortedField(type=int, default=0)

    class Customer(Model):
        username = KeyField()

    class Driver(Model):
        name = KeyField()

    class Order(Model):
        order_id = AutoKeyField()
        status = IndexedField(type=str)
        region = IndexedField(type=str, null=True)
        total = SortedField(type=float, default=0.0)
        created_at = DatetimeField(auto_now_add=True)
        updated_at = DatetimeField(auto_now=True)
        customer = Relationship(model=Customer)
        driver = Relationship(model=Driver, null=True)

        class Meta:
            order_by = "-created_at"
            ttl = 2592000  # 30 days

    class Subscriber(Model):
        username = KeyField()
        email = UniqueKeyField()

    found: dict[str, Any] = {name: value for name, value in locals().items() if isinstance(value, type)}
    return SimpleNamespace(**found)


@pytest.fixture
def town(server: Any) -> SimpleNamespace:
    """The models, on an empty database."""
    return define()


@pytest.fixture
def restaurants(town: SimpleNamespace) -> SimpleNamespace:
    """The models, with the reference's three restaurants."""
    town.Restaurant.bulk_create(
        [
            town.Restaurant(name="Taco Town", cuisine="Mexican", rating=4.2),
            town.Restaurant(name="Burger Palace", cuisine="American", rating=4.0, order_count=42, score=1.5),
            town.Restaurant(name="Sushi Spot", cuisine="Japanese", rating=4.8),
        ]
    )
    return town
