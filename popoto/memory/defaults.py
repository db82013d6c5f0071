"""Tuning constants of the memory layer, in one place.

Each is read when it is used: assigning `Defaults.DECAY_RATE = 0.7` acts at once on every field and call that was not
given a value of its own. An explicit argument always wins.
"""

from __future__ import annotations

from typing import Any


class Defaults:
    """Values that fields and recipes fall back on."""

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
