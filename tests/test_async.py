"""The async twins: the same answers as their sync counterparts, on the event loop itself."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from popoto import redis_db
from popoto.exceptions import KeyMutationError, ModelException, QueryException
from popoto.orm.fields.base import Field
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import AutoKeyField, KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.model import Model
from tests.conftest import Server
from tests.faults.proxy import cutting_proxy

pytestmark = pytest.mark.usefixtures("server")


class AsyncNote(Model):
    title = KeyField()
    topic = IndexedField(null=True)
    rank = SortedField(type=int, default=0)
    text = Field(default="")


class AsyncSeat(Model):
    number = AutoKeyField()
    label = UniqueField()


def in_loop(test: Callable[[], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await test()

    return asyncio.run(run())


@pytest.fixture
def notes() -> list[AsyncNote]:
    return [AsyncNote.create(title=f"n{i}", topic="even" if i % 2 == 0 else "odd", rank=i) for i in range(6)]


# -- each twin -------------------------------------------------------------------------------------------------------


def test_a_record_is_created_saved_loaded_and_deleted() -> None:
    async def live() -> None:
        note = await AsyncNote.async_create(title="a", rank=1)
        assert await AsyncNote.async_load(title="a") == note
        note.rank = 2
        assert await note.async_save() == 0
        note.text = "changed"
        assert await note.async_save(update_fields=["text"]) == 0
        loaded = await AsyncNote.query.async_get(title="a")
        assert (loaded.rank, loaded.text) == (2, "changed")
        loaded.title = "b"
        await loaded.async_save(migrate_key=True)
        assert await AsyncNote.async_load(db_key="AsyncNote:a") is None
        assert await loaded.async_delete() is True
        assert await loaded.async_delete() is False
        assert await AsyncNote.async_load(title="b") is None

    asyncio.run(live())


def test_both_ways_see_each_others_records(notes: list[AsyncNote]) -> None:
    asyncio.run(AsyncNote.async_create(title="async"))

    assert AsyncNote.load(title="async") is not None
    assert asyncio.run(AsyncNote.async_load(title="n0")) == notes[0]


@pytest.mark.parametrize(
    ("sync", "twin"),
    [
        (lambda q: q.get(title="n1"), lambda q: q.async_get(title="n1")),
        (lambda q: q.get(title="none"), lambda q: q.async_get(title="none")),
        (lambda q: q.get("AsyncNote:n2"), lambda q: q.async_get("AsyncNote:n2")),
        (lambda q: q.get_many(["AsyncNote:n3", "x:y"]), lambda q: q.async_get_many(["AsyncNote:n3", "x:y"])),
        (
            lambda q: q.get_many(["x:y", "AsyncNote:n3"], skip_none=True),
            lambda q: q.async_get_many(["x:y", "AsyncNote:n3"], skip_none=True),
        ),
        (lambda q: q.filter(topic="odd").all(), lambda q: q.async_filter(topic="odd")),
        (
            lambda q: q.filter(rank__gte=1, order_by="-rank", limit=3).all(),
            lambda q: q.async_filter(rank__gte=1, order_by="-rank", limit=3),
        ),
        (lambda q: q.filter(values=("title",)).all(), lambda q: q.async_filter(values=("title",))),
        (lambda q: q.filter(text="").order_by("text").all(), lambda q: q.filter(text="").order_by("text").async_all()),
        (lambda q: q.all(), lambda q: q.async_all()),
        (lambda q: q.all(order_by="-rank"), lambda q: q.async_all(order_by="-rank")),
        (lambda q: q.count(), lambda q: q.async_count()),
        (lambda q: q.count(rank__lt=4, topic="odd"), lambda q: q.async_count(rank__lt=4, topic="odd")),
        (lambda q: q.keys(), lambda q: q.async_keys()),
        (lambda q: q.keys(topic="even"), lambda q: q.async_keys(topic="even")),
        (lambda q: q.first(topic="odd"), lambda q: q.async_first(topic="odd")),
        (lambda q: q.first(topic="none"), lambda q: q.async_first(topic="none")),
        (lambda q: q.exists(topic="odd"), lambda q: q.async_exists(topic="odd")),
        (lambda q: q.exists(topic="none"), lambda q: q.async_exists(topic="none")),
        (lambda q: q.order_by("-rank").first(), lambda q: q.order_by("-rank").async_first()),
        (lambda q: q.filter(topic="odd").keys(), lambda q: q.filter(topic="odd").async_keys()),
        (lambda q: q.filter(topic="odd").count(), lambda q: q.filter(topic="odd").async_count()),
        (lambda q: q.filter(topic="odd").exists(), lambda q: q.filter(topic="odd").async_exists()),
    ],
)
def test_a_twin_answers_as_its_sync_counterpart(
    notes: list[AsyncNote], sync: Callable[[Any], Any], twin: Callable[[Any], Awaitable[Any]]
) -> None:
    expected = sync(AsyncNote.query)

    assert in_loop(lambda: twin(AsyncNote.query)) == expected


def test_a_builder_is_walked_with_async_for(notes: list[AsyncNote]) -> None:
    async def walk() -> list[str]:
        return [note.title async for note in AsyncNote.query.filter(topic="even").order_by("-rank")]

    assert asyncio.run(walk()) == ["n4", "n2", "n0"]


def test_a_walk_may_end_early_and_start_again(notes: list[AsyncNote]) -> None:
    async def walk() -> None:
        builder = AsyncNote.query.order_by("rank")
        for _ in range(2):
            async for note in builder:
                assert note.title == "n0"
                break

    asyncio.run(walk())


def test_a_long_answer_is_walked_slice_by_slice(round_trips: Any) -> None:
    pipeline = redis_db.get_REDIS_DB().pipeline(transaction=False)
    for i in range(4500):
        AsyncNote(title=f"{i:04}", rank=i).save(pipeline=pipeline)
    pipeline.execute()

    async def walk() -> list[str]:
        return [note.title async for note in AsyncNote.query.filter()]

    assert asyncio.run(walk()) == [f"{i:04}" for i in range(4500)]


def test_a_builder_asks_once(notes: list[AsyncNote]) -> None:
    async def ask() -> None:
        builder = AsyncNote.query.filter(topic="odd")
        first = await builder.async_all()
        await notes[1].async_delete()
        assert await builder.async_all() == first  # evaluated once, as in sync code
        assert len(await builder.filter().async_all()) == 2

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: AsyncSeat.async_create(label="taken"), ModelException),
        (lambda: AsyncNote(title="unsaved").async_save(update_fields=["rank"]), ModelException),
        (lambda: AsyncNote.async_create(title=None), ModelException),
        (lambda: AsyncNote.async_create(nothing=1), ModelException),
        (lambda: AsyncNote.query.async_filter(nothing=1), QueryException),
        (lambda: AsyncNote.query.async_get(rank__gte=0), QueryException),
        (lambda: AsyncNote(title="x").async_save(pipeline="no pipeline"), TypeError),
    ],
)
def test_a_twin_raises_what_its_sync_counterpart_does(
    notes: list[AsyncNote], call: Callable[[], Awaitable[Any]], error: type[Exception]
) -> None:
    AsyncSeat.create(label="taken")

    with pytest.raises(error):
        in_loop(call)


def test_a_changed_key_is_refused() -> None:
    async def change() -> None:
        note = await AsyncNote.async_create(title="a")
        note.title = "b"
        with pytest.raises(KeyMutationError):
            await note.async_save()

    asyncio.run(change())


def test_errors_are_logged_instead_where_that_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    AsyncSeat.create(label="taken")

    assert asyncio.run(AsyncSeat(label="taken").async_save(ignore_errors=True)) is False
    assert "already exists" in caplog.text


def test_an_async_pipeline_is_filled_and_executed() -> None:
    async def fill() -> list[Any]:
        pipeline = redis_db.get_async_client().pipeline()
        note = AsyncNote(title="a")
        assert await note.async_save(pipeline=pipeline) is pipeline
        await AsyncNote.async_create(pipeline=pipeline, title="b")
        await AsyncNote(title="none").async_delete(pipeline=pipeline)
        return await pipeline.execute()  # type: ignore[no-any-return]

    assert asyncio.run(fill()) == [4, 4, 0]
    assert AsyncNote.query.count() == 2


def test_a_sync_pipeline_may_be_filled_in_async_code() -> None:
    pipeline = redis_db.get_REDIS_DB().pipeline()

    asyncio.run(AsyncNote(title="a").async_save(pipeline=pipeline))

    assert AsyncNote.query.count() == 0
    pipeline.execute()
    assert AsyncNote.query.count() == 1


# -- one round trip, no thread ---------------------------------------------------------------------------------------


def test_no_thread_is_used(notes: list[AsyncNote], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("async code went to a thread")

    monkeypatch.setattr(asyncio, "to_thread", refuse)
    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", refuse)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    before = threading.active_count()

    async def live() -> None:
        note = await AsyncNote.async_create(title="a")
        await note.async_save(update_fields=["rank"])
        await AsyncNote.query.async_get(title="a")
        await AsyncNote.query.async_filter(topic="odd", order_by="-text")
        await AsyncNote.query.async_all()
        await AsyncNote.query.async_count()
        await AsyncNote.query.async_keys()
        await AsyncNote.query.async_get_many(["AsyncNote:a", "AsyncNote:n1"])
        await AsyncNote.query.async_first()
        await AsyncNote.query.async_exists()
        async for _ in AsyncNote.query.filter():
            pass
        await asyncio.gather(*(AsyncNote(title=str(i)).async_save() for i in range(20)))
        await note.async_delete()
        assert threading.active_count() == before

    asyncio.run(live())


def test_the_loop_runs_on_while_the_server_works(shared_server: Server) -> None:
    """A reply that is held back holds up its own call and nothing else."""
    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        AsyncNote.create(title="a")
        released = threading.Event()

        async def live() -> None:
            async def others() -> None:
                assert (await AsyncNote.async_load(title="a")) is not None
                released.set()

            await asyncio.gather(AsyncNote(title="b").async_save(), others())

        proxy.cut_replies(then=lambda: released.wait(20))
        asyncio.run(asyncio.wait_for(live(), 30))
        assert released.is_set()
        redis_db.configure_url(shared_server.url)


# -- loops and sockets -----------------------------------------------------------------------------------------------


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts files where the system lists them")
def test_fifty_runs_leave_no_socket(server: redis.Redis) -> None:
    async def work(number: int) -> None:
        await asyncio.gather(*(AsyncNote(title=f"{number}-{i}").async_save() for i in range(5)))
        assert len(await AsyncNote.query.async_filter(title__startswith=f"{number}-")) == 5

    asyncio.run(work(0))
    files, clients = open_files(), len(server.client_list())
    for number in range(1, 51):
        asyncio.run(work(number))

    assert open_files() <= files
    assert len(server.client_list()) <= clients
    assert AsyncNote.query.count() == 255


def test_loops_of_several_threads_work_side_by_side() -> None:
    async def work(number: int) -> int:
        notes = [AsyncNote(title=f"{number}-{i}", topic=f"t{number}") for i in range(20)]
        await asyncio.gather(*(note.async_save() for note in notes))
        return await AsyncNote.query.async_count(topic=f"t{number}")

    counts: list[int] = []
    threads = [threading.Thread(target=lambda n=n: counts.append(asyncio.run(work(n)))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert counts == [20] * 4


def test_three_hundred_gathered_calls_work() -> None:
    async def work() -> None:
        saved = await asyncio.gather(*(AsyncNote(title=str(i), rank=i).async_save() for i in range(300)))
        assert saved == [4] * 300
        loaded = await asyncio.gather(*(AsyncNote.async_load(title=str(i)) for i in range(300)))
        assert [note.rank for note in loaded if note is not None] == list(range(300))
        counts = await asyncio.gather(*(AsyncNote.query.async_count(rank__lte=i) for i in range(300)))
        assert counts == list(range(1, 301))

    asyncio.run(asyncio.wait_for(work(), 60))


def test_gathered_writers_of_one_unique_value_have_one_winner() -> None:
    async def race() -> list[Any]:
        return await asyncio.gather(*(AsyncSeat.async_create(label="1a") for _ in range(50)), return_exceptions=True)

    results = asyncio.run(race())

    assert sum(isinstance(result, AsyncSeat) for result in results) == 1
    assert sum(isinstance(result, ModelException) for result in results) == 49


# -- cancellation ----------------------------------------------------------------------------------------------------


def test_a_cancelled_save_has_happened_or_not_and_later_calls_get_their_own_replies() -> None:
    outcomes = {True: 0, False: 0}

    async def work() -> None:
        await AsyncNote.async_create(title="warm")
        for i in range(150):
            note = AsyncNote(title=f"c{i}", topic=f"t{i}", rank=i)
            task = asyncio.create_task(note.async_save())
            for _ in range(i % 12):  # one more step of the loop each time, so that each moment is hit
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await AsyncNote.query.async_keys(title="warm") == [b"AsyncNote:warm"]
            stored = await AsyncNote.async_load(title=f"c{i}")
            if stored is not None:
                assert (stored.topic, stored.rank) == (f"t{i}", i)
            assert await AsyncNote.query.async_count(topic=f"t{i}") in ((1,) if stored else (0, 1))
            outcomes[stored is not None] += 1

    asyncio.run(asyncio.wait_for(work(), 60))

    assert outcomes[True] > 0 and outcomes[False] > 0
    stored = {note.title for note in AsyncNote.query.all()}
    for i in range(150):
        present = f"c{i}" in stored
        assert AsyncNote.query.filter(topic=f"t{i}").count() == present
        assert AsyncNote.query.filter(rank=i, title=f"c{i}").count() == present


def test_a_cancelled_save_was_sent_whole_or_not_at_all(shared_server: Server) -> None:
    """Cancelled while the server has answered and the reply is still on its way."""
    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        AsyncNote.create(title="warm")

        async def cancel_while_answered() -> None:
            loop = asyncio.get_running_loop()
            answered, seen = asyncio.Event(), threading.Event()

            def hold() -> None:
                loop.call_soon_threadsafe(answered.set)
                seen.wait(20)

            proxy.cut_replies(then=hold)
            task = asyncio.create_task(AsyncNote(title="a", topic="x").async_save())
            await answered.wait()
            for _ in range(20):  # until it waits for the reply: up to Python 3.11 wait_for() may lose a cancellation
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            seen.set()
            assert (await AsyncNote.async_load(title="a")).topic == "x"  # type: ignore[union-attr]
            assert await AsyncNote.query.async_count() == 2

        asyncio.run(asyncio.wait_for(cancel_while_answered(), 30))
        assert proxy.cuts == 1
        redis_db.configure_url(shared_server.url)


def test_cancelled_calls_mix_up_no_reply() -> None:
    async def work() -> None:
        for i in range(40):
            await AsyncNote(title=str(i), rank=i).async_save()
        for round_number in range(10):
            tasks = [asyncio.create_task(AsyncNote.async_load(title=str(i))) for i in range(40)]
            for _ in range(round_number):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for i in range(1, 40, 2):
                assert results[i].rank == i  # type: ignore[union-attr]
            again = await asyncio.gather(*(AsyncNote.async_load(title=str(i)) for i in range(40)))
            assert [note.rank for note in again if note is not None] == list(range(40))

    asyncio.run(asyncio.wait_for(work(), 60))


def test_a_timeout_around_a_call_leaves_the_rest_working(shared_server: Server) -> None:
    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        AsyncNote.create(title="a")
        proxy.cut_replies("HGETALL", silent=True)

        async def work() -> None:
            with pytest.raises((asyncio.TimeoutError, TimeoutError)):
                await asyncio.wait_for(AsyncNote.async_load(title="a"), 0.1)
            assert await AsyncNote.async_load(title="a") is not None

        asyncio.run(asyncio.wait_for(work(), 30))
        redis_db.configure_url(shared_server.url)
