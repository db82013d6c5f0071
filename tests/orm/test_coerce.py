"""Given values become the declared type where nothing is lost, and are refused with a reason where it would be."""

from __future__ import annotations

import struct
from collections import OrderedDict, namedtuple
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from math import isnan
from types import MappingProxyType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popoto.orm.coerce import CoercionError, coercer_for, describe

TYPES = (int, float, Decimal, str, bool, bytes, list, dict, set, tuple, date, datetime, time)
UTC = timezone.utc
inf, nan = float("inf"), float("nan")


class Colour(str, Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class SubFloat(float):
    pass


class SubDatetime(datetime):
    pass


Point = namedtuple("Point", "x y")

ACCEPTED: list[tuple[type, Any, Any]] = [
    (int, True, 1),
    (int, False, 0),
    (int, 5.0, 5),
    (int, 1e300, int(1e300)),
    (int, Decimal("5.00"), 5),
    (int, Decimal("1E+3"), 1000),
    (int, "5", 5),
    (int, " -12 ", -12),
    (int, "+9007199254740993", 2**53 + 1),
    (int, Level.HIGH, 3),
    (float, 5, 5.0),
    (float, True, 1.0),
    (float, 2**53, 2.0**53),
    (float, 2**60, 2.0**60),
    (float, "1.5", 1.5),
    (float, "-1e-3", -0.001),
    (float, "7", 7.0),
    (float, "inf", inf),
    (float, Decimal("0.5"), 0.5),
    (float, Decimal("0.1"), 0.1),
    (float, Decimal.from_float(0.1), 0.1),
    (float, Decimal("Infinity"), inf),
    (float, Fraction(1, 4), 0.25),
    (float, SubFloat(1.5), 1.5),
    (Decimal, 5, Decimal(5)),
    (Decimal, 10**40 + 1, Decimal(10**40 + 1)),
    (Decimal, "1.10", Decimal("1.10")),
    (Decimal, 0.1, Decimal("0.1")),
    (Decimal, inf, Decimal("Infinity")),
    (str, 5, "5"),
    (str, Level.HIGH, "3"),
    (str, 1.5, "1.5"),
    (str, SubFloat(1.5), "1.5"),
    (str, Decimal("1.10"), "1.10"),
    (str, Colour.RED, "red"),
    (str, UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (bool, 1, True),
    (bool, 0, False),
    (bytes, bytearray(b"ab"), b"ab"),
    (bytes, memoryview(b"abcd")[::2], b"ac"),
    (list, (1, 2), [1, 2]),
    (list, Point(1, 2), [1, 2]),
    (tuple, [1, 2], (1, 2)),
    (tuple, Point(1, 2), (1, 2)),
    (set, frozenset({1, 2}), {1, 2}),
    (set, [1, 2], {1, 2}),
    (set, (), set()),
    (dict, OrderedDict(a=1), {"a": 1}),
    (dict, MappingProxyType({"a": 1}), {"a": 1}),
    (date, "2024-02-29", date(2024, 2, 29)),
    (datetime, "2024-05-06T07:08:09", datetime(2024, 5, 6, 7, 8, 9)),
    (datetime, "2024-05-06 07:08", datetime(2024, 5, 6, 7, 8)),
    (datetime, "2024-05-06T07:08:09.5Z", datetime(2024, 5, 6, 7, 8, 9, 500_000, tzinfo=UTC)),
    (
        datetime,
        "2024-05-06T07:08:09.1234560-02:30",
        datetime(2024, 5, 6, 7, 8, 9, 123_456, timezone(timedelta(hours=-2.5))),
    ),
    (datetime, SubDatetime(2024, 5, 6, 7, tzinfo=UTC), datetime(2024, 5, 6, 7, tzinfo=UTC)),
    (time, "07:08:09.5+02:00", time(7, 8, 9, 500_000, timezone(timedelta(hours=2)))),
    (time, "07:08", time(7, 8)),
]


@pytest.mark.parametrize(("type_", "given", "expected"), ACCEPTED, ids=lambda v: repr(v).split(" at 0x")[0])
def test_a_lossless_value_becomes_the_exact_type(type_: type, given: Any, expected: Any) -> None:
    value = coercer_for(type_)(given)
    assert value == expected
    assert type(value) is type_
    assert repr(value) == repr(expected)


REFUSED: list[tuple[type, Any, str]] = [
    (int, 3.7, r"^expected int, got 3\.7 \(float\): it has a fraction$"),
    (int, inf, "not a finite number"),
    (int, nan, "not a finite number"),
    (int, Decimal("3.7"), "it has a fraction"),
    (int, Decimal("sNaN"), "not a finite number"),
    (int, Decimal("1e999999"), "more than 4300 digits"),
    (int, "abc", "not a whole number in decimal digits"),
    (int, "5.0", "not a whole number"),
    (int, "1_000", "not a whole number"),
    (int, "", "not a whole number"),
    (int, "\u0663", "not a whole number"),
    (int, "9" * 5000, "more than 4300 digits"),
    (int, b"5", "expected int, got b'5' \\(bytes\\)$"),
    (int, [5], r"expected int, got \[5\] \(list\)$"),
    (int, 1j, "expected int"),
    (float, 2**53 + 1, "no float equals it exactly"),
    (float, 10**400, "too large for a float"),
    (float, str(2**53 + 1), "no float equals it exactly"),
    (float, "1e999", "too large for a float"),
    (float, "1_0.5", "not a number"),
    (float, "abc", "not a number"),
    (float, Decimal("0.12345678901234567890"), "no float equals it exactly"),
    (float, Decimal("1e999"), "no float equals it exactly"),
    (float, Decimal("sNaN"), "signaling"),
    (float, Fraction(1, 3), "no float equals it exactly"),
    (float, b"1", "expected float"),
    (Decimal, "abc", "not a decimal number"),
    (Decimal, "1_0", "not a decimal number"),
    (Decimal, b"1", "expected Decimal"),
    (str, True, "pass 'True' or 'False'"),
    (str, b"ab", "decode it first"),
    (str, bytearray(b"ab"), "decode it first"),
    (str, 10**5000, "digits"),
    (str, [1], "expected str"),
    (str, date(2024, 1, 1), "expected str"),
    (bool, "false", "a text is not read as a flag"),
    (bool, "True", "a text is not read as a flag"),
    (bool, 2, "only 0 and 1"),
    (bool, 1.0, "expected bool"),
    (bool, [], "expected bool"),
    (bytes, "ab", "encode it first"),
    (bytes, 5, "expected bytes"),
    (bytes, [1, 2], "expected bytes"),
    (list, "ab", "expected list"),
    (list, {1, 2}, "expected list"),
    (list, {"a": 1}, "expected list"),
    (tuple, "ab", "expected tuple"),
    (tuple, {1}, "expected tuple"),
    (set, [1, 1], "it holds duplicates"),
    (set, [1, True], "it holds duplicates"),
    (set, [[1]], "unhashable"),
    (set, "ab", "expected set"),
    (dict, [("a", 1)], "expected dict"),
    (dict, "ab", "expected dict"),
    (date, datetime(2024, 1, 1), "the time of day would be lost"),
    (date, "2024-02-30", "day"),
    (date, "20240229", "not an ISO 8601 date"),
    (date, "2024-02-29T00:00", "not an ISO 8601 date"),
    (date, 5, "expected date"),
    (datetime, date(2024, 1, 1), "it has no time of day"),
    (datetime, "2024-01-01", "not an ISO 8601 date with a time"),
    (datetime, "2024-13-01T00:00", "month"),
    (datetime, "2024-01-01T00:00:00.1234567", "finer than microseconds"),
    (datetime, 1715000000, "expected datetime"),
    (time, "25:00", "hour"),
    (time, "7:00", "not an ISO 8601 time"),
    (time, "07:00.5", "seconds"),
    (time, datetime(2024, 1, 1), r"pass value\.timetz\(\)"),
    (time, 5, "expected time"),
]


@pytest.mark.parametrize(("type_", "given", "reason"), REFUSED, ids=lambda v: describe(v)[:40])
def test_a_lossy_or_senseless_value_is_refused_with_the_reason(type_: type, given: Any, reason: str) -> None:
    with pytest.raises(CoercionError, match=reason) as caught:
        coercer_for(type_)(given)
    assert str(caught.value).startswith(f"expected {type_.__name__}, got ")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "value",
    [1, 1.5, nan, Decimal(1), "a", True, b"a", [1], {"a": 1}, {1}, (1,), date.min, datetime.min, time.min],
)
def test_a_value_of_the_type_is_given_back_itself(value: Any) -> None:
    assert coercer_for(type(value))(value) is value
    assert coercer_for(object)(value) is value


def test_numbers_of_numpy_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    for type_, number, expected in (
        (int, numpy.int64(5), 5),
        (float, numpy.float64(0.1), 0.1),
        (float, numpy.float32(0.5), 0.5),
        (float, numpy.int32(3), 3.0),
        (bool, numpy.int8(1), True),
        (Decimal, numpy.int64(5), Decimal(5)),
        (str, numpy.float64(1.5), "1.5"),
    ):
        value = coercer_for(type_)(number)
        assert (type(value), value) == (type_, expected)
    with pytest.raises(CoercionError, match="got array"):
        coercer_for(float)(numpy.array([1.0, 2.0]))


def test_nan_becomes_nan() -> None:
    for not_a_number in (Decimal("NaN"), "nan", SubFloat("nan")):
        value = coercer_for(float)(not_a_number)
        assert type(value) is float
        assert isnan(value)
    assert coercer_for(Decimal)(nan).is_nan()


def test_a_datetime_keeps_its_zone_and_fold() -> None:
    given = SubDatetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=1)
    value = coercer_for(datetime)(given)
    assert (type(value), value.tzinfo, value.fold) == (datetime, given.tzinfo, 1)
    assert value.timestamp() == given.timestamp()


