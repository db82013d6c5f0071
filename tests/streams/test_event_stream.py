"""EventStreamMixin: an entry for each change, in its step, and none without one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from datetime import date, datetime, timedelta, timezone
from datetime import time as clock
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pytest
import redis
from hypothesis import HealthCheck, given, settings

from popoto import redis_db
from popoto.exceptions import ModelException
from popoto.orm.event_stream import EventStreamMixin
from popoto.orm.fields.base import Field
from popoto.orm.fields.datetime import DatetimeField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import (
    BooleanField,
    DateField,
    DecimalField,
    FloatField,
    IntField,
    ListField,
    StringField,
    TimeField,
)
from popoto.orm.model import Model
from popoto.streams import StreamConsumer
from tests.orm.oracle import indexes_agree
from tests.streams.models import Event, LoggedThing

MUTATIONS = "stream:mutations"


def entries(client: redis.Redis, stream: str = MUTATIONS) -> list[dict[str, str]]:
    return [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in client.xrange(stream)]


def told(client: redis.Redis, stream: str = MUTATIONS) -> list[tuple[str, str, str]]:
    return [(entry["op"], entry["pk"], entry["changed_fields"]) for entry in entries(client, stream)]


def test_each_change_appends_one_entry(server):
    thing = LoggedThing.create(name="a", code="x")
    thing.size = 2
    thing.save()
    thing.save(update_fields=["size", "code"])
    thing.atomic_increment("size", 3)
    thing.delete()

    pk = "LoggedThing:a"
    assert told(server) == [
        ("create", pk, ""),
        ("update", pk, ""),
        ("update", pk, "code,size"),
        ("update", pk, "size"),
        ("delete", pk, ""),
    ]
    first = entries(server)[0]
    assert set(first) == {"model", "pk", "op", "ts", "changed_fields"}
    assert first["model"] == "LoggedThing"
    assert abs(float(first["ts"]) - time.time()) < 60


def test_the_async_twins_append_the_same(server):
    async def main() -> None:
        thing = await LoggedThing.async_create(name="a", code="x")
        await thing.async_save(update_fields=["size"])
        await thing.async_atomic_increment("size", 3)
        await thing.async_delete()

    asyncio.run(main())
    assert [op for op, _, _ in told(server)] == ["create", "update", "update", "delete"]


def test_a_change_is_one_round_trip_with_its_entry(server, round_trips):
    thing = LoggedThing(name="a", code="x")
    for change in (thing.save, lambda: thing.atomic_increment("size", 1), thing.delete):
        with round_trips() as trips:
            change()
        assert trips.count == 1
    assert server.xlen(MUTATIONS) == 3


def test_changes_in_a_pipeline_append_when_it_runs(server):
    pipeline = redis_db.get_REDIS_DB().pipeline()
    thing = LoggedThing(name="a", code="x")
    thing.save(pipeline=pipeline)
    thing.atomic_increment("size", 1, pipeline=pipeline)
    thing.delete(pipeline=pipeline)
    assert told(server) == []
    pipeline.execute()
    assert [op for op, _, _ in told(server)] == ["create", "update", "delete"]


def test_whether_a_save_creates_is_what_the_server_says(server):
    LoggedThing.create(name="a", code="x")
    LoggedThing(name="a", code="x").save()  # another instance over the same record
    loaded = LoggedThing.load(name="a")
    assert loaded is not None
    loaded.save()
    LoggedThing.load(name="a").delete()
    loaded.save()  # stale: the record is new again
    assert [op for op, _, _ in told(server)] == ["create", "update", "update", "delete", "create"]


def test_a_refused_change_appends_nothing(server):
    LoggedThing.create(name="a", code="x")
    gone = LoggedThing.create(name="b", code="y")
    gone.delete()
    before = server.xlen(MUTATIONS)
    with pytest.raises(ModelException, match="already exists"):
        LoggedThing.create(name="c", code="x")
    with pytest.raises(ModelException, match="not stored"):
        gone.save(update_fields=["size"])
    with pytest.raises(TypeError):
        gone.atomic_increment("size", 1)
    assert gone.delete() is False
    assert server.xlen(MUTATIONS) == before


def test_a_save_that_pre_save_skips_appends_nothing(server):
    class Quiet(LoggedThing):
        def pre_save(self, **kwargs: Any) -> Any:
            return False

    assert Quiet.create(name="a", code="x")._saved_key is None
    assert server.xlen(MUTATIONS) == 0


def test_a_deletion_of_an_expired_record_and_its_expiry_append_nothing(server):
    thing = LoggedThing(name="a", code="x")
    thing._ttl = timedelta(milliseconds=30)
    thing.save()
    time.sleep(0.06)
    assert thing.delete() is False
    assert [op for op, _, _ in told(server)] == ["create"]
    LoggedThing(name="a", code="x").save()
    assert [op for op, _, _ in told(server)] == ["create", "create"]


def test_a_stream_key_of_another_type_refuses_the_change_whole(server):
    server.set(MUTATIONS, "text")
    with pytest.raises(ModelException, match="nothing was written"):
        LoggedThing.create(name="a", code="x")
    assert LoggedThing.query.count() == 0
    server.delete(MUTATIONS)
    thing = LoggedThing.create(name="a", code="x", size=1)
    server.delete(MUTATIONS)
    server.set(MUTATIONS, "text")
    for change in (lambda: thing.atomic_increment("size", 1), thing.delete):
        with pytest.raises(ModelException, match="nothing was written"):
            change()
    assert LoggedThing.load(name="a").size == 1


def test_a_repeat_after_a_lost_reply_appends_no_second_entry(server, shared_server):
    from tests.faults.proxy import cutting_proxy

    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        LoggedThing.create(name="warm", code="w").delete()
        server.delete(MUTATIONS)
        thing = LoggedThing(name="a", code="x")
        for change in (thing.save, lambda: thing.atomic_increment("size", 1), thing.delete):
            proxy.cut_replies()
            change()
        assert proxy.cuts == 3
    assert [op for op, _, _ in told(server)] == ["create", "update", "delete"]


# -- partitions and keys -----------------------------------------------------------------------------------------------


def test_a_record_is_logged_in_the_stream_of_its_partition(server):
    Event.create(name="a", agent="x:y-1")
    Event.create(name="b", agent="")
    Event.create(name="c")
    assert told(server, "stream:events:x:y-1") == [("create", "Event:a", "")]
    assert told(server, "stream:events:") == [("create", "Event:b", "")]
    assert told(server, "stream:events") == [("create", "Event:c", "")]
    assert Event.event_stream_key() == "stream:events"
    assert Event.event_stream_key("x:y-1") == "stream:events:x:y-1"


def test_a_record_that_changes_its_partition_leaves_the_old_stream_with_a_delete(server):
    event = Event.create(name="a", agent="old", count=1)
    event.agent, event.count = "new", 2
    event.save()

    assert told(server, "stream:events:old") == [("create", "Event:a", ""), ("delete", "Event:a", "")]
    assert told(server, "stream:events:new") == [("update", "Event:a", "")]
    left = entries(server, "stream:events:old")[-1]
    assert (left["moved_to"], left["count"], left["agent"]) == ("stream:events:new", "1", "old")
    assert entries(server, "stream:events:new")[-1]["count"] == "2"


def test_the_partition_is_the_stored_one_whatever_the_instance_believes(server):
    stale = Event.create(name="a", agent="old")
    fresh = Event.load(name="a")
    fresh.agent = "new"
    fresh.save(update_fields=["agent"])
    server.delete("stream:events:old", "stream:events:new")

    stale.agent = "never stored"
    stale.atomic_increment("count", 1)
    stale.save(update_fields=["count"])
    stale.delete()

    assert [op for op, _, _ in told(server, "stream:events:new")] == ["update", "update", "delete"]
    assert server.keys("stream:*") == [b"stream:events:new"]
    assert [entry["count"] for entry in entries(server, "stream:events:new")] == ["1", "1", "1"]
    assert {entry["agent"] for entry in entries(server, "stream:events:new")} == {"new"}


def test_an_increment_of_the_partition_field_moves_the_record(server):
    class ByNumber(EventStreamMixin, Model):
        _stream_partition_field = "shard"
        name = KeyField()
        shard = IntField(default=0)

    record = ByNumber.create(name="a")
    record.atomic_increment("shard", 5)
    assert [op for op, _, _ in told(server, MUTATIONS + ":0")] == ["create", "delete"]
    assert told(server, MUTATIONS + ":5") == [("update", "ByNumber:a", "shard")]


def test_a_record_that_moves_to_another_key_tells_the_old_one(server):
    event = Event.create(name="a", agent="x")
    event.name = "b"
    event.save(migrate_key=True)
    last = entries(server, "stream:events:x")[-1]
    assert (last["op"], last["pk"], last["old_pk"]) == ("update", "Event:b", "Event:a")
    assert server.xlen("stream:events:x") == 2

    event.name, event.agent = "c", "y"
    event.save(update_fields=["agent"], migrate_key=True)
    assert told(server, "stream:events:x")[-1] == ("delete", "Event:b", "")
    assert told(server, "stream:events:y") == [("update", "Event:c", "name,agent")]
    indexes_agree(Event)


# -- metadata ----------------------------------------------------------------------------------------------------------

ONE_OF_EACH = {
    "text": st.text(st.characters(codec="utf-8"), max_size=8),
    "whole": st.integers(-(2**70), 2**70),
    "real": st.floats(),
    "exact": st.decimals(allow_nan=False),
    "flag": st.booleans(),
    "day": st.dates(),
    "at": st.datetimes(timezones=st.one_of(st.none(), st.just(timezone(timedelta(hours=2))))),
    "of_day": st.times(),
}


class DescribedEvent(EventStreamMixin, Model):
    _stream_metadata_fields = ("text", "whole", "real", "exact", "flag", "day", "at", "of_day")

    name = KeyField()
    other = IntField(default=0)
    text = StringField(null=True)
    whole = IntField(null=True)
    real = FloatField(null=True)
    exact = DecimalField(null=True)
    flag = BooleanField(null=True)
    day = DateField(null=True)
    at = DatetimeField(null=True)
    of_day = TimeField(null=True)


def test_metadata_are_texts_of_the_values_and_empty_for_none(server):
    record = DescribedEvent.create(
        name="a",
        text="drei ü",
        whole=2**63,
        real=1e16,
        exact=Decimal("1.10"),
        flag=True,
        day=date(987, 1, 2),
        at=datetime(2020, 1, 2, 3, 4, 5),
        of_day=clock(1, 2, 3, 4),
    )
    record.save(update_fields=["other"])
    record.text = record.whole = record.real = record.exact = record.flag = record.day = record.at = None
    record.save()
    first, second, third = entries(server)
    expected = {
        "text": "drei ü",
        "whole": "9223372036854775808",
        "real": "1e+16",
        "exact": "1.10",
        "flag": "True",
        "day": "0987-01-02",
        "at": "2020-01-02 03:04:05",
        "of_day": "01:02:03.000004",
    }
    assert {name: first[name] for name in expected} == {name: second[name] for name in expected} == expected
    assert {name: third[name] for name in expected} == {**dict.fromkeys(expected, ""), "of_day": "01:02:03.000004"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.fixed_dictionaries(ONE_OF_EACH))
def test_metadata_read_as_str_of_the_value_has_it(server, values):
    server.delete(MUTATIONS)
    DescribedEvent(name="a", **values).save()
    (_, fields), *_ = server.xrevrange(MUTATIONS, count=1)
    stored = DescribedEvent.load(name="a")
    for name in ONE_OF_EACH:
        assert fields[name.encode()].decode() == str(getattr(stored, name)), name


def test_a_corrupt_value_does_not_stand_in_the_way_of_a_deletion(server):
    record = DescribedEvent.create(name="a", text="x")
    server.hset(record.pk, mapping={"text": b"\xd9", "whole": b"\xc4\x01a", "exact": b"\x81\xa1a\x01"})
    assert record.delete() is True
    assert [entries(server)[-1][name] for name in ("text", "whole", "exact")] == ["", "", ""]


# -- length and settings -----------------------------------------------------------------------------------------------


def test_a_stream_keeps_about_its_longest_length(server):
    class Short(EventStreamMixin, Model):
        _stream_max_length = 10
        name = KeyField()

    pipeline = redis_db.get_REDIS_DB().pipeline()
    for number in range(500):
        Short(name=str(number)).save(pipeline=pipeline)
    pipeline.execute()
    assert 10 <= server.xlen(MUTATIONS) < 250  # trimmed in whole nodes


def test_the_namespace_stands_in_front_of_the_stream(server, shared_server):
    redis_db.set_REDIS_DB_settings("staging", unix_socket_path=shared_server.socket)
    try:
        LoggedThing.create(name="a", code="x")
        assert LoggedThing.event_stream_key() == "staging:stream:mutations"
        assert told(server, "staging:stream:mutations") == [("create", "staging:LoggedThing:a", "")]
    finally:
        redis_db.set_REDIS_DB_settings("", unix_socket_path=shared_server.socket)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("_stream_name", ""),
        ("_stream_name", None),
        ("_stream_partition_field", "missing"),
        ("_stream_partition_field", "price"),
        ("_stream_max_length", 0),
        ("_stream_max_length", "10"),
        ("_stream_metadata_fields", "name"),
        ("_stream_metadata_fields", ("tags",)),
    ],
)
def test_a_wrong_setting_is_refused_where_the_model_is_defined(attribute, value):
    body = {"name": KeyField(), "price": FloatField(), "tags": ListField(), attribute: value, "__module__": __name__}
    with pytest.raises(ModelException, match=attribute):
        type(Model)("Wrong", (EventStreamMixin, Model), body)


def test_a_name_with_a_colon_would_make_partitions_ambiguous():
    with pytest.raises(ModelException, match="_stream_name"):

        class Wrong(EventStreamMixin, Model):
            _stream_name = "a:b"
            _stream_partition_field = "name"
            name = KeyField()


def test_a_metadata_field_that_does_not_exist_is_warned_of_and_empty(server, caplog):
    class Odd(EventStreamMixin, Model):
        _stream_metadata_fields = ("nmae",)
        name = KeyField()

    assert "nmae" in caplog.text
    Odd.create(name="a")
    assert entries(server)[-1]["nmae"] == ""


def test_an_abstract_base_may_name_fields_that_its_models_have(server):
    class Base(EventStreamMixin, Model):
        _stream_partition_field = "tenant"

        class Meta:
            abstract = True

    class Concrete(Base):
        name = KeyField()
        tenant = Field(default="t")

    Concrete.create(name="a")
    assert told(server, MUTATIONS + ":t") == [("create", "Concrete:a", "")]


def test_models_without_the_mixin_send_the_plain_scripts(server):
    from popoto.orm import increment, plan

    for script in (plan.COMMIT, plan.REMOVE, increment.INCREMENT):
        assert "XADD" not in script.source

    class Plain(Model):
        name = KeyField()
        rank = SortedField(type=int, default=0)

    record = Plain.create(name="a")
    record.atomic_increment("rank", 1)
    record.delete()
    assert server.keys("stream*") == []


# -- the whole way -----------------------------------------------------------------------------------------------------


def test_a_consumer_of_the_stream_can_mirror_the_records(server):
    mirror: dict[str, str] = {}

    def handler(batch: list[tuple[str, dict[str, str]]]) -> None:
        for _, entry in batch:
            if entry["op"] == "delete":
                mirror.pop(entry["pk"], None)
            else:
                mirror.pop(entry.get("old_pk", ""), None)
                mirror[entry["pk"]] = entry["count"]

    one = StreamConsumer(Event.event_stream_key("x"), "mirror", "one", handler, block_ms=0)
    events = [Event.create(name=str(n), agent="x", count=n) for n in range(6)]
    events[0].delete()
    events[1].atomic_increment("count", 10)
    events[2].agent = "elsewhere"
    events[2].save()
    events[3].name = "moved"
    events[3].save(migrate_key=True)
    one.process_batch_sync()
    assert mirror == {e.pk: str(e.count) for e in Event.query.filter(agent="x")}
    assert len(mirror) == 4


def test_stream_and_records_agree_when_writers_are_killed(server, shared_server):
    command = [sys.executable, "-m", "tests.streams.workers", "write", shared_server.url]
    workers = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(2)]
    acknowledged: list[tuple[str, str]] = []
    for worker in workers:
        assert worker.stdout is not None
        for _ in range(60):  # then it is killed wherever it is
            op, pk, _ = worker.stdout.readline().split()
            acknowledged.append((op, pk))
    for worker in workers:
        worker.kill()
        rest = worker.stdout.read() if worker.stdout else ""
        worker.wait()
        acknowledged += [(line.split()[0], line.split()[1]) for line in rest.splitlines() if len(line.split()) == 3]

    in_order: list[tuple[bytes, dict[str, str]]] = []
    for stream in server.scan_iter(match="stream:events*"):
        for entry_id, fields in server.xrange(stream):
            in_order.append((entry_id, {k.decode(): v.decode() for k, v in fields.items()}))
    logged: dict[str, list[dict[str, str]]] = {}
    for _, entry in sorted(in_order, key=lambda pair: float(pair[1]["ts"])):  # ids compare within one stream only
        if "moved_to" not in entry:
            logged.setdefault(entry["pk"], []).append(entry)

    counted: dict[tuple[str, str], int] = {}
    for op, pk in acknowledged:
        counted[op, pk] = counted.get((op, pk), 0) + 1
    for (op, pk), times in counted.items():
        assert sum(entry["op"] == op for entry in logged[pk]) >= times, f"an acknowledged {op} of {pk} has no entry"
    stored = {event.pk: event for event in Event.query.all()}
    assert set(stored) == {pk for pk, told_of in logged.items() if told_of[-1]["op"] != "delete"}
    for pk, told_of in logged.items():
        ops = [entry["op"] for entry in told_of]
        assert ops in (["create", "update", "update", "delete"][: len(ops)],), f"{pk}: {ops}"
        if pk in stored:
            event = stored[pk]
            assert (told_of[-1]["count"], told_of[-1]["agent"]) == (str(event.count), event.agent)
    indexes_agree(Event)


# -- bulk calls --------------------------------------------------------------------------------------------------------


def test_bulk_calls_append_an_entry_for_each_record(server):
    LoggedThing.bulk_create([LoggedThing(name=str(n), code=str(n)) for n in range(5)])
    assert told(server) == [("create", f"LoggedThing:{n}", "") for n in range(5)]
    server.delete(MUTATIONS)

    LoggedThing.bulk_update(LoggedThing.query.filter(name__in=["0", "1"]), size=7)
    assert sorted(told(server)) == [("update", f"LoggedThing:{n}", "size") for n in range(2)]
    server.delete(MUTATIONS)

    LoggedThing.bulk_delete(LoggedThing.query.filter(name="3"))
    assert told(server) == [("delete", "LoggedThing:3", "")]
    server.delete(MUTATIONS)

    assert LoggedThing.delete_all() == 4
    assert sorted(told(server)) == [("delete", f"LoggedThing:{n}", "") for n in (0, 1, 2, 4)]


def test_a_refused_batch_appends_nothing(server):
    LoggedThing.create(name="a", code="x")
    server.delete(MUTATIONS)
    with pytest.raises(ModelException):
        LoggedThing.bulk_create([LoggedThing(name="b", code="y"), LoggedThing(name="c", code="x")])
    assert told(server) == []


def test_bulk_calls_tell_the_partitions(server):
    events = [Event(name=str(n), agent=f"a{n % 2}") for n in range(4)]
    Event.bulk_create(events)
    assert [len(told(server, f"stream:events:a{n}")) for n in range(2)] == [2, 2]
    Event.bulk_update(Event.query.filter(agent="a0"), agent="a1")
    assert [op for op, _, _ in told(server, "stream:events:a0")] == ["create", "create", "delete", "delete"]
    assert [op for op, _, _ in told(server, "stream:events:a1")] == ["create", "create", "update", "update"]
    indexes_agree(Event)


def test_what_other_calls_save_is_told_of_as_well(server):
    LoggedThing.get_or_create(defaults={"code": "x"}, name="a")
    LoggedThing.update_or_create(defaults={"size": 4}, name="a")
    assert [op for op, _, _ in told(server)] == ["create", "update"]


def test_raw_updates_are_told_of(server):
    LoggedThing.create(name="a", code="x")
    assert LoggedThing.raw_update(["LoggedThing:a", "LoggedThing:gone"], size=3) == 1
    assert told(server)[-1] == ("update", "LoggedThing:a", "size")
    assert server.xlen(MUTATIONS) == 2
