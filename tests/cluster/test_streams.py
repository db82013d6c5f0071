"""Event streams, consumers and migrations on three masters."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from popoto import redis_db
from popoto.exceptions import ModelException, QueryException
from popoto.migrations import AddField, Migration, RenameField, RenameModel, RetypeField
from popoto.orm.event_stream import EventStreamMixin
from popoto.orm.fields.indexed import IndexedField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import IntField, StringField
from popoto.orm.model import Model
from popoto.streams import StreamConsumer
from tests.migrations.models import fill, migration, new_order, old_order


class Told(EventStreamMixin, Model):
    name = KeyField()
    size = IntField(default=0)


class ToldByAgent(EventStreamMixin, Model):
    _stream_partition_field = "agent"

    agent = KeyField()
    name = KeyField()

    class Meta:
        shard_by = "agent"


def changes(model: Any, *names: str) -> None:
    for name in names:
        record = model.create(name=name)
        record.atomic_increment("size", 1)
        record.delete()


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_stream_lies_with_its_model_and_a_consumer_reads_it(cluster, way):
    seen: list[str] = []
    options = {"block_ms": 200, "max_retries": 0, "claim_timeout_ms": 0}
    one = StreamConsumer(
        Told.event_stream_key(), "group", "one", lambda batch: seen.extend(e["op"] for _, e in batch), **options
    )
    process = one.process_batch_sync if way == "sync" else lambda: asyncio.run(one.process_batch())
    assert process() == 0
    changes(Told, "a", "b")
    assert process() == 6
    assert seen == ["create", "update", "delete"] * 2

    def fail(batch: Any) -> None:
        raise ValueError("no")

    bad = StreamConsumer(Told.event_stream_key(), "bad", "one", fail, **options)
    with pytest.raises(ValueError):
        bad.process_batch_sync()
    assert bad.process_batch_sync() == 0
    assert bad.dead_letter_key == "{Told}:dead:stream:mutations"
    assert redis_db.get_REDIS_DB().xlen(bad.dead_letter_key) == 6


def test_a_shard_has_streams_of_its_own(cluster):
    for agent in ("x", "y", "x"):
        ToldByAgent.create(agent=agent, name="a")
    client = redis_db.get_REDIS_DB()
    assert ToldByAgent.event_stream_key("x") == "{ToldByAgent:x}:stream:mutations:x"
    assert [client.xlen(ToldByAgent.event_stream_key(agent)) for agent in ("x", "y")] == [2, 1]
    with pytest.raises(QueryException, match="one shard"):
        ToldByAgent.event_stream_key()
    assert ToldByAgent.event_stream_key(shard="x") == "{ToldByAgent:x}:stream:mutations"


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_model_is_migrated(cluster, way):
    expected = fill(old_order(), 40)
    model = new_order()
    run = migration(model, batch_size=7)
    planned = run.plan()
    report = run.run() if way == "sync" else asyncio.run(run.async_run())
    assert (planned.migrated, report.state, report.migrated) == (40, "finished", 40)
    assert {o.number: {n: getattr(o, n) for n in expected[0]} for o in model.query.all()} == expected
    assert model.check_indexes()["total"] == 0


def sharded(new: bool) -> Any:
    if not new:

        class Task(Model):
            agent = KeyField()
            number = KeyField(type=int)
            cost = StringField()

            class Meta:
                shard_by = "agent"

        return Task

    class Task(Model):  # type: ignore[no-redef]
        agent = KeyField()
        number = KeyField(type=int)
        kind = KeyField()
        price = SortedField(type=Decimal)
        group = IndexedField(default="g")

        class Meta:
            shard_by = "agent"

    return Task


def test_each_shard_is_migrated_and_the_reports_are_one(cluster):
    old = sharded(new=False)
    for number in range(30):
        old.create(agent=f"a{number % 4}", number=number, cost=f"{number}.5" if number != 13 else "much")
    model = sharded(new=True)
    steps = [
        RenameField("cost", "price"),
        RetypeField("price", convert=Decimal),
        AddField("kind", default="k"),
        AddField("group", make=lambda record: record["agent"].upper()),
    ]
    told: list[tuple[int, int]] = []
    report = Migration("shards", model, steps, batch_size=3).run(progress=lambda *counts: told.append(counts))
    assert (report.state, report.total, report.migrated, report.moved, report.failed) == ("incomplete", 30, 29, 29, 1)
    assert "Task:a1:13" in report.problems[0].key and report.steps["AddField(group)"] == 29
    assert told[-1] == (30, 30)
    assert model.query.filter(group="A2", price__gt=20).count() == 2
    status = Migration("shards", model, steps).status()
    assert status is not None and (status.state, status.migrated) == ("incomplete", 29)

    steps[1] = RetypeField("price", convert=lambda text: Decimal(0))
    assert Migration("shards", model, steps).run().state == "finished"
    assert model.query.count() == 30
    assert model.check_indexes()["total"] == 0


def test_a_record_does_not_change_its_shard_in_a_migration(cluster):
    old = sharded(new=False)
    old.create(agent="1", number=1, cost="1")

    class Elsewhere:
        def __str__(self) -> str:
            return "Elsewhere"

        def bind(self, meta: Any) -> None: ...

        def apply(self, record: Any) -> bool:
            record.put("agent", "2")
            return True

    report = Migration("move", old, [Elsewhere()]).run()
    assert (report.state, report.migrated) == ("incomplete", 0)
    assert "does not move between shards" in report.problems[0].reason


def test_a_renamed_model_is_refused_with_what_to_do(cluster):
    with pytest.raises(ModelException, match="key_name = 'Was'"):
        Migration("rename", Told, [RenameModel("Was")]).plan()
