"""Bulk calls under fire: killed with kill -9, answers cut off, a full server. Whole batches or none."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from popoto.exceptions import ModelException
from tests.conftest import Server
from tests.faults import workers
from tests.faults.agreement import connected, wait_until_the_dead_are_heard
from tests.faults.conftest import Way, number
from tests.faults.models import FaultItem, FaultTicket, SplitCounter
from tests.faults.proxy import Proxy
from tests.orm.oracle import dump, indexes_agree, stored_records

BATCH = 40


def import_for_ever(start: int) -> None:
    """Create, update and delete batch by batch until killed."""

    def source(number: int) -> Any:
        for place in range(5 * BATCH):
            yield FaultItem(name=f"{start}-{number}-{place:03}", status=f"s{number}", rank=place // BATCH)

    number = 0
    while True:
        FaultItem.bulk_create(source(number), batch_size=BATCH)
        FaultItem.bulk_update(FaultItem.query.filter(status=f"s{number}"), batch_size=BATCH, note=f"seen {number}")
        if number % 3 == 2:
            FaultItem.bulk_delete(FaultItem.query.filter(status=f"s{number}"), batch_size=BATCH)
        number += 1


def test_importers_killed_at_random_moments_leave_whole_batches(server: redis.Redis, shared_server: Server) -> None:
    partial = set()
    before = connected(server)
    for turn in range(12):
        process = workers.start(import_for_ever, shared_server.url, turn)
        until = time.monotonic() + 5
        while not server.scard("$Class:FaultItem") and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(0.03 * (turn % 4) + 0.003 * turn)
        process.kill()
        process.join()
        wait_until_the_dead_are_heard(server, before)
        assert server.lrange(workers.ERRORS, 0, -1) == []
        batches: dict[tuple[str, int], int] = {}
        for values in stored_records(FaultItem).values():
            place = values["name"].rpartition("-")[0], values["rank"]
            batches[place] = batches.get(place, 0) + 1
        assert set(batches.values()) == {BATCH}
        partial.add(len(batches) % 5)
        indexes_agree(FaultItem)
        FaultItem.delete_all()
    assert partial - {0}, "no importer was killed in the middle of an import"


@pytest.fixture(params=["after the server answered", "before the server got it"])
def cut(request: pytest.FixtureRequest, proxy: Proxy) -> Callable[..., None]:
    return proxy.cut_replies if request.param.startswith("after") else proxy.cut_commands


def test_a_batch_whose_answer_is_cut_is_done_once(
    way: Way, proxy: Proxy, cut: Callable[..., None], server: redis.Redis
) -> None:
    items = [FaultItem(name=f"n{i}") for i in range(10)]
    cut()
    assert len(way(FaultItem.bulk_create, items)) == 10
    assert (proxy.cuts, number(server, "saves")) == (1, 10)
    cut()
    assert way(FaultItem.bulk_update, items, note="x") == 10
    assert (proxy.cuts, number(server, "saves")) == (2, 20)
    cut()
    assert way(FaultItem.bulk_delete, items) == 10
    assert (proxy.cuts, number(server, "deletes")) == (3, 10)
    assert not stored_records(FaultItem)
    FaultTicket.bulk_create([FaultTicket(seat=str(i)) for i in range(10)])
    cut()
    assert way(FaultItem.delete_all) == 0 and FaultTicket.query.count() == 10


def test_a_repeated_delete_all_does_not_delete_what_came_after_it(way: Way, proxy: Proxy, server: redis.Redis) -> None:
    SplitCounter.bulk_create([SplitCounter(name=f"n{i}") for i in range(5)])
    proxy.cut_replies(then=lambda: SplitCounter.create(name="later"))

    assert way(SplitCounter.delete_all) in (5, 6)

    assert proxy.cuts == 1
    indexes_agree(SplitCounter)


def test_a_batch_that_a_hook_spoils_tells_so_on_a_repeat_too(way: Way, proxy: Proxy, server: redis.Redis) -> None:
    proxy.cut_replies()

    with pytest.raises(ModelException, match="is saved, but the command LPUSH"):
        way(FaultItem.bulk_create, [FaultItem(name="a"), FaultItem(name="b", note="break")])

    assert (proxy.cuts, number(server, "saves")) == (1, 2)
    indexes_agree(FaultItem)


def test_a_full_server_refuses_a_batch_whole_and_lets_deletes_through(server: redis.Redis) -> None:
    items = FaultItem.bulk_create([FaultItem(name=f"n{i}") for i in range(20)])
    before = dump(server)
    server.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            FaultItem.bulk_update(items, status="full")
        assert dump(server) == before
        assert FaultItem.bulk_delete(items[:5]) == 5
        assert SplitCounter.delete_all() == 0
    finally:
        server.config_set("maxmemory", 0)
    indexes_agree(FaultItem)
