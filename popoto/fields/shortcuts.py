"""Import path of the typed, key, indexed and sorted fields; they live in popoto.orm.fields."""

from popoto.orm.fields.capped import CappedListProxy
from popoto.orm.fields.datetime import DatetimeField
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import AutoKeyField, KeyField, UniqueKeyField
from popoto.orm.fields.sorted import SortedField, SortedKeyField
from popoto.orm.fields.typed import (
    BooleanField,
    BytesField,
    DateField,
    DecimalField,
    DictField,
    FloatField,
    IntField,
    ListField,
    SetField,
    StringField,
    TimeField,
    TupleField,
)

__all__ = [
    "AutoKeyField",
    "BooleanField",
    "BytesField",
    "CappedListProxy",
    "DateField",
    "DatetimeField",
    "DecimalField",
    "DictField",
    "FloatField",
    "IndexedField",
    "IntField",
    "KeyField",
    "ListField",
    "SetField",
    "SortedField",
    "SortedKeyField",
    "StringField",
    "TimeField",
    "TupleField",
    "UniqueField",
    "UniqueKeyField",
]
