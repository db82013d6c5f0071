"""Model: a record in a Redis hash, its indexes kept by the server in the same step (lua/commit.lua)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeVar, overload

from popoto.exceptions import KeyMutationError, ModelException, SkipSaveException, StaleRecordError
from popoto.orm import plan, shard_writes, shards
from popoto.orm.bulk import BulkOperations
from popoto.orm.commands import Command, queue, require_pipeline
from popoto.orm.drivers import adrive, arun, drive, prepare, run
from popoto.orm.increment import aincrement, increment
from popoto.orm.keys import ModelKeys, unescape
from popoto.orm.maintenance import IndexMaintenance
from popoto.orm.partial_save import save_on_what_is_stored
from popoto.orm.query import Query, QueryOf
from popoto.orm.related_records import RelatedRecords
from popoto.orm.upsert import Upsert

logger = logging.getLogger("popoto.model")
Self = TypeVar("Self", bound="Model")
P = TypeVar("P")
_SKIP = object()


class Model(BulkOperations, IndexMaintenance, Upsert, RelatedRecords):
    """Base class of models. Public class attributes are Fields; each record is a Redis hash at `ClassName:key:...`.

    A model without a KeyField gets an AutoKeyField `_auto_key`.

    Attributes:
        query, objects: the model's Query.
    """

    query_class: ClassVar[Any] = Query
    query: ClassVar[QueryOf]
    objects: ClassVar[QueryOf]

    class Meta:
        abstract = True

    # -- save ---------------------------------------------------------------------------------------------------------

    def pre_save(
        self,
        pipeline: Any = None,
        ignore_errors: bool = False,
        skip_auto_now: bool = False,
        update_fields: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Hook: runs before each save, before validation; override it to compute fields (call super).

        Raise SkipSaveException, or return False, to skip the save; it then returns False.
        """
        return True

    def save(
        self,
        pipeline: Any = None,
        ignore_errors: bool = False,
        skip_auto_now: bool = False,
        update_fields: Iterable[str] | None = None,
        migrate_key: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Store the record and all its index entries in one atomic step, one round trip.

        Args:
            pipeline: a redis-py pipeline; the save is queued and the pipeline returned.
            ignore_errors: log what makes the save impossible and return False instead of raising.
            skip_auto_now: leave auto_now fields as they are.
            update_fields: write only these fields and their index entries; [] does nothing. The record must exist.
            migrate_key: allow changed key fields; the record and all that belongs to it move to the new key.
            kwargs: handed to `pre_save` and to the fields' hooks.
        Returns: how many fields of the hash are new (int), or the pipeline; False where the save was skipped.
        Raises: KeyMutationError: a key field changed. ModelException: a value is wrong, a unique value is taken, a
            partial save of a record that is gone; nothing is written then.
        """
        if pipeline is not None:
            require_pipeline(pipeline)
        if isinstance(update_fields, Iterator):
            update_fields = list(update_fields)
        try:
            command = self._save_command(ignore_errors, skip_auto_now, update_fields, migrate_key, pipeline, kwargs)
            if command is None:
                return 0 if pipeline is None else pipeline
            if command is _SKIP:
                return False if pipeline is None else pipeline
            if pipeline is not None:
                prepare(command)
                queue(command, pipeline)
                command.parse(0)  # counts as saved once it is queued
                return pipeline
            try:
                return run(command)
            except StaleRecordError:
                return drive(save_on_what_is_stored(self, update_fields or (), skip_auto_now, migrate_key, kwargs))
        except ModelException as error:
            if not ignore_errors:
                raise
            logger.error("%s", error)
            return False

    async def async_save(
        self,
        pipeline: Any = None,
        ignore_errors: bool = False,
        skip_auto_now: bool = False,
        update_fields: Iterable[str] | None = None,
        migrate_key: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Await `save()`: the same arguments and results, native async I/O."""
        if pipeline is not None:
            return self.save(pipeline, ignore_errors, skip_auto_now, update_fields, migrate_key, **kwargs)
        if isinstance(update_fields, Iterator):
            update_fields = list(update_fields)
        try:
            command = self._save_command(ignore_errors, skip_auto_now, update_fields, migrate_key, None, kwargs)
            if command is None:
                return 0
            if command is _SKIP:
                return False
            try:
                return await arun(command)
            except StaleRecordError:
                steps = save_on_what_is_stored(self, update_fields or (), skip_auto_now, migrate_key, kwargs)
                return await adrive(steps)
        except ModelException as error:
            if not ignore_errors:
                raise
            logger.error("%s", error)
            return False

    def _save_command(
        self,
        ignore_errors: bool,
        skip_auto_now: bool,
        update_fields: Iterable[str] | None,
        migrate_key: bool,
        pipeline: Any,
        kwargs: dict[str, Any],
        insert: bool = False,
        seen: Mapping[bytes, bytes] | None = None,
    ) -> Any:
        """Return the save as a Command; None when there is nothing to do, _SKIP when a hook skipped it.

        `insert`: a new instance is refused where its record exists. `seen`: what the instance was just read from.
        """
        names = self._listed(update_fields)
        if names is not None and not names:
            return None
        meta = self._meta
        keys = meta.keys_for(self.__dict__)
        if self._saved_key is not None:
            self._key_of_save(keys, migrate_key)  # a changed key is refused before any hook runs
        try:
            go_on = self.pre_save(
                pipeline=pipeline,
                ignore_errors=ignore_errors,
                skip_auto_now=skip_auto_now,
                update_fields=update_fields,
                **kwargs,
            )
        except SkipSaveException:
            return _SKIP
        if not go_on:
            return _SKIP
        values = self.__dict__
        for field in meta.prepared:
            if names is None or field.name in names:
                values[field.name] = field.format_value_pre_save(
                    values.get(field.name), skip_auto_now=skip_auto_now, **kwargs
                )
        self._validate(names)
        if meta.shard_by is not None:
            keys = meta.keys_for(values)  # a hook may have named the shard
        record_key, moved = self._key_of_save(keys, migrate_key)
        if moved and names is not None:
            names = names | meta.key_field_names
        guard = plan.GUARD_NONE
        if names is not None:
            guard = plan.GUARD_EXISTS
        elif self._saved_key is None and (insert or meta.insert_only):
            guard = plan.GUARD_NEW
        # an expiry is touched only where it was set on this instance: a loaded record keeps the one it has
        expire = None
        if "_ttl" in values or self._expire_at is not None:
            expire = plan.expiry_of(values.get("_ttl"), self._expire_at, "_ttl" in values)
        hooks = [f for f in meta.save_hooks if names is None or f.name in names]
        commands = plan.recorded(hooks, "on_save", self, ignore_errors=ignore_errors, **kwargs)

        def saved(created: int) -> int:
            values["_saved_key"] = record_key
            values["_is_persisted"] = True
            for field in meta.lists.values():
                field.was_saved(self)
            return created

        command = plan.commit_command(
            meta,
            keys,
            record_key,
            values,
            names=names,
            moved=moved,
            guard=guard,
            expire=expire,
            commands=commands,
            parse=saved,
            seen=seen,
        )
        if meta.shard_by is not None:
            shard_writes.prepare(command, meta, keys, values, names)
        return command

    def _listed(self, update_fields: Iterable[str] | None) -> frozenset[str] | None:
        if update_fields is None:
            return None
        if isinstance(update_fields, (str, bytes)):
            raise TypeError(f"update_fields: expected a list of field names, got the text {update_fields!r}.")
        names = frozenset(update_fields)
        unknown = sorted(str(name) for name in names if name not in self._meta.fields)
        if unknown:
            raise ModelException(
                f"update_fields: {type(self).__name__} has no field {', '.join(unknown)}. "
                f"Fields: {', '.join(self._meta.fields)}."
            )
        return names

    def _key_of_save(self, keys: ModelKeys, migrate_key: bool) -> tuple[str, str | None]:
        """Return (key to save under, key the record moves from or None).

        Raises: KeyMutationError: the key changed without leave. ModelException: every key part is None.
        """
        meta, values = self._meta, self.__dict__
        record_key = keys.record_key([values[name] for name in meta.key_names])
        saved = self._saved_key
        if saved == record_key:
            return record_key, None
        namespace = keys.namespace
        if saved is not None and meta.shard_by is not None:
            shards.refuse_another_shard(meta, saved, keys)
        if saved is not None and not saved.startswith(keys.record + ":"):
            saved = None  # it was stored in another namespace
        if saved is None:
            if all(values.get(name) is None for name in meta.key_names):
                raise ModelException(
                    f"{type(self).__name__}: every key field is None ({', '.join(meta.key_names)}). Give one a value."
                )
            return record_key, None
        if not migrate_key:
            for name, old_part, new_part in zip(
                meta.key_names,
                saved.removeprefix(namespace).split(":")[1:],
                record_key.removeprefix(namespace).split(":")[1:],
                strict=True,
            ):
                if old_part not in (new_part, "None"):
                    raise KeyMutationError(
                        f"{type(self).__name__}.{name} is part of the key and changed from {unescape(old_part)!r} to "
                        f"{values.get(name)!r}. Use save(migrate_key=True) to move the record, or set it back."
                    )
        return record_key, saved

    @overload
    @classmethod
    def create(cls: type[Self], pipeline: None = None, **kwargs: Any) -> Self: ...
    @overload
    @classmethod
    def create(cls: type[Self], pipeline: P, **kwargs: Any) -> P: ...
    @classmethod
    def create(cls: type[Self], pipeline: Any = None, **kwargs: Any) -> Any:
        """Make an instance, save it and return it (or the pipeline, when one was given)."""
        instance = cls(**kwargs)
        result = instance.save(pipeline=pipeline)
        return instance if pipeline is None else result

    @overload
    @classmethod
    async def async_create(cls: type[Self], pipeline: None = None, **kwargs: Any) -> Self: ...
    @overload
    @classmethod
    async def async_create(cls: type[Self], pipeline: P, **kwargs: Any) -> P: ...
    @classmethod
    async def async_create(cls: type[Self], pipeline: Any = None, **kwargs: Any) -> Any:
        """Await `create()`."""
        instance = cls(**kwargs)
        result = await instance.async_save(pipeline=pipeline)
        return instance if pipeline is None else result

    # -- increment ----------------------------------------------------------------------------------------------------

    def atomic_increment(self, field_name: str, delta: Any, pipeline: Any = None) -> Any:
        """Add `delta` to a stored int, float or Decimal, exactly and in one step with the field's index entries.

        What is stored counts, not this instance's attribute; None counts as 0. The TTL stays; hooks do not run.

        Args:
            delta: an int for an int field; a finite number that the field's type holds without loss for the others.
            pipeline: a redis-py pipeline; the attribute is then updated by local arithmetic and may differ.
        Returns: the new value, which the attribute gets as well; or the pipeline.
        Raises: AttributeError: no such field. TypeError: it is not numeric, `delta` does not fit it, the record is not
            stored. ModelException: a key field, a unique value that is taken, a stored value or a sum that is no
            number of the field's type; nothing is written then.
        """
        return increment(self, field_name, delta, pipeline)

    async def async_atomic_increment(self, field_name: str, delta: Any, pipeline: Any = None) -> Any:
        """Await `atomic_increment()`."""
        return await aincrement(self, field_name, delta, pipeline)

    # -- delete -------------------------------------------------------------------------------------------------------

    def delete(self, pipeline: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Delete the record and every trace of it in one atomic step.

        Returns: True if the record existed, or the pipeline. The instance may be saved again.
        """
        if pipeline is not None:
            require_pipeline(pipeline)
        command = self._delete_command(kwargs)
        if pipeline is not None:
            queue(command, pipeline)
            command.parse(0)
            return pipeline
        return run(command)

    async def async_delete(self, pipeline: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Await `delete()`."""
        if pipeline is not None:
            return self.delete(pipeline, *args, **kwargs)
        return await arun(self._delete_command(kwargs))

    def _delete_command(self, kwargs: dict[str, Any]) -> Command[bool]:
        record_key = self.pk
        commands = plan.recorded(self._meta.delete_hooks, "on_delete", self, saved_redis_key=self._saved_key, **kwargs)

        def deleted(existed: int) -> bool:
            self._saved_key = None
            self._is_persisted = False
            return bool(existed)

        return plan.remove_command(self._meta, record_key, commands, deleted)

    # -- shards -------------------------------------------------------------------------------------------------------

    @classmethod
    def in_shard(cls, value: Any) -> AbstractContextManager[None]:
        """Let the calls in a `with` block work on one shard (`Meta.shard_by`): for what takes no filter to name it.

        Off a cluster it does nothing.

        Raises: QueryException: the model has no `shard_by`, or the value does not fit its field.
        """
        return shards.here(cls._meta, value)

    # -- read ---------------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls: type[Self], db_key: Any = None, **kwargs: Any) -> Self | None:
        """Return the record with this key (a Redis key or DB_key) or these key field values; None if there is none."""
        if db_key is None and not kwargs:
            return None
        found: Self | None = cls.query.get(db_key, **kwargs)
        return found

    @classmethod
    async def async_load(cls: type[Self], db_key: Any = None, **kwargs: Any) -> Self | None:
        """Await `load()`."""
        if db_key is None and not kwargs:
            return None
        found: Self | None = await cls.query.async_get(db_key, **kwargs)
        return found
