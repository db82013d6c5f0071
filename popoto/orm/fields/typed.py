"""Typed shortcut fields: Field with the type fixed."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal
from typing import Any, ClassVar

from popoto.exceptions import ModelException
from popoto.orm.fields.base import Field


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
    """A list of any storable values."""

    fixed_type = list

    def __init__(self, **options: Any) -> None:
        if options.get("max_length") is not None:
            raise ModelException(
                f"{self._label()}: capped lists (max_length=) are not there yet; leave it out and cut the list "
                "yourself."
            )
        super().__init__(**options)


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
