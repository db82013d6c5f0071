"""CyclicDecayField: a decaying field whose records also come back with the calendar, and press until dealt with.

    cyclic   = sum over the cycles of amplitude * cos(2 pi (now - phase) / period)
    pressure = pressure_rate * days since it was last resolved
    score    = decay score (popoto.memory.decay) + cyclic + pressure

The amplitudes are learnt, a record at a time: `strengthen_cycle` and `weaken_cycle` multiply them. They survive saves
until the field is defined anew, follow the record to another partition or key, and go with it; the same for the time
from which pressure builds up (lua/kind_cycles.lua). For ranking, an ordered set a cycle shape holds the amplitudes,
one a rate the times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from popoto.exceptions import ModelException
from popoto.memory import clock
from popoto.memory.decay import DAY_S, DecayingSortedField, decay_score
from popoto.memory.number import is_number
from popoto.memory.stored import field_of, require_stored
from popoto.orm.commands import Command
from popoto.orm.keys import ModelKeys, index_part
from popoto.orm.plan import pack
from popoto.orm.scripts import Script, register_kind
from popoto.orm.slots import Made, Slot

KIND = ("popoto.memory", "kind_cycles")
register_kind(*KIND, "cy", "pr")
SCALE = Script("popoto.memory", "scale_cycles", (KIND,), with_kinds=True)
RESOLVE = Script("popoto.memory", "resolve_pressure", (KIND,), with_kinds=True)

MOST_AMPLITUDE = 100.0
LEAST_AMPLITUDE = 0.01  # below it a learnt amplitude is 0

Cycle = tuple[float, float, float]
"""(period in seconds, amplitude, phase in seconds)."""


def cyclic_score(cycles: Sequence[Sequence[float]], now: float) -> float:
    """Return what the cycles add at a time (Unix seconds): each is highest at its phase and every period after it."""
    return sum(
        amplitude * math.cos(2 * math.pi * (now - phase) / period) for period, amplitude, phase in cycles if period > 0
    )


def pressure_score(rate: float, last_resolved: float, now: float) -> float:
    """Return what has built up since it was last resolved; times in Unix seconds, the rate a day."""
    return rate * max((now - last_resolved) / DAY_S, 0.0)


def cyclic_decay_score(
    base: float,
    touched: float,
    now: float,
    decay_rate: float,
    cycles: Sequence[Sequence[float]] = (),
    pressure: tuple[float, float] | None = None,
) -> float:
    """Return the whole score; `pressure` is (rate a day, last resolved) or None. The server computes the same."""
    pressing = 0.0 if pressure is None else pressure_score(*pressure, now)
    return decay_score(base, touched, now, decay_rate) + cyclic_score(cycles, now) + pressing


class CyclicDecayField(DecayingSortedField):
    """A DecayingSortedField with cycles and pressure; everything that decays by one may decay by the other.

    Args:
        cycles: (period, amplitude) or (period, amplitude, phase) each: seconds, 0 to 100, seconds; see TemporalPeriod.
        pressure_rate: what a day without `resolve_pressure()` adds, >= 0.
        decay_rate, base_score_field, partition_by: see DecayingSortedField.
    Raises: ModelException: an option is out of range. TypeError: `cycles` is None.
    """

    signal_kind: ClassVar[str] = "cyclic"

    def __init__(
        self,
        *,
        cycles: Sequence[Sequence[float]] = (),
        pressure_rate: float = 0.0,
        **options: Any,
    ) -> None:
        self.cycles: list[Cycle] = [self._cycle(cycle) for cycle in cycles]
        if not (is_number(pressure_rate) and pressure_rate >= 0):
            raise ModelException(
                f"{self._label()}: pressure_rate= expected a number from 0 on (a day), got {pressure_rate!r}."
            )
        self.pressure_rate = float(pressure_rate)
        super().__init__(**options)

    def _cycle(self, cycle: Any) -> Cycle:
        good = isinstance(cycle, (tuple, list)) and len(cycle) in (2, 3) and all(is_number(part) for part in cycle)
        if not good or not cycle[0] > 0 or not 0 <= cycle[1] <= MOST_AMPLITUDE:
            raise ModelException(
                f"{self._label()}: cycles= expected (period, amplitude) or (period, amplitude, phase) each, the period "
                f"above 0 and the amplitude from 0 to {MOST_AMPLITUDE:g}; got {cycle!r}."
            )
        return float(cycle[0]), float(cycle[1]), float(cycle[2]) if len(cycle) == 3 else 0.0

    def slots(self) -> list[Slot]:
        name, partition, prefix = self.name, self.partition_by, self.field_class_key
        definition = pack(self.cycles)
        digest = ";".join(repr(part) for cycle in self.cycles for part in cycle)

        def cycles(values: Mapping[str, Any]) -> Made | None:
            return [index_part(values[p]) for p in partition], digest, definition

        def pressure(values: Mapping[str, Any]) -> Made | None:
            return [index_part(values[p]) for p in partition], False, [self.pressure_rate, clock.now()]

        slots = super().slots()
        if self.cycles:
            slots.append(Slot(f"{name}#cycles", "cy", prefix, name, partition, (), cycles))
        if self.pressure_rate:
            slots.append(Slot(f"{name}#pressure", "pr", prefix, name, partition, (), pressure))
        return slots

    # -- keys ---------------------------------------------------------------------------------------------------------

    def get_cycles_hash_key(self, instance: Any, field_name: str) -> str:
        """Return the hash of the cycles of an instance's current partition."""
        return self._companion(*self._place_of(instance), "cycles")

    def get_pressure_hash_key(self, instance: Any, field_name: str) -> str:
        """Return the hash of the pressure of an instance's current partition."""
        return self._companion(*self._place_of(instance), "pressure")

    @classmethod
    def get_cycles_hash_key_from_parts(cls, model_class: Any, field_name: str, *partition_values: Any) -> str:
        """Return the hash of the cycles of a partition."""
        field = field_of(model_class, field_name, CyclicDecayField, "get_cycles_hash_key_from_parts")
        return field._companion(field._keys_of(model_class, partition_values), partition_values, "cycles")

    @classmethod
    def get_pressure_hash_key_from_parts(cls, model_class: Any, field_name: str, *partition_values: Any) -> str:
        """Return the hash of the pressure of a partition."""
        field = field_of(model_class, field_name, CyclicDecayField, "get_pressure_hash_key_from_parts")
        return field._companion(field._keys_of(model_class, partition_values), partition_values, "pressure")

    def _place_of(self, instance: Any) -> tuple[ModelKeys, list[Any]]:
        values = instance.__dict__
        return instance._meta.keys_for(values), [values[p] for p in self.partition_by]

    def _keys_of(self, model: Any, partition_values: Sequence[Any]) -> ModelKeys:
        """Return the keys of the shard, which may be among the partition's values."""
        keys: ModelKeys = model._meta.keys_for(dict(zip(self.partition_by, partition_values, strict=False)))
        return keys

    def _companion(self, keys: ModelKeys, partition_values: Sequence[Any], what: str) -> str:
        return f"{keys.index(self.field_class_key, self.name, *partition_values)}:{what}"


