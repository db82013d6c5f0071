"""Slots that move, nodes that come and masters that die, under load: nothing acknowledged is lost, nothing is wrong.

POPOTO_TEST_MOVING_S sets how long the slots move (unless given, a few seconds).
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from popoto import redis_db
from popoto.exceptions import UnknownOutcomeError
from popoto.orm.cluster_wire import slot_of
from popoto.orm.commands import Command
from popoto.orm.drivers import run_reads
from tests.cluster.models import Account, Note
from tests.cluster.nodes import Cluster
from tests.conftest import engine_binary

MOVING_S = float(os.environ.get("POPOTO_TEST_MOVING_S", "4"))
AGENTS = ("a", "b", "c", "d")
TAGS = ("{Account}:", *(f"{{Note:{agent}}}:" for agent in AGENTS))


class Writer:
    """Saves, deletes, increments and reads records of its own, and knows what was acknowledged."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rng = random.Random(name)
        self.accounts: dict[str, tuple[int, str]] = {}
        self.notes: dict[tuple[str, int], tuple[str, int]] = {}
        self.calls = 0
        self.wrong: list[str] = []

    def run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self.step()
                self.calls += 1
        except BaseException as error:
            self.wrong.append(f"{type(error).__name__}: {error}")
            raise

    def step(self) -> None:
        what = self.rng.random()
        if what < 0.25:
            name = f"{self.name}-{self.rng.randrange(20)}"
            balance, city = self.rng.randrange(1000), self.rng.choice(("Ulm", "Bonn"))
            Account(name=name, email=f"{name}@x", balance=balance, city=city).save()
            self.accounts[name] = (balance, city)
        elif what < 0.5:
            agent, number = self.rng.choice(AGENTS), hash(self.name) % 1000 * 100 + self.rng.randrange(20)
            Note(agent=agent, number=number, topic=self.name, hits=number).save()
            self.notes[agent, number] = (self.name, number)
        elif what < 0.6 and self.accounts:
            name = self.rng.choice(list(self.accounts))
            assert Account.query.get(name=name).delete()
            del self.accounts[name]
        elif what < 0.75 and self.notes:
            agent, number = self.rng.choice(list(self.notes))
            topic, hits = self.notes[agent, number]
            note = Note.query.get(agent=agent, number=number)
            self.check(note is not None and note.hits == hits, f"{agent} {number} has {note} for {hits}")
            self.check(note.atomic_increment("hits", 3) == hits + 3, f"{agent} {number} was counted wrongly")
            self.notes[agent, number] = (topic, hits + 3)
        elif what < 0.85:
            found = Note.query.filter(topic=self.name).count()
            self.check(found == len(self.notes), f"{found} notes counted, {len(self.notes)} saved")
        elif what < 0.95:
            agent = self.rng.choice(AGENTS)
            found = sorted(note.number for note in Note.query.filter(agent=agent, topic=self.name))
            mine = sorted(number for other, number in self.notes if other == agent)
            self.check(found == mine, f"{agent}: found {found}, saved {mine}")
        elif self.accounts:
            name = self.rng.choice(list(self.accounts))
            account = Account.query.get(name=name)
            self.check(
                account is not None and (account.balance, account.city) == self.accounts[name], f"{name} is {account}"
            )

    def check(self, right: bool, text: str) -> None:
        if not right:
            self.wrong.append(text)

    def verify(self) -> None:
        """Compare what is stored with what was acknowledged."""
        mine = {a.name: (a.balance, a.city) for a in Account.query.all() if a.name.startswith(f"{self.name}-")}
        assert mine == self.accounts
        notes = {(n.agent, n.number): (n.topic, n.hits) for n in Note.query.filter(topic=self.name)}
        assert notes == self.notes


def under_load(work: Callable[[], Any], writers: int = 3) -> list[Writer]:
    """Run `work` while writers are at work; return them when all have stopped."""
    stop = threading.Event()
    team = [Writer(f"w{number}") for number in range(writers)]
    threads = [threading.Thread(target=writer.run, args=(stop,)) for writer in team]
    for thread in threads:
        thread.start()
    try:
        work()
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    return team


def all_is_right(team: list[Writer]) -> None:
    assert [wrong for writer in team for wrong in writer.wrong] == []
    for writer in team:
        assert writer.calls > 20
        writer.verify()
    assert Account.check_indexes()["total"] == 0
    assert Note.check_indexes()["total"] == 0


@pytest.mark.parametrize("batch", [1, 50], ids=["a key at a time", "many keys at a time"])
def test_slots_move_back_and_forth_under_load(cluster: Cluster, batch: int) -> None:
    rng = random.Random(batch)
    moves = 0

    def move() -> None:
        nonlocal moves
        end = time.monotonic() + MOVING_S / 2
        while time.monotonic() < end:
            cluster.move_slot(slot_of(rng.choice(TAGS)), rng.choice(cluster.nodes), batch=batch)
            moves += 1

    team = under_load(move)
    cluster.wait_until_whole()
    assert moves > 2
    all_is_right(team)


