"""The memory primitives of a model with Meta.shard_by: what they say on three masters is what one server says.

`ANSWERS` are asked in their order, each on what those before it have left behind, on one server and on a cluster.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import popoto
from popoto import redis_db
from popoto.memory.observation import ObservationProtocol
from popoto.memory.prediction import PredictionLedgerMixin as Ledger
from popoto.memory.proposals import RecallProposal
from popoto.orm.keys import front_of
from popoto.recipes import ContextAssembler
from popoto.testing import frozen_time
from tests.cluster.models import Reflection
from tests.cluster.nodes import Cluster
from tests.conftest import Server

NOW = 1_700_000_000.0
AGENTS = ("a-1", "b{2}", "c:3", "dé}", "None")
WORDS = ("red", "green", "blue", "fox", "hen", "ink", "tea", "sea")


LINKS: Any = Reflection._meta.fields["links"]
KNOWN: Any = Reflection._meta.fields["known"]
COUNTED: Any = Reflection._meta.fields["counted"]
KEYED: Any = Reflection._meta.fields["keyed"]
RHYTHM: Any = Reflection._meta.fields["rhythm"]
TRUST: Any = Reflection._meta.fields["trust"]
BY_TOPIC: Any = Reflection._meta.fields["by_topic"]


def before_and_after() -> tuple[Any, Any]:
    """One model, as it was and with partitions."""

    class Unsplit(popoto.Model):
        agent = popoto.KeyField()
        number = popoto.KeyField(type=int)
        topic = popoto.Field(default="")
        certainty = popoto.ConfidenceField()

        class Meta:
            shard_by = "agent"

    class Split(popoto.Model):
        agent = popoto.KeyField()
        number = popoto.KeyField(type=int)
        topic = popoto.Field(default="")
        certainty = popoto.ConfidenceField(partition_by="topic")

        class Meta:
            key_name = "Unsplit"
            shard_by = "agent"

    return Unsplit, Split


Unsplit, Split = before_and_after()


def filled() -> None:
    rng = random.Random(11)
    for number in range(9):
        for agent in AGENTS:
            with frozen_time(NOW - rng.randrange(1, 40) * 40_000.0):
                Reflection.create(
                    agent_id=agent,
                    number=number,
                    topic=rng.choice(("tea", "sea")),
                    text=" ".join(rng.choices(WORDS, k=rng.randrange(2, 9))),
                    importance=rng.choice((0.5, 1.0, 4.0)),
                    weight=rng.choice((0.0, 1.5, -2.0, 7.25)),
                )
    Reflection.create(agent_id="a-1", number=90, text="quokka")
    Reflection.create(agent_id="dé}", number=91, text="wombat")


def one(agent: str, number: int) -> Any:
    found = Reflection.query.no_track().filter(agent_id=agent, number=number).first()
    assert found is not None
    return found


def everyone() -> list[Any]:
    return list(Reflection.query.no_track().all())


def migrated() -> list[Any]:
    for agent in AGENTS:
        for number in range(3):
            believed = Unsplit.create(agent=agent, number=number, topic="tea" if number else "sea:1")
            popoto.ConfidenceField.update_confidence(believed, "certainty", number / 3)
    migrate = popoto.ConfidenceField.migrate_to_partitioned
    return [
        migrate(Split, "certainty", dry_run=True),
        migrate(Split, "certainty"),
        popoto.ConfidenceField.get_confidence_filtered(Split, "certainty", "Unsplit:c*", topic="tea"),
        Split.check_indexes()["total"],
    ]


def without_tags(value: Any) -> Any:
    """Return an answer with keys as one server has them, and records as what tells them apart."""
    if isinstance(value, Reflection):
        return (value.agent_id, value.number)
    if isinstance(value, bytes):
        return without_tags(value.decode())
    if isinstance(value, str):
        return value[len(front_of(value)) :]
    if isinstance(value, (list, tuple)):
        return type(value)(map(without_tags, value))
    if isinstance(value, dict):
        return {without_tags(name): without_tags(item) for name, item in value.items()}
    return value


def scored(records: list[Any], attribute: str) -> list[Any]:
    return [(record, getattr(record, attribute)) for record in records]


def judged() -> list[Any]:
    """Signals for records of all shards."""
    out = []
    for at, thought in enumerate(everyone()):
        for _ in range(at % 4):
            out.append(popoto.ConfidenceField.update_confidence(thought, "certainty", (at % 7) / 6))
            popoto.ConfidenceField.update_confidence(thought, "trust", (at % 5) / 4)
            popoto.ConfidenceField.update_confidence(thought, "by_topic", (at % 3) / 2)
    return out


def predicted() -> list[Any]:
    out = []
    for at, thought in enumerate(everyone()[::2]):
        Ledger.record_prediction(thought, {"n": at})
        if at % 3:
            out.append(Ledger.resolve_prediction(thought, {"n": at - at % 5}))
    return [*out, Ledger.auto_resolve(one("b{2}", 0), "dismissed"), Ledger.get_prediction_data(one("a-1", 0))]


def linked() -> list[Any]:
    out = []
    for agent in AGENTS:
        for number in range(5):
            a, b = one(agent, number), one(agent, number + 1)
            out.append(LINKS.link(Reflection, a.pk, b.pk, 0.2 + number / 10))
            out.append(LINKS.strengthen(Reflection, a, b, 0.1))
    out.append(LINKS.weaken_all(Reflection, one("c:3", 2), 0.5))
    LINKS.unlink(Reflection, one("c:3", 3), one("c:3", 4))
    return out


def surfaced() -> None:
    for seconds, agent in enumerate(reversed(AGENTS)):
        with frozen_time(NOW - 5000.0 * (seconds + 1)):
            ObservationProtocol.on_surfaced([one(agent, 1), one(agent, 2)], partition="me")
    with frozen_time(NOW - 100.0):
        RecallProposal.create_batch([one("a-1", 3), one("dé}", 3), one("a-1", 4)])


def used() -> list[Any]:
    some = [one(agent, number) for agent in AGENTS for number in (1, 2)]
    outcomes = ("acted", "used", "dismissed", "deferred", "contradicted")
    for thought in some:
        Ledger.record_prediction(thought, {"ok": True})
        thought.on_read()
    ObservationProtocol.on_context_used(some, {t.pk: outcomes[at % 5] for at, t in enumerate(some)})
    return [(t, t.certainty, t.relevance, t.access_count, Ledger.get_prediction_data(t)) for t in some]


def read() -> list[Any]:
    Reflection.query.filter(topic="tea").order_by("-weight").limit(9).all()
    some = everyone()
    out = [(t, t.confirm_access(), t.access_count, t.last_accessed) for t in some]
    one("a-1", 5).on_read()
    one("a-1", 5).discard_staged_access()
    return [*out, one("a-1", 5).confirm_access()]


def assembled(**options: Any) -> list[Any]:
    asked = {name: options.pop(name) for name in ("agent_id", "partition_filters") if name in options}
    cues = options.pop("query_cues", {"topic": "red fox", "more": "tea"})
    result = ContextAssembler(Reflection, {"relevance": 0.5, "certainty": 0.25}, **options).assemble(cues, **asked)
    metadata = {name: value for name, value in result.metadata.items() if name != "timing_ms"}
    return [result.records, result.formatted, metadata]


def paged(chunk_size: int, *order: str, **filters: Any) -> list[Any]:
    """All results, with a new iteration from the stored cursor after every chunk."""
    chunks, cursor = [], None
    while True:
        going = Reflection.query.filter(**filters).order_by(*order).iterate(chunk_size=chunk_size, cursor=cursor)
        chunk = next(iter(going.chunks()), None)
        if chunk is None:
            return chunks
        chunks.append(chunk)
        cursor = going.cursor


query: Any = Reflection.query
ANSWERS: dict[str, Callable[[], Any]] = {
    # what is known of words
    "might_exist": lambda: [KNOWN.might_exist(Reflection, w) for w in ("quokka", "wombat", "fox", "dodo")],
    "might_exist_batch": lambda: KNOWN.might_exist_batch(Reflection, ["quokka", "dodo", "wombat dodo"]),
    "might_exist_count": lambda: KNOWN.might_exist_count(Reflection, ["quokka", "dodo", "wombat"]),
    "definitely_missing": lambda: [KNOWN.definitely_missing(Reflection, w) for w in ("dodo", "hen")],
    "a filter of keys": lambda: [KEYED.might_exist(Reflection, w) for w in ("90", "Reflection", "77", "dé", "a")],
    "frequency": lambda: [COUNTED.get_frequency(Reflection, w) for w in ("red", "quokka wombat", "wombat", "dodo")],
    "idf": lambda: popoto.BM25Field.get_idf(Reflection, "words", ["red", "quokka", "dodo", "tea"]),
    "selective tokens": lambda: popoto.BM25Field.filter_selective_tokens(Reflection, "words", ["red", "wombat"], 2.0),
    "recount": lambda: popoto.BM25Field.recompute_stats(Reflection, "words"),
    "search": lambda: popoto.BM25Field.search(Reflection, "words", "red fox tea", limit=17),
    "search for what only one shard holds": lambda: popoto.BM25Field.search(Reflection, "words", "wombat quokka"),
    "search for nothing": lambda: [popoto.BM25Field.search(Reflection, "words", t) for t in ("", "dodo", None)],
    # confidence
    "update_confidence": judged,
    "get_confidence": lambda: [popoto.ConfidenceField.get_confidence_data(t, "certainty") for t in everyone()],
    "get_confidence_filtered": lambda: popoto.ConfidenceField.get_confidence_filtered(Reflection, "certainty"),
    "get_confidence_filtered of some": lambda: popoto.ConfidenceField.get_confidence_filtered(
        Reflection, "certainty", "Reflection:*:3"
    ),
    "get_confidence_filtered in the shard of a partition": lambda: popoto.ConfidenceField.get_confidence_filtered(
        Reflection, "trust", agent_id="c:3"
    ),
    "get_confidence_filtered in a partition of all shards": lambda: popoto.ConfidenceField.get_confidence_filtered(
        Reflection, "by_topic", topic="tea"
    ),
    "data hash keys": lambda: [
        TRUST.get_data_hash_key(one("c:3", 1), "trust"),
        TRUST.get_old_data_hash_key(one("c:3", 1), "trust"),
        TRUST.get_data_hash_key_from_values(Reflection, "trust", agent_id="c:3"),
    ],
    # predictions
    "predictions": predicted,
    "get_highest_errors": lambda: Ledger.get_highest_errors(Reflection, limit=7),
    "get_highest_errors of all": lambda: Ledger.get_highest_errors(Reflection, limit=1000),
    "error_summary": lambda: Ledger.error_summary(Reflection, limit=9),
    "error_summary by day": lambda: Ledger.error_summary(Reflection, group_by="day"),
    "error_summary by agent": lambda: Ledger.error_summary(
        Reflection, group_by=lambda key, _: "c" if "c{" in key.rpartition("Reflection:")[2] else "other"
    ),
    # associations
    "links": linked,
    "get_linked": lambda: [LINKS.get_linked(Reflection, t) for t in everyone()],
    "propagate from several shards": lambda: LINKS.propagate(
        Reflection, [one("a-1", 0), one("c:3", 1), one("None", 5)]
    ),
    # cycles and touches
    "touch": lambda: [one(agent, 6).touch("relevance") for agent in AGENTS],
    "cycles": lambda: [
        one("b{2}", 1).strengthen_cycle("rhythm", 1.5),
        one("c:3", 1).weaken_cycle("rhythm", 0.5),
        one("c:3", 1).resolve_pressure("rhythm"),
    ],
    "cycle keys": lambda: [
        RHYTHM.get_cycles_hash_key(one("c:3", 1), "rhythm"),
        RHYTHM.get_pressure_hash_key(one("a-1", 1), "rhythm"),
    ],
    # reads and outcomes
    "access": read,
    "proposals": surfaced,
    "get_pending": lambda: (RecallProposal.get_pending(Reflection), RecallProposal.get_pending(Reflection, "me")),
    "resolve": lambda: [RecallProposal.resolve(one("dé}", 3), "used"), RecallProposal.get_pending(Reflection)],
    "expire_stale": lambda: RecallProposal.expire_stale(Reflection, "me", ttl=9000),
    "what expired is gone": lambda: RecallProposal.get_pending(Reflection, "me"),
    "on_context_used": used,
    "an outcome takes the proposals": lambda: RecallProposal.get_pending(Reflection, "me"),
    # rankings
    "top_by_decay": lambda: scored(query.filter(topic="tea").top_by_decay("relevance", n=11), "_decay_score"),
    "top_by_decay of a cyclic field": lambda: scored(query.top_by_decay("rhythm", n=12), "_decay_score"),
    "top_by_decay with another base": lambda: scored(
        query.top_by_decay("relevance", n=9, base_score_field="weight", decay_rate=0.3), "_decay_score"
    ),
    "the limit of the builder": lambda: scored(query.filter().limit(3).top_by_decay("relevance", n=9), "_decay_score"),
    "composite_score": lambda: scored(
        query.composite_score({"relevance": 1, "certainty": 2, "weight": -0.1, "access_count": 0.5}, limit=13),
        "_composite_score",
    ),
    "composite_score by the least": lambda: scored(
        query.composite_score({"relevance": 1, "certainty": 2}, limit=8, aggregate="MIN"), "_composite_score"
    ),
    "composite_score with boosts": lambda: scored(
        query.composite_score(
            {"certainty": 1}, limit=6, co_occurrence_boost={one("c:3", 4).pk: 3.0, one("a-1", 2).pk: 2.5}
        ),
        "_composite_score",
    ),
    "boosts explained": lambda: [
        (t, t._score_parts)
        for t in query.composite_score(
            {"certainty": 1},
            limit=6,
            explain=True,
            similarity_boost={one("c:3", 4).pk.encode(): 3.0, one("a-1", 2).pk.encode(): -2.5},
        )
    ],
    "composite_score explained": lambda: [
        (t, t._composite_score, t._score_parts)
        for t in query.filter(topic="sea").composite_score({"relevance": 1, "certainty": 1}, limit=5, explain=True)
    ],
    "composite_score with a post filter": lambda: query.composite_score(
        {"certainty": 1}, limit=6, post_filter=lambda key, _: "c{" in key or "None" in key
    ),
    "composite_score of a partition": lambda: scored(
        query.filter(agent_id="c:3").composite_score({"trust": 1, "rhythm": 0.1}, limit=6), "_composite_score"
    ),
    "keyword_search": lambda: scored(query.keyword_search("red fox tea", limit=14), "_bm25_score"),
    "keyword_search with a filter": lambda: scored(
        query.filter(topic="tea", weight__gt=-1).keyword_search("blue hen", limit=9), "_bm25_score"
    ),
    "keyword_search under a limit": lambda: scored(
        query.filter().limit(2).keyword_search("red", limit=9), "_bm25_score"
    ),
    "fuse": lambda: scored(
        query.fuse(
            words=popoto.BM25Field.search(Reflection, "words", "red fox", limit=9),
            fresh=query.top_by_decay("relevance", n=9),
            limit=12,
        ),
        "_rrf_score",
    ),
    "why_not in a shard": lambda: str(query.filter(agent_id="c:3").why_not(one("c:3", 4), {"trust": 1.0}, limit=2)),
    "why_not of a record elsewhere": lambda: str(
        query.filter(agent_id="c:3").why_not(one("a-1", 4), {"certainty": 1.0}, limit=2)
    ),
    # contexts
    "assemble": assembled,
    "assemble with a filter": lambda: assembled(partition_filters={"topic": "tea"}, max_items=4),
    "assemble as text in a budget": lambda: assembled(output_format="natural", max_tokens=60),
    "assemble few of many": lambda: assembled(max_items=1),
    "assemble without cues": lambda: assembled(query_cues=None),
    # pages
    "iterate by key": lambda: paged(7),
    "iterate by an order": lambda: paged(4, "-weight"),
    "iterate by two fields": lambda: paged(5, "topic", "-weight"),
    "iterate over a filter": lambda: paged(3, "weight", topic="tea"),
    "iterate over a range": lambda: paged(3, weight__gt=-1.0),
    "iterate over what Python decides": lambda: paged(3, importance__gte=1.0, topic__endswith="a"),
    "iterate in one shard": lambda: paged(2, "-weight", agent_id="c:3"),
    "iterate over few": lambda: list(Reflection.query.order_by("-weight").limit(8).iterate(chunk_size=3)),
    "iterate over values": lambda: list(
        Reflection.query.order_by("weight").values("agent_id", "number", "weight").iterate(chunk_size=4)
    ),
    # and what a user does at last
    "migrate_to_partitioned": migrated,
    "delete": lambda: [one(agent, 1).delete() for agent in AGENTS[:3]],
    "no trace of the deleted": lambda: (
        RecallProposal.get_pending(Reflection),
        Ledger.get_highest_errors(Reflection, limit=1000),
        LINKS.get_linked(Reflection, one("a-1", 0)),
        popoto.BM25Field.get_idf(Reflection, "words", ["red"]),
        Reflection.check_indexes()["total"],
    ),
}


def told() -> dict[str, Any]:
    with frozen_time(NOW):
        filled()
        return {name: without_tags(ask()) for name, ask in ANSWERS.items()}


@pytest.fixture(scope="module")
def one_server() -> Iterator[dict[str, Any]]:
    server = Server()
    server.start()
    redis_db.configure_url(server.url)
    answers = told()
    redis_db.close()
    server.remove()
    yield answers


@pytest.fixture(scope="module")
def three_masters(shared_cluster: Cluster) -> Iterator[dict[str, Any]]:
    shared_cluster.flush()
    redis_db.configure_url(shared_cluster.url)
    answers = told()
    redis_db.close()
    yield answers


@pytest.mark.parametrize("name", list(ANSWERS))
def test_the_answer_is_that_of_one_server(one_server: dict[str, Any], three_masters: dict[str, Any], name: str) -> None:
    assert three_masters[name] == one_server[name]
