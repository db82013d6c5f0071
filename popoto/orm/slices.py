"""The calls of lua/select.lua for one selection, slice by slice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from popoto.orm.commands import Command
from popoto.orm.plan import pack
from popoto.orm.scripts import Script

if TYPE_CHECKING:
    from popoto.orm.columns import Columns
    from popoto.orm.selection import Order, Selection

SELECT = Script("popoto.orm", "select", flags="no-writes")


class Slices:
    """The calls for one selection; each goes on where the last one stopped.

    Attributes:
        more: True while there is another slice to ask for.
        refused: True when values share scores, so that the answer must be decided by value.
        given: rows handed out before it was refused: none, for the first slice tells.
        scores: capped: the scores of the last rows in the order.
        named: of "records": how many the last answer named, those included that turned out to be gone.
        query: what the script gets.
    """

    given = 0
    named = 0

    def __init__(
        self,
        selection: Selection,
        out: str,
        fields: Iterable[str] = (),
        *,
        gather: int,
        slice: int,
        rows: int,
        exact: bool = True,
        marks: list[list[Any]] | None = None,
        capped: bool = False,
        after: tuple[Any, Any] | None = None,
        columns: Columns | None = None,
    ) -> None:
        order = selection.order
        self.more = True
        self.refused = False
        self.scores: list[bytes] = []
        self._keys = selection.keys
        self.query: dict[str, Any] = {
            "where": selection.compiled.where if order.low is None else _without_range(selection.compiled.where, order),
            "order": order.key,
            "offset": selection.offset,
            "limit": -1 if selection.limit is None else selection.limit,
            "out": out,
            "fields": columns.fields if columns else list(fields),
            "shared": selection.shared if exact else [],
            "gather": gather,
            "slice": slice,
            "rows": rows,
        }
        for name, value in (
            ("low", order.low),
            ("high", order.high),
            ("desc", order.descending),
            ("marks", marks),
            ("after", after and list(after)),
            ("capped", capped),
            ("clear", columns and columns.clear),
            ("kept", columns and columns.kept),
        ):
            if value:
                self.query[name] = value

    def command(self) -> Command[Any]:
        """Return the next slice; its result is the rows."""
        return Command((*self._keys.home, pack(self.query)), self._rows, SELECT, key_count=4)

    def _rows(self, reply: Any) -> Any:
        if reply[0] == b"shared":
            self.refused = True
            return None
        after, rows = reply[0], reply[1]
        if self.query.get("capped"):
            self.scores = reply[2]
        elif self.query["out"] == "records":
            self.named = reply[2]
        self.query["shared"] = []  # asked once; what other writers store between two slices may go either way
        self.more = bool(after)
        if after:
            score, member, self.query["offset"], self.query["limit"] = after
            self.query["after"] = [score, member]
        return rows


def _without_range(where: list[Any], order: Order) -> list[Any]:
    """Leave out the range that the stretch of the order says already."""
    rest = [
        c for c in (where[1:] if where[0] == "and" else [where]) if c != ["range", order.key, order.low, order.high]
    ]
    return ["all"] if not rest else rest[0] if len(rest) == 1 else ["and", *rest]
