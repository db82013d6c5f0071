"""What the kitchen knows: restaurants and their menus, customers, drivers, and the orders between them."""

from __future__ import annotations

from decimal import Decimal

from popoto import (
    AutoKeyField,
    BooleanField,
    DatetimeField,
    DecimalField,
    Field,
    GeoField,
    IndexedField,
    IntField,
    KeyField,
    ListField,
    Model,
    Relationship,
    SortedField,
    UniqueField,
)


class Restaurant(Model):
    """Keys are what identifies a record; each of them can be filtered by."""

    name = KeyField()
    cuisine = IndexedField()
    rating = SortedField(type=float, default=0.0)
    location = GeoField()
    is_open = BooleanField(default=True)

    class Meta:
        order_by = "name"


class MenuItem(Model):
    """Prices are ordered within each restaurant: `partition_by`."""

    sku = KeyField()
    restaurant_name = IndexedField()
    restaurant = Relationship(Restaurant, null=False)
    name = Field()
    price = SortedField(type=Decimal, partition_by="restaurant_name")
    tags = ListField()


class Customer(Model):
    username = KeyField()
    email = UniqueField()
    home = GeoField()
    favourite = Relationship(Restaurant)
    invited_by = Relationship("self")
    orders_placed = IntField(default=0)


class Driver(Model):
    name = KeyField()
    location = GeoField()
    busy = IndexedField(type=bool, default=False)


class Order(Model):
    """Points to all of the others."""

    order_id = AutoKeyField()
    customer = Relationship(Customer, null=False)
    restaurant = Relationship(Restaurant, null=False)
    driver = Relationship(Driver)
    status = IndexedField(default="cooking")
    total = DecimalField(default=Decimal(0))
    minutes = SortedField(type=int, default=0)
    placed_at = DatetimeField(auto_now_add=True)


MODELS: tuple[type[Model], ...] = (Order, MenuItem, Customer, Driver, Restaurant)
"""Who points to others first, so that deleting them in this order leaves nothing that dangles."""
