"""The sync client's pool: what is kept between two commands is never missing elsewhere."""

from __future__ import annotations

import multiprocessing
import threading
import time

import pytest
import redis

from popoto import redis_db
from popoto._pool import Pool
from popoto.orm import wire


@pytest.fixture
def pool(server):
    options = redis_db.get_REDIS_DB().connection_pool.connection_kwargs
    made = []

    def make(size: int, wait_s: float = 5.0) -> Pool:
        template = redis_db.get_REDIS_DB().connection_pool
        made.append(
            Pool(max_connections=size, connection_class=template.connection_class, **{**options, "timeout": wait_s})
        )
        return made[-1]

    yield make
    for one in made:
        one.disconnect()


def client_of(pool: Pool) -> redis.Redis:
    return redis.Redis(connection_pool=pool)


def test_commands_one_after_the_other_use_one_connection_without_the_queue(pool):
    one = pool(8)
    client = client_of(one)
    wire.call(client, "PING")
    free = one.pool.qsize()
    for _ in range(5):
        assert wire.call(client, "PING") == b"PONG"
    assert one.pool.qsize() == free == 7
    assert len(one._kept) == 1


@pytest.mark.parametrize("size", [1, 2, 8, 9])
def test_no_caller_waits_while_a_connection_is_kept(pool, size):
    one = pool(size, wait_s=2.0)
    client = client_of(one)
    for _ in range(2):
        wire.call(client, "PING")
    held = [one.get_connection() for _ in range(size)]  # all of them, the kept ones too
    one.timeout = 0.05
    with pytest.raises(redis.ConnectionError, match="No connection available"):
        one.get_connection()
    for connection in held:
        one.release(connection)
    assert wire.call(client, "PING") == b"PONG"


def test_a_waiting_caller_gets_the_connection_that_is_given_back(pool):
    one = pool(8)
    held = [one.get_connection() for _ in range(8)]
    got: list[object] = []
    waiter = threading.Thread(target=lambda: got.append(one.get_connection()))
    waiter.start()
    while not one._waiting:
        time.sleep(0.001)
    one.give(held.pop())
    waiter.join(5)
    assert len(got) == 1
    for connection in [*held, *got]:
        one.give(connection)


def test_many_threads_share_few_connections(pool):
    one = pool(8, wait_s=20.0)
    client = client_of(one)
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(100):
            text = f"{number}-{turn}".encode()
            try:
                if wire.call(client, "ECHO", text) != text or client.echo(text) != text:
                    wrong.append(text)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert one.pool.qsize() + len(one._kept) == 8


def test_a_kept_connection_that_the_server_closed_is_replaced(pool):
    one = pool(8)
    client = client_of(one)
    number = wire.call(client, "CLIENT", "ID")
    redis_db.get_REDIS_DB().client_kill_filter(_id=number)
    time.sleep(0.05)
    assert wire.call(client, "CLIENT", "ID") > number


def test_disconnect_closes_kept_connections_too(pool):
    one = pool(8)
    client = client_of(one)
    number = wire.call(client, "CLIENT", "ID")
    one.disconnect(inuse_connections=False)
    time.sleep(0.05)
    assert str(number) not in {entry["id"] for entry in redis_db.get_REDIS_DB().client_list()}
    assert wire.call(client, "PING") == b"PONG"


def _ask(client: redis.Redis, results: object) -> None:
    results.put(wire.call(client, "CLIENT", "ID"))  # type: ignore[attr-defined]


def test_a_forked_process_keeps_its_hands_off_the_parents_connection(pool):
    client = client_of(pool(8))
    before = wire.call(client, "CLIENT", "ID")
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_ask, args=(client, results))
    child.start()
    theirs = results.get(timeout=20)
    child.join()
    assert theirs != before
    assert wire.call(client, "CLIENT", "ID") == before


def test_a_pool_with_a_provider_of_credentials_keeps_none(pool):
    class Provider(redis.credentials.CredentialProvider):
        def get_credentials(self) -> tuple[str]:
            return ("",)

    assert Pool(max_connections=50, credential_provider=Provider())._may_keep == 0
    assert Pool(max_connections=50)._may_keep == 4
    assert Pool(max_connections=7)._may_keep == 0
