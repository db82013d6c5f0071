"""QueryBuilder: a lazy, immutable selection that behaves as the list of its results."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from popoto.orm.aggregates import Aggregate, aggregate_steps, distinct_steps
from popoto.orm.building import Building, T
from popoto.orm.drivers import adrive, astream, drive, stream
from popoto.orm.explain import Plan, explain_steps
from popoto.orm.iteration import Iteration
from popoto.orm.ordering import reversed_terms
from popoto.orm.selection import Selection
from popoto.orm.spread import SpreadSelection


class QueryBuilder(Building[T]):
    """A selection that runs when it is first looked at, once, and then behaves as the list of its results.

    Every chaining call returns a new builder. `count()`, `exists()`, `first()`, `last()` and indexing ask the server
    for no more than they return. Slices of a long answer see later writes; there is no snapshot.
    """

    if TYPE_CHECKING:

        def values(self, *names: str) -> QueryBuilder[dict[str, Any]]: ...

    def _run(self, selection: Selection) -> list[Any]:
        return list(stream(selection.results()))

    async def _arun(self, selection: Selection) -> list[Any]:
        return [item async for item in astream(selection.results())]

    def all(self) -> list[T]:
        """Return the results as a list."""
        return list(self._evaluated())

    async def async_all(self) -> list[T]:
        """Await `all()`."""
        if self._results is None:
            self._results = await self._arun(self.selection())
        return list(self._results)

    def _evaluated(self) -> list[Any]:
        if self._results is None:
            self._results = self._run(self.selection())
        return self._results

    def first(self) -> T | None:
        """Return the first result or None."""
        found = self._results if self._results is not None else self._run(self.selection(limit=1))
        return found[0] if found else None

    async def async_first(self) -> T | None:
        """Await `first()`."""
        found = self._results if self._results is not None else await self._arun(self.selection(limit=1))
        return found[0] if found else None

    def last(self) -> T | None:
        """Return the last result or None."""
        return drive(self._last()) if self._results is None else self._of_results()

    async def async_last(self) -> T | None:
        """Await `last()`."""
        return await adrive(self._last()) if self._results is None else self._of_results()

    def _of_results(self) -> T | None:
        last: T | None = self._results[-1] if self._results else None
        return last

    def _last(self) -> Generator[Any, Any, Any]:
        whole = self.selection()
        if isinstance(whole, SpreadSelection):
            found = yield from whole.collected()
            return found[-1] if found else None
        order = whole.order
        if order.computed is not None or order.near is not None:
            found = yield from whole.collected()
            return found[-1] if found else None
        if whole.limit:
            found = yield from replace(whole, offset=whole.limit - 1, limit=1).collected()
            if found:
                return found[0]
        if whole.limit == 0:
            return None
        backwards = replace(order, descending=not order.descending, terms=reversed_terms(order.terms))
        found = yield from replace(whole, order=backwards, limit=1).collected()
        return found[0] if found else None

    def count(self) -> int:
        """Return how many records match, whatever the limit."""
        return drive(self.selection().count())

    async def async_count(self) -> int:
        """Await `count()`."""
        return await adrive(self.selection().count())

    def exists(self) -> bool:
        """Return True when a record matches."""
        return drive(self._exists())

    async def async_exists(self) -> bool:
        """Await `exists()`."""
        return await adrive(self._exists())

    def _exists(self) -> Generator[Any, Any, bool]:
        """Read one key field of the first match: a record may be gone that an index still names."""
        key = self.model_class._meta.key_names[0]
        one = self._copy(_values=(key,), _track=False, _prefetch=(), _computed=None).selection(limit=1)
        in_python = not isinstance(one, SpreadSelection) and one.in_python  # then each candidate is read anyway
        return bool((yield from one.record_keys() if in_python else one.collected()))

    def keys(self) -> list[bytes]:
        """Return the keys of the matching records, in order."""
        return [key.encode() for key in drive(self.selection().record_keys())]

    async def async_keys(self) -> list[bytes]:
        """Await `keys()`."""
        return [key.encode() for key in await adrive(self.selection().record_keys())]

    async def async_values(self, *names: str) -> list[dict[str, Any]]:
        """Await `values(*names).all()`."""
        return await self.values(*names).async_all()

    def distinct(self, *names: str) -> list[Any]:
        """Return the different values of a field, or tuples of several, in the order of the query; a limit cuts them.

        Without names: the different dicts of `values()`.

        Raises: QueryException: an unknown field, or neither names nor `values()`.
        """
        return drive(distinct_steps(self, names))

    async def async_distinct(self, *names: str) -> list[Any]:
        """Await `distinct()`."""
        return await adrive(distinct_steps(self, names))

    def aggregate(self, *args: str | Aggregate, **named: Aggregate) -> dict[str, Any]:
        """Return what is computed over all matching records, whatever the limit, without sending them.

            aggregate(total=Sum("price"), n=Count(), mean=Avg("price"), low=Min("price"), high=Max("price"))

        Args:
            args: an aggregate goes by the name `price__sum`; a field name stands for all that its type has.
            named: name -> aggregate.
        Returns: name -> value. Sums of int and Decimal are exact; a sum of nothing is 0, the others are None.
        Raises: QueryException: an unknown field, or an aggregate that its type does not have.
        """
        return drive(aggregate_steps(self, args, named))

    async def async_aggregate(self, *args: str | Aggregate, **named: Aggregate) -> dict[str, Any]:
        """Await `aggregate()`."""
        return await adrive(aggregate_steps(self, args, named))

    def iterate(self, chunk_size: int | None = None, cursor: str | None = None) -> Iteration[T]:
        """Return an iterator over the results that keeps none of them, for `for` and `async for`.

        Its `cursor` is a text that says where it is: store it, and `iterate(cursor=...)` of the same query goes on
        behind the last result, whatever was written meanwhile. `chunks()` gives lists.

        Args:
            chunk_size: results a round trip and a list of `chunks()`; as many as are right for the server if left out.
            cursor: where an earlier iteration was.
        Raises: QueryException: the cursor is of another order, or the order has none (computed_sort, by distance).
        """
        return Iteration(self, chunk_size, cursor)

    async_iterate = iterate

    def explain(self) -> Plan:
        """Return how the query runs and what it will touch: print it. One round trip; nothing of the answer is read."""
        return drive(explain_steps(self))

    async def async_explain(self) -> Plan:
        """Await `explain()`."""
        return await adrive(explain_steps(self))

    def __aiter__(self) -> AsyncIterator[T]:
        return astream(self.selection().results())

    # -- as a list ----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[T]:
        return iter(self._evaluated())

    def __len__(self) -> int:
        return len(self._evaluated())

    def __bool__(self) -> bool:
        return bool(self._evaluated())

    def __contains__(self, item: object) -> bool:
        return item in self._evaluated()

    def __reversed__(self) -> Iterator[T]:
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
