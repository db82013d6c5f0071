"""Migrations over stored records: before and after against plain dicts, dry runs, kills, writers at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import hypothesis.strategies as st
import pytest
import redis
from hypothesis import HealthCheck, given, settings

from popoto import redis_db
from popoto.exceptions import ModelException
from popoto.memory.confidence import ConfidenceField
from popoto.memory.decay import DecayingSortedField
from popoto.memory.model import Model as MemoryModel
from popoto.migrations import AddField, DropField, Migration, RenameField, RenameModel, RetypeField
from popoto.orm.event_stream import EventStreamMixin
from popoto.orm.fields.base import Field
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import AutoKeyField, KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import FloatField, IntField, StringField
from popoto.orm.model import Model
from tests.migrations.models import fill, migration, new_order, old_order
from tests.orm.oracle import dump, indexes_agree, stored_records

Way = Any


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Way:
    """`way(migration.run, again=True)` calls it, or awaits `async_run` with the same arguments."""

    def call(method: Any, *args: Any, **kwargs: Any) -> Any:
        if request.param == "sync":
            return method(*args, **kwargs)
        return asyncio.run(getattr(method.__self__, f"async_{method.__name__}")(*args, **kwargs))

    return call


def stored(model: Any) -> dict[int, dict[str, Any]]:
    return {values["number"]: values for values in stored_records(model).values()}


def raws(client: redis.Redis, model: Any) -> list[set[bytes]]:
    return [set(client.hkeys(key)) for key in client.smembers(model._meta.keys.class_set)]


# -- the whole way -----------------------------------------------------------------------------------------------------


def test_fields_keys_and_indexes_become_those_of_the_new_model(server, way):
    expected = fill(old_order(), 50)
    model = new_order()

    report = way(migration(model, batch_size=8).run)

    assert stored(model) == expected
    assert (report.state, report.seen, report.total, report.migrated, report.moved) == ("finished", 50, 50, 50, 50)
    assert report.failed == 0 and set(report.steps.values()) == {50}
    assert all(names == {name.encode() for name in expected[0]} for names in raws(server, model))
    indexes_agree(model)
    assert model.check_indexes()["total"] == 0
    assert {o.number for o in model.query.filter(amount__lt=Decimal(10), customer="c1")} == {1, 8}
    assert {o.number for o in model.query.filter(status="paid", rank__gte=40)} == {40, 43, 46, 49}
    with pytest.raises(ModelException, match="already exists"):
        model.create(number=99, customer="c", amount=1, code="code7")


def test_a_dry_run_tells_and_writes_nothing(server, way):
    fill(old_order(), 30)
    model = new_order()
    before = dump(server)
    steps = []

    report = way(migration(model, batch_size=7).plan, progress=lambda done, total: steps.append((done, total)))

    assert dump(server) == before
    assert (report.state, report.seen, report.total, report.migrated, report.moved) == ("planned", 30, 30, 30, 30)
    assert steps[-1] == (30, 30) and len(steps) >= 5
    first = report.examples[0]
    assert (first.key, first.new_key, first.removed) == ("Order:0", "Order:c0:0", ["state", "total", "remark"])
    assert first.written["amount"] == Decimal("0.50")
    assert "30 of 30 records seen, 30 to change, 30 of them to another key" in str(report)
    assert migration(model).status() is None


def test_a_migration_that_is_done_is_not_walked_again(server, way, round_trips):
    fill(old_order(), 10)
    model = new_order()
    way(migration(model).run)
    before = dump(server)

    with round_trips() as trips:
        report = migration(model).run()
    assert (report.state, report.migrated, report.failed) == ("finished", 10, 0)
    assert trips.count == 1
    report = way(migration(model).run, again=True)
    assert (report.state, report.seen) == ("finished", 10)
    after = dump(server)
    assert {key: held for key, held in after.items() if b"$Migration" not in key} == {
        key: held for key, held in before.items() if b"$Migration" not in key
    }
    assert way(migration(model).status).migrated == 10


def test_a_batch_takes_two_round_trips(server, round_trips):
    fill(old_order(), 60)
    model = new_order()
    counts = []
    for batch_size in (60, 20):
        with round_trips() as trips:
            migration(model, batch_size=batch_size).run(again=True)
        counts.append(trips.count)
        server.flushall()
        fill(old_order(), 60)
    assert counts[1] - counts[0] == 2 * 2


def test_an_empty_store_is_done_at_once(server):
    report = migration(new_order()).run()
    assert (report.state, report.total, report.migrated) == ("finished", 0, 0)


def test_another_migration_of_the_same_name_begins_anew(server):
    fill(old_order(), 5)
    model = new_order()
    assert Migration("same", model, migration(model).steps).run().migrated == 5
    report = Migration("same", model, [DropField("nothing")]).run()
    assert (report.state, report.migrated, report.seen) == ("finished", 0, 5)


# -- steps -------------------------------------------------------------------------------------------------------------


def test_a_renamed_field_keeps_what_the_new_model_has_written_under_the_new_name(server):
    fill(old_order(), 3)
    model = new_order()
    key = "Order:1"
    server.hset(key, "amount", model._meta.fields["amount"].encode(Decimal("99")))
    migration(model).run()
    assert {n: values["amount"] for n, values in stored(model).items()} == {
        0: Decimal("0.50"),
        1: Decimal("99"),
        2: Decimal("2.50"),
    }
    indexes_agree(model)


def test_a_field_is_added_with_its_default_a_value_or_what_a_function_makes_of_the_record(server):
    def old() -> Any:
        class Added(Model):
            name = KeyField()
            gone = IntField(default=4)

        return Added

    class Added(Model):
        name = KeyField()
        plain = IntField(default=3)
        given = StringField()
        made = IndexedField(type=int)
        there = StringField()

    for name in "ab":
        old().create(name=name)
    server.hset("Added:b", "there", Added._meta.fields["there"].encode("mine"))
    steps = [
        AddField("plain"),
        AddField("given", default="x"),
        AddField("made", make=lambda record: record["gone"] * len(record["name"])),
        AddField("there", default="ours"),
        DropField("gone"),
    ]
    Migration("add", Added, steps).run()
    assert server.hget("Added:a", "plain") == b"\x03"
    rows = {v["name"]: v for v in stored_records(Added).values()}
    assert rows["a"] == {"name": "a", "plain": 3, "given": "x", "made": 4, "there": "ours"}
    assert rows["b"]["there"] == "mine"
    assert Added.query.filter(made=4).count() == 2
    indexes_agree(Added)


def test_values_are_retyped_and_those_that_have_the_type_stay(server):
    def old() -> Any:
        class Retyped(Model):
            name = KeyField()
            size = StringField(null=True)

        return Retyped

    class Retyped(Model):
        name = KeyField()
        size = IndexedField(type=int, null=True)

    for name, size in {"a": "12", "b": None, "c": "7"}.items():
        old().create(name=name, size=size)
    Retyped.create(name="d", size=5)
    report = Migration("retype", Retyped, [RetypeField("size")]).run()
    assert {v["name"]: v["size"] for v in stored_records(Retyped).values()} == {"a": 12, "b": None, "c": 7, "d": 5}
    assert report.steps == {"RetypeField(size)": 2}
    assert [r.name for r in Retyped.query.filter(size=12)] == ["a"]
    indexes_agree(Retyped)


def test_an_int_becomes_a_float_though_one_reads_as_the_other(server):
    def old() -> Any:
        class Bridged(Model):
            name = KeyField()
            cents = IntField()

        return Bridged

    class Bridged(Model):
        name = KeyField()
        cents = FloatField()

    old().create(name="a", cents=150)
    steps = [RetypeField("cents", convert=lambda cents: cents / 100, was=int)]
    for _ in range(2):
        Migration("bridge", Bridged, steps).run(again=True)
        assert Bridged.load(name="a").cents == 1.5


def test_an_index_that_the_new_model_has_is_filled_without_any_step(server):
    def old() -> Any:
        class Indexed(Model):
            name = KeyField()
            city = Field()
            age = IndexedField(type=int)

        return Indexed

    class Indexed(Model):
        name = KeyField()
        city = IndexedField()
        age = Field(type=int)

    for number in range(9):
        old().create(name=str(number), city=f"city{number % 3}", age=number)
    report = Migration("reindex", Indexed).run()
    assert (report.migrated, report.moved) == (9, 0)
    assert Indexed.query.filter(city="city1").count() == 3
    assert not server.keys("$IndexF:Indexed:age*")
    indexes_agree(Indexed)
    assert Migration("reindex 2", Indexed).plan().migrated == 0


def test_a_model_without_keys_of_its_own_gets_auto_keys_once(server):
    def old() -> Any:
        class Keyed(Model):
            name = KeyField()

        return Keyed

    class Keyed(Model):
        id = AutoKeyField()
        name = IndexedField()

    for name in "abc":
        old().create(name=name)
    assert Migration("auto", Keyed).run().moved == 3
    keys = set(server.smembers("$Class:Keyed"))
    assert len(keys) == 3 and all(len(key.split(b":")[1]) == 32 for key in keys)
    Migration("auto", Keyed).run(again=True)
    assert server.smembers("$Class:Keyed") == keys
    indexes_agree(Keyed)


def test_a_model_is_renamed(server, way):
    class Was(Model):
        name = KeyField()
        code = UniqueField()
        rank = SortedField(type=int, default=0)

    class Becomes(Model):
        name = KeyField()
        code = UniqueField()
        rank = SortedField(type=int, default=0)

    for number in range(20):
        record = Was(name=str(number), code=str(number), rank=number)
        record._ttl = 1000 if number % 2 else None
        record.save()
    Becomes.create(name="new", code="new", rank=-1)
    report = way(Migration("rename", Becomes, [RenameModel("Was")], batch_size=6).run)
    assert (report.state, report.moved, report.total) == ("finished", 20, 20)
    assert Becomes.query.count() == 21
    assert [r.name for r in Becomes.query.filter(rank__lt=2).order_by("rank")] == ["new", "0", "1"]
    assert 0 < server.ttl("Becomes:1") <= 1000 and server.ttl("Becomes:2") == -1
    assert [key for key in server.keys("*Was*") if b"$Migration" not in key] == []
    indexes_agree(Becomes)


def test_what_a_memory_field_has_learnt_follows_to_its_new_name(server):
    def old() -> Any:
        class Learnt(MemoryModel):
            name = KeyField()
            relevance = DecayingSortedField()
            belief = ConfidenceField()

        return Learnt

    class Learnt(MemoryModel):
        name = KeyField()
        freshness = DecayingSortedField()
        certainty = ConfidenceField()

    before = old().create(name="a")
    for _ in range(4):
        ConfidenceField.update_confidence(before, "belief", 0.9)
    learnt = type(before).load(name="a").belief
    touched = type(before).load(name="a").relevance
    Migration("m", Learnt, [RenameField("relevance", "freshness"), RenameField("belief", "certainty")]).run()
    after = Learnt.load(name="a")
    assert (after.certainty, after.freshness) == (learnt, touched)
    assert [key for key in server.keys("*belief*") + server.keys("*relevance*") if b"$Token" not in key] == []
    assert ConfidenceField.get_confidence_data(after, "certainty")["evidence_count"] == 4


def test_a_migration_is_told_of_in_the_event_stream(server):
    def old() -> Any:
        class Logged(EventStreamMixin, Model):
            _stream_partition_field = "team"
            name = KeyField()
            team = StringField()

        return Logged

    class Logged(EventStreamMixin, Model):
        _stream_partition_field = "group"
        name = KeyField()
        group = KeyField()

    old().create(name="a", team="x")
    Migration("m", Logged, [RenameField("team", "group")]).run()
    entries = [fields for _, fields in server.xrange("stream:mutations:x")]
    assert [(e[b"op"], e[b"pk"]) for e in entries] == [(b"create", b"Logged:a"), (b"update", b"Logged:x:a")]
    assert entries[1][b"old_pk"] == b"Logged:a"
    assert entries[1][b"changed_fields"] == b"group,team"
    assert server.keys("stream:*") == [b"stream:mutations:x"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    totals=st.lists(st.one_of(st.none(), st.decimals(-99, 99, places=2).map(str), st.text(max_size=3)), max_size=12),
    batch_size=st.integers(1, 5),
    stops=st.lists(st.integers(1, 3), max_size=3),
)
def test_whatever_is_stored_and_wherever_it_stops_each_record_is_converted_or_as_it_was(
    server, totals, batch_size, stops
):
    server.flushall()
    old, model = old_order(), new_order()
    expected, hopeless = {}, set()
    for number, total in enumerate(totals):
        old.create(number=number, total=total, code=str(number))
        try:
            amount = Decimal(total) if total is not None else None
        except InvalidOperation:
            amount = None
        if amount is None or not amount.is_finite():
            hopeless.add(f"Order:{number}".encode())
        else:
            expected[number] = amount
    before = {key: held for key, held in dump(server).items() if key in hopeless}

    for stop in stops:
        left = [stop]

        def interrupt(done: int, count: int, left: Any = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            migration(model, batch_size=batch_size).run(progress=interrupt)
    report = migration(model, batch_size=batch_size).run()

    assert report.migrated == len(expected)
    assert {key: held for key, held in dump(server).items() if key in hopeless} == before
    found = {o.number: (o.amount, o.customer) for o in model.query.all() if o.pk.encode() not in hopeless}
    assert found == {number: (amount, f"c{number % 7}") for number, amount in expected.items()}
    if not hopeless:
        assert report.state == "finished"
        indexes_agree(model)


# -- what cannot be converted ------------------------------------------------------------------------------------------


def test_records_that_cannot_be_converted_are_named_and_stay_as_they_are(server, way):
    old = old_order()
    expected = fill(old, 12)
    for number, text in {3: "a lot", 7: "nan?"}.items():
        order = old.load(number=number)
        order.total = text
        order.save()
    model = new_order()
    planned = way(migration(model).plan)
    before = {key: held for key, held in dump(server).items() if key in (b"Order:3", b"Order:7")}

    report = way(migration(model, batch_size=5).run)

    for told in (planned, report):
        assert sorted(problem.key for problem in told.problems) == ["Order:3", "Order:7"]
        assert all("RetypeField(amount): InvalidOperation" in problem.reason for problem in told.problems)
    assert (report.state, report.migrated, report.failed) == ("incomplete", 10, 2)
    assert "2 cannot be converted" in str(report)
    assert {key: held for key, held in dump(server).items() if key in before} == before
    assert migration(model).status().failed == 2

    for number in (3, 7):
        server.hset(f"Order:{number}", "total", b"\xa41.00")
        expected[number]["amount"] = Decimal("1.00")
    report = way(migration(model).run)
    assert (report.state, report.migrated) == ("finished", 12)
    assert stored(model) == expected
    indexes_agree(model)


def test_two_records_that_would_get_one_key_are_found_by_the_dry_run(server):
    def old() -> Any:
        class Clash(Model):
            name = KeyField()
            team = KeyField()

        return Clash

    class Clash(Model):
        team = KeyField()
        name = StringField()

    for name, team in (("a", "x"), ("b", "x"), ("c", "y")):
        old().create(name=name, team=team)
    Clash.create(team="y", name="there already")
    steps: list[Any] = []
    planned = Migration("clash", Clash, steps).plan()
    report = Migration("clash", Clash, steps).run()
    assert {p.key for p in planned.problems} == {"Clash:b:x", "Clash:c:y"} == {p.key for p in report.problems}
    assert all("which exists" in p.reason or "as Clash:" in p.reason for p in planned.problems)
    assert all("already exists" in p.reason for p in report.problems)
    assert report.state == "incomplete"
    assert {values["name"] for values in stored_records(Clash).values()} == {"a", "there already"}


def test_keys_that_move_up_one_after_the_other_get_free_in_time(server):
    def old() -> Any:
        class Chain(Model):
            number = KeyField(type=int)
            to = IntField()

        return Chain

    class Chain(Model):
        number = KeyField(type=int)

    for number in range(5):
        old().create(number=number, to=number + 1)

    class Renumber:
        """A step of one's own."""

        def __str__(self) -> str:
            return "Renumber"

        def bind(self, meta: Any) -> None: ...

        def apply(self, record: Any) -> bool:
            if "to" not in record:
                return False
            record.put("number", record["to"])
            del record.raw["to"]
            return True

    planned = Migration("chain", Chain, [Renumber()]).plan()
    report = Migration("chain", Chain, [Renumber()]).run()
    assert (planned.failed, report.state, report.migrated) == (0, "finished", 5)
    assert {values["number"] for values in stored_records(Chain).values()} == {1, 2, 3, 4, 5}
    indexes_agree(Chain)


