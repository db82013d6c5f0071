"""Bulk operations of a model: one atomic step a batch."""

from __future__ import annotations

from popoto.orm.record import Record


class BulkOperations(Record):
    """Bulk operations of a model: one atomic step a batch."""

    class Meta:
        abstract = True
