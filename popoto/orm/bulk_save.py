"""bulk_create, bulk_update and raw_update, as steps (generators that yield commands; popoto.orm.drivers runs them)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from popoto.exceptions import KeyMutationError, ModelException, StaleRecordError
from popoto.orm import plan, shards
from popoto.orm.builder import QueryBuilder
from popoto.orm.bulk_batch import Batch, Collector, Progress, SaveBatch, checked_size, chunks, length_of
from popoto.orm.bulk_created import CreatedRecords
from popoto.orm.bulk_targets import Steps, overrides, read_records, require_instance, targets
from popoto.orm.commands import Command
from popoto.orm.options import ModelOptions

_MUTABLE = (list, dict, set)


def create_steps(model: Any, instances: Any, batch_size: int, progress: Progress | None) -> Steps:
    """Save instances batch by batch; see BulkOperations.bulk_create."""
    given = targets(model, "bulk_create", instances)
    size = checked_size(batch_size)
    total = length_of(given)
    created: list[Any] = []
    keys: list[str] = []
    done = 0
    for chunk in chunks(given, size):
        saved: list[Any] = []
        yield from shards.split(model._meta, partial(_create, model, saved))(chunk, done)
        done += len(chunk)
        if total is not None:
            created += saved
        else:
            keys += [instance.pk for instance in saved]
        del chunk, saved  # of a generator nothing is kept while the next batch is made
        if progress is not None:
            progress(done, total)
    return created if total is not None else CreatedRecords(model, keys)


def _create(model: Any, saved: list[Any], chunk: Sequence[Any], first: int) -> Steps:
    """Save instances in one step; add those that no hook skipped to `saved`, and return how many they are."""
    batch = SaveBatch(model._meta, "bulk_create", first)
    taken = [instance for number, instance in enumerate(chunk, first) if take_save(model, batch, number, instance)]
    if taken:
        yield batch.command()
    saved += taken
    return len(taken)


def take_save(
    model: Any, batch: SaveBatch, number: int, instance: Any, names: Sequence[str] | None = None, after: Any = None
) -> bool:
    """Add the save of an instance to a batch; return False where a hook skipped it.

    The instance counts as saved once the batch has happened; `after` is called then.

    Raises: ModelException: it cannot be saved; the text names it.
    """
    require_instance(model, batch.operation, number, instance)
    try:
        if overrides(model, "save"):
            return collect(batch, number, instance, after, lambda to: instance.save(pipeline=to, update_fields=names))
        command = instance._save_command(False, False, names, False, None, {})
        if not isinstance(command, Command):
            return False
        batch.take(number, command if after is None else _followed(command, after))
        return True
    except ModelException as error:
        raise batch.named(error, number, key_shown(instance)) from error


def _followed(command: Command[Any], after: Callable[[], None]) -> Command[Any]:
    """Return the command with `after` behind its parse."""
    parse = command.parse

    def both(reply: Any) -> Any:
        after()
        return parse(reply)

    return replace(command, parse=both)


def collect(batch: Batch, number: int, instance: Any, after: Any, call: Callable[[Collector], Any]) -> bool:
    """Let a method of the model's own queue its part of the batch.

    A queued save counts as done at once; here it does not before the batch is.
    """
    collector = Collector()
    before = _state(instance)
    call(collector)
    then = _state(instance)
    instance.__dict__.update(before)

    def done(_: Any) -> None:
        instance.__dict__.update(then)
        if after is not None:
            after()

    return batch.take_collected(number, collector, done)


def _state(instance: Any) -> dict[str, Any]:
    return {"_saved_key": instance._saved_key, "_is_persisted": instance._is_persisted}


def key_shown(instance: Any) -> str:
    """Return the record's key for an error, whatever its values are."""
    try:
        return str(instance.pk)
    except Exception:  # the error that is being told of may be that its values give no key
        return type(instance).__name__


# -- update ------------------------------------------------------------------------------------------------------------


def update_steps(
    model: Any, given: Any, batch_size: int, progress: Progress | None, updates: Mapping[str, Any]
) -> Steps:
    """Set fields of many records; see BulkOperations.bulk_update."""
    chosen = targets(model, "bulk_update", given)
    size = checked_size(batch_size)
    _refuse_names(model, "bulk_update", updates)
    if not updates:
        return 0
    update = Update(model, "bulk_update", updates, stamps=True)
    if not isinstance(chosen, QueryBuilder):
        return (yield from _in_batches(model._meta, chosen, size, progress, update.of_instances))
    keys = yield from chosen.selection().record_keys()
    return (yield from _in_batches(model._meta, keys, size, progress, update.of_keys))


def raw_update_steps(
    model: Any, redis_keys: Iterable[Any], batch_size: int, progress: Progress | None, updates: Mapping[str, Any]
) -> Steps:
    """Set fields of the records of these keys, without hooks; see BulkOperations.raw_update."""
    size = checked_size(batch_size)
    _refuse_names(model, "raw_update", updates)
    if not updates:
        return 0
    update = Update(model, "raw_update", updates, stamps=False)
    keys = (_record_key(model, key) for key in redis_keys or ())
    return (yield from _in_batches(model._meta, keys, size, progress, update.of_keys))


def _in_batches(
    meta: ModelOptions, items: Any, size: int, progress: Progress | None, part: Callable[..., Steps]
) -> Steps:
    total = length_of(items)
    count = done = 0
    for chunk in chunks(items, size):
        count += yield from shards.split(meta, part)(chunk, done)
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    return count


def _record_key(model: Any, given: Any) -> str:
    key = given.decode() if isinstance(given, bytes) else str(given)
    if not model._meta.holds(key):
        raise ModelException(f"{model.__name__}.raw_update: {given!r} is no key of a {model.__name__} record.")
    return key


