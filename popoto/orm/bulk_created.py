"""What bulk_create returns for a generator: the keys of the records, which are read when they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

M = TypeVar("M")

READ_CHUNK = 500


class CreatedRecords(Sequence[M]):
    """A read-only list of stored records that holds their keys alone, so that a long import stays small in memory.

    Iterating reads 500 records at a time; an index or a slice reads what it names. A record that was deleted since is
    None.

    Attributes:
        keys: the records' keys, in the order in which they were given.
    """

    def __init__(self, model: Any, keys: list[str]) -> None:
        self._model = model
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> M: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[M]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._model.query.get_many(self.keys[index])
        return self._model.query.get_many([self.keys[index]])[0]

    def __iter__(self) -> Iterator[M]:
        for start in range(0, len(self.keys), READ_CHUNK):
            yield from self._model.query.get_many(self.keys[start : start + READ_CHUNK])

    async def async_all(self) -> list[M]:
        """Await all of them."""
        found: list[M] = await self._model.query.async_get_many(self.keys)
        return found

    def __eq__(self, other: object) -> bool:
        if isinstance(other, CreatedRecords):
            return self._model is other._model and self.keys == other.keys
        if isinstance(other, (list, tuple)):
            return all(type(item) is self._model for item in other) and self.keys == [item.pk for item in other]
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self.keys)} created records of {self._model.__name__}>"
