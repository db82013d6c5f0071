"""SortedField: an ordered set a field (and partition), for ranges, order and limits without reading records."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, ClassVar

from popoto import _clock
from popoto.exceptions import ModelException, QueryException
from popoto.orm.condition_trees import all_of
from popoto.orm.conditions import comparable, range_by_value, range_test
from popoto.orm.db_key import DB_key
from popoto.orm.fields.base import Condition, Field
from popoto.orm.fields.indexed import SCALAR_TYPES
from popoto.orm.fields.key import KeyField
from popoto.orm.keys import ModelKeys, index_part, shared_key
from popoto.orm.slots import Made, Slot

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
_EXACT_INT = 2**53  # a score is a double: from here on neighbours share one
SHARING_TYPES: frozenset[type] = frozenset({int, Decimal, datetime})


def score_of(value: Any) -> float:
    """Return the score of a value: the number; days for a date; Unix seconds for a datetime (naive ones read as UTC).

    Raises: ModelException: NaN.
    """
    kind = type(value)
    if kind is float or kind is int:
        score = float(value) if -_EXACT_INT <= value <= _EXACT_INT else _rounded(value)
    elif isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
        score = (aware - _EPOCH) // _MICROSECOND / 1_000_000
    elif isinstance(value, date):
        score = float(value.toordinal())
    else:
        score = math.nan if value.is_nan() else _rounded(value)
    if score != score:
        raise ModelException("NaN has no place in an order; give a number.")
    return score


def _rounded(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def plain_value(kind: type, score: float) -> Any:
    """Return the value that a score stands for where values of a type share scores: the shortest one.

    A double holds fewer values than an int, a Decimal or a far datetime: 2**53 and 2**53 + 1 have one score.
    """
    if not math.isfinite(score):
        return score
    if kind is Decimal:
        return Decimal(repr(score))
    if kind is datetime:
        try:
            return _EPOCH + timedelta(microseconds=round(score * 1_000_000))
        except OverflowError:  # the score of the last moment rounds up into the year 10000
            return datetime.max.replace(tzinfo=timezone.utc)
    return int(score) if kind is int and score.is_integer() else score


def is_plain(value: Any, score: float) -> bool:
    """Return True when the value is the one that its score stands for."""
    kind = type(value)
    if kind is float or kind is date or (kind is int and -_EXACT_INT <= value <= _EXACT_INT):
        return True
    return bool(comparable(value) == plain_value(kind, score))


def score_text(score: float) -> str:
    """Return a score as Redis reads it, every digit kept."""
    if score in (math.inf, -math.inf):
        return "+inf" if score > 0 else "-inf"
    return repr(score)


class SortedIndex(Field):
    """What SortedField and SortedKeyField share."""

    is_sorted = True
    valid_types: ClassVar[frozenset[type]] = frozenset({int, float, Decimal, date, datetime})
    range_lookups: ClassVar[tuple[str, ...]] = ("", "gt", "gte", "lt", "lte", "between")
    lookups: ClassVar[tuple[str, ...]] = ("", "gt", "gte", "lt", "lte", "between")

    def __init__(
        self,
        *,
        type: type = float,
        partition_by: str | tuple[str, ...] = (),
        auto_now: bool = False,
        auto_now_add: bool = False,
        null: bool = False,
        sort_by: str | tuple[str, ...] | None = None,
        **options: Any,
    ) -> None:
        if options.get("unique") or options.get("indexed"):
            raise ModelException(
                f"{self._label()}: an ordered index cannot be unique; leave unique= and indexed= out, or use a "
                "UniqueField beside it."
            )
        if null:
            raise ModelException(f"{self._label()}: a sorted field cannot be null; leave null= out.")
        if sort_by is not None:
            if partition_by:
                raise ModelException(f"{self._label()}: sort_by= is the old name of partition_by=; give one of them.")
            warnings.warn("sort_by= is deprecated; use partition_by=", DeprecationWarning, stacklevel=3)
            partition_by = sort_by
        self.partition_by = partition_names(self._label(), partition_by)
        self.auto_now, self.auto_now_add = auto_now, auto_now_add
        if (auto_now or auto_now_add) and type not in (int, float, datetime):
            raise ModelException(f"{self._label()}: auto_now needs type int, float or datetime, got {type!r}.")
        super().__init__(type=type, null=False, **options)

    def bind(self, model: Any) -> None:
        require_fields(self, model, "partition_by", self.partition_by)

    def format_value_pre_save(self, value: Any, skip_auto_now: bool = False, **kwargs: Any) -> Any:
        if (self.auto_now and not skip_auto_now) or (self.auto_now_add and value is None):
            return self.now()
        return value

    def now(self) -> Any:
        """Return the current time in the field's type."""
        if self.type is datetime:
            return _clock.moment()
        return self.type(_clock.now())

    # -- index ------------------------------------------------------------------------------------------------------

    def slots(self) -> list[Slot]:
        name, partition = self.name, self.partition_by

        def make(values: Mapping[str, Any]) -> Made | None:
            value = values[name]
            if value is None:
                return None
            score = score_of(value)
            return [index_part(values[p]) for p in partition], not is_plain(value, score), score

        return [Slot(name, "z", self.field_class_key, name, partition, (name,), make)]

    @property
    def sort_by(self) -> tuple[str, ...]:
        """The old name of `partition_by`."""
        warnings.warn("sort_by is deprecated; use partition_by", DeprecationWarning, stacklevel=2)
        return self.partition_by

    @classmethod
    def get_sortedset_db_key(cls, model: Any, field_name: str, *partition_values: Any) -> DB_key:
        """Return the key of the ordered set of a field, of the partition with these values."""
        return cls.get_special_use_field_db_key(model, field_name, *partition_values)

    @classmethod
    def get_partitioned_sortedset_db_key(cls, instance: Any, field_name: str) -> DB_key:
        """Return the key of the ordered set that an instance is in."""
        names = instance._meta.fields[field_name].partition_by
        return cls.get_sortedset_db_key(type(instance), field_name, *(instance.__dict__[name] for name in names))

    @classmethod
    def convert_to_numeric(cls, field: Field, value: Any) -> float:
        """Return the score of a value of the field.

        Raises: ModelException: it is none, or NaN.
        """
        return score_of(field.coerce(value))

    def sorted_set_key(self, keys: ModelKeys, given: Mapping[str, Any], fields: Mapping[str, Field]) -> str:
        """Return the key of the ordered set that a filter's partition names.

        Raises: QueryException: a partition field has no exact filter.
        """
        values = partition_values(self.name, self.partition_by, given, fields)
        return keys.index(self.field_class_key, self.name, *values)

    # -- filters ----------------------------------------------------------------------------------------------------

    def condition(self, keys: ModelKeys, lookup: str, value: Any, given: Mapping[str, Any]) -> Condition:
        low: tuple[Any, bool] | None = None  # (value, exclusive)
        high: tuple[Any, bool] | None = None
        if lookup == "between":
            if not isinstance(value, (tuple, list)) or len(value) != 2:
                raise QueryException(f"filter({self.name}__between=...): expected (low, high), got {value!r}.")
            low, high = (self.range_value(value[0]), False), (self.range_value(value[1]), False)
        else:
            wanted = self.range_value(value)
            if lookup in ("", "gt", "gte"):
                low = (wanted, lookup == "gt")
            if lookup in ("", "lt", "lte"):
                high = (wanted, lookup == "lt")
        key = self.sorted_set_key(keys, given, self.model_fields)
        strict = ["range", key, self._low(low), self._high(high)]
        test = range_test(low, high)
        if self.type not in SHARING_TYPES or (self.type is int and _far_from_sharing(low, high)):
            return Condition(strict, holds=test)
        loose = ["range", key, _inclusive(low, "-inf"), _inclusive(high, "+inf")]
        exact = range_by_value(self, low, high, test)
        shared = shared_key(key)
        if exact is None:
            return Condition(strict, self.name, test, shared=shared, loose=loose, holds=test)
        return Condition(strict, shared=shared, loose=all_of([loose, exact]), holds=test)

    def _low(self, bound: tuple[Any, bool] | None) -> str:
        """Return the bound for plain values: inclusive when the value that the score stands for satisfies it."""
        if bound is None:
            return "-inf"
        score = score_of(bound[0])
        if self.type in SHARING_TYPES:
            plain, wanted = plain_value(self.type, score), comparable(bound[0])
            open_end = not (plain > wanted if bound[1] else plain >= wanted)
        else:
            open_end = bound[1]
        return "(" + score_text(score) if open_end else score_text(score)

    def _high(self, bound: tuple[Any, bool] | None) -> str:
        if bound is None:
            return "+inf"
        score = score_of(bound[0])
        if self.type in SHARING_TYPES:
            plain, wanted = plain_value(self.type, score), comparable(bound[0])
            open_end = not (plain < wanted if bound[1] else plain <= wanted)
        else:
            open_end = bound[1]
        return "(" + score_text(score) if open_end else score_text(score)

    def range_value(self, value: Any) -> Any:
        """Return a bound as the field's type; a float bound on an int field stays as it is.

        Raises: QueryException: it is None, NaN or of another kind.
        """
        if value is None or (value.is_nan() if isinstance(value, Decimal) else value != value):
            raise QueryException(f"filter({self.name}...): expected a {self.type.__name__}, got {value!r}.")
        if self.type in (int, float, Decimal) and type(value) in (int, float, Decimal):
            return value
        return self.filter_value(value)

    model_fields: Mapping[str, Field] = {}


