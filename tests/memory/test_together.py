"""All primitives on one model: none gets in the way of another, maintenance knows them, nothing is left behind."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from popoto import (
    AccessTrackerMixin,
    BM25Field,
    ConfidenceField,
    CoOccurrenceField,
    CyclicDecayField,
    DecayingSortedField,
    ExistenceFilter,
    Field,
    KeyField,
    Model,
    ObservationProtocol,
    PredictionLedgerMixin,
    RecallProposal,
    WriteFilterMixin,
)
from tests.memory.traces import stored, traces


class Whole(AccessTrackerMixin, WriteFilterMixin, PredictionLedgerMixin, Model):
    name = KeyField()
    team = Field(default="red")
    text = Field(default="")
    seen = DecayingSortedField()
    due = CyclicDecayField(cycles=[(86_400, 1.0), (604_800, 0.5, 3.0)], pressure_rate=0.5, partition_by="team")
    certainty = ConfidenceField()
    trust = ConfidenceField(partition_by="team")
    links = CoOccurrenceField()
    leads = CoOccurrenceField(symmetric=False)
    known = ExistenceFilter(source="text", capacity=50)
    words = BM25Field("text")

    def compute_filter_score(self) -> float:
        return 0.9


links: Any = Whole._meta.fields["links"]
leads: Any = Whole._meta.fields["leads"]
known: Any = Whole._meta.fields["known"]


@pytest.fixture
def pair(server: redis.Redis) -> tuple[Whole, Whole]:
    """Two records with something in every primitive."""
    quokka = Whole.create(name="quokka", text="wombat apple")
    other = Whole.create(name="other", text="apple pear")
    Whole.query.all()
    quokka.confirm_access()
    Whole.query.get(name="quokka")
    for record in (quokka, other):
        Whole.record_prediction(record, {"a": 1})
    Whole.auto_resolve(quokka, "acted")
    RecallProposal.create_batch([quokka, other], partition="ann")
    quokka.strengthen_cycle("due", 2)
    links.link(Whole, quokka, other)
    leads.link(Whole, quokka, other)
    leads.link(Whole, other, quokka)
    ConfidenceField.update_confidence(quokka, "trust", 0.9)
    return quokka, other


def test_maintenance_finds_nothing_to_do(server: redis.Redis, pair: tuple[Whole, Whole]) -> None:
    before = stored(server)
    assert Whole.check_indexes()["total"] == 0
    assert Whole.clean_indexes() == 0
    assert stored(server) == before
    Whole.rebuild_indexes()
    learnt = {key: value for key, value in stored(server).items() if b"occ" not in key.lower()}
    assert learnt == {key: value for key, value in before.items() if b"occ" not in key.lower()}


def test_all_of_it_moves_to_another_key_and_partition(server: redis.Redis, pair: tuple[Whole, Whole]) -> None:
    quokka, other = pair
    quokka.name, quokka.team = "numbat", "blue"
    quokka.save(migrate_key=True)
    assert traces(server, "quokka") == []
    assert quokka.access_count == 1
    assert quokka.strengthen_cycle("due", 1.0)[0][1] == 2.0
    assert links.get_linked(Whole, other) == [(quokka.pk, 1.0)]
    assert ConfidenceField.get_confidence(quokka, "trust") == 0.9
    assert Whole.get_highest_errors(Whole) == [(quokka.pk, 0.1)]
    assert RecallProposal.get_pending(Whole, "ann")[-1][0] in (quokka.pk, other.pk)
    assert Whole.check_indexes()["total"] == 0


@pytest.mark.parametrize("how", ["delete", "bulk_delete", "outcome, then delete"])
def test_nothing_of_a_deleted_record_is_left_in_any_key(
    server: redis.Redis, pair: tuple[Whole, Whole], how: str
) -> None:
    quokka, other = pair
    if how == "bulk_delete":
        Whole.bulk_delete([quokka])
    else:
        if how != "delete":
            ObservationProtocol.on_context_used(pair, {quokka.pk: "contradicted", other.pk: "acted"})
        quokka.delete()
    assert traces(server, "quokka", "wombat") == []
    assert known.might_exist_batch(Whole, ["wombat", "apple"]) == {"wombat": False, "apple": True}
    assert Whole.check_indexes()["total"] == 0
    other.delete()
    assert stored(server) == {}


def test_delete_all_empties_the_database(server: redis.Redis, pair: tuple[Whole, Whole]) -> None:
    assert Whole.delete_all() == 2
    assert stored(server) == {}
