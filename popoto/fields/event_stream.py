"""Import path of EventStreamMixin; it lives in popoto.orm.event_stream."""

from popoto.orm.event_stream import EventStreamMixin

__all__ = ["EventStreamMixin"]
