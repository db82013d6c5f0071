"""Typed shortcut fields: Field with the type fixed."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal
from functools import cache
from typing import Any, ClassVar

from popoto.exceptions import ModelException
from popoto.orm.fields.base import Field
from popoto.orm.fields.capped import CappedListField


class _TypedField(Field):
    fixed_type: ClassVar[type] = str

    def __init__(self, **options: Any) -> None:
        if options.pop("type", self.fixed_type) is not self.fixed_type:
            raise ModelException(f"{self._label()}: type= is always {self.fixed_type.__name__}; leave it out.")
        super().__init__(type=self.fixed_type, **options)


class IntField(_TypedField):
    """An int of any size."""

    fixed_type = int


class FloatField(_TypedField):
    """A float."""

    fixed_type = float


class DecimalField(_TypedField):
    """A Decimal, digits kept."""

    fixed_type = Decimal


class StringField(_TypedField):
    """A str; the same as Field."""

    fixed_type = str


class BooleanField(_TypedField):
    """A bool."""

    fixed_type = bool


class BytesField(_TypedField):
    """Bytes."""

    fixed_type = bytes


class ListField(_TypedField):
    """A list of any storable values.

    Args:
        max_length: keep the newest so many elements, in a Redis list beside the record, with `push()`: see capped.py.
            None: the whole list is a value of the record.
    """

    fixed_type = list
    default_max_length: ClassVar[int | None] = None

    def __new__(cls, *args: Any, **options: Any) -> ListField:
        if options.get("max_length") is None or issubclass(cls, CappedListField):
            return super().__new__(cls, *args, **options)  # type: ignore[return-value]
        if options.get("indexed") or options.get("unique"):
            raise ModelException(f"{cls.__name__}: a capped list has no index; leave indexed= and unique= out.")
        return object.__new__(_capped(cls))  # type: ignore[no-any-return, arg-type]


@cache
def _capped(plain: Any) -> Any:
    """Return the class that `plain(max_length=N)` makes."""
    made: Any = type(
        plain.__name__, (CappedListField, plain), {"__doc__": plain.__doc__, "__module__": plain.__module__}
    )
    made.field_class_key = plain.field_class_key
    return made


class DictField(_TypedField):
    """A dict of any storable keys and values."""

    fixed_type = dict


class SetField(_TypedField):
    """A set of any storable values."""

    fixed_type = set


class TupleField(_TypedField):
    """A tuple of any storable values."""

    fixed_type = tuple


class DateField(_TypedField):
    """A date."""

    fixed_type = date


class TimeField(_TypedField):
    """A time of day; the offset is kept."""

    fixed_type = time
