"""`Meta.shard_by`: on a cluster the records of one value of a key field are a shard, in a slot of their own.

A shard has the whole set of keys of its model (`ModelKeys`), behind its own hash tag. What concerns one shard runs as
everywhere, with `meta.keys` being the shard's; `within` sees to that. What concerns several runs once in each
(`each`), all shards in step, so that a round is one write to each node; the results are then merged.

Which shards there are says a set in the model's own slot. A shard is entered before its first record is written, and is
never taken out: a crash between the two leaves a name without records, which costs a call and no wrong answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from popoto import redis_db
from popoto.exceptions import KeyMutationError, ModelException, QueryException
from popoto.orm.commands import Command
from popoto.orm.keys import (
    ModelKeys,
    front_of,
    hash_tag,
    key_part,
    model_keys,
    shard_by_part,
    shards_key,
    tag_of_record,
)

if TYPE_CHECKING:
    from popoto.orm.options import ModelOptions

T = TypeVar("T")
Steps = Generator[Any, Any, T]

ENTERED_S = 60.0  # so long this process believes that a shard it entered is still in the set
WAVE = 1000  # shards that are asked at the same time

_here: ContextVar[tuple[tuple[ModelOptions, ModelKeys], ...]] = ContextVar("_here", default=())
_entered: dict[tuple[int, str], float] = {}  # (generation of the settings, tag) -> when


def check(meta: ModelOptions) -> None:
    """Check `Meta.shard_by` of a model that is being defined.

    Raises: ModelException: it names no key field, or the model has a unique index that a shard cannot keep.
    """
    name = meta.shard_by
    if name is not None and not meta.abstract:
        if name not in meta.key_names or meta.fields[name].is_auto:
            raise ModelException(
                f"{meta.model_name}.Meta.shard_by: expected the name of a key field that is given, got {name!r}: "
                f"the key of a record tells its shard. Key fields: {', '.join(meta.key_names)}."
            )
        if meta.fields[name].type not in (str, int, bool):
            raise ModelException(
                f"{meta.model_name}.Meta.shard_by: '{name}' is a {meta.fields[name].type.__name__}; a shard is named "
                "by a str, int or bool, for equal values must be spelled alike."
            )
    position = None if name is None or meta.abstract else meta.key_names.index(name) + 1
    shard_by_part(meta.model_name, position)


def check_unique(meta: ModelOptions) -> None:
    """Check that a shard can keep the unique composite indexes of its model.

    Raises: ModelException: one of them spans shards.
    """
    for index in meta.composites:
        if meta.shard_by is not None and index.unique and meta.shard_by not in index.names:
            raise ModelException(
                f"{meta.model_name}.Meta.indexes: the unique index {index.names!r} spans the shards of "
                f"{meta.shard_by}, and one shard cannot see what is in the others. Add "
                f"'{meta.shard_by}' to it, or use a UniqueField."
            )


# -- the keys of a shard ----------------------------------------------------------------------------------------------


def keys_here(meta: ModelOptions) -> ModelKeys:
    """Return the keys of a model on a cluster: of its one shard, or of the one at work (`using`).

    Raises: QueryException: the model has several shards, and none is at work.
    """
    if meta.shard_by is None:
        return model_keys(redis_db.key_namespace(), meta.model_name, hash_tag(meta.model_name))
    for owner, keys in _here.get():
        if owner is meta:
            return keys
    raise QueryException(
        f"{meta.model_name}: on a cluster this call works on one shard at a time. Name it exactly: "
        f"filter({meta.shard_by}=...), or put the call into `with {meta.model_name}.in_shard(...):`."
    )


def at_work(meta: ModelOptions) -> bool:
    """Return True when `meta.keys` are those of one shard already."""
    return any(owner is meta for owner, _ in _here.get())


def is_sharded(meta: ModelOptions) -> bool:
    """Return True when the model's records lie in several shards."""
    return meta.shard_by is not None and redis_db.on_cluster()


def are_many(meta: ModelOptions) -> bool:
    """Return True when several shards may have to be asked: none of them is at work."""
    return is_sharded(meta) and not at_work(meta)


def keys_for(meta: ModelOptions, values: Mapping[str, Any]) -> ModelKeys:
    """Return the keys of the shard in which a record with these values lies; without its name, of the one at work.

    Raises: QueryException: none is at work.
    """
    name = meta.shard_by or ""
    return keys_of(meta, key_part(values[name])) if name in values else keys_here(meta)


def keys_of(meta: ModelOptions, shard: str) -> ModelKeys:
    """Return the keys of a shard, named by the part of its records' keys."""
    return model_keys(redis_db.key_namespace(), meta.model_name, hash_tag(meta.model_name, shard))


