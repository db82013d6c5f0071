"""Publisher and Subscriber against a real server: one poll, loops, a server that goes away and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgpack
import pytest
import redis

from popoto import Publisher, PublisherException, Subscriber, SubscriberException, get_redis, redis_db
from tests.conftest import Server


class News(Publisher):
    pass


class Reader(Subscriber):
    sub_channel_names = ["News", "Sports"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.order: list[str] = []
        super().__init__(*args, **kwargs)

    def pre_handle(self, channel, data, *args, **kwargs):
        self.order.append("pre_handle")

    def handle(self, channel, data, *args, **kwargs):
        self.order.append("handle")
        self.seen.append((channel, data))
        if data == "boom":
            raise KeyError("boom")


def until(condition: Callable[[], Any], between: Callable[[], Any] = lambda: time.sleep(0.005)) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        between()


def heard(subscriber: Reader, count: int) -> list[tuple[str, Any]]:
    until(lambda: len(subscriber.seen) >= count, between=subscriber)
    return subscriber.seen


@pytest.fixture
def reader(server: redis.Redis) -> Iterator[Reader]:
    with Reader() as reader:
        until(lambda: dict(server.pubsub_numsub("News", "Sports")) == {b"News": 1, b"Sports": 1})
        yield reader


class Running:
    """A subscriber's run() on a thread, with what it raised."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(subscriber,), daemon=True)
        self.thread.start()

    def _run(self, subscriber: Subscriber) -> None:
        try:
            subscriber.run(self.stop)
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


# -- publisher ---------------------------------------------------------------------------------------------------------


def test_the_channel_is_the_class_name_unless_another_is_given(server):
    publisher = News()
    assert publisher.channel_name == "News"
    publisher.channel_name = "Late"
    assert publisher.channel_name == "Late"
    assert News(channel_name="Other").channel_name == "Other"
    assert News("anything", extra=1).channel_name == "News"


def test_publish_returns_how_many_subscribers_got_it(server, reader):
    assert News().publish({"n": 1}) == 1
    assert News().publish({"n": 1}, channel_name="Nobody") == 0


def test_without_data_the_last_published_is_sent_again(server, reader):
    publisher = News()
    assert publisher.publish() is None
    assert publisher.publish({}) is None
    publisher.publish("first")
    publisher.publish()
    publisher.publish([])
    assert heard(reader, 3) == [("News", "first")] * 3


@pytest.mark.parametrize("value", [0, False, 0.0])
def test_zero_and_false_are_values(server, reader, value):
    publisher = News()
    publisher.publish("before")
    publisher.publish(value)
    assert heard(reader, 2)[1] == ("News", value)


def test_a_refused_value_is_not_what_is_sent_again(server, reader):
    publisher = News()
    publisher.publish("good")
    with pytest.raises(PublisherException, match="object") as caught:
        publisher.publish({"bad": object()})
    assert caught.value.__cause__ is not None
    publisher.publish()
    assert heard(reader, 2) == [("News", "good")] * 2


@pytest.mark.parametrize("channel", [None, "", 7])
def test_publishing_to_no_channel_is_an_error(server, channel):
    publisher = News()
    publisher.channel_name = channel
    with pytest.raises(PublisherException, match="channel_name"):
        publisher.publish("x")


def test_a_pipeline_keeps_messages_until_it_is_executed_and_the_channel_of_each_call(server, reader):
    pipe = get_redis().pipeline()
    publisher = News()
    assert publisher.publish("a", pipeline=pipe) is pipe
    assert publisher.publish("b", channel_name="Sports", pipeline=pipe) is pipe
    assert pipe.execute() == [1, 1]
    assert heard(reader, 2) == [("News", "a"), ("Sports", "b")]


def test_something_that_is_no_pipeline_is_refused(server):
    with pytest.raises(TypeError, match="pipeline"):
        News().publish("a", pipeline=object())


def test_async_publish_does_the_same(server, reader):
    async def go() -> list[Any]:
        publisher = News()
        sent = [await publisher.async_publish(), await publisher.async_publish("a"), await publisher.async_publish()]
        pipe = (await redis_db.get_async_redis_db()).pipeline()
        assert await publisher.async_publish("b", channel_name="Sports", pipeline=pipe) is pipe
        return [*sent, await pipe.execute()]

    assert asyncio.run(go()) == [None, 1, 1, [1]]
    assert heard(reader, 3) == [("News", "a"), ("News", "a"), ("Sports", "b")]


def test_values_arrive_as_what_they_were(server, reader):
    value = {
        "at": datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=timezone(timedelta(hours=2))),
        "price": Decimal("1.10"),
        "tags": {"a", "b"},
        "pair": (1, b"\xff"),
        5: [None, 2**70],
    }
    News().publish(value)
    assert heard(reader, 1) == [("News", value)]


