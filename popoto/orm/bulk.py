"""Bulk operations: many records a round trip, each batch whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from popoto.orm.bulk_batch import Progress
from popoto.orm.bulk_remove import delete_all_steps, delete_steps
from popoto.orm.bulk_save import create_steps, raw_update_steps, update_steps
from popoto.orm.drivers import adrive, drive
from popoto.orm.record import Record

B = TypeVar("B", bound="BulkOperations")


class BulkOperations(Record):
    """Bulk operations: each batch is one script call, one atomic step.

    A batch that cannot be done is not done at all: every check of every record comes before the first write, and the
    error names the record by its number and key. Batches before it stay. Within a batch records count as saved one
    after the other, in the order given: a unique value that one gives up is free for those behind it.

    Hooks run as in save() and delete(). A model with a save() or delete() of its own gets it called for each record,
    with a pipeline whose commands join the batch.

    All take `batch_size`, records a batch (below 1 counts as 1), and `progress`, a callable that gets (records handled
    so far, all of them or None if that is not known) after each batch.
    """

    class Meta:
        abstract = True

    @classmethod
    def bulk_create(
        cls: type[B], instances: Iterable[B] | None, batch_size: int = 1000, progress: Progress | None = None
    ) -> Sequence[B]:
        """Save instances, as save() would each.

        Args:
            instances: of this model. A generator is read a batch at a time.
        Returns: the list of the instances that were saved (a hook may skip some). For a generator, whose instances are
            let go after their batch: a read-only list that holds the keys and reads records when they are looked at.
        Raises: ModelException: an instance of another class, a value that is wrong, a unique value that is taken, one
            key twice in a batch.
        """
        created: Sequence[B] = drive(create_steps(cls, instances, batch_size, progress))
        return created

    @classmethod
    async def async_bulk_create(
        cls: type[B], instances: Iterable[B] | None, batch_size: int = 1000, progress: Progress | None = None
    ) -> Sequence[B]:
        """Await `bulk_create()`."""
        created: Sequence[B] = await adrive(create_steps(cls, instances, batch_size, progress))
        return created

    @classmethod
    def bulk_update(
        cls, queryset_or_instances: Any, batch_size: int = 1000, progress: Progress | None = None, **updates: Any
    ) -> int:
        """Set fields of stored records, as a save of these fields and of the auto_now fields would.

        The records of a query are not loaded unless hooks need them. Given instances get the values as well, once they
        are stored. A record that was deleted meanwhile stays deleted.

        Args:
            queryset_or_instances: a query, instances, or one instance.
            updates: field=value.
        Returns: how many records were updated.
        Raises: KeyMutationError: a key field. ModelException: an unknown field, a wrong value, a unique value that is
            taken.
        """
        count: int = drive(update_steps(cls, queryset_or_instances, batch_size, progress, updates))
        return count

    @classmethod
    async def async_bulk_update(
        cls, queryset_or_instances: Any, batch_size: int = 1000, progress: Progress | None = None, **updates: Any
    ) -> int:
        """Await `bulk_update()`."""
        count: int = await adrive(update_steps(cls, queryset_or_instances, batch_size, progress, updates))
        return count

    @classmethod
    def raw_update(
        cls, redis_keys: Iterable[Any], batch_size: int = 1000, progress: Progress | None = None, **updates: Any
    ) -> int:
        """Set fields of the records of these keys: no hooks, no auto_now; values are checked and indexes kept.

        Args:
            redis_keys: keys as text, bytes or DB_key.
        Returns: how many of the records exist; the others are left alone.
        Raises: as bulk_update.
        """
        count: int = drive(raw_update_steps(cls, redis_keys, batch_size, progress, updates))
        return count

    @classmethod
    async def async_raw_update(
        cls, redis_keys: Iterable[Any], batch_size: int = 1000, progress: Progress | None = None, **updates: Any
    ) -> int:
        """Await `raw_update()`."""
        count: int = await adrive(raw_update_steps(cls, redis_keys, batch_size, progress, updates))
        return count

    @classmethod
    def bulk_delete(cls, queryset_or_instances: Any, batch_size: int = 1000, progress: Progress | None = None) -> int:
        """Delete records and every trace of them.

        Args:
            queryset_or_instances: a query with a filter or a limit, instances, or one instance.
        Returns: how many of the records existed.
        Raises: ModelException: a query that matches everything (use delete_all()), an instance of another class.
        """
        count: int = drive(delete_steps(cls, queryset_or_instances, batch_size, progress))
        return count

    @classmethod
    async def async_bulk_delete(
        cls, queryset_or_instances: Any, batch_size: int = 1000, progress: Progress | None = None
    ) -> int:
        """Await `bulk_delete()`."""
        count: int = await adrive(delete_steps(cls, queryset_or_instances, batch_size, progress))
        return count

    @classmethod
    def delete_all(cls, batch_size: int = 1000, progress: Progress | None = None) -> int:
        """Delete every record of this model, and whatever its indexes keep of records that are lost.

        It works in slices, between which others are served; a query sees each record whole or not at all. No other
        model is touched. The key space is scanned once, for what lost records left.

        Returns: how many records existed.
        """
        count: int = drive(delete_all_steps(cls, batch_size, progress))
        return count

    @classmethod
    async def async_delete_all(cls, batch_size: int = 1000, progress: Progress | None = None) -> int:
        """Await `delete_all()`."""
        count: int = await adrive(delete_all_steps(cls, batch_size, progress))
        return count
