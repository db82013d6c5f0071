"""What a filter asks of the server and what it leaves to Python; the lookups of fields without an index.

A field without an index has its value read from each candidate: by the server where its bytes can be compared there
(lua/lib_where.lua, `raw` and `value`), and by Python for the rest, after the server has dropped what cannot match.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from popoto.exceptions import QueryException
from popoto.orm.codec import CANONICAL_TYPES
from popoto.orm.tagged import tag_prefix

if TYPE_CHECKING:
    from popoto.orm.fields.base import Field

RANGES = ("gt", "gte", "lt", "lte", "between")
RANGE_TYPES: frozenset[type] = frozenset({int, float, Decimal, date, datetime, time})
_NUMBERS = (int, float, Decimal)
_EXACT_INT = 2**53  # the server's numbers are doubles: from here on neighbours are one

Bound = tuple[Any, bool]
"""(value, exclusive)."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a filter asks of the server, and what it leaves to Python.

    Attributes:
        server: a tree of lib_where.lua; with a `test` it may let through too many records, never too few.
        field: the field that `test` looks at.
        test: decides on the decoded value; None when `server` is exact.
        shared: a set; while it is empty `server` is exact all the same.
        loose: with `shared`: what to ask instead of `server` when it is not, before `test`.
        before: returns steps that fill in what `server` needs to know.
        first: returns steps that fill in `server` (in place) from an answer that is needed before.
        shared_elsewhere: such sets of a related model; while they are empty `first` is not needed.
        near: the centre and radius behind `server`, of a GeoField.
    """

    server: list[Any]
    field: str = ""
    test: Callable[[Any], bool] | None = None
    shared: str | None = None
    loose: list[Any] | None = None
    near: Any = None
    before: Callable[[], Generator[Any, Any, None]] | None = None
    first: Callable[[], Generator[Any, Any, None]] | None = None
    shared_elsewhere: tuple[str, ...] = ()


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

    if field.type not in RANGE_TYPES:
        return Condition(["all"], field.name, test)
    server, exact = _value_range(field, (value, False), (value, False), test)
    return Condition(server) if exact else Condition(server, field.name, test)


def _one_of(field: Field, values: list[Any]) -> Condition:
    if field.type in CANONICAL_TYPES or not any(value is not None for value in values):
        packed = dict.fromkeys(field.encode(value) for value in values)
        return Condition(["raw", field.name, *packed, *_missing(field, lambda default: default in values)])
    return Condition(["all"], field.name, lambda stored: stored in values)


def _in_range(field: Field, low: Bound | None, high: Bound | None) -> Condition:
    test = range_test(low, high)
    server, exact = _value_range(field, low, high, test)
    return Condition(server) if exact else Condition(server, field.name, test)


def _value_range(
    field: Field, low: Bound | None, high: Bound | None, test: Callable[[Any], bool]
) -> tuple[list[Any], bool]:
    """Return (condition of lib_where.lua, is it exact): never too few."""
    if field._own_codec:
        return ["all"], False
    missing = not callable(field.default) and test(field.default)
    if field.type in _NUMBERS:
        exact = field.type is not Decimal and all(b is None or _is_double(b[0]) for b in (low, high))
        ends = [*_number_end(low, exact), *_number_end(high, exact)]
        return ["value", field.name, "number", *ends, missing, ""], exact
    exact = field.type is date
    ends = [*_text_end(field, low, exact), *_text_end(field, high, exact)]
    return ["value", field.name, "text", *ends, missing, tag_prefix(field.type)], exact


def _is_double(value: Any) -> bool:
    """Return True when comparing doubles with it decides as comparing the values does."""
    return type(value) is float or (type(value) is int and -_EXACT_INT < value < _EXACT_INT)


def _number_end(bound: Bound | None, exact: bool) -> list[Any]:
    if bound is None:
        return [False, False]
    try:
        number = float(bound[0])
    except OverflowError:
        number = float("inf") if bound[0] > 0 else float("-inf")
    return [number, bound[1] and exact]


def _text_end(field: Field, bound: Bound | None, exact: bool) -> list[Any]:
    """Return a bound as the stored text of a naive value; the server lets through what is stored with an offset."""
    if bound is None:
        return [False, False]
    value = bound[0]
    if getattr(value, "tzinfo", None) is not None:
        if isinstance(value, time):
            return [False, False]  # moved to another offset it may lie on another day
        try:
            value = value.astimezone(timezone.utc).replace(tzinfo=None)
        except OverflowError:
            return [False, False]
    return [field.encode(value)[len(tag_prefix(field.type)) + 1 :], bound[1] and exact]


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
    least = None if low is None else comparable(low[0])
    most = None if high is None else comparable(high[0])

    def test(value: Any) -> bool:
        if value is None:
            return False
        value = comparable(value)
        if low is not None and not (value > least if low[1] else value >= least):
            return False
        return high is None or bool(value < most if high[1] else value <= most)

    return test


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
