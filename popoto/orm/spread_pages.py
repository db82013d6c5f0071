"""Going through what several shards hold, in one order and page by page: the pages of all are merged as they come.

A place in the order is the same in every shard but for the hash tag of its key, so one cursor stands for all of them,
and for a shard that is entered later too.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from popoto.orm import shards
from popoto.orm.drivers import Batch
from popoto.orm.keys import ModelKeys
from popoto.orm.merging import local
from popoto.orm.ordering import Found, Term, is_behind
from popoto.orm.related import prefetch, together

if TYPE_CHECKING:
    from popoto.orm.selection import Selection
    from popoto.orm.spread import SpreadSelection

Steps = Generator[Any, Any, None]
Place = tuple[Any, bytes]
"""As in popoto.orm.iteration; the key without its hash tag."""
Pages = Callable[["Selection", int, "Place | None"], Steps]

LEAST = 16  # records a shard gives in a round trip, unless fewer are asked for


def merged_pages(spread: SpreadSelection, pages: Pages, rows: int, after: Place | None) -> Steps:
    """Yield commands, and batches of (result, its place).

    Args:
        pages: gives those of one shard; see popoto.orm.iteration.
        rows: how many results a round trip is to give.
    """
    if spread.limit == 0:
        return
    meta = spread.meta
    homes = [spread.only] if spread.only is not None else (yield from shards.known(meta))
    each = max(rows // max(len(homes), 1), min(rows, LEAST))
    bare = spread.bare()
    walks = [_Walk(bare, pages, keys, each, after) for keys in homes]
    left = spread.limit
    heap: list[tuple[_Ranked, int]] = []
    missing = set(range(len(walks)))  # walks whose next result is not known
    while True:
        yield from _filled([walks[number] for number in missing])
        for number in missing:
            if walks[number].items:
                heapq.heappush(heap, (walks[number].first(), number))
        ready: list[tuple[Any, Place]] = []
        missing = set()
        while heap and not missing and (left is None or len(ready) < left):
            walk = walks[heap[0][1]]
            ready.append(walk.items.popleft())
            _, number = heapq.heappop(heap)
            if walk.items:
                heapq.heappush(heap, (walk.first(), number))
            elif not walk.ended:
                missing.add(number)
        if ready:
            yield from _handed_out(spread, ready)
        left = None if left is None else left - len(ready)
        if left == 0 or not missing:
            return


def _filled(walks: list[_Walk]) -> Steps:
    """Let each walk go on until its next result is known, all of them side by side."""
    hungry = [walk for walk in walks if walk.hungry]
    while hungry:
        wave = hungry[: shards.WAVE]
        commands = [command for walk in wave for command in walk.commands]
        replies = iter((yield commands) if commands else ())
        for walk in wave:
            walk.go_on([next(replies) for _ in walk.commands])
        hungry = [walk for walk in hungry if walk.hungry]


def _handed_out(spread: SpreadSelection, ready: list[tuple[Any, Place]]) -> Steps:
    records = [record for record, _ in ready]
    names = spread.builder._values
    if names is not None:
        yield Batch([({name: record.__dict__[name] for name in names}, place) for record, place in ready])
        return
    together(spread.builder.model_class, records)
    if spread.builder._prefetch:
        yield from prefetch(records, spread.builder._prefetch)
    if spread.track:
        yield from spread.tracked(records)
    yield Batch(ready)


class _Ranked:
    """A result by what it sorts by."""

    __slots__ = ("found", "terms")

    def __init__(self, found: Found, terms: tuple[Term, ...]) -> None:
        self.found, self.terms = found, terms

    def __lt__(self, other: _Ranked) -> bool:
        if self.terms:
            return is_behind(other.found, self.found, self.terms)
        return self.found[0].encode() < other.found[0].encode()


class _Walk:
    """The pages of one shard.

    Attributes:
        items: (record, place) that it has given, and that are not handed out yet.
        commands: what it asks for next.
        ended: it asks for nothing more.
    """

    def __init__(self, spread: SpreadSelection, pages: Pages, keys: ModelKeys, rows: int, after: Place | None) -> None:
        self.items: deque[tuple[Any, Place]] = deque()
        self.commands: list[Any] = []
        self.ended = False
        self._terms: tuple[Term, ...] = ()
        place = None if after is None else (after[0], keys.front.encode() + after[1])

        def make() -> Steps:
            selection = spread.selection_here(0, spread.limit)
            self._terms = selection.order.terms or spread.terms(selection)
            return pages(selection, rows, place)

        self._steps = shards.within(spread.meta, keys, make)
        self._advance(None)

    @property
    def hungry(self) -> bool:
        return not self.items and not self.ended

    def first(self) -> _Ranked:
        """Return what the next result is ordered by."""
        record = self.items[0][0]
        sorts_by = tuple(wanted.key(record.__dict__) for wanted in self._terms)
        return _Ranked((local(record._saved_key), sorts_by), self._terms)

    def go_on(self, replies: list[Any]) -> None:
        self._advance(replies if self._listed else replies[0])

    def _advance(self, reply: Any) -> None:
        try:
            step = self._steps.send(reply)
            while isinstance(step, Batch):
                self.items += step.items
                step = next(self._steps)
        except StopIteration:
            self.ended, self.commands = True, []
            return
        self._listed = isinstance(step, list)
        self.commands = step if self._listed else [step]
