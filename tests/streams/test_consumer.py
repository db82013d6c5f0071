"""StreamConsumer against a real server: groups, retries, dead letters, consumers that die, servers that go away."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from popoto import redis_db
from popoto.streams import StreamConsumer
from tests.conftest import Server

STREAM = "stream:things"
DEAD = "dead:stream:things"


def until(condition: Callable[[], Any], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class Seen:
    """A handler that keeps what it was given, and fails on demand."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[str, dict[str, str]]]] = []
        self.bad: set[str] = set()

    def __call__(self, entries: list[tuple[str, dict[str, str]]]) -> None:
        self.batches.append(entries)
        for _, fields in entries:
            if fields["n"] in self.bad:
                raise ValueError(f"cannot do {fields['n']}")

    @property
    def numbers(self) -> list[str]:
        return [fields["n"] for batch in self.batches for _, fields in batch]


def add(client: redis.Redis, *numbers: Any) -> list[str]:
    return [client.xadd(STREAM, {"n": number}).decode() for number in numbers]


def consumer(handler: Any, name: str = "one", **options: Any) -> StreamConsumer:
    return StreamConsumer(STREAM, "group", name, handler, **{"block_ms": 0, **options})


def pending(client: redis.Redis) -> int:
    return client.xpending(STREAM, "group")["pending"]  # type: ignore[no-any-return]


@pytest.fixture(params=["sync", "async"])
def process(request: pytest.FixtureRequest) -> Callable[[StreamConsumer], int]:
    if request.param == "sync":
        return lambda one: one.process_batch_sync()
    return lambda one: asyncio.run(one.process_batch())


