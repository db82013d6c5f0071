"""Any value as one msgpack object: what msgpack has no form for is a tagged map of two entries, at any depth.

    Decimal    {"__Decimal__": true, "as_encodable": "1.10"}
    int        {"__int__": true, "as_encodable": "36893488147419103232"}     only outside -2**63 .. 2**64-1
    datetime   {"__datetime__": true, "as_encodable": "20240506T07:08:09.000000+02:00"}   no offset when naive
    date       {"__date__": true, "as_encodable": "20240506"}
    time       {"__time__": true, "as_encodable": "07:08:09.000000"}         offset as for datetime
    tuple      {"__tuple__": true, "as_encodable": [...]}
    set        {"__set__": true, "as_encodable": [...]}
    dict       {"__dict__": true, "as_encodable": [[key, value], ...]}       where a plain map would not do

An aware datetime keeps its instant and its offset, not the name of its zone. A subclass inside a container (an
Enum of str, a namedtuple, a defaultdict) is stored as the builtin that it extends, which it equals.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, NoReturn

import msgpack

from popoto.orm.coerce import coercer_for, describe

TYPE_NAMES: Final = "bool, int, float, Decimal, str, bytes, list, tuple, set, dict, date, datetime, time"
DAMAGE: Final = (ValueError, TypeError, ArithmeticError, RecursionError, MemoryError, msgpack.UnpackException)
"""What reading damaged bytes can raise underneath."""

_BODY: Final = "as_encodable"
_BODY_BYTES: Final = _BODY.encode()
_MAP_OF_TWO: Final = b"\x82"
_LONG_ARRAY: Final = b"\xdd"


class CodecError(ValueError):
    """A value has no wire form, or bytes are not one of the declared type; the text says why."""


# Encoding ----------------------------------------------------------------------------------------------


def encode_any(value: Any) -> bytes:
    """Return the bytes of a value of any encodable type. Raises: CodecError."""
    try:
        packed: bytes = msgpack.packb(_plain(value), use_bin_type=True, default=_plain_big_int)
    except CodecError:
        raise
    except UnicodeEncodeError as error:
        raise lone_surrogate(error) from None
    except Exception as error:  # from within the value: its depth, its size, a time zone class of the user's
        if isinstance(error, RecursionError) or "recursion" in str(error):
            raise _too_deep(value) from None
        raise CodecError(f"{describe(value)} cannot be stored: {error}") from error
    return packed


def _too_deep(value: object) -> CodecError:
    kind = type(value).__name__
    return CodecError(f"the {kind} is nested hundreds of levels deep, or contains itself, and cannot be stored")


def lone_surrogate(error: UnicodeEncodeError) -> CodecError:
    """Return the error that says where a text is not UTF-8."""
    found = f"{error.object[error.start]!a} at position {error.start}"
    return CodecError(f"the text holds a lone surrogate, {found}, which UTF-8 has no form for; use bytes instead")


def _plain(value: Any) -> Any:
    """Return `value` in terms of what msgpack packs as it is, everything else tagged."""
    kind = type(value)
    if kind in _NATIVE:
        return value
    if kind is list:
        return value if _NATIVE.issuperset(map(type, value)) else _plain_items(value)
    if kind is dict:
        return _plain_dict(value)
    if kind in TO_BODY:
        tag, to_body = TO_BODY[kind]
        return {tag: True, _BODY: to_body(value)}
    for base in _BASES:
        if isinstance(value, base):
            return _plain(coercer_for(base)(value))
    raise CodecError(f"{describe(value)} cannot be stored; use None or one of {TYPE_NAMES}")


def _plain_items(value: Any) -> list[Any]:
    return [_plain(item) for item in value]


def _plain_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    """Return a map if the keys are str and 64-bit int and none could belong to a tag, else tagged pairs."""
    if _BODY in value or not all(map(_is_map_key, value)):
        return {"__dict__": True, _BODY: [[_plain(k), _plain(v)] for k, v in value.items()]}
    if _NATIVE.issuperset(map(type, value.values())):
        return value
    return {k: _plain(v) for k, v in value.items()}


def _is_map_key(key: object) -> bool:
    return type(key) is str or (type(key) is int and -(2**63) <= key < 2**64)


def _plain_big_int(value: Any) -> dict[str, Any]:
    """Called by msgpack for what it cannot pack: after `_plain`, only an int outside 64 bits."""
    try:
        return {"__int__": True, _BODY: int.__repr__(value)}
    except ValueError as error:  # more digits than sys.get_int_max_str_digits()
        raise CodecError(f"an int of {value.bit_length()} bits is too long to be stored: {error}") from None


def tag_prefix(type_: type) -> bytes:
    """Return the constant bytes before the text of a tag whose body is a text."""
    empty: bytes = msgpack.packb({TO_BODY[type_][0]: True, _BODY: ""})
    return empty[:-1]


# Decoding ----------------------------------------------------------------------------------------------


def decode_any(data: bytes) -> Any:
    """Return what the bytes say they are. Raises: CodecError, and nothing else."""
    try:
        return _unpack(data)
    except CodecError:
        raise
    except DAMAGE as error:
        raise _damaged(data, error) from error


def decode_joined(text: bytes, count: int) -> list[Any]:
    """Return `count` values that stand one behind the other with a nil between each two; as `decode_any` of each.

    Bytes that are damaged may run over into the next value: then they eat the nil, or shift it, and that shows.

    Raises: CodecError, and nothing else: some of it is damaged.
    """
    if count == 0:
        return []
    items = decode_any(_LONG_ARRAY + (2 * count - 1).to_bytes(4, "big") + text)
    if items[1::2].count(None) != count - 1:
        raise CodecError(f"{count} values are not what stands between {count - 1} nils")
    return items[::2]  # type: ignore[no-any-return]


def decode_dict(data: bytes) -> Any:
    """Return what the bytes of a dict field hold; a map that only looks like a tag is the user's dict.

    Stored here, such a dict is tagged itself. One that is not comes from a store older than the tag of dicts.
    """
    if not data.startswith(_MAP_OF_TWO) or _BODY_BYTES not in data:
        return decode_any(data)
    try:
        entries = msgpack.unpackb(data, ext_hook=_refuse_ext, strict_map_key=False)
        if _BODY in entries and entries.get("__dict__") is True:
            return _unpack(data)
        return {key: _unpack(msgpack.packb(value)) for key, value in entries.items()}
    except CodecError:
        raise
    except DAMAGE as error:
        raise _damaged(data, error) from error


def _unpack(data: bytes) -> Any:
    # timestamp=3: msgpack's own timestamp, which another program may have written, reads as an aware datetime
    return msgpack.unpackb(data, object_hook=_untag, ext_hook=_refuse_ext, strict_map_key=False, timestamp=3)


def _damaged(data: bytes, error: BaseException) -> CodecError:
    why = str(error) or type(error).__name__
    return CodecError(f"{len(data)} bytes, starting {data[:24]!r}, are not one whole msgpack value: {why}")


def _refuse_ext(code: int, data: bytes) -> NoReturn:
    raise CodecError(f"found a msgpack extension of type {code}, which no field writes")


def _untag(found: dict[Any, Any]) -> Any:
    """Return the value that a map stands for if it has the exact shape of a tag, else the map."""
    if len(found) == 2 and _BODY in found:
        for tag, mark in found.items():
            if mark is True and tag in FROM_BODY:
                return FROM_BODY[tag](found[_BODY])
    return found


# Bodies of the tags ------------------------------------------------------------------------------------

_NAIVE_CLOCK: Final = len("HH:MM:SS.ffffff")
_CLOCK_LENGTHS: Final = {_NAIVE_CLOCK + len(zone) for zone in ("", "+HH:MM", "+HH:MM:SS", "+HH:MM:SS.ffffff")}


def _datetime_text(value: datetime) -> str:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise CodecError(f"{describe(value)} has a time zone without an offset; use an offset or no time zone")
    iso = value.isoformat("T", "microseconds")
    return f"{iso[:4]}{iso[5:7]}{iso[8:]}"


def _datetime_of(body: Any) -> datetime:
    day, _, clock = _text_of("datetime", body).partition("T")
    if len(clock) not in _CLOCK_LENGTHS:
        _bad_body("datetime", body)
    naive = datetime.fromisoformat(f"{_iso_day(day)}T{clock[:_NAIVE_CLOCK]}")
    return naive.replace(tzinfo=_offset_of(clock[_NAIVE_CLOCK:])) if len(clock) > _NAIVE_CLOCK else naive


def _date_text(value: date) -> str:
    iso = value.isoformat()
    return f"{iso[:4]}{iso[5:7]}{iso[8:]}"


def _date_of(body: Any) -> date:
    return date.fromisoformat(_iso_day(_text_of("date", body)))


def _iso_day(day: str) -> str:
    padded = day.zfill(8)  # years before 1000 were once written without their zeros
    return f"{padded[:4]}-{padded[4:6]}-{padded[6:]}"


def _time_text(value: time) -> str:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise CodecError(f"{describe(value)}: the offset of its time zone depends on a date; use a fixed offset")
    return value.isoformat("microseconds")


def _time_of(body: Any) -> time:
    if len(_text_of("time", body)) not in _CLOCK_LENGTHS:
        _bad_body("time", body)
    naive = time.fromisoformat(body[:_NAIVE_CLOCK])
    return naive.replace(tzinfo=_offset_of(body[_NAIVE_CLOCK:])) if len(body) > _NAIVE_CLOCK else naive


def _offset_of(text: str) -> timezone:
    """Read +HH:MM[:SS[.ffffff]]; Python's own reader drops the microseconds of an offset under a second."""
    if text == "+00:00":
        return timezone.utc
    clock = time.fromisoformat(text[1:])
    if text[0] not in "+-" or clock.tzinfo is not None:
        raise CodecError(f"found {describe(text)} as the offset of a time zone")
    offset = timedelta(0, clock.second, clock.microsecond, 0, clock.minute, clock.hour)
    return timezone(offset if text[0] == "+" else -offset)