def _far_from_sharing(*bounds: tuple[Any, bool] | None) -> bool:
    """Return True when whole numbers on either side of these ends have scores of their own."""
    return all(bound is None or -_EXACT_INT < bound[0] < _EXACT_INT for bound in bounds)


def _inclusive(bound: tuple[Any, bool] | None, none: str) -> str:
    return none if bound is None else score_text(score_of(bound[0]))


def partition_names(label: str, partition_by: Any) -> tuple[str, ...]:
    """Return `partition_by` as a tuple of field names.

    Raises: ModelException: it is neither a name nor a tuple of names.
    """
    names = (partition_by,) if isinstance(partition_by, str) else partition_by
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise ModelException(f"{label}: partition_by= expected a field name or a tuple of them, got {partition_by!r}.")
    return names


def partition_values(
    name: str, partition_by: tuple[str, ...], given: Mapping[str, Any], fields: Mapping[str, Field]
) -> list[Any]:
    """Return the values of the partition of field `name` that the exact filters `given` say.

    Raises: QueryException: a partition field has no exact filter.
    """
    missing = [part for part in partition_by if part not in given]
    if missing:
        raise QueryException(
            f"'{name}' is partitioned by {', '.join(partition_by)}: add an exact filter for {', '.join(missing)}, "
            f"e.g. filter({missing[0]}=...)."
        )
    return [fields[part].filter_value(given[part]) for part in partition_by]


