"""QueryBuilder: a lazy, immutable selection that behaves as the list of its results."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from popoto.exceptions import QueryException
from popoto.orm.drivers import adrive, astream, drive, stream
from popoto.orm.fields.sorted import SHARING_TYPES
from popoto.orm.lookups import Compiled, compile_filters, split_parameter
from popoto.orm.selection import Order, Selection

if TYPE_CHECKING:
    from popoto.orm.model import Model

B = TypeVar("B", bound="QueryBuilder")


class QueryBuilder:
    """A selection that runs when it is first looked at, once, and then behaves as the list of its results.

    Every chaining call returns a new builder. `count()`, `exists()`, `first()` and indexing ask the server for no more
    than they return. Slices of a long answer see later writes; there is no snapshot.
    """

    def __init__(
        self,
        model: type[Model],
        filters: Mapping[str, Any] | None = None,
        order_by: str | None = None,
        limit: int | None = None,
        values: tuple[str, ...] | None = None,
    ) -> None:
        self.model_class = model
        self._filters = dict(filters or {})
        self._order_by = order_by
        self._limit = limit
        self._values = values
        self._results: list[Any] | None = None
        for parameter in self._filters:
            split_parameter(model._meta, parameter)

    def _copy(self: B, **changes: Any) -> B:
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.__dict__.update(changes)
        new._results = None
        return new

    # -- building -----------------------------------------------------------------------------------------------------

    def filter(self: B, *args: Any, **filters: Any) -> B:
        """Return a builder with further filters; a parameter given before is replaced.

        The keywords order_by, limit and values are those methods.

        Raises: QueryException: an unknown field or lookup.
        """
        if args:
            raise TypeError(f"filter() takes keywords only, got {args[0]!r}.")
        new = self
        if "order_by" in filters:
            new = new.order_by(filters.pop("order_by"))
        if "limit" in filters:
            new = new.limit(filters.pop("limit"))
        if "values" in filters:
            values = filters.pop("values")
            if values is not None:
                if not isinstance(values, tuple):
                    raise QueryException(f"values=: expected a tuple of field names, got {values!r}.")
                new = new.values(*values)
        for parameter in filters:
            split_parameter(self.model_class._meta, parameter)
        return new._copy(_filters={**self._filters, **filters})

    def order_by(self: B, name: str | None) -> B:
        """Return a builder ordered by a field; '-' before the name: descending. None values come first.

        Raises: QueryException: an unknown field.
        """
        if name is not None:
            fields = self.model_class._meta.fields
            if not isinstance(name, str) or name.removeprefix("-") not in fields:
                raise QueryException(
                    f"order_by({name!r}): {self.model_class.__name__} has no such field. Fields: {', '.join(fields)}."
                )
        return self._copy(_order_by=name)

    def limit(self: B, n: int | None) -> B:
        """Return a builder with at most n results; None lifts the limit.

        Raises: TypeError: no int. QueryException: negative.
        """
        if n is not None:
            if type(n) is not int:
                raise TypeError(f"limit({n!r}): expected a whole number or None.")
            if n < 0:
                raise QueryException(f"limit({n}): expected 0 or more. For the last ones reverse the order.")
        return self._copy(_limit=n)

    def values(self: B, *names: str) -> B:
        """Return a builder whose results are dicts of these fields; without names, instances again.

        Raises: QueryException: an unknown field.
        """
        fields = self.model_class._meta.fields
        for name in names:
            if name not in fields:
                raise QueryException(
                    f"values({name!r}): {self.model_class.__name__} has no such field. Fields: {', '.join(fields)}."
                )
        return self._copy(_values=tuple(names) or None)

    # -- running ------------------------------------------------------------------------------------------------------

    def compiled(self) -> Compiled:
        """Return the conditions of the filters.

        Raises: QueryException: a value does not fit its field.
        """
        meta = self.model_class._meta
        return compile_filters(meta, meta.keys, self._filters)

    def _order(self, compiled: Compiled) -> Order:
        meta = self.model_class._meta
        keys = meta.keys
        wanted = self._order_by or meta.order_by
        if wanted is None:
            key, first = compiled.order or keys.order, compiled.order_field
            sharing = first if first is not None and meta.fields[first].type in SHARING_TYPES else None
            return Order(key, *_range_on(compiled.where, key), field=sharing)
        name, descending = wanted.removeprefix("-"), wanted.startswith("-")
        field = meta.fields[name]
        if field.is_sorted:
            partition = field.partition_by  # type: ignore[attr-defined]
            if all(p in self._filters for p in partition):
                key = field.sorted_set_key(keys, self._filters, meta.fields)  # type: ignore[attr-defined]
                sharing = name if field.type in SHARING_TYPES else None
                return Order(key, *_range_on(compiled.where, key), descending=descending, field=sharing)
        return Order(keys.order, by=name, descending=descending)

    def selection(self, offset: int = 0, limit: int | None = None) -> Selection:
        """Return what runs: this builder from `offset` on, at most `limit` results besides its own limit."""
        compiled = self.compiled()
        if self._limit is not None:
            left = max(0, self._limit - offset)
            limit = left if limit is None else min(limit, left)
        return Selection(
            self.model_class, self.model_class._meta.keys, compiled, self._order(compiled), offset, limit, self._values
        )

    def _run(self, selection: Selection) -> list[Any]:
        return list(stream(selection.results()))

    async def _arun(self, selection: Selection) -> list[Any]:
        return [item async for item in astream(selection.results())]

    def all(self) -> list[Any]:
        """Return the results as a list."""
        return list(self._evaluated())

    def _evaluated(self) -> list[Any]:
        if self._results is None:
            self._results = self._run(self.selection())
        return self._results

    def first(self) -> Any:
        """Return the first result or None."""
        found = self._results if self._results is not None else self._run(self.selection(limit=1))
        return found[0] if found else None

    def last(self) -> Any:
        """Return the last result or None."""
        found = self._evaluated()
        return found[-1] if found else None

    def count(self) -> int:
        """Return how many records match, whatever the limit."""
        return drive(self.selection().count())

    def exists(self) -> bool:
        """Return True when a record matches."""
        return bool(drive(self.selection(limit=1).record_keys()))

    def keys(self) -> list[bytes]:
        """Return the keys of the matching records, in order."""
        return [key.encode() for key in drive(self.selection().record_keys())]

    def iterate(self) -> Iterator[Any]:
        """Yield the results slice by slice, without keeping them."""
        results: Iterator[Any] = stream(self.selection().results())
        return results

    async def async_all(self) -> list[Any]:
        """Await `all()`."""
        if self._results is None:
            self._results = await self._arun(self.selection())
        return list(self._results)

    async def async_first(self) -> Any:
        """Await `first()`."""
        found = await self._arun(self.selection(limit=1))
        return found[0] if found else None

    async def async_count(self) -> int:
        """Await `count()`."""
        return await adrive(self.selection().count())

    async def async_exists(self) -> bool:
        """Await `exists()`."""
        return bool(await adrive(self.selection(limit=1).record_keys()))

    async def async_keys(self) -> list[bytes]:
        """Await `keys()`."""
        return [key.encode() for key in await adrive(self.selection().record_keys())]

    def __aiter__(self) -> AsyncIterator[Any]:
        return astream(self.selection().results())

    # -- as a list ----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        return iter(self._evaluated())

    def __len__(self) -> int:
        return len(self._evaluated())

    def __bool__(self) -> bool:
        return bool(self._evaluated())

    def __contains__(self, item: object) -> bool:
        return item in self._evaluated()

    def __reversed__(self) -> Iterator[Any]:
        return iter(self._evaluated()[::-1])

    def __getitem__(self, index: int | slice) -> Any:
        if self._results is not None:
            return self._results[index]
        if isinstance(index, slice):
            start, stop, step = index.start or 0, index.stop, index.step
            if step not in (None, 1) or start < 0 or (stop is not None and stop < 0):
                return self._evaluated()[index]
            if stop is not None and stop <= start:
                return []
            return self._run(self.selection(start, None if stop is None else stop - start))
        if index < 0:
            return self._evaluated()[index]
        found = self._run(self.selection(index, 1))
        if not found:
            raise IndexError(f"the query has no result number {index}")
        return found[0]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, QueryBuilder):
            return self._evaluated() == other._evaluated()
        if isinstance(other, (list, tuple)):
            return self._evaluated() == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Iterable[Any]) -> list[Any]:
        return [*self._evaluated(), *other]

    def index(self, item: Any) -> int:
        """Return the place of a result."""
        return self._evaluated().index(item)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} for {self.model_class.__name__} filters={self._filters}>"


def _range_on(where: list[Any], key: str) -> tuple[str | None, str | None]:
    """Return the bounds that a condition sets on an ordered set, so that a walk of it starts and ends there."""
    conditions = where[1:] if where[0] == "and" else [where]
    for condition in conditions:
        if condition[0] == "range" and condition[1] == key:
            return condition[2], condition[3]
    return None, None
