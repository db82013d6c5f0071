"""What the database should hold, worked out from the stored hashes alone, to be compared with what it holds."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import Any

import msgpack  # type: ignore[import-untyped]

from popoto import redis_db
from popoto.orm.fields.base import Field
from popoto.orm.fields.indexed import SetIndex
from popoto.orm.keys import escape, index_part
from popoto.orm.model import Model

TOKENS = b"$Token:"


def dump(client: Any) -> dict[bytes, Any]:
    """Return every key with its content, for "nothing has changed"; the tokens of repeatable calls are left out."""
    return {
        key: (client.type(key), content(client, key), client.pexpiretime(key))
        for key in client.scan_iter(count=1000)
        if not key.startswith(TOKENS)
    }


def content(client: Any, key: bytes) -> Any:
    """Return what a key holds, in a form that compares."""
    kind = client.type(key)
    if kind == b"hash":
        return client.hgetall(key)
    if kind == b"set":
        return client.smembers(key)
    if kind == b"zset":
        return dict(client.zrange(key, 0, -1, withscores=True))
    return client.dump(key)


def stored_records(model: type[Model]) -> dict[bytes, dict[str, Any]]:
    """Return the values of every record that lies in the database, by key, whatever the class set says."""
    client = redis_db.get_REDIS_DB()
    meta = model._meta
    records = {}
    for key in client.scan_iter(match=_literal(meta.keys.record) + ":*", count=1000):
        if client.type(key) == b"hash" and meta.holds(key.decode()):
            raw = client.hgetall(key)
            records[key] = {
                name: field.decode(raw[name.encode()]) if name.encode() in raw else field.default_value()
                for name, field in meta.fields.items()
            }
    return records


def indexes_agree(model: type[Model]) -> None:
    """Fail unless each key of the model, no more and no less, holds what the stored records say it must.

    What an expired record left is no fault: reads skip it and a later write removes it.
    """
    client = redis_db.get_REDIS_DB()
    meta = model._meta
    records = stored_records(model)
    expired = _expired(client, meta.keys.expiry)

    expected = _expected(model, records)
    for key, at in _expiry_times(client, records).items():
        expected[meta.keys.expiry][key] = at
    found = {}
    for key in _index_keys_of(client, model):
        held = content(client, key)
        if isinstance(held, set):
            held = {member for member in held if member not in expired}
        else:
            held = {m: s for m, s in held.items() if _record_of(m) not in expired}
        if held:
            found[key.decode()] = held
    assert sorted(found) == sorted(expected), _difference(found, expected)
    for key, held in expected.items():
        if key == meta.keys.expiry:
            assert set(found[key]) == set(held)
            assert all(abs(found[key][member] - at) <= 5 for member, at in held.items()), (key, found[key], held)
        else:
            assert found[key] == held, key

    for key in records:
        assert _occupied(client, key) == _places_of(expected, key, meta.keys.home), f"occupancy of {key!r}"
    side_keys = {k.removesuffix(b"::$occ") for k in client.scan_iter(match=_literal(meta.keys.record) + ":*::$occ")}
    assert side_keys - expired <= set(records), "an occupancy outlived its record"


def nothing_left(client: Any) -> None:
    """Fail unless the database is empty, tokens aside."""
    assert dump(client) == {}


# -- what should be --------------------------------------------------------------------------------------------------


def _expected(model: type[Model], records: dict[bytes, dict[str, Any]]) -> dict[str, Any]:
    meta = model._meta
    keys = meta.keys
    sets: dict[str, set[bytes]] = defaultdict(set)
    zsets: dict[str, dict[bytes, float]] = defaultdict(dict)
    for rk, values in records.items():
        sets[keys.class_set].add(rk)
        zsets[keys.order][rk] = 0.0
        for name, field in meta.fields.items():
            value = values[name]
            base = f"{keys.namespace}{field.field_class_key}:{keys.model}:{name}"
            if field.is_sorted:
                parts = [index_part(values[p]) for p in field.partition_by]  # type: ignore[attr-defined]
                zsets[":".join([base, *parts])][rk] = _score(value)
            elif isinstance(field, SetIndex) and not field.is_auto:
                _expect_set_entry(sets, zsets, field, base, value, rk)
    for key, members in sets.items():
        if key.startswith(("$Uniqu", keys.namespace + "$Uniqu")):
            assert len(members) == 1, f"two records of one unique value: {key} {members}"
    return {**sets, **zsets, keys.expiry: {}} if _any_ttl(records) else {**sets, **zsets}


def _expect_set_entry(sets: Any, zsets: Any, field: Field, base: str, value: Any, rk: bytes) -> None:
    if value is None:
        if not (field.unique and f"{base}:None" not in _present(base)):
            sets[f"{base}:None"].add(rk)
        return
    sets[f"{base}:{index_part(value)}"].add(rk)
    if field.type is str:
        text = value.encode()
        zsets[base + "::lex"][_lex_member(text, rk)] = 0.0
        zsets[base + "::rev"][_lex_member(text[::-1], rk)] = 0.0


def _present(base: str) -> set[str]:
    """Whether a unique field keeps its Nones in a set is the field's own affair; all of them or none."""
    client = redis_db.get_REDIS_DB()
    return {f"{base}:None"} if client.exists(f"{base}:None") else set()


