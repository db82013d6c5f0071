"""Tuning constants of the memory layer, in one place.

Each is read when it is used: assigning `Defaults.DECAY_RATE = 0.7` acts at once on every field and call that was not
given a value of its own; `with Defaults.override(DECAY_RATE=0.7):` does so for a while. An explicit argument always
wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from popoto.memory.number import is_number

_PROBABILITIES = frozenset(
    [
        "INITIAL_CONFIDENCE",
        "ACTED_CONFIDENCE_SIGNAL",
        "CONTRADICTED_CONFIDENCE_SIGNAL",
        "AUTO_DISCHARGE_CONFIDENCE_THRESHOLD",
        "PL_CONFIDENCE_ERROR_THRESHOLD",
        "PL_CONFIDENCE_LOW_SIGNAL",
        "PL_AUTO_RESOLVE_ACTED",
        "PL_AUTO_RESOLVE_USED",
        "PL_AUTO_RESOLVE_DISMISSED",
        "PL_AUTO_RESOLVE_CONTRADICTED",
        "WILSON_CI_THRESHOLD",
        "TD_ALPHA",
        "TD_GAMMA",
        "CHI_SQUARED_P_THRESHOLD",
        "COMPETITIVE_SUPPRESSION_SIGNAL",
    ]
)
_COUNTS = frozenset({"ADAPTIVE_QUALITY_WINDOW_SIZE", "MIN_EVENTS_FOR_CRYSTALLIZATION", "TRAJECTORY_CLUSTER_THRESHOLD"})
_POSITIVE = frozenset({"DECAY_RATE", "CO_OCCURRENCE_INITIAL_WEIGHT", "CO_OCCURRENCE_DECAY_PER_HOP"})
_FACTORS = frozenset(
    {"ACTED_CYCLE_STRENGTHEN_FACTOR", "DISMISSED_CYCLE_WEAKEN_FACTOR", "CONTRADICTED_CYCLE_WEAKEN_FACTOR"}
)


def _expected(name: str, value: Any) -> str | None:
    """Return what a constant has to be, where the value is not; else None."""
    if name in _COUNTS:
        return None if type(value) is int and value >= 1 else "a whole number from 1 on"
    number = is_number(value)
    if name in _PROBABILITIES:
        return None if number and 0 <= value <= 1 else "a number from 0 to 1"
    if name in _POSITIVE:
        return None if number and value > 0 else "a number above 0"
    if name in _FACTORS:
        return None if number and value >= 0 else "a number from 0 on"
    if name == "CO_OCCURRENCE_DECAY_FACTOR":
        return None if number and 0 <= value < 1 else "a number from 0 to below 1"
    if name == "INITIAL_CYCLE_AMPLITUDE":
        return None if number and 0 <= value <= 100 else "a number from 0 to 100"
    return None if number else "a finite number"


class _Checked(type):
    """Refuses what a constant cannot be, when it is assigned."""

    def __setattr__(cls, name: str, value: Any) -> None:
        _check(cls, name, value)
        super().__setattr__(name, value if type(value) in (int, float) else float(value))

    def __delattr__(cls, name: str) -> None:
        raise AttributeError(f"Defaults.{name} cannot be deleted. Assign a value, or use Defaults.override().")


def _check(constants: type, name: str, value: Any) -> None:
    known = [key for key in vars(constants) if key.isupper()]
    if name not in known:
        raise AttributeError(f"Defaults has no constant '{name}'. It has: {', '.join(known)}.")
    expected = _expected(name, value)
    if expected is not None:
        raise ValueError(f"Defaults.{name}: expected {expected}, got {value!r}.")


class Defaults(metaclass=_Checked):
    """Values that fields and recipes fall back on.

    Assigning to one raises AttributeError where there is no such constant, ValueError where the value cannot be.
    """

    # DecayingSortedField, CyclicDecayField
    DECAY_RATE: float = 0.1
    # ConfidenceField
    INITIAL_CONFIDENCE: float = 0.5
    # ObservationProtocol
    ACTED_CONFIDENCE_SIGNAL: float = 0.9
    CONTRADICTED_CONFIDENCE_SIGNAL: float = 0.1
    ACTED_CYCLE_STRENGTHEN_FACTOR: float = 1.2
    DISMISSED_CYCLE_WEAKEN_FACTOR: float = 0.8
    CONTRADICTED_CYCLE_WEAKEN_FACTOR: float = 0.5
    AUTO_DISCHARGE_CONFIDENCE_THRESHOLD: float = 0.1
    # WriteFilterMixin
    WF_MIN_THRESHOLD: float = 0.2
    WF_PRIORITY_THRESHOLD: float = 0.7
    # CoOccurrenceField
    CO_OCCURRENCE_DECAY_FACTOR: float = 0.95
    CO_OCCURRENCE_INITIAL_WEIGHT: float = 1.0
    CO_OCCURRENCE_DECAY_PER_HOP: float = 0.5
    # PredictionLedgerMixin
    PL_CONFIDENCE_ERROR_THRESHOLD: float = 0.7
    PL_CONFIDENCE_LOW_SIGNAL: float = 0.2
    PL_AUTO_RESOLVE_ACTED: float = 0.1
    PL_AUTO_RESOLVE_USED: float = 0.3
    PL_AUTO_RESOLVE_DISMISSED: float = 0.5
    PL_AUTO_RESOLVE_CONTRADICTED: float = 0.9
    # AdaptiveAssembler
    ADAPTIVE_QUALITY_WINDOW_SIZE: int = 20
    # PolicyCache
    MIN_EVENTS_FOR_CRYSTALLIZATION: int = 3
    WILSON_CI_THRESHOLD: float = 0.6
    TD_ALPHA: float = 0.1
    TD_GAMMA: float = 0.95
    CHI_SQUARED_P_THRESHOLD: float = 0.05
    INITIAL_CYCLE_AMPLITUDE: float = 0.5
    # TrajectoryMemory
    TRAJECTORY_CLUSTER_THRESHOLD: int = 3
    # ContextAssembler
    COMPETITIVE_SUPPRESSION_SIGNAL: float = 0.3
    DEFAULT_SURFACING_THRESHOLD: float = 0.5

    @classmethod
    @contextmanager
    def override(cls, **values: Any) -> Iterator[None]:
        """Give constants other values inside a `with` block; blocks nest. The whole process sees them, every thread.

        Raises: AttributeError: no such constant. ValueError: a value that it cannot be. Nothing is changed then.
        """
        for name, value in values.items():
            _check(cls, name, value)
        before = {name: getattr(cls, name) for name in values}
        try:
            for name, value in values.items():
                setattr(cls, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(cls, name, value)


class TemporalPeriod:
    """Lengths of cycles in seconds."""

    DAILY = 86_400
    WEEKLY = 7 * DAILY
    MONTHLY = 30 * DAILY
    QUARTERLY = 90 * DAILY
    YEARLY = 365 * DAILY


class InteractionWeight:
    """How much an interaction counts, by where it came from and by the role of who spoke."""

    HUMAN = 6.0
    AGENT = 1.0
    SYSTEM = 0.2

    EXECUTIVE = 44.0
    MANAGER = 16.0
    PEER = 6.0
    SUBORDINATE = 1.0

    @staticmethod
    def combine(source: Any, role: Any) -> Any:
        """Return the weight of a source and a role together: their sum."""
        return source + role
