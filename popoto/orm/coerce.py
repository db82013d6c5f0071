"""Values given to a field, turned into the field's declared type when nothing is lost by it.

`coercer_for(int)` gives a function that returns an int unchanged, makes 5 of `"5"` and of `5.0`, and refuses
`3.7`. The rule of every conversion is that the given value could be had back from the result: a fraction that
would be cut, a text that only looks like a flag (`"false"`), bytes that would turn into the text of their repr
are errors, not values. `None` means "no value" and never arrives here: whether it is allowed is the field's own
question.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from functools import cache
from math import isnan
from numbers import Real
from reprlib import Repr
from typing import Any, NoReturn
from uuid import UUID

__all__ = ["CoercionError", "coercer_for", "describe"]

EXACT_FLOAT_INTS = 2**53  # up to here every integer has a float of its own
MAX_DIGITS = 4300  # CPython's own limit for turning text into integers (it guards against quadratic time)

_SIGNED_DIGITS = re.compile(r"[+-]?[0-9]+", re.ASCII)
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_ISO_TIME = re.compile(
    r"(?P<clock>[0-9]{2}:[0-9]{2}(:[0-9]{2})?)([.,](?P<fraction>[0-9]+))?"
    r"(?P<zone>Z|z|[+-][0-9]{2}:[0-9]{2}(:[0-9]{2})?)?",
    re.ASCII,
)

_short = Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


class CoercionError(ValueError):
    """A value cannot become the declared type without loss; the text says what was given and expected."""


def describe(value: object) -> str:
    """Return `value` and its type for an error message, cut to a readable length; never raises."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if value is None:
        return "None"
    with suppress(Exception):  # a foreign __repr__ may raise anything, and this text is only an explanation
        return f"{_short.repr(value)} ({name})"
    return f"a value of type {name}"


@cache
def coercer_for(type_: type) -> Callable[[Any], Any]:
    """Return the function that turns a given value into `type_`.

    Returns: a function that gives back the value itself when its type is exactly `type_`, else an equal value of
        that type. `object` accepts everything. A type without rules of its own accepts its instances only.
    Raises: the function raises CoercionError when the value cannot become `type_` without loss.
    """
    if type_ is object:
        return _unchanged
    convert = _CONVERTERS.get(type_) or _instance_checker(type_)

    def coerce(value: Any) -> Any:
        return value if type(value) is type_ else convert(value)

    return coerce


def _unchanged(value: Any) -> Any:
    return value


