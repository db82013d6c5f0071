"""Records read a field at a time give what reading them one by one gives."""

from __future__ import annotations

import logging
from datetime import date, datetime, time, timezone
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto import Field, IndexedField, KeyField, ListField, Model, SortedField
from popoto.exceptions import ModelException
from popoto.orm.codec import CodecError, encoder_for
from popoto.orm.tagged import decode_joined


class Mixed(Model):
    name = KeyField()
    note = Field(null=True)
    kind = IndexedField(default="plain")
    price = SortedField(type=float, default=1.5)
    number = Field(type=int, null=True)
    flag = Field(type=bool, default=True)
    raw = Field(type=bytes, null=True)
    words = Field(type=list, default=list)
    pair = Field(type=tuple, null=True)
    tags = Field(type=set, default=set)
    extra = Field(type=dict, default=dict)
    cost = Field(type=Decimal, null=True)
    day = Field(type=date, null=True)
    at = Field(type=datetime, null=True)
    clock = Field(type=time, null=True)
    last = ListField(max_length=3)


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_plain = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | _texts | st.binary()
_records = st.fixed_dictionaries(
    {},
    optional={
        "note": st.none() | _texts | st.text("x", min_size=250, max_size=300),
        "kind": st.sampled_from(["a", "b", "é"]),
        "price": st.floats(allow_nan=False, allow_infinity=False),
        "number": st.none() | st.integers(-(2**70), 2**70),
        "flag": st.booleans(),
        "raw": st.none() | st.binary(max_size=300),
        "words": st.lists(_plain, max_size=4),
        "pair": st.none() | st.tuples(_plain, _plain),
        "tags": st.sets(st.integers() | _texts, max_size=3),
        "extra": st.dictionaries(_texts, _plain, max_size=3),
        "cost": st.none() | st.decimals(allow_nan=False, allow_infinity=False),
        "day": st.none() | st.dates(),
        "at": st.none() | st.datetimes(timezones=st.none() | st.just(timezone.utc)),
        "clock": st.none() | st.times(),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(_records, min_size=1, max_size=6), holes=st.sets(st.tuples(st.integers(0, 5), st.integers(1, 14)))
)
def test_a_query_reads_what_get_reads(server, round_trips, records, holes):
    server.flushall()
    for number, values in enumerate(records):
        Mixed.create(name=f"r{number}", **values)
    names = list(Mixed._meta.fields)
    for record, field in holes:  # as records stored before there was the field
        if record < len(records) and names[field] not in ("kind", "price"):
            server.hdel(f"Mixed:r{record}", names[field])

    one_by_one = [Mixed.query.get(name=f"r{number}").to_dict() for number in range(len(records))]

    with round_trips() as trips:
        found = Mixed.query.filter().all()
    assert trips.count == 1
    assert [item.to_dict() for item in found] == one_by_one
    wanted = ("price", "number", "extra", "note", "cost")
    assert Mixed.query.filter().values(*wanted).all() == [{n: one[n] for n in wanted} for one in one_by_one]
    assert list(Mixed.query.filter().values(*wanted).all()[0]) == list(wanted)


def test_a_float_that_a_script_wrote_as_a_whole_number_is_a_float(server):
    Mixed.create(name="a", price=3.0)
    server.hset("Mixed:a", "price", b"\x03")
    [found] = Mixed.query.filter().all()
    assert (found.price, type(found.price)) == (3.0, float)


@pytest.mark.parametrize(
    ("field", "stored"),
    [
        ("number", b"\xa1x"),
        ("note", b"\xa5ab"),  # says that it is longer than it is
        ("note", b"\xa1a\xa1b"),  # two values
        ("note", b""),
        ("note", b"\xa2\xff\xfe"),  # no UTF-8
        ("note", b"\xc1"),
        ("words", b"\x93\x01\x02"),  # takes what stands behind it for its third element
        ("raw", b"\xc4\xffxx"),
        ("flag", b"\x01"),
        ("cost", b"\xa1x"),
        ("number", b"\xd2\x00\x00"),
        ("note", b"\xda\xff\xffx"),
        ("number", b"\xc0\xc0\xc0"),
    ],
)
def test_a_corrupt_value_costs_its_own_record_alone(server, caplog, field, stored):
    for name in "abc":
        Mixed.create(name=name, note="n" + name, number=7, words=["w"], raw=b"r", cost=Decimal(1))
    before = [item.to_dict() for item in Mixed.query.filter().all() if item.name != "b"]
    server.hset("Mixed:b", field, stored)

    with caplog.at_level(logging.ERROR, "popoto.query"):
        found = Mixed.query.filter().all()
        dicts = Mixed.query.filter().values("name", field).all()

    assert [item.to_dict() for item in found] == before
    assert [one["name"] for one in dicts] == ["a", "c"]
    assert len(caplog.records) == 2
    assert all(f"Mixed:b: the stored value of field '{field}' cannot be read" in r.getMessage() for r in caplog.records)


def test_what_is_no_record_is_skipped_and_logged(server, caplog):
    Mixed.create(name="a")
    Mixed.create(name="b")
    server.delete("Mixed:b")
    server.set("Mixed:b", "text")
    with caplog.at_level(logging.ERROR, "popoto.query"):
        assert [item.name for item in Mixed.query.filter().all()] == ["a"]
    assert "Mixed:b cannot be read (not a hash); skipped" in caplog.text


def test_values_of_a_field_that_no_record_has_are_its_default(server):
    Mixed.create(name="a")
    Mixed.create(name="b")
    server.hdel("Mixed:a", "flag", "cost")
    server.delete("Mixed:b")
    assert Mixed.query.filter().values("flag").all() == [{"flag": True}]
    assert Mixed.query.filter().values("cost").all() == [{"cost": None}]
    assert Mixed.query.filter().values("last").all() == [{"last": []}]


def test_each_record_has_a_default_of_its_own(server):
    for name in "ab":
        Mixed.create(name=name)
        server.hdel(f"Mixed:{name}", "words", "extra")
    first, second = Mixed.query.filter().all()
    first.words.append("x")
    first.extra["x"] = 1
    assert (second.words, second.extra) == ([], {})


def test_a_read_for_all_stops_at_a_corrupt_record(server):
    Mixed.create(name="a")
    server.hset("Mixed:a", "number", b"\xa1x")
    with pytest.raises(ModelException, match=r"Mixed:a.*'number'"):
        Mixed.query.get(name="a")


@given(values=st.lists(_plain, max_size=8))
def test_joined_values_are_taken_apart(values):
    encode = encoder_for(object)
    assert decode_joined(b"\xc0".join(map(encode, values)), len(values)) == values


@pytest.mark.parametrize("text", [b"", b"\x01", b"\x01\xc0", b"\x01\x02\x03", b"\x01\xc0\x02\xc0\x03", b"\xc0\x01\xc0"])
def test_what_is_not_two_values_is_refused(text):
    with pytest.raises(CodecError):
        decode_joined(text, 2)
