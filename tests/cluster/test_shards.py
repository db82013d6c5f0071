"""Meta.shard_by: every answer is the one that a single server gives, whichever shards hold the records."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

import popoto
from popoto import redis_db
from popoto.orm import claims, shards
from popoto.orm.cluster_wire import slot_of
from popoto.orm.keys import front_of
from popoto.testing import frozen_time
from tests.cluster.models import Badge, Note, Owner, Pet
from tests.cluster.nodes import Cluster
from tests.conftest import Server

AGENTS = ("a-1", "b{2}", "c:3", "dé}", "None")


def filled() -> None:
    rng = random.Random(7)
    notes = [
        Note(
            agent=agent,
            number=number,
            topic=rng.choice(("tea", "sea", "lea")),
            weight=rng.choice((0.0, 1.5, -2.0, 7.25)),
            hits=rng.randrange(4),
            text=" ".join(rng.choices(("red", "green", "blue", "fox", "hen"), k=4)),
        )
        for agent in AGENTS
        for number in range(12)
    ]
    Note.bulk_create(notes)


def names(found: Any) -> list[Any]:
    return [(note.agent, note.number) for note in found]


QUERIES: dict[str, Callable[[], Any]] = {
    "everything by key": lambda: names(Note.query.all()),
    "a filter": lambda: names(Note.query.filter(topic="tea")),
    "a range": lambda: names(Note.query.filter(weight__gt=-1.0)),
    "a range with ties, cut": lambda: names(Note.query.filter(weight__gte=1.5)[3:11]),
    "ordered": lambda: names(Note.query.filter(topic="sea").order_by("weight").all()),
    "ordered backwards": lambda: names(Note.query.filter(topic__in=["sea", "tea"]).order_by("-weight").limit(7).all()),
    "ordered by a field without index": lambda: names(Note.query.order_by("-hits").limit(9).all()),
    "a page": lambda: names(Note.query.order_by("weight")[10:25]),
    "first and last": lambda: names([Note.query.order_by("weight").first(), Note.query.order_by("weight").last()]),
    "only Python can decide": lambda: names(Note.query.filter(hits=2)),
    "by a key field that is not the shard": lambda: names(Note.query.filter(number=5)),
    "values": lambda: Note.query.filter(topic="tea").order_by("-weight").limit(5).values("number", "weight")[:5],
    "count": lambda: (Note.query.count(), Note.query.filter(topic="tea").count(), Note.query.filter(hits=1).count()),
    "exists": lambda: (Note.query.filter(topic="tea").exists(), Note.query.filter(topic="ink").exists()),
    "keys": lambda: [
        key[len(front_of(key.decode()).encode()) :] for key in list(Note.query.filter(topic="lea").keys())
    ],
    "one shard": lambda: names(Note.query.filter(agent="c:3", topic="tea").order_by("-weight").all()),
    "get": lambda: names([Note.query.get(agent="None", number=3)]),
    "get by half the key": lambda: names([Note.query.filter(number=3, agent="b{2}").first()]),
    "get_many": lambda: names(Note.query.get_many([n.pk for n in Note.query.filter(hits=3)])),
    "top_by_decay": lambda: [
        (n.agent, n.number, n._decay_score) for n in Note.query.filter(topic="tea").top_by_decay(n=8)
    ],
    "composite_score": lambda: [
        (n.agent, n.number, n._composite_score)
        for n in Note.query.composite_score({"weight": 1.0, "certainty": 2.0}, limit=9)
    ],
    "aggregate": lambda: Note.query.filter(topic="tea").aggregate(
        n=popoto.Count(), total=popoto.Sum("hits"), low=popoto.Min("weight"), mean=popoto.Avg("hits")
    ),
    "distinct": lambda: Note.query.order_by("-weight").distinct("weight"),
    "iterate": lambda: names(Note.query.filter(topic="tea").order_by("weight").iterate()),
    "iterate in a shard": lambda: names(Note.query.filter(agent="a-1").iterate(chunk_size=2)),
    "a tree of conditions": lambda: names(Note.query.filter(popoto.Q(topic="tea") | popoto.Q(weight=7.25))),
    "excluded": lambda: names(Note.query.exclude(topic="tea").order_by("-weight", "number").limit(20).all()),
    "limit 0": lambda: names(Note.query.limit(0)),
    "nothing": lambda: names(Note.query.filter(topic="ink").order_by("weight")),
}


@pytest.fixture(scope="module")
def one_server() -> Iterator[dict[str, Any]]:
    """The answers of a single server."""
    server = Server()
    server.start()
    redis_db.configure_url(server.url)
    with frozen_time(1_700_000_000.0):
        filled()
        answers = {name: query() for name, query in QUERIES.items()}
    redis_db.close()
    server.remove()
    yield answers


@pytest.fixture(scope="module")
def stored(shared_cluster: Cluster) -> Iterator[None]:
    shared_cluster.flush()
    redis_db.configure_url(shared_cluster.url)
    with frozen_time(1_700_000_000.0):
        filled()
        yield
    redis_db.close()


@pytest.mark.parametrize("name", list(QUERIES))
def test_the_answer_is_that_of_one_server(one_server: dict[str, Any], stored: None, name: str) -> None:
    assert QUERIES[name]() == one_server[name]


def test_the_async_forms_give_the_same(one_server: dict[str, Any], stored: None) -> None:
    async def ask() -> None:
        assert names(await Note.query.filter(topic="tea").async_all()) == one_server["a filter"]
        assert names([n async for n in Note.query.filter(topic="tea")]) == one_server["a filter"]
        assert await Note.query.async_count() == one_server["count"][0]
        ranked = await Note.query.filter(topic="tea").async_top_by_decay(n=8)
        assert [(n.agent, n.number, n._decay_score) for n in ranked] == one_server["top_by_decay"]

    asyncio.run(ask())


def test_keyword_search_in_a_shard_scores_by_the_statistics_of_the_shard(cluster: Cluster) -> None:
    texts = {"a": ["red fox", "red red hen", "hen"], "b": ["red", "blue fox fox", "blue hen", "blue blue"]}
    for agent, some in texts.items():
        for number, text in enumerate(some):
            Note.create(agent=agent, number=number, text=text)

    def scores(agent: str, found: list[Any]) -> dict[int, float]:
        return {note.number: note._bm25_score for note in found if note.agent == agent}

    both = Note.query.keyword_search("red fox")
    alone = {agent: scores(agent, Note.query.filter(agent=agent).keyword_search("red fox")) for agent in texts}
    assert {agent: list(found) for agent, found in alone.items()} == {"a": [0, 1], "b": [0, 1]}
    assert all(alone[agent] != scores(agent, both) for agent in texts)
    Note.bulk_delete(Note.query.filter(agent="b"))
    assert scores("a", Note.query.keyword_search("red fox")) == alone["a"]


def test_each_shard_has_one_slot_and_the_shards_several(cluster: Cluster) -> None:
    filled()
    keys = [key.decode() for node in cluster.nodes for key in node.client.keys("*") if b"$Shards" not in key]
    by_front: dict[str, set[int]] = {}
    for key in keys:
        by_front.setdefault(key.partition("}:")[0], set()).add(slot_of(key))
    assert len(by_front) == len(AGENTS) and all(len(slots) == 1 for slots in by_front.values())
    assert len({slot for slots in by_front.values() for slot in slots}) == len(AGENTS)


def test_what_concerns_one_shard_is_one_round_trip(cluster: Cluster, round_trips: Any) -> None:
    filled()
    note = Note.query.get(agent="a-1", number=1)
    for call in (
        lambda: note.save(),
        lambda: note.atomic_increment("hits", 1),
        lambda: note.touch("relevance"),
        lambda: Note.query.get(agent="a-1", number=2),
        lambda: Note.query.filter(agent="a-1", topic="tea").order_by("-weight").limit(3).all(),
        lambda: Note.query.filter(agent="a-1").count(),
        lambda: Note.query.filter(agent="a-1").top_by_decay(n=3),
        lambda: popoto.ConfidenceField.update_confidence(note, "certainty", 0.9),
    ):
        with round_trips() as trips:
            call()
        assert trips.count == 1


def test_what_spans_shards_is_one_write_a_node_for_the_shards_and_one_for_the_answers(
    cluster: Cluster, round_trips: Any
) -> None:
    filled()
    with round_trips() as trips:
        Note.query.filter(topic="tea").order_by("-weight").limit(3).all()
    assert trips.count <= 1 + len(cluster.nodes)


def test_a_new_shard_is_entered_before_its_first_record(cluster: Cluster, round_trips: Any) -> None:
    with round_trips() as trips:
        Note.create(agent="new", number=1)
    assert trips.count == 2
    with round_trips() as trips:
        Note.create(agent="new", number=2)
    assert trips.count == 1
    assert Note.query.count() == 2


def test_a_writer_enters_its_shard_again_where_the_set_was_lost(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = Note.create(agent="new", number=1)
    redis_db.get_REDIS_DB().delete(shards._set_key(Note._meta))
    assert Note.query.count() == 0
    monkeypatch.setattr(shards, "ENTERED_S", 0.0)
    note.save()
    assert Note.query.count() == 1


def test_a_record_does_not_move_to_another_shard(cluster: Cluster) -> None:
    note = Note.create(agent="a", number=1)
    note.agent = "b"
    with pytest.raises(popoto.KeyMutationError, match="does not move between shards"):
        note.save(migrate_key=True)
    assert Note.query.count() == 1
    again = Note.query.get(agent="a", number=1)
    again.number = 2
    again.save(migrate_key=True)
    assert names(Note.query.all()) == [("a", 2)]


def test_bulk_calls_work_in_every_shard(cluster: Cluster) -> None:
    filled()
    assert Note.bulk_update(Note.query.filter(topic="tea"), hits=9) == Note.query.filter(hits=9).count() > 0
    tea = Note.query.filter(topic="tea").all()
    assert Note.bulk_update(tea[:7], topic="ink") == 7
    assert names(Note.query.filter(topic="ink")) == names(tea[:7])
    assert Note.bulk_delete(Note.query.filter(topic="ink")) == 7
    assert Note.query.count() == 5 * 12 - 7
    assert Note.check_indexes()["total"] == 0
    assert Note.rebuild_indexes() == 5 * 12 - 7
    assert Note.delete_all() == 5 * 12 - 7
    assert Note.query.count() == 0


def test_a_batch_that_is_refused_in_one_shard_stands_in_the_others(cluster: Cluster) -> None:
    Badge.create(agent="a", name="first", code="X")
    with pytest.raises(popoto.ModelException, match="already exists"):
        Badge.bulk_create([Badge(agent="b", name="x", code="Y"), Badge(agent="c", name="y", code="X")])
    assert Badge.query.filter(code="X").count() == 1
    assert Badge.check_indexes()["total"] == 0


def test_a_pipeline_saves_to_several_shards(cluster: Cluster) -> None:
    pipeline = redis_db.get_REDIS_DB().pipeline()
    for agent in AGENTS:
        Note(agent=agent, number=1).save(pipeline=pipeline)
    assert len(pipeline.execute()) == len(AGENTS)
    assert Note.query.count() == len(AGENTS)


def test_relationships_reach_into_other_slots(cluster: Cluster) -> None:
    ann, bob = Owner.create(name="ann", town="Ulm"), Owner.create(name="bob", town="Bonn")
    for number, owner in enumerate((ann, bob, ann)):
        Pet.create(agent=f"g{number}", name=f"p{number}", owner=owner)
    assert [pet.name for pet in Pet.query.filter(owner=ann)] == ["p0", "p2"]
    assert [pet.name for pet in Pet.query.filter(owner__town="Ulm")] == ["p0", "p2"]
    assert [pet.owner.town for pet in Pet.query.all()] == ["Ulm", "Bonn", "Ulm"]


def test_nothing_changes_off_a_cluster(server: redis.Redis, round_trips: Any) -> None:
    badge = Badge.create(agent="a", name="n", code="X")
    assert badge.pk == "Badge:a:n"
    with round_trips() as trips:
        badge.save()
    assert trips.count == 1
    assert not [key for key in server.keys("*") if b"{" in key or b"$Claim" in key or b"$Shards" in key]


def test_what_takes_no_filter_works_in_the_shard_of_a_with_block(cluster: Cluster) -> None:
    filled()
    with Note.in_shard("c:3"):
        found = popoto.BM25Field.search(Note, "words", "fox", limit=99)
        assert Note.query.count() == 12
    assert {key.partition("}:")[0] for key, _ in found} == {"{Note:c%3A3"}
    with pytest.raises(popoto.QueryException, match=r"no Meta\.shard_by"):
        Owner.in_shard("x")


@pytest.mark.parametrize(
    ("key", "text"), [("nothing", "expected the name of a key field"), ("weight", "expected the name of a key field")]
)
def test_shard_by_names_a_key_field(key: str, text: str) -> None:
    with pytest.raises(popoto.ModelException, match=text):

        class Wrong(popoto.Model):
            name = popoto.KeyField()
            weight = popoto.FloatField(default=0.0)

            class Meta:
                shard_by = key


def test_a_unique_index_of_several_fields_holds_the_shard_field() -> None:
    with pytest.raises(popoto.ModelException, match="spans the shards"):

        class Wrong(popoto.Model):
            agent = popoto.KeyField()
            day = popoto.StringField(default="")

            class Meta:
                shard_by = "agent"
                indexes = ((("day",), True),)


# -- unique values across shards --------------------------------------------------------------------------------------


def test_a_unique_value_has_one_owner_over_all_shards(cluster: Cluster) -> None:
    Badge.create(agent="a", name="n", code="X")
    with pytest.raises(popoto.ModelException, match="already exists"):
        Badge.create(agent="b", name="n", code="X")
    assert names_of_badges() == [("a", "n", "X")]


def names_of_badges() -> list[Any]:
    return [(badge.agent, badge.name, badge.code) for badge in Badge.query.all()]


def test_a_unique_value_is_free_at_once_when_its_owner_gave_it_up(cluster: Cluster) -> None:
    first = Badge.create(agent="a", name="n", code="X")
    first.code = "Y"
    first.save()
    second = Badge.create(agent="b", name="n", code="X")
    second.delete()
    first.code = "X"
    first.save(update_fields=["code"])
    assert names_of_badges() == [("a", "n", "X")]


def test_a_save_that_claims_costs_three_round_trips_and_a_partial_one_without_the_value_one(
    cluster: Cluster, round_trips: Any
) -> None:
    badge = Badge.create(agent="a", name="n", code="X")
    with round_trips() as trips:
        badge.save()
    assert trips.count == 3
    with round_trips() as trips:
        badge.save(update_fields=["name"])
    assert trips.count == 1


def test_a_claim_whose_save_died_is_free_after_the_grace_time(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Badge(agent="a", name="dead", code="X")._save_command(False, False, None, False, None, {})
    from popoto.orm.drivers import prepare

    prepare(dead)  # claimed, and never committed
    with pytest.raises(popoto.ModelException, match="whose save has not ended"):
        Badge.create(agent="b", name="n", code="X")
    monkeypatch.setattr(claims, "GRACE_S", 0.0)
    Badge.create(agent="b", name="n", code="X")
    assert names_of_badges() == [("b", "n", "X")]


def test_of_many_who_want_a_unique_value_one_gets_it(cluster: Cluster) -> None:
    async def want(number: int) -> bool:
        try:
            await Badge.async_create(agent=f"a{number}", name="n", code="X")
        except popoto.ModelException:
            return False
        return True

    async def race() -> list[bool]:
        return await asyncio.gather(*(want(number) for number in range(20)))

    assert sum(asyncio.run(race())) == 1
    assert Badge.query.count() == 1


def test_a_unique_value_may_expire_and_be_had_again(cluster: Cluster) -> None:
    badge = Badge(agent="a", name="n", code="X")
    badge._ttl = 0.05
    badge.save()
    asyncio.run(asyncio.sleep(0.1))
    Badge.create(agent="b", name="n", code="X")
    assert names_of_badges() == [("b", "n", "X")]
