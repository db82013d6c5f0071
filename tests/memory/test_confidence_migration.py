"""ConfidenceField: data moved into partitions, and a prior that counts as evidence."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgpack
import pytest
import redis

from popoto import ConfidenceField, Field, KeyField, Model, ModelException, ObservationProtocol
from popoto.memory import confidence_migration
from tests.memory.traces import stored

BASE = "$ConfidencF:Migrating:certainty:data"


def before_and_after() -> tuple[Any, Any]:
    """One model, as it was and with partitions."""

    class Migrating(Model):
        name = KeyField()
        team = Field(default="red")
        certainty = ConfidenceField()

    class Migrated(Model):
        name = KeyField()
        team = Field(default="red")
        certainty = ConfidenceField(partition_by="team")

        class Meta:
            key_name = "Migrating"

    return Migrating, Migrated


Migrating, Migrated = before_and_after()


class Firm(Model):
    name = KeyField()
    certainty = ConfidenceField(prior_strength=3)


@pytest.fixture(params=["sync", "async"])
def migrate(request: pytest.FixtureRequest) -> Any:
    def call(*args: Any, **kwargs: Any) -> dict[str, Any]:
        if request.param == "sync":
            return ConfidenceField.migrate_to_partitioned(*args, **kwargs)
        return asyncio.run(ConfidenceField.async_migrate_to_partitioned(*args, **kwargs))

    return call


def learnt(server: redis.Redis) -> dict[str, dict[str, float]]:
    """Partition -> record -> confidence; the ordered sets say the same."""
    found = {}
    for key in server.keys(f"{BASE}*"):
        part = key.decode().removeprefix(BASE)
        if not part.startswith("::rank"):
            rows = {k.decode(): msgpack.unpackb(raw)["confidence"] for k, raw in server.hgetall(key).items()}
            ranked = dict(server.zrange(f"{BASE}::rank{part}", 0, -1, withscores=True))
            assert {k.decode(): score for k, score in ranked.items()} == rows
            found[part] = rows
    return found


def filled() -> None:
    for name, team, signal in [("a", "red", 0.9), ("b", "blue:1", 0.2), ("c", "red", 0.6)]:
        ConfidenceField.update_confidence(Migrating.create(name=name, team=team), "certainty", signal)


MOVED = {":red": {"Migrating:a": 0.9, "Migrating:c": 0.6}, ":blue{&#58;}1": {"Migrating:b": 0.2}}


def test_data_moves_into_the_partitions(server: redis.Redis, migrate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confidence_migration, "PAGE", 2)
    filled()
    before = stored(server)
    report = {"total": 3, "migrated": 0, "errors": [], "partitions": {"red": 2, "blue{&#58;}1": 1}}
    assert migrate(Migrated, "certainty", dry_run=True) == report
    assert stored(server) == before
    assert migrate(Migrated, "certainty") == {**report, "migrated": 3}
    assert learnt(server) == MOVED
    record = Migrated.query.get(name="a")
    assert ConfidenceField.get_confidence_data(record, "certainty")["evidence_count"] == 1
    assert ConfidenceField.update_confidence(record, "certainty", 0.5) == pytest.approx(0.9 - 0.4 / math.sqrt(2))
    assert migrate(Migrated, "certainty")["total"] == 0
    for record in Migrated.query.all():
        record.delete()
    assert stored(server) == {}


def test_what_cannot_be_moved_stays(server: redis.Redis, migrate: Any) -> None:
    filled()
    gone = msgpack.packb({"confidence": 0.7, "evidence_count": 1, "corroborations": 1, "contradictions": 0})
    server.hset(BASE, "Migrating:gone", gone)
    server.hset("Migrating:c", "team", b"\xc1")
    report = migrate(Migrated, "certainty")
    assert (report["total"], report["migrated"]) == (4, 2)
    assert sorted(error["member_key"] for error in report["errors"]) == ["Migrating:c", "Migrating:gone"]
    assert report["partitions"] == {"red": 1, "blue{&#58;}1": 1}
    assert set(server.hgetall(BASE)) == {b"Migrating:c", b"Migrating:gone"}
    assert server.hget(BASE, "Migrating:gone") == gone


def test_data_of_a_store_without_index_entries_moves_too(server: redis.Redis) -> None:
    filled()
    for key in [*server.keys("*$occ*"), *server.keys("$Occ*"), *server.keys(f"{BASE}::rank*")]:
        server.delete(key)
    assert ConfidenceField.migrate_to_partitioned(Migrated, "certainty")["migrated"] == 3
    assert learnt(server) == MOVED


def test_a_save_before_the_migration_has_moved_its_record(server: redis.Redis) -> None:
    filled()
    Migrated.query.get(name="a").save()
    report = ConfidenceField.migrate_to_partitioned(Migrated, "certainty")
    assert (report["total"], report["migrated"]) == (2, 2)
    assert learnt(server) == MOVED


def left_behind(server: redis.Redis, confidence: float, evidence: int) -> None:
    """What a process that knows of no partitions writes for a record that has its place in one."""
    data = {"confidence": confidence, "evidence_count": evidence, "corroborations": evidence, "contradictions": 0}
    server.hset(BASE, "Migrating:a", msgpack.packb(data))


@pytest.mark.parametrize(
    ("signals", "expected"), [([], 0.75), ([0.2, 0.2], 0.75), ([0.2, 0.2, 0.2], 0.2)], ids=["none", "less", "as much"]
)
def test_what_knows_more_counts_where_a_record_has_two_beliefs(
    server: redis.Redis, migrate: Any, signals: list[float], expected: float
) -> None:
    record = Migrated.create(name="a")
    for signal in signals:
        ConfidenceField.update_confidence(record, "certainty", signal)
    left_behind(server, 0.75, 3)
    assert migrate(Migrated, "certainty")["migrated"] == 1
    assert learnt(server) == {":red": {"Migrating:a": expected}}
    found = Migrated.query.get(name="a")
    assert found.certainty == expected
    assert ConfidenceField.get_confidence_data(found, "certainty")["evidence_count"] == 3
    found.delete()
    assert stored(server) == {}


def test_fields_that_cannot_be_migrated_are_refused(server: redis.Redis, migrate: Any) -> None:
    for model, name, message in [
        (Migrated, "team", "is no ConfidenceField"),
        (Migrated, "missing", "is no ConfidenceField"),
        (Migrating, "certainty", "has no partitions"),
    ]:
        with pytest.raises(ModelException, match=message):
            migrate(model, name)


def test_a_prior_counts_as_evidence(server: redis.Redis) -> None:
    firm = Firm.create(name="a")
    c = 0.5
    for evidence, signal in enumerate([0.9, 0.1, 1.0]):
        c += (signal - c) / math.sqrt(3 + evidence + 1)
        assert ConfidenceField.update_confidence(firm, "certainty", signal) == pytest.approx(c, rel=1e-15)
    ObservationProtocol.on_context_used([firm], {firm.pk: "contradicted"})
    assert firm.certainty == pytest.approx(c + (0.1 - c) / math.sqrt(7), rel=1e-15)
    assert ConfidenceField.get_confidence_data(firm, "certainty")["evidence_count"] == 4
    assert set(msgpack.unpackb(server.hget("$ConfidencF:Firm:certainty:data", "Firm:a"))) == {
        "confidence",
        "evidence_count",
        "corroborations",
        "contradictions",
    }


@pytest.mark.parametrize("strength", [-1, math.nan, math.inf, "1", None, True], ids=str)
def test_a_strength_that_is_none_is_refused(strength: Any) -> None:
    with pytest.raises(ModelException, match="prior_strength="):
        ConfidenceField(prior_strength=strength)
