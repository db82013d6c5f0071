"""Values survive the way to bytes and back, with their types; bytes that are no value are refused."""

from __future__ import annotations

import struct
from collections import OrderedDict, namedtuple
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum
from math import isnan
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from popoto.orm.codec import CANONICAL_TYPES, CodecError, decoder_for, encoder_for

TYPES = (int, float, Decimal, str, bool, bytes, list, dict, set, tuple, date, datetime, time)


def image(value: Any) -> Any:
    """A value that compares equal only for the same types and the same content, NaN and -0.0 included."""
    name = type(value).__name__
    if isinstance(value, float):
        return name, "nan" if isnan(value) else struct.pack(">d", value)
    if isinstance(value, (list, tuple)):
        return name, [image(item) for item in value]
    if isinstance(value, set):
        return name, sorted(repr(image(item)) for item in value)
    if isinstance(value, dict):
        return name, [(image(key), image(item)) for key, item in value.items()]
    if isinstance(value, (date, time)):
        return name, value.isoformat()
    return name, str(value) if isinstance(value, Decimal) else value


def there_and_back(value: Any, type_: type = object) -> Any:
    return decoder_for(type_)(encoder_for(type_)(value))


def assert_survives(value: Any) -> None:
    assert image(there_and_back(value)) == image(value)
    if value is not None:
        assert image(there_and_back(value, type(value))) == image(value)


offsets = st.none() | st.timedeltas(
    timedelta(hours=-23, minutes=-59, seconds=-59), timedelta(hours=23, minutes=59, seconds=59)
).map(timezone)
integers = st.integers() | st.integers(-(2**70), 2**70)
texts = st.text(st.characters(codec="utf-8"))
hashable_scalars = st.one_of(
    st.none(),
    st.booleans(),
    integers,
    st.floats(),
    texts,
    st.binary(),
    st.decimals().filter(lambda d: not d.is_snan()),
    st.datetimes(timezones=offsets),
    st.dates(),
    st.times(timezones=offsets),
)
hashables = st.recursive(hashable_scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)
keys = hashables | st.sampled_from(["as_encodable", "__tuple__", "__dict__", "__int__", "__Decimal__"])
values = st.recursive(
    hashables,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.sets(hashables, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(texts, inner, max_size=4),
    ),
    max_leaves=12,
)


# Round trips -------------------------------------------------------------------------------------------


@given(values)
def test_any_nested_value_comes_back_equal_and_of_the_same_types(value: Any) -> None:
    assert_survives(value)


@given(integers)
def test_an_int_has_the_shortest_plain_form_that_msgpack_gives_it(value: int) -> None:
    if -(2**63) <= value < 2**64:
        assert encoder_for(int)(value) == msgpack.packb(value)
    assert there_and_back(value, int) == value


@pytest.mark.parametrize(
    "value",
    [s * (2**b + d) for b in (0, 5, 7, 8, 15, 16, 31, 32, 53, 63, 64, 65, 1000) for d in (-1, 0, 1) for s in (1, -1)],
)
def test_ints_at_the_limits_of_every_width_survive(value: int) -> None:
    assert_survives(value)
    assert_survives([value, {value: value}])


@pytest.mark.parametrize("size", [0, 1, 31, 32, 255, 256, 65535, 65536, 100_000])
def test_texts_and_bytes_of_every_width_are_what_msgpack_would_write(size: int) -> None:
    assert encoder_for(str)("x" * size) == msgpack.packb("x" * size)
    assert encoder_for(bytes)(b"x" * size) == msgpack.packb(b"x" * size)
    assert_survives("x" * size)
    assert_survives("é" * size)
    assert_survives(b"\xff" * size)


@pytest.mark.parametrize(
    "value", [float("inf"), float("-inf"), float("nan"), -0.0, 0.0, 5e-324, 1.7976931348623157e308]
)
def test_a_float_keeps_infinity_nan_and_the_sign_of_zero(value: float) -> None:
    assert encoder_for(float)(value) == msgpack.packb(value)
    assert_survives(value)


@pytest.mark.parametrize("text", ["1.10", "-0", "1E+3", "NaN", "sNaN", "-Infinity", "0E-400", "9" * 80, "1e999999"])
def test_a_decimal_keeps_its_digits_and_exponent(text: str) -> None:
    assert str(there_and_back(Decimal(text), Decimal)) == str(Decimal(text))


@pytest.mark.parametrize("type_", [*TYPES, object])
def test_none_is_nil_for_every_type(type_: type) -> None:
    assert encoder_for(type_)(None) == b"\xc0"
    assert decoder_for(type_)(b"\xc0") is None


