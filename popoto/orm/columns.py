"""Records as the server packs them for a query (`read_records` of lua/lib_rows.lua): decoded a field at a time.

The values of all records stand in one text, which one call of msgpack reads; then each field's values are checked
against its type together. That takes a third of what reading them one by one takes, and gives the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any, Final

from popoto.exceptions import ModelException
from popoto.orm.codec import CodecError, checked
from popoto.orm.tagged import decode_joined

if TYPE_CHECKING:
    from popoto.orm.fields.base import Field
    from popoto.orm.options import ModelOptions

Check = tuple[int, str, Callable[[Any], bool]]
"""(place, name, test) of a field that an index has answered for."""

logger = logging.getLogger("popoto.query")

CLEAR_TYPES: Final[frozenset[type]] = frozenset({str, int, float, bool, bytes, list, tuple, set})
"""Types whose bytes `decode_any` reads, as fast as the field's own decoder would."""


class Columns:
    """How records with these fields travel, and what is made of them.

    Args:
        meta: the model's options.
        names: the fields wanted, in the order of the results.

    Attributes:
        fields: what the server is asked for: the clear ones, the others, and a key field, which each record has.
        clear, kept: how many of them are clear, and how many are wanted.
    """

    __slots__ = ("_clear", "_lists", "_names", "_others", "clear", "fields", "kept")

    def __init__(self, meta: ModelOptions, names: Sequence[str]) -> None:
        fields = [meta.fields[name] for name in names]
        self._names = tuple(names)
        self._lists = [field for field in fields if not field.in_hash]
        self._clear = [f for f in fields if f.in_hash and f.type in CLEAR_TYPES and not f._own_codec]
        self._others = [f for f in fields if f.in_hash and (f._own_codec or f.type not in CLEAR_TYPES)]
        self.clear, self.kept = len(self._clear), len(self._clear) + len(self._others)
        self.fields = [*(field.name for field in (*self._clear, *self._others)), meta.key_names[0]]

    def read(
        self, reply: Sequence[Any], keys: Sequence[str], checks: Iterable[Check], strict: bool
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Return (key, values in the order of the names) of the records of a reply; others are left out and logged.

        Args:
            reply: {keys, text, others, missing, unread} of lua/lib_rows.lua.
            keys: the first of these, as text.
            checks: what indexes say of the values; a record that lacks the field has nothing to say.
        Raises: CodecError: the text cannot be taken apart. ModelException: with `strict`, a value is corrupt.
        """
        _, text, others, missing, unread = reply
        for key in unread:
            logger.error("%s cannot be read (not a hash); skipped", key.decode("utf-8", "surrogateescape"))
        corrupt: dict[int, str] = {}
        found = self._clear_columns(text, len(keys), missing, corrupt)
        for place, field in enumerate(self._others):
            found[field.name] = self._decoded(field, others[place :: len(self._others)], corrupt)
        for field in self._lists:
            found[field.name] = [field.missing_value() for _ in keys]
        rows: Iterable[tuple[Any, ...]] = zip(*(found[name] for name in self._names), strict=True)
        for row, problem in sorted(corrupt.items()):
            problem = f"{keys[row]}: the stored value of field {problem}"
            if strict:
                raise ModelException(problem)
            logger.error("%s; skipped", problem)
        left_out = {*corrupt, *self._disagreeing(found, reply, keys, checks, corrupt)}
        answer = zip(keys, rows, strict=True)
        return compress(answer, (row not in left_out for row in range(len(keys)))) if left_out else answer

    def _disagreeing(
        self, found: Mapping[str, Sequence[Any]], reply: Sequence[Any], keys: Sequence[str], checks: Any, corrupt: Any
    ) -> Iterator[int]:
        """Yield the records that an index names and whose value is another one."""
        for _, name, test in checks:
            column = found[name]
            if not corrupt and all(map(test, column)):
                continue
            for row, value in enumerate(column):
                if row not in corrupt and not test(value) and not self._is_missing(reply, name, row):
                    logger.error(
                        "%s: the index of field '%s' names it, its value is another one; skipped", keys[row], name
                    )
                    yield row

    def _is_missing(self, reply: Sequence[Any], name: str, row: int) -> bool:
        for place, field in enumerate(self._clear):
            if field.name == name:
                return row * self.clear + place + 1 in reply[3]
        for place, field in enumerate(self._others):
            if field.name == name:
                return reply[2][row * len(self._others) + place] is None
        return True

    def _clear_columns(
        self, text: bytes, rows: int, missing: Iterable[int], corrupt: dict[int, str]
    ) -> dict[str, list[Any]]:
        width = self.clear
        flat = decode_joined(text, rows * width)
        found: dict[str, list[Any]] = {}
        for place, field in enumerate(self._clear):
            column = found[field.name] = flat[place::width]
            type_ = field.type
            if {type_}.issuperset(map(type, column)):
                continue
            for row, value in enumerate(column):
                if type(value) is not type_:
                    try:
                        column[row] = checked(type_, value)
                    except CodecError as error:
                        corrupt.setdefault(row, _unreadable(field, error))
        for at in missing:
            row, place = divmod(at - 1, width)
            field = self._clear[place]
            found[field.name][row] = field.missing_value()
        return found

    @staticmethod
    def _decoded(field: Field, raws: Iterable[bytes | None], corrupt: dict[int, str]) -> list[Any]:
        column: list[Any] = []
        decode = field.decode
        for row, raw in enumerate(raws):
            try:
                column.append(field.missing_value() if raw is None else decode(raw))
            except ValueError as error:
                corrupt.setdefault(row, _unreadable(field, error))
                column.append(None)
        return column


def _unreadable(field: Field, error: ValueError) -> str:
    return f"'{field.name}' cannot be read: {error}"
