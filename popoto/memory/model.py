"""Model with the calls of the memory fields: what `popoto.Model` is."""

from __future__ import annotations

from typing import Any, ClassVar

from popoto.memory.cyclic import resolve_pressure_command, scale_command
from popoto.memory.decay import touch_command
from popoto.memory.query import MemoryQuery, MemoryQueryOf
from popoto.orm.commands import queue, require_pipeline
from popoto.orm.drivers import arun, run
from popoto.orm.model import Model as OrmModel


class Model(OrmModel):
    """Base class of models. Public class attributes are Fields; each record is a Redis hash at `ClassName:key:...`.

    A model without a KeyField gets an AutoKeyField `_auto_key`. Memory fields (decay, confidence, keyword search, ...)
    are fields like any other; `query` ranks by them.
    """

    query_class: ClassVar[Any] = MemoryQuery
    query: ClassVar[MemoryQueryOf]
    objects: ClassVar[MemoryQueryOf]

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

    def resolve_pressure(self, field_name: str, pipeline: Any = None) -> Any:
        """Take the pressure of a CyclicDecayField off this record; it builds up anew from now on.

        Returns: the time (Unix seconds), or the pipeline.
        Raises: AttributeError: no such field. TypeError: not a CyclicDecayField, one without pressure, or the record is
            not stored.
        """
        command = resolve_pressure_command(self, field_name)
        return run(command) if pipeline is None else queue(command, pipeline)

    async def async_resolve_pressure(self, field_name: str, pipeline: Any = None) -> Any:
        """Await `resolve_pressure()`."""
        command = resolve_pressure_command(self, field_name)
        return await arun(command) if pipeline is None else queue(command, pipeline)

    def strengthen_cycle(self, field_name: str, factor: float = 1.2, pipeline: Any = None) -> Any:
        """Multiply the amplitudes of this record's cycles; they stay within 0 and 100, and below 0.01 they are 0.

        Returns: the cycles, a list of [period, amplitude, phase] (empty where the record has none); or the pipeline.
        Raises: AttributeError: no such field. TypeError: not a CyclicDecayField, or the record is not stored.
        """
        command = scale_command(self, field_name, factor, "strengthen_cycle")
        return run(command) if pipeline is None else queue(command, pipeline)

    async def async_strengthen_cycle(self, field_name: str, factor: float = 1.2, pipeline: Any = None) -> Any:
        """Await `strengthen_cycle()`."""
        command = scale_command(self, field_name, factor, "strengthen_cycle")
        return await arun(command) if pipeline is None else queue(command, pipeline)

    def weaken_cycle(self, field_name: str, factor: float = 0.8, pipeline: Any = None) -> Any:
        """Multiply the amplitudes of this record's cycles, as `strengthen_cycle()` does with another default."""
        command = scale_command(self, field_name, factor, "weaken_cycle")
        return run(command) if pipeline is None else queue(command, pipeline)

    async def async_weaken_cycle(self, field_name: str, factor: float = 0.8, pipeline: Any = None) -> Any:
        """Await `weaken_cycle()`."""
        command = scale_command(self, field_name, factor, "weaken_cycle")
        return await arun(command) if pipeline is None else queue(command, pipeline)
