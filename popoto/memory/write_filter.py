"""WriteFilterMixin: a record decides, at its save, whether it is worth storing.

    score < _wf_min_threshold         the save writes nothing and returns False
    score >= _wf_priority_threshold   the record is stored, and stands in the ordered set "priority" with its score
    between the two                   the record is stored

The decision falls before anything is written, and the priority entry is an index entry like any other: the same atomic
step writes it, a later save with a lower score removes it, and it follows and leaves with the record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from popoto.memory.defaults import Defaults
from popoto.memory.mixins import require_before_model
from popoto.orm.keys import ModelKeys
from popoto.orm.slots import Made, Slot, WholeSlot

PREFIX = "$WF"
SLOT = "@priority"
_DECIDED = "_wf_priority"  # attribute of an instance: the score of its last save where that is a priority, else None


class WriteFilterMixin:
    """Keeps worthless records out of the store: `class Memory(WriteFilterMixin, Model)`.

    Attributes:
        _wf_min_threshold: lowest score that is stored; unless the model sets it, `Defaults.WF_MIN_THRESHOLD`.
        _wf_priority_threshold: lowest score that has priority; unless set, `Defaults.WF_PRIORITY_THRESHOLD`.
        _write_filter_score: the score at the last attempt to save this instance; None before.
    """

    _write_filter_score: float | None = None

    @property
    def _wf_min_threshold(self) -> float:
        return Defaults.WF_MIN_THRESHOLD

    @property
    def _wf_priority_threshold(self) -> float:
        return Defaults.WF_PRIORITY_THRESHOLD

    def compute_filter_score(self) -> Any:
        """Return how much the record is worth storing, usually 0 to 1; every model says it in its own way.

        Called at each save, partial ones included, before the values are validated. What is no number counts 0.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.compute_filter_score() is missing: return what a record is worth, 0 to 1."
        )

    def pre_save(self, *args: Any, **kwargs: Any) -> Any:
        """Decide whether the record is stored; see Model.pre_save."""
        return self._decide() and super().pre_save(*args, **kwargs)  # type: ignore[misc]

    def _decide(self) -> bool:
        score = number_of(self.compute_filter_score())
        self._write_filter_score = score
        setattr(self, _DECIDED, score if score >= self._wf_priority_threshold else None)
        return score >= self._wf_min_threshold

    @classmethod
    def record_slots(cls) -> list[Slot]:
        """Return the index entry that each record may have beside those of its fields.

        Raises: ModelException: the mixin stands behind Model among the bases.
        """
        require_before_model(cls, WriteFilterMixin)

        def make(values: Mapping[str, Any]) -> Made | None:
            if _DECIDED not in values:  # no save: an index is built anew from what is stored
                instance: Any = cls.__new__(cls)
                instance.__dict__ = values
                instance._decide()
            score = values[_DECIDED]
            return None if score is None else ([], False, score)

        return [WholeSlot(SLOT, "z", PREFIX, "priority", (), (), make)]

    @classmethod
    def ranking_signals(cls, keys: ModelKeys) -> dict[str, str]:
        """Return the ordered sets that rankings may use, by name."""
        return {"priority": priority_key(keys)}


def priority_key(keys: ModelKeys) -> str:
    """Return the ordered set of a model's records that have priority, by score."""
    return keys.base(PREFIX, "priority")


def number_of(score: Any) -> float:
    """Return a score as a float; 0.0 for None, NaN and what is no number."""
    try:
        number = float(score)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return 0.0 if math.isnan(number) else number
