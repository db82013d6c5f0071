"""The model of `top_by_decay`, apart from the records: imported when memories are asked for, not before."""

from __future__ import annotations

from popoto import DecayingSortedField, Field, KeyField, Model

from .. import data


class Memory(Model):
    agent_id = KeyField(type=str)
    name = KeyField(type=str)
    importance = Field(type=float)
    relevance = DecayingSortedField(base_score_field="importance", partition_by="agent_id", decay_rate=data.DECAY_RATE)
