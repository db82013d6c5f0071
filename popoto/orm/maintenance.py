"""Index maintenance: check, clean and rebuild what a model keeps beside its records."""

from __future__ import annotations

from popoto.orm.record import Record


class IndexMaintenance(Record):
    """Index maintenance: check, clean and rebuild what a model keeps beside its records."""

    class Meta:
        abstract = True
