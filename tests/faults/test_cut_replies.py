"""A connection that breaks before or after the server ran a command: each operation happens exactly once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from popoto import redis_db
from popoto.exceptions import ModelException, PopotoException, UnknownOutcomeError
from popoto.memory.confidence import ConfidenceField
from popoto.orm import commands
from tests.conftest import Server
from tests.faults.conftest import Way, number
from tests.faults.models import FaultItem, FaultMemory, FaultTicket
from tests.faults.proxy import Proxy

Cut = Callable[..., None]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many repeats as ever, closer together; the tests of what gives up take the true pauses."""
    monkeypatch.setattr(commands, "_PAUSES_S", (0.0, 0.01, 0.01, 0.01, 0.01))


@pytest.fixture(params=["after the server answered", "before the server got it"])
def cut(request: pytest.FixtureRequest, proxy: Proxy) -> Cut:
    return proxy.cut_replies if request.param.startswith("after") else proxy.cut_commands


# -- writes ----------------------------------------------------------------------------------------------------------


def test_a_new_record_is_saved_once(way: Way, proxy: Proxy, cut: Cut, server: redis.Redis) -> None:
    cut()
    item = FaultItem(name="a", status="open")

    assert way(item.save) == 4  # the answer of the first run: so many fields were new

    assert proxy.cuts == 1
    assert number(server, "saves") == 1
    assert FaultItem.query.filter(status="open").count() == 1


def test_a_create_is_done_once(way: Way, proxy: Proxy, cut: Cut, server: redis.Redis) -> None:
    cut()

    item = way(FaultItem.create, name="a", note="x")

    assert (proxy.cuts, number(server, "saves")) == (1, 1)
    assert FaultItem.load(name="a") == item
    assert FaultItem.query.count() == 1


def test_a_repeat_of_a_save_does_not_overwrite_a_later_writer(way: Way, proxy: Proxy, server: redis.Redis) -> None:
    item = FaultItem.create(name="a", status="old", rank=1)

    def another_writer() -> None:
        other = FaultItem.load(name="a")
        assert other is not None and other.status == "mine"
        other.status, other.rank = "newer", 3
        other.save()

    proxy.cut_replies(then=another_writer)
    item.status, item.rank = "mine", 2

    assert way(item.save) == 0

    stored = FaultItem.load(name="a")
    assert stored is not None and (stored.status, stored.rank) == ("newer", 3)
    assert FaultItem.query.filter(status="mine").count() == 0
    assert FaultItem.query.filter(status="newer", rank=3).count() == 1
    assert number(server, "saves") == 3


def test_a_repeat_of_a_save_does_not_bring_back_what_was_deleted(way: Way, proxy: Proxy) -> None:
    item = FaultItem(name="a")
    proxy.cut_replies(then=lambda: FaultItem.load(name="a").delete())

    way(item.save)

    assert FaultItem.load(name="a") is None
    assert FaultItem.query.count() == 0


def test_fields_are_updated_once(way: Way, proxy: Proxy, cut: Cut, server: redis.Redis) -> None:
    item = FaultItem.create(name="a", note="x", rank=1)
    cut()
    item.note = "y"

    assert way(item.save, update_fields=["note"]) == 0

    assert (proxy.cuts, number(server, "saves")) == (1, 2)
    stored = FaultItem.load(name="a")
    assert stored is not None and (stored.note, stored.rank) == ("y", 1)


def test_a_repeated_update_does_not_miss_a_record_deleted_since(way: Way, proxy: Proxy) -> None:
    item = FaultItem.create(name="a")
    item.note = "y"
    proxy.cut_replies(then=lambda: FaultItem.load(name="a").delete())

    assert way(item.save, update_fields=["note"]) == 0  # it was there when the update happened


def test_a_delete_tells_that_the_record_existed(way: Way, proxy: Proxy, cut: Cut, server: redis.Redis) -> None:
    item = FaultItem.create(name="a")
    cut()

    assert way(item.delete) is True

    assert (proxy.cuts, number(server, "deletes")) == (1, 1)
    assert FaultItem.query.count() == 0


def test_a_repeated_delete_leaves_a_record_made_since(way: Way, proxy: Proxy) -> None:
    item = FaultItem.create(name="a", status="old")
    proxy.cut_replies(then=lambda: FaultItem.create(name="a", status="reborn"))

    assert way(item.delete) is True

    stored = FaultItem.load(name="a")
    assert stored is not None and stored.status == "reborn"
    assert FaultItem.query.filter(status="reborn").count() == 1


