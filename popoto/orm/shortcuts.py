"""What `Model.query` offers on all records of the model: each call of a builder, without `filter()` before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from popoto import redis_db
from popoto.orm.aggregates import Aggregate
from popoto.orm.builder import QueryBuilder
from popoto.orm.explain import Plan
from popoto.orm.iteration import Iteration
from popoto.orm.ordering import F
from popoto.orm.q import Filter

if TYPE_CHECKING:
    from popoto.orm.model import Model

M = TypeVar("M", bound="Model", covariant=True)


class Shortcuts(Generic[M]):
    """Calls of the builder on all records. Where they take conditions, these are those of `filter()`."""

    builder_class: type[QueryBuilder[Any]] = QueryBuilder
    model_class: type[Model]

    def _builder(self) -> QueryBuilder[M]:
        return self.builder_class(self.model_class)

    # -- builders -----------------------------------------------------------------------------------------------------

    @overload
    def filter(self, *args: Filter, values: tuple[str, ...], **kwargs: Any) -> QueryBuilder[dict[str, Any]]: ...
    @overload
    def filter(self, *args: Filter, values: None = None, **kwargs: Any) -> QueryBuilder[M]: ...
    def filter(self, *args: Filter, **kwargs: Any) -> Any:
        """Return a lazy QueryBuilder of the records for which all conditions hold; see `Building.filter`.

        Raises: QueryException: an unknown field or lookup; it lists those that exist. TypeError: an argument is neither
            a Q nor an expression.
        """
        return self._builder().filter(*args, **kwargs)

    def exclude(self, *args: Filter, **kwargs: Any) -> QueryBuilder[M]:
        """Return a builder of the records for which these conditions do not all hold."""
        return self._builder().exclude(*args, **kwargs)

    def order_by(self, *names: str | F | None) -> QueryBuilder[M]:
        """Return a builder of all records in this order."""
        return self._builder().order_by(*names)

    def computed_sort(self, fn: Callable[[Any], Any], reverse: bool = False) -> QueryBuilder[M]:
        """Return a builder of all records, sorted by a function."""
        return self._builder().computed_sort(fn, reverse)

    def limit(self, n: int | None) -> QueryBuilder[M]:
        """Return a builder of at most n records."""
        return self._builder().limit(n)

    def values(self, *names: str) -> QueryBuilder[dict[str, Any]]:
        """Return a builder of dicts of these fields."""
        return self._builder().values(*names)

    def no_track(self) -> QueryBuilder[M]:
        """Return a builder whose results count for no read (AccessTrackerMixin)."""
        return self._builder().no_track()

    def prefetch(self, *paths: str) -> QueryBuilder[M]:
        """Return a builder whose results come with the records they point to."""
        return self._builder().prefetch(*paths)

    # -- answers ------------------------------------------------------------------------------------------------------

    def all(self, **kwargs: Any) -> list[M]:
        """Return all records; keywords order_by, limit, values."""
        return self.filter(**kwargs).all()

    def count(self, *args: Filter, **kwargs: Any) -> int:
        """Return how many records match; without conditions in constant time."""
        return self.filter(*args, **kwargs).count()

    def exists(self, *args: Filter, **kwargs: Any) -> bool:
        """Return True when a record matches."""
        return self.filter(*args, **kwargs).exists()

    def first(self, *args: Filter, **kwargs: Any) -> M | None:
        """Return the first match or None."""
        return self.filter(*args, **kwargs).first()

    def last(self, *args: Filter, **kwargs: Any) -> M | None:
        """Return the last match or None."""
        return self.filter(*args, **kwargs).last()

    def distinct(self, *names: str) -> list[Any]:
        """Return the different values of a field, or tuples of several."""
        return self._builder().distinct(*names)

    def aggregate(self, *args: str | Aggregate, **named: Aggregate) -> dict[str, Any]:
        """Return what is computed over all records; see `QueryBuilder.aggregate`."""
        return self._builder().aggregate(*args, **named)

    def iterate(self, chunk_size: int | None = None, cursor: str | None = None) -> Iteration[M]:
        """Return an iterator over all records that keeps none; see `QueryBuilder.iterate`."""
        return self._builder().iterate(chunk_size, cursor)

    async_iterate = iterate

    def explain(self, *args: Filter, **kwargs: Any) -> Plan:
        """Return how these conditions are answered; print it."""
        return self.filter(*args, **kwargs).explain()

    def keys(self, catchall: bool = False, clean: bool = False, **kwargs: Any) -> list[bytes]:
        """Return the keys of the matching records.

        Args:
            catchall: debugging only: every key of the server with the model's name in it (SCAN).
            clean: debugging only: first remove index entries of records that are gone, `clean_indexes()`.
        """
        if clean:
            self.model_class.clean_indexes()
        if catchall:
            return redis_db.scan_keys(f"*{self.model_class._meta.model_name}*")
        return self.filter(**kwargs).keys()

    def filter_for_keys_set(self, *args: Filter, **kwargs: Any) -> set[bytes]:
        """Return the keys of the matching records as a set."""
        return set(self.filter(*args, **kwargs).keys())

    # -- async twins --------------------------------------------------------------------------------------------------

    async def async_filter(self, *args: Filter, **kwargs: Any) -> list[M]:
        """Await `filter()`; returns a list."""
        return await self.filter(*args, **kwargs).async_all()

    async def async_exclude(self, *args: Filter, **kwargs: Any) -> list[M]:
        """Await `exclude()`; returns a list."""
        return await self.exclude(*args, **kwargs).async_all()

    async def async_all(self, **kwargs: Any) -> list[M]:
        """Await `all()`."""
        return await self.filter(**kwargs).async_all()

    async def async_values(self, *names: str) -> list[dict[str, Any]]:
        """Await `values()`; returns a list."""
        return await self._builder().async_values(*names)

    async def async_count(self, *args: Filter, **kwargs: Any) -> int:
        """Await `count()`."""
        return await self.filter(*args, **kwargs).async_count()

    async def async_exists(self, *args: Filter, **kwargs: Any) -> bool:
        """Await `exists()`."""
        return await self.filter(*args, **kwargs).async_exists()

    async def async_first(self, *args: Filter, **kwargs: Any) -> M | None:
        """Await `first()`."""
        return await self.filter(*args, **kwargs).async_first()

    async def async_last(self, *args: Filter, **kwargs: Any) -> M | None:
        """Await `last()`."""
        return await self.filter(*args, **kwargs).async_last()

    async def async_distinct(self, *names: str) -> list[Any]:
        """Await `distinct()`."""
        return await self._builder().async_distinct(*names)

    async def async_aggregate(self, *args: str | Aggregate, **named: Aggregate) -> dict[str, Any]:
        """Await `aggregate()`."""
        return await self._builder().async_aggregate(*args, **named)

    async def async_explain(self, *args: Filter, **kwargs: Any) -> Plan:
        """Await `explain()`."""
        return await self.filter(*args, **kwargs).async_explain()

    async def async_keys(self, catchall: bool = False, clean: bool = False, **kwargs: Any) -> list[bytes]:
        """Await `keys()`."""
        if clean:
            await self.model_class.async_clean_indexes()
        if catchall:
            return await redis_db.async_scan_keys(f"*{self.model_class._meta.model_name}*")
        return await self.filter(**kwargs).async_keys()

    async def async_filter_for_keys_set(self, *args: Filter, **kwargs: Any) -> set[bytes]:
        """Await `filter_for_keys_set()`."""
        return set(await self.filter(*args, **kwargs).async_keys())
