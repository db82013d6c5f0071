"""What the database should hold, worked out from the stored hashes alone, to be compared with what it holds."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgpack  # type: ignore[import-untyped]

from popoto import redis_db
from popoto.orm.fields.base import Field
from popoto.orm.fields.geo import GeoField
from popoto.orm.fields.indexed import SetIndex
from popoto.orm.geodesy import geohash_score
from popoto.orm.keys import index_part
from popoto.orm.model import Model

TOKENS = b"$Token:"
NONE = msgpack.packb(None)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
BESIDE = ("::values", "::shared")  # what an index keeps beside its sets

Dump = dict[bytes, tuple[str, Any, int]]
"""Key -> (type, content, when it expires in Unix ms or -1)."""


def dump(client: Any) -> Dump:
    """Return every key with its content, for "nothing has changed"; the tokens of repeatable calls are left out."""
    keys = [key for key in client.scan_iter(count=1000) if TOKENS not in key]
    return {key: entry for key, entry in _contents(client, keys).items() if entry[0] != "none"}


def content(client: Any, key: bytes) -> Any:
    """Return what a key holds, in a form that compares."""
    return _contents(client, [key])[key][1]


def stored_records(model: type[Model]) -> dict[bytes, dict[str, Any]]:
    """Return the values of every record that lies in the database, by key, whatever the class set says."""
    return _records(model, dump(redis_db.get_REDIS_DB()))


def nothing_left(client: Any) -> None:
    """Fail unless the database is empty, tokens aside."""
    assert dump(client) == {}


def indexes_agree(model: type[Model]) -> None:
    """Fail unless each key of the model, no more and no less, holds what the stored records say it must.

    What an expired record left is no fault: reads skip it and a later write removes it.
    """
    client = redis_db.get_REDIS_DB()
    keys = model._meta.keys
    everything = dump(client)
    records = _records(model, everything)
    expired = _expired(client, everything, keys.expiry.encode())
    expected = _expected(model, records, everything)
    expiry = {key: float(everything[key][2]) for key in records if everything[key][2] > 0}

    found = {}
    for key, (_, held, _) in everything.items():
        if _is_index_of(model, key):
            if isinstance(held, set):
                held = {member for member in held if member not in expired}
            elif isinstance(held, dict):
                held = {
                    member: score
                    for member, score in held.items()
                    if (score if isinstance(score, bytes) else member) not in expired
                }
            if held:
                found[key.decode()] = held
    for name in [name for name in found if name.endswith("::values")]:
        # a text whose records have all expired is listed as long as their set is there
        base = name.removesuffix("::values").encode()
        gone = {text for text in found[name] if base + b":" + text in everything} - {
            key.encode().removeprefix(base + b":") for key in found
        }
        found[name] = {text: score for text, score in found[name].items() if text not in gone}
        if not found[name]:
            del found[name]
    shapes = _shapes(found.pop(keys.order + "::shapes", b""))
    assert not shapes or keys.class_set.encode() in everything, "shapes outlived the records"
    due = found.pop(keys.expiry, {})
    assert set(due) == set(expiry), f"who expires: the set says {set(due)}, the records say {set(expiry)}"
    assert all(abs(due[key] - at) <= 5 for key, at in expiry.items()), (due, expiry)
    for name in [name for name in found if name.endswith("::shared")]:
        # it may name more than it must (a query then looks twice), but only who is in the order
        members = found.pop(name)
        assert expected.pop(name, set()) <= members <= set(expected[name.removesuffix("::shared")]), name
    assert sorted(found) == sorted(expected), _difference(found, expected)
    for name, held in expected.items():
        assert found[name] == held, name

    for key in records:
        side, places = everything.get(key + b"::$occ"), _places_of(expected, key, keys.home)
        if side is None and shapes:
            implied = _implied(shapes, key, everything[key][1])
            assert places <= implied and key.decode() not in expiry, f"occupancy of {key!r}: {places - implied}"
        else:
            assert _occupied(side and side[1]) == places, f"occupancy of {key!r}"
    start = keys.record.encode() + b":"
    owners = {key.removesuffix(b"::$occ") for key in everything if key.startswith(start) and key.endswith(b"::$occ")}
    assert owners - expired <= set(records), "an occupancy outlived its record"


# -- what should be --------------------------------------------------------------------------------------------------


def _records(model: type[Model], everything: Dump) -> dict[bytes, dict[str, Any]]:
    meta = model._meta
    start = meta.keys.record.encode() + b":"
    records = {}
    for key, (kind, raw, _) in everything.items():
        if kind == "hash" and key.startswith(start) and meta.holds(key.decode()):
            records[key] = {
                name: field.decode(raw[name.encode()]) if name.encode() in raw else field.default_value()
                for name, field in meta.fields.items()
            }
    return records


def _expected(model: type[Model], records: dict[bytes, dict[str, Any]], everything: Dump) -> dict[str, Any]:
    meta = model._meta
    keys = meta.keys
    sets: dict[str, set[bytes]] = defaultdict(set)
    zsets: dict[str, dict[bytes, float]] = defaultdict(dict)
    owners: dict[str, dict[bytes, bytes]] = defaultdict(dict)
    for rk, values in records.items():
        for names, unique in meta.indexes:
            _expect_composite_entry(sets, owners, meta, names, unique, values, rk)
        sets[keys.class_set].add(rk)
        zsets[keys.order][rk] = 0.0
        for name, field in meta.fields.items():
            value = values[name]
            base = f"{keys.namespace}{field.field_class_key}:{keys.model}:{name}"
            if field.is_sorted:
                key = ":".join([base, *(index_part(values[p]) for p in field.partition_by)])  # type: ignore[attr-defined]
                zsets[key][rk] = _score(value)
                if not _stands_for_its_score(value):
                    sets[key + "::shared"].add(rk)
            elif isinstance(field, GeoField):
                if value:
                    zsets[base][rk] = geohash_score(*value)
            elif field.is_relationship:
                if value is not None:
                    sets[f"{base}:{value.local}"].add(rk)
            elif isinstance(field, SetIndex) and not field.is_auto:
                _expect_set_entry(sets, zsets, field, base, value, rk, everything)
    return {**sets, **zsets, **owners}


def _expect_composite_entry(sets: Any, owners: Any, meta: Any, names: Any, unique: bool, values: Any, rk: Any) -> None:
    of_names = [values[name] for name in names]
    if None in of_names:
        return
    parts = ":".join(index_part(getattr(value, "local", value)) for value in of_names)
    base = f"{meta.keys.namespace}$Index:{meta.keys.model}:{':'.join(names)}"
    if unique:
        digest = hashlib.sha1(parts.encode()).hexdigest()[:16].encode()
        assert digest not in owners[base], f"two records of {names} = {of_names}: {owners[base][digest]!r} and {rk!r}"
        owners[base][digest] = rk
    else:
        sets[f"{base}::{parts}"].add(rk)


def _expect_set_entry(sets: Any, zsets: Any, field: Field, base: str, value: Any, rk: bytes, everything: Dump) -> None:
    if value is None:
        # whether a unique field keeps its Nones in a set is its own affair: all of them or none
        if not field.unique or f"{base}:None".encode() in everything:
            sets[f"{base}:None"].add(rk)
        return
    owners = sets[f"{base}:{index_part(value)}"]
    assert not (field.unique and owners), f"two records of one unique value {value!r}: {owners} and {rk!r}"
    owners.add(rk)
    if field.type is str and not field.leads_key:  # type: ignore[attr-defined]
        zsets[base + "::values"][index_part(value).encode()] = 0.0


def _score(value: Any) -> float:
    """The score of a sorted value, as the wire layout has it; a naive datetime counts as UTC."""
    if isinstance(value, datetime):
        return (_aware(value) - EPOCH) / timedelta(seconds=1)
    if isinstance(value, date):
        return float(value.toordinal())
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _stands_for_its_score(value: Any) -> bool:
    """Say whether a value is the shortest one of those that share its score."""
    score = _score(value)
    if isinstance(value, Decimal):
        return value == Decimal(repr(score))
    if isinstance(value, datetime):
        try:
            return _aware(value) == EPOCH + timedelta(microseconds=round(score * 1_000_000))
        except OverflowError:  # the score of the last moment rounds up into the year 10000
            return value.replace(tzinfo=None) == datetime.max
    return not isinstance(value, int) or value == score


def _aware(value: datetime) -> datetime:
    return value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)


# -- what is ---------------------------------------------------------------------------------------------------------


def _contents(client: Any, keys: list[bytes]) -> Dump:
    """Return type, content and expiry of these keys, in two round trips."""
    if not keys:
        return {}
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.type(key)
        pipeline.pexpiretime(key)
    replies = pipeline.execute()
    kinds = [kind.decode() for kind in replies[::2]]
    for key, kind in zip(keys, kinds, strict=True):
        if kind == "hash":
            pipeline.hgetall(key)
        elif kind == "set":
            pipeline.smembers(key)
        elif kind == "zset":
            pipeline.zrange(key, 0, -1, withscores=True)
        elif kind == "string":
            pipeline.get(key)
        else:
            pipeline.dump(key)
    contents = pipeline.execute()
    return {
        key: (kind, dict(held) if kind == "zset" else held, expires)
        for key, kind, held, expires in zip(keys, kinds, contents, replies[1::2], strict=True)
    }


def _is_index_of(model: type[Model], key: bytes) -> bool:
    """Say whether a key is one of `$Prefix:Model...`."""
    keys = model._meta.keys
    start = keys.namespace.encode() + b"$"
    return key.startswith(start) and key[len(start) :].split(b":")[1:2] == [keys.model.encode()]


def _expired(client: Any, everything: Dump, expiry: bytes) -> set[bytes]:
    """Return the records that an index may still name though they are gone: those that were due."""
    seconds, micros = client.time()
    now = seconds * 1000 + micros // 1000
    _, due, _ = everything.get(expiry, ("none", {}, -1))
    return {member for member, at in due.items() if at <= now and member not in everything}


def _occupied(packed: bytes | None) -> set[str]:
    if packed is None:
        return set()
    places = set()
    for _slot, kind, base, parts, _kept in msgpack.unpackb(packed, raw=True):
        if kind == b"l":
            continue  # a list of the record's own
        if kind not in (b"x", b"xs"):
            places.add(b":".join([base, *parts]).decode())
        elif b"None" not in parts:
            places.add((base if kind == b"x" else b"::".join([base, b":".join(parts)])).decode())
    return places


def _shapes(packed: bytes) -> list[Any]:
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed(packed)
    return list(unpacker)


def _implied(shapes: list[Any], rk: bytes, raw: dict[bytes, bytes]) -> set[str]:
    """Return the places that the shapes name for a record (popoto.orm.shapes)."""
    parts = rk.decode().split(":")
    places = set()
    for _slot, _kind, base, origin in (slot for shape in shapes for slot in shape):
        if isinstance(origin, str):
            places.add(f"{base}:{msgpack.unpackb(raw.get(origin.encode(), NONE))}")
        else:
            places.add(":".join([base, *(parts[at] for at in origin)]))
    return places


def _places_of(expected: dict[str, Any], rk: bytes, home: tuple[str, ...]) -> set[str]:
    return {
        key
        for key, members in expected.items()
        if key not in home and not key.endswith(BESIDE)
        if rk in members or (isinstance(members, dict) and rk in members.values())
    }


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    return f"left over: {sorted(set(found) - set(expected))}; missing: {sorted(set(expected) - set(found))}"
