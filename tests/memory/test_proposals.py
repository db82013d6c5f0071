"""RecallProposal: pending until answered, wherever it was made; nothing is left of a record that goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from popoto import BM25Field, Field, IntField, KeyField, Model, ModelException, RecallProposal, SortedField
from popoto.memory import clock, proposals
from tests.memory.traces import WAYS, stored, traces

T0 = 1_700_000_000.5


class Recalled(Model):
    name = KeyField()
    text = Field(default="")
    rank = SortedField(default=0.0)
    count = IntField(default=0)
    words = BM25Field("text")


class OtherRecalled(Model):
    name = KeyField()


@pytest.fixture(params=WAYS, ids=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The calls are static: `way(name, ...)` makes the call of that name, or awaits its async twin."""
    import asyncio

    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        if request.param is WAYS[0]:
            return getattr(RecallProposal, name)(*args, **kwargs)
        return asyncio.run(getattr(RecallProposal, f"async_{name}")(*args, **kwargs))

    return call


@pytest.fixture(autouse=True)
def frozen() -> Iterator[clock.FrozenClock]:
    with clock.frozen(T0) as still:
        yield still


def pending(server: redis.Redis, partition: str = "default", model: str = "Recalled") -> dict[str, float]:
    found = server.zrange(f"$RP:{model}:pending:{partition}", 0, -1, withscores=True)
    return {key.decode(): at for key, at in found}


def test_a_batch_is_proposed_in_one_call(
    server: redis.Redis, way: Callable[..., Any], frozen: clock.FrozenClock, round_trips: Any
) -> None:
    a, b = Recalled.create(name="a"), Recalled.create(name="b")
    assert way("create_batch", [a]) is None
    frozen.advance(10)
    assert way("create_batch", iter([b]), reason="due") is None
    assert pending(server) == {"Recalled:a": T0, "Recalled:b": T0 + 10}
    assert way("get_pending", Recalled) == way("get_pending", a) == [("Recalled:a", T0), ("Recalled:b", T0 + 10)]
    frozen.advance(10)
    with round_trips() as trips:
        RecallProposal.create_batch([a, b])
    assert trips.count == 1
    assert way("get_pending", Recalled) == [("Recalled:a", T0 + 20), ("Recalled:b", T0 + 20)]
    assert way("create_batch", []) is None


def test_partitions_and_models_are_apart(server: redis.Redis, way: Callable[..., Any]) -> None:
    a, other = Recalled.create(name="a"), OtherRecalled.create(name="a")
    way("create_batch", [a, other], partition="ann:1")
    way("create_batch", [a], partition="bob")
    assert pending(server, "ann{&#58;}1") == {"Recalled:a": T0}
    assert way("get_pending", Recalled, "ann:1") == way("get_pending", Recalled, "bob") == [("Recalled:a", T0)]
    assert way("get_pending", OtherRecalled, "ann:1") == [("OtherRecalled:a", T0)]
    assert way("get_pending", Recalled) == way("get_pending", OtherRecalled, "bob") == []
    assert way("resolve", a, "acted", partition="bob") == 1
    assert way("get_pending", Recalled, "ann:1") == [("Recalled:a", T0)]


def test_a_proposal_is_resolved_once(server: redis.Redis, way: Callable[..., Any]) -> None:
    a = Recalled.create(name="a")
    way("create_batch", [a])
    before = server.get("Recalled:a::$occ")
    assert way("resolve", a, "anything") == 1
    assert way("resolve", a, "anything") == 0
    assert pending(server) == {}
    assert server.get("Recalled:a::$occ") != before


def test_the_stale_ones_go(server: redis.Redis, way: Callable[..., Any], frozen: clock.FrozenClock) -> None:
    for number in range(3):
        RecallProposal.create_batch([Recalled.create(name=str(number))], partition="p")
        frozen.advance(100)
    frozen.at = T0 + 3600
    assert way("expire_stale", Recalled, "p") == ["Recalled:0"]
    assert way("expire_stale", Recalled, "p", 3500) == ["Recalled:1"]
    assert way("expire_stale", Recalled, "p", ttl=3401) == []
    assert way("expire_stale", Recalled) == []
    assert pending(server, "p") == {"Recalled:2": T0 + 200}


