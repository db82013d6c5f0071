"""get_or_create, update_or_create and refresh."""

from __future__ import annotations

from popoto.orm.record import Record


class Upsert(Record):
    """get_or_create, update_or_create and refresh."""

    class Meta:
        abstract = True
