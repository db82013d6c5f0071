"""From an instance to the plan that lua/commit.lua carries out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import msgpack

from popoto.exceptions import ModelException
from popoto.orm.commands import Command
from popoto.orm.event_stream import with_events
from popoto.orm.keys import ModelKeys, index_part
from popoto.orm.recorder import Recorder
from popoto.orm.scripts import Script
from popoto.orm.shapes import imply
from popoto.orm.slots import KEEP

if TYPE_CHECKING:
    from popoto.orm.options import ModelOptions

COMMIT = Script("popoto.orm", "commit", with_kinds=True)
REMOVE = Script("popoto.orm", "remove", with_kinds=True, flags="allow-oom")
COMMIT_LOGGED, REMOVE_LOGGED = with_events(COMMIT), with_events(REMOVE)  # of models with an event stream

# cmsgpack reads no bin type: bytes and str both travel as raw strings
pack = partial(msgpack.packb, use_bin_type=False)

_LONGEST_TTL_S = 1e12  # 30,000 years; the server's own limit is not far above

GUARD_NONE, GUARD_EXISTS, GUARD_NEW = 0, 1, 2


def expiry_of(ttl: Any, expire_at: Any, ttl_was_set: bool) -> Any:
    """Return the plan's `expire`.

    Args:
        ttl: seconds (int) or timedelta or None.
        expire_at: datetime, naive ones in local time; or None.
        ttl_was_set: the user set `_ttl` on this instance; None then means "never".
    Raises: ModelException: both, or a value that Redis would refuse or that is over already.
    """
    if ttl and expire_at:
        raise ModelException(f"_ttl ({ttl!r}) and _expire_at ({expire_at!r}) are both set; use one of them.")
    if expire_at is not None:
        if not isinstance(expire_at, datetime):
            raise ModelException(f"_expire_at: expected a datetime, got {expire_at!r}. For seconds from now use _ttl.")
        at_ms = int(expire_at.timestamp() * 1000)
        if at_ms <= time.time() * 1000:
            raise ModelException(f"_expire_at: {expire_at} is past; the record would be gone at once. Use delete().")
        return ["at", at_ms]
    if ttl is None:
        return ["persist"] if ttl_was_set else False
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(ttl, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= _LONGEST_TTL_S:
        raise ModelException(
            f"_ttl: expected a number of seconds above 0, at most {_LONGEST_TTL_S:.0e}, got {ttl!r}. None means never."
        )
    return ["px", max(1, round(seconds * 1000))]


def commit_command(
    meta: ModelOptions,
    keys: ModelKeys,
    record_key: str,
    values: Mapping[str, Any],
    *,
    names: frozenset[str] | None,
    moved: str | None,
    guard: int,
    expire: Any,
    commands: Sequence[Any],
    parse: Any,
    blind: bool = False,
    seen: Mapping[bytes, bytes] | None = None,
) -> Command[int]:
    """Return the save of one record.

    Args:
        values: field name -> value, for every field (a partial save needs them to fill parts it does not name).
        names: the fields that a partial save writes; None for all.
        moved: the key the record had before, when it changes.
        blind: of a partial save: `values` are true for `names` alone; where that is too little the server refuses
            (UNREAD).
        seen: of a partial save: the stored bytes that `values` were read from, where they are at hand.
    Raises: ModelException: a value cannot be stored.
    """
    hash_pairs: list[Any] = []
    name = ""
    try:
        for name, encode in meta.encoders:
            if names is None or name in names:
                hash_pairs += (name, encode(values[name]))
    except ValueError as error:  # a CodecError, which names neither model nor field
        raise ModelException(f"{meta.model_name}.{name}: {error}") from None
    entries: list[Any] = []
    payload: list[Any] = []
    plan: dict[str, Any] = {"hash": hash_pairs, "payload": payload}  # only what differs from the rule: it is unpacked
    if guard:  # on the server, at each save
        plan["guard"] = guard
    if moved:
        plan["moved"] = moved
    if expire:
        plan["expire"] = expire
    if commands:
        plan["commands"] = commands
    if names is None:
        for slot_name, kind, base, make in meta.slot_heads(keys):
            made = make(values)
            if made is not None:
                entries.append((slot_name, kind, base, made[0], made[1]))
                payload.append(KEEP if made[2] is None else made[2])
    else:
        believed = _partial_entries(meta, keys, values, names, entries, plan)
        if blind:
            plan["blind"] = True
        elif believed:
            plan["seen"] = _seen(meta, values, believed, seen)
    shape = meta.shape(keys)
    if shape is not None:
        imply(shape, plan, record_key, values, entries)
    if meta.stream is not None:
        changed = "" if names is None else ",".join(field for field in meta.fields if field in names)
        known = names is None or meta.stream.part in names
        plan["event"] = meta.stream.event(keys, changed, values if known else None)
    try:
        args = (record_key, *keys.home, pack(plan), pack(entries), "")
    except UnicodeEncodeError as error:
        raise ModelException(f"{record_key!r}: {error}. No stored text can hold half a surrogate pair.") from None
    script = COMMIT if meta.stream is None else COMMIT_LOGGED
    return Command(args, parse, script, key_count=5, repeat="token")


def _partial_entries(
    meta: ModelOptions,
    keys: ModelKeys,
    values: Mapping[str, Any],
    names: frozenset[str],
    entries: list[Any],
    plan: dict[str, Any],
) -> set[str]:
    """Fill in the entries that a partial save of `names` changes, and say what the server takes from what is stored.

    Returns: the fields that are not named but went into an entry: they must be stored as the caller has them.
    """
    believed: set[str] = set()
    plan["partial"] = True
    masks: list[list[bool]] = []
    keeps: list[bool] = []
    dropped: list[str] = []
    for slot in meta.slots:
        if not slot.touched_by(names):
            continue
        keep = bool(slot.source) and names.isdisjoint(slot.source)
        # a kept entry only moves: what the caller has in its source fields is not looked at, it may be anything
        made = ([index_part(values[p]) for p in slot.parts], False, KEEP) if keep else slot.make(values)
        if not keep:
            believed.update(meta.fields if slot.whole else slot.source)
        if made is None:
            dropped.append(slot.name)
            continue
        entries.append((slot.name, slot.kind, keys.base(slot.prefix, slot.field_name), made[0], made[1]))
        plan["payload"].append(KEEP if keep or made[2] is None else made[2])
        masks.append([part in names for part in slot.parts])
        keeps.append(keep)
    plan["masks"], plan["keeps"], plan["dropped"] = masks, keeps, dropped
    return believed - names


def _seen(
    meta: ModelOptions, values: Mapping[str, Any], names: set[str], raw: Mapping[bytes, bytes] | None
) -> list[Any]:
    """Return fields and their bytes as the caller has them: flat, False for none.

    Without the bytes that were read, sets are left out: equal ones may be stored in another order.
    """
    flat: list[Any] = []
    for name, encode in meta.encoders:
        if name not in names:
            continue
        if raw is not None:
            flat += (name, raw.get(name.encode(), False))
        elif meta.fields[name].type is not set:
            try:
                flat += (name, encode(values[name]))
            except ValueError:  # nothing that is stored
                flat += (name, b"\xc1")
    return flat


def remove_command(meta: ModelOptions, record_key: str, commands: Sequence[Any], parse: Any) -> Command[bool]:
    """Return the deletion of one record."""
    keys = meta.keys_at(record_key)
    event = "" if meta.stream is None else pack(meta.stream.event(keys))
    script = REMOVE if meta.stream is None else REMOVE_LOGGED
    return Command((record_key, *keys.home, pack(commands), event, ""), parse, script, key_count=5, repeat="token")


def recorded(hooks: Sequence[Any], hook: str, instance: Any, **extra: Any) -> list[Any]:
    """Run the hooks of fields (`on_save` or `on_delete`) on a recorder and return what they queued."""
    if not hooks:
        return []
    recorder = Recorder()
    for field in hooks:
        value = instance.__dict__.get(field.name)
        getattr(type(field), hook)(instance, field.name, value, pipeline=recorder, **extra)
    return recorder.commands
