"""What memory fields learn, told in a model's event stream: the call that changes a record carries the event along."""

from __future__ import annotations

from typing import Any

from popoto.orm.event_stream import with_events
from popoto.orm.keys import ModelKeys
from popoto.orm.plan import pack
from popoto.orm.scripts import Script


class LoggedScript:
    """A script and its variant that can log what it changes; the plain one stays free of what that takes."""

    def __init__(self, script: Script) -> None:
        self.plain, self.logged = script, with_events(script).variant(("popoto.memory", "lib_learnt"))

    def of(self, model: Any) -> Script:
        """Return the one for a model."""
        return self.plain if model._meta.stream is None else self.logged


def event_of(model: Any, keys: ModelKeys, changed: str = "") -> dict[str, Any] | None:
    """Return the event of a change (lua/lib_event.lua); None for a model without an event stream.

    Args:
        changed: names of the fields of the record that are written, separated by commas.
    """
    stream = model._meta.stream
    event: dict[str, Any] | None = None if stream is None else stream.event(keys, changed)
    return event


def packed_event(model: Any, keys: ModelKeys, changed: str = "") -> bytes | str:
    """Return the same as an argument of a script; "" for none."""
    event = event_of(model, keys, changed)
    return "" if event is None else pack(event)
