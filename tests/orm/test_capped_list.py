"""ListField(max_length=N): pushes lose nothing, saves undo no push, and the list lives and goes with its record."""

from __future__ import annotations

import asyncio
import copy
import json
import multiprocessing
import os
import pickle
import random
import time
import warnings
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from popoto import redis_db
from popoto.exceptions import ModelException, QueryException
from popoto.orm.event_stream import EventStreamMixin
from popoto.orm.fields.capped import CappedListProxy
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.typed import IntField, ListField
from popoto.orm.model import Model

from .oracle import dump, indexes_agree, nothing_left


class Log(Model):
    name = KeyField()
    lines = ListField(max_length=3)
    count = IntField(default=0)


class Seeded(Model):
    name = KeyField()
    lines = ListField(max_length=4, default=["a", ("b", 1)])
    plain = ListField()
    long = ListField(max_length=100_000)


def stored(client: Any, name: str = "a", model: str = "Log") -> list[bytes]:
    return client.lrange(f"{model}:{name}::lines", 0, -1)


# -- push --------------------------------------------------------------------------------------------------------------


def test_push_puts_the_newest_first_and_drops_what_is_beyond_the_length(server):
    log = Log.create(name="a")
    for n in range(5):
        assert log.lines.push(n) is None
    assert log.lines == [4, 3, 2] and stored(server) == [b"\x04", b"\x03", b"\x02"]
    assert Log.query.get(name="a").lines == [4, 3, 2]
    assert server.hkeys("Log:a") == [b"name", b"count"], "the list is not in the hash"


def test_push_is_one_round_trip_and_reads_nothing(server, round_trips):
    Log.create(name="a", lines=[1])
    log = Log.query.get(name="a")
    with round_trips() as trips:
        Log.lines.push(log, 2)
    assert trips.count == 1
    with round_trips() as trips:
        assert log.lines == [2, 1]
    assert trips.count == 1
    with round_trips() as trips:
        log.lines.push(3)
        assert log.lines == [3, 2, 1]
    assert trips.count == 1


def test_elements_keep_their_types_one_by_one(server):
    log = Log.create(name="a")
    for element in (Decimal("1.10"), {"k": (1, {2})}, date(2026, 3, 2)):
        log.lines.push(element)
    found = Log.query.get(name="a").lines
    assert found == [date(2026, 3, 2), {"k": (1, {2})}, Decimal("1.10")]
    assert type(found[1]["k"]) is tuple and str(found[2]) == "1.10"


def test_push_to_what_is_not_stored_is_refused(server):
    log = Log(name="a")
    with pytest.raises(ModelException, match="save"):
        log.lines.push(1)
    with pytest.raises(ModelException, match="belongs to no record"):
        CappedListProxy([1]).push(2)
    log.save()
    log.lines.push(1)
    other = Log.query.get(name="a")
    log.delete()
    nothing_left(server)
    for instance in (log, other):
        with pytest.raises(ModelException, match="save"):
            Log.lines.push(instance, 2)
    nothing_left(server)


def test_a_push_that_cannot_be_writes_nothing(server):
    log = Log.create(name="a", lines=["x"])
    before = dump(server)
    with pytest.raises(ModelException, match=r"lines.*cannot be stored"):
        log.lines.push(object())
    assert dump(server) == before and log.lines == ["x"]
    server.delete("Log:a::lines")
    server.set("Log:a::lines", "mine")
    with pytest.raises(ModelException, match=r"Log:a::lines holds a string"):
        log.lines.push(1)
    assert server.get("Log:a::lines") == b"mine"


def test_push_can_be_queued_on_a_pipeline(server):
    log = Log.create(name="a")
    pipeline = server.pipeline()
    assert log.lines.push(1, pipeline=pipeline) is pipeline
    log.lines.push(2, pipeline)
    assert log.lines == [2, 1] and stored(server) == []
    assert pipeline.execute() == [1, 2]
    assert stored(server) == [b"\x02", b"\x01"]
    with pytest.raises(TypeError):
        log.lines.push(3, pipeline="no pipeline")


