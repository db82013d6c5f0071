"""The models of these tests, in a module of their own, so that worker processes import them too."""

from __future__ import annotations

from typing import Any

from popoto.memory.bm25 import BM25Field
from popoto.memory.confidence import ConfidenceField
from popoto.memory.decay import DecayingSortedField
from popoto.memory.model import Model as MemoryModel
from popoto.orm.fields.base import Field
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import AutoKeyField, KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.model import Model


class CountingField(Field):
    """Counts, on the server and in the same step, how often its record was saved and deleted."""

    @classmethod
    def on_save(cls, instance: Any, field_name: str, value: Any, pipeline: Any = None, **kwargs: Any) -> Any:
        pipeline.incr("saves")
        if value == "break":
            pipeline.lpush("saves", "a list command on a string")
        return pipeline

    @classmethod
    def on_delete(cls, instance: Any, field_name: str, value: Any, pipeline: Any = None, **kwargs: Any) -> Any:
        pipeline.incr("deletes")
        return pipeline


class FaultItem(Model):
    name = KeyField()
    status = IndexedField(default="new")
    rank = SortedField(type=int, default=0)
    note = CountingField(default="")


class FaultTicket(Model):
    number = AutoKeyField()
    seat = UniqueField()
    note = CountingField(default="")


class FaultMemory(MemoryModel):
    name = KeyField()
    topic = IndexedField(null=True)
    relevance = DecayingSortedField()
    certainty = ConfidenceField()


class SharedMemory(MemoryModel):
    """What memory fields keep beside a record moves with it from partition to partition and from key to key."""

    name = KeyField()
    topic = IndexedField(null=True)
    text = Field(default="")
    weight = SortedField(type=float, default=1.0)
    relevance = DecayingSortedField(base_score_field="weight", partition_by="topic")
    certainty = ConfidenceField(partition_by="topic")
    words = BM25Field(source="text")


class SharedRecord(Model):
    """A few of these are fought over by many processes."""

    name = KeyField()
    handle = IndexedField(unique=True, null=True)
    status = IndexedField(null=True)
    rank = SortedField(type=int, default=0, partition_by="status")
    level = SortedField(type=float, default=0.0)
    note = Field(default="")


class SharedTicket(Model):
    number = AutoKeyField()
    seat = UniqueField()


class SplitCounter(Model):
    """One process writes one field of it each."""

    name = KeyField()
    c0 = IndexedField(type=int, default=0)
    c1 = IndexedField(type=int, default=0)
    c2 = IndexedField(type=int, default=0)
    c3 = IndexedField(type=int, default=0)