def test_unique_values_that_clash_are_found_by_the_dry_run(server):
    def old() -> Any:
        class Twin(Model):
            name = KeyField()
            code = StringField()

        return Twin

    class Twin(Model):
        name = KeyField()
        code = UniqueField()

    for name, code in (("a", "1"), ("b", "2"), ("c", "1")):
        old().create(name=name, code=code)
    planned = Migration("twin", Twin).plan()
    report = Migration("twin", Twin).run()
    assert [p.key for p in planned.problems] == ["Twin:c"] == [p.key for p in report.problems]
    assert report.problems[0].reason.startswith("code: the value 1 already exists")
    assert report.migrated == 2


def test_a_new_field_that_may_not_be_none_needs_a_step(server):
    def old() -> Any:
        class Needs(Model):
            name = KeyField()

        return Needs

    class Needs(Model):
        name = KeyField()
        size = IntField(null=False)

    old().create(name="a")
    report = Migration("needs", Needs, []).plan()
    assert "size is None, and the field is not null" in report.problems[0].reason
    assert Migration("needs", Needs, [AddField("size", default=0)]).run().state == "finished"


def test_corrupt_values_and_foreign_keys_are_problems_of_their_own(server):
    expected = fill(old_order(), 5)
    model = new_order()
    server.hset("Order:1", "rank", b"\xc1")
    server.delete("Order:2")
    server.set("Order:2", "no hash")
    server.hset("Order:4", b"\xff\xfe", b"\x01")
    report = migration(model).run()
    assert {p.key: p.reason.split(":")[0] for p in report.problems} == {
        "Order:1": "Order",
        "Order:2": "the key holds a string, where a record is a hash",
    }
    assert stored(model) == {n: values for n, values in expected.items() if n in (0, 3, 4)}
    assert server.hget("Order:c4:4", b"\xff\xfe") == b"\x01"


