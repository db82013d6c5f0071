"""Naming the key that a read stumbled over: one of the index that holds another type (somebody wrote there by hand).

The server's own error names a script and no key. What the script was going to read stands in its arguments, so the
types of those keys are asked for, in the one round trip more that an error may cost.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import msgpack

from popoto.exceptions import QueryException

_MOST = 1000  # keys whose types are asked for

_SETS = lambda c: [(key, "set") for key in c[1:]]  # noqa: E731
_KINDS: dict[str, Callable[[list[Any]], list[tuple[Any, str]]]] = {  # op of lib_where.lua -> the keys it reads
    "set": _SETS,
    "range": lambda c: [(c[1], "zset")],
    "near": lambda c: [(c[1], "zset")],
    "owner": lambda c: [(c[1], "hash")],
    "starts": lambda c: _values(c),
    "ends": lambda c: _values(c),
    "contains": lambda c: _values(c),
}


def _values(condition: list[Any]) -> list[tuple[Any, str]]:
    return [(f"{condition[4]}::values", "zset")] if condition[1] == "values" else []


def _keys_of(condition: Any) -> list[tuple[Any, str]]:
    """Return (key, type that the index keeps there) of what a tree of conditions reads by name."""
    if not isinstance(condition, list) or not condition:
        return []
    op = condition[0]
    if op in ("and", "or", "not"):
        return [found for inner in condition[1:] for found in _keys_of(inner)]
    if op == "related":
        _, _, _, _, inner, class_set, order, expiry = condition
        return [(class_set, "set"), (order, "zset"), (expiry, "zset"), *_keys_of(inner)]
    return _KINDS[op](condition) if op in _KINDS else []


def _read_by(args: tuple[Any, ...], key_count: int) -> list[tuple[Any, str]]:
    """Return the same of a script that answers queries: KEYS are the model's own, then the sentinel."""
    home = args[: key_count - 1]
    kinds = ("set", "zset", "zset") if key_count == 4 else ("set", "zset")  # count.lua needs no order
    found = list(zip(home, kinds, strict=False))
    given = args[key_count:]
    if key_count == 4 and given:
        try:
            query = msgpack.unpackb(given[0])
        except (ValueError, TypeError, msgpack.UnpackException):
            return found
        if isinstance(query, dict):
            order = query.get("order")
            found += [(order, "zset")] if order else []
            found += [(key, "set") for key in query.get("shared") or ()]
            for tree in (query.get("where"), query.get("near"), *(query.get("marks") or ())):
                found += _keys_of(tree)
    elif given:
        found += _keys_of(list(given))
    return found


def misplaced(args: tuple[Any, ...], key_count: int) -> Generator[Any, Any, Exception]:
    """Return the exception for a read that the server refused because of a key's type.

    Args:
        args: the keys and arguments of the script.
    Yields: one list of calls, and wants their replies.
    """
    wanted = dict(_read_by(args, key_count)[:_MOST])
    kinds = (yield [("TYPE", key) for key in wanted]) if wanted else []
    for (key, expected), kind in zip(wanted.items(), kinds, strict=True):
        found = kind.decode() if isinstance(kind, bytes) else kind
        if isinstance(found, str) and found not in (expected, "none"):
            name = key.decode() if isinstance(key, bytes) else key
            return refusal(f"the key {name} holds a {found} where the index keeps a {expected}")
    return refusal("a key that this query reads holds another type than the index keeps there")


def refusal(what: str) -> QueryException:
    """Return the exception that says so, and what to do."""
    return QueryException(
        f"{what}: something else wrote there. Nothing was read. Move or delete that key, then run rebuild_indexes() "
        "of the model."
    )
