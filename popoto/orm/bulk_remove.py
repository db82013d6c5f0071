"""bulk_delete and delete_all, as steps (generators that yield commands; popoto.orm.drivers runs them)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from popoto.exceptions import ModelException
from popoto.orm import plan, shards
from popoto.orm.builder import QueryBuilder
from popoto.orm.bulk_batch import Progress, RemoveBatch, checked_size, chunks, length_of
from popoto.orm.bulk_save import collect, key_shown
from popoto.orm.bulk_targets import Steps, overrides, refuse_abstract, require_instance, targets
from popoto.orm.commands import Command, hash_of
from popoto.orm.keys import ModelKeys, occupancy_key
from popoto.orm.plan import pack
from popoto.orm.scripts import Script

logger = logging.getLogger("popoto.model")

CLEAR = Script("popoto.orm", "clear", with_kinds=True, flags="allow-oom")
SLICE = 400  # records that one call deletes where each has a few plain entries: about 10 ms
LONG_SLICE = 50  # the same where entries can be long (the words of a text)
KEYS_A_CALL = 1000
_PLAIN_KINDS = frozenset({"s", "u", "t", "tu", "z"})
_NO_INDEX = frozenset({"$Token", "$Sentinel", "$Migration"})
_GLOB = re.compile(r"([\\*?\[\]])")


def delete_steps(model: Any, given: Any, batch_size: int, progress: Progress | None) -> Steps:
    """Delete records batch by batch; see BulkOperations.bulk_delete."""
    chosen = targets(model, "bulk_delete", given)
    size = checked_size(batch_size)
    if not isinstance(chosen, QueryBuilder):
        return (yield from _delete(model, chosen, size, progress, delete_instances))
    if chosen._limit is None and _matches_all(chosen):
        raise ModelException(
            f"{model.__name__}.bulk_delete: the query has no filter and would delete every record. "
            f"Use {model.__name__}.delete_all() if that is meant."
        )
    keys = yield from chosen.selection().record_keys()
    return (yield from _delete(model, keys, size, progress, delete_keys))


def _matches_all(builder: QueryBuilder[Any]) -> bool:
    compiled = builder.compiled(keys=shards.some_keys(builder.model_class._meta))
    return compiled.where == ["all"] and not compiled.tests


def _delete(model: Any, items: Iterable[Any], size: int, progress: Progress | None, part: Any) -> Steps:
    total = length_of(items)
    count = done = 0
    for chunk in chunks(items, size):
        count += yield from shards.split(model._meta, partial(part, model))(chunk, done)
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    return count


def has_delete_hooks(model: Any) -> bool:
    """Return True when a delete runs code that asks for the instance."""
    return bool(model._meta.delete_hooks) or overrides(model, "delete", "_delete_command")


def delete_instances(model: Any, instances: Sequence[Any], first: int) -> Steps:
    """Delete these records in one step; return how many existed."""
    batch = RemoveBatch(model._meta, "bulk_delete", first)
    for number, instance in enumerate(instances, first):
        require_instance(model, "bulk_delete", number, instance)
        _take_delete(model, batch, number, instance)
    return (yield batch.command()) if len(batch) else 0


def _take_delete(model: Any, batch: RemoveBatch, number: int, instance: Any) -> None:
    try:
        if overrides(model, "delete"):
            collect(batch, number, instance, None, lambda to: instance.delete(pipeline=to))
        else:
            batch.take(number, instance._delete_command({}))
    except ModelException as error:
        raise batch.named(error, number, key_shown(instance)) from error


def delete_keys(model: Any, keys: Sequence[str], first: int) -> Steps:
    """Delete the records of these keys in one step; they are read before only if hooks ask for it."""
    meta = model._meta
    batch = RemoveBatch(meta, "bulk_delete", first)
    raws: Sequence[Any] = [None] * len(keys)
    if has_delete_hooks(model):
        raws = yield [Command(("HGETALL", key)) for key in keys]
    for number, (key, raw) in enumerate(zip(keys, raws, strict=True), first):
        instance = _instance(model, key, raw) if raw else None
        if instance is not None:
            _take_delete(model, batch, number, instance)
        else:
            batch.take(number, plan.remove_command(meta, key, [], bool))
    return (yield batch.command()) if len(batch) else 0


def _instance(model: Any, key: str, raw: Any) -> Any:
    try:
        return model._hydrated(key, hash_of(raw))
    except ModelException as error:
        logger.error("%s; it is deleted without its hooks", error)
        return None


# -- delete_all --------------------------------------------------------------------------------------------------------


def delete_all_steps(model: Any, batch_size: int, progress: Progress | None) -> Steps:
    """Delete every record of a model and all that its indexes keep; see BulkOperations.delete_all."""
    refuse_abstract(model, "delete_all")
    size = checked_size(batch_size)
    if shards.are_many(model._meta):
        one = partial(delete_all_steps, model, batch_size, progress)
        return sum((yield from shards.each(model._meta, one)))
    keys = model._meta.keys
    if has_delete_hooks(model) or model._meta.stream is not None:
        named = yield from _named(keys)
        count = yield from _delete(model, named, size, progress, delete_keys)
    else:
        count = yield from _clear_slices(model, keys, size, progress)
    return count + (yield from _sweep(model, keys))


def _named(keys: ModelKeys) -> Steps:
    """Return the keys of all records that the model's lists name and that can be its own."""
    members = yield Command(("ZRANGE", keys.order, 0, -1))
    if not members:
        members = yield Command(("SMEMBERS", keys.class_set))
    start = keys.record.encode() + b":"
    return [member.decode() for member in members if member.startswith(start)]