def test_the_async_client_follows_slots_that_move(cluster: Cluster) -> None:
    rng = random.Random(3)

    async def count(number: int, until: float) -> int:
        account = await Account.async_create(name=f"n{number}", email=f"e{number}")
        done = 0
        while time.monotonic() < until:
            done += 1
            assert await account.async_atomic_increment("balance", 1) == done
            assert len(await Account.query.filter(balance=done, name=f"n{number}").async_all()) == 1
        return done

    async def work() -> list[int]:
        until = time.monotonic() + MOVING_S / 3
        stop = threading.Event()

        def move() -> None:
            while not stop.is_set():
                cluster.move_slot(slot_of("{Account}:"), rng.choice(cluster.nodes), batch=3)

        mover = asyncio.create_task(asyncio.to_thread(move))
        counts = await asyncio.gather(*(count(number, until) for number in range(8)))
        stop.set()
        await mover
        return counts

    counts = asyncio.run(work())
    assert [Account.query.get(name=f"n{number}").balance for number in range(8)] == counts
    assert all(counts)
    assert Account.check_indexes()["total"] == 0


def test_many_calls_in_one_round_trip_wait_for_a_slot_that_moves(cluster: Cluster) -> None:
    """Half of the records have moved: each is still read, and a script waits until the slot is whole again."""
    accounts = Account.bulk_create([Account(name=f"n{i}", email=f"e{i}", balance=i) for i in range(40)])
    slot = slot_of("{Account}:")
    source = cluster.owner(slot)
    target = next(node for node in cluster.nodes if node is not source)
    target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source.id)
    source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target.id)
    keys = source.client.execute_command("CLUSTER GETKEYSINSLOT", slot, 60)
    source.client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    finishing = threading.Timer(0.4, cluster.move_slot, (slot, target, source))
    found = run_reads([Command(("HGET", account.pk, "balance")) for account in accounts])
    assert [msgpack.unpackb(raw) for raw in found] == list(range(40))
    assert all(Account.query.get(account.pk) == account for account in accounts)
    finishing.start()
    assert [a.balance for a in Account.query.get_many([a.pk for a in accounts])] == list(range(40))
    assert Account.query.filter(balance__gte=0).count() == 40
    finishing.join()
    cluster.wait_until_whole()


def test_a_new_master_takes_slots_under_load() -> None:
    cluster = Cluster(engine_binary())
    try:
        redis_db.configure_url(cluster.url)

        def grow() -> None:
            time.sleep(0.3)
            node = cluster.add_master()
            for tag in TAGS:
                cluster.move_slot(slot_of(tag), node, batch=20)
            time.sleep(0.3)

        team = under_load(grow)
        assert {cluster.owner(slot_of(tag)) for tag in TAGS} == {cluster.nodes[-1]}
        all_is_right(team)
    finally:
        redis_db.close()
        cluster.remove()


def test_a_replica_takes_over_and_indexes_agree() -> None:
    cluster = Cluster(engine_binary())
    try:
        master = cluster.owner(slot_of("{Account}:"))
        for _ in range(2):  # one takes over, the other goes on as its replica
            cluster.add_replica(master)
        redis_db.configure_url(f"{cluster.url}?wait_replicas=1")
        unknown: list[str] = []

        class Patient(Writer):
            def step(self) -> None:
                name = f"{self.name}-{self.rng.randrange(1_000_000)}"
                try:
                    Account(name=name, email=name, balance=1).save()
                except UnknownOutcomeError:
                    unknown.append(name)
                else:
                    self.accounts[name] = (1, "")

        stop = threading.Event()
        team = [Patient(f"w{number}") for number in range(2)]
        threads = [threading.Thread(target=writer.run, args=(stop,)) for writer in team]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        before = [len(writer.accounts) for writer in team]
        master.kill()
        cluster.nodes.remove(master)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and any(
            len(writer.accounts) < had + 20 for writer, had in zip(team, before, strict=True)
        ):
            time.sleep(0.1)
        stop.set()
        for thread in threads:
            thread.join(60)
        assert [wrong for writer in team for wrong in writer.wrong] == []
        assert all(len(writer.accounts) >= had + 20 for writer, had in zip(team, before, strict=True))
        found = {account.name for account in Account.query.all()}
        assert {name for writer in team for name in writer.accounts} <= found
        assert found <= {name for writer in team for name in writer.accounts} | set(unknown)
        assert Account.check_indexes()["total"] == 0
    finally:
        redis_db.close()
        cluster.remove()
