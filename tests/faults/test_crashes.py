"""Writers killed with kill -9, and a server killed with kill -9: what is stored stays right."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from popoto import redis_db
from popoto.exceptions import UnknownOutcomeError
from tests.conftest import Server
from tests.faults import workers
from tests.faults.agreement import (
    confidences_agree,
    connected,
    decays_agree,
    keywords_agree,
    wait_until_the_dead_are_heard,
)
from tests.faults.models import FaultItem, SharedMemory, SharedRecord, SharedTicket
from tests.faults.proxy import cutting_proxy
from tests.orm.oracle import indexes_agree, stored_records

SEED = int(os.environ.get("POPOTO_TEST_SEED", "20260"))
WRITERS = 8
SECONDS = 8.0
WRITES_A_WRITER = 150


def all_unique_values_have_one_owner(client: redis.Redis, model: Any, field: str) -> None:
    """Check it twice: by what the records say, and by what the server answers."""
    owners: dict[Any, list[bytes]] = {}
    for key, values in stored_records(model).items():
        if values[field] is not None:
            owners.setdefault(values[field], []).append(key)
    assert {value: keys for value, keys in owners.items() if len(keys) > 1} == {}
    for value, (key,) in owners.items():
        assert model.query.filter(**{field: value}).keys() == [key]


def wait_until_nothing_is_due(client: redis.Redis, model: Any) -> None:
    """Let what has a TTL expire, and have a write remove its traces."""
    deadline = time.monotonic() + 10
    while any(client.pttl(key) >= 0 for key in stored_records(model)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    model(name="last").save()


def test_writers_killed_at_random_moments_leave_every_index_right(server: redis.Redis, shared_server: Server) -> None:
    rng = random.Random(SEED)
    print("seed", SEED)  # shown when the test fails
    seeds = iter(range(SEED, SEED + 100_000))
    before = connected(server)
    running = [workers.start(workers.random_work, shared_server.url, next(seeds)) for _ in range(WRITERS)]
    killed = 0
    try:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            time.sleep(rng.expovariate(1 / 0.03))
            victim = rng.randrange(WRITERS)
            running[victim].kill()
            running[victim].join()
            running[victim] = workers.start(workers.random_work, shared_server.url, next(seeds))
            killed += 1
    finally:
        for process in running:
            process.kill()
            process.join()

    wait_until_the_dead_are_heard(server, before)
    assert server.lrange(workers.ERRORS, 0, -1) == []
    done = {name.decode(): int(count) for name, count in server.hgetall(workers.DONE).items()}
    print("killed", killed, "done", done)
    assert killed > 20
    assert set(done) == {work.__name__ for work in workers.KINDS}
    wait_until_nothing_is_due(server, SharedRecord)
    wait_until_nothing_is_due(server, SharedMemory)
    indexes_agree(SharedRecord)
    indexes_agree(SharedTicket)
    all_unique_values_have_one_owner(server, SharedRecord, "handle")
    all_unique_values_have_one_owner(server, SharedTicket, "seat")
    keywords_agree(server, SharedMemory, "words")
    confidences_agree(server, SharedMemory, "certainty")
    decays_agree(server, SharedMemory, "relevance")
    for model in (SharedRecord, SharedMemory):
        no_record_is_half_there(server, model)
    for model in (SharedRecord, SharedMemory, SharedTicket):
        for record in model.query.all():
            assert record.delete() is True
    left = {key for key in server.scan_iter() if not key.startswith((b"$Token:", b"faults:"))}
    assert left == set()


def no_record_is_half_there(client: redis.Redis, model: Any) -> None:
    """Every hash holds every field: no update or migration has made up a record out of a part of one."""
    expected = {name.encode() for name in model._meta.fields}
    for key in stored_records(model):
        assert set(client.hkeys(key)) == expected, key


# -- the server dies -------------------------------------------------------------------------------------------------


@pytest.fixture
def durable_server() -> Iterator[Server]:
    """A server of its own that writes each command to disk before it answers."""
    server = Server("--appendonly", "yes", "--appendfsync", "always")
    server.start()
    redis_db.configure_url(server.url)
    yield server
    redis_db.close()
    server.remove()


def test_a_server_killed_under_load_loses_no_acknowledged_save(durable_server: Server) -> None:
    acknowledged: Counter[int] = Counter()
    unknown: Counter[int] = Counter()
    errors: list[BaseException] = []

    def write(writer: int) -> None:
        """Count up in records of one's own; a record is saved anew, updated or re-created."""
        try:
            for i in range(1, WRITES_A_WRITER + 1):
                try:
                    FaultItem(name=f"{writer}-{i % 3}", status=f"s{i % 5}", rank=i).save()
                except (redis.ConnectionError, redis.TimeoutError, UnknownOutcomeError):
                    unknown[writer] += 1
                else:
                    acknowledged[writer] = i
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(6)]
    for thread in threads:
        thread.start()
    restarts = 0
    while any(thread.is_alive() for thread in threads) and restarts < 4:
        goal = sum(acknowledged.values()) + 100
        while sum(acknowledged.values()) < goal and any(thread.is_alive() for thread in threads):
            time.sleep(0.001)
        durable_server.stop()  # kill -9
        durable_server.start()
        restarts += 1
    for thread in threads:
        thread.join(60)

    assert errors == []
    assert restarts >= 2
    indexes_agree(FaultItem)
    for writer, last in acknowledged.items():
        stored = [item.rank for i in range(3) if (item := FaultItem.load(name=f"{writer}-{i}"))]
        assert last in stored, f"writer {writer}: {last} was acknowledged, the records have {stored}"
    assert sum(unknown.values()) == 0, "each kill was shorter than the repeats: every save got through"


def test_a_save_under_way_while_the_server_is_killed_happens_once(durable_server: Server) -> None:
    """The token is in the append-only file too: the repeat after the restart is answered from it."""
    with cutting_proxy(durable_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        FaultItem.create(name="warm")

        def restart() -> None:
            durable_server.stop()
            durable_server.start()

        proxy.cut_replies(then=restart)
        assert FaultItem(name="a", status="open").save() == 4

    redis_db.configure_url(durable_server.url)
    client = redis_db.get_REDIS_DB()
    assert client.get("saves") == b"2"
    indexes_agree(FaultItem)
