"""Calls on a model with Meta.shard_by: what they cost, what they refuse, and what holds while others write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import popoto
from popoto import redis_db
from popoto.memory.prediction import PredictionLedgerMixin as Ledger
from popoto.memory.proposals import RecallProposal
from popoto.recipes import ContextAssembler
from popoto.testing import frozen_time
from tests.cluster.models import Note, Reflection
from tests.cluster.nodes import Cluster
from tests.cluster.test_sharded_memory import AGENTS, KNOWN, LINKS, NOW, RHYTHM, TRUST, filled, one, without_tags
from tests.conftest import Server

query: Any = Reflection.query


@pytest.fixture
def thoughts(cluster: Cluster) -> Any:
    with frozen_time(NOW):
        filled()
        yield


# -- the shard of one agent -------------------------------------------------------------------------------------------


def context_of_one_agent() -> Any:
    result = ContextAssembler(Reflection, {"relevance": 1.0, "certainty": 0.5}).assemble(
        {"q": "red fox"}, agent_id="c:3"
    )
    return without_tags([result.records, result.formatted, result.metadata["scores"]])


def test_the_context_of_an_agent_is_that_of_a_store_of_its_own(thoughts: None) -> None:
    popoto.ConfidenceField.update_confidence(one("c:3", 4), "certainty", 0.9)
    on_three_masters = context_of_one_agent()
    records = [thought.to_dict() for thought in query.no_track().filter(agent_id="c:3")]
    redis_db.close()
    server = Server()
    server.start()
    try:
        redis_db.configure_url(server.url)
        for values in records:
            touched = values.pop("relevance")
            kept = {name: values[name] for name in ("agent_id", "number", "topic", "text", "importance", "weight")}
            with frozen_time(touched):
                Reflection.create(**kept)
        popoto.ConfidenceField.update_confidence(one("c:3", 4), "certainty", 0.9)
        assert context_of_one_agent() == on_three_masters
        assert len(on_three_masters[0]) == 9
    finally:
        redis_db.close()
        server.remove()


def test_a_context_over_all_shards_costs_writes_to_the_masters_and_not_to_the_shards(
    thoughts: None, cluster: Cluster, round_trips: Any
) -> None:
    for agent in range(60):
        Reflection.create(agent_id=f"agent{agent}", number=1, text="red fox")
    with round_trips() as in_a_shard:
        context_of_one_agent()
    assembler = ContextAssembler(Reflection, {"relevance": 1.0, "certainty": 0.5})
    with round_trips() as over_all:
        found = assembler.assemble({"q": "red fox"})
    assert len({record.agent_id for record in found.records}) > 1
    assert in_a_shard.count <= 5
    assert over_all.count <= (in_a_shard.count + 2) * (1 + len(cluster.nodes)) < len(AGENTS) + 60


# -- calls without a shard that only one can answer -------------------------------------------------------------------

REFUSED: dict[str, Callable[[], Any]] = {
    "explain": lambda: query.filter(topic="tea").explain(),
    "why_not": lambda: query.why_not(one("a-1", 1), {"certainty": 1.0}),
    "fill_ratio": lambda: KNOWN.fill_ratio(Reflection),
    "a topic's edges": lambda: LINKS.get_linked(Reflection, "tea"),
    "a topic's strength": lambda: LINKS.strengthen(Reflection, "tea", "sea"),
    "a topic's spread": lambda: LINKS.propagate(Reflection, ["tea"]),
    "edge keys": lambda: LINKS.get_edge_key_prefix(Reflection),
    "keys of cycles": lambda: RHYTHM.get_cycles_hash_key_from_parts(Reflection, "rhythm"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_one_shard_alone_can_answer_asks_for_its_name(thoughts: None, name: str) -> None:
    with pytest.raises(popoto.QueryException, match=r"filter\(agent_id=\.\.\.\).*with Reflection\.in_shard"):
        REFUSED[name]()


@pytest.mark.parametrize("name", [name for name in REFUSED if name != "why_not"])
def test_with_its_name_it_is_answered(thoughts: None, name: str) -> None:
    with Reflection.in_shard("c:3"):
        REFUSED[name]()


def test_a_partition_may_name_the_shard(thoughts: None) -> None:
    key = TRUST.get_data_hash_key_from_values(Reflection, "trust", agent_id="c:3")
    assert key.startswith("{Reflection:c%3A3}:")


def test_no_edge_leads_to_another_shard(thoughts: None) -> None:
    with pytest.raises(ValueError, match="no edge leads from one shard to another"):
        LINKS.link(Reflection, one("a-1", 1), one("c:3", 1))
    assert LINKS.get_linked(Reflection, one("a-1", 1)) == []


# -- a model without a shard yet --------------------------------------------------------------------------------------


def test_an_empty_model_answers_and_refuses_as_one_server(cluster: Cluster) -> None:
    assert query.top_by_decay("relevance") == []
    assert query.keyword_search("red") == []
    assert popoto.BM25Field.search(Reflection, "words", "red") == []
    assert popoto.BM25Field.get_idf(Reflection, "words", ["red"]) == {"red": 0.0}
    assert Ledger.get_highest_errors(Reflection) == []
    assert RecallProposal.get_pending(Reflection) == []
    assert not KNOWN.might_exist(Reflection, "red")
    assert ContextAssembler(Reflection, {"certainty": 1.0}).assemble({"q": "red"}).records == []
    assert list(query.iterate()) == []
    with pytest.raises(popoto.QueryException, match="nothing"):
        query.composite_score({"nothing": 1.0})
    with pytest.raises(TypeError, match="whole number"):
        query.top_by_decay("relevance", n="many")
    with pytest.raises(popoto.QueryException, match="no BM25Field"):
        popoto.BM25Field.search(Reflection, "text", "red")


# -- the async twins --------------------------------------------------------------------------------------------------


def test_the_async_twins_give_the_same(thoughts: None) -> None:
    Ledger.record_prediction(one("a-1", 1), {"n": 1})
    Ledger.resolve_prediction(one("a-1", 1), {"n": 3})
    RecallProposal.create_batch([one("a-1", 3), one("dé}", 3)], partition="asked")
    sketch: Any = Reflection._meta.fields["counted"]

    async def twins() -> list[Any]:
        fields = popoto.BM25Field, popoto.ConfidenceField
        return [
            await fields[0].async_search(Reflection, "words", "red fox"),
            await fields[0].async_get_idf(Reflection, "words", ["red"]),
            await fields[1].async_get_confidence_filtered(Reflection, "certainty"),
            await KNOWN.async_might_exist_batch(Reflection, ["quokka", "dodo"]),
            await sketch.async_get_frequency(Reflection, "red"),
            await Ledger.async_get_highest_errors(Reflection),
            await RecallProposal.async_get_pending(Reflection, "asked"),
            await query.async_keyword_search("red fox"),
            (await ContextAssembler(Reflection, {"certainty": 1.0}).async_assemble({"q": "red"})).records,
            [thought async for thought in query.order_by("-weight").iterate(chunk_size=5)],
        ]

    assert asyncio.run(twins()) == [
        popoto.BM25Field.search(Reflection, "words", "red fox"),
        popoto.BM25Field.get_idf(Reflection, "words", ["red"]),
        popoto.ConfidenceField.get_confidence_filtered(Reflection, "certainty"),
        KNOWN.might_exist_batch(Reflection, ["quokka", "dodo"]),
        sketch.get_frequency(Reflection, "red"),
        Ledger.get_highest_errors(Reflection),
        RecallProposal.get_pending(Reflection, "asked"),
        query.keyword_search("red fox"),
        ContextAssembler(Reflection, {"certainty": 1.0}).assemble({"q": "red"}).records,
        list(query.order_by("-weight").iterate(chunk_size=5)),
    ]


# -- going through all shards -----------------------------------------------------------------------------------------


def notes(*pairs: tuple[str, int]) -> None:
    for agent, number in pairs:
        Note.create(agent=agent, number=number, weight=float(number))


def numbers(found: Any) -> list[int]:
    return [note.number for note in found]


def test_a_cursor_survives_writers_in_every_shard_and_shards_that_come(cluster: Cluster) -> None:
    notes(("a", 10), ("b", 20), ("c", 30), ("a", 40), ("b", 50), ("c", 60))
    going = Note.query.order_by("weight").iterate(chunk_size=2)
    assert numbers(next(iter(going.chunks()))) == [10, 20]
    Note.query.get(agent="c", number=30).delete()
    notes(("a", 5), ("b", 45), ("new", 47), ("new", 1))
    again = Note.query.order_by("weight").iterate(chunk_size=2, cursor=going.cursor)
    assert numbers(again) == [40, 45, 47, 50, 60]


def test_a_cursor_of_one_shard_and_of_all_are_places_in_the_same_order(cluster: Cluster) -> None:
    notes(*((agent, number) for number in range(6) for agent in ("a", "b")))
    going = Note.query.filter(agent="b").order_by("-weight").iterate(chunk_size=2)
    next(iter(going.chunks()))
    behind = Note.query.order_by("-weight").iterate(cursor=going.cursor)
    assert [(note.agent, note.number) for note in behind][:3] == [("a", 4), ("b", 3), ("a", 3)]
    with pytest.raises(popoto.QueryException, match="another model or order"):
        Note.query.order_by("weight").iterate(cursor=going.cursor)


def test_an_iteration_reads_no_more_of_a_shard_than_it_needs(cluster: Cluster, round_trips: Any) -> None:
    notes(*((agent, number) for number in range(40) for agent in AGENTS))
    with round_trips() as trips:
        some = iter(Note.query.order_by("weight").iterate(chunk_size=20))
        assert numbers(next(some) for _ in range(5)) == [0, 0, 0, 0, 0]
    assert trips.count <= 1 + len(cluster.nodes)


def test_only_what_is_handed_out_counts_as_read(thoughts: None) -> None:
    going = query.order_by("-weight").limit(7).iterate(chunk_size=3)
    read = list(going)
    assert len(read) == 7
    everyone = list(query.no_track().all())
    assert {t.pk for t in everyone if t.confirm_access()} == {t.pk for t in read}
