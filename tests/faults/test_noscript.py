"""The server forgets its scripts at any time (restart, failover, SCRIPT FLUSH): nobody notices."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from popoto import redis_db
from popoto.memory.confidence import ConfidenceField
from tests.faults.conftest import Way, number
from tests.faults.models import FaultItem, FaultTicket, SharedMemory


@contextmanager
def scripts_flushed_all_the_time(server: redis.Redis) -> Iterator[None]:
    """Let another connection send SCRIPT FLUSH as fast as it can."""
    stop = threading.Event()

    def flush() -> None:
        while not stop.is_set():
            server.script_flush()

    thread = threading.Thread(target=flush)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_each_single_call_finds_its_script_gone(way: Way, server: redis.Redis) -> None:
    def forgotten(call: Callable[[], object]) -> object:
        server.script_flush()
        return call()

    item = FaultItem(name="a", status="open")
    assert forgotten(lambda: way(item.save)) == 4
    item.rank = 5
    assert forgotten(lambda: way(item.save, update_fields=["rank"])) == 0
    assert forgotten(lambda: way(FaultItem.query.count, rank=5)) == 1
    assert forgotten(lambda: way(FaultItem.query.all, status="open")) == [item]
    assert forgotten(lambda: way(FaultItem.query.keys)) == [b"FaultItem:a"]
    assert forgotten(lambda: way(FaultItem.load, name="a")) == item
    item.name = "b"
    assert forgotten(lambda: way(item.save, migrate_key=True)) == 0
    assert forgotten(lambda: way(item.delete)) is True
    ticket = forgotten(lambda: way(FaultTicket.create, seat="1"))
    assert FaultTicket.query.all() == [ticket]
    assert number(server, "saves") == 3  # an update of another field runs no hook


def test_each_call_of_a_memory_field_finds_its_script_gone(way: Way, server: redis.Redis) -> None:
    def forgotten(*call: Any) -> Any:
        server.script_flush()
        return way(*call)

    memory = SharedMemory.create(name="a", topic="x", text="a bridge of stone", weight=2.0)
    assert forgotten(memory.touch, "relevance") == memory.relevance
    assert forgotten(ConfidenceField.update_confidence, memory, "certainty", 1.0) == 1.0
    server.script_flush()
    assert ConfidenceField.get_confidence(memory, "certainty") == 1.0
    assert forgotten(SharedMemory.query.filter(topic="x").top_by_decay, "relevance") == [memory]
    assert forgotten(SharedMemory.query.keyword_search, "bridge") == [memory]
    assert forgotten(SharedMemory.query.filter(topic="x").keyword_search, "stone") == [memory]


@pytest.mark.parametrize("transaction", [True, False])
def test_a_touch_in_a_pipeline_finds_its_script_gone(server: redis.Redis, transaction: bool) -> None:
    memory = SharedMemory.create(name="a", topic="x")
    before = memory.relevance
    pipeline = redis_db.get_REDIS_DB().pipeline(transaction=transaction)
    memory.touch("relevance", pipeline=pipeline)
    memory.save(pipeline=pipeline, update_fields=["text"])
    memory.touch("relevance", pipeline=pipeline)
    server.script_flush()

    pipeline.execute()

    assert SharedMemory.load(name="a").relevance > before  # type: ignore[union-attr]


def test_scripts_vanish_while_single_calls_run(way: Way, server: redis.Redis) -> None:
    with scripts_flushed_all_the_time(server):
        for i in range(60):
            item = FaultItem(name=f"n{i}", rank=i)
            way(item.save)
            assert way(FaultItem.query.count, rank=i) == 1
            if i % 2:
                assert way(item.delete) is True

    assert FaultItem.query.count() == 30
    assert number(server, "saves") == 60


@pytest.mark.parametrize("transaction", [True, False])
@pytest.mark.parametrize("flush_between", [True, False])
def test_a_delete_and_a_save_keep_their_order_in_a_pipeline(
    server: redis.Redis, transaction: bool, flush_between: bool
) -> None:
    FaultItem.create(name="x", status="old")
    server.script_flush()  # the delete is unknown now; a resent delete would run behind the save
    if flush_between:
        FaultItem.create(name="known")  # now commit is known and remove is not
    pipeline = redis_db.get_REDIS_DB().pipeline(transaction=transaction)

    FaultItem(name="x").delete(pipeline=pipeline)
    FaultItem(name="x", status="young").save(pipeline=pipeline)

    assert pipeline.execute() == [1, 4]
    assert [item.status for item in FaultItem.query.filter(name="x")] == ["young"]
    assert FaultItem.query.filter(status="old").count() == 0


@pytest.mark.parametrize("transaction", [True, False])
def test_many_commands_of_one_script_in_a_pipeline(server: redis.Redis, transaction: bool) -> None:
    server.script_flush()
    pipeline = redis_db.get_REDIS_DB().pipeline(transaction=transaction)
    for i in range(50):
        FaultItem(name=f"n{i}").save(pipeline=pipeline)
        FaultItem(name=f"n{i - 1}").delete(pipeline=pipeline)

    pipeline.execute()

    assert FaultItem.query.keys() == [b"FaultItem:n49"]


@pytest.mark.parametrize("transaction", [True, False])
def test_a_pipeline_is_used_again_after_a_flush(server: redis.Redis, transaction: bool) -> None:
    pipeline = redis_db.get_REDIS_DB().pipeline(transaction=transaction)
    for name in ("a", "b", "c"):
        server.script_flush()
        FaultItem(name=name).save(pipeline=pipeline)
        pipeline.execute()

    assert FaultItem.query.count() == 3


@pytest.mark.parametrize("transaction", [True, False])
def test_a_pipeline_that_was_reset_sends_the_source_again(server: redis.Redis, transaction: bool) -> None:
    pipeline = redis_db.get_REDIS_DB().pipeline(transaction=transaction)
    FaultItem(name="dropped").save(pipeline=pipeline)
    pipeline.reset()
    server.script_flush()
    FaultItem(name="a").save(pipeline=pipeline)
    pipeline.execute()

    assert FaultItem.query.keys() == [b"FaultItem:a"]


def test_a_watching_pipeline_runs_at_once_before_multi(server: redis.Redis) -> None:
    item = FaultItem.create(name="a", note="x")
    pipeline = redis_db.get_REDIS_DB().pipeline()
    pipeline.watch(item.pk)
    for note in ("y", "z"):
        server.script_flush()
        FaultItem(name=f"at once {note}").save(pipeline=pipeline)
    server.script_flush()
    pipeline.multi()
    item.note = "changed"
    item.save(pipeline=pipeline)
    pipeline.execute()

    assert FaultItem.query.count() == 3
    assert FaultItem.load(name="a").note == "changed"  # type: ignore[union-attr]


@pytest.mark.parametrize("transaction", [True, False])
def test_an_async_pipeline_keeps_its_order(server: redis.Redis, transaction: bool) -> None:
    FaultItem.create(name="x", status="old")
    server.script_flush()

    async def replace() -> list[object]:
        pipeline = redis_db.get_async_client().pipeline(transaction=transaction)
        await FaultItem(name="x").async_delete(pipeline=pipeline)
        await FaultItem(name="x", status="young").async_save(pipeline=pipeline)
        await FaultItem.async_create(pipeline=pipeline, name="y")
        return await pipeline.execute()

    assert asyncio.run(replace()) == [1, 4, 4]
    assert [item.status for item in FaultItem.query.filter(name="x")] == ["young"]


def test_scripts_vanish_while_transactions_run(server: redis.Redis) -> None:
    with scripts_flushed_all_the_time(server):
        for i in range(20):
            pipeline = redis_db.get_REDIS_DB().pipeline(transaction=True)
            FaultItem(name="x").delete(pipeline=pipeline)
            for _ in range(20):
                FaultItem(name="x", rank=i).save(pipeline=pipeline)
            assert len(pipeline.execute()) == 21

    assert FaultItem.query.filter(rank=19).count() == 1


def test_what_a_plain_pipeline_loses_to_vanished_scripts_it_says_command_by_command(server: redis.Redis) -> None:
    """Without MULTI the server takes a long pipeline in parts, and other clients come between."""
    with scripts_flushed_all_the_time(server):
        for batch in range(5):
            pipeline = redis_db.get_REDIS_DB().pipeline(transaction=False)
            for i in range(300):
                FaultItem(name=f"n{batch}-{i}", rank=i).save(pipeline=pipeline)
            replies = pipeline.execute(raise_on_error=False)
            failed = {i for i, reply in enumerate(replies) if isinstance(reply, Exception)}
            assert all(isinstance(replies[i], redis.exceptions.NoScriptError) for i in failed)
            stored = {record.name for record in FaultItem.query.filter(name__startswith=f"n{batch}-")}
            assert stored == {f"n{batch}-{i}" for i in range(300) if i not in failed}