def _decimal_of(body: Any) -> Decimal:
    return Decimal(_text_of("Decimal", body))


def _int_of(body: Any) -> int:
    digits = _text_of("int", body)
    if not (digits.isascii() and digits.removeprefix("-").isdigit()):
        _bad_body("int", body)
    return int(digits)


def _text_of(name: str, body: Any) -> str:
    return body if type(body) is str else _bad_body(name, body)


def _tuple_of(body: Any) -> tuple[Any, ...]:
    return tuple(body) if type(body) is list else _bad_body("tuple", body)


def _set_of(body: Any) -> set[Any]:
    members = set(body) if type(body) is list else _bad_body("set", body)
    return members if len(members) == len(body) else _bad_body("set", body)


def _dict_of(body: Any) -> dict[Any, Any]:
    if type(body) is not list or not all(type(pair) is list and len(pair) == 2 for pair in body):
        _bad_body("dict", body)
    pairs = dict(body)
    return pairs if len(pairs) == len(body) else _bad_body("dict", body)


def _bad_body(name: str, body: Any) -> NoReturn:
    raise CodecError(f"found {describe(body)} as the content of a {name}")


_NATIVE: Final = frozenset({type(None), bool, int, float, str, bytes})
# A datetime is a date as well, so it comes first.
_BASES: Final = (str, int, float, bytes, list, tuple, dict, set, Decimal, datetime, date, time)
TO_BODY: Final[dict[type, tuple[str, Callable[[Any], Any]]]] = {
    tuple: ("__tuple__", _plain_items),
    set: ("__set__", _plain_items),
    Decimal: ("__Decimal__", str),
    datetime: ("__datetime__", _datetime_text),
    date: ("__date__", _date_text),
    time: ("__time__", _time_text),
}
FROM_BODY: Final[dict[Any, Callable[[Any], Any]]] = {
    "__tuple__": _tuple_of,
    "__set__": _set_of,
    "__dict__": _dict_of,
    "__Decimal__": _decimal_of,
    "__int__": _int_of,
    "__datetime__": _datetime_of,
    "__date__": _date_of,
    "__time__": _time_of,
}