def test_fields_that_no_step_knows_are_in_the_dry_run(server):
    fill(old_order(), 4)
    report = Migration("m", new_order(), migration(new_order()).steps[:-1]).plan()
    assert report.unknown_fields == {"remark": 4}
    assert "no step for the field 'remark' of 4 records" in str(report)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([RenameField("state", "nothing")], "has no field 'nothing'"),
        ([RenameField("status", "amount")], "still has the field 'status'"),
        ([AddField("size", default="many")], "expected int"),
        ([AddField("size", default=1, make=len)], "not both"),
        ([DropField("size")], "still has the field 'size'"),
        ([RetypeField("size", was=int)], "before and after"),
        ([RenameModel("Order")], "under this name now"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_steps_that_do_not_fit_the_model_are_refused(steps, words):
    with pytest.raises(ModelException, match=words):
        Migration("wrong", new_order(), steps)


def test_other_arguments_are_checked_too():
    with pytest.raises(ModelException, match="name="):
        Migration("", new_order())
    with pytest.raises(ModelException, match="model="):
        Migration("a", Model)
    with pytest.raises(ModelException, match="batch_size="):
        Migration("a", new_order(), batch_size=0)


# -- stores of earlier versions, expiry --------------------------------------------------------------------------------


def test_a_store_without_an_order_by_name_is_migrated_as_well(server):
    expected = fill(old_order(), 20)
    model = new_order()
    server.delete("$Order:Order")
    for number in range(20):
        server.delete(f"Order:{number}::$occ")
    before = dump(server)
    planned = migration(model, batch_size=6).plan()
    assert dump(server) == before
    assert planned.migrated == 20
    assert migration(model, batch_size=6).run().migrated == 20
    assert stored(model) == expected
    assert {o.number for o in model.query.filter(customer="c3")} == {3, 10, 17}


def test_a_record_that_expires_meanwhile_is_no_problem(server):
    old = old_order()
    fill(old, 4)
    record = old.load(number=2)
    record._ttl = timedelta(milliseconds=20)
    record.save()
    time.sleep(0.04)
    report = migration(new_order()).run()
    assert (report.state, report.migrated, report.failed) == ("finished", 3, 0)
    indexes_agree(new_order())


def test_the_time_to_live_stays(server):
    old = old_order()
    fill(old, 2)
    record = old.load(number=1)
    record._ttl = 500
    record.save()
    migration(new_order()).run()
    assert 0 < server.ttl("Order:c1:1") <= 500
    indexes_agree(new_order())


# -- others at work ----------------------------------------------------------------------------------------------------


def started(what: str, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.migrations.workers", what, url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})


def test_a_migration_that_is_killed_goes_on_where_it_was(server, shared_server):
    expected = fill(old_order(), 300)
    model = new_order()
    seen: list[int] = []
    for batches in (2, 3, 4):
        process = started("migrate", shared_server.url)
        assert process.stdout is not None
        for line in process.stdout:
            if line[0].isdigit():
                batches -= 1
            if batches == 0:
                break
        process.kill()
        process.communicate()
        status = migration(model).status()
        assert status.state == "running"
        seen.append(status.seen)
    assert seen == sorted(set(seen)), "each run went on where the last one had ended"

    report = migration(model).run()
    assert (report.state, report.migrated, report.moved) == ("finished", 300, 300)
    assert stored(model) == expected
    indexes_agree(model)


def test_programs_with_the_new_model_are_not_undone(server, shared_server):
    expected = fill(old_order(), 200)
    model = new_order()
    writers = [started("write", shared_server.url)]
    assert all(w.stdout is not None and w.stdout.readline() for w in writers)

    report = migration(model, batch_size=5).run()

    for writer in writers:
        writer.kill()
    lines = [line.split() for writer in writers for line in writer.communicate()[0].splitlines() if " " in line]
    touched = {int(number) for what, number in lines if what == "touched"}
    created = {int(number) for what, number in lines if what == "created"}
    assert report.state == "finished" and report.migrated == 200
    rows = stored(model)
    assert touched, "the writer met migrated records"
    for number in touched:
        assert (rows[number]["size"], rows[number]["status"]) == (77, "touched")
    for number, values in expected.items():
        if rows[number]["size"] == 1:
            assert rows[number] == values
    assert created <= set(rows)
    indexes_agree(model)


def test_a_record_that_changes_between_reading_and_writing_is_computed_anew(server, monkeypatch):
    fill(old_order(), 3)
    model = new_order()
    from popoto.migrations import migration as module

    original, interfered = module.converted, []

    def interfering(*args: Any, **kwargs: Any) -> Any:
        conversion = original(*args, **kwargs)
        if args[3] == "Order:1" and len(interfered) < 3:
            interfered.append(1)
            server.hset("Order:1", "total", b"\xa45." + b"%d0" % len(interfered))
        return conversion

    monkeypatch.setattr(module, "converted", interfering)
    report = migration(model).run()
    assert (report.state, report.migrated, len(interfered)) == ("finished", 3, 3)
    assert stored(model)[1]["amount"] == Decimal("5.30")
    indexes_agree(model)


def test_two_processes_may_run_one_migration(server, shared_server):
    expected = fill(old_order(), 200)
    processes = [started("migrate", shared_server.url) for _ in range(2)]
    assert all("finished" in process.communicate(timeout=60)[0] for process in processes)
    assert stored(new_order()) == expected
    status = migration(new_order()).status()
    assert (status.state, status.migrated) == ("finished", 200)
    indexes_agree(new_order())


def test_a_reply_that_is_lost_changes_nothing(server, shared_server):
    from tests.faults.proxy import cutting_proxy

    expected = fill(old_order(), 40)
    model = new_order()
    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        proxy.cut_replies(times=3)
        report = migration(model, batch_size=10).run()
        redis_db.configure_url(shared_server.url)
        assert proxy.cuts == 3
    assert (report.state, report.migrated) == ("finished", 40)
    assert stored(model) == expected
    indexes_agree(model)


def test_an_error_in_the_callback_ends_the_run_and_the_next_one_goes_on(server):
    expected = fill(old_order(), 30)
    model = new_order()

    def impatient(done: int, total: int) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migration(model, batch_size=5).run(progress=impatient)
    assert migration(model).status().state == "running"
    assert migration(model).run().migrated == 30
    assert stored(model) == expected
