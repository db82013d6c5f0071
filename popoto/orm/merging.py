"""What several shards answer, as the one answer that a single server would give."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from popoto.orm import shards
from popoto.orm.keys import front_of

if TYPE_CHECKING:
    from popoto.orm.options import ModelOptions

T = TypeVar("T")
Steps = Generator[Any, Any, T]
Row = tuple[Any, ...]
"""(record key, a number, and what else belongs to it)."""


def asked(
    meta: ModelOptions,
    make: Callable[[], Steps[T]],
    join: Callable[[list[T]], T],
    filters: Mapping[str, Any] = MappingProxyType({}),
) -> Steps[T]:
    """Run an operation where the model lies: once, or in each of its shards; join what several of them return.

    Args:
        filters: values of fields; they may name the one shard that is asked.
    """
    found = yield from asked_each(meta, filters, make)
    return found[0] if len(found) == 1 else join(found)


def asked_each(meta: ModelOptions, filters: Mapping[str, Any], make: Callable[[], Steps[T]]) -> Steps[list[T]]:
    """Run an operation as `shards.spread` does, and return the results.

    A model that has no shard yet is asked as an empty one: what the call refuses, it refuses then too.
    """
    found = yield from shards.spread(meta, filters, make)
    return found or [(yield from shards.within(meta, shards.some_keys(meta), make))]


def local(redis_key: str) -> str:
    """Return a record's key without its hash tag: what orders equal ones, on a cluster as off it."""
    return redis_key[len(front_of(redis_key)) :]


def asked_for_highest(meta: ModelOptions, make: Callable[[], Steps[list[Any]]], n: int) -> Steps[list[Any]]:
    """Run an operation that returns rows, the highest first, where the model lies; return the first n of all."""
    return (yield from asked(meta, make, lambda lists: highest(lists)[: max(n, 0)]))


def highest(lists: Iterable[list[Any]]) -> list[Any]:
    """Return the rows of all lists (`Row`), the highest numbers first, equal ones by descending key."""
    rows = [row for some in lists for row in some]
    rows.sort(key=lambda row: (row[1], local(row[0]).encode()), reverse=True)
    return rows


def lowest(lists: Iterable[list[Any]]) -> list[Any]:
    """Return the rows of all lists (`Row`), the lowest numbers first, equal ones by key."""
    rows = [row for some in lists for row in some]
    rows.sort(key=lambda row: (row[1], local(row[0]).encode()))
    return rows


def united(parts: Iterable[Mapping[Any, T]]) -> dict[Any, T]:
    """Return what is in any of the mappings, which share no key."""
    return {key: item for part in parts for key, item in part.items()}


def summed(columns: Iterable[Iterable[int]]) -> list[int]:
    """Return the sums of lists of the same length, place by place."""
    return [sum(column) for column in zip(*columns, strict=True)]
