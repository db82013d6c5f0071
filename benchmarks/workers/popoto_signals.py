"""The model of the rankings by several signals: imported when it is asked for, not before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from popoto import (
    AccessTrackerMixin,
    BM25Field,
    ConfidenceField,
    CyclicDecayField,
    DecayingSortedField,
    Field,
    KeyField,
    Model,
    WriteFilterMixin,
)
from popoto.redis_db import get_REDIS_DB

from .. import data, signals


class Signal(AccessTrackerMixin, WriteFilterMixin, Model):
    _wf_min_threshold = 0.0
    _wf_priority_threshold = signals.PRIORITY
    agent_id = KeyField(type=str)
    name = KeyField(type=str)
    importance = Field(type=float)
    relevance = DecayingSortedField(base_score_field="importance", partition_by="agent_id", decay_rate=data.DECAY_RATE)
    rhythm = CyclicDecayField(
        base_score_field="importance",
        partition_by="agent_id",
        decay_rate=data.DECAY_RATE,
        cycles=[(signals.DAILY, 0.5), (signals.WEEKLY, 1.0)],
    )
    certainty = ConfidenceField(partition_by="agent_id", initial_confidence=signals.FIRST_CONFIDENCE)
    text = Field(type=str)
    words = BM25Field("text")

    def compute_filter_score(self) -> float:
        return float(self.importance) / 10


def load(numbers: Iterable[int], now: float, related: bool = True) -> None:
    pipe = get_REDIS_DB().pipeline()
    rated = []
    for number in numbers:
        instance = Signal(**signals.row(number, now, related))
        instance.save(pipeline=pipe, skip_auto_now=True)
        if signals.reads(number):
            rated.append((number, instance))
    pipe.execute()
    for number, instance in rated:
        ConfidenceField.update_confidence(instance, "certainty", signals.rating(number))
        instance.strengthen_cycle("rhythm", factor=2.0)
        for _ in range(signals.reads(number, related)):
            instance.on_read()
        instance.confirm_access()


def asked() -> Any:
    """The query that all rankings start from; what they return is not counted as read."""
    return Signal.query.filter(agent_id=data.AGENT).no_track()
