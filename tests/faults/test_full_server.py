"""A server whose memory is full, or that may not write, refuses saves whole; it still reads, and still deletes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from popoto.memory.confidence import ConfidenceField
from tests.faults.conftest import Way
from tests.faults.models import FaultItem, FaultMemory
from tests.orm.oracle import dump, indexes_agree


@pytest.fixture
def full_server(server: redis.Redis) -> Iterator[redis.Redis]:
    """Two items and a memory are stored, and there is no room for anything else."""
    FaultItem.create(name="a", status="open", rank=1)
    FaultItem.create(name="b", status="open", rank=2)
    FaultMemory.create(name="m")
    server.config_set("maxmemory", 1)
    yield server
    server.config_set("maxmemory", 0)


@pytest.fixture
def readonly_server(server: redis.Redis) -> Iterator[redis.Redis]:
    """The same, as a replica, which takes no writes."""
    FaultItem.create(name="a", status="open", rank=1)
    FaultItem.create(name="b", status="open", rank=2)
    FaultMemory.create(name="m")
    server.replicaof("127.0.0.1", 1)  # nobody there; it keeps what it has
    yield server
    server.replicaof("NO", "ONE")


def reads_work(way: Way) -> None:
    assert way(FaultItem.query.count) == 2
    assert way(FaultItem.query.count, rank__gte=2) == 1
    assert [item.name for item in way(FaultItem.query.all, status="open")] == ["a", "b"]
    assert way(FaultItem.query.filter(status="open").order_by("-rank").first).name == "b"
    assert way(FaultItem.load, name="a").rank == 1
    assert len(way(FaultMemory.query.top_by_decay, "relevance")) == 1
    assert ConfidenceField.get_confidence(FaultMemory(name="m"), "certainty") == FaultMemory(name="x").certainty


def test_a_full_server_refuses_a_save_whole(way: Way, full_server: redis.Redis) -> None:
    before = dump(full_server)

    with pytest.raises(redis.exceptions.OutOfMemoryError):
        way(FaultItem(name="c").save)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        way(FaultItem.load(name="a").save)  # type: ignore[union-attr]

    assert dump(full_server) == before


def test_a_full_server_reads(way: Way, full_server: redis.Redis) -> None:
    reads_work(way)


def test_a_full_server_deletes(way: Way, full_server: redis.Redis) -> None:
    """Else there would be no way out."""
    assert way(FaultItem.load(name="a").delete) is True  # type: ignore[union-attr]

    assert FaultItem.query.keys() == [b"FaultItem:b"]
    indexes_agree(FaultItem)


def test_a_replica_reads(way: Way, readonly_server: redis.Redis) -> None:
    reads_work(way)


def test_a_replica_refuses_a_save_whole(way: Way, readonly_server: redis.Redis) -> None:
    before = dump(readonly_server)

    with pytest.raises(redis.ResponseError):
        way(FaultItem(name="c").save)

    assert dump(readonly_server) == before