def test_plain_data_is_plain_msgpack(server):
    plain = server.pubsub(ignore_subscribe_messages=True)
    plain.subscribe("News")
    until(lambda: server.pubsub_numsub("News")[0][1] == 1)
    News().publish({"n": [1, "two"]})
    found: list[Any] = []
    until(lambda: found, between=lambda: found.extend(filter(None, [plain.get_message(timeout=0.1)])))
    plain.close()
    assert msgpack.unpackb(found[0]["data"]) == {"n": [1, "two"]}


# -- one poll ----------------------------------------------------------------------------------------------------------


def test_a_poll_handles_one_message_and_returns_none(server, reader):
    for _ in reader.sub_channel_names:
        assert reader._poll(1.0)  # a confirmation
    News().publish("a")
    News().publish("b")
    until(lambda: reader.seen, between=lambda: reader())
    assert reader.seen == [("News", "a")]
    assert reader() is None
    assert heard(reader, 2) == [("News", "a"), ("News", "b")]
    assert reader.order == ["pre_handle", "handle"] * 2


@pytest.mark.parametrize("hook", ["pre_handle", "handle"])
@pytest.mark.parametrize("error", [ValueError("wrong"), KeyError("missing")])
def test_an_error_of_a_handler_is_the_cause_of_a_subscriber_exception(server, reader, hook, error):
    def failing(channel, data, *args, **kwargs):
        raise error

    failing.__name__ = hook
    setattr(reader, hook, failing)
    News().publish("a")
    with pytest.raises(SubscriberException, match=f"{hook} failed.*{error.args[0]}") as caught:
        heard(reader, 99)
    assert caught.value.__cause__ is error


def test_a_malformed_payload_is_logged_and_skipped(server, reader, caplog):
    server.publish("News", b"\xc1 not msgpack")
    News().publish("good")
    with caplog.at_level(logging.WARNING):
        assert heard(reader, 1) == [("News", "good")]
    assert "skipped" in caplog.text


def test_a_subscriber_without_a_handler_warns(server, caplog):
    class Idle(Subscriber):
        sub_channel_names = ["News"]

    with Idle() as idle, caplog.at_level(logging.WARNING):
        until(lambda: News().publish("x"))
        until(lambda: "no handle()" in caplog.text, between=idle)


def test_a_coroutine_handler_is_refused_outside_async_run(server):
    class Later(Subscriber):
        sub_channel_names = ["News"]

        async def handle(self, channel, data, *args, **kwargs):
            raise AssertionError("never awaited")

    with Later() as later, pytest.raises(SubscriberException, match="async_run"):
        until(lambda: News().publish("x"))
        until(lambda: False, between=later)


@pytest.mark.parametrize("names", ["News", [7], [""]])
def test_names_that_are_no_list_of_names_are_refused(server, names):
    class Wrong(Subscriber):
        sub_channel_names = names

    with pytest.raises(SubscriberException, match="sub_channel_names"):
        Wrong()


def test_a_subscriber_of_nothing_hears_nothing(server):
    class Deaf(Subscriber):
        pass

    with Deaf() as deaf:
        assert deaf() is None


def test_close_unsubscribes_and_may_be_repeated(server, reader):
    reader.close()
    reader.close()
    until(lambda: dict(server.pubsub_numsub("News")) == {b"News": 0})
    for use in (reader, reader.run):
        with pytest.raises(SubscriberException, match="closed"):
            use()


# -- loops -------------------------------------------------------------------------------------------------------------


def test_run_handles_messages_until_it_is_stopped_and_may_run_again(server, reader):
    for word in ("a", "b"):
        running = Running(reader)
        News().publish(word)
        until(lambda word=word: ("News", word) in reader.seen)
        running.end()
        assert running.error is None
    assert reader.seen == [("News", "a"), ("News", "b")]


def test_run_ends_when_it_is_closed_from_another_thread(server, reader):
    running = Running(reader)
    News().publish("a")
    until(lambda: reader.seen)
    reader.close()
    running.thread.join(10)
    assert not running.thread.is_alive() and running.error is None
    until(lambda: dict(server.pubsub_numsub("News")) == {b"News": 0})


def test_an_error_of_a_handler_leaves_run_which_then_goes_on_with_the_next_message(server, reader):
    running = Running(reader)
    News().publish("boom")
    News().publish("after")
    running.thread.join(10)
    assert isinstance(running.error, SubscriberException) and isinstance(running.error.__cause__, KeyError)
    again = Running(reader)
    until(lambda: ("News", "after") in reader.seen)
    again.end()


def test_two_loops_on_one_subscriber_are_refused(server, reader):
    running = Running(reader)
    until(lambda: reader._running)
    with pytest.raises(SubscriberException, match="running already"):
        reader.run()
    running.end()


