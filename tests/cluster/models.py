"""Models of the cluster tests; workers in processes of their own import them too."""

from __future__ import annotations

import popoto
from popoto.memory.frequency import FrequencySketch


class Account(popoto.Model):
    """All records in one slot."""

    name = popoto.KeyField()
    balance = popoto.SortedField(type=int, default=0)
    city = popoto.IndexedField(default="")
    email = popoto.UniqueField()


class Note(popoto.Model):
    """A slot an agent."""

    agent = popoto.KeyField()
    number = popoto.KeyField(type=int)
    topic = popoto.IndexedField(default="")
    weight = popoto.SortedField(type=float, default=0.0)
    hits = popoto.IntField(default=0)
    text = popoto.StringField(default="")
    relevance = popoto.DecayingSortedField(base_score_field="hits")
    words = popoto.BM25Field(source="text")
    certainty = popoto.ConfidenceField()

    class Meta:
        shard_by = "agent"


class Badge(popoto.Model):
    """Unique over all shards."""

    agent = popoto.KeyField()
    name = popoto.KeyField()
    code = popoto.UniqueField()

    class Meta:
        shard_by = "agent"


class Owner(popoto.Model):
    name = popoto.KeyField()
    town = popoto.IndexedField(default="")


class Pet(popoto.Model):
    """Points to records of another slot."""

    agent = popoto.KeyField()
    name = popoto.KeyField()
    owner = popoto.Relationship(model=Owner)

    class Meta:
        shard_by = "agent"


class Reflection(popoto.AccessTrackerMixin, popoto.PredictionLedgerMixin, popoto.Model):
    """A slot an agent, and every primitive."""

    agent_id = popoto.KeyField()
    number = popoto.KeyField(type=int)
    topic = popoto.IndexedField(default="")
    text = popoto.StringField(default="")
    importance = popoto.FloatField(default=1.0)
    weight = popoto.SortedField(type=float, default=0.0)
    relevance = popoto.DecayingSortedField(base_score_field="importance")
    rhythm = popoto.CyclicDecayField(cycles=[(86_400, 2.0, 3600.0)], pressure_rate=0.5)
    certainty = popoto.ConfidenceField()
    trust = popoto.ConfidenceField(partition_by="agent_id")
    by_topic = popoto.ConfidenceField(partition_by="topic")
    links = popoto.CoOccurrenceField()
    known = popoto.ExistenceFilter(source="text", capacity=2000)
    counted = FrequencySketch(source="text")
    keyed = popoto.ExistenceFilter(capacity=2000)
    words = popoto.BM25Field(source="text")

    class Meta:
        shard_by = "agent_id"