def test_a_delete_of_nothing_says_so(way: Way, proxy: Proxy, cut: Cut) -> None:
    cut()
    assert way(FaultItem(name="none").delete) is False


def test_a_created_auto_key_is_answered_and_not_refused(way: Way, proxy: Proxy, cut: Cut, server: redis.Redis) -> None:
    cut()

    ticket = way(FaultTicket.create, seat="12a")

    assert (proxy.cuts, number(server, "saves")) == (1, 1)
    assert FaultTicket.load(number=ticket.number) == ticket
    assert FaultTicket.query.count() == 1


def test_a_unique_value_is_still_refused_to_others(way: Way, proxy: Proxy, cut: Cut, server: redis.Redis) -> None:
    way(FaultTicket.create, seat="12a")
    cut()

    with pytest.raises(ModelException, match="12a"):
        way(FaultTicket.create, seat="12a")

    assert number(server, "saves") == 1
    assert FaultTicket.query.count() == 1


def test_a_refusal_whose_reply_was_cut_is_decided_anew(way: Way, proxy: Proxy, server: redis.Redis) -> None:
    first = FaultTicket.create(seat="12a")
    proxy.cut_replies(then=first.delete)

    way(FaultTicket.create, seat="12a")  # the refusal wrote nothing; by the repeat the seat was free

    assert number(server, "saves") == 2
    assert FaultTicket.query.count() == 1


def test_a_key_migration_happens_once(way: Way, proxy: Proxy, cut: Cut, server: redis.Redis) -> None:
    item = FaultItem.create(name="a", status="open")
    cut()
    item.name = "b"

    way(item.save, migrate_key=True)

    assert proxy.cuts == 1
    assert FaultItem.query.keys() == [b"FaultItem:b"]
    assert FaultItem.query.filter(status="open").keys() == [b"FaultItem:b"]
    assert item.pk == "FaultItem:b"
    assert number(server, "saves") == 2


def test_a_save_is_repeated_as_often_as_the_connection_breaks(way: Way, proxy: Proxy, server: redis.Redis) -> None:
    proxy.cut_commands(times=2)
    proxy.cut_replies(times=2)

    assert way(FaultItem(name="a").save) == 4

    assert proxy.cuts == 4
    assert number(server, "saves") == 1


def test_a_reply_cut_between_the_unknown_script_and_its_source(way: Way, proxy: Proxy, server: redis.Redis) -> None:
    server.script_flush()
    proxy.cut_replies("EVAL")

    assert way(FaultItem(name="a").save) == 4

    assert (proxy.cuts, number(server, "saves")) == (1, 1)


def test_a_token_is_forgotten_within_a_minute(proxy: Proxy, server: redis.Redis) -> None:
    FaultItem.create(name="a").delete()

    tokens = server.keys("$Token:*")
    assert len(tokens) == 2
    assert all(0 < server.pttl(token) <= 60_000 for token in tokens)


def test_a_failing_hook_is_not_run_again(way: Way, proxy: Proxy, server: redis.Redis) -> None:
    proxy.cut_replies()

    with pytest.raises(ModelException, match="is saved"):
        way(FaultItem(name="a", note="break").save)

    assert number(server, "saves") == 1


@pytest.mark.skipif(not hasattr(FaultItem, "atomic_increment"), reason="not there yet: Model.atomic_increment")
def test_an_increment_counts_once(way: Way, proxy: Proxy, cut: Cut) -> None:
    item = FaultItem.create(name="a", rank=1)
    item.atomic_increment("rank", 1)
    cut()

    assert way(item.atomic_increment, "rank", 5) == 7

    assert proxy.cuts == 1
    assert FaultItem.query.filter(rank=7).keys() == [b"FaultItem:a"]


# -- reads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "read", "expected"),
    [
        ("HGETALL", lambda way: way(FaultItem.query.get, name="b").rank, 2),
        ("HGETALL", lambda way: way(FaultItem.load, db_key="FaultItem:b").rank, 2),
        ("EVALSHA", lambda way: len(way(FaultItem.query.get_many, ["FaultItem:a", "FaultItem:b"])), 2),
        ("EVALSHA", lambda way: [i.name for i in way(FaultItem.query.all, status="new")], ["a", "b"]),
        ("ZCARD", lambda way: way(FaultItem.query.count, rank__gte=2), 1),
        ("EVALSHA", lambda way: way(FaultItem.query.keys), [b"FaultItem:a", b"FaultItem:b"]),
        ("EVALSHA", lambda way: way(FaultItem.query.filter(status="new").first).name, "a"),
        ("EVALSHA", lambda way: way(FaultItem.query.exists, status="old"), False),
        ("EVALSHA", lambda way: [i.name for i in way(FaultItem.query.filter().order_by("-note").all)], ["a", "b"]),
    ],
    ids=["get", "load", "get_many", "filter", "count", "keys", "first", "exists", "order by value"],
)
def test_a_read_is_answered(
    way: Way, proxy: Proxy, cut: Cut, command: str, read: Callable[[Way], Any], expected: Any
) -> None:
    FaultItem.create(name="a", rank=1, note="z")
    FaultItem.create(name="b", rank=2, note="y")
    cut(command, times=2)

    assert read(way) == expected
    assert proxy.cuts == 2