def test_a_push_whose_reply_was_lost_is_not_done_twice_when_it_is_repeated(server):
    log = Log.create(name="a")
    command = Log.lines._push_command(log, "x")
    args = command.with_token()
    replies = [server.eval(command.script.source, command.key_count, *args) for _ in range(3)]
    assert replies == [1, 1, 1] and stored(server) == [b"\xa1x"]


def _push(url: str, number: int, ready: Any) -> None:
    redis_db.configure_url(url)
    seeded = Seeded.query.get(name="a")
    ready.wait(20)
    for n in range(250):
        Seeded.long.push(seeded, number * 1000 + n)
    os._exit(0)


def test_pushes_of_eight_processes_lose_nothing_and_keep_their_order(server, shared_server):
    Seeded.create(name="a")
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(8)
    workers = [context.Process(target=_push, args=(shared_server.url, n, ready)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    found = Seeded.query.get(name="a").long
    assert len(found) == 2000
    for number in range(8):
        mine = [n - number * 1000 for n in found if n // 1000 == number]
        assert mine == list(reversed(range(250)))


def test_a_push_is_a_change_in_the_event_stream(server):
    class CappedLogged(EventStreamMixin, Model):
        name = KeyField()
        lines = ListField(max_length=2)

    record = CappedLogged.create(name="a")
    record.lines.push(1)
    (_, created), (_, pushed) = server.xrange(CappedLogged.event_stream_key())
    assert (created[b"op"], pushed[b"op"], pushed[b"changed_fields"]) == (b"create", b"update", b"lines")
    assert pushed[b"pk"] == b"CappedLogged:a"


# -- a list like any other ---------------------------------------------------------------------------------------------


def test_the_attribute_is_a_list(server):
    Log.create(name="a", lines=[1, 2])
    lines = Log.query.get(name="a").lines
    assert isinstance(lines, list) and lines == [1, 2] and lines + [3] == [1, 2, 3]  # noqa: RUF005
    assert lines[0] == 1 and lines[-1:] == [2] and 2 in lines and len(lines) == 2 and bool(lines)
    assert list(reversed(lines)) == sorted(lines, reverse=True) == [2, 1] and lines.index(2) == 1
    assert json.dumps(lines) == "[1, 2]" and f"{lines}" == "[1, 2]" and [*lines] == [1, 2] and lines * 2 == [1, 2, 1, 2]
    assert lines.pop() == 2 and lines == [1]
    lines.extend([5, 4])
    lines.sort()
    lines.insert(0, 0)
    assert lines == [0, 1, 4, 5]


def test_copies_and_pickles_keep_the_list_and_can_push(server):
    log = Log.create(name="a", lines=[1])
    for twin in (copy.copy(log), copy.deepcopy(log), pickle.loads(pickle.dumps(log))):
        twin.lines.append("mine")
        assert log.lines == [1], "its own list"
    unread = pickle.loads(pickle.dumps(Log.query.get(name="a")))
    assert unread.lines == [1]
    twin = pickle.loads(pickle.dumps(log))
    twin.lines.push(2)
    assert twin.lines == [2, 1] and stored(server) == [b"\x02", b"\x01"]
    assert pickle.loads(pickle.dumps(log.lines)) == [1] == copy.deepcopy(log.lines)


def test_assigning_another_records_list_copies_it(server):
    one, other = Log.create(name="a", lines=[1]), Log.create(name="b")
    other.lines = one.lines
    other.save()
    other.lines.push(2)
    assert one.lines == [1] and other.lines == [2, 1]
    assert stored(server, "a") == [b"\x01"] and stored(server, "b") == [b"\x02", b"\x01"]


def test_what_is_no_list_is_refused(server):
    for wrong in ("text", 5, {"a": 1}):
        with pytest.raises(ModelException, match="'lines': expected list"):
            Log(name="a", lines=wrong)
        log = Log(name="a")
        with pytest.raises(ModelException, match="'lines': expected list"):
            log.lines = wrong
    assert Log(name="a", lines=(1, 2)).lines == [1, 2]
    assert Log(name="a", lines=None).lines == Log(name="a").lines == []
    log = Log.create(name="a", lines=[1])
    log.lines = None
    log.save()
    assert stored(server) == [] and Log.query.get(name="a").lines == []


def test_definition():
    assert type(ListField()).__name__ == "ListField" and type(ListField(max_length=3)).__name__ == "ListField"
    assert isinstance(ListField(max_length=3), ListField)
    for wrong in (0, -1, "many", 2.5):
        with pytest.raises(ModelException, match="max_length"):
            ListField(max_length=wrong)
    for option in ("indexed", "unique"):
        with pytest.raises(ModelException, match="no index"):
            ListField(max_length=3, **{option: True})

    class Words(ListField):
        def packed(self, elements):
            return super().packed(str(element) for element in elements)

    class CappedWords(Model):
        name = KeyField()
        words = Words(max_length=2)

    assert isinstance(CappedWords.words, Words) and CappedWords.words.max_length == 2


def test_without_a_max_length_it_is_a_plain_value(server):
    seeded = Seeded.create(name="a", plain=[1])
    assert type(seeded.plain) is list and not server.exists("Seeded:a::plain")
    assert Seeded.query.filter(plain=[1])[0].lines == ["a", ("b", 1)], "the default"
    seeded.lines.push(0)
    assert Seeded(name="b").lines == ["a", ("b", 1)], "each record has a default of its own"


# -- saving ------------------------------------------------------------------------------------------------------------


def test_a_save_trims_the_list(server):
    log = Log(name="a", lines=[1, 2, 3, 4, 5])
    assert len(log.lines) == 5
    log.save()
    assert log.lines == [1, 2, 3] and stored(server) == [b"\x01", b"\x02", b"\x03"]


def test_a_save_writes_the_list_only_where_it_was_changed(server):
    Log.create(name="a", lines=[1])
    unread, looked_at, edited, assigned = (Log.query.get(name="a") for _ in range(4))
    assert looked_at.lines == edited.lines == assigned.lines == [1]
    Log.lines.push(Log.query.get(name="a"), 2)
    unread.save()
    looked_at.save()
    looked_at.count = 4
    looked_at.save(update_fields=["count"])
    looked_at.save(update_fields=["lines"])
    assert stored(server) == [b"\x02", b"\x01"], "the push of another is not undone"
    edited.lines[0] = {"deep": [1]}
    edited.save()
    assert Log.query.get(name="a").lines == [{"deep": [1]}]
    edited.lines[0]["deep"].append(2)
    edited.save()
    assert Log.query.get(name="a").lines == [{"deep": [1, 2]}], "an edit inside an element counts as well"
    assigned.lines = ["new"]
    assigned.save(update_fields=["count"])
    assert Log.query.get(name="a").lines == [{"deep": [1, 2]}]
    assigned.save(update_fields=["lines"])
    assert Log.query.get(name="a").lines == ["new"]
    indexes_agree(Log)


def test_an_empty_list_that_was_never_touched_undoes_no_push(server):
    log = Log.create(name="a")
    Log.lines.push(Log.query.get(name="a"), 1)
    log.save()
    assert stored(server) == [b"\x01"]


def test_after_a_save_and_after_a_push_the_list_counts_as_unchanged(server):
    log = Log.create(name="a", lines=[1])
    log.lines.append(0)
    log.save()
    log.lines.push(2)
    other = Log.query.get(name="a")
    other.lines.push(3)
    log.save()
    assert Log.query.get(name="a").lines == [3, 2, 1]


def test_a_refused_save_leaves_the_edit_to_be_saved_later(server):
    log = Log.create(name="a", lines=[1])
    server.set("Log:z", "in the way")
    log.lines.append(2)
    log.name = "z"
    with pytest.raises(ModelException):
        log.save(migrate_key=True)
    log.name = "a"
    log.save()
    assert stored(server) == [b"\x01", b"\x02"]


def test_a_record_that_vanished_is_written_anew_with_its_list(server):
    log = Log.create(name="a", lines=[1])
    seen = Log.query.get(name="a")
    assert seen.lines == [1]
    for instance in (log, seen):
        Log.query.get(name="a").delete()
        instance.save()
        assert stored(server) == [b"\x01"]
    server.delete("Log:a", "Log:a::lines")  # as an expiry does it
    seen.save()
    assert stored(server) == [b"\x01"]
    seen.delete()
    nothing_left(server)
    seen.save()
    assert stored(server) == [b"\x01"]


def test_a_deleted_record_that_is_saved_again_brings_its_own_list(server):
    log = Log.create(name="a", lines=[1])
    log.delete()
    Log.create(name="a", lines=["of another"])
    log.save()
    assert stored(server) == [b"\x01"]


def test_a_new_record_of_the_same_key_replaces_the_list(server):
    Log.create(name="a", lines=[1, 2])
    Log.create(name="a")
    assert stored(server) == []
    Log.create(name="a", lines=[3])
    assert stored(server) == [b"\x03"]


def test_lists_past_the_limit_of_unpack_are_stored_whole(server):
    everything = list(range(20_000))
    Seeded.create(name="a", long=everything)
    assert Seeded.query.get(name="a").long == everything


# -- with its record ---------------------------------------------------------------------------------------------------


def test_the_list_moves_with_its_record_and_goes_with_it(server):
    Log.create(name="a", lines=[1])
    unread = Log.query.get(name="a")
    unread.name = "b"
    unread.save(migrate_key=True)
    assert stored(server, "b") == [b"\x01"] and not server.exists("Log:a::lines")
    assert unread.lines == [1]
    unread.lines.append(2)
    unread.name = "c"
    unread.save(migrate_key=True)
    assert stored(server, "c") == [b"\x01", b"\x02"] and not server.exists("Log:b::lines")
    unread.name = "d"
    unread.save(migrate_key=True, update_fields=["count"])
    assert stored(server, "d") == [b"\x01", b"\x02"]
    indexes_agree(Log)
    unread.delete()
    nothing_left(server)


def test_bulk_operations_know_the_list(server):
    logs = [Log(name=name, lines=[name]) for name in "abc"]
    Log.bulk_create(logs)
    assert [log.lines for log in Log.query.all()] == [["a"], ["b"], ["c"]]
    logs[0].lines.push("x")
    assert stored(server) == [b"\xa1x", b"\xa1a"]
    Log.bulk_update(Log.query.filter(name__in=["a", "b"]), lines=["u", "v"])
    found = Log.query.all()
    assert [log.lines for log in found] == [["u", "v"], ["u", "v"], ["c"]]
    found[0].lines.append("w")
    assert found[1].lines == ["u", "v"]
    Log.bulk_update(found, count=7)
    assert [log.lines for log in Log.query.all()] == [["u", "v"], ["u", "v"], ["c"]]
    indexes_agree(Log)
    Log.bulk_delete(found[:1])
    assert not server.exists("Log:a::lines")
    Log.delete_all()
    nothing_left(server)


def test_the_list_expires_with_its_record(server):
    log = Log(name="a", lines=[1])
    log._ttl = 100
    log.save()
    assert server.pexpiretime("Log:a::lines") == server.pexpiretime("Log:a") > 0
    log.lines.push(2)
    log.lines = ["new"]
    log._ttl = 200
    log.save(update_fields=["lines"])
    assert server.pexpiretime("Log:a::lines") == server.pexpiretime("Log:a") > time.time() * 1000 + 150_000
    loaded = Log.query.get(name="a")
    loaded.lines = ["again"]
    loaded.save()
    assert server.pexpiretime("Log:a::lines") == server.pexpiretime("Log:a") > 0
    loaded.lines = []
    loaded.save()
    loaded.lines.push("first of a new list")
    assert server.pexpiretime("Log:a::lines") == server.pexpiretime("Log:a") > 0
    loaded.name = "b"
    loaded.save(migrate_key=True)
    assert server.pexpiretime("Log:b::lines") == server.pexpiretime("Log:b") > 0
    loaded._ttl = None
    loaded.save()
    assert server.pexpiretime("Log:b::lines") == server.pexpiretime("Log:b") == -1


def test_an_expired_records_list_is_not_inherited(server):
    log = Log(name="a", lines=[1])
    log._ttl = 100
    log.save()
    server.delete("Log:a")
    assert Log.create(name="a").lines == []
    assert stored(server) == []


# -- reading -----------------------------------------------------------------------------------------------------------


def test_a_query_reads_all_its_lists_in_one_round_trip_at_the_first_look(server, round_trips):
    for n in range(30):
        Log.create(name=f"{n:02}", lines=[n])
    keys = [f"Log:{n:02}" for n in range(30)]
    for find in (lambda: Log.query.filter().all(), Log.query.all, lambda: Log.query.get_many(keys)):
        with round_trips() as trips:
            found = find()
        assert trips.count == 1, "they are not read before"
        with round_trips() as trips:
            assert [log.lines for log in found] == [[n] for n in range(30)]
        assert trips.count == 1
    with round_trips() as trips:
        one = Log.query.get(name="07")
        assert one.lines == [7] and one.lines is one.lines
    assert trips.count == 2


def test_what_was_assigned_meanwhile_is_not_overwritten_by_reading(server):
    Log.create(name="a", lines=[1])
    Log.create(name="b", lines=[2])
    first, second = Log.query.all()
    second.lines = ["mine"]
    assert first.lines == [1] and second.lines == ["mine"]


def test_values_and_to_dict_give_plain_lists(server, round_trips):
    for n in range(5):
        Log.create(name=str(n), lines=[n])
    with round_trips() as trips:
        rows = Log.query.filter(name__in=["1", "3", "4"]).values("lines", "name").limit(2).all()
    assert rows == [{"lines": [1], "name": "1"}, {"lines": [3], "name": "3"}] and type(rows[0]["lines"]) is list
    assert trips.count == 2
    assert Log.query.values("lines").order_by("-name").first() == {"lines": [4]}
    assert list(Log.query.values("lines").iterate()) == [{"lines": [n]} for n in range(5)]
    out = Log.query.get(name="2").to_dict()
    assert out == {"name": "2", "lines": [2], "count": 0} and type(out["lines"]) is list


def test_refresh_reads_the_list_again(server):
    log = Log.create(name="a", lines=[1])
    Log.lines.push(Log.query.get(name="a"), 2)
    log.lines.append("lost")
    log.refresh()
    assert log.lines == [2, 1]
    Log.lines.push(Log.query.get(name="a"), 3)
    log.refresh(["count"])
    assert log.lines == [2, 1]
    log.refresh(["lines"])
    assert log.lines == [3, 2, 1]


def test_nothing_is_filtered_ordered_or_computed_by_it(server):
    Log.create(name="a", lines=[1])
    for ask in (
        lambda: Log.query.filter(lines=[1]).all(),
        lambda: Log.query.filter(lines__in=[[1]]).all(),
        lambda: Log.query.order_by("lines").all(),
        lambda: Log.query.filter().distinct("lines"),
    ):
        with pytest.raises(QueryException, match="lines"):
            ask()
    with pytest.raises(TypeError):
        Log.query.get(name="a").atomic_increment("lines", 1)


def test_a_corrupt_element_is_an_error_that_names_the_record_and_only_that(server):
    for name in "abc":
        Log.create(name=name, lines=[name])
    server.lpush("Log:b::lines", b"\xc1")
    server.delete("Log:c::lines")
    server.set("Log:c::lines", "no list")
    first, second, third = Log.query.all()
    assert first.lines == ["a"]
    with pytest.raises(ModelException, match=r"Log:b.*lines"):
        _ = second.lines
    with pytest.raises(ModelException, match=r"Log:c::lines is no list"):
        _ = third.lines
    second.count = 3
    second.save()
    assert server.llen("Log:b::lines") == 2, "what cannot be read is left as it is"


def test_in_a_running_loop_the_twins_do_not_block(server):
    for name in "ab":
        Log.create(name=name, lines=[name])

    async def work():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = await Log.query.async_all()
            await Log.lines.async_read(found[0])
            assert [log.lines for log in found] == [["a"], ["b"]]
            await found[0].lines.async_push(1)
            other = await Log.query.async_get(name="b")
            await Log.lines.async_push(other, 2)
            assert await Log.lines.async_read(other) == [2, "b"]
            rows = [row async for row in Log.query.filter().values("lines")]
            assert rows == [{"lines": [1, "a"]}, {"lines": [2, "b"]}]
        blocking = await Log.query.async_get(name="a")
        with pytest.warns(RuntimeWarning, match="async_read"):
            assert blocking.lines == [1, "a"]

    asyncio.run(work())


# -- maintenance -------------------------------------------------------------------------------------------------------


def test_check_and_rebuild_leave_lists_alone_and_clean_removes_orphans(server):
    Log.create(name="a", lines=[1])
    Log.create(name="b")
    assert Log.check_indexes()["total"] == 0
    server.rpush("Log:gone::lines", b"\x01")
    assert Log.check_indexes()["lists"] == {"lines": 1}
    assert Log.clean_indexes() == 1
    assert not server.exists("Log:gone::lines")
    Log.rebuild_indexes()
    assert stored(server) == [b"\x01"] and Log.check_indexes()["total"] == 0


def test_a_record_of_before_the_field_takes_pushes_once_it_is_saved(server):
    def version(**body: Any) -> Any:
        return type(Model)(
            "CappedGrown", (Model,), {"name": KeyField(), **body, "__qualname__": "<locals>.CappedGrown"}
        )

    version().create(name="a")
    version().create(name="b")
    model = version(lines=ListField(max_length=3))
    a, b = model.query.all()
    assert a.lines == []
    with pytest.raises(ModelException, match="rebuild_indexes"):
        a.lines.push(1)
    a.save()
    a.lines.push(1)
    model.rebuild_indexes()
    model.lines.push(b, 2)
    model.delete_all()
    nothing_left(server)


# -- whatever happens --------------------------------------------------------------------------------------------------


def test_whatever_instances_push_and_save_the_list_is_what_a_plain_list_says(server):
    rnd = random.Random(3)
    truth: list[int] = []
    held: list[tuple[Any, list[int] | None]] = []  # (instance, what its list was when it was read or saved)
    Log.create(name="a")
    for step in range(600):
        if not held or rnd.random() < 0.2:
            held.append((Log.query.get(name="a"), None))
            held = held[-4:]
        place = rnd.randrange(len(held))
        log, base = held[place]
        action = rnd.randrange(5)
        if action == 0:
            Log.lines.push(log, step)
            truth = [step, *truth][:3]
            if base is not None:
                base = [step, *base][:3]
        elif action == 1:
            seen = log.lines
            if base is None:
                base = list(seen)
                assert seen == truth
        elif action == 2 and base is not None:
            edited = [rnd.randrange(9) for _ in range(rnd.randrange(5))]
            log.lines[:] = edited
        elif action == 3:
            log.save(update_fields=rnd.choice([None, ["lines"], ["lines", "count"]]))
            if base is not None and log.lines != base:
                truth = list(log.lines)
            if base is not None:
                base = list(log.lines)
        else:
            log.save(update_fields=["count"])
        held[place] = (log, base)
        assert Log.query.get(name="a").lines == truth, step
    indexes_agree(Log)