@pytest.mark.parametrize(
    "value",
    [
        {"as_encodable": "1.5", "__Decimal__": True},
        {"as_encodable": [["a", 1]], "__dict__": True},
        {"as_encodable": 1},
        {"__tuple__": True},
        {"__tuple__": True, "as_encodable": [1], "x": 2},
        [{"__set__": True, "as_encodable": [1]}],
        ({"deep": {"__int__": True, "as_encodable": "5"}},),
        {1: "int", "1": "str", True and "true": 2},
        {True: 1, None: 2, 2.5: 3, (1, (2,)): 4, b"b": 5, Decimal("1.10"): 6, date(2024, 1, 2): 7},
        {2**64: "big", -(2**63) - 1: "small"},
        {(1, 2), (3, (4, None))},
        [2**64, [(), set(), {}, []]],
    ],
)
def test_dicts_that_look_like_tags_and_unusual_keys_survive(value: Any) -> None:
    assert_survives(value)


def test_an_aware_datetime_keeps_its_instant_and_offset() -> None:
    for offset in (
        timedelta(0),
        timedelta(hours=-9, minutes=-30),
        timedelta(hours=5, seconds=17, microseconds=3),
    ):
        given = datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=timezone(offset))
        back = there_and_back(given, datetime)
        assert back == given
        assert back.utcoffset() == offset


@pytest.mark.parametrize("fold", [0, 1])
def test_a_named_zone_comes_back_as_the_fixed_offset_of_the_same_instant(fold: int) -> None:
    given = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=fold)
    back = there_and_back(given, datetime)
    assert back.timestamp() == given.timestamp()
    assert back.tzinfo == timezone(timedelta(hours=2 - fold))


def test_a_zone_with_seconds_in_its_offset_survives() -> None:
    given = datetime(1850, 1, 1, tzinfo=ZoneInfo("Europe/Paris"))  # local mean time, +00:09:21
    assert there_and_back(given, datetime).utcoffset() == timedelta(minutes=9, seconds=21)


def test_a_time_whose_offset_depends_on_the_day_is_refused() -> None:
    with pytest.raises(CodecError, match="depends on a date"):
        encoder_for(time)(time(12, tzinfo=ZoneInfo("Europe/Paris")))


def test_a_time_zone_that_fails_is_a_codec_error() -> None:
    for type_ in (datetime, object):
        with pytest.raises(CodecError, match="cannot be stored"):
            encoder_for(type_)(datetime(2024, 1, 1, tzinfo=tzinfo()))
    with pytest.raises(CodecError, match="cannot be stored"):
        encoder_for(list)([time(1, tzinfo=tzinfo())])


class Colour(str, Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


Point = namedtuple("Point", "x y")


def test_a_nested_subclass_is_stored_as_the_builtin_it_extends() -> None:
    given = [Colour.RED, Level.HIGH, Point(1, (2,)), OrderedDict(a=(1,)), {Colour.RED: 1}]
    assert image(there_and_back(given, list)) == image(["red", 3, (1, (2,)), {"a": (1,)}, {"red": 1}])


# The wire ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "tag", "body"),
    [
        (Decimal("1.10"), "__Decimal__", "1.10"),
        ((1, "a"), "__tuple__", [1, "a"]),
        ({7}, "__set__", [7]),
        (datetime(2024, 5, 6, 7, 8, 9), "__datetime__", "20240506T07:08:09.000000"),
        (datetime(7, 5, 6, tzinfo=timezone.utc), "__datetime__", "00070506T00:00:00.000000+00:00"),
        (date(987, 6, 5), "__date__", "09870605"),
        (time(1, 2, 3, 4), "__time__", "01:02:03.000004"),
        (2**64, "__int__", "18446744073709551616"),
        ({None: 1}, "__dict__", [[None, 1]]),
    ],
)
def test_the_tagged_forms(value: Any, tag: str, body: Any) -> None:
    wire = msgpack.packb({tag: True, "as_encodable": body})
    assert encoder_for(type(value))(value) == encoder_for(object)(value) == wire
    assert image(decoder_for(type(value))(wire)) == image(value)

    swapped = msgpack.packb({"as_encodable": body, tag: True})
    assert image(decoder_for(type(value))(swapped)) == image(value)


def test_plain_containers_stay_readable_for_scripts() -> None:
    given = {"a": [1, 2.5, None, True, "x", b"y"], 5: {"b": []}}
    assert msgpack.unpackb(encoder_for(dict)(given), strict_map_key=False) == given


@pytest.mark.parametrize(
    ("type_", "text", "expected"),
    [
        (datetime, "9990102T03:04:05.000006", datetime(999, 1, 2, 3, 4, 5, 6)),
        (datetime, "10102T00:00:00.000000", datetime(1, 1, 2)),
        (date, "9990102", date(999, 1, 2)),
        (date, "20240229", date(2024, 2, 29)),
    ],
)
def test_the_old_forms_without_zero_padding_are_read(type_: type, text: str, expected: Any) -> None:
    assert decoder_for(type_)(msgpack.packb({f"__{type_.__name__}__": True, "as_encodable": text})) == expected


