"""Where predictions lie, how a stored one reads, and the largest errors of a partition."""

from __future__ import annotations

from collections.abc import Generator
from datetime import tzinfo
from typing import Any

import msgpack

from popoto.memory.ledger_summary import summary_of
from popoto.orm.codec import decoder_for
from popoto.orm.commands import Command
from popoto.orm.keys import ModelKeys
from popoto.orm.merging import asked_for_highest
from popoto.orm.scripts import Script

HIGHEST = Script("popoto.memory", "highest_errors", flags="no-writes")

PREFIX = "$PL"
PLACES_A_CALL = 2000

_decode = decoder_for(dict)
Steps = Generator[Any, Any, Any]


def meta_key(keys: ModelKeys) -> str:
    """Return the hash of a model's predictions."""
    return keys.base(PREFIX, "meta")


def errors_key(keys: ModelKeys, partition: Any) -> str:
    """Return the ordered set of a partition's errors."""
    return keys.index(PREFIX, "errors", str(partition))


def entry_of(raw: bytes) -> dict[str, Any]:
    """Return a stored entry as the user sees it."""
    data = msgpack.unpackb(raw, raw=True)
    mode, error, at = data[b"resolution_mode"], data[b"prediction_error"], data[b"resolved_at"]
    return {
        "predicted": _decode(data[b"predicted"]),
        "resolved": bool(data[b"resolved"]),
        "resolution_mode": mode.decode() if mode else None,
        "prediction_error": None if error is False else float(error),
        "resolved_at": None if at is False else float(at),
        "recorded_at": float(data[b"recorded_at"]),
    }


def _rows_steps(model: Any, partition: Any, limit: int, with_data: bool) -> Generator[Any, Any, list[Any]]:
    """Return (record key, error, packed entry or None) of the `limit` largest errors."""
    if type(limit) is not int:
        raise TypeError(f"limit: expected a whole number, got {limit!r}.")
    keys = model._meta.keys
    rows: list[Any] = []
    at = 0
    while len(rows) < limit:
        wanted = min(limit - len(rows), PLACES_A_CALL)
        args = (errors_key(keys, partition), meta_key(keys), keys.sentinel, at, wanted, int(with_data))
        looked_at, flat = yield Command(args, script=HIGHEST, key_count=3)
        items = iter(flat)
        rows += [(key.decode(), float(error), raw) for key, error, raw in zip(items, items, items, strict=True)]
        at += looked_at
        if looked_at < wanted:
            break
    return rows


def highest_steps(model: Any, partition: Any, limit: int) -> Steps:
    rows = yield from asked_for_highest(model._meta, lambda: _rows_steps(model, partition, limit, False), limit)
    return [(key, error) for key, error, _ in rows]


def summary_steps(model: Any, partition: Any, group_by: Any, limit: int, tz: tzinfo) -> Steps:
    rows = yield from asked_for_highest(model._meta, lambda: _rows_steps(model, partition, limit, True), limit)
    entries = [(key, error, entry_of(raw)["resolved_at"] if raw else None) for key, error, raw in rows]
    return summary_of(entries, group_by, tz)
