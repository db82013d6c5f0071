"""Composite indexes: `Meta.indexes = ((("field", "other"), unique), ...)`.

A unique one is a hash, digest of the values -> record; two records of one combination are refused by the server.
Another one is a set of records for each combination. A record of which one value is None is in neither. Both answer a
filter that gives all their fields exactly.

The entry of a record names its values also where one is None (see lua/kind_composite.lua): so the server knows those
that a partial save or an increment does not bring, and is right whatever the caller believes them to be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from popoto.exceptions import ModelException
from popoto.orm.fields.base import Field
from popoto.orm.fields.indexed import SCALAR_TYPES
from popoto.orm.keys import ModelKeys, composite_name, composite_set, index_part
from popoto.orm.scripts import register_kind
from popoto.orm.slots import Made, Slot

if TYPE_CHECKING:
    from popoto.orm.options import ModelOptions

PREFIX = "$Index"
UNIQUE, PLAIN = "x", "xs"
_OWN_VALUE = frozenset({"s", "u", "t", "tu", "z"})  # entries that hold nothing but what the field's value says

register_kind("popoto.orm", "kind_composite", UNIQUE, PLAIN)

Declared = tuple[tuple[tuple[str, ...], bool], ...]


@dataclass(frozen=True, slots=True)
class CompositeIndex:
    """One index over several fields.

    Attributes:
        names: the fields, in the order of their declaration.
        unique: one record a combination.
    """

    names: tuple[str, ...]
    unique: bool

    def slot(self) -> Slot:
        """Return the index entry that each record has."""
        names = self.names

        def make(values: Mapping[str, Any]) -> Made:
            return [index_part(values[name]) for name in names], False, None

        kind = UNIQUE if self.unique else PLAIN
        return Slot(f"({', '.join(names)})", kind, PREFIX, composite_name(names), names, (), make)

    def condition(self, keys: ModelKeys, values: Sequence[Any]) -> list[Any]:
        """Return the condition (lua/lib_where.lua) that all fields have these values, none of which is None."""
        base, parts = keys.base(PREFIX, composite_name(self.names)), [index_part(value) for value in values]
        return ["owner", base, digest(parts)] if self.unique else ["set", composite_set(base, parts)]


def digest(parts: Sequence[str]) -> str:
    """Return the 16 hex digits that stand for a combination in the hash of a unique index."""
    return hashlib.sha1(":".join(parts).encode()).hexdigest()[:16]


def declared_indexes(model: str, declared: Any, fields: Mapping[str, Field]) -> list[CompositeIndex]:
    """Return the indexes of `Meta.indexes`.

    Raises: ModelException: a wrong shape, an unknown field, one that cannot be part of an index.
    """
    label = f"{model}.Meta.indexes"
    shape = f"{label}: expected ((field names, unique), ...), e.g. ((('customer', 'day'), True),)"
    if not isinstance(declared, (tuple, list)):
        raise ModelException(f"{shape}; got {declared!r}.")
    found: list[CompositeIndex] = []
    for item in declared:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise ModelException(f"{shape}; got {item!r} in it.")
        names, unique = item
        if not isinstance(names, (tuple, list)) or not names or not all(isinstance(name, str) for name in names):
            raise ModelException(f"{shape}; got {names!r} for the field names of {item!r}.")
        if not isinstance(unique, bool):
            raise ModelException(f"{shape}; got {unique!r} for unique in {item!r}.")
        for name in names:
            _require_indexable(label, name, fields)
        if len(set(names)) != len(names):
            raise ModelException(f"{label}: {tuple(names)} names a field twice.")
        if any(index.names == tuple(names) for index in found):
            raise ModelException(f"{label}: {tuple(names)} is declared twice.")
        found.append(CompositeIndex(tuple(names), unique))
    return found


def _require_indexable(label: str, name: str, fields: Mapping[str, Field]) -> None:
    field = fields.get(name)
    if field is None:
        raise ModelException(f"{label}: '{name}' is no field of the model. Fields: {', '.join(fields)}.")
    own_bytes = type(field).encode is not Field.encode and not getattr(field, "is_relationship", False)
    slots = field.slots()
    if field.type not in SCALAR_TYPES or own_bytes or len(slots) > 1 or any(s.kind not in _OWN_VALUE for s in slots):
        raise ModelException(
            f"{label}: '{name}' ({type(field).__name__}) cannot be part of an index; it takes fields of type "
            f"{', '.join(sorted(kind.__name__ for kind in SCALAR_TYPES))} whose value only a save changes, and "
            "relationships."
        )


def together(model: str, option: str, declared: Any, unique: bool) -> Declared:
    """Return `unique_together` or `index_together` as `indexes`: a group of names, or several groups.

    Raises: ModelException: it is neither.
    """
    if isinstance(declared, (tuple, list)) and declared:
        if all(isinstance(name, str) for name in declared):
            return ((tuple(declared), unique),)
        if all(isinstance(group, (tuple, list)) for group in declared):
            return tuple((tuple(group), unique) for group in declared)
    raise ModelException(
        f"{model}.Meta.{option}: expected a group of field names or several groups, e.g. (('customer', 'day'),); got "
        f"{declared!r}."
    )


def covering(meta: ModelOptions, exact: Mapping[str, Any]) -> list[CompositeIndex]:
    """Return the indexes that answer a filter, those of many fields first; none names a field of another.

    Args:
        exact: field -> value, of those that the filter gives exactly. A None is in no composite index.
    """
    left = {name for name, value in exact.items() if value is not None}
    chosen = []
    for index in sorted(meta.composites, key=lambda index: -len(index.names)):
        if len(index.names) > 1 and left.issuperset(index.names):
            chosen.append(index)
            left.difference_update(index.names)
    return chosen