def test_an_untagged_dict_of_an_older_store_is_read_by_the_declared_type() -> None:
    old = {"__Decimal__": True, "as_encodable": "not a number"}
    assert decoder_for(dict)(msgpack.packb(old)) == old
    nested = {"__tuple__": True, "as_encodable": [{"__tuple__": True, "as_encodable": [1]}]}
    assert decoder_for(dict)(msgpack.packb(nested)) == {"__tuple__": True, "as_encodable": [(1,)]}


def test_old_dicts_with_bytes_and_float_keys_are_read() -> None:
    old = {b"a": 1, 2.5: [None]}
    assert decoder_for(dict)(msgpack.packb(old)) == old


def test_a_float_field_reads_the_integers_that_scripts_write() -> None:
    value = decoder_for(float)(msgpack.packb(3))
    assert (value, type(value)) == (3.0, float)
    assert decoder_for(float)(msgpack.packb(-(2**60))) == -(2.0**60)
    with pytest.raises(CodecError, match="no float equals it exactly"):
        decoder_for(float)(msgpack.packb(2**53 + 1))


def test_an_int_field_reads_integral_floats_only() -> None:
    value = decoder_for(int)(msgpack.packb(3.0))
    assert (value, type(value)) == (3, int)
    for wrong in (2.5, float("inf"), float("nan")):
        with pytest.raises(CodecError, match="expected int, got"):
            decoder_for(int)(msgpack.packb(wrong))


SAMPLES = {
    int: 300,
    float: 1.5,
    Decimal: Decimal("1.0"),
    str: "text",
    bool: True,
    bytes: b"\x00",
    list: [1],
    dict: {"a": 1},
    set: {1},
    tuple: (1,),
    date: date(2024, 1, 2),
    datetime: datetime(2024, 1, 2),
    time: time(1),
}


@pytest.mark.parametrize("stored", TYPES)
@pytest.mark.parametrize("declared", TYPES)
def test_a_value_of_another_type_is_refused_and_named(declared: type, stored: type) -> None:
    wire = encoder_for(stored)(SAMPLES[stored])
    if declared is stored:
        assert decoder_for(declared)(wire) == SAMPLES[stored]
    elif (declared, stored) == (float, int):
        assert decoder_for(declared)(wire) == 300.0
    elif declared is dict and wire.startswith(b"\x82"):
        assert decoder_for(dict)(wire) == msgpack.unpackb(wire)  # by the declared type, it is the user's own map
    else:
        with pytest.raises(CodecError, match=f"expected {declared.__name__}, got .*") as caught:
            decoder_for(declared)(wire)
        assert stored.__name__ in str(caught.value) or "fraction" in str(caught.value)
    if declared is not stored:
        with pytest.raises(CodecError, match=f"expected {declared.__name__}, got "):
            encoder_for(declared)(SAMPLES[stored])


# Refusals ----------------------------------------------------------------------------------------------


class Thing:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize("value", [Thing(), object(), 1j, range(3), frozenset({1}), bytearray(b"a"), memoryview(b"a")])
def test_an_object_of_the_users_own_is_refused_by_type_with_what_is_allowed(value: Any) -> None:
    for holder in (value, [value], {"a": value}, (1, [value])):
        with pytest.raises(
            CodecError, match=rf"{type(value).__name__}.* cannot be stored; use None or one of .*Decimal"
        ):
            encoder_for(object)(holder)


@pytest.mark.parametrize("value", ["a\ud800", ["x" * 300 + "\udfff"], {"\ud800": 1}, ("\ud800",), "y" * 300 + "\ud801"])
def test_a_lone_surrogate_is_refused_with_its_position(value: Any) -> None:
    with pytest.raises(CodecError, match=r"lone surrogate, '\\u[0-9a-f]{4}' at position \d+"):
        encoder_for(type(value))(value)


def test_a_value_that_contains_itself_or_is_too_deep_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 1
    for _ in range(5000):
        deep = (deep,)
    for value in (loop, deep):
        with pytest.raises(CodecError, match="nested"):
            encoder_for(object)(value)


def test_what_is_as_deep_as_can_be_stored_can_be_read() -> None:
    for wrap in (lambda v: [v], lambda v: (v,), lambda v: {"a": v}, lambda v: {None: v}):
        value: Any = 1
        for depth in range(2000):
            try:
                wire = encoder_for(object)(value)
            except CodecError:
                assert depth > 200
                break
            assert encoder_for(object)(decoder_for(object)(wire)) == wire
            value = wrap(value)
        else:
            pytest.fail("no limit")


