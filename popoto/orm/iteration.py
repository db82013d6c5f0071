"""Iterating over results chunk by chunk, with a cursor that survives writers and can be stored.

A place is (score, member) in the order that the server walks, or (values, key) in one that Python makes: not a number
of results to skip. So a record that is written meanwhile moves no other one in or out of sight; it is met itself if it
stands behind the cursor when the iteration comes there.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgpack

from popoto.exceptions import QueryException
from popoto.orm import selection as running
from popoto.orm.codec import decoder_for, encoder_for
from popoto.orm.drivers import Batch, astream, relayed, stream
from popoto.orm.fields.sorted import plain_value
from popoto.orm.merging import local
from popoto.orm.ordering import is_behind
from popoto.orm.reading import name_of
from popoto.orm.selection import Order, Selection
from popoto.orm.slices import Slices
from popoto.orm.spread import SpreadSelection

if TYPE_CHECKING:
    from popoto.orm.building import Building

T = TypeVar("T", covariant=True)
Steps = Generator[Any, Any, None]
Place = tuple[Any, bytes]
"""(score as the server prints it, or the values that Python sorts by, member)."""

_encode, _decode = encoder_for(object), decoder_for(object)


class Iteration(Generic[T]):
    """An iterator over the results of a query: `for`, `async for`, or lists by `chunks()` and `async_chunks()`.

    On a cluster, of a model with several shards, it merges the pages of all; a cursor is good for every shard.

    Attributes:
        cursor: the place behind the last result, for `iterate(cursor=...)`; None before the first one.
        done: True when the end was reached. (What is stored behind it later, a new iteration from the cursor finds.)
    """

    def __init__(self, builder: Building[T], chunk_size: int | None, cursor: str | None) -> None:
        if chunk_size is not None and (type(chunk_size) is not int or chunk_size < 1):
            raise QueryException(f"iterate(chunk_size={chunk_size!r}): expected a whole number from 1, or None.")
        self._builder, self._chunk_size = builder, chunk_size
        self.cursor: str | None = cursor
        self.done = False
        if cursor is not None:
            _place_of(cursor, _without_cursor(_of_one_shard(builder.selection())))

    def _steps(self) -> Steps:
        selection = self._builder.selection()
        one = _of_one_shard(selection)
        self._order = _order_number(one.order)
        place = None if self.cursor is None else _place_of(self.cursor, _without_cursor(one))
        rows = min(self._chunk_size or running.ROWS, running.ROWS)
        if isinstance(selection, SpreadSelection):
            return selection.pages(pages, rows, place)
        if place is not None:
            place = (place[0], selection.keys.front.encode() + place[1])
        return pages(selection, rows, place)

    def _moved(self, item: tuple[Any, Place | None]) -> Any:
        result, place = item
        if place is not None:
            self.cursor = _token(self._order, place)
        return result

    def __iter__(self) -> Iterator[T]:
        for item in stream(self._steps()):
            yield self._moved(item)
        self.done = True

    async def __aiter__(self) -> AsyncIterator[T]:
        async for item in astream(self._steps()):
            yield self._moved(item)
        self.done = True

    def chunks(self) -> Iterator[list[T]]:
        """Yield lists of `chunk_size` results; the last one may be shorter. The cursor stands behind the list."""
        size = self._chunk_size or running.ROWS
        chunk: list[Any] = []
        for item in stream(self._steps()):
            chunk.append(item)
            if len(chunk) == size:
                yield self._chunk(chunk)
                chunk = []
        if chunk:
            yield self._chunk(chunk)
        self.done = True

    async def async_chunks(self) -> AsyncIterator[list[T]]:
        """Await `chunks()`."""
        size = self._chunk_size or running.ROWS
        chunk: list[Any] = []
        async for item in astream(self._steps()):
            chunk.append(item)
            if len(chunk) == size:
                yield self._chunk(chunk)
                chunk = []
        if chunk:
            yield self._chunk(chunk)
        self.done = True

    def _chunk(self, items: list[Any]) -> list[Any]:
        self._moved(items[-1])
        return [result for result, _ in items]


def _of_one_shard(selection: Selection | SpreadSelection) -> Selection:
    return selection.sample() if isinstance(selection, SpreadSelection) else selection


def _without_cursor(selection: Selection) -> Selection:
    if selection.order.computed is not None or selection.order.near is not None:
        how = "computed_sort" if selection.order.computed is not None else "by distance"
        raise QueryException(f"iterate(cursor=...): the order ({how}) has no places to go on from. Use order_by().")
    return selection


# -- tokens ------------------------------------------------------------------------------------------------------------


def _order_number(order: Order) -> int:
    """Return a number that tells orders apart."""
    terms = [f"{t.text}{t.descending}" for t in order.terms]
    return zlib.crc32(repr((local(order.key), order.descending, terms)).encode())


def _token(order: int, place: Place) -> str:
    """Return a place as a text; without the hash tag of its key, for it is one in every shard."""
    where, member = place
    packed = [_encode(value) for value in where] if isinstance(where, tuple) else where
    return (
        base64.urlsafe_b64encode(msgpack.packb([order, packed, local(member.decode()).encode()])).decode().rstrip("=")
    )


def _place_of(cursor: object, selection: Selection) -> Place:
    """Return the place that a cursor names; its key without hash tag.

    Raises: QueryException: it is none, or one of another order.
    """
    try:
        raw = base64.urlsafe_b64decode(str(cursor) + "=" * (-len(str(cursor)) % 4))
        order, where, member = msgpack.unpackb(raw)
        if isinstance(where, list):
            where = tuple(_decode(value) for value in where)
        ok = isinstance(member, bytes) and isinstance(where, (tuple, bytes))
    except (ValueError, TypeError, binascii.Error, msgpack.UnpackException):
        ok = False
    if not ok:
        raise QueryException(f"iterate(cursor={cursor!r}): expected the cursor of an earlier iteration.")
    if order != _order_number(selection.order):
        raise QueryException("iterate(cursor=...): the cursor is of another model or order. Ask with the same order.")
    return where, member


# -- steps -------------------------------------------------------------------------------------------------------------


def pages(selection: Selection, rows: int, after: Place | None) -> Steps:
    """Yield commands, and batches of (result, its place or None), `rows` records a round trip."""
    if selection.limit == 0:
        return
    order = selection.order
    if order.computed is not None or order.near is not None:
        items = yield from selection.collected()
        yield Batch([(item, None) for item in items])
        return
    yield from selection.settled()
    by_value = isinstance(after, tuple) and isinstance(after[0], tuple)
    if not selection.in_python and not by_value:
        refused = yield from _walked(selection, rows, after)
        if not refused:
            return
    selection = selection.by_value()
    if selection.order.terms:
        yield from _sorted(selection, rows, after, order)
    else:
        yield from _tested(selection, rows, after)


def _walked(selection: Selection, rows: int, after: Place | None) -> Generator[Any, Any, bool]:
    """The server decides and orders. Returns True when values share scores, before anything was handed out.

    Where a limit cut, and some that it counted turned out to be gone or corrupt, others from behind take their room.
    """
    reader = selection.reader()
    left, part, exact = selection.limit, selection, True
    while True:
        slices = Slices(
            part,
            "fields",
            reader.asked,
            gather=running.GATHER,
            slice=running.SLICE,
            rows=rows,
            exact=exact,
            capped=True,
            after=after,
        )
        named = 0
        while slices.more:
            flat = yield slices.command()
            if slices.refused:
                return True
            pairs = iter(flat)
            read = []
            for (key, row), score in zip(zip(pairs, pairs, strict=True), slices.scores, strict=True):
                after, named = (score, key), named + 1
                read += [(item, after) for item in reader.read([(name_of(key), row)])]
            if left is not None:
                read = read[:left]
                left -= len(read)
            yield from _placed(selection, read)
            if left == 0:
                return False
        if part.limit is None or left is None or named < part.limit:
            return False
        part, exact = replace(selection, offset=0, limit=max(left, rows)), False


def _tested(selection: Selection, rows: int, after: Place | None) -> Steps:
    """The server orders, Python decides."""
    left = selection.limit
    steps = selection.values_by_value((), rows=rows, after=after)
    reply: Any = None
    while left is None or left > 0:
        try:
            step = steps.send(reply)
        except StopIteration:
            return
        reply = None
        if isinstance(step, Batch):
            wanted = [(key, (score, key.encode())) for key, _, score in step.items]
            left = yield from _read(selection, wanted, left)
        else:
            reply = yield step


def _sorted(selection: Selection, rows: int, after: Place | None, walked: Order) -> Steps:
    """Python decides and orders."""
    found = yield from selection.found_by_value()
    terms = selection.order.terms
    if after is not None:
        where, member = after
        if isinstance(where, tuple):
            sorts_by = tuple((value is not None, 0 if value is None else value) for value in where)
        else:  # the server walked when the cursor was made: the value that its score stands for
            kind = selection.model._meta.fields[walked.field].type if walked.field else float
            sorts_by = ((True, plain_value(kind, float(where))),)
        found = [item for item in found if is_behind(item, (name_of(member), sorts_by), terms)]
    left, start = selection.limit, 0
    while start < len(found) and left != 0:
        chunk = found[start : start + (rows if left is None else min(rows, left))]
        wanted = [(key, (_values_of(sorts_by), key.encode())) for key, sorts_by in chunk]
        left = yield from _read(selection, wanted, left)
        start += len(chunk)


def _values_of(sorts_by: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value if there else None for there, value in sorts_by)


def _read(selection: Selection, wanted: list[tuple[str, Place]], left: int | None) -> Generator[Any, Any, int | None]:
    """Read and hand out at most `left` of these records; returns how many more may come."""
    reader = selection.reader()
    while wanted and left != 0:
        places = dict(wanted[:left])
        wanted = wanted[len(places) :]
        replies = yield reader.commands(places)
        read = []
        for (key, place), row in zip(places.items(), replies, strict=True):
            read += [(item, place) for item in reader.read([(key, row)])]
        if left is not None:
            left -= len(read)
        yield from _placed(selection, read)
    return left


def _placed(selection: Selection, read: list[tuple[Any, Place]]) -> Steps:
    """Hand out results with their places."""
    yield from relayed(selection.handed_out([item for item, _ in read]), lambda _: [Batch(read)])
