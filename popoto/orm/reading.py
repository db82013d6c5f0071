"""From what the server sends of a record to an instance or a dict; what cannot be read is left out and logged."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from popoto.exceptions import ModelException
from popoto.orm.commands import Command
from popoto.orm.fields.capped import UnreadOf
from popoto.orm.nearest import attach_distance, projected, with_distance

if TYPE_CHECKING:
    from popoto.orm.fields.geo import Near
    from popoto.orm.model import Model

logger = logging.getLogger("popoto.query")


class Reader:
    """Makes of rows what a selection hands out.

    Args:
        model: whose records they are.
        values: names of the fields of the dicts; None for instances.
        near: the centre that distances are measured from, or None.
        strict: raise ModelException for a corrupt record.

    Attributes:
        asked: the fields to read of each record.
    """

    __slots__ = ("asked", "lists", "model", "names", "near", "strict", "values")

    def __init__(self, model: type[Model], values: tuple[str, ...] | None, near: Near | None, strict: bool) -> None:
        self.model, self.values, self.near, self.strict = model, values, near, strict
        self.names = tuple(model._meta.fields) if values is None else projected(near, values)
        self.asked = list(self.names) if values is None else asked(model, self.names)
        self.lists = [name for name in self.names if name in model._meta.lists]

    def commands(self, keys: Iterable[str]) -> list[Command[Any]]:
        """Return the reading of these records, as far as they are handed out."""
        return [Command(("HMGET", key, *self.asked)) for key in keys]

    def read(self, rows: Iterable[tuple[str, Any]]) -> list[Any]:
        """Return instances or dicts of (key, reply of HMGET of `asked`)."""
        if self.values is not None:
            return self._dicts(rows)
        out: list[Any] = []
        hydrated, near = self.model._hydrated_row, self.near
        for key, raw in rows:
            if raw is None or raw is False:
                logger.error("%s cannot be read (not a hash); skipped", key)
                continue
            if raw[0] is None and not any(value is not None for value in raw):
                continue  # the record vanished
            try:
                instance = hydrated(key, raw)
            except ModelException as error:
                if self.strict:
                    raise
                logger.error("%s; skipped", error)
                continue
            if near is not None:
                attach_distance(near, instance)
            out.append(instance)
        return out

    def _dicts(self, rows: Iterable[tuple[str, Any]]) -> list[Any]:
        out: list[Any] = []
        near = self.near
        for key, raw in rows:
            values = decoded(self.model, key, self.names, raw)
            if values is not None:
                for name in self.lists:
                    values[name] = UnreadOf(key)
                out.append(values if near is None else with_distance(near, values, self.values or ()))
        return out


def asked(model: type[Model], names: Iterable[str]) -> list[str]:
    """Return the fields to read: a key field behind those wanted tells a record from none."""
    return [*names, model._meta.key_names[0]]


def decoded(model: type[Model], key: str, names: Iterable[str], raws: Any) -> dict[Any, Any] | None:
    """Return the values of a reply of HMGET of `asked(names)`; None where the record vanished or cannot be read."""
    if raws is None or raws is False:
        logger.error("%s cannot be read (not a hash); skipped", key)
        return None
    if raws[0] is None and not any(raw is not None for raw in raws):
        return None  # the record vanished
    fields = model._meta.fields
    values: dict[Any, Any] = {}
    for name, raw in zip(names, raws, strict=False):
        field = fields[name]
        try:
            values[name] = field.missing_value() if raw is None else field.decode(raw)
        except ValueError as error:
            logger.error("%s: the stored value of field '%s' cannot be read: %s; skipped", key, name, error)
            return None
    return values