@pytest.fixture(params=["function", "coroutine"])
def wrapped(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    if request.param == "function":
        return lambda handler: handler

    def as_coroutine(handler: Any) -> Any:
        async def call(entries: Any) -> None:
            await asyncio.sleep(0)
            handler(entries)

        return call

    return as_coroutine


def test_entries_go_to_the_handler_in_order_as_text_and_are_acknowledged(server, process, wrapped):
    seen = Seen()
    ids = add(server, 1, 2, "drei ü")

    assert process(consumer(wrapped(seen))) == 3

    assert seen.batches == [list(zip(ids, [{"n": "1"}, {"n": "2"}, {"n": "drei ü"}], strict=True))]
    assert pending(server) == 0
    assert process(consumer(wrapped(seen))) == 0
    assert len(seen.batches) == 1


def test_a_batch_holds_at_most_batch_size_entries(server, process):
    seen = Seen()
    add(server, *range(7))
    one = consumer(seen, batch_size=3)

    assert [process(one) for _ in range(4)] == [3, 3, 1, 0]
    assert [len(batch) for batch in seen.batches] == [3, 3, 1]


def test_a_missing_stream_and_group_are_made(server, process):
    assert process(consumer(Seen())) == 0
    assert [group["name"] for group in server.xinfo_groups(STREAM)] == [b"group"]


def test_the_group_is_made_again_when_the_stream_was_deleted(server, process):
    seen = Seen()
    one = consumer(seen)
    add(server, 1)
    assert process(one) == 1
    server.delete(STREAM)
    add(server, 2)
    assert process(one) == 1
    assert seen.numbers == ["1", "2"]


def test_a_stream_deleted_during_the_wait_ends_the_wait_without_an_error(server, process):
    one = consumer(Seen(), block_ms=1000)
    threading.Timer(0.1, lambda: server.delete(STREAM)).start()
    assert process(one) == 0


def test_groups_see_every_entry_and_consumers_of_one_share_them(server):
    first, second, other = Seen(), Seen(), Seen()
    add(server, *range(4))
    assert consumer(first, "a", batch_size=3).process_batch_sync() == 3
    assert consumer(second, "b").process_batch_sync() == 1
    assert StreamConsumer(STREAM, "elsewhere", "a", other, block_ms=0).process_batch_sync() == 4
    assert sorted(first.numbers + second.numbers) == sorted(other.numbers) == ["0", "1", "2", "3"]


def test_a_batch_takes_two_round_trips(server, round_trips):
    one = consumer(Seen())
    one.process_batch_sync()
    add(server, 1, 2, 3)
    with round_trips() as trips:
        assert one.process_batch_sync() == 3
    assert trips.count == 2


# -- errors of the handler ---------------------------------------------------------------------------------------------


def test_an_error_of_the_handler_is_raised_and_the_entries_stay_pending(server, process, wrapped):
    seen = Seen()
    seen.bad = {"2"}
    add(server, 1, 2)
    with pytest.raises(ValueError, match="cannot do 2"):
        process(consumer(wrapped(seen)))
    assert pending(server) == 2


def test_what_failed_is_handed_out_again_entry_by_entry_when_its_time_has_come(server, process):
    seen = Seen()
    seen.bad = {"2"}
    add(server, 1, 2, 3)
    with pytest.raises(ValueError):
        process(consumer(seen, claim_timeout_ms=60_000))
    assert process(consumer(seen, "two", claim_timeout_ms=60_000)) == 0

    seen.batches.clear()
    with pytest.raises(ValueError, match="cannot do 2"):
        process(consumer(seen, "two", claim_timeout_ms=0))

    assert [[fields["n"] for _, fields in batch] for batch in seen.batches] == [["1"], ["2"], ["3"]]
    assert pending(server) == 1
    seen.bad = set()
    assert process(consumer(seen, "two", claim_timeout_ms=0)) == 1
    assert pending(server) == 0
    assert not server.exists(f"{DEAD}::errors:group")


def test_an_entry_is_handed_out_max_retries_times_again_and_is_then_a_dead_letter(server, process):
    seen = Seen()
    seen.bad = {"7"}
    (entry_id,) = add(server, 7)
    failures = 0
    for _ in range(3):
        with pytest.raises(ValueError):
            process(consumer(seen, max_retries=2, claim_timeout_ms=0))
        failures += 1
    assert process(consumer(Seen(), "two", max_retries=2, claim_timeout_ms=0)) == 0

    assert len(seen.batches) == failures == 3
    assert pending(server) == 0
    ((_, letter),) = server.xrange(DEAD)
    at = float(letter.pop(b"dead_letter_ts"))
    assert abs(at - time.time()) < 60
    assert letter == {
        b"n": b"7",
        b"original_stream": STREAM.encode(),
        b"original_id": entry_id.encode(),
        b"failure_count": b"3",
        b"last_error": b"ValueError: cannot do 7",
    }
    assert not server.exists(f"{DEAD}::errors:group")


def test_without_retries_a_failed_entry_is_a_dead_letter_at_once(server):
    seen = Seen()
    seen.bad = {"1"}
    add(server, 1, 2)
    with pytest.raises(ValueError):
        consumer(seen, max_retries=0).process_batch_sync()
    assert consumer(seen, max_retries=0, claim_timeout_ms=0).process_batch_sync() == 0
    assert server.xlen(DEAD) == 2


def test_an_entry_whose_consumers_only_vanished_says_so_in_its_dead_letter(server):
    add(server, 1)
    server.xgroup_create(STREAM, "group", "0")
    server.xreadgroup("group", "gone", {STREAM: ">"})
    assert consumer(Seen(), max_retries=0, claim_timeout_ms=0).process_batch_sync() == 0
    assert b"no consumer acknowledged it" in server.xrange(DEAD)[0][1][b"last_error"]


def test_dead_letters_are_trimmed(server):
    add(server, *range(300))
    server.xgroup_create(STREAM, "group", "0")
    server.xreadgroup("group", "gone", {STREAM: ">"})
    one = consumer(Seen(), max_retries=0, claim_timeout_ms=0, batch_size=100, dead_letter_max_length=10)
    for _ in range(4):
        one.process_batch_sync()
    assert pending(server) == 0
    assert 10 <= server.xlen(DEAD) < 200  # trimmed in whole nodes


def test_entries_behind_many_that_are_not_due_are_found_as_well(server):
    add(server, *range(400))
    server.xgroup_create(STREAM, "group", "0")
    server.xreadgroup("group", "slow", {STREAM: ">"}, count=400)
    last = server.xrevrange(STREAM, count=1)[0][0]
    server.xclaim(STREAM, "group", "slow", 0, [last], idle=3_600_000, retrycount=1, justid=True)
    seen = Seen()
    one = consumer(seen, batch_size=5, claim_timeout_ms=60_000)
    for _ in range(20):
        one.process_batch_sync()
    assert seen.numbers == ["399"]


def test_entries_trimmed_off_the_stream_do_not_stay_pending(server):
    ids = add(server, 1, 2)
    seen = Seen()
    seen.bad = {"1"}
    with pytest.raises(ValueError):
        consumer(seen).process_batch_sync()
    server.xdel(STREAM, ids[0])
    assert consumer(seen, claim_timeout_ms=0).process_batch_sync() == 1
    assert pending(server) == 0
    assert not server.exists(f"{DEAD}::errors:group")


# -- loops -------------------------------------------------------------------------------------------------------------


class Running:
    """A consumer's loop on a thread."""

    def __init__(self, one: StreamConsumer, way: str = "sync") -> None:
        self.one = one
        self.errors: list[BaseException] = []
        self.thread = threading.Thread(target=self._run, args=(way,), daemon=True)
        self.thread.start()

    def _run(self, way: str) -> None:
        try:
            self.one.run_sync() if way == "sync" else asyncio.run(self.one.run())
        except BaseException as error:
            self.errors.append(error)

    def end(self) -> None:
        self.one.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
        assert self.errors == []


@pytest.fixture(params=["sync", "async"])
def running(request: pytest.FixtureRequest) -> Iterator[Callable[[StreamConsumer], Running]]:
    started: list[Running] = []

    def start(one: StreamConsumer) -> Running:
        started.append(Running(one, request.param))
        return started[-1]

    yield start
    for run in started:
        run.one.stop()
        run.thread.join(10)


def test_a_loop_handles_what_comes_until_it_is_stopped(server, running, wrapped):
    seen = Seen()
    run = running(consumer(wrapped(seen), block_ms=60_000))
    until(lambda: server.exists(STREAM))
    add(server, 1)
    until(lambda: seen.numbers == ["1"])
    add(server, 2)
    until(lambda: seen.numbers == ["1", "2"])
    run.end()  # in the middle of a wait of a minute
    until(lambda: pending(server) == 0)


def test_a_handler_may_stop_its_own_loop_and_the_batch_is_acknowledged(server, running):
    def handler(entries: Any) -> None:
        one.stop()

    one = consumer(handler, batch_size=2)
    add(server, 1, 2, 3)
    run = running(one)
    run.thread.join(10)
    assert not run.thread.is_alive()
    assert pending(server) == 0
    assert server.xinfo_groups(STREAM)[0]["lag"] == 1


def test_a_loop_that_was_stopped_may_run_again(server):
    seen = Seen()
    one = consumer(seen)
    one.stop()
    one.run_sync()
    add(server, 1)
    run = Running(one)
    until(lambda: seen.numbers == ["1"])
    run.end()


def test_an_error_of_the_handler_is_logged_and_the_loop_goes_on(server, running, caplog):
    seen = Seen()
    seen.bad = {"1"}
    run = running(consumer(seen, block_ms=50))
    with caplog.at_level(logging.ERROR, logger="popoto.streams.consumer"):
        add(server, 1)
        until(lambda: any("cannot do 1" in record.getMessage() for record in caplog.records))
        add(server, 2)
        until(lambda: "2" in seen.numbers)
    run.end()
    assert pending(server) == 1


def test_the_task_of_a_loop_can_be_cancelled_while_it_waits(server):
    async def main() -> None:
        seen = Seen()
        task = asyncio.ensure_future(consumer(seen, block_ms=60_000).run())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        add(server, 1)
        assert await consumer(seen, "two").process_batch() == 1

    asyncio.run(main())


def test_a_read_blocks_for_less_than_the_timeout_of_the_socket(server, shared_server):
    redis_db.set_REDIS_DB_settings(unix_socket_path=shared_server.socket, socket_timeout=0.1)
    seen = Seen()
    threading.Timer(0.4, lambda: add(server, 1)).start()
    assert consumer(seen, block_ms=5000).process_batch_sync() == 1


def test_a_loop_outlives_the_server(running):
    server = Server("--appendonly", "yes", "--appendfsync", "always")
    server.start()
    try:
        redis_db.configure_url(server.url)
        seen = Seen()
        run = running(consumer(seen, block_ms=1000, claim_timeout_ms=100))
        client = redis.Redis(unix_socket_path=server.socket)
        until(lambda: client.exists(STREAM))
        add(client, 1)
        until(lambda: seen.numbers == ["1"])
        server.stop()
        server.start()
        client = redis.Redis(unix_socket_path=server.socket)
        add(client, 2)
        until(lambda: "2" in seen.numbers)
        until(lambda: pending(client) == 0)
        run.end()
    finally:
        redis_db.close()
        server.remove()


def test_a_sync_call_refuses_a_coroutine_handler_where_a_loop_runs(server):
    async def handler(entries: Any) -> None: ...

    async def main() -> None:
        add(server, 1)
        with pytest.raises(RuntimeError, match=r"await consumer\.process_batch"):
            consumer(handler).process_batch_sync()
        assert server.xlen(STREAM) == 1 and not server.xinfo_groups(STREAM)

    asyncio.run(main())


# -- processes ---------------------------------------------------------------------------------------------------------


def test_what_a_killed_consumer_had_taken_is_handled_by_another_one(server, shared_server):
    ids = add(server, *range(20))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.streams.workers", "consume", shared_server.url, STREAM, "doomed", "0.02"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(14):  # the second batch of five is half done
        process.stdout.readline()
    process.kill()
    process.wait()
    taken = server.xpending_range(STREAM, "group", "-", "+", 100, consumername="doomed")
    assert taken, "it was killed with entries in its hands"

    seen = Seen()
    survivor = consumer(seen, "survivor", block_ms=50, claim_timeout_ms=200)
    run = Running(survivor)
    until(lambda: pending(server) == 0 and server.xinfo_groups(STREAM)[0]["lag"] == 0)
    run.end()

    handled = {entry_id for batch in seen.batches for entry_id, _ in batch}
    assert {entry["message_id"].decode() for entry in taken} <= handled
    assert len(handled) < 20, "the first batch was acknowledged by the one that was killed"
    assert ids[-1] in handled
    assert server.xlen(DEAD) == 0


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"block_ms": -1}, "block_ms"),
        ({"max_retries": True}, "max_retries"),
        ({"claim_timeout_ms": 1.5}, "claim_timeout_ms"),
        ({"dead_letter_max_length": -1}, "dead_letter_max_length"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_number_is_refused_by_name(options, named):
    with pytest.raises(ValueError, match=named):
        StreamConsumer(STREAM, "group", "one", print, **options)


def test_wrong_names_and_handlers_are_refused():
    with pytest.raises(ValueError, match="stream_key"):
        StreamConsumer("", "group", "one", print)
    with pytest.raises(TypeError, match="handler"):
        StreamConsumer(STREAM, "group", "one", None)  # type: ignore[arg-type]


def test_a_key_that_is_no_stream_is_an_error_and_stays_as_it_is(server, process):
    server.set(STREAM, "text")
    with pytest.raises(redis.exceptions.ResponseError, match=r"WRONGTYPE|expected a stream"):
        process(consumer(Seen()))
    assert server.get(STREAM) == b"text"


def test_dead_letters_stay_in_the_namespace(server):
    redis_db.set_REDIS_DB_settings("staging", host="localhost", port=1)
    try:
        assert StreamConsumer("staging:stream:x", "g", "c", print).dead_letter_key == "staging:dead:stream:x"
        assert StreamConsumer("{M}:staging:stream:x", "g", "c", print).dead_letter_key == "{M}:staging:dead:stream:x"
        assert StreamConsumer("other", "g", "c", print).dead_letter_key == "dead:other"
    finally:
        redis_db.set_REDIS_DB_settings("")