def kill_connections(server: redis.Redis) -> None:
    server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


def test_run_subscribes_again_after_its_connection_was_dropped(server, reader, caplog):
    running = Running(reader)
    News().publish("before")
    until(lambda: reader.seen)
    kill_connections(server)
    until(lambda: News().publish("after"))
    until(lambda: ("News", "after") in reader.seen)
    running.end()
    assert running.error is None


def test_a_poll_raises_a_dropped_connection_and_the_next_one_subscribes_again(server, reader):
    for _ in reader.sub_channel_names:
        assert reader._poll(1.0)  # a confirmation
    kill_connections(server)
    with pytest.raises(redis.ConnectionError):
        until(lambda: False, between=reader)
    reader()
    until(lambda: News().publish("after"))
    assert heard(reader, 1) == [("News", "after")]


@pytest.fixture
def own_server(server: redis.Redis, shared_server: Server) -> Iterator[Server]:
    """A server of the test's own, which popoto uses, and which it may stop."""
    own = Server()
    own.start()
    redis_db.configure_url(own.url)
    yield own
    redis_db.configure_url(shared_server.url)
    own.remove()


def published_somehow(value: Any) -> bool:
    return bool(redis_db.check_connection() and News().publish(value))


def test_run_outlives_a_restart_of_the_server(own_server, caplog):
    with Reader() as reader:
        running = Running(reader)
        until(lambda: News().publish("before"))
        until(lambda: reader.seen)
        own_server.stop()
        until(lambda: "lost its connection" in caplog.text)
        own_server.start()
        until(lambda: published_somehow("after"))
        until(lambda: ("News", "after") in reader.seen)
        running.end()
        assert running.error is None


# -- async_run ---------------------------------------------------------------------------------------------------------


class AsyncReader(Reader):
    async def handle(self, channel, data, *args, **kwargs):
        await asyncio.sleep(0)
        super().handle(channel, data)


async def auntil(condition: Callable[[], Any]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), 10)


@pytest.mark.parametrize("kind", [Reader, AsyncReader])
def test_async_run_hears_what_came_before_and_after_and_subscribes_again(server, kind):
    async def go() -> list[tuple[str, Any]]:
        with kind() as reader:
            until(lambda: News().publish("early"))
            stop = asyncio.Event()
            task = asyncio.create_task(reader.async_run(stop))
            await auntil(lambda: reader.seen and reader.pubsub is None)
            await auntil(lambda: News().publish("middle"))
            await auntil(lambda: ("News", "middle") in reader.seen)
            kill_connections(server)
            # more than once: the server may still count the connection that it is about to close
            await auntil(lambda: News().publish("late") and ("News", "late") in reader.seen)
            stop.set()
            await task
            return list(dict.fromkeys(reader.seen))

    assert asyncio.run(go()) == [("News", "early"), ("News", "middle"), ("News", "late")]
    until(lambda: dict(server.pubsub_numsub("News")) == {b"News": 0})


def test_async_run_raises_what_a_coroutine_handler_raised(server):
    async def go() -> None:
        with AsyncReader() as reader:
            until(lambda: News().publish("boom"))
            await asyncio.wait_for(reader.async_run(), 10)

    with pytest.raises(SubscriberException, match="boom") as caught:
        asyncio.run(go())
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_cancelled_async_run_lets_its_connection_go_and_a_poll_makes_a_new_one(server):
    async def go() -> None:
        with AsyncReader() as reader:
            task = asyncio.create_task(reader.async_run())
            await auntil(lambda: reader.pubsub is None and News().publish("x"))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            await auntil(lambda: dict(server.pubsub_numsub("News")) == {b"News": 0})
            reader()
            await auntil(lambda: dict(server.pubsub_numsub("News")) == {b"News": 1})

    asyncio.run(go())


def test_a_handler_that_swallows_a_cancellation_does_not_keep_async_run_going(server):
    """As `asyncio.wait_for` does up to Python 3.11 when the cancellation comes as it ends."""

    class Deaf(Subscriber):
        sub_channel_names = ["News"]
        busy = False

        async def handle(self, channel, data, *args, **kwargs):
            self.busy = True
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def go() -> None:
        with Deaf() as deaf:
            task = asyncio.create_task(deaf.async_run())
            await auntil(lambda: deaf.busy or (News().publish("x") and deaf.busy))
            task.cancel()
            await asyncio.wait({task}, timeout=10)
            assert task.cancelled()
            deaf()  # it runs no more, so a poll may

    asyncio.run(go())


def test_an_async_run_that_is_cancelled_before_it_began_can_be_started_again(server):
    async def go() -> None:
        with AsyncReader() as reader:
            task = asyncio.create_task(reader.async_run())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            stop = asyncio.Event()
            stop.set()
            await reader.async_run(stop)

    asyncio.run(go())
