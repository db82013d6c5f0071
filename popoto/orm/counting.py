"""How many records one index knows, without walking it: plain commands where nothing has a TTL, else lua/count.lua."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

import redis.exceptions

from popoto.orm.commands import Command
from popoto.orm.keys import ModelKeys
from popoto.orm.scripts import Script

if TYPE_CHECKING:
    from popoto.orm.options import ModelOptions

COUNT = Script("popoto.orm", "count", flags="no-writes")
_MOST_SETS: Final = 500


def counted_by_index(meta: ModelOptions, keys: ModelKeys, where: list[Any]) -> Generator[Any, Any, int | None]:
    """Return the count of a condition that one index answers, None for others and where so many have expired that the
    entries must be looked at one by one.

    One round trip; two at the first count that finds records with a TTL where the model has none of its own.
    """
    if where[0] not in ("all", "set", "range") or len(where) >= _MOST_SETS:
        return None
    if not meta.expiring:
        try:
            expiring, *sizes = yield [Command(("ZCARD", keys.expiry)), *_sizes(keys, where)]
        except redis.exceptions.ResponseError:  # a key of another type: the script says which
            expiring, sizes = 1, []
        else:
            meta.expiring = expiring > 0
        if not expiring:
            return int(sum(sizes))
    known: int | None = yield Command(
        (keys.class_set, keys.expiry, keys.sentinel, *where), script=COUNT, key_count=3
    )  # fmt: skip
    return known


def _sizes(keys: ModelKeys, where: list[Any]) -> list[Command[Any]]:
    if where[0] == "all":
        return [Command(("SCARD", keys.class_set))]
    if where[0] == "set":
        return [Command(("SCARD", key)) for key in where[1:]]
    return [Command(("ZCOUNT", *where[1:]))]
