"""What a bulk call is given: records of a query, of a list or of a generator; and which models need their instances."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

from popoto.exceptions import ModelException
from popoto.orm.builder import QueryBuilder
from popoto.orm.fetching import fetched
from popoto.orm.query import Query

Steps = Generator[Any, Any, Any]


def refuse_abstract(model: Any, operation: str) -> None:
    """Refuse a bulk call on a model that has no records.

    Raises: ModelException: it is abstract.
    """
    if model._meta.abstract:
        raise ModelException(
            f"{model.__name__}.{operation}: the model is abstract (class Meta); call it on a subclass."
        )


def targets(model: Any, operation: str, given: Any) -> QueryBuilder[Any] | Iterable[Any]:
    """Return what the call is about: a query that has not run yet, or instances.

    Raises: ModelException: another model's query, or nothing that names records.
    """
    refuse_abstract(model, operation)
    if given is None:
        return ()
    if isinstance(given, model):
        return (given,)
    if isinstance(given, QueryBuilder):
        if given.model_class is not model:
            raise ModelException(
                f"{model.__name__}.{operation}: got a query of {given.model_class.__name__}. "
                f"Call {given.model_class.__name__}.{operation} instead."
            )
        return given if given._results is None or given._values is not None else list(given._results)
    if isinstance(given, (str, bytes, Mapping, Query, type)) or not isinstance(given, Iterable):
        raise ModelException(
            f"{model.__name__}.{operation}: expected {model.__name__}.query.filter(...) or instances of "
            f"{model.__name__}, got {given!r}."
        )
    return given


def require_instance(model: Any, operation: str, number: int, given: Any) -> None:
    """Refuse an item that is no record of the model.

    Raises: ModelException: it is of another class, a subclass included (that is a model of its own).
    """
    if type(given) is not model:
        shown = repr(given) if len(repr(given)) <= 100 else type(given).__name__
        raise ModelException(
            f"{model.__name__}.{operation}, record number {number}: expected an instance of {model.__name__}, got "
            f"{shown}."
        )


def overrides(model: Any, *methods: str) -> bool:
    """Return True when the model has one of these methods in another form than the ORM's Model."""
    origin = next(base for base in reversed(model.__mro__) if "_save_command" in vars(base))
    return any(next(base for base in model.__mro__ if name in vars(base)) is not origin for name in methods)


def read_records(model: Any, keys: Sequence[str]) -> Steps:
    """Return the instances of these keys, None for one that is gone, in one round trip."""
    found = yield from fetched(model, keys, strict=True)
    return [found.get(key) for key in keys]
