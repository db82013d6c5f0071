"""The commands that one save or delete of ours comes to, spelt out for bare redis-py.

This is the floor that `save` is compared with: the same keys, as many bytes, in one MULTI. Each run compares
the keys that one save makes here and with our library, and warns of a difference; then correct
`save_commands` and `delete_commands`.
"""

from __future__ import annotations

from typing import Any

import msgpack

from .. import data

Command = tuple[str | bytes | float, ...]

CLASS_SET = "$Class:Record"
ORDER_BY_NAME = "$Order:Record"  # every record, all scores 0
NAME_FIELD = "$KeyF:Record:name"
CATEGORY_FIELD = "$IndexF:Record:category"
CATEGORIES = f"{CATEGORY_FIELD}::values"  # the distinct texts: what startswith walks
SCORE_SET = "$SortF:Record:score"
RANK_SET = "$SortF:Record:rank"
DECAY_SET = f"$DecayingSortF:Memory:relevance:{data.AGENT}"


def record_key(name: str) -> str:
    return f"Record:{name}"


def name_set(name: str) -> str:
    return f"{NAME_FIELD}:{name}"


def category_set(category: str) -> str:
    return f"{CATEGORY_FIELD}:{category}"


def packed(row: Any) -> list[str | bytes]:
    """field, msgpack bytes, field, msgpack bytes ..."""
    flat: list[str | bytes] = []
    for field, value in row.items():
        flat += (field, msgpack.packb(value))
    return flat


def save_commands(row: data.RecordRow) -> list[Command]:
    """Everything that one full save of a new record writes."""
    key = record_key(row["name"])
    in_name, in_category = name_set(row["name"]), category_set(row["category"])
    return [
        ("HSET", key, *packed(row)),
        ("SADD", CLASS_SET, key),
        ("ZADD", ORDER_BY_NAME, 0, key),
        ("SADD", in_name, key),
        ("SADD", in_category, key),
        ("ZADD", CATEGORIES, 0, row["category"]),
        ("ZADD", SCORE_SET, row["score"], key),
        ("ZADD", RANK_SET, row["rank"], key),
    ]


def delete_commands(row: data.RecordRow) -> list[Command]:
    key = record_key(row["name"])
    return [
        ("DEL", key),
        ("SREM", CLASS_SET, key),
        ("ZREM", ORDER_BY_NAME, key),
        ("SREM", name_set(row["name"]), key),
        ("SREM", category_set(row["category"]), key),
        ("ZREM", SCORE_SET, key),
        ("ZREM", RANK_SET, key),
    ]


def update_score_commands(name: str, score: float) -> list[Command]:
    key = record_key(name)
    return [("HSET", key, "score", msgpack.packb(score)), ("ZADD", SCORE_SET, score, key)]


def save_memory_commands(row: data.MemoryRow) -> list[Command]:
    key = f"Memory:{row['agent_id']}:{row['name']}"
    return [("HSET", key, *packed(row)), ("ZADD", DECAY_SET, row["relevance"], key)]