def test_an_integer_too_long_for_text_is_refused() -> None:
    for value in (10**5000, [10**5000]):
        with pytest.raises(CodecError, match="too long"):
            encoder_for(type(value))(value)


@pytest.mark.parametrize("type_", [complex, frozenset, type(None), Thing, list[int]])
def test_a_type_without_a_wire_form_is_refused_at_once(type_: Any) -> None:
    for make in (encoder_for, decoder_for):
        with pytest.raises(CodecError, match="is no type of a stored value"):
            make(type_)


def decode_with_every_type(data: bytes) -> None:
    for type_ in (*TYPES, object):
        try:
            value = decoder_for(type_)(data)
        except CodecError as error:
            assert str(error)
        else:
            assert type_ is object or value is None or type(value) is type_


@given(st.binary(max_size=40))
@example(b"")
@example(b"\xc1")
@example(b"\xd6\xff\x00\x00\x00\x01")
@example(b"\xd7\xff" + b"\xff" * 8)
@example(b"\xc7\x0c\xff\x00\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff")
@example(b"\x81\x90\x01")
@example(b"\xd4\x05\x00")
@example(b"\x82\xacas_encodable\xa11\xa7__int__\xc3")
def test_random_bytes_are_a_value_of_the_type_or_a_codec_error(data: bytes) -> None:
    decode_with_every_type(data)


@given(values, st.data())
def test_damaged_values_are_a_value_of_the_type_or_a_codec_error(value: Any, data: st.DataObject) -> None:
    wire = bytearray(encoder_for(object)(value))
    wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    decode_with_every_type(bytes(wire))


@given(values)
def test_trailing_or_missing_bytes_are_refused(value: Any) -> None:
    wire = encoder_for(object)(value)
    type_ = object if value is None else type(value)
    for wrong in (wire + b"\x00", wire + b"\xc0", wire[:-1]):
        for declared in (type_, object):
            with pytest.raises(CodecError, match="not one whole msgpack value"):
                decoder_for(declared)(wrong)


BAD_BODIES = {
    "__Decimal__": ["abc", "", 5, None, "1e99999999999999999999"],
    "__int__": ["", "-", "1.5", "1_0", " 1", "9" * 5000, 5, "\u0663"],
    "__datetime__": [
        "",
        "20240506",
        "20241306T00:00:00.000000",
        "20240506T25:00:00.000000",
        "2024-05-06T07:08:09",
        5,
    ],
    "__date__": ["", "20240230", "2024-05-06", "202405061", "abcdefgh", None],
    "__time__": ["", "25:00:00.000000", "07:08", "07:08:09.00000x", 1],
    "__tuple__": ["abc", 5, {"a": 1}],
    "__set__": [[1, 1], [[1]], "abc", None],
    "__dict__": [{}, [[1]], [[1, 2], [1, 3]], [[[1], 2]], ["ab"], "x"],
}


@pytest.mark.parametrize(("tag", "body"), [(tag, body) for tag, bodies in BAD_BODIES.items() for body in bodies])
def test_a_tag_with_the_wrong_content_is_refused(tag: str, body: Any) -> None:
    wire = msgpack.packb({tag: True, "as_encodable": body})
    types = {type_ for type_ in TYPES if tag == f"__{type_.__name__}__"} | {object}
    for type_ in types:
        with pytest.raises(CodecError):
            decoder_for(type_)(wire)
    with pytest.raises(CodecError):
        decoder_for(list)(b"\x91" + wire)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x91" * 200_000,
        b"\x81\xa1a" * 200_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x05",
        b"\xdc\x03\xff" * 1000,
    ],
)
def test_nesting_bombs_and_huge_lengths_are_refused(bomb: bytes) -> None:
    for type_ in (*TYPES, object):
        with pytest.raises(CodecError):
            decoder_for(type_)(bomb)


# Promises ----------------------------------------------------------------------------------------------


@given(st.data())
def test_equal_values_of_a_canonical_type_have_equal_bytes(data: st.DataObject) -> None:
    strategies = {str: texts, int: integers, bool: st.booleans(), bytes: st.binary(), date: st.dates()}
    assert set(strategies) == CANONICAL_TYPES
    for type_, strategy in strategies.items():
        one, other = data.draw(strategy), data.draw(strategy)
        assert (encoder_for(type_)(one) == encoder_for(type_)(other)) is (one == other)


def test_threads_share_the_functions() -> None:
    given: list[Any] = [[n, str(n), (n, n / 3), {n}, {(n,): Decimal(n)}] for n in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(there_and_back, given)) == given


def test_the_functions_of_a_type_are_made_once() -> None:
    assert all(encoder_for(t) is encoder_for(t) and decoder_for(t) is decoder_for(t) for t in TYPES)