def _clear_slices(model: Any, keys: ModelKeys, size: int, progress: Progress | None) -> Steps:
    plain = all(slot.kind in _PLAIN_KINDS for slot in model._meta.slots)
    most = min(size, SLICE if plain else LONG_SLICE)
    total = yield Command(("SCARD", keys.class_set))
    count = 0
    more = True
    while more and count <= total + most:  # else somebody saves as fast as we delete: those are not ours to chase
        existed, more = yield _clear(keys, most)
        count += existed
        if progress is not None:
            progress(count, total)
    return count


def _clear(keys: ModelKeys, most: int, lost: Sequence[str] = (), leftovers: Sequence[bytes] = ()) -> Command[Any]:
    args = (*keys.home, most, keys.record + ":", pack(lost), pack(leftovers), "")
    return Command(args, lambda reply: (reply[0], bool(reply[1])), CLEAR, key_count=4, repeat="token")


def _sweep(model: Any, keys: ModelKeys) -> Steps:
    """Remove what lost records have left. Returns how many records were found that no list named."""
    lost: list[str] = []
    leftovers: list[bytes] = []
    cursor: Any = None
    namespace, name = (_GLOB.sub(r"[\1]", part) for part in (keys.namespace, keys.model))
    while cursor != 0:
        reply = yield Command(("SCAN", cursor or 0, "MATCH", f"{namespace}*{name}*", "COUNT", KEYS_A_CALL))
        cursor = int(reply[0])
        for raw in reply[1]:
            _sort(model, keys, raw, lost, leftovers)
    count = 0
    for chunk in chunks(lost, LONG_SLICE):
        existed, _ = yield _clear(keys, 0, lost=chunk)
        count += existed
    for chunk in chunks(leftovers, KEYS_A_CALL):
        yield _clear(keys, 0, leftovers=chunk)
    return count


def _sort(model: Any, keys: ModelKeys, raw: bytes, lost: list[str], leftovers: list[bytes]) -> None:
    """Tell what a key is that bears the model's name: the side key of a record, of an index, or none of ours."""
    key = raw.decode("utf-8", "surrogateescape")
    if not key.startswith(keys.namespace):
        return
    parts = key[len(keys.namespace) :].split(":")
    if parts[0].startswith("$"):
        if len(parts) > 1 and parts[1] == keys.model and parts[0] not in _NO_INDEX and key not in keys.home:
            leftovers.append(raw)
    elif parts[0] == keys.model and len(parts) == model._meta.db_key_length + 2 and parts[-2] == "":
        record = key.removesuffix("::" + parts[-1])
        if key == occupancy_key(record):
            lost.append(record)
        else:
            leftovers.append(raw)