def _lex_member(text: bytes, rk: bytes) -> bytes:
    return text.replace(b"\0", b"\0\1") + b"\0\0" + rk


def _score(value: Any) -> float:
    """The score of a sorted value, as the wire layout has it; a naive datetime counts as UTC."""
    from datetime import date, datetime, timezone

    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
        return aware.timestamp()
    if isinstance(value, date):
        return float(value.toordinal())
    return float(value) if not isinstance(value, Decimal) else float(str(value))


def _any_ttl(records: dict[bytes, Any]) -> bool:
    return bool(_expiry_times(redis_db.get_REDIS_DB(), records))


def _expiry_times(client: Any, records: dict[bytes, Any]) -> dict[bytes, float]:
    times = {key: client.pexpiretime(key) for key in records}
    return {key: float(at) for key, at in times.items() if at > 0}


# -- what is ---------------------------------------------------------------------------------------------------------


def _index_keys_of(client: Any, model: type[Model]) -> list[bytes]:
    """Return the index keys in the database that name this model in their second place."""
    keys = model._meta.keys
    start = keys.namespace.encode() + b"$"
    found = []
    for key in client.scan_iter(count=1000):
        if key.startswith(start) and not key.startswith(keys.namespace.encode() + TOKENS):
            if key[len(start) :].split(b":")[1] == keys.model.encode():
                found.append(key)
    return found


def _expired(client: Any, expiry: str) -> set[bytes]:
    seconds, micros = client.time()
    now = seconds * 1000 + micros // 1000
    due = client.zrangebyscore(expiry, "-inf", now)
    return {member for member in due if not client.exists(member)}


def _record_of(member: bytes) -> bytes:
    return member.rpartition(b"\0\0")[2]


def _occupied(client: Any, rk: bytes) -> set[str]:
    packed = client.get(rk + b"::$occ")
    if packed is None:
        return set()
    places = set()
    for _slot, _kind, base, parts, _kept in msgpack.unpackb(packed, raw=True):
        places.add(b":".join([base, *parts]).decode())
    return places


def _places_of(expected: dict[str, Any], rk: bytes, home: tuple[str, ...]) -> set[str]:
    return {
        key for key, members in expected.items() if key not in home and not key.endswith(("::lex", "::rev")) and rk in members
    }


def _literal(text: str) -> str:
    """Return a SCAN pattern that matches the text itself."""
    return "".join("\\" + c if c in "\\*?[]^" else c for c in text)


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    return f"left over: {sorted(set(found) - set(expected))}; missing: {sorted(set(expected) - set(found))}"


__all__ = ["dump", "escape", "indexes_agree", "nothing_left", "stored_records"]
