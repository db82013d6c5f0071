"""Building a query: conditions, order, limit, what the results are. Each call returns a new builder; nothing runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from popoto.exceptions import QueryException
from popoto.orm import shards
from popoto.orm.fields.sorted import SHARING_TYPES
from popoto.orm.keys import ModelKeys
from popoto.orm.lookups import Compiled, check_tree, compile_filters, exact_filters, split_parameter
from popoto.orm.ordering import F, term
from popoto.orm.q import Filter, Q
from popoto.orm.related import related_path
from popoto.orm.selection import Order, Selection
from popoto.orm.spread import spread_selection
from popoto.orm.suggestions import require_field

if TYPE_CHECKING:
    from popoto.orm.model import Model

T = TypeVar("T", covariant=True)
B = TypeVar("B", bound="Building[Any]")


class Building(Generic[T]):
    """What is asked: the model, conditions, order, limit, and what the results are. It never changes."""

    _track: bool = True  # tell the model which records are handed out (AccessTrackerMixin)
    _prefetch: tuple[list[str], ...] = ()
    _trees: tuple[Q, ...] = ()
    _computed: tuple[Callable[[Any], Any], bool] | None = None

    def __init__(
        self,
        model: type[Model],
        filters: Mapping[str, Any] | None = None,
        order_by: str | F | tuple[str | F, ...] | None = None,
        limit: int | None = None,
        values: tuple[str, ...] | None = None,
    ) -> None:
        self.model_class = model
        self._filters = dict(filters or {})
        self._order_by: tuple[str | F, ...] = order_by if isinstance(order_by, tuple) else _listed(order_by)
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

    # -- conditions ---------------------------------------------------------------------------------------------------

    def filter(self: B, *args: Filter, **filters: Any) -> B:
        """Return a builder with further conditions; all must hold. A keyword given before is replaced.

        The keywords order_by, limit and values are those methods.

        Args:
            args: Q objects, and expressions such as `Model.price > 4`.
        Raises: QueryException: an unknown field or lookup; it lists those that exist. TypeError: an argument is
            neither.
        """
        new = self
        if "order_by" in filters:
            wanted = filters.pop("order_by")
            new = new.order_by(*wanted) if isinstance(wanted, tuple) else new.order_by(wanted)
        if "limit" in filters:
            new = new.limit(filters.pop("limit"))
        if "values" in filters:
            values = filters.pop("values")
            if values is not None:
                if not isinstance(values, tuple):
                    raise QueryException(f"values=: expected a tuple of field names, got {values!r}.")
                new = new.values(*values)
        meta = self.model_class._meta
        for parameter in filters:
            split_parameter(meta, parameter)
        trees = [_tree(meta, given) for given in args]
        return new._copy(_filters={**self._filters, **filters}, _trees=(*self._trees, *trees))

    def exclude(self: B, *args: Filter, **filters: Any) -> B:
        """Return a builder without the records for which all of these conditions hold together.

        It is the exact complement of the filter: `exclude(color="red")` keeps the records whose color is None.

        Raises: TypeError: no condition is given. QueryException, TypeError: as `filter()`.
        """
        if not args and not filters:
            raise TypeError("exclude() needs a condition: without one it would exclude everything.")
        meta = self.model_class._meta
        parts = [*(_tree(meta, given) for given in args), *([_tree(meta, Q(**filters))] if filters else [])]
        excluded = ~(parts[0] if len(parts) == 1 else Q.combined(Q.AND, tuple(parts)))
        return self._copy(_trees=(*self._trees, excluded))

    # -- order, limit, form -------------------------------------------------------------------------------------------

    def order_by(self: B, *names: str | F | None) -> B:
        """Return a builder ordered by these, the first one first; equal records by key.

        A name orders by that field, '-' before it descending; `F("price") * F("quantity")` by what is computed. None
        values come first. One sorted field is walked on the server; anything else is read from every match and sorted
        here. `order_by(None)` and `order_by()` go back to the order that the model and the filter give.

        Raises: QueryException: an unknown field.
        """
        if names == (None,):
            names = ()
        meta = self.model_class._meta
        for given in names:
            call = f"order_by({given!r})"
            if isinstance(given, F):
                for name in given.names:
                    require_field(meta, call, name)
            else:
                require_field(meta, call, given.removeprefix("-") if isinstance(given, str) else given)
        return self._copy(_order_by=names)

    def computed_sort(self: B, fn: Callable[[Any], Any], reverse: bool = False) -> B:
        """Return a builder whose results are sorted here by `fn(result)`; the limit is applied afterwards.

        Every match is read. What is equal keeps the order that the query has otherwise. For what is computed of fields,
        `order_by(F(...))` reads less.

        Raises: TypeError: fn is no function.
        """
        if not callable(fn):
            raise TypeError(f"computed_sort({fn!r}): expected a function of a result.")
        return self._copy(_computed=(fn, bool(reverse)))

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

    def values(self, *names: str) -> Any:
        """Return a builder whose results are dicts of these fields; without names, instances again.

        Raises: QueryException: an unknown field.
        """
        for name in names:
            require_field(self.model_class._meta, f"values({name!r})", name, in_hash=False)
        return self._copy(_values=tuple(names) or None)

    def no_track(self: B) -> B:
        """Return a builder whose results count for no read (AccessTrackerMixin)."""
        return self._copy(_track=False)

    def prefetch(self: B, *paths: str) -> B:
        """Return a builder whose results come with the records they point to: `"customer"`, `"customer__city"`.

        One round trip more for each step of the longest path, whatever the number of results.

        Raises: QueryException: a path names no relationship.
        """
        meta = self.model_class._meta
        return self._copy(_prefetch=(*self._prefetch, *(related_path(meta, path) for path in paths)))

    # -- what runs ----------------------------------------------------------------------------------------------------

    def exact(self) -> dict[str, Any]:
        """Return what the conditions say exactly, field -> value: each record found has these values."""
        return exact_filters(self._filters, self._trees, self.model_class._meta)

    def compiled(self, answered: Iterable[str] = (), keys: ModelKeys | None = None) -> Compiled:
        """Return the conditions of the filters.

        Args:
            answered: fields whose exact filter needs no condition, for what is searched holds no other value of them.
            keys: those of a shard, instead of the model's own.
        Raises: QueryException: a value does not fit its field.
        """
        meta = self.model_class._meta
        return compile_filters(meta, keys or meta.keys, self._filters, self._trees, answered)

    def _order(self, compiled: Compiled, keys: ModelKeys) -> Order:
        if self._computed is None:
            return self._plain_order(compiled, keys)
        return replace(self._plain_order(compiled, keys), computed=self._computed)

    def _plain_order(self, compiled: Compiled, keys: ModelKeys) -> Order:
        meta = self.model_class._meta
        wanted = self._order_by or _listed(meta.order_by)
        if not wanted:
            if compiled.near is not None:
                return Order(keys.order, near=compiled.near)
            key, first = compiled.order or keys.order, compiled.order_field
            sharing = first if first is not None and meta.fields[first].type in SHARING_TYPES else None
            return Order(key, *_range_on(compiled.where, key), field=sharing)
        if len(wanted) == 1 and isinstance(wanted[0], str):
            name, descending = wanted[0].removeprefix("-"), wanted[0].startswith("-")
            field = meta.fields[name]
            if field.is_sorted:
                given = self.exact() if self._trees else self._filters
                if all(p in given for p in field.partition_by):  # type: ignore[attr-defined]
                    key = field.sorted_set_key(keys, given, meta.fields)  # type: ignore[attr-defined]
                    sharing = name if field.type in SHARING_TYPES else None
                    return Order(key, *_range_on(compiled.where, key), descending=descending, field=sharing)
        return Order(keys.order, terms=tuple(term(given) for given in wanted))

    def selection(self, offset: int = 0, limit: int | None = None, keys: ModelKeys | None = None) -> Selection:
        """Return what runs: this builder from `offset` on, at most `limit` results besides its own limit.

        Args:
            keys: those of a shard, instead of the model's own.
        """
        meta = self.model_class._meta
        if keys is None and meta.shard_by is not None and shards.are_many(meta):
            return spread_selection(self, offset, limit)  # type: ignore[return-value]
        keys = keys or meta.keys
        compiled = self.compiled(keys=keys)
        if self._limit is not None:
            left = max(0, self._limit - offset)
            limit = left if limit is None else min(limit, left)
        return Selection(
            self.model_class,
            keys,
            compiled,
            self._order(compiled, keys),
            offset,
            limit,
            self._values,
            track=self._track,
            prefetch=self._prefetch,
        )

    def __repr__(self) -> str:
        trees = f" where={' AND '.join(map(repr, self._trees))}" if self._trees else ""
        return f"<{type(self).__name__} for {self.model_class.__name__} filters={self._filters}{trees}>"


def _listed(given: Any) -> tuple[Any, ...]:
    return () if given is None else (given,)


def _tree(meta: Any, given: object) -> Q:
    """Return a positional argument of `filter()` as a Q.

    Raises: TypeError: it is no condition. QueryException: an unknown field or lookup.
    """
    if not isinstance(given, Filter):
        raise TypeError(f"filter() takes keywords, Q objects and expressions such as Model.field > 1; got {given!r}.")
    tree = given.to_q()
    check_tree(meta, tree)
    return tree


def _range_on(where: list[Any], key: str) -> tuple[str | None, str | None]:
    """Return the bounds that a condition sets on an ordered set, so that a walk of it starts and ends there."""
    conditions = where[1:] if where[0] == "and" else [where]
    for condition in conditions:
        if condition[0] == "range" and condition[1] == key:
            return condition[2], condition[3]
    return None, None
