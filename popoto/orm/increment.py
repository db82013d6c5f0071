"""atomic_increment: add to a number of a stored record on the server, exactly (lua/increment.lua, lua/lib_number.lua).

What depends on the field moves in the same step, by its slots:

- a score: an ordered set ("z") whose only source is the field (SortedField, the base scores of a decay field);
- a part: the field's text in the key, of its own value set (IndexedField, UniqueField) or as a partition of any kind.

The server computes both, for only it knows the sum. A slot that makes something else of the number is refused.

What depends on the record as a whole (WholeSlot) is a function of the user's, so it is computed here, for the sum that
the caller expects. The server refuses that (STALE) where something else is stored than the caller has; the record is
then read, and the increment sent again, made of what was read.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Mapping
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation
from typing import Any

from popoto.exceptions import KeyMutationError, ModelException, StaleRecordError
from popoto.orm import shards
from popoto.orm.codec import CodecError
from popoto.orm.coerce import MAX_DIGITS, CoercionError, coercer_for, describe
from popoto.orm.commands import Command, hash_of, queue, require_pipeline
from popoto.orm.drivers import Steps, adrive, arun, drive, run
from popoto.orm.event_stream import with_events
from popoto.orm.fields.base import Field
from popoto.orm.keys import ModelKeys, index_part
from popoto.orm.plan import pack
from popoto.orm.scripts import Script
from popoto.orm.slots import KEEP, Slot

INCREMENT = Script("popoto.orm", "increment", with_kinds=True)
INCREMENT_LOGGED = with_events(INCREMENT)

_NUMERIC = (int, float, Decimal)
_SETS = frozenset({"s", "u", "t", "tu"})
_OWN_VALUE_ONLY = _SETS | {"z"}  # kinds that hold nothing but what the slot's parts and sources say
_NOTHING = b"\xc1"  # bytes that are never stored
_PROBES = (-7, 1234567)
_BETWEEN_SCORES = {int: 2**53 + 1, float: 0.1, Decimal: Decimal("0.12345678901234567891")}
# as exact as the server: what does not fit into its digits is an error here too
_exact = Context(prec=10_000, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[Inexact, InvalidOperation])


def increment(instance: Any, field_name: str, delta: Any, pipeline: Any = None) -> Any:
    """Run or queue the increment of one record; see `Model.atomic_increment`."""
    if pipeline is not None:
        return _queued(instance, field_name, delta, pipeline)
    try:
        return run(increment_command(instance, field_name, delta))
    except StaleRecordError:
        return drive(_on_what_is_stored(instance, field_name, delta))


async def aincrement(instance: Any, field_name: str, delta: Any, pipeline: Any = None) -> Any:
    """Await `increment`."""
    if pipeline is not None:
        return _queued(instance, field_name, delta, pipeline)
    try:
        return await arun(increment_command(instance, field_name, delta))
    except StaleRecordError:
        return await adrive(_on_what_is_stored(instance, field_name, delta))


def increment_command(
    instance: Any, field_name: str, delta: Any, stored: Mapping[bytes, bytes] | None = None
) -> Command[Any]:
    """Return the increment of one record.

    Args:
        stored: the record as it was just read; without it, what depends on the record as a whole is made of the
            instance's values.
    Returns: a Command whose parsed reply is the new value; parsing also sets the attribute of the instance.
    Raises: AttributeError: no such field. TypeError: it is not numeric, `delta` does not fit it, the instance is not
        stored. KeyMutationError: a key field. ModelException: an index entry cannot follow.
    """
    meta = instance._meta
    model = type(instance).__name__
    label = f"{model}.{field_name}"
    field = meta.fields.get(field_name)
    if field is None:
        raise AttributeError(f"{model} has no field '{field_name}'. Fields: {', '.join(meta.fields)}.")
    kind = field.type
    if kind not in _NUMERIC or type(field).encode is not Field.encode or type(field).decode is not Field.decode:
        raise TypeError(
            f"{label} is a {type(field).__name__} of type {kind.__name__}; atomic_increment needs a field of type int, "
            "float or Decimal that stores its value as it is."
        )
    if field.is_key:
        raise KeyMutationError(
            f"{label} is part of the record's key, which an increment cannot change. Set it and save(migrate_key=True)."
        )
    if field.unique and shards.is_sharded(meta):
        raise ModelException(
            f"{label}: a unique number cannot be incremented on a cluster, where the records of {model} lie in several "
            "slots. Set the attribute and save() instead."
        )
    amount = _amount(kind, delta, label)
    saved = instance._saved_key
    keys = meta.keys_at(saved or "")
    if saved is None or not saved.startswith(keys.record + ":"):
        where = " in the current namespace" if saved else ""
        raise TypeError(f"{label}: this {model} was never saved{where}, or is deleted. Call save() first.")
    slots = _slot_plans(meta.slots, keys, instance.__dict__, field, label)

    def incremented(reply: Any) -> Any:
        value = _value(kind, reply.decode() if isinstance(reply, bytes) else reply)
        instance.__dict__[field_name] = value
        return value

    event, script = "", INCREMENT
    if meta.stream is not None:
        event, script = pack(meta.stream.event(keys, field_name)), INCREMENT_LOGGED
    whole = b""
    if meta.has_whole_slots:
        whole = pack(_whole_plan(instance, field, amount, stored))
    args = (saved, *keys.home, field_name, kind.__name__, _text(amount, label), pack(slots), event, whole, "")
    return Command(args, incremented, script, key_count=5, repeat="token")


# The number --------------------------------------------------------------------------------------------


def _amount(kind: type, delta: Any, label: str) -> Any:
    """Return `delta` in the field's type. Raises: TypeError: it is not a finite number that fits without loss."""
    if isinstance(delta, bool) or not isinstance(delta, numbers.Number):
        raise TypeError(f"{label}: delta= expected a number ({kind.__name__}), got {describe(delta)}.")
    if kind is int:
        if isinstance(delta, numbers.Integral):
            return operator.index(delta)
        raise TypeError(f"{label}: delta= expected an int, got {describe(delta)}. Round it, or make the field a float.")
    try:
        amount = coercer_for(kind)(delta)
    except CoercionError as error:
        raise TypeError(f"{label}: delta= {error}.") from None
    if not (amount.is_finite() if kind is Decimal else math.isfinite(amount)):
        raise TypeError(f"{label}: delta= expected a finite number, got {describe(delta)}.")
    return amount


