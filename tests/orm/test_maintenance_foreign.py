"""A key of another type in the place of an index: maintenance reports it, names it, leaves it alone and goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis

from popoto.exceptions import ModelException
from popoto.memory.access import AccessTrackerMixin
from popoto.memory.bm25 import BM25Field
from popoto.memory.co_occurrence import CoOccurrenceField
from popoto.memory.confidence import ConfidenceField
from popoto.memory.decay import DecayingSortedField
from popoto.memory.model import Model as MemoryModel
from popoto.orm.fields.base import Field
from popoto.orm.fields.geo import GeoField
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.relationship import Relationship
from popoto.orm.fields.sorted import SortedField, SortedKeyField
from popoto.orm.model import Model

from .oracle import dump


class OddShop(Model):
    name = KeyField()
    number = SortedKeyField(type=int, default=0)
    kind = IndexedField()
    code = UniqueField()
    price = SortedField(type=int, default=2**53 + 1)
    city = Relationship(model="self")
    spot = GeoField()

    class Meta:
        indexes = ((("kind", "code"), True), (("kind", "price"), False))


class OddMemory(AccessTrackerMixin, MemoryModel):
    name = KeyField()
    text = Field(default="green tea")
    heat = DecayingSortedField()
    sure = ConfidenceField()
    words = BM25Field(source="text")
    links = CoOccurrenceField()


def shops() -> list[Any]:
    return [
        OddShop.create(name=f"n{number}", kind="tea", code=f"c{number}", city="OddShop:n0:0", spot=(52.0, 13.0))
        for number in range(3)
    ]


def memories() -> list[Any]:
    records = [OddMemory.create(name=f"m{number}") for number in range(3)]
    OddMemory.links.link(OddMemory, records[0], records[1])
    for record in records:
        record.on_read()
        record.confirm_access()
        record.on_read()
    return records


PUT: dict[str, Callable[[redis.Redis, str, list[str]], Any]] = {
    "string": lambda server, key, members: server.set(key, members[0]),
    "list": lambda server, key, members: server.rpush(key, *members),
    "set": lambda server, key, members: server.sadd(key, *members),
    "zset": lambda server, key, members: server.zadd(key, dict.fromkeys(members, 1)),
    "hash": lambda server, key, members: server.hset(key, mapping=dict.fromkeys(members, "x")),
    "stream": lambda server, key, members: server.xadd(key, {"a": "b"}),
}
INDEXES = {
    "plain": "$IndexF:OddShop:kind:tea",
    "texts": "$IndexF:OddShop:kind::values",
    "key": "$KeyF:OddShop:name:n1",
    "unique": "$UniquF:OddShop:code:c1",
    "sorted": "$SortF:OddShop:price",
    "shared": "$SortF:OddShop:price::shared",
    "sorted key": "$SortedKeyF:OddShop:number",
    "geo": "$GeoF:OddShop:spot",
    "relation": "$RelationshipF:OddShop:city:OddShop:n0:0",
    "unique composite": "$Index:OddShop:kind:code",
    "composite": f"$Index:OddShop:kind:price::tea:{2**53 + 1}",
    "occupancy": "OddShop:n1:0::$occ",
}
MEMORY_INDEXES = {
    "heat": "$DecayingSortF:OddMemory:heat",
    "base": "$DecayBase:OddMemory:heat",
    "confidence": "$ConfidencF:OddMemory:sure:data",
    "postings": "$BM25:OddMemory:words:inv:tea",
    "words": "$BM25:OddMemory:words:tf:OddMemory:m1",
    "lengths": "$BM25:OddMemory:words:dl",
    "counts": "$BM25:OddMemory:words:n",
    "edges": "$CoOcF:OddMemory:links:OddMemory:m0",
    "reads": "$AT:OddMemory:access_log:OddMemory:m1",
    "read count": "$AT:OddMemory:count",
}
OWN_TYPES = dict.fromkeys(("sorted", "sorted key", "geo", "texts"), "zset") | {
    **{"unique composite": "hash", "occupancy": "string", "confidence": "hash", "counts": "string", "reads": "list"},
    **dict.fromkeys(("heat", "base", "postings", "words", "lengths", "edges", "read count"), "zset"),
}  # the others are sets
HOME = {"all": "$Class:OddShop", "order": "$Order:OddShop", "expiry": "$Expiry:OddShop"}


def foreign_to(indexes: dict[str, str], kinds: list[str]) -> list[tuple[str, str]]:
    """Return (name of an index, a type that it does not have)."""
    return [(name, kind) for name in indexes for kind in kinds if kind != OWN_TYPES.get(name, "set")]


def put_in_place(server: redis.Redis, key: str, kind: str, records: list[Any]) -> None:
    assert server.type(key).decode() not in ("none", kind), "the key is one of the index"
    server.delete(key)
    PUT[kind](server, key, [record.pk for record in records])


def is_told_of_and_left_alone(server: redis.Redis, key: str, kind: str, records: list[Any], log: Any) -> None:
    model = type(records[0])
    put_in_place(server, key, kind, records)
    foreign, before = server.dump(key), dump(server)

    log.clear()
    found = model.check_indexes()
    assert found["missing"] >= 1 and dump(server) == before
    assert found == asyncio.run(model.async_check_indexes())
    assert key in log.text or key.endswith("$occ"), "the log names it"

    model.clean_indexes()
    assert server.dump(key) == foreign
    rebuilt = model.rebuild_indexes()
    assert (int(rebuilt), rebuilt.skipped) == (3, {})
    assert key in str(rebuilt.conflicts), "so does what a rebuild returns"
    assert server.dump(key) == foreign

    server.delete(key)
    assert model.rebuild_indexes().conflicts == {}
    assert model.check_indexes()["total"] == 0
    for record in records:
        assert record.delete() is True


@pytest.mark.parametrize(("index", "kind"), foreign_to(INDEXES, list(PUT)))
def test_in_place_of_an_index_it_is_told_of_and_left_alone(
    server: redis.Redis, caplog: pytest.LogCaptureFixture, index: str, kind: str
) -> None:
    records = shops()
    is_told_of_and_left_alone(server, INDEXES[index], kind, records, caplog)


@pytest.mark.parametrize(("index", "kind"), foreign_to(MEMORY_INDEXES, ["string", "set", "zset", "hash"]))
def test_in_place_of_a_memory_index_as_well(
    server: redis.Redis, caplog: pytest.LogCaptureFixture, index: str, kind: str
) -> None:
    records = memories()
    key = MEMORY_INDEXES[index]
    if index in ("confidence", "read count", "reads", "edges"):  # what is learnt is lost with its key
        put_in_place(server, key, kind, records)
        assert OddMemory.check_indexes()["missing"] >= 1 and key in caplog.text
        assert key in str(OddMemory.rebuild_indexes().conflicts)
        assert server.type(key).decode() == kind
        return
    is_told_of_and_left_alone(server, key, kind, records, caplog)


@pytest.mark.parametrize("call", ["check_indexes", "clean_indexes", "rebuild_indexes"])
@pytest.mark.parametrize("home", HOME)
def test_in_place_of_a_key_of_the_model_the_call_is_refused(server: redis.Redis, home: str, call: str) -> None:
    shops()
    server.delete(HOME[home])
    server.rpush(HOME[home], "x")
    before = dump(server)
    with pytest.raises(ModelException) as error:
        getattr(OddShop, call)()
    assert HOME[home] in str(error.value) and "list" in str(error.value)
    assert dump(server) == before


@pytest.mark.parametrize("kind", ["list", "set", "zset", "hash", "stream"])
def test_in_place_of_the_list_of_entries_a_save_and_a_delete_are_refused_by_name(
    server: redis.Redis, kind: str
) -> None:
    record = shops()[1]
    key = "OddShop:n1:0::$occ"
    put_in_place(server, key, kind, [record])
    before = dump(server)
    record.kind = "coffee"
    calls: list[Callable[[], Any]] = [
        record.save,
        lambda: record.save(update_fields=["kind"]),
        lambda: record.atomic_increment("price", 1),
        record.delete,
        lambda: asyncio.run(record.async_delete()),
        lambda: OddShop.bulk_update([record], kind="milk"),
        lambda: OddShop.bulk_delete([record]),
    ]
    for call in calls:
        with pytest.raises(ModelException) as error:
            call()
        assert f"{key} holds a {kind}" in str(error.value) and "nothing was written" in str(error.value)
        assert dump(server) == before
    server.delete(key)
    assert OddShop.rebuild_indexes() == 3
    assert OddShop.query.get("OddShop:n1:0").delete() is True
    assert OddShop.check_indexes()["total"] == 0
