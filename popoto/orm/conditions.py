"""What a filter asks of the server and what it leaves to Python; the lookups of fields without an index.

A field without an index has its value read from each candidate: by the server where its bytes can be compared there
(lua/lib_where.lua, `raw` and `value`), and by Python for the rest, after the server has dropped what cannot match.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from operator import ge, gt, le, lt
from typing import TYPE_CHECKING, Any

from popoto.exceptions import QueryException
from popoto.orm.codec import CANONICAL_TYPES
from popoto.orm.condition_trees import NOTHING, any_of
from popoto.orm.keys import index_text
from popoto.orm.tagged import tag_prefix

if TYPE_CHECKING:
    from popoto.orm.fields.base import Field

RANGES = ("gt", "gte", "lt", "lte", "between")
RANGE_TYPES: frozenset[type] = frozenset({int, float, Decimal, date, datetime, time})
_NUMBERS = (int, float, Decimal)
_EXACT_INT = 2**53  # the server's numbers are doubles: from here on neighbours are one

Bound = tuple[Any, bool]
"""(value, exclusive)."""
Steps = Generator[Any, Any, Any]


@dataclass(slots=True)  # not frozen: those take three times as long to make, and each query makes several
class Condition:
    """What a filter asks of the server, and what it leaves to Python.

    Attributes:
        server: a tree of lib_where.lua; with a `test` it may let through too many records, never too few.
        field: the field that `test` looks at.
        test: decides on the decoded value; None when `server` is exact.
        shared: a set; while it is empty `server` is exact all the same.
        loose: with `shared` or `shared_elsewhere`: what to ask instead of `server` when it is not, before `test`.
        first: returns steps that fill in `server` (in place) from an answer that is needed before.
        joined: the same for where it is not needed before: returns steps, and a test of the value that is right after
            them.
        shared_elsewhere: such sets as `shared` of a related model.
        near: the centre and radius behind `server`, of a GeoField.
        holds: where `server` is what an index knows: the same of the value. A record whose value is another one, for
            somebody wrote it around the index, is left out when it is read.
    """

    server: list[Any]
    field: str = ""
    test: Callable[[Any], bool] | None = None
    shared: str | None = None
    loose: list[Any] | None = None
    near: Any = None
    first: Callable[[], Steps] | None = None
    joined: Callable[[], tuple[Callable[[], Steps], Callable[[Any], bool]]] | None = None
    shared_elsewhere: tuple[str, ...] = ()
    holds: Callable[[Any], bool] | None = None


def indexed_as(*values: Any) -> Callable[[Any], bool]:
    """Return the test that an index knows a stored value by the same text as one of these."""
    wanted = frozenset(values)

    def holds(stored: Any) -> bool:
        return stored in wanted or (stored is not None and any(_same_text(stored, value) for value in wanted))

    return holds


def _same_text(stored: Any, value: Any) -> bool:
    return value is not None and index_text(stored) == index_text(value)


def plain_lookups(type_: type) -> tuple[str, ...]:
    """Return the lookups of a field of this type without an index."""
    return ("", "in", "isnull", *RANGES) if type_ in RANGE_TYPES else ("", "in", "isnull")


def plain_condition(field: Field, lookup: str, value: Any) -> Condition:
    """Return what a lookup asks of a field without an index.

    Raises: QueryException: the value does not fit.
    """
    if lookup == "isnull":
        none = ["raw", field.name, field.encode(None), *_missing(field, lambda default: default is None)]
        return Condition(none if truth(field, value) else ["not", none])
    if lookup == "in":
        return _one_of(field, many_values(field, value))
    if lookup == "":
        return _equal(field, field.filter_value(value))
    low, high = bounds(field, lookup, value)
    return _in_range(field, low, high)


def _missing(field: Field, satisfied: Callable[[Any], bool]) -> list[bool]:
    """Return [False], which `raw` takes as "or it is missing", where the default satisfies: so does a record without
    the field, which reads as that."""
    return [False] if not callable(field.default) and satisfied(field.default) else []


def _equal(field: Field, value: Any) -> Condition:
    if value is None or field.type in CANONICAL_TYPES:
        return Condition(["raw", field.name, field.encode(value), *_missing(field, lambda d: bool(d == value))])

    def test(stored: Any) -> bool:
        return bool(stored == value)

    server = equal_by_value(field, value, test)
    return Condition(["all"], field.name, test) if server is None else Condition(server)


def equal_by_value(field: Field, value: Any, test: Callable[[Any], bool]) -> list[Any] | None:
    """Return the condition that the stored value equals one that is not None; None where only Python can tell."""
    if field.type not in RANGE_TYPES or field._own_codec:
        return None
    if _is_nan(value):
        return NOTHING
    zone = "any" if field.type not in (datetime, time) else "naive" if value.tzinfo is None else "zoned"
    return range_by_value(field, (value, False), (value, False), test, zone)


def _one_of(field: Field, values: list[Any]) -> Condition:
    if field.type in CANONICAL_TYPES or not any(value is not None for value in values):
        packed = dict.fromkeys(field.encode(value) for value in values)
        return Condition(["raw", field.name, *packed, *_missing(field, lambda default: default in values)])

    def test(stored: Any) -> bool:
        return stored in values

    found = [_equal(field, value) for value in values]
    if any(condition.test is not None for condition in found):
        return Condition(["all"], field.name, test)
    return Condition(any_of([condition.server for condition in found]))


def _in_range(field: Field, low: Bound | None, high: Bound | None) -> Condition:
    test = range_test(low, high)
    server = range_by_value(field, low, high, test)
    return Condition(["all"], field.name, test) if server is None else Condition(server)


def range_by_value(
    field: Field, low: Bound | None, high: Bound | None, test: Callable[[Any], bool], zone: str = "any"
) -> list[Any] | None:
    """Return the condition that the stored value lies between two ends; None where only Python can tell.

    Args:
        test: the same of a value.
        zone: of datetimes and times: "naive" or "zoned" for those without or with an offset alone.
    """
    if field._own_codec:
        return None
    missing = not callable(field.default) and test(field.default)
    kind, name = field.type, field.name
    if kind is date:
        ends = [*_text_end(field, low), *_text_end(field, high)]
        return ["value", name, "text", *ends, missing, tag_prefix(date)]
    if kind is float:
        return ["value", name, "number", *_float_end(low, below=True), *_float_end(high, below=False), missing, ""]
    if kind is int and all(bound is None or _is_exact(bound[0]) for bound in (low, high)):
        ends = [*_number_end(low), *_number_end(high)]
        return ["value", name, "number", *ends, missing, ""]
    if kind in _NUMBERS:
        ends = [*_decimal_end(low), *_decimal_end(high)]
        doubles = [False if bound is None else _nearest(bound[0]) for bound in (low, high)]
        return ["between", name, kind.__name__, *ends, missing, *doubles, zone, ""]
    ends = [*_moment_end(low), *_moment_end(high)]
    return ["between", name, kind.__name__, *ends, missing, False, False, zone, tag_prefix(kind)]


def _is_exact(value: Any) -> bool:
    """Return True when comparing the doubles of ints with it decides as comparing the ints does."""
    return type(value) in (int, float) and (-_EXACT_INT < value < _EXACT_INT or value in (math.inf, -math.inf))


def _is_nan(value: Any) -> bool:
    return bool(value.is_nan()) if isinstance(value, Decimal) else bool(value != value)


def _nearest(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _number_end(bound: Bound | None) -> list[Any]:
    return [False, False] if bound is None else [float(bound[0]), bound[1]]


def _float_end(bound: Bound | None, below: bool) -> list[Any]:
    """Return a bound as the double beside it: no double lies between the two."""
    if bound is None:
        return [False, False]
    nearest = _nearest(bound[0])
    if nearest == bound[0]:
        return [nearest, bound[1]]
    return [nearest, (nearest < bound[0]) is below]


def _decimal_end(bound: Bound | None) -> list[Any]:
    return [False, False] if bound is None else [str(Decimal(bound[0])), bound[1]]


def _moment_end(bound: Bound | None) -> list[Any]:
    """Return a bound as [seconds, microseconds] in UTC, as lua/lib_where_between.lua counts them."""
    if bound is None:
        return [False, False]
    value = bound[0]
    offset = value.utcoffset() or timedelta()
    if isinstance(value, datetime):
        moment = value.replace(tzinfo=None) - datetime(1970, 1, 1) - offset
        return [[moment.days * 86400 + moment.seconds, moment.microseconds], bound[1]]
    seconds = (value.hour * 60 + value.minute) * 60 + value.second - (offset.days * 86400 + offset.seconds)
    return [[seconds, value.microsecond], bound[1]]


def _text_end(field: Field, bound: Bound | None) -> list[Any]:
    """Return a date as its stored text."""
    return [False, False] if bound is None else [field.encode(bound[0])[len(tag_prefix(date)) + 1 :], bound[1]]


def bounds(field: Field, lookup: str, value: Any) -> tuple[Bound | None, Bound | None]:
    """Return the ends of a range lookup.

    Raises: QueryException: the value does not fit.
    """
    if lookup == "between":
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise QueryException(f"filter({field.name}__between=...): expected (low, high), got {value!r}.")
        return (_end(field, value[0]), False), (_end(field, value[1]), False)
    wanted = _end(field, value)
    low = (wanted, lookup == "gt") if lookup in ("gt", "gte") else None
    return low, (wanted, lookup == "lt") if lookup in ("lt", "lte") else None


def _end(field: Field, value: Any) -> Any:
    if value is None or (value.is_nan() if isinstance(value, Decimal) else value != value):
        raise QueryException(f"filter({field.name}...): expected a {field.type.__name__}, got {value!r}.")
    if field.type in _NUMBERS and type(value) in _NUMBERS:
        return value
    return field.filter_value(value)


def comparable(value: Any) -> Any:
    """Return a value that compares with others of its field: naive datetimes and times count as UTC, as their scores
    do."""
    if isinstance(value, (datetime, time)) and value.tzinfo is None:
        return value.replace(tzinfo=timezone.utc)
    return value


def range_test(low: Bound | None, high: Bound | None) -> Callable[[Any], bool]:
    """Return the test of a value between two ends; None is never between."""
    least: Any = None if low is None else comparable(low[0])
    most: Any = None if high is None else comparable(high[0])
    above, below = gt if low and low[1] else ge, lt if high and high[1] else le
    if isinstance(least, (datetime, time)) or isinstance(most, (datetime, time)):

        def test(value: Any) -> bool:
            value = comparable(value)
            return (
                value is not None and (low is None or above(value, least)) and (high is None or below(value, most))
            )  # fmt: skip

        return test
    if high is None:
        return lambda value: value is not None and above(value, least)
    if low is None:
        return lambda value: value is not None and below(value, most)
    return lambda value: value is not None and above(value, least) and below(value, most)


def many_values(field: Field, values: Any) -> list[Any]:
    """Return the values of an `__in` filter.

    Raises: QueryException: it is no collection (a text would be taken letter by letter).
    """
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
        raise QueryException(f"filter({field.name}__in=...): expected a list of values, got {values!r}.")
    return [field.filter_value(value) for value in values]


def truth(field: Field, value: Any) -> bool:
    """Return the value of an `__isnull` filter.

    Raises: QueryException: it is neither True nor False.
    """
    if not isinstance(value, bool):
        raise QueryException(f"filter({field.name}__isnull=...): expected True or False, got {value!r}.")
    return value
