"""Reading a model's records as they are stored, batch by batch."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from popoto.orm.commands import Command, hash_of
from popoto.orm.keys import ModelKeys
from popoto.orm.plan import pack
from popoto.orm.scripts import Script

READ = Script("popoto.migrations", "read_records", with_kinds=True, flags="no-writes")


def field_text(raw: bytes) -> str:
    """Return the name of a field, or a key, as a text from which `field_bytes` makes the same bytes."""
    return raw.decode("utf-8", "surrogateescape")


def field_bytes(text: str) -> bytes:
    """Return the bytes of a name or key."""
    return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Row:
    """What lies at a record's key.

    Attributes:
        held: "hash"; another type for a foreign key; "none" for what is gone.
        raw: field name -> bytes.
        occupancy: the packed list of what it occupies, or None.
    """

    key: str
    held: str
    raw: dict[str, bytes]
    occupancy: bytes | None


class Stored:
    """The records of a model, `batch_size` at a time."""

    def __init__(self, keys: ModelKeys, batch_size: int) -> None:
        self._keys, self._batch_size = keys, batch_size
        self._after = ""
        self._scan: Any = None

    def read(self, **request: Any) -> Command[list[Row]]:
        """Return the reading of records: `keys`, or those `after` one in the order by name."""

        def parse(reply: Any) -> list[Row]:
            rows = []
            for key, held, flat, occupancy in reply:
                raw = {field_text(name): value for name, value in hash_of(flat).items()}
                rows.append(Row(field_text(key), held.decode(), raw, occupancy or None))
            return rows

        return Command((self._keys.order, self._keys.sentinel, pack(request)), parse, READ, key_count=2)

    def after(self, key: str, upto: str = "") -> Command[list[Row]]:
        """Return the reading of the batch that follows a key in the order by name, up to another one if it is given."""
        return self.read(after=field_bytes(key), upto=field_bytes(upto), limit=self._batch_size)

    def last(self) -> Command[str]:
        """Return the question which record is the last one in the order by name; "" where there is none."""
        return Command(("ZREVRANGE", self._keys.order, 0, 0), lambda found: field_text(found[0]) if found else "")

    def sizes(self) -> list[Command[Any]]:
        """Return the questions how many records the model knows, and how many stand in the order by name."""
        return [Command(("SCARD", self._keys.class_set)), Command(("ZCARD", self._keys.order))]

    def fill_order(self) -> Command[Any]:
        """Return the completion of the order by name, which a store of an earlier version lacks."""
        order, everything = self._keys.order, self._keys.class_set
        return Command(("ZUNIONSTORE", order, 2, order, everything, "WEIGHTS", 0, 0))

    def scan(self, whole: bool) -> Generator[Any, Any, list[Row] | None]:
        """Give the next batch of a walk that writes nothing; None at its end.

        Args:
            whole: the order by name is complete; otherwise the set of all records is scanned, which may give one twice.
        """
        if whole:
            rows: list[Row] = yield self.after(self._after)
            if rows:
                self._after = rows[-1].key
            return rows or None
        if self._scan in (0, b"0"):
            return None
        at, members = yield Command(("SSCAN", self._keys.class_set, self._scan or 0, "COUNT", self._batch_size))
        self._scan = at
        found: list[Row] = yield self.read(keys=list(members))
        return found
