"""Fields with a set a value: equality, in, isnull and text lookups without reading records."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, ClassVar

from popoto.exceptions import ModelException, QueryException
from popoto.orm.conditions import indexed_as, many_values, truth
from popoto.orm.fields.base import Condition, Field, refuse_half_pairs
from popoto.orm.keys import ModelKeys, escape_start, index_part, index_text
from popoto.orm.slots import Made, Slot

SCALAR_TYPES: frozenset[type] = frozenset({int, float, Decimal, str, bool, date, datetime, time})


class SetIndex(Field):
    """A field whose values each have a set of the records that hold them (kind_set.lua).

    A text field keeps its distinct texts in an ordered set besides (the first key field needs none: the order by name
    is sorted by it). `__startswith` walks it; `__endswith` and `__contains` scan it.
    """

    valid_types: ClassVar[frozenset[type]] = SCALAR_TYPES
    lookups: ClassVar[tuple[str, ...]] = ("", "in", "isnull", "startswith", "endswith")
    leads_key: bool = False  # a record's key begins with the value: the order by name serves text lookups

    def slots(self) -> list[Slot]:
        is_text = self.type is str and not self.leads_key
        kind = ("t" if is_text else "") + ("u" if self.unique else "") or "s"
        name = self.name

        def make(values: Mapping[str, Any]) -> Made | None:
            value = values[name]
            if value is None:
                return ["None"], True, None  # many records may have none, also where values are unique
            return [index_part(value)], False, None

        return [Slot(name, kind, self.field_class_key, name, (name,), (), make)]

    def set_key(self, keys: ModelKeys, value: Any) -> str:
        """Return the key of the set of records that hold a value."""
        return keys.index(self.field_class_key, self.name, value)

    def condition(self, keys: ModelKeys, lookup: str, value: Any, given: Mapping[str, Any]) -> Condition:
        if lookup == "":
            wanted = self.filter_value(value)
            return Condition(["set", self.set_key(keys, wanted)], holds=indexed_as(wanted))
        if lookup == "in":
            many = self.many_values(value)
            sets = dict.fromkeys(self.set_key(keys, v) for v in many)
            return Condition(["set", *sets], holds=indexed_as(*many))
        if lookup == "isnull":
            is_none, none = ["set", self.set_key(keys, None)], self.truth(value)
            return Condition(is_none if none else ["not", is_none], holds=lambda stored: (stored is None) is none)
        return self.text_condition(keys, lookup, value)

    def text_condition(self, keys: ModelKeys, lookup: str, value: Any) -> Condition:
        """Return a startswith, endswith or contains condition on the text of the values."""
        if not isinstance(value, str):
            raise QueryException(
                f"filter({self.name}__{lookup}=...): expected a str, got {value!r} ({type(value).__name__})."
            )
        if self.type is not str:
            name = self.name
            tests = {
                "startswith": lambda stored: stored is not None and index_text(stored).startswith(value),
                "endswith": lambda stored: stored is not None and index_text(stored).endswith(value),
                "contains": lambda stored: stored is not None and value in index_text(stored),
            }
            return Condition(["all"], name, tests[lookup])
        refuse_half_pairs(self.name, value)
        op = {"startswith": "starts", "endswith": "ends", "contains": "contains"}[lookup]
        how = "key" if self.leads_key else not self.is_auto and "values"
        base = keys.record + ":" if self.leads_key else keys.base(self.field_class_key, self.name)
        return Condition([op, how, self.name, value, base, escape_start(value)])

    def many_values(self, values: Any) -> list[Any]:
        """Return the values of an `__in` filter.

        Raises: QueryException: it is no collection (a text would be taken letter by letter).
        """
        return many_values(self, values)

    def truth(self, value: Any) -> bool:
        """Return the value of an `__isnull` filter.

        Raises: QueryException: it is neither True nor False.
        """
        return truth(self, value)


class IndexedField(SetIndex):
    """A field, not part of the key, with an index: exact, __in, __isnull, __startswith, __endswith.

    Args:
        unique: one record a value, decided on the server; None is free for many.
        (all of Field's as well)
    """


class UniqueField(SetIndex):
    """An IndexedField with one record a value, never None.

    Raises: ModelException: `unique=False` or `null=True` is given, or the type is not a scalar.
    """

    def __init__(self, **options: Any) -> None:
        if options.pop("unique", True) is not True or options.pop("null", False) is not False:
            raise ModelException(f"{self._label()}: always unique and never null; leave unique= and null= out.")
        super().__init__(unique=True, null=False, **options)


class FlaggedIndexed(SetIndex):
    """`Field(indexed=True)`: IndexedField under another spelling, in the same index."""


class FlaggedUnique(SetIndex):
    """`Field(unique=True)`: UniqueField under another spelling, in the same index."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("null", False)
        super().__init__(**options)


FlaggedIndexed.field_class_key = IndexedField.field_class_key
FlaggedUnique.field_class_key = UniqueField.field_class_key
Field.flagged = (FlaggedIndexed, FlaggedUnique)