def require_fields(field: Field, model: Any, option: str, names: tuple[str, ...]) -> None:
    """Refuse an option that names a field which the model does not have.

    Raises: ModelException: it does.
    """
    for name in names:
        if name not in model._meta.fields:
            raise ModelException(
                f"{field._label()} of {model.__name__}: {option}= names '{name}', which is no field of the model. "
                f"Fields: {', '.join(model._meta.fields)}."
            )
        if option == "partition_by" and model._meta.fields[name].type not in SCALAR_TYPES:
            raise ModelException(
                f"{field._label()} of {model.__name__}: partition_by= names '{name}', whose type "
                f"{model._meta.fields[name].type.__name__} has no one text; use a number, text, bool or date."
            )


class SortedField(SortedIndex):
    """A number, date or datetime kept in an ordered set: ranges and order cost what they return.

    Lookups: exact, __gt, __gte, __lt, __lte, __between.

    Args:
        type: int, float, Decimal, date or datetime (naive ones are ordered as UTC).
        partition_by: field name(s): one ordered set for each of their values. A filter or order then needs an exact
            filter for each. (`sort_by` is the deprecated name.)
        auto_now, auto_now_add: filled with the current time at each save / at the first.
    Raises: ModelException: another type, `null=True`, a wrong partition.
    """


class SortedKeyField(SortedIndex, KeyField):
    """A key field in an ordered set: lookups of SortedField and of KeyField."""

    lookups: ClassVar[tuple[str, ...]] = (*SortedIndex.range_lookups, *KeyField.lookups[1:])

    def slots(self) -> list[Slot]:
        return SortedIndex.slots(self)

    def condition(self, keys: ModelKeys, lookup: str, value: Any, given: Mapping[str, Any]) -> Condition:
        if lookup in self.range_lookups:
            return SortedIndex.condition(self, keys, lookup, value, given)
        name = self.name
        if lookup == "in":
            values = self.many_values(value)
            return Condition(["all"], name, lambda stored: stored in values)
        if lookup == "isnull":
            return Condition(["not", ["all"]] if self.truth(value) else ["all"])
        return self.text_condition(keys, lookup, value)
