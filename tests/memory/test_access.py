"""AccessTrackerMixin: reads are staged once for what a query returned, and count when somebody confirms them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from popoto import (
    AccessTrackerMixin,
    BM25Field,
    DecayingSortedField,
    Field,
    IntField,
    KeyField,
    Model,
    ModelException,
    QueryException,
    SortedField,
    redis_db,
)
from popoto.memory import clock
from popoto.orm.scripts import Script
from tests.faults.proxy import cutting_proxy
from tests.memory.traces import WAYS, stored, traces

T0 = 1_700_000_000.0


class ReadNote(AccessTrackerMixin, Model):
    name = KeyField()
    topic = KeyField(default="t")
    text = Field(default="")
    rank = SortedField(default=0.0)
    count = IntField(default=0)
    seen = DecayingSortedField()
    words = BM25Field("text")


class ShortNote(AccessTrackerMixin, Model):
    name = KeyField()
    _max_access_log = 3


class SilentNote(AccessTrackerMixin, Model):
    name = KeyField()
    _track_reads = False


class UntrackedNote(Model):
    name = KeyField()


@pytest.fixture(autouse=True)
def frozen() -> Iterator[clock.FrozenClock]:
    with clock.frozen(T0) as still:
        yield still


def staged(server: redis.Redis, record: Model) -> list[float]:
    return [float(at) for at in server.lrange(f"$AT:{type(record).__name__}:staged:{record.pk}", 0, -1)]


def logged(server: redis.Redis, record: Model) -> list[float]:
    return [float(at) for at in server.lrange(f"$AT:{type(record).__name__}:access_log:{record.pk}", 0, -1)]


def counts(server: redis.Redis, model: str = "ReadNote") -> dict[str, float]:
    return {member.decode(): score for member, score in server.zrange(f"$AT:{model}:count", 0, -1, withscores=True)}


def look(record: Any, way: Callable[..., Any]) -> tuple[int, float | None]:
    if way is WAYS[0]:
        return record.access_count, record.last_accessed

    async def both() -> tuple[int, float | None]:
        return await record.async_access_count(), await record.async_last_accessed()

    return asyncio.run(both())


# -- two stages --------------------------------------------------------------------------------------------------------


def test_reads_are_staged_and_count_once_they_are_confirmed(
    server: redis.Redis, way: Callable[..., Any], frozen: clock.FrozenClock
) -> None:
    note = ReadNote.create(name="a")
    assert look(note, way) == (0, None)
    assert way(note.on_read) is None
    frozen.advance(1.5)
    way(note.on_read)
    assert staged(server, note) == [T0, T0 + 1.5]
    assert look(note, way) == (0, None)
    frozen.advance(100)
    assert way(note.confirm_access) == 2
    assert look(note, way) == (2, T0 + 1.5)
    assert (staged(server, note), logged(server, note)) == ([], [T0, T0 + 1.5])
    assert way(note.confirm_access) == 0
    assert look(note, way) == (2, T0 + 1.5)


def test_each_call_is_one_round_trip(server: redis.Redis, round_trips: Any) -> None:
    note = ReadNote.create(name="a")
    for call in (note.on_read, note.confirm_access, note.on_read, note.discard_staged_access):
        with round_trips() as trips:
            call()
        assert trips.count == 1


def test_discarded_reads_leave_what_is_confirmed(server: redis.Redis, way: Callable[..., Any]) -> None:
    note = ReadNote.create(name="a")
    way(note.on_read)
    way(note.confirm_access)
    way(note.on_read)
    assert way(note.discard_staged_access) is None
    assert (staged(server, note), logged(server, note)) == ([], [T0])
    assert way(note.confirm_access) == 0
    assert note.access_count == 1
    way(note.discard_staged_access)


def test_the_log_keeps_the_newest_times_and_the_count_goes_on(server: redis.Redis, frozen: clock.FrozenClock) -> None:
    short = ShortNote.create(name="a")
    for _ in range(2):
        short.on_read()
        frozen.advance(1)
    assert short.confirm_access() == 2
    for _ in range(8):
        short.on_read()
        frozen.advance(1)
    assert staged(server, short) == [T0 + 7, T0 + 8, T0 + 9], "a record that is read and never judged stays small"
    assert short.confirm_access() == 8, "what fell off the list was read all the same"
    assert (short.access_count, short.last_accessed) == (10, T0 + 9)
    assert logged(server, short) == [T0 + 7, T0 + 8, T0 + 9]
    for _ in range(5):
        short.on_read()
    short.discard_staged_access()
    assert (short.confirm_access(), short.access_count) == (0, 10)


def test_a_long_list_is_moved_whole(server: redis.Redis) -> None:
    class Long(AccessTrackerMixin, Model):
        name = KeyField()
        _max_access_log = 20_000

    long = Long.create(name="a")
    server.rpush("$AT:Long:staged:Long:a", *range(9000))
    assert long.confirm_access() == 9000
    assert logged(server, long) == list(map(float, range(9000)))


def test_the_count_is_kept_in_an_ordered_set_for_ranking(server: redis.Redis) -> None:
    notes = [ReadNote.create(name=name) for name in "abc"]
    for times, note in enumerate(notes):
        for _ in range(times):
            note.on_read()
        note.confirm_access()
    assert counts(server) == {"ReadNote:b:t": 1, "ReadNote:c:t": 2}
    assert ReadNote.ranking_signals(ReadNote._meta.keys) == {
        "access_count": "$AT:ReadNote:count",
        "access_score": "$AT:ReadNote:count",
    }


@pytest.mark.parametrize("way", WAYS, ids=["sync", "async"])
def test_all_three_go_into_a_pipeline(server: redis.Redis, way: Callable[..., Any]) -> None:
    note = ReadNote.create(name="a")
    pipeline = server.pipeline()
    assert way(note.on_read, pipeline=pipeline) is pipeline
    assert way(note.confirm_access, pipeline=pipeline) is pipeline
    way(note.on_read, pipeline=pipeline)
    assert way(note.discard_staged_access, pipeline=pipeline) is pipeline
    assert (staged(server, note), note.access_count) == ([], 0)
    assert pipeline.execute() == [1, 1, 1, 1]
    assert (staged(server, note), note.access_count) == ([], 1)
    with pytest.raises(TypeError, match="expected a redis-py Pipeline"):
        note.confirm_access(pipeline=True)


# -- records that are not stored ---------------------------------------------------------------------------------------


def test_nothing_is_written_for_a_record_that_is_not_stored(server: redis.Redis, way: Callable[..., Any]) -> None:
    unsaved = ReadNote(name="a")
    way(unsaved.on_read)
    way(unsaved.discard_staged_access)
    with pytest.raises(TypeError, match="never saved"):
        way(unsaved.confirm_access)
    assert look(unsaved, way) == (0, None)
    gone = ReadNote.create(name="b")
    ReadNote.load(name="b", topic="t").delete()  # type: ignore[union-attr]
    way(gone.on_read)
    with pytest.raises(TypeError, match="is not stored"):
        way(gone.confirm_access)
    assert stored(server) == {}
    pipeline = server.pipeline()
    assert unsaved.on_read(pipeline) is pipeline and len(pipeline) == 0


# -- what queries stage ------------------------------------------------------------------------------------------------

READS: dict[str, Callable[[], Any]] = {
    "get": lambda: ReadNote.query.get(name="a", topic="t"),
    "get by filter": lambda: ReadNote.query.get(rank=1.0),
    "get by redis_key": lambda: ReadNote.query.get(redis_key="ReadNote:a:t"),
    "load": lambda: ReadNote.load(name="a", topic="t"),
    "get_many": lambda: ReadNote.query.get_many(["ReadNote:a:t", "ReadNote:missing:t", "Other:a"]),
    "filter": lambda: ReadNote.query.filter(rank__lte=1.0).all(),
    "iteration": lambda: list(ReadNote.query.filter(rank=1.0)),
    "list, len and bool": lambda: (lambda found: (list(found), len(found), bool(found), found[0]))(
        ReadNote.query.filter(rank=1.0)
    ),
    "slices": lambda: list(ReadNote.query.filter(rank=1.0).iterate()),
    "first": lambda: ReadNote.query.filter(rank__lte=2.0).first(),
    "index": lambda: ReadNote.query.filter(rank__lte=2.0)[0],
    "decided by value": lambda: ReadNote.query.filter(count=1).all(),
    "top_by_decay": lambda: ReadNote.query.filter(rank=1.0).top_by_decay("seen"),
    "composite_score": lambda: ReadNote.query.filter(rank=1.0).composite_score({"seen": 1.0}),
    "keyword_search": lambda: ReadNote.query.keyword_search("apple"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_a_query_stages_one_read_of_what_it_returns_and_of_nothing_else(
    server: redis.Redis, read: Callable[[], Any]
) -> None:
    a = ReadNote.create(name="a", rank=1.0, count=1, text="apple")
    b = ReadNote.create(name="b", rank=2.0, count=2, text="pear")
    assert read()
    assert (staged(server, a), staged(server, b)) == ([T0], [])


def test_all_stages_every_record_in_one_call(server: redis.Redis, round_trips: Any) -> None:
    notes = [ReadNote.create(name=str(n)) for n in range(30)]
    with round_trips() as trips:
        assert len(ReadNote.query.all()) == 30
    assert trips.count == 2
    assert {len(staged(server, note)) for note in notes} == {1}


def test_async_queries_stage_as_well(server: redis.Redis) -> None:
    a = ReadNote.create(name="a", rank=1.0, text="apple")

    async def read() -> None:
        await ReadNote.query.async_get(name="a", topic="t")
        await ReadNote.query.async_all()
        await ReadNote.query.async_get_many(["ReadNote:a:t"])
        await ReadNote.query.filter(rank=1.0).async_first()
        await ReadNote.query.async_top_by_decay("seen")
        assert [note async for note in ReadNote.query.filter()]

    asyncio.run(read())
    assert len(staged(server, a)) == 6


UNTRACKED: dict[str, Callable[[], Any]] = {
    "count": lambda: ReadNote.query.count(),
    "exists": lambda: ReadNote.query.exists(),
    "keys": lambda: ReadNote.query.keys(),
    "values": lambda: ReadNote.query.filter(values=("name",)).all(),
    "no_track": lambda: ReadNote.query.filter().no_track().all(),
}


@pytest.mark.parametrize("read", UNTRACKED.values(), ids=UNTRACKED.keys())
def test_what_hands_out_no_record_stages_nothing(server: redis.Redis, read: Callable[[], Any]) -> None:
    a = ReadNote.create(name="a")
    assert read()
    assert staged(server, a) == []


def test_a_get_that_fails_stages_nothing(server: redis.Redis) -> None:
    notes = [ReadNote.create(name=name, rank=1.0) for name in "ab"]
    with pytest.raises(QueryException):
        ReadNote.query.get(rank=1.0)
    assert [staged(server, note) for note in notes] == [[], []]


def test_a_model_that_does_not_track_reads_pays_nothing(server: redis.Redis, round_trips: Any) -> None:
    silent, plain = SilentNote.create(name="a"), UntrackedNote.create(name="a")
    with round_trips() as trips:
        SilentNote.query.get(name="a")
        UntrackedNote.query.all()
    assert trips.count == 2
    assert staged(server, silent) == []
    assert [slot.name for slot in plain._meta.slots] == ["name"]
    silent.on_read()
    assert staged(server, silent) == [T0]


def test_a_foreign_key_in_the_way_does_not_spoil_a_query(server: redis.Redis) -> None:
    note = ReadNote.create(name="a")
    server.set("$AT:ReadNote:staged:ReadNote:a:t", "mine")
    assert ReadNote.query.all() == [note]
    with pytest.raises(ModelException, match="holds a string where the index keeps a list"):
        note.confirm_access()
    with pytest.raises(ModelException):
        note.discard_staged_access()
    assert server.get("$AT:ReadNote:staged:ReadNote:a:t") == b"mine"


# -- with the record ---------------------------------------------------------------------------------------------------


def tracked(server: redis.Redis) -> ReadNote:
    note = ReadNote.create(name="quokka")
    note.on_read()
    note.confirm_access()
    note.on_read()
    return note


def test_saves_leave_it_alone(server: redis.Redis) -> None:
    note = tracked(server)
    before = {key: value for key, value in stored(server).items() if key.startswith(b"$AT")}
    assert len(before) == 4
    note.save()
    note.save(update_fields=["text"])
    note.atomic_increment("count", 1)
    assert {key: value for key, value in stored(server).items() if key.startswith(b"$AT")} == before


@pytest.mark.parametrize("fields", [None, ["text"]], ids=["whole", "partial"])
def test_it_follows_the_record_to_another_key(server: redis.Redis, fields: list[str] | None) -> None:
    note = tracked(server)
    note.name = "numbat"
    note.save(migrate_key=True, update_fields=fields and [*fields, "name"])
    assert (note.access_count, note.last_accessed, staged(server, note)) == (1, T0, [T0])
    assert counts(server) == {"ReadNote:numbat:t": 1}
    assert traces(server, "quokka") == []


def test_delete_leaves_no_trace(server: redis.Redis) -> None:
    tracked(server).delete()
    assert stored(server) == {}


def test_expiry_leaves_no_trace_after_the_next_write(server: redis.Redis) -> None:
    note = tracked(server)
    note._ttl = 0.02
    note.save()
    ReadNote.create(name="b", topic="u")
    time.sleep(0.05)
    assert ReadNote.query.count() == 1
    ReadNote.create(name="c", topic="u")
    assert traces(server, "quokka") == []


def test_a_record_that_was_stored_before_its_model_was_tracked_is_cleaned_up_too(server: redis.Redis) -> None:
    class Untracked(Model):
        name = KeyField()

    Untracked.create(name="quokka")

    class Tracked(AccessTrackerMixin, Model):
        name = KeyField()

        class Meta:
            key_name = "Untracked"

    record = Tracked.query.get(name="quokka")
    assert record.confirm_access() == 1
    record.delete()
    assert stored(server) == {}


def test_a_repeat_after_a_cut_reply_stages_and_confirms_once(server: redis.Redis, shared_server: Any) -> None:
    note = ReadNote.create(name="a")
    for script in Script._all:
        server.script_load(script.source)
    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        proxy.cut_replies()
        note.on_read()
        assert staged(server, note) == [T0]
        proxy.cut_replies()
        assert note.confirm_access() == 1
        assert proxy.cuts == 2
        redis_db.configure_url(shared_server.url)
    assert note.access_count == 1


def test_reads_of_many_threads_all_count(server: redis.Redis) -> None:
    note = ReadNote.create(name="a")
    confirmed: list[int] = []

    def read() -> None:
        mine = ReadNote.query.get(name="a", topic="t")
        for _ in range(20):
            mine.on_read()
            confirmed.append(mine.confirm_access())

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    note.confirm_access()
    assert note.access_count == 84
    assert sum(confirmed) in range(80, 85)


def test_the_mixin_stands_before_model() -> None:
    with pytest.raises(ModelException, match=r"Write class Wrong\(AccessTrackerMixin, Model\)"):

        class Wrong(Model, AccessTrackerMixin):
            name = KeyField()
