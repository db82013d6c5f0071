"""DecayingSortedField: when a record was last touched, and what it is worth by now.

    elapsed_days = max((now - touched) / 86400, 0.01)
    score        = base * elapsed_days ** -decay_rate

A power law, as forgetting is (Wixted & Ebbesen 1991: recall falls with a power of the time since learning). The floor
of 0.01 day caps the factor at 100 ** decay_rate; a time in the future counts as that floor.

The field keeps two ordered sets for each partition, always with the same members: one by touched time, one by base
score. `popoto.memory.ranking` finds the best records by walking the two, without scoring them all.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar

from popoto.exceptions import ModelException
from popoto.memory import clock
from popoto.memory.defaults import Defaults
from popoto.memory.events import LoggedScript, packed_event
from popoto.memory.number import is_number
from popoto.memory.stored import field_of, require_stored
from popoto.orm.commands import Command
from popoto.orm.fields.base import Field
from popoto.orm.fields.sorted import SortedField, require_fields, score_of, score_text
from popoto.orm.keys import ModelKeys, index_part
from popoto.orm.scripts import Script
from popoto.orm.slots import Made, Slot

TOUCH = LoggedScript(Script("popoto.memory", "touch", with_kinds=True))

DAY_S = 86_400.0
FLOOR_DAYS = 0.01
_LEAST, _MOST = 5e-324, sys.float_info.max  # a factor is never 0 or infinite, so no product of it is NaN


def decay_score(base: float, touched: float, now: float, decay_rate: float) -> float:
    """Return base * max((now - touched) / 86400, 0.01) ** -decay_rate; times in Unix seconds.

    The server computes the same (lua/lib_decay.lua); its `pow` may differ in the last bit.
    """
    days = max((now - touched) / DAY_S, FLOOR_DAYS)
    try:
        factor: float = days**-decay_rate
    except OverflowError:
        factor = math.inf
    return base * min(max(factor, _LEAST), _MOST)


def base_number(value: Any) -> float:
    """Return what a base field's value counts: the number of an int, float or Decimal (also negative or infinite).

    Anything else counts 1.0: None, bool, text, NaN.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return 1.0
    try:
        return score_of(value) + 0.0  # no -0.0: it would print apart
    except (ModelException, ValueError):  # NaN; a signalling one
        return 1.0


class DecayingSortedField(SortedField):
    """The Unix time (float) at which a record was last touched; every full save sets it to now.

    `save(skip_auto_now=True)` keeps the value, a partial save leaves it unless it lists the field, `touch()` sets it
    alone. Lookups: those of SortedField, on the time.

    Args:
        decay_rate: > 0; None follows `Defaults.DECAY_RATE` at the time of use.
        base_score_field: field whose number the score is multiplied by; None for 1.
        partition_by: field name(s): one ranking for each of their values.
    Raises: ModelException: `decay_rate` is no positive number; `base_score_field` or a partition names no field of the
        model, or a field that decays itself.
    """

    base_prefix: ClassVar[str] = "$DecayBase"
    signal_kind: ClassVar[str] = "decay"  # how composite.lua scores it
    stamps_updates: ClassVar[bool] = False  # a change of other fields is no touch (bulk_update)

    def __init__(
        self,
        *,
        decay_rate: float | None = None,
        base_score_field: str | None = None,
        partition_by: str | tuple[str, ...] = (),
        **options: Any,
    ) -> None:
        if decay_rate is not None and not (is_number(decay_rate) and decay_rate > 0):
            raise ModelException(
                f"{self._label()}: decay_rate= expected a positive number or None for Defaults.DECAY_RATE, got "
                f"{decay_rate!r}."
            )
        if base_score_field is not None and not isinstance(base_score_field, str):
            raise ModelException(
                f"{self._label()}: base_score_field= expected the name of a field or None, got {base_score_field!r}."
            )
        options["type"] = float
        super().__init__(partition_by=partition_by, **options)
        self.auto_now = True
        self._decay_rate = None if decay_rate is None else float(decay_rate)
        self.base_score_field = base_score_field or None

    @property
    def decay_rate(self) -> float:
        """The rate of this field, or `Defaults.DECAY_RATE` as it is now."""
        return Defaults.DECAY_RATE if self._decay_rate is None else self._decay_rate

    def bind(self, model: Any) -> None:
        super().bind(model)
        if self.base_score_field is None:
            return
        require_fields(self, model, "base_score_field", (self.base_score_field,))
        if isinstance(model._meta.fields[self.base_score_field], DecayingSortedField):
            raise ModelException(
                f"{self._label()} of {model.__name__}: base_score_field= names '{self.base_score_field}', a time that "
                "decays itself. Name a field that holds a number."
            )

    def now(self) -> float:
        """Return the time of the memory layer's clock."""
        return clock.now()

    def slots(self) -> list[Slot]:
        name, partition, base = self.name, self.partition_by, self.base_score_field

        def touched(values: Mapping[str, Any]) -> Made | None:
            value = values[name]  # None only in a partial save that does not write it: then what is stored stays
            return [index_part(values[p]) for p in partition], False, None if value is None else score_of(value)

        def base_score(values: Mapping[str, Any]) -> Made | None:
            number = 1.0 if base is None else base_number(values[base])
            return [index_part(values[p]) for p in partition], False, number

        return [
            Slot(name, "z", self.field_class_key, name, partition, (name,), touched),
            Slot(f"{name}#base", "z", self.base_prefix, name, partition, () if base is None else (base,), base_score),
        ]

    def ranking_keys(self, keys: ModelKeys, given: Mapping[str, Any], fields: Mapping[str, Field]) -> tuple[str, str]:
        """Return the two ordered sets of the partition that a filter names: touched times, base scores.

        Raises: QueryException: a partition field has no exact filter.
        """
        touched = self.sorted_set_key(keys, given, fields)
        partition = touched.removeprefix(keys.base(self.field_class_key, self.name))
        return touched, keys.base(self.base_prefix, self.name) + partition


def touch_command(instance: Any, field_name: str) -> Command[float]:
    """Return the touch of one record: its time becomes now, in the hash and in the order, in one step.

    It writes to the partition in which the record is stored, whatever the instance's attributes say meanwhile.

    Returns: a Command whose parsed reply is the new time; parsing also sets the attribute of the instance.
    Raises: AttributeError: no such field. TypeError: it does not decay; the instance was never saved. Running it raises
        TypeError when the record is gone, ModelException when it was stored before the model had the field.
    """
    field = field_of(type(instance), field_name, DecayingSortedField, "touch")
    saved, keys = require_stored(instance, f"touch('{field_name}')")
    at = field.now()

    def touched(_: Any) -> float:
        instance.__dict__[field_name] = at
        return at

    model = type(instance)
    event = packed_event(model, keys, field_name)
    args = (saved, *keys.home, field_name, score_text(at), field.encode(at), event, "")
    return Command(args, touched, TOUCH.of(model), key_count=5, repeat="token")
