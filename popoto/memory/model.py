"""Model with the calls of the memory fields: what `popoto.Model` is."""

from __future__ import annotations

from typing import Any, ClassVar

from popoto.memory.decay import touch_command
from popoto.memory.query import MemoryQuery
from popoto.orm.commands import queue, require_pipeline
from popoto.orm.drivers import arun, run
from popoto.orm.model import Model as OrmModel


class Model(OrmModel):
    """Base class of models. Public class attributes are Fields; each record is a Redis hash at `ClassName:key:...`.

    A model without a KeyField gets an AutoKeyField `_auto_key`. Memory fields (decay, confidence, keyword search, ...)
    are fields like any other; `query` ranks by them.
    """

    query_class: ClassVar[Any] = MemoryQuery
    query: ClassVar[MemoryQuery]
    objects: ClassVar[MemoryQuery]

    class Meta:
        abstract = True

    def touch(self, field_name: str, pipeline: Any = None) -> Any:
        """Set the "last touched" time of a DecayingSortedField to now, in the record and in its ranking, atomically.

        Returns: the new time (Unix seconds), or the pipeline.
        Raises: AttributeError: no such field. TypeError: not a DecayingSortedField, or the record is not stored.
        """
        command = touch_command(self, field_name)
        if pipeline is not None:
            require_pipeline(pipeline)
            queue(command, pipeline)
            command.parse(None)  # counts as touched once it is queued
            return pipeline
        return run(command)

    async def async_touch(self, field_name: str, pipeline: Any = None) -> Any:
        """Await `touch()`."""
        if pipeline is not None:
            return self.touch(field_name, pipeline)
        return await arun(touch_command(self, field_name))