def test_a_read_of_nothing_is_answered(way: Way, proxy: Proxy) -> None:
    proxy.cut_replies("HGETALL")
    assert way(FaultItem.load, name="nobody") is None
    assert proxy.cuts == 1


# -- memory -----------------------------------------------------------------------------------------------------------


def test_one_signal_counts_once(way: Way, proxy: Proxy, cut: Cut) -> None:
    memory = FaultMemory.create(name="a")
    ConfidenceField.update_confidence(memory, "certainty", 0.9)
    cut()

    told = way(ConfidenceField.update_confidence, memory, "certainty", 0.2)

    assert proxy.cuts == 1
    data = ConfidenceField.get_confidence_data(memory, "certainty")
    assert (data["evidence_count"], data["corroborations"], data["contradictions"]) == (2, 1, 1)
    assert data["confidence"] == told == memory.certainty


def test_a_repeated_touch_does_not_overwrite_a_later_one(way: Way, proxy: Proxy) -> None:
    memory = FaultMemory.create(name="a")
    memory.touch("relevance")
    later: list[float] = []
    proxy.cut_replies(then=lambda: later.append(FaultMemory.load(name="a").touch("relevance")))

    told = way(memory.touch, "relevance")

    assert proxy.cuts == 1
    stored = FaultMemory.load(name="a")
    assert stored is not None and stored.relevance == later[0] > told


def test_a_ranking_is_answered(way: Way, proxy: Proxy, cut: Cut) -> None:
    FaultMemory.create(name="old").touch("relevance")
    FaultMemory.create(name="young").touch("relevance")
    FaultMemory.query.top_by_decay("relevance")
    cut(times=2)

    assert len(way(FaultMemory.query.top_by_decay, "relevance")) == 2
    assert proxy.cuts == 2


# -- what cannot be repeated -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("transaction", [True, False])
def test_in_a_callers_pipeline_the_error_surfaces_and_nothing_is_repeated(
    proxy: Proxy, server: redis.Redis, transaction: bool
) -> None:
    pipeline = redis_db.get_REDIS_DB().pipeline(transaction=transaction)
    FaultItem(name="a").save(pipeline=pipeline)
    pipeline.incr("beside")
    last = "EXEC" if transaction else "INCRBY"
    proxy.cut_replies(last)

    with pytest.raises(redis.ConnectionError):
        pipeline.execute()

    assert proxy.reached[last] == 1
    assert (number(server, "saves"), number(server, "beside")) == (1, 1)


@pytest.mark.parametrize("transaction", [True, False])
def test_in_a_callers_async_pipeline_the_error_surfaces_and_nothing_is_repeated(
    proxy: Proxy, server: redis.Redis, transaction: bool
) -> None:
    last = "EXEC" if transaction else "INCRBY"
    proxy.cut_replies(last)

    async def execute() -> None:
        pipeline = redis_db.get_async_client().pipeline(transaction=transaction)
        await FaultItem(name="a").async_save(pipeline=pipeline)
        pipeline.incr("beside")
        with pytest.raises(redis.ConnectionError):
            await pipeline.execute()

    asyncio.run(execute())

    assert proxy.reached[last] == 1
    assert (number(server, "saves"), number(server, "beside")) == (1, 1)


WRITES: list[Callable[[Way], Any]] = [
    lambda way: way(FaultItem(name="a").save),
    lambda way: way(FaultItem.create, name="a"),
    lambda way: way(FaultItem(name="a").delete),
]
READS: list[Callable[[Way], Any]] = [
    lambda way: way(FaultItem.load, name="a"),
    lambda way: way(FaultItem.query.all, status="new"),
    lambda way: way(FaultItem.query.get_many, ["FaultItem:a", "FaultItem:b"]),
]


