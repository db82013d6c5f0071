"""From the keywords of `filter()` to conditions that the server answers, and to what is left for Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from popoto.exceptions import QueryException
from popoto.orm.keys import ModelKeys

if TYPE_CHECKING:
    from popoto.orm.options import ModelOptions

# types whose equal values may print differently in a record's key (see keys.index_text)
_AMBIGUOUS_KEY_TYPES = frozenset({float, Decimal, datetime})


@dataclass(slots=True)
class Compiled:
    """A filter, ready to run.

    Attributes:
        where: tree of conditions for the server (lua/lib_where.lua).
        tests: what Python decides on decoded values: field name -> tests, all of which must hold. Empty: the server's
            answer is exact, as long as the sets `shared` are empty.
        shared: sets of records whose value is not the one its score stands for.
        loose: what to run instead when one of them is not empty.
        order, order_field: ordered set of the first sorted field that the filter names, and the field; or None.
    """

    where: list[Any]
    tests: dict[str, list[Callable[[Any], bool]]] = field(default_factory=dict)
    order: str | None = None
    order_field: str | None = None
    shared: list[str] = field(default_factory=list)
    loose: Compiled | None = None

    def narrow(self, condition: list[Any]) -> None:
        """Add a condition that must hold as well."""
        self.where = ["and", condition, self.where]
        if self.loose is not None:
            self.loose.narrow(condition)

    def accepts(self, values: Mapping[str, Any]) -> bool:
        """Return True when every test holds."""
        return all(test(values[name]) for name, tests in self.tests.items() for test in tests)


def split_parameter(meta: ModelOptions, parameter: str) -> tuple[str, str]:
    """Return (field name, lookup) of a filter parameter.

    Raises: QueryException: no such field or lookup; lists those that exist.
    """
    known = meta.filter_parameters.get(parameter)
    if known is not None:
        return known
    name, _, rest = parameter.partition("__")
    while name not in meta.fields and rest:  # a field's name may hold two underscores itself
        more, _, rest = rest.partition("__")
        name = f"{name}__{more}"
    field = meta.fields.get(name)
    if field is None:
        raise QueryException(
            f"Invalid filter parameters: {meta.model_name} has no field '{parameter.partition('__')[0]}'. "
            f"Fields: {', '.join(meta.fields)}."
        )
    lookup = "" if parameter == name else field.lookup_of(parameter)  # a bare name: the field itself says what it lacks
    if lookup is not None:
        return name, lookup
    offered = ", ".join(sorted(field.filter_parameters()))
    raise QueryException(
        f"Invalid filter parameters: '{parameter}' is not offered by {type(field).__name__} '{name}'. "
        f"It offers: {offered or 'none'}."
    )


def compile_filters(meta: ModelOptions, keys: ModelKeys, filters: Mapping[str, Any]) -> Compiled:
    """Return the conditions of a filter; all of them must hold.

    Raises: QueryException: an unknown parameter, or a value that does not fit.
    """
    parsed = [(*split_parameter(meta, parameter), value) for parameter, value in filters.items()]
    covered: set[str] = set()  # partitions of the ordered sets that the filter uses
    by_key = whole_key(meta, filters)
    if by_key is not None:
        covered.update(meta.key_names)
    else:
        for name, lookup, _ in parsed:
            sorted_field = meta.fields[name]
            if sorted_field.is_sorted and lookup in getattr(sorted_field, "range_lookups", ()):
                covered.update(sorted_field.partition_by)  # type: ignore[attr-defined]
    conditions: list[list[Any]] = [["keys", by_key]] if by_key is not None else []
    loose_conditions = list(conditions)
    compiled, loose = Compiled(["all"]), Compiled(["all"])
    for name, lookup, value in parsed:
        if name in covered and lookup == "":
            meta.fields[name].filter_value(value)
            continue
        condition = meta.fields[name].condition(keys, lookup, value, filters)
        if condition.server != ["all"]:
            conditions.append(condition.server)
            loose_conditions.append(condition.loose or condition.server)
        if condition.test is not None:
            loose.tests.setdefault(condition.field, []).append(condition.test)
            if condition.shared is None:
                compiled.tests.setdefault(condition.field, []).append(condition.test)
            else:
                compiled.shared.append(condition.shared)
        if compiled.order is None and condition.server[0] == "range":
            compiled.order, compiled.order_field = condition.server[1], name
    compiled.where = _all_of(conditions)
    if compiled.shared:
        loose.where = _all_of(loose_conditions)
        loose.order, loose.order_field = compiled.order, compiled.order_field
        compiled.loose = loose
    return compiled


def _all_of(conditions: list[list[Any]]) -> list[Any]:
    if not conditions:
        return ["all"]
    return conditions[0] if len(conditions) == 1 else ["and", *conditions]


def whole_key(meta: ModelOptions, filters: Mapping[str, Any]) -> str | None:
    """Return the record key when the filter gives every key field exactly, else None."""
    values = {}
    for name in meta.key_names:
        key_field = meta.fields[name]
        if name not in filters or key_field.type in _AMBIGUOUS_KEY_TYPES or key_field.is_sorted:
            return None
        values[name] = key_field.filter_value(filters[name])
    return meta.record_key(values)