def _text(amount: Any, label: str) -> str:
    try:
        return str(amount)
    except ValueError:  # an int beyond sys.get_int_max_str_digits()
        raise ModelException(f"{label}: delta= has more than {MAX_DIGITS} digits; no field stores that.") from None


def _value(kind: type, text: str) -> Any:
    return kind(text)


def _queued(instance: Any, field_name: str, delta: Any, pipeline: Any) -> Any:
    """Queue the increment; the attribute follows by local arithmetic, since the reply goes to the caller."""
    require_pipeline(pipeline)
    queue(increment_command(instance, field_name, delta), pipeline)
    field = instance._meta.fields[field_name]
    total = _sum(field, instance.__dict__.get(field_name), _amount(field.type, delta, field_name))
    if total is not None:  # else what stands here is no number of the field's; the server decides by what is stored
        instance.__dict__[field_name] = total
    return pipeline


def _sum(field: Field, here: Any, amount: Any) -> Any:
    """Return what the server would make of it; None where it would refuse."""
    try:
        number = field.coerce(here) or field.type(0)
        return _exact.add(number, amount) if field.type is Decimal else number + amount
    except (ModelException, ArithmeticError):
        return None


# What depends on it ------------------------------------------------------------------------------------


def _slot_plans(slots: list[Slot], keys: ModelKeys, values: dict[str, Any], field: Field, label: str) -> list[Any]:
    """Return what the server needs of each slot that depends on the field: see ARGV[4] of lua/increment.lua.

    Raises: ModelException: the server cannot compute the entry of one.
    """
    name = field.name
    plans: list[Any] = []
    for slot in slots:
        scored = name in slot.source
        positions = [number for number, part in enumerate(slot.parts) if part == name]
        own_set = slot.kind in _SETS
        if not scored and not positions:
            if slot.name.partition("#")[0] == name and slot.kind not in _OWN_VALUE_ONLY:
                raise _cannot_follow(slot, label)  # data of the field's own, of which the hash holds a copy
            continue
        if (scored and (slot.kind != "z" or slot.source != (name,))) or (own_set and slot.parts != (name,)):
            raise _cannot_follow(slot, label)
        parts: list[str] | None = None
        for probe in map(field.type, _PROBES):
            made = slot.make({**values, name: probe})
            if made is None:
                continue
            parts, kept, payload = made
            follows = len(parts) == len(slot.parts) and all(parts[at] == index_part(probe) for at in positions)
            if own_set or scored:
                follows = follows and kept is False and (not scored or payload == float(probe))
            if not follows:
                raise _cannot_follow(slot, label)
        keeps: bool | None = False
        if scored:
            between = slot.make({**values, name: _BETWEEN_SCORES[field.type]})
            keeps = between is not None and between[1] is True
        elif not own_set:
            parts, keeps = None, None  # what it holds comes from elsewhere: nothing to begin an entry with
        base = keys.base(slot.prefix, slot.field_name)
        plans.append((slot.name, slot.kind, base, parts or False, keeps, [at + 1 for at in positions], scored))
    return plans


