"""Relationships to and from models whose records lie in several slots."""

from __future__ import annotations

import asyncio

import pytest

import popoto
from popoto import redis_db
from tests.cluster.nodes import Cluster


class Worker(popoto.Model):
    """A slot a team; the boss may be of another team."""

    team = popoto.KeyField()
    name = popoto.KeyField()
    grade = popoto.SortedField(type=int, default=0)
    skills = popoto.ListField()
    boss = popoto.Relationship("self")

    class Meta:
        shard_by = "team"


class Task(popoto.Model):
    """In one slot; who does it lies in another."""

    title = popoto.KeyField()
    worker = popoto.Relationship(Worker)


@pytest.fixture
def office(cluster: Cluster) -> Cluster:
    ada = Worker.create(team="red", name="ada", grade=9, skills=["a"])
    bob = Worker.create(team="blue", name="bob", grade=5, boss=ada)
    cai = Worker.create(team="red", name="cai", grade=3, boss=bob, skills=["a", "b"])
    dan = Worker.create(team="green", name="dan", grade=1, boss=ada)
    for title, worker in (("t1", ada), ("t2", bob), ("t3", cai), ("t4", dan), ("t5", None)):
        Task.create(title=title, worker=worker)
    return cluster


def names(found: object) -> list[str]:
    return sorted(worker.name for worker in found)  # type: ignore[attr-defined]


def titles(found: object) -> list[str]:
    return sorted(task.title for task in found)  # type: ignore[attr-defined]


def test_a_record_of_another_shard_is_read_and_found_by(office: Cluster) -> None:
    ada = Worker.query.get(team="red", name="ada")
    assert [worker.boss and worker.boss.name for worker in Worker.query.all(order_by="grade")] == [
        "ada",
        "bob",
        "ada",
        None,
    ]
    assert names(Worker.query.filter(boss=ada)) == names(Worker.query.filter(boss="Worker:ada:red")) == ["bob", "dan"]
    assert names(Worker.query.filter(boss=None)) == ["ada"]


def test_filters_on_the_same_model_reach_all_of_its_shards(office: Cluster) -> None:
    assert names(Worker.query.filter(boss__grade__gt=4)) == ["bob", "cai", "dan"]
    assert names(Worker.query.filter(boss__team="blue")) == ["cai"]
    assert names(Worker.query.filter(boss__boss__name="ada")) == ["cai"]
    assert names(Worker.query.filter(team="red", boss__grade=5)) == ["cai"]
    assert names(Worker.query.filter(boss__skills=["a"])) == ["bob", "dan"]
    assert Worker.query.count(boss__grade__gt=4) == 3


def test_filters_of_a_model_in_one_slot_reach_all_shards_of_the_other(office: Cluster) -> None:
    assert titles(Task.query.filter(worker__team="red")) == ["t1", "t3"]
    assert titles(Task.query.filter(worker__grade__lt=5)) == ["t3", "t4"]
    assert titles(Task.query.filter(worker__boss__name="ada")) == ["t2", "t4"]
    assert titles(Task.query.filter(worker__boss__skills=["a"], worker__grade__gte=5)) == ["t2"]
    assert Task.query.count(worker__isnull=True) == 1
    tasks = list(Task.query.filter(worker__isnull=False).prefetch("worker__boss"))
    assert [task.worker.boss and task.worker.boss.name for task in tasks] == [None, "ada", "bob", "ada"]


def test_they_await_too(office: Cluster) -> None:
    async def run() -> None:
        assert titles(await Task.query.async_filter(worker__team="red")) == ["t1", "t3"]
        assert names(await Worker.query.async_filter(boss__grade__gt=4)) == ["bob", "cai", "dan"]
        task = await Task.query.async_get(title="t3")
        assert (await task.async_related("worker__boss")).name == "bob"
        await redis_db.close_async()

    asyncio.run(run())


def test_what_is_stored_says_nothing_of_the_slot(office: Cluster) -> None:
    task = Task.query.get(title="t1")
    client = redis_db.get_REDIS_DB()
    assert client.hget(task.pk, "worker").endswith(b"Worker:ada:red")
    assert b"{" not in client.hget(task.pk, "worker")
    assert Task.worker.key_of(task) == Worker.query.get(team="red", name="ada").pk


def test_get_or_create_and_refresh_work_in_a_shard(office: Cluster) -> None:
    worker, created = Worker.get_or_create(team="blue", name="eve", defaults={"grade": 2})
    assert created and not Worker.get_or_create(team="blue", name="eve")[1]
    Worker.update_or_create(team="blue", name="eve", defaults={"grade": 7})
    worker.refresh()
    assert worker.grade == 7