def keys_at(meta: ModelOptions, redis_key: str) -> ModelKeys:
    """Return the keys of the shard in which a record's key lies."""
    namespace = redis_db.key_namespace()
    local = redis_key[len(front_of(redis_key)) :].removeprefix(namespace)
    return model_keys(namespace, meta.model_name, tag_of_record(local))


def some_keys(meta: ModelOptions) -> ModelKeys:
    """Return the keys of the model, or of any one of its shards: to look at what conditions are made of."""
    return keys_of(meta, "None") if are_many(meta) else meta.keys


def named(meta: ModelOptions, filters: Mapping[str, Any]) -> ModelKeys | None:
    """Return the keys of the shard that a filter names exactly, or None."""
    name = meta.shard_by or ""
    if name not in filters:
        return None
    return keys_of(meta, key_part(meta.fields[name].filter_value(filters[name])))


def refuse_another_shard(meta: ModelOptions, saved: str, keys: ModelKeys) -> None:
    """Refuse to move a record to another shard, for that is another slot and cannot be one step.

    Raises: KeyMutationError: it lies in another one.
    """
    if is_sharded(meta) and meta.holds(saved) and front_of(saved) != keys.front:
        raise KeyMutationError(
            f"{meta.model_name}.{meta.shard_by} says in which shard {saved} lies, and a record does not move between "
            "shards on a cluster. Create it anew with the other value, then delete this one."
        )


@contextmanager
def using(meta: ModelOptions, keys: ModelKeys | None) -> Iterator[None]:
    """Let `meta.keys` be those of a shard; None: of no shard, though one is at work."""
    others = tuple(pair for pair in _here.get() if pair[0] is not meta)
    token = _here.set(others if keys is None else ((meta, keys), *others))
    try:
        yield
    finally:
        _here.reset(token)


def here(meta: ModelOptions, value: Any) -> AbstractContextManager[None]:
    """Return a `with` block in which `meta.keys` are those of the shard of a value; see Model.in_shard."""
    if meta.shard_by is None:
        raise QueryException(f"{meta.model_name}.in_shard({value!r}): the model has no Meta.shard_by.")
    shard = key_part(meta.fields[meta.shard_by].filter_value(value))
    return using(meta, keys_of(meta, shard)) if redis_db.on_cluster() else nullcontext()


# -- the set of shards ------------------------------------------------------------------------------------------------


def _set_key(meta: ModelOptions) -> str:
    return shards_key(hash_tag(meta.model_name) + redis_db.key_namespace(), meta.model_name)


# -- operations -------------------------------------------------------------------------------------------------------


def within(meta: ModelOptions, keys: ModelKeys | None, make: Callable[[], Steps[T]]) -> Steps[T]:
    """Run the operation that `make` returns, with `meta.keys` being those of a shard; None: in all of them."""
    with using(meta, keys):
        steps = make()
    go_on: Callable[[Any], Any] = steps.send
    reply: Any = None
    while True:
        try:
            with using(meta, keys):
                step = go_on(reply)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            go_on, reply = steps.send, (yield step)
        except Exception as error:
            go_on, reply = steps.throw, error


def known(meta: ModelOptions) -> Steps[list[ModelKeys]]:
    """Return the keys of every shard of the model, in the order of their tags."""
    fronts: list[bytes] = yield Command(("SMEMBERS", _set_key(meta)))
    return [model_keys(redis_db.key_namespace(), meta.model_name, front.decode()) for front in sorted(fronts)]


def each(meta: ModelOptions, make: Callable[[], Steps[T]]) -> Steps[list[T]]:
    """Run the operation that `make` returns once in each shard, and return the results in the order of the shards."""
    shards = yield from known(meta)
    results: list[T] = []
    for start in range(0, len(shards), WAVE):
        wave = [within(meta, keys, make) for keys in shards[start : start + WAVE]]
        results += yield from in_step(wave)
    return results


def in_step(operations: Iterable[Steps[T]]) -> Steps[list[T]]:
    """Run operations side by side: the next step of each goes out together with those of the others."""
    runs: list[_Run] = [_Run(steps) for steps in operations]
    while waiting := [run for run in runs if not run.ended]:
        commands = [command for run in waiting for command in run.commands]
        replies = iter((yield commands) if commands else ())
        for run in waiting:
            run.go_on([next(replies) for _ in run.commands])
    return [run.result for run in runs]


