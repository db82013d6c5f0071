"""Nearest first: the calls of lua/nearest.lua for one selection, and the distances that its results carry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from popoto.orm.commands import Command
from popoto.orm.plan import pack
from popoto.orm.scripts import Script

if TYPE_CHECKING:
    from popoto.orm.fields.geo import Near
    from popoto.orm.selection import Selection

NEAREST = Script("popoto.orm", "nearest", flags="no-writes")


class Nearest:
    """Slices of an answer that is ordered by distance, as `selection.Slices` are of others.

    Attributes:
        more: True while there is another slice to ask for.
        refused: True when so many places would have to be visited that the rest must be sorted by value.
        given: rows handed out so far.
    """

    def __init__(
        self, selection: Selection, out: str, fields: Iterable[str], *, gather: int, visit: int, rows: int
    ) -> None:
        assert selection.order.near is not None
        condition = selection.order.near.condition()
        self.more = selection.limit != 0
        self.refused = False
        self.given = 0
        self._selection = selection
        self._rows_a_slice = rows
        self._query = {
            "near": condition,
            "where": _without(selection.compiled.where, condition),
            "out": out,
            "fields": list(fields),
            "gather": gather,
            "visit": visit,
        }

    def command(self) -> Command[Any]:
        """Return the next slice; its result is the rows."""
        selection = self._selection
        left = self._rows_a_slice if selection.limit is None else selection.limit - self.given
        self._query["offset"] = selection.offset + self.given
        self._query["limit"] = min(left, self._rows_a_slice)
        return Command((*selection.keys.home, pack(self._query)), self._rows, NEAREST, key_count=4)

    def _rows(self, reply: Any) -> Any:
        if reply == b"far":
            self.refused = True
            return None
        count = len(reply) if self._query["out"] == "keys" else len(reply) // 2
        self.given += count
        self.more = count == self._query["limit"] and self.given != self._selection.limit
        return reply


def _without(where: list[Any], condition: list[Any]) -> list[Any]:
    """Leave out the condition that the order says already."""
    rest = [c for c in (where[1:] if where[0] == "and" else [where]) if c != condition]
    return ["all"] if not rest else rest[0] if len(rest) == 1 else ["and", *rest]


def attach_distance(near: Near, instance: Any) -> None:
    """Set `_geo_distance` and `_geo_distance_unit` of an instance."""
    instance._geo_distance = near.distance(instance.__dict__[near.field])
    instance._geo_distance_unit = near.unit


def projected(near: Near | None, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the fields that must be read for these to be handed out, with distances."""
    return names if near is None or near.field in names else (*names, near.field)


def with_distance(near: Near, values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of these fields, and `_geo_distance` and `_geo_distance_unit`."""
    wanted = {name: values[name] for name in names}
    return {**wanted, "_geo_distance": near.distance(values[near.field]), "_geo_distance_unit": near.unit}