def _instance_checker(type_: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        return value if isinstance(value, type_) else _refuse(type_, value)

    return check


def _refuse(type_: type, value: object, why: str = "") -> NoReturn:
    raise CoercionError(f"expected {type_.__name__}, got {describe(value)}" + (f": {why}" if why else ""))


# Numbers -----------------------------------------------------------------------------------------------


def _to_int(value: Any) -> int:
    if isinstance(value, int):  # bool, IntEnum and other subclasses
        return int.__int__(value)
    if isinstance(value, float):
        if value.is_integer():
            return int(value)
        _refuse(int, value, "it has a fraction" if abs(value) < float("inf") else "it is not a finite number")
    if isinstance(value, Decimal):
        if not value.is_finite():
            _refuse(int, value, "it is not a finite number")
        if value.adjusted() > MAX_DIGITS:
            _refuse(int, value, f"it has more than {MAX_DIGITS} digits")
        if value != value.to_integral_value():
            _refuse(int, value, "it has a fraction")
        return int(value)
    if isinstance(value, str):
        return _int_of_text(int, value)
    return _index_of(int, value)


def _int_of_text(type_: type, text: str) -> int:
    digits = text.strip()
    if not _SIGNED_DIGITS.fullmatch(digits):
        _refuse(type_, text, "it is not a whole number in decimal digits")
    if len(digits) > MAX_DIGITS:
        _refuse(type_, text, f"it has more than {MAX_DIGITS} digits")
    return int(digits)


def _index_of(type_: type, value: Any) -> int:
    """Read an integer of another kind (numpy's, for one), which announces itself by `__index__`."""
    try:
        return operator.index(value)
    except TypeError:
        _refuse(type_, value)


def _to_float(value: Any) -> float:
    if isinstance(value, float):  # numpy.float64 and other subclasses
        return float.__float__(value)
    if isinstance(value, str):
        return _float_of_text(value)
    if isinstance(value, Decimal):
        return _float_of_decimal(value)
    if isinstance(value, Real) and not isinstance(value, int):  # Fraction, numpy.float32
        number = float(value)
        return number if number == value or isnan(number) else _refuse(float, value, "no float equals it exactly")
    return _float_of_int(value, _index_of(float, value))


def _float_of_int(given: object, whole: int) -> float:
    if abs(whole) <= EXACT_FLOAT_INTS:
        return float(whole)
    try:
        number = float(whole)
    except OverflowError:
        _refuse(float, given, "it is too large for a float")
    return number if number == whole else _refuse(float, given, "no float equals it exactly")


def _float_of_text(text: str) -> float:
    stripped = text.strip()
    if _SIGNED_DIGITS.fullmatch(stripped):
        return _float_of_int(text, _int_of_text(float, text))
    try:
        number = float(stripped)
    except ValueError:
        _refuse(float, text, "it is not a number")
    if "_" in stripped:
        _refuse(float, text, "it is not a number")
    if abs(number) == float("inf") and "inf" not in stripped.lower():
        _refuse(float, text, "it is too large for a float")
    return number


def _float_of_decimal(value: Decimal) -> float:
    if value.is_snan():
        _refuse(float, value, "a float has no signaling NaN")
    number = float(value)
    # Either the float is the very number, or its shortest text is: Decimal("0.1") and 0.1 mean each other.
    if value.is_nan() or Decimal.from_float(number) == value or Decimal(repr(number)) == value:
        return number
    _refuse(float, value, "no float equals it exactly")


def _to_decimal(value: Any) -> Decimal:
    if isinstance(value, Decimal):
        return Decimal(value)
    if isinstance(value, str):
        try:
            if "_" not in value:
                return Decimal(value)
        except InvalidOperation:
            pass
        _refuse(Decimal, value, "it is not a decimal number")
    if isinstance(value, float):
        return Decimal(repr(float.__float__(value)))
    return Decimal(_index_of(Decimal, value))


def _to_bool(value: Any) -> bool:
    if isinstance(value, str):
        _refuse(bool, value, "a text is not read as a flag; pass True or False")
    number = _index_of(bool, value)
    return bool(number) if number in (0, 1) else _refuse(bool, value, "only 0 and 1 stand for False and True")


# Text and bytes ----------------------------------------------------------------------------------------


def _to_str(value: Any) -> str:
    if isinstance(value, str):  # an Enum of str, for one: its text, not its name
        return str.__str__(value)
    if isinstance(value, bool):
        _refuse(str, value, "pass 'True' or 'False' if that is the text you mean")
    if isinstance(value, (bytes, bytearray, memoryview)):
        _refuse(str, value, "decode it first")
    if isinstance(value, int):
        try:
            return int.__repr__(value)
        except ValueError:
            _refuse(str, value, f"it has more than {MAX_DIGITS} digits")
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    _refuse(str, value)


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return memoryview(value).tobytes()  # an exact bytes, whatever the subclass defines
    _refuse(bytes, value, "encode it first" if isinstance(value, str) else "")


# Containers --------------------------------------------------------------------------------------------


def _to_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else _refuse(list, value)


def _to_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else _refuse(tuple, value)


def _to_set(value: Any) -> set[Any]:
    if not isinstance(value, (set, frozenset, list, tuple)):
        _refuse(set, value)
    try:
        members = set(value)
    except TypeError as error:
        _refuse(set, value, str(error))
    if len(members) != len(value):
        _refuse(set, value, "it holds duplicates")
    return members


def _to_dict(value: Any) -> dict[Any, Any]:
    return dict(value) if isinstance(value, Mapping) else _refuse(dict, value)


# Dates and times ---------------------------------------------------------------------------------------


def _to_date(value: Any) -> date:
    if isinstance(value, datetime):
        _refuse(date, value, "the time of day would be lost; pass value.date()")
    if isinstance(value, date):
        return date(value.year, value.month, value.day)
    if isinstance(value, str):
        return _date_of_text(date, value, value.strip())
    _refuse(date, value)


def _to_datetime(value: Any) -> datetime:
    if isinstance(value, datetime):
        return datetime.combine(_exact_date(value), _to_time(value.timetz()))
    if isinstance(value, date):
        _refuse(datetime, value, "it has no time of day; pass datetime.combine(value, time())")
    if not isinstance(value, str):
        _refuse(datetime, value)
    text = value.strip()
    if len(text) < 11 or text[10] not in "Tt ":
        _refuse(datetime, value, "it is not an ISO 8601 date with a time, such as 2024-05-06T07:08:09")
    return datetime.combine(_date_of_text(datetime, value, text[:10]), _time_of_text(datetime, value, text[11:]))


def _exact_date(value: date) -> date:
    return date(value.year, value.month, value.day)


def _to_time(value: Any) -> time:
    if isinstance(value, time):
        return time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold)
    if isinstance(value, str):
        return _time_of_text(time, value, value.strip())
    _refuse(time, value, "pass value.timetz()" if isinstance(value, datetime) else "")


def _date_of_text(type_: type, given: str, text: str) -> date:
    if not _ISO_DATE.fullmatch(text):
        _refuse(type_, given, "it is not an ISO 8601 date, such as 2024-05-06")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        _refuse(type_, given, str(error))


def _time_of_text(type_: type, given: str, text: str) -> time:
    """Read HH:MM[:SS[.f]][Z or +HH:MM[:SS]]; Python 3.10's own reader knows no `Z` and two lengths of fractions."""
    match = _ISO_TIME.fullmatch(text)
    if not match:
        _refuse(type_, given, "it is not an ISO 8601 time, such as 07:08:09.5+02:00")
    clock, fraction, zone = match["clock"], (match["fraction"] or "").rstrip("0"), match["zone"] or ""
    if len(fraction) > 6:
        _refuse(type_, given, "it is finer than microseconds")
    if fraction and len(clock) == 5:
        _refuse(type_, given, "a fraction needs seconds before it")
    seconds = clock if len(clock) == 8 else f"{clock}:00"
    try:
        return time.fromisoformat(f"{seconds}.{fraction:0<6}" + ("+00:00" if zone in ("Z", "z") else zone))
    except ValueError as error:
        _refuse(type_, given, str(error))


_CONVERTERS: dict[type, Callable[[Any], Any]] = {
    int: _to_int,
    float: _to_float,
    Decimal: _to_decimal,
    bool: _to_bool,
    str: _to_str,
    bytes: _to_bytes,
    list: _to_list,
    tuple: _to_tuple,
    set: _to_set,
    dict: _to_dict,
    date: _to_date,
    datetime: _to_datetime,
    time: _to_time,
}
