"""What to say when a name does not exist: those that do, and the nearest of them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from popoto.exceptions import QueryException

if TYPE_CHECKING:
    from popoto.orm.fields.base import Field
    from popoto.orm.options import ModelOptions


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest of the known names, or ""."""
    near = get_close_matches(given, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def unknown_field(meta: ModelOptions, parameter: str) -> QueryException:
    """Return the error for a filter parameter whose field does not exist."""
    name = parameter.partition("__")[0]
    return QueryException(
        f"Invalid filter parameters: {meta.model_name} has no field '{name}'.{did_you_mean(name, meta.fields)} "
        f"Fields: {', '.join(meta.fields)}."
    )


def unknown_lookup(field: Field, parameter: str) -> QueryException:
    """Return the error for a lookup that a field does not have."""
    offered = sorted(field.get_filter_query_params(field.name))
    return QueryException(
        f"Invalid filter parameters: '{parameter}' is not offered by {type(field).__name__} '{field.name}'."
        f"{did_you_mean(parameter, offered)} It offers: {', '.join(offered) or 'none'}."
    )


def require_field(meta: ModelOptions, call: str, name: object, in_hash: bool = True) -> None:
    """Refuse the name of a field that does not exist, and with `in_hash` that of a capped list.

    Raises: QueryException: `call`, such as "values('nmae')", names none.
    """
    known = isinstance(name, str) and name in meta.fields
    if known and in_hash and name in meta.lists:
        raise QueryException(f"{call}: '{name}' is a capped list; nothing is ordered, grouped or computed by it.")
    if not known:
        raise QueryException(
            f"{call}: {meta.model_name} has no such field.{did_you_mean(str(name), meta.fields)} "
            f"Fields: {', '.join(meta.fields)}."
        )
