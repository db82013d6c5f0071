"""The models of these tests, in a module of their own, so that worker processes import them too."""

from __future__ import annotations

from popoto.orm.event_stream import EventStreamMixin
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.typed import IntField
from popoto.orm.model import Model


class Event(EventStreamMixin, Model):
    """Logged by agent; its entries carry the count."""

    _stream_name = "events"
    _stream_partition_field = "agent"
    _stream_max_length = None
    _stream_metadata_fields = ("count", "agent")

    name = KeyField()
    agent = IndexedField(null=True)
    count = IntField(default=0)


class LoggedThing(EventStreamMixin, Model):
    """Logged as the mixin has it by default."""

    name = KeyField()
    code = UniqueField()
    size = IntField(default=0)
