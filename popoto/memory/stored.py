"""What the calls on one stored record ask first: is it stored, and has its model such a field."""

from __future__ import annotations

from typing import Any, TypeVar

from popoto.orm.fields.base import Field
from popoto.orm.keys import ModelKeys

F = TypeVar("F", bound=Field)


def stored_keys(instance: Any) -> list[str]:
    """Return the record's key in a list, empty for an instance that was never saved (in this namespace)."""
    saved = instance._saved_key
    return [saved] if saved is not None and saved.startswith(instance._meta.keys_at(saved).record + ":") else []


def require_stored(instance: Any, call: str) -> tuple[str, ModelKeys]:
    """Return the record's key and the keys of its shard.

    Args:
        call: the call with its arguments, for the error.
    Raises: TypeError: the instance was never saved, or in another namespace, or is deleted.
    """
    found = stored_keys(instance)
    if not found:
        raise TypeError(f"{call}: this {type(instance).__name__} was never saved, or is deleted. Save it first.")
    return found[0], instance._meta.keys_at(found[0])


def field_of(model: Any, field_name: str, kind: type[F], call: str) -> F:
    """Return a field of a model.

    Args:
        call: name of the call, for the error.
    Raises: AttributeError: no such field. TypeError: it is of another kind.
    """
    fields = model._meta.fields
    field = fields.get(field_name)
    if field is None:
        raise AttributeError(f"{model.__name__} has no field '{field_name}'. Fields: {', '.join(fields)}.")
    if not isinstance(field, kind):
        raise TypeError(
            f"{call}('{field_name}'): {model.__name__}.{field_name} is a {type(field).__name__}; expected a "
            f"{kind.__name__}."
        )
    return field