def _refuse_names(model: Any, operation: str, updates: Mapping[str, Any]) -> None:
    meta = model._meta
    unknown = sorted(name for name in updates if name not in meta.fields)
    if unknown:
        raise ModelException(
            f"{model.__name__}.{operation}: the model has no field {', '.join(unknown)}. "
            f"Fields: {', '.join(meta.fields)}."
        )
    in_key = sorted(name for name in updates if meta.fields[name].is_key)
    if in_key:
        raise KeyMutationError(
            f"{model.__name__}.{operation}: {', '.join(in_key)} is part of the key. Load the records, change it and "
            "save(migrate_key=True) each."
        )


class Update:
    """New values of some fields, the same for many records.

    Args:
        stamps: also set the fields that tell when a record was last changed (auto_now).
    """

    def __init__(self, model: Any, operation: str, updates: Mapping[str, Any], stamps: bool) -> None:
        self.model, self.operation, self.updates = model, operation, updates
        meta = model._meta
        stamped = [name for name, field in meta.fields.items() if stamps and _is_stamp(field)]
        self.names = frozenset(updates) | frozenset(stamped)
        self.values = self._checked()
        self._hooks = stamps and (
            overrides(model, "save", "pre_save", "_save_command")
            or any(field.name in self.names for field in meta.save_hooks)
        )

    def _checked(self) -> dict[str, Any]:
        """Return the values of all fields, of which those that are set are right and the others None.

        Raises: ModelException: a value does not fit its field.
        """
        meta = self.model._meta
        probe = self.model.__new__(self.model)
        values: dict[str, Any] = probe.__dict__
        values.update(dict.fromkeys(meta.fields))
        values.update(self.updates)
        for field in meta.prepared:
            if field.name in self.names:
                values[field.name] = field.format_value_pre_save(values[field.name])
        probe._validate(self.names)
        return values

    def _needs_reading(self) -> bool:
        """Return True when an index entry comes from one of the fields and from others, which are not known here."""
        meta = self.model._meta
        return meta.has_whole_slots or any(
            slot.touched_by(self.names)
            and not self.names.isdisjoint(slot.source)
            and not self.names.issuperset(slot.source)
            for slot in meta.slots
        )

    def _command(self, key: str, values: Mapping[str, Any], blind: bool) -> Command[Any]:
        meta = self.model._meta
        return plan.commit_command(
            meta,
            meta.keys,
            key,
            values,
            names=self.names,
            moved=None,
            guard=plan.GUARD_EXISTS,
            expire=None,
            commands=[],
            parse=None,
            blind=blind,
        )

    def of_keys(self, keys: Sequence[str], first: int) -> Steps:
        """Update the records of these keys in one step; return how many are stored.

        They are read before only where hooks, or index entries that depend on other fields too, ask for it.
        """
        meta = self.model._meta
        keys = list(dict.fromkeys(keys))
        if not self._hooks and not self._needs_reading():
            *_, packed_plan, packed_entries, _ = self._command(keys[0], self.values, blind=True).args
            batch = SaveBatch(meta, self.operation, first, True, packed_plan, packed_entries)
            for number, key in enumerate(keys, first):
                batch.take_key(number, key)
            count = yield batch.command()
            if count is not None:
                return count
        while True:
            found = yield from read_records(self.model, keys)
            instances = [instance for instance in found if instance is not None]
            try:
                return (yield from self._of_read(instances, first))
            except StaleRecordError:  # one was changed since: read them again
                continue

    def _of_read(self, instances: Sequence[Any], first: int) -> Steps:
        if self.operation == "bulk_update":
            return (yield from self.of_instances(instances, first))
        batch = SaveBatch(self.model._meta, self.operation, first, lenient=True)
        for number, instance in enumerate(instances, first):
            batch.take(number, self._command(instance.pk, {**instance.__dict__, **self._own_values()}, blind=False))
        return (yield batch.command()) if len(batch) else 0

    def of_instances(self, instances: Sequence[Any], first: int) -> Steps:
        """Set the values on the instances and save these fields of theirs, in one step; return how many are stored.

        The attributes change once the batch has happened, of the records that are stored.
        """
        batch = SaveBatch(self.model._meta, self.operation, first, lenient=True)
        names = sorted(self.names)
        twins: dict[str, Any] = {}
        for number, instance in enumerate(instances, first):
            require_instance(self.model, self.operation, number, instance)
            key = instance.pk
            if key in twins:  # the same record in two instances: one save, both get the values
                if twins[key] is not instance:
                    instance.__dict__.update(self._own_values())
                continue
            twins[key] = instance
            before = {name: instance.__dict__.get(name) for name in names}
            instance.__dict__.update(self._own_values())
            try:
                self._take(batch, number, instance, names)
            finally:
                instance.__dict__.update(before)
        return (yield batch.command()) if len(batch) else 0

    def _take(self, batch: SaveBatch, number: int, instance: Any, names: list[str]) -> None:
        then: dict[str, Any] = {}
        if take_save(self.model, batch, number, instance, names, lambda: instance.__dict__.update(then)):
            then.update({name: instance.__dict__[name] for name in names})

    def _own_values(self) -> dict[str, Any]:
        """Return the values for one instance: mutable ones are its own."""
        values = self.values
        return {
            name: copy.deepcopy(values[name]) if isinstance(values[name], _MUTABLE) else values[name]
            for name in self.updates
        }


def _is_stamp(field: Any) -> bool:
    """Return True for a field that says when its record was last changed; the clock of a decaying score is none."""
    return bool(getattr(field, "auto_now", False)) and getattr(field, "stamps_updates", True) and not field.is_key