class _Run:
    """One of several operations side by side.

    Attributes:
        commands: what it asks for next.
        ended, result: it is over, with this result.
    """

    def __init__(self, steps: Steps[Any]) -> None:
        self._steps = steps
        self.ended = False
        self.result: Any = None
        self.commands: list[Command[Any]] = []
        self._advance(None)

    def go_on(self, replies: list[Any]) -> None:
        self._advance(replies if self._listed else replies[0])

    def _advance(self, reply: Any) -> None:
        try:
            step = self._steps.send(reply)
        except StopIteration as end:
            self.ended, self.result, self.commands = True, end.value, []
            return
        self._listed = isinstance(step, list)
        self.commands = step if self._listed else [step]


def spread(meta: ModelOptions, filters: Mapping[str, Any], make: Callable[[], Steps[T]]) -> Steps[list[T]]:
    """Run the operation in the shard that the filters name, else in each; off a cluster once. Return the results."""
    if not are_many(meta):
        return [(yield from make())]
    keys = named(meta, filters)
    if keys is not None:
        return [(yield from within(meta, keys, make))]
    return (yield from each(meta, make))


def alone(meta: ModelOptions, filters: Mapping[str, Any], make: Callable[[], Steps[T]]) -> Steps[T]:
    """Run the operation in the one shard that the filters name, if the model has several.

    Raises: QueryException: they name none.
    """
    if not are_many(meta):
        return (yield from make())
    keys = named(meta, filters) or keys_here(meta)
    return (yield from within(meta, keys, make))


def by_shard(meta: ModelOptions, redis_keys: Iterable[str]) -> list[tuple[ModelKeys, list[str]]]:
    """Return the keys grouped by the shard in which they lie."""
    groups: dict[str, list[str]] = {}
    for key in redis_keys:
        groups.setdefault(front_of(key), []).append(key)
    return [(meta.keys_at(group[0]), group) for group in groups.values()]


def lists(meta: ModelOptions, redis_keys: list[str]) -> list[list[str]]:
    """Return the keys in one list for each shard, none of them empty; off a cluster in one list."""
    if not is_sharded(meta):
        return [redis_keys] if redis_keys else []
    return [some for _, some in by_shard(meta, redis_keys)]


def of_here(meta: ModelOptions, by_key: Mapping[Any, T] | None) -> Mapping[Any, T] | None:
    """Return what concerns records of the slot at work, of a mapping by record key; off a cluster all of it."""
    if not by_key or not redis_db.on_cluster():
        return by_key
    front = meta.keys.front
    return {key: item for key, item in by_key.items() if front_of(key if type(key) is str else key.decode()) == front}


# -- writes -----------------------------------------------------------------------------------------------------------


def enter(meta: ModelOptions, keys: ModelKeys) -> Command[Any] | None:
    """Return the command that enters a shard before something is written to it; None where this process has lately."""
    name, now = (redis_db.settings_generation(), keys.front), time.monotonic()
    if now - _entered.get(name, -ENTERED_S) < ENTERED_S:
        return None

    def entered(_: Any) -> None:
        if len(_entered) > 100_000:
            _entered.clear()
        _entered[name] = now

    return Command(("SADD", _set_key(meta), keys.front), entered, repeat="same")


def split(meta: ModelOptions, part: Callable[[list[Any], int], Steps[int]]) -> Callable[[list[Any], int], Steps[int]]:
    """Return `part`, which does something to a batch of instances or record keys, so that it runs in each shard."""
    if not are_many(meta):
        return part

    def in_shards(batch: list[Any], first: int) -> Steps[int]:
        groups: dict[ModelKeys, list[Any]] = {}
        for item in batch:
            keys = meta.keys_at(item) if isinstance(item, str) else meta.keys_for(item.__dict__)
            groups.setdefault(keys, []).append(item)
        parts = [within(meta, keys, partial(part, items, first)) for keys, items in groups.items()]
        return sum((yield from in_step(parts)))

    return in_shards


def merged(results: Iterable[list[Any]], score: str, n: int) -> list[Any]:
    """Return the best n of ranked lists by an attribute, best first; equal ones by descending key."""
    everyone = [record for ranked in results for record in ranked]
    everyone.sort(key=lambda record: (record.__dict__[score], _local(record._saved_key).encode()), reverse=True)
    return everyone[: max(n, 0)]


def added(counts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sums of dicts of counts, which may hold such dicts."""
    total: dict[str, Any] = {}
    for one in counts:
        for name, value in one.items():
            if isinstance(value, dict):
                total[name] = added([total.get(name, {}), value])
            else:
                total[name] = total.get(name, 0) + value
    return total


def _local(redis_key: str) -> str:
    return redis_key[len(front_of(redis_key)) :]