def _on_what_is_stored(instance: Any, field_name: str, delta: Any) -> Steps[Any]:
    """Increment the record as it is stored: two round trips, more only while others keep changing it."""
    while True:
        raw = hash_of((yield Command(("HGETALL", instance.pk))))
        try:
            return (yield increment_command(instance, field_name, delta, raw))
        except StaleRecordError:
            continue


def _whole_plan(instance: Any, field: Field, amount: Any, stored: Mapping[bytes, bytes] | None) -> dict[str, list[Any]]:
    """Return what the server needs of the slots that depend on the whole record: see ARGV[6] of lua/increment.lua."""
    meta = instance._meta
    seen: list[Any] = []
    if stored is None:
        values = {name: instance.__dict__[name] for name in meta.fields}
        for name, encode in meta.encoders:
            seen += (name, _bytes_of(encode, values[name]))
        number = values[field.name]
    else:
        values = dict(type(instance)._hydrated(instance._saved_key, stored).__dict__)
        for name, _ in meta.encoders:
            seen += (name, stored.get(name.encode(), False))
        number = values[field.name] if field.name.encode() in stored else None
    plan: dict[str, list[Any]] = {"seen": seen, "entries": [], "payloads": [], "dropped": []}
    values[field.name] = _sum(field, number, amount)
    if values[field.name] is None:
        plan["seen"] = [field.name, _NOTHING]
        return plan
    keys = meta.keys_at(instance._saved_key)
    for slot in meta.slots:
        if not slot.whole:
            continue
        made = slot.make(values)
        if made is None:
            plan["dropped"].append(slot.name)
        else:
            plan["entries"].append((slot.name, slot.kind, keys.base(slot.prefix, slot.field_name), made[0], made[1]))
            plan["payloads"].append(KEEP if made[2] is None else made[2])
    return plan


def _bytes_of(encode: Any, value: Any) -> bytes:
    try:
        packed: bytes = encode(value)
    except CodecError:
        return _NOTHING
    return packed


def _cannot_follow(slot: Slot, label: str) -> ModelException:
    return ModelException(
        f"{label}: atomic_increment cannot move the index entry '{slot.name}' (kind '{slot.kind}'), which is made of "
        "this field's value and more, or in a way of its own. Set the attribute and save() instead."
    )
