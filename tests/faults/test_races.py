"""Several processes and threads at the same records at the same moment."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from popoto.exceptions import ModelException
from popoto.memory.confidence import ConfidenceField
from tests.conftest import Server
from tests.faults import workers
from tests.faults.models import FaultMemory, FaultTicket, SharedRecord, SharedTicket, SplitCounter
from tests.orm.oracle import indexes_agree

PROCESSES = 8
ROUNDS = 60


def race(work: Callable[..., None], server: redis.Redis, url: str, rounds: int, count: int = PROCESSES) -> None:
    """Run `work(number, rounds, barrier)` in so many processes."""
    barrier = workers.nursery.Barrier(count)
    running = [workers.start(work, url, number, rounds, barrier) for number in range(count)]
    try:
        for process in running:
            process.join(60)
        assert server.lrange(workers.ERRORS, 0, -1) == []
        assert [process.exitcode for process in running] == [0] * count
    finally:
        for process in running:
            process.kill()


def in_threads(count: int, work: Callable[[int], Any]) -> None:
    """Run `work(number)` in so many threads that start together; raise what one of them raised."""
    barrier = threading.Barrier(count)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait(30)
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


def test_of_many_processes_that_create_one_unique_value_exactly_one_wins(
    server: redis.Redis, shared_server: Server
) -> None:
    race(workers.race_for_seats, server, shared_server.url, ROUNDS)

    for i in range(ROUNDS):
        winners = server.lrange(f"faults:won:{i}", 0, -1)
        assert len(winners) == 1
        assert server.llen(f"faults:lost:{i}") == PROCESSES - 1
        assert [t.number.encode() for t in SharedTicket.query.filter(seat=f"round{i}")] == winners
    assert SharedTicket.query.count() == ROUNDS
    indexes_agree(SharedTicket)


def test_of_many_records_that_move_to_one_key_exactly_one_arrives(server: redis.Redis, shared_server: Server) -> None:
    race(workers.race_for_one_key, server, shared_server.url, ROUNDS // 3)

    for i in range(ROUNDS // 3):
        (winner,) = server.lrange(f"faults:won:{i}", 0, -1)
        arrived = SharedRecord.load(name=f"goal{i}")
        assert arrived is not None and arrived.rank == int(winner)
    assert SharedRecord.query.count() == ROUNDS // 3 * PROCESSES  # those that lost stayed where they were
    indexes_agree(SharedRecord)


def test_writers_of_different_fields_lose_no_update(server: redis.Redis, shared_server: Server) -> None:
    SplitCounter.create(name="all")

    race(workers.count_up, server, shared_server.url, 200, count=4)

    stored = SplitCounter.load(name="all")
    assert stored is not None and [stored.c0, stored.c1, stored.c2, stored.c3] == [200] * 4
    assert SplitCounter.query.filter(c0=200, c1=200, c2=200, c3=200).count() == 1
    indexes_agree(SplitCounter)


def test_threads_share_one_process(server: redis.Redis) -> None:
    def work(number: int) -> None:
        for i in range(40):
            record = SharedRecord(name=f"{number}-{i % 4}", rank=i, status=f"s{number}")
            record.save()
            read = SharedRecord.load(name=record.name)
            assert read is not None and (read.rank, read.status) == (i, f"s{number}")
            assert SharedRecord.query.filter(status=f"s{number}", rank=i).keys() == [record.pk.encode()]
            if i % 4 == 3:
                assert record.delete() is True

    in_threads(8, work)

    assert SharedRecord.query.count() == 8 * 3
    indexes_agree(SharedRecord)


def test_of_many_threads_that_create_one_unique_value_exactly_one_wins(server: redis.Redis) -> None:
    won: list[str] = []

    def work(number: int) -> None:
        for i in range(25):
            try:
                won.append(SharedTicket.create(seat=f"round{i}").seat)
            except ModelException as refused:
                assert "already exists" in str(refused)

    in_threads(8, work)

    assert sorted(won) == sorted(f"round{i}" for i in range(25))
    indexes_agree(SharedTicket)


def test_auto_keys_of_many_threads_are_unique(server: redis.Redis) -> None:
    def work(number: int) -> None:
        for i in range(100):
            FaultTicket.create(seat=f"{number}/{i}")

    in_threads(8, work)

    assert FaultTicket.query.count() == 800
    assert len({ticket.number for ticket in FaultTicket.query.all()}) == 800


def test_tokens_of_many_threads_are_unique(server: redis.Redis) -> None:
    """A token that two calls shared would answer the one with the other's reply."""

    def work(number: int) -> None:
        for i in range(100):
            assert SharedRecord(name=f"{number}-{i}").save() == 6

    in_threads(8, work)

    assert SharedRecord.query.count() == 800
    assert len(server.keys("$Token:*")) == 800


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_a_fork_both_sides_write_what_is_theirs(server: redis.Redis) -> None:
    """Neither a connection nor the count of the tokens is shared."""
    SharedRecord(name="before").save()
    child = os.fork()
    mine = "child" if child == 0 else "parent"
    try:
        for i in range(100):
            record = SharedRecord(name=f"{mine}{i}", rank=i, status=mine)
            assert record.save() == 6
            assert SharedRecord.load(name=record.name) == record
    finally:
        if child == 0:
            os._exit(1 if sys.exc_info()[0] else 0)

    assert os.waitpid(child, 0)[1] == 0
    assert [SharedRecord.query.count(status=side) for side in ("child", "parent")] == [100, 100]
    assert len(server.keys("$Token:*")) == 201
    indexes_agree(SharedRecord)