def test_many_go_in_slices(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "ROWS", 3)
    records = [Recalled.create(name=str(number)) for number in range(8)]
    RecallProposal.create_batch(records)
    assert len(RecallProposal.get_pending(Recalled)) == 8
    assert sorted(RecallProposal.expire_stale(Recalled, ttl=0)) == [record.pk for record in records]
    assert RecallProposal.get_pending(Recalled) == []


def test_what_is_not_stored_is_not_proposed(server: redis.Redis, way: Callable[..., Any]) -> None:
    a, gone = Recalled.create(name="a"), Recalled.create(name="gone")
    Recalled(name="gone").delete()
    before = stored(server)
    with pytest.raises(TypeError, match="never saved"):
        way("create_batch", [a, Recalled(name="new")])
    assert stored(server) == before
    way("create_batch", [gone])
    assert stored(server) == before
    assert way("resolve", Recalled(name="new"), "acted") == 0


def test_calls_can_be_queued(server: redis.Redis, way: Callable[..., Any]) -> None:
    a = Recalled.create(name="a")
    pipeline = server.pipeline()
    assert way("create_batch", [a], pipeline=pipeline) is pipeline
    assert way("create_batch", [a], partition="p", pipeline=pipeline) is pipeline
    assert way("resolve", a, "used", pipeline=pipeline) is pipeline
    assert pending(server) == {}
    assert pipeline.execute() == [1, 1, 1]
    assert (pending(server), pending(server, "p")) == ({}, {"Recalled:a": T0})


def test_a_foreign_key_in_the_way_is_refused(server: redis.Redis) -> None:
    a = Recalled.create(name="a")
    server.set("$RP:Recalled:pending:default", "mine")
    before = stored(server)
    for call in (lambda: RecallProposal.create_batch([a]), lambda: RecallProposal.resolve(a, "used")):
        with pytest.raises(ModelException, match="nothing was written"):
            call()
    with pytest.raises(ModelException):
        RecallProposal.expire_stale(Recalled)
    assert stored(server) == before


def test_expired_records_are_not_pending(server: redis.Redis) -> None:
    a = Recalled.create(name="a")
    RecallProposal.create_batch([a])
    server.pexpire(a.pk, 1)
    time.sleep(0.01)
    assert RecallProposal.get_pending(Recalled) == []


# -- with the record ---------------------------------------------------------------------------------------------------


@pytest.fixture
def quokka(server: redis.Redis) -> Recalled:
    record = Recalled.create(name="quokka", text="apple pie")
    for partition in (None, "ann"):
        RecallProposal.create_batch([record], partition=partition)
    return record


def test_saves_keep_a_proposal(server: redis.Redis, quokka: Recalled) -> None:
    for change in (
        lambda: quokka.save(),
        lambda: quokka.save(update_fields=["text"]),
        lambda: Recalled(name="quokka", text="plum cake").save(),
        lambda: quokka.atomic_increment("count", 1),
        lambda: quokka.save(),
    ):
        change()
        assert pending(server) == pending(server, "ann") == {"Recalled:quokka": T0}
    assert [r.name for r in Recalled.query.filter(rank=0.0)] == ["quokka"]
    quokka.delete()
    assert stored(server) == {}


@pytest.mark.parametrize("fields", [None, ["name"]], ids=["whole", "partial"])
def test_a_proposal_follows_the_record_to_another_key(
    server: redis.Redis, quokka: Recalled, fields: list[str] | None
) -> None:
    quokka.name = "numbat"
    quokka.save(migrate_key=True, update_fields=fields)
    assert pending(server) == pending(server, "ann") == {"Recalled:numbat": T0}
    assert traces(server, "quokka") == []
    quokka.delete()
    assert stored(server) == {}


def test_delete_takes_proposals_along(server: redis.Redis, quokka: Recalled) -> None:
    quokka.delete()
    assert stored(server) == {}


def test_a_record_created_anew_after_its_expiry_is_not_proposed(server: redis.Redis, quokka: Recalled) -> None:
    server.pexpire(quokka.pk, 1)
    time.sleep(0.01)
    again = Recalled.create(name="quokka")
    assert pending(server) == pending(server, "ann") == {}
    again.delete()
    assert stored(server) == {}


def test_expiry_takes_proposals_along_with_the_next_write(server: redis.Redis, quokka: Recalled) -> None:
    quokka._ttl = 0.02
    quokka.save()
    Recalled.create(name="b")
    time.sleep(0.05)
    Recalled.create(name="c")
    assert traces(server, "quokka", "apple") == []
