"""Models of the cluster tests; workers in processes of their own import them too."""

from __future__ import annotations

import popoto


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