# -- a record that expired, and its key used again -------------------------------------------------------------------


def expire_now(client: redis.Redis, record: Any) -> None:
    """Save the record for a moment, and return when it is over."""
    record._ttl = 0.002
    record.save()
    while client.exists(record.pk):
        pass


@pytest.mark.parametrize("partial", [False, True])
def test_a_record_that_moves_onto_an_expired_ones_key_leaves_no_trace_of_it(server: redis.Redis, partial: bool) -> None:
    mover = SharedRecord.create(name="from", status="young", rank=2)
    expire_now(server, SharedRecord(name="goal", status="old", handle="@old", rank=1))
    mover.name = "goal"

    mover.save(migrate_key=True, update_fields=["note"] if partial else None)

    assert SharedRecord.query.filter(status="old").count() == 0
    assert SharedRecord.query.filter(handle="@old").count() == 0
    assert SharedRecord.query.filter(status="young").keys() == [b"SharedRecord:goal"]
    indexes_agree(SharedRecord)


def test_a_record_saved_anew_over_an_expired_one_leaves_no_trace_of_it(server: redis.Redis) -> None:
    expire_now(server, SharedRecord(name="goal", status="old", handle="@old", rank=1))

    SharedRecord.create(name="goal", status="young", rank=2)

    assert SharedRecord.query.filter(status="old").count() == 0
    indexes_agree(SharedRecord)


def test_a_record_with_a_ttl_is_forgotten_under_the_key_it_moved_to(server: redis.Redis) -> None:
    """It is the only one that expires: the list of those is empty while it moves."""
    record = SharedRecord(name="from", status="old", handle="@old")
    record._ttl = 0.05
    record.save()
    record.name = "goal"
    del record.__dict__["_ttl"]
    record.save(migrate_key=True)
    assert server.pttl("SharedRecord:goal") > 0

    while server.exists("SharedRecord:goal"):
        pass
    assert SharedRecord.query.count() == 0
    SharedRecord.create(name="other", status="young")

    assert SharedRecord.query.filter(status="old").count() == 0
    indexes_agree(SharedRecord)


def test_an_expired_owner_frees_its_unique_value(server: redis.Redis) -> None:
    expire_now(server, SharedRecord(name="old", handle="@a"))

    SharedRecord.create(name="young", handle="@a")

    assert SharedRecord.query.filter(handle="@a").keys() == [b"SharedRecord:young"]
    SharedRecord.create(name="other")  # reaps; the value stays with its new owner
    assert SharedRecord.query.filter(handle="@a").keys() == [b"SharedRecord:young"]
    with pytest.raises(ModelException):
        SharedRecord.create(name="third", handle="@a")
    indexes_agree(SharedRecord)


@pytest.mark.parametrize("reaped", [False, True])
def test_a_record_made_anew_learns_nothing_from_an_expired_one(server: redis.Redis, reaped: bool) -> None:
    """Whether somebody has tidied up between the two must make no difference."""
    old = FaultMemory.create(name="a", topic="x")
    old.touch("relevance")
    ConfidenceField.update_confidence(old, "certainty", 0.9)
    expire_now(server, old)
    if reaped:
        FaultMemory.create(name="other")

    young = FaultMemory.create(name="a", topic="x")

    data = ConfidenceField.get_confidence_data(young, "certainty")
    assert (data["evidence_count"], data["confidence"]) == (0, FaultMemory(name="b").certainty)
    assert FaultMemory.load(name="a").certainty == FaultMemory(name="b").certainty  # type: ignore[union-attr]


def test_a_part_of_a_record_that_was_deleted_meanwhile_is_not_moved(server: redis.Redis) -> None:
    mine = SharedRecord.create(name="a", status="open", rank=1)
    SharedRecord.load(name="a").delete()  # type: ignore[union-attr]
    mine.name = "b"

    with pytest.raises(ModelException):
        mine.save(migrate_key=True, update_fields=["status"])

    assert SharedRecord.query.count() == 0
    assert server.exists("SharedRecord:b") == 0