# -- commands ----------------------------------------------------------------------------------------------------------


def scale_command(instance: Any, field_name: str, factor: float, call: str) -> Command[list[list[float]]]:
    """Return the multiplication of a record's amplitudes; its result is the list of [period, amplitude, phase].

    Raises: AttributeError: no such field. TypeError: it has no cycles, or the instance was never saved. ValueError: the
        factor is no finite number.
    """
    field_of(type(instance), field_name, CyclicDecayField, call)
    if not is_number(factor):
        raise ValueError(f"{call}(): factor= expected a finite number, got {factor!r}.")
    saved, keys = require_stored(instance, f"{call}('{field_name}')")

    def parse(flat: list[bytes]) -> list[list[float]]:
        numbers = [float(text) for text in flat]
        return [numbers[at : at + 3] for at in range(0, len(numbers), 3)]

    args = (saved, keys.sentinel, f"{field_name}#cycles", repr(float(factor)), "")
    return Command(args, parse, SCALE, key_count=2, repeat="token")


def resolve_pressure_command(instance: Any, field_name: str) -> Command[float]:
    """Return the resolution of a record's pressure; its result is the time.

    Raises: AttributeError: no such field. TypeError: it builds up no pressure, or the instance was never saved.
    """
    field = field_of(type(instance), field_name, CyclicDecayField, "resolve_pressure")
    if not field.pressure_rate:
        raise TypeError(
            f"resolve_pressure('{field_name}'): {type(instance).__name__}.{field_name} builds up no pressure; give the "
            "field a pressure_rate above 0."
        )
    saved, keys = require_stored(instance, f"resolve_pressure('{field_name}')")
    at = clock.now()
    args = (saved, keys.sentinel, f"{field_name}#pressure", repr(field.pressure_rate), repr(at), "")
    return Command(args, lambda _: at, RESOLVE, key_count=2, repeat="token")
