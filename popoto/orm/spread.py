"""A selection over several shards: asked in each of them, merged in the order that one server would give."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from popoto.orm import shards
from popoto.orm.commands import Command
from popoto.orm.drivers import Batch, relayed
from popoto.orm.keys import ModelKeys
from popoto.orm.merging import local
from popoto.orm.ordering import Term, sort_found, term
from popoto.orm.related import prefetch, together
from popoto.orm.spread_pages import Pages, Place, merged_pages

if TYPE_CHECKING:
    from popoto.orm.builder import QueryBuilder
    from popoto.orm.selection import Selection

CHUNK = 1000


@dataclass(frozen=True)
class SpreadSelection:
    """What a builder selects, where its model has several shards. Has the steps of a Selection.

    Attributes:
        only: the keys of the one shard that the filters name; None: every shard is asked.
        track: tell the model which records are handed out.
        strict: raise for a corrupt record instead of leaving it out.
    """

    builder: QueryBuilder[Any]
    offset: int
    limit: int | None
    only: ModelKeys | None
    track: bool
    strict: bool = False

    @property
    def meta(self) -> Any:
        """The model's options."""
        return self.builder.model_class._meta

    def bare(self) -> SpreadSelection:
        """Return the same of whole records, which nobody is told of."""
        return SpreadSelection(
            self.builder._copy(_values=None, _prefetch=()), self.offset, self.limit, self.only, False
        )

    def sample(self) -> Selection:
        """Return the selection of one shard: to look at how all of them are ordered."""
        with shards.using(self.meta, self.only or shards.some_keys(self.meta)):
            return self.selection_here(0, None)

    def selection_here(self, offset: int, limit: int | None, track: bool = False) -> Selection:
        """Return the selection of the shard at work."""
        return self.builder._copy(_limit=None, _track=track).selection(offset, limit)

    @property
    def _stop(self) -> int | None:
        return None if self.limit is None else self.offset + self.limit

    def results(self) -> Generator[Any, Any, None]:
        """Yield batches of instances, or of dicts when values are asked for."""
        if self.limit == 0:
            return
        if self.only is not None:
            one = lambda: self.selection_here(self.offset, self.limit, self.track).results()  # noqa: E731
            yield from shards.within(self.meta, self.only, one)
            return
        found = yield from self._merged()
        if self.builder._values is None:
            together(self.builder.model_class, found)
            if self.builder._prefetch:
                yield from prefetch(found, self.builder._prefetch)
            if self.track:
                yield from self.tracked(found)
        for start in range(0, len(found), CHUNK):
            yield Batch(found[start : start + CHUNK])

    def collected(self, strict: bool = False) -> Generator[Any, Any, list[Any]]:
        """Return all results in one list.

        Raises: ModelException: with `strict`, a stored value is corrupt. (Else the record is left out and logged.)
        """
        if self.only is not None:
            one = lambda: self.selection_here(self.offset, self.limit, self.track).collected(strict)  # noqa: E731
            return (yield from shards.within(self.meta, self.only, one))
        return (yield from self._merged(strict))

    def record_keys(self) -> Generator[Any, Any, list[str]]:
        """Return the keys of the matching records."""
        if self.limit == 0:
            return []
        if self.only is not None:
            one = lambda: self.selection_here(self.offset, self.limit).record_keys()  # noqa: E731
            return (yield from shards.within(self.meta, self.only, one))
        found = yield from self.bare()._merged()
        return [record._saved_key for record in found]

    def count(self) -> Generator[Any, Any, int]:
        """Return how many records match, without offset and limit."""
        one = lambda: self.selection_here(0, None).count()  # noqa: E731
        if self.only is not None:
            return (yield from shards.within(self.meta, self.only, one))
        return sum((yield from shards.each(self.meta, one)))

    def pages(self, pages: Pages, rows: int, after: Place | None) -> Generator[Any, Any, None]:
        """Yield batches of (result, its place); None is the place where the order has none to go on from."""
        order = self.sample().order
        if order.computed is None and order.near is None:
            yield from merged_pages(self, pages, rows, after)
        else:
            yield from relayed(self.results(), lambda items: [Batch([(item, None) for item in items])])

    # -- parts --------------------------------------------------------------------------------------------------------

    def _merged(self, strict: bool = False) -> Generator[Any, Any, list[Any]]:
        """Return the results of all shards, sorted and cut.

        Each shard gives its own first ones up to offset + limit, for all of the answer may lie in one of them.
        """
        asked = self.builder._copy(_values=None, _prefetch=())
        ask = SpreadSelection(asked, 0, self._stop, None, False)
        first: list[Selection] = []

        def one() -> Generator[Any, Any, list[Any]]:
            selection = ask.selection_here(0, self._stop)
            first.append(selection)
            return selection.collected(strict)

        lists = yield from shards.each(self.meta, one)
        found = [record for some in lists for record in some]
        if first:
            self._sort(found, first[0])
        found = found[self.offset : self._stop]
        names = self.builder._values
        return found if names is None else [{name: record.__dict__[name] for name in names} for record in found]

    def _sort(self, found: list[Any], selection: Selection) -> None:
        near = selection.order.near
        if near is not None:
            found.sort(key=lambda r: (near.metres_to(r.__dict__[near.field]), _local(r)))
            return
        if selection.order.computed is not None:
            key, reverse = selection.order.computed
            found.sort(key=_local)
            found.sort(key=key, reverse=reverse)
            return
        terms = selection.order.terms or self.terms(selection)
        if not terms:
            found.sort(key=_local)
            return
        by_key = {_local(record).decode(): record for record in found}
        pairs = [(key, tuple(wanted.key(record.__dict__) for wanted in terms)) for key, record in by_key.items()]
        sort_found(pairs, terms)
        found[:] = [by_key[key] for key, _ in pairs]

    def terms(self, selection: Selection) -> tuple[Term, ...]:
        """Return what the server's order sorts by; () for the key alone."""
        wanted: Any = self.builder._order_by or self.meta.order_by or selection.compiled.order_field
        if not wanted:
            return ()
        return tuple(term(one) for one in (wanted if isinstance(wanted, (tuple, list)) else (wanted,)))

    def tracked(self, found: list[Any]) -> Generator[Any, Any, None]:
        """Tell the model which records are handed out, each shard of its own."""
        model = self.builder.model_class
        commands: list[Command[Any]] = []
        for keys, some in shards.by_shard(self.meta, [record._saved_key for record in found]):
            with shards.using(self.meta, keys):
                command = model._returned_command(some)
            if command is not None:
                commands.append(command)
        if commands:
            yield commands


def _local(record: Any) -> bytes:
    return local(record._saved_key).encode()


def spread_selection(builder: Any, offset: int, limit: int | None) -> SpreadSelection:
    """Return what `builder.selection(offset, limit)` is for a model with several shards."""
    if builder._limit is not None:
        left = max(0, builder._limit - offset)
        limit = left if limit is None else min(limit, left)
    only = shards.named(builder.model_class._meta, builder.exact())
    return SpreadSelection(builder, offset, limit, only, builder._track)
