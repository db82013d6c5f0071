"""What the memory fields keep beside the records, worked out from the stored hashes alone and compared."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import msgpack  # type: ignore[import-untyped]
import redis

from popoto.orm.keys import index_part
from tests.orm.oracle import content, stored_records

LENGTHS = 4096  # of kind_bm25.lua


def connected(client: redis.Redis) -> int:
    """Return how many connections the server has."""
    return int(client.info("clients")["connected_clients"])


def wait_until_the_dead_are_heard(client: redis.Redis, before: int) -> None:
    """Wait until the server has run what killed processes had sent and closed their connections, down to `before`."""
    until = time.monotonic() + 20
    while connected(client) > before:
        assert time.monotonic() < until, "connections of killed processes are still open"
        time.sleep(0.005)


def held(client: redis.Redis, pattern: str) -> dict[str, Any]:
    """Return every key that matches, with its content; a string as a number."""
    return {
        key.decode(): int(client.get(key)) if client.type(key) == b"string" else content(client, key)
        for key in client.scan_iter(match=pattern)
    }


def keywords_agree(client: redis.Redis, model: Any, name: str) -> None:
    """Compare the whole inverted index with the words of the stored texts."""
    field = model._meta.fields[name]
    base = f"$BM25:{model.__name__}:{name}"
    expected: dict[str, Any] = {}
    total = 0
    for key, values in stored_records(model).items():
        counts = Counter(field.tokenizer(values[field.source] or ""))
        if not counts:
            continue
        length = sum(counts.values())
        total += length
        expected.setdefault(f"{base}:dl", {})[key] = length
        expected[f"{base}:tf:{key.decode()}"] = {term.encode(): count for term, count in counts.items()}
        for term, count in counts.items():
            shortness = (LENGTHS - min(length, LENGTHS - 1)) / LENGTHS
            expected.setdefault(f"{base}:inv:{term}", {})[key] = count + shortness
            frequencies = expected.setdefault(f"{base}:df", Counter())
            frequencies[term.encode()] += 1
    if total:
        expected[f"{base}:n"], expected[f"{base}:total"] = len(expected[f"{base}:dl"]), total
    client.delete(f"{base}:avgdl")
    found = held(client, f"{base}:*")
    wrong = {k: (found.get(k), expected.get(k)) for k in {*found, *expected} if found.get(k) != expected.get(k)}
    assert not wrong, f"key: (is, should be): {str(wrong)[:2000]}"


def confidences_agree(client: redis.Redis, model: Any, name: str) -> None:
    """Each living record has its learnt data in the partition of its own, and in the ranking, and in its hash."""
    field = model._meta.fields[name]
    base = f"{field.field_class_key}:{model.__name__}:{name}:data"
    expected: dict[str, dict[bytes, float]] = {}
    for key, values in stored_records(model).items():
        parts = [index_part(values[part]) for part in field.partition_by]
        for start in (base, f"{base}::rank"):
            expected.setdefault(":".join([start, *parts]), {})[key] = values[name]
    found = {
        key: {m: v if isinstance(v, float) else float(msgpack.unpackb(v)["confidence"]) for m, v in members.items()}
        for key, members in held(client, f"{base}:*").items()
    }
    assert found == expected


def decays_agree(client: redis.Redis, model: Any, name: str) -> None:
    """Each living record stands with its time and its base score in the orders of its partition."""
    field = model._meta.fields[name]
    expected: dict[str, dict[bytes, float]] = {}
    for key, values in stored_records(model).items():
        parts = [index_part(values[part]) for part in field.partition_by]
        for prefix, score in ((field.field_class_key, values[name]), ("$DecayBase", values[field.base_score_field])):
            expected.setdefault(":".join([prefix, model.__name__, name, *parts]), {})[key] = score
    found = held(client, f"{field.field_class_key}:{model.__name__}:{name}:*")
    assert {**found, **held(client, f"$DecayBase:{model.__name__}:{name}:*")} == expected
