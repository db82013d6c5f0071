"""Records whose keys are known are read in one call, whatever is wrong with some of them."""

from __future__ import annotations

import logging

import pytest

from popoto import Field, KeyField, Model
from popoto.exceptions import ModelException
from popoto.orm.drivers import drive
from popoto.orm.fetching import fetched


class Fetched(Model):
    name = KeyField()
    number = Field(type=int, default=3)


def test_many_keys_take_one_round_trip_and_keep_their_order(server, round_trips):
    Fetched.bulk_create([Fetched(name=f"n{i:04}", number=i) for i in range(2500)])
    keys = [f"Fetched:n{i:04}" for i in reversed(range(2500))]
    with round_trips() as trips:
        found = Fetched.query.get_many([*keys, "Fetched:none", "Other:n0001"])
    assert trips.count == 1
    assert [item and item.number for item in found] == [*reversed(range(2500)), None, None]


def test_a_key_given_twice_gives_two_instances(server):
    Fetched.create(name="a")
    first, none, second = Fetched.query.get_many(["Fetched:a", "Fetched:b", "Fetched:a"])
    first.number = 4
    assert (second.number, none) == (3, None)


def test_what_cannot_be_read_counts_as_missing_and_is_logged(server, caplog):
    for name in "abc":
        Fetched.create(name=name)
    server.hset("Fetched:b", "number", b"\xa1x")
    server.delete("Fetched:c")
    server.rpush("Fetched:c", "x")
    with caplog.at_level(logging.ERROR, "popoto.query"):
        found = Fetched.query.get_many([b"Fetched:a", b"Fetched:b", b"Fetched:c"])
    assert [item and item.name for item in found] == ["a", None, None]
    assert sorted(record.getMessage()[:10] for record in caplog.records) == ["Fetched:b:", "Fetched:c "]


def test_who_must_have_all_is_told(server):
    Fetched.create(name="a")
    server.hset("Fetched:a", "number", b"\xa1x")
    with pytest.raises(ModelException, match="'number'"):
        drive(fetched(Fetched, ["Fetched:a"], strict=True))


def test_no_keys_are_no_call(server, round_trips):
    with round_trips() as trips:
        assert Fetched.query.get_many([]) == []
        assert Fetched.query.get_many(["Other:a"]) == [None]
    assert trips.count == 0