def test_a_type_without_rules_takes_its_own_instances_only() -> None:
    assert coercer_for(Fraction)(Fraction(1, 2)) == Fraction(1, 2)
    assert coercer_for(tuple)(Point(1, 2)) == (1, 2)
    assert coercer_for(Point)(Point(1, 2)) == Point(1, 2)
    with pytest.raises(CoercionError, match="expected Point, got \\(1, 2\\) \\(tuple\\)"):
        coercer_for(Point)((1, 2))


anything = st.one_of(
    st.integers(),
    st.floats(),
    st.decimals(),
    st.text(max_size=12),
    st.binary(max_size=8),
    st.booleans(),
    st.lists(st.integers(), max_size=3),
    st.tuples(st.integers(), st.text(max_size=3)),
    st.frozensets(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.dates(),
    st.datetimes(timezones=st.none() | st.just(UTC)),
    st.times(),
    st.datetimes().map(lambda d: d.isoformat()),
    st.floats().map(repr),
    st.complex_numbers(),
)


@given(st.sampled_from(TYPES), anything)
def test_whatever_is_given_the_result_has_the_type_or_the_error_a_reason(type_: type, given: Any) -> None:
    try:
        value = coercer_for(type_)(given)
    except CoercionError as error:
        assert str(error).startswith(f"expected {type_.__name__}, got ")
    else:
        assert type(value) is type_


@given(st.floats())
def test_a_float_survives_as_text_and_as_decimal(number: float) -> None:
    for between in (str, Decimal):
        back = coercer_for(float)(coercer_for(between)(number))
        assert struct.pack(">d", back) == struct.pack(">d", number) or (isnan(back) and isnan(number))


@given(st.integers())
def test_an_int_survives_as_text_and_as_decimal(number: int) -> None:
    assert coercer_for(int)(coercer_for(str)(number)) == number
    assert coercer_for(int)(coercer_for(Decimal)(number)) == number


@given(st.datetimes(timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=-3, seconds=7)))))
def test_iso_text_is_read_back(moment: datetime) -> None:
    assert coercer_for(datetime)(moment.isoformat()) == moment
    assert coercer_for(date)(moment.date().isoformat()) == moment.date()
    assert coercer_for(time)(moment.timetz().isoformat()) == moment.timetz()


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_a_description_is_short_and_never_fails() -> None:
    assert describe(None) == "None"
    assert describe(3.7) == "3.7 (float)"
    assert "Unspeakable" in describe(Unspeakable())
    assert len(describe("x" * 10_000)) < 100
    assert describe(10**5000) == "a value of type int"
