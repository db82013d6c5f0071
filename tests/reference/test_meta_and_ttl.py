"""The sections "Meta Inner Class" and "Instance TTL Attributes" of the API reference."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from popoto import Field, KeyField, Model, ModelException, get_redis

MONTH_S = 2592000


def test_meta_sets_the_order_and_the_time_to_live(town):
    for number in range(3):
        town.Order.create(order_id=f"o{number}", created_at=datetime(2026, 1, 1 + number))
    assert [order.order_id for order in town.Order.query.all()] == ["o2", "o1", "o0"]
    assert MONTH_S - 5 <= get_redis().ttl("Order:o0") <= MONTH_S
    assert town.Order(order_id="x")._ttl == MONTH_S
    assert (town.Order._options.order_by, town.Order._options.ttl) == ("-created_at", MONTH_S)
    assert town.Order._options is town.Order._meta


def test_indexes_are_pairs_of_names_and_uniqueness(town):
    class Seat(Model):
        number = KeyField()
        hall = Field()
        row = Field()

        class Meta:
            indexes = ((("hall", "row"), True),)

    Seat.create(number="1", hall="A", row="1")
    with pytest.raises(ModelException):
        Seat.create(number="2", hall="A", row="1")
    Seat.create(number="2", hall="A", row="2")


def test_an_abstract_model_cannot_be_instantiated(town):
    class Base(Model):
        name = KeyField()

        class Meta:
            abstract = True

    class Concrete(Base):
        pass

    with pytest.raises(ModelException):
        Base(name="x")
    assert Concrete.create(name="x").name == "x"


def test_ttl_of_one_instance_takes_precedence(town):
    order = town.Order(order_id="rush-123", total=49.99)
    order._ttl = 604800  # 7 days instead of the default 30
    order.save()
    assert 604795 <= get_redis().ttl(order.pk) <= 604800


def test_none_makes_the_instance_permanent(town):
    order = town.Order.create(order_id="rush-123")
    order._ttl = None
    order.save()
    assert get_redis().ttl(order.pk) == -1


def test_an_absolute_expiration(town):
    order = town.Order(order_id="rush-123", total=49.99)
    assert order._expire_at is None
    at = datetime.now() + timedelta(days=40)
    order._ttl = None
    order._expire_at = at
    order.save()
    assert abs(get_redis().expiretime(order.pk) - at.timestamp()) <= 1


def test_both_at_once_are_refused(town):
    order = town.Order(order_id="rush-123")
    order._expire_at = datetime.now() + timedelta(days=1)
    with pytest.raises(ModelException):
        order.save()
    with pytest.raises(ModelException):
        order.is_valid()