@pytest.mark.parametrize("operation", [*WRITES, *READS])
def test_a_server_that_stays_away_is_the_connections_own_error(
    way: Way, proxy: Proxy, operation: Callable[[Way], Any]
) -> None:
    proxy.close()

    with pytest.raises(redis.ConnectionError) as caught:
        operation(way)

    assert not isinstance(caught.value, PopotoException)


def test_a_server_that_stays_away_is_given_up_within_seconds(
    way: Way, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the true pauses
    proxy.close()
    began = time.monotonic()

    with pytest.raises(redis.ConnectionError):
        way(FaultItem(name="a").save)

    assert time.monotonic() - began < 10


@pytest.mark.parametrize("operation", [WRITES[0], READS[0]])
def test_a_socket_that_is_not_there_is_the_connections_own_error(
    way: Way, server: redis.Redis, shared_server: Server, operation: Callable[[Way], Any]
) -> None:
    redis_db.configure_url(f"unix://{shared_server.folder}/none")

    with pytest.raises(redis.ConnectionError):
        operation(way)


@pytest.mark.parametrize("never_reached", [False, True])
def test_a_write_whose_fate_stays_unknown_says_so(
    way: Way, proxy: Proxy, server: redis.Redis, never_reached: bool
) -> None:
    (proxy.cut_commands if never_reached else proxy.cut_replies)(times=100)
    item = FaultItem(name="a")

    with pytest.raises(UnknownOutcomeError, match=r"commit.*Read the record"):
        way(item.save)

    assert number(server, "saves") == (0 if never_reached else 1)
    assert 1 < proxy.cuts < 10


def test_a_server_that_goes_away_during_a_write_leaves_its_fate_unknown(
    way: Way, proxy: Proxy, server: redis.Redis
) -> None:
    proxy.cut_replies(then=proxy.close)

    with pytest.raises(UnknownOutcomeError):
        way(FaultItem(name="a").delete)


def test_a_server_that_stays_away_during_a_read_is_the_connections_own_error(way: Way, proxy: Proxy) -> None:
    proxy.cut_replies("HGETALL", then=proxy.close)

    with pytest.raises(redis.ConnectionError):
        way(FaultItem.load, name="a")


def test_a_reply_that_never_comes_is_asked_for_again(way: Way, proxy: Proxy, server: redis.Redis) -> None:
    redis_db.configure_url(f"{proxy.url}?socket_timeout=0.3")
    proxy.cut_replies(silent=True)

    assert way(FaultItem(name="a").save) == 4

    assert (proxy.cuts, number(server, "saves")) == (1, 1)


def test_a_wrong_password_is_neither_repeated_nor_an_unknown_outcome(way: Way, proxy: Proxy) -> None:
    redis_db.configure_url(proxy.url.replace("redis://", "redis://nobody:wrong@"))

    with pytest.raises(redis.AuthenticationError):
        way(FaultItem(name="a").save)

    assert proxy.reached["AUTH"] == 1


def test_a_password_that_is_refused_at_the_repeat_leaves_the_outcome_unknown(
    way: Way, proxy: Proxy, server: redis.Redis
) -> None:
    """What was sent before may have happened, whatever the reason that nothing more can be said."""
    server.acl_setuser("passing", enabled=True, passwords=["+once"], keys=["*"], commands=["+@all"])
    redis_db.configure_url(proxy.url.replace("redis://", "redis://passing:once@"))
    proxy.cut_replies(then=lambda: server.acl_setuser("passing", enabled=False))
    try:
        with pytest.raises(UnknownOutcomeError):
            way(FaultItem(name="a").save)
    finally:
        server.acl_deluser("passing")

    assert number(server, "saves") == 1


def test_a_full_server_at_the_repeat_leaves_the_outcome_unknown(way: Way, proxy: Proxy, server: redis.Redis) -> None:
    """The server refuses the repeat before the script can look for its token."""
    proxy.cut_replies(then=lambda: server.config_set("maxmemory", 1))
    try:
        with pytest.raises(UnknownOutcomeError):
            way(FaultItem(name="a").save)
    finally:
        server.config_set("maxmemory", 0)

    assert number(server, "saves") == 1


def test_a_pool_without_a_free_connection_is_no_unknown_outcome(server: redis.Redis, shared_server: Server) -> None:
    redis_db.configure_url(f"{shared_server.url}?max_connections=1&timeout=0.1")
    pool = redis_db.get_REDIS_DB().connection_pool
    held = pool.get_connection()
    try:
        with pytest.raises(redis.ConnectionError, match="No connection"):
            FaultItem(name="a").save()
    finally:
        pool.release(held)
