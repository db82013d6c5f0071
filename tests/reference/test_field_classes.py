"""The section "Field Classes" of the API reference, the ORM's part."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal

import pytest

import popoto
from popoto import (
    AutoKeyField,
    Field,
    GeoField,
    IndexedField,
    KeyField,
    ListField,
    Model,
    ModelException,
    SortedField,
    SortedKeyField,
    UniqueField,
    UniqueKeyField,
)

VALUES = [
    1,
    1.5,
    Decimal("1.50"),
    "x",
    True,
    b"x",
    [1],
    {"a": 1},
    {1},
    (1, 2),
    date(2026, 1, 2),
    datetime(2026, 1, 2, 3),
]
VALUES.append(time(3, 4))
SHORTCUTS = {
    "IntField": 7,
    "FloatField": 1.5,
    "DecimalField": Decimal("1.10"),
    "StringField": "x",
    "BooleanField": True,
    "BytesField": b"x",
    "ListField": [1, "a"],
    "DictField": {"a": [1]},
    "SetField": {1, 2},
    "TupleField": (1, "a"),
    "DateField": date(2026, 1, 2),
    "TimeField": time(3, 4),
}


def names(found):
    return sorted(one.name for one in found)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_field_stores_each_valid_type(server, value):
    class Thing(Model):
        name = KeyField()
        content = Field(type=type(value))

    Thing.create(name="x", content=value)
    assert Thing.query.get(name="x").content == value


def test_a_field_has_the_documented_defaults(server):
    assert (Field().type, Field().null, Field().default, Field().max_length) == (str, True, None, 1024)
    assert (KeyField().max_length, KeyField().null) == (128, True)
    with pytest.raises(ModelException):
        Field(type=object)


def test_a_default_may_be_a_value_or_a_callable_and_length_is_enforced(server):
    class Place(Model):
        name = KeyField()
        active = Field(type=bool, default=True)
        tags = Field(type=list, default=lambda: ["new"])
        text = Field()

    made = Place.create(name="x")
    assert made.active is True and made.tags == ["new"] and made.text is None
    with pytest.raises(ModelException):
        Place(name="x", text="x" * 1025)
    with pytest.raises(ModelException):
        Place(name="x" * 129)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"name": "Taco Town"}, ["Taco Town"]),
        ({"name__isnull": True}, []),
        ({"name__isnull": False}, ["Burger Palace", "Sushi Spot", "Taco Town"]),
        ({"name__contains": "Taco"}, ["Taco Town"]),
        ({"name__startswith": "Taco"}, ["Taco Town"]),
        ({"name__endswith": "Town"}, ["Taco Town"]),
        ({"name__in": ["Taco Town", "Burger Palace"]}, ["Burger Palace", "Taco Town"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_lookups_of_a_key_field(restaurants, filters, found):
    assert names(restaurants.Restaurant.query.filter(**filters)) == found


def test_an_auto_key_is_made_and_cannot_be_null_or_shared(server):
    class Auto(Model):
        auto_id = AutoKeyField(auto_uuid_length=12)

    assert len(Auto().auto_id) == 12 != Auto().auto_id
    for wrong in ({"unique": False}, {"null": True}):
        with pytest.raises(ModelException):
            AutoKeyField(**wrong)


def test_a_unique_key_belongs_to_one_record(town):
    town.Subscriber.create(username="ada", email="a@x")
    with pytest.raises(ModelException):
        town.Subscriber.create(username="bob", email="a@x")
    for wrong in ({"unique": False}, {"null": True}):
        with pytest.raises(ModelException):
            UniqueKeyField(**wrong)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"status": "active"}, ["o1"]),
        ({"status__isnull": True}, ["o3"]),
        ({"status__startswith": "act"}, ["o1"]),
        ({"status__endswith": "ive"}, ["o1", "o2"]),
        ({"status__in": ["active", "pending"]}, ["o1"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_lookups_of_an_indexed_field(town, filters, found):
    for number, status in enumerate(["active", "inactive", None], 1):
        town.Order.create(order_id=f"o{number}", status=status)
    assert sorted(order.order_id for order in town.Order.query.filter(**filters)) == found


def test_a_unique_field_belongs_to_one_record(town):
    town.User.create(email="a@x")
    with pytest.raises(ModelException):
        town.User.create(email="a@x")
    for wrong in ({"unique": False}, {"null": True}):
        with pytest.raises(ModelException):
            UniqueField(**wrong)


def test_flags_of_a_plain_field_are_the_shortcut_classes(server):
    class Flagged(Model):
        name = KeyField()
        status = Field(indexed=True)
        email = Field(indexed=True, unique=True)

    Flagged.create(name="a", status="x", email="e")
    assert names(Flagged.query.filter(status__startswith="x")) == ["a"]
    assert server.smembers("$IndexF:Flagged:status:x") == {b"Flagged:a"}
    assert server.smembers("$UniquF:Flagged:email:e") == {b"Flagged:a"}
    with pytest.raises(ModelException):
        Flagged.create(name="b", email="e")
    assert IndexedField(unique=True).unique is True


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"price": 9.99}, ["b"]),
        ({"price__gt": 9.99}, ["c"]),
        ({"price__gte": 9.99}, ["b", "c"]),
        ({"price__lt": 9.99}, ["a"]),
        ({"price__lte": 9.99}, ["a", "b"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_lookups_of_a_sorted_field(town, filters, found):
    for name, price in (("a", 5.0), ("b", 9.99), ("c", 20.0)):
        town.MenuItem.create(name=name, price=price)
    assert names(town.MenuItem.query.filter(**filters)) == found


def test_a_sorted_field_is_never_null_and_has_its_types(server):
    with pytest.raises(ModelException):
        SortedField(null=True)
    with pytest.raises(ModelException):
        SortedField(type=str)
    with pytest.warns(DeprecationWarning):
        assert SortedField(sort_by="region").partition_by == ("region",)
    for kind in (int, float, Decimal, date, datetime):
        SortedField(type=kind)


def test_a_partitioned_sorted_field_is_filtered_within_its_partition(server):
    class Ranked(Model):
        name = KeyField()
        region = KeyField()
        points = SortedField(type=int, partition_by=("region",))

    for name, region, points in (("a", "eu", 3), ("b", "eu", 5), ("c", "us", 9)):
        Ranked.create(name=name, region=region, points=points)
    assert names(Ranked.query.filter(region="eu", points__gte=4)) == ["b"]


def test_a_sorted_key_field_has_the_lookups_of_both(server):
    class Edition(Model):
        name = KeyField()
        year = SortedKeyField(type=int)

    for year in (1999, 2010, 2021):
        Edition.create(name="x", year=year)
    assert [one.year for one in Edition.query.filter(year__gt=2000)] == [2010, 2021]
    assert sorted(one.year for one in Edition.query.filter(year__in=[1999, 2021])) == [1999, 2021]
    assert server.exists("Edition:x:2021")


def test_a_geo_field_finds_what_is_near_and_says_how_far(town):
    near = town.Restaurant.create(name="near", location=(40.7130, -74.0050))
    town.Restaurant.create(name="far", location=GeoField.Coordinates(41.7, -74.0))
    nearby = town.Restaurant.query.filter(
        location=(40.7128, -74.0060),
        location_radius=5,
        location_radius_unit="km",
        location_with_distances=True,
    )
    assert names(nearby) == ["near"]
    assert nearby[0]._geo_distance == pytest.approx(0.087, abs=0.01) and nearby[0]._geo_distance_unit == "km"
    assert nearby[0].location.latitude == 40.7130
    by_part = town.Restaurant.query.filter(
        location_latitude=40.7128, location_longitude=-74.0060, location_radius=200, location_radius_unit="mi"
    )
    assert names(by_part) == ["far", "near"]
    assert names(town.Restaurant.query.filter(location_member=near)) == ["near"]


def test_a_datetime_field_fills_itself(town):
    order = town.Order(order_id="o1")
    assert order.created_at is None
    order.save()
    created, updated = order.created_at, order.updated_at
    assert isinstance(created, datetime)
    order.save()
    assert order.created_at == created and order.updated_at > updated
    assert town.Order.query.get(order_id="o1").updated_at == order.updated_at


def test_a_relationship_is_an_instance_a_key_or_none(town):
    alice = town.Customer.create(username="alice")
    order = town.Order.create(order_id="o1", customer=alice)
    assert town.Order.query.get(order_id="o1").customer == alice
    assert town.Order.query.get(order_id="o1").driver is None
    by_key = town.Order.create(order_id="o2", customer="Customer:alice")
    assert by_key.customer == alice
    assert order.to_dict()["customer"] == alice.pk


def test_filters_go_through_relationships(town):
    some_customer = town.Customer.create(username="alice")
    town.Order.create(order_id="o1", customer=some_customer)
    town.Order.create(order_id="o2", customer=town.Customer.create(username="bob"))
    assert [order.order_id for order in town.Order.query.filter(customer=some_customer)] == ["o1"]
    assert [order.order_id for order in town.Order.query.filter(customer__username="alice")] == ["o1"]


@pytest.mark.parametrize("shortcut", sorted(SHORTCUTS))
def test_a_shortcut_sets_its_type_and_takes_the_other_options(server, shortcut):
    field = getattr(popoto, shortcut)

    class Short(Model):
        name = KeyField()
        content = field(null=False, default=SHORTCUTS[shortcut])

    Short.create(name="x")
    assert Short.query.get(name="x").content == SHORTCUTS[shortcut]
    assert type(SHORTCUTS[shortcut]) is Short._meta.fields["content"].type
    with pytest.raises((TypeError, ModelException)):
        field(type=object)


def test_a_list_field_can_be_capped(server):
    class Feed(Model):
        name = KeyField()
        latest = ListField(max_length=3)

    feed = Feed.create(name="x")
    for number in range(5):
        feed.latest.push(number)
    assert feed.latest == [4, 3, 2]
    assert Feed.query.get(name="x").latest == [4, 3, 2]
    assert Feed.query.filter(name="x")[0].latest == [4, 3, 2]
