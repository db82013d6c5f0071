"""CoOccurrenceField: edges stay two-sided, follow their records and leave with them; walks equal brute force."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto import CoOccurrenceField, Defaults, Field, KeyField, Model, ModelException, QueryException, redis_db
from popoto.orm.scripts import Script
from tests.faults.proxy import cutting_proxy
from tests.memory.traces import stored, traces


class Tied(Model):
    name = KeyField()
    text = Field(default="")
    links = CoOccurrenceField()


class Hop(Model):
    name = KeyField()
    leads = CoOccurrenceField(symmetric=False)


class SmallGraph(Model):
    name = KeyField()
    links = CoOccurrenceField(max_edges=3)


class SmallStep(Model):
    name = KeyField()
    leads = CoOccurrenceField(max_edges=2, symmetric=False, decay_factor=0.5)


class TeamFact(Model):
    name = KeyField()
    team = KeyField()
    links = CoOccurrenceField()


links: Any = Tied._meta.fields["links"]
leads: Any = Hop._meta.fields["leads"]


def edges(server: redis.Redis, model: type[Model] = Tied, field: str = "links") -> dict[tuple[str, str], float]:
    """All edges: (source, target) -> weight. Two-way fields have each edge twice, with one weight."""
    prefix = f"$CoOcF:{model.__name__}:{field}:"
    found = {
        (key.decode().removeprefix(prefix), target.decode()): weight
        for key in server.keys(f"{prefix}*")
        for target, weight in server.zrange(key, 0, -1, withscores=True)
    }
    if model._meta.fields[field].symmetric:  # type: ignore[attr-defined]
        assert found == {(target, source): weight for (source, target), weight in found.items()}
    else:
        back = f"$CoOcR:{model.__name__}:{field}:"
        reverse = {
            (source.decode(), key.decode().removeprefix(back))
            for key in server.keys(f"{back}*")
            for source in server.smembers(key)
        }
        assert reverse == set(found)
    return found


def facts(*names: str) -> list[Tied]:
    return [Tied.create(name=name) for name in names]


# -- definition --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"max_edges": 0}, {"max_edges": 1.5}, {"decay_factor": 1.0}, {"decay_factor": -0.1}, {"decay_factor": "x"},
     {"default": 3}, {"null": False}, {"indexed": True}],
    ids=str,
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ModelException):
        CoOccurrenceField(**options)


def test_options_are_kept_and_the_factor_follows_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (links.symmetric, links.max_edges, links.decay_factor) == (True, 500, 0.95)
    assert (leads.symmetric, SmallStep._meta.fields["leads"].decay_factor) == (False, 0.5)  # type: ignore[attr-defined]
    monkeypatch.setattr(Defaults, "CO_OCCURRENCE_DECAY_FACTOR", 0.5)
    assert links.decay_factor == 0.5


def test_it_holds_no_value(server: redis.Redis) -> None:
    (fact,) = facts("a")
    assert fact.links is None
    with pytest.raises(ModelException, match="takes no value"):
        Tied(name="b", links="x")
    with pytest.raises(QueryException, match="no value to filter by"):
        Tied.query.filter(links="x").all()


def test_the_documented_keys(server: redis.Redis) -> None:
    (fact,) = facts("fact1")
    assert links.get_edge_key(Tied, "fact1") == "$CoOcF:Tied:links:fact1"
    assert links.get_edge_key(fact, fact) == "$CoOcF:Tied:links:Tied:fact1"
    assert links.get_edge_key(Tied, b"x") == "$CoOcF:Tied:links:x"
    assert links.get_edge_key_prefix(Tied) == links.get_edge_key_prefix(fact) == "$CoOcF:Tied:links:"

    class OwnField(CoOccurrenceField):
        pass

    assert OwnField.field_class_key == "$CoOcF"


# -- link --------------------------------------------------------------------------------------------------------------


def test_link_makes_an_edge_and_leaves_one_that_exists(
    server: redis.Redis, way: Callable[..., Any], round_trips: Any
) -> None:
    a, b = facts("a", "b")
    assert way(links.link, Tied, a, b, 0.5) == 0.5
    assert way(links.link, Tied, a.pk, b.pk, 0.9) == 0.5
    assert way(links.link, Tied, b"Tied:b", a) == 0.5
    assert edges(server) == {("Tied:a", "Tied:b"): 0.5, ("Tied:b", "Tied:a"): 0.5}
    with round_trips() as trips:
        links.link(Tied, a, b)
    assert trips.count == 1


def test_the_default_weight_is_read_when_it_is_used(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    assert links.link(Tied, "x", "y") == 1.0
    monkeypatch.setattr(Defaults, "CO_OCCURRENCE_INITIAL_WEIGHT", 0.25)
    assert links.link(Tied, "x", "z") == 0.25


def test_weights_keep_every_digit(server: redis.Redis) -> None:
    weight = 0.1 + 0.2
    assert links.link(Tied, "x", "y", weight) == weight
    assert links.strengthen(Tied, "x", "y", 1e-9) == weight + 1e-9
    assert links.get_linked(Tied, "y") == [("x", weight + 1e-9)]


def test_one_way_edges_stand_on_one_side(server: redis.Redis, way: Callable[..., Any]) -> None:
    for name in "ab":
        Hop.create(name=name)
    assert way(leads.link, Hop, "Hop:a", "Hop:b", 0.5) == 0.5
    assert edges(server, Hop, "leads") == {("Hop:a", "Hop:b"): 0.5}
    assert leads.get_linked(Hop, "Hop:b") == []


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "1", True], ids=str)
def test_weights_that_are_none_are_refused(server: redis.Redis, weight: Any) -> None:
    with pytest.raises(ValueError, match="initial_weight= expected a number above 0"):
        links.link(Tied, "a", "b", weight)
    with pytest.raises(ValueError, match="delta= expected a number above 0"):
        links.strengthen(Tied, "a", "b", weight)
    assert stored(server) == {}


def test_a_node_has_no_edge_to_itself(server: redis.Redis) -> None:
    (a,) = facts("a")
    for call in (links.link, links.strengthen):
        with pytest.raises(ValueError, match="no edge to itself"):
            call(Tied, a, "Tied:a")


def test_a_record_that_is_not_stored_gets_no_edge(server: redis.Redis, way: Callable[..., Any]) -> None:
    (a,) = facts("a")
    before = stored(server)
    for call in (links.link, links.strengthen):
        with pytest.raises(TypeError, match="Tied:gone is not stored"):
            way(call, Tied, a, "Tied:gone")
    assert stored(server) == before


def test_foreign_keys_in_the_way_are_refused(server: redis.Redis) -> None:
    facts("a", "b")
    server.set("$CoOcF:Tied:links:Tied:b", "mine")
    before = stored(server)
    for call in (links.link, links.strengthen, links.unlink):
        with pytest.raises(ModelException, match="nothing was written"):
            call(Tied, "Tied:a", "Tied:b")
    with pytest.raises(ModelException, match="nothing was written"):
        links.weaken_all(Tied, "Tied:b")
    assert stored(server) == before


# -- strengthen, unlink, weaken ----------------------------------------------------------------------------------------


def test_strengthen_adds_to_both_sides(server: redis.Redis, way: Callable[..., Any], round_trips: Any) -> None:
    assert way(links.strengthen, Tied, "a", "b") == 0.05
    assert way(links.strengthen, Tied, "b", "a", 0.5) == 0.55
    assert edges(server) == {("a", "b"): 0.55, ("b", "a"): 0.55}
    with round_trips() as trips:
        links.strengthen(Tied, "a", "b")
    assert trips.count == 1


def test_strengthen_of_one_way_edges(server: redis.Redis) -> None:
    assert leads.strengthen(Hop, "a", "b", 0.5) == 0.5
    assert leads.strengthen(Hop, "b", "a", 0.25) == 0.25
    assert edges(server, Hop, "leads") == {("a", "b"): 0.5, ("b", "a"): 0.25}


def test_unlink_removes_both_sides(server: redis.Redis, way: Callable[..., Any]) -> None:
    links.link(Tied, "a", "b")
    links.link(Tied, "a", "c")
    assert way(links.unlink, Tied, "b", "a") is None
    assert way(links.unlink, Tied, "b", "never") is None
    assert edges(server) == {("a", "c"): 1.0, ("c", "a"): 1.0}
    leads.link(Hop, "a", "b")
    leads.unlink(Hop, "b", "a")
    assert edges(server, Hop, "leads") == {("a", "b"): 1.0}
    leads.unlink(Hop, "a", "b")
    assert not [key for key in server.keys("*Hop*") if b"$Token" not in key]


def test_weaken_all_fades_and_prunes_both_sides(server: redis.Redis, way: Callable[..., Any]) -> None:
    for name, weight in [("b", 0.5), ("c", 0.001), ("d", 0.00105)]:
        links.link(Tied, "a", name, weight)
    assert way(links.weaken_all, Tied, "a") == 2  # 0.00095 and 0.0009975
    assert edges(server) == {("a", "b"): 0.475, ("b", "a"): 0.475}
    assert way(links.weaken_all, Tied, "a", 0.1) == 0
    assert links.get_linked(Tied, "b") == [("a", 0.475 * 0.1)]
    assert way(links.weaken_all, Tied, "never") == 0


def test_factor_one_only_prunes_and_factor_zero_removes_all(server: redis.Redis) -> None:
    for name, weight in [("b", 0.5), ("c", 0.0009)]:
        leads.link(Hop, "a", name, weight)
    assert leads.weaken_all(Hop, "a", 1) == 1
    assert edges(server, Hop, "leads") == {("a", "b"): 0.5}
    assert leads.weaken_all(Hop, "a", 0) == 1
    assert stored(server) == {}


@pytest.mark.parametrize("factor", [-0.1, 1.1, float("nan"), "x", True], ids=str)
def test_a_factor_out_of_range_is_refused(server: redis.Redis, factor: Any) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        links.weaken_all(Tied, "a", factor)


def test_calls_can_be_queued(server: redis.Redis) -> None:
    pipeline = server.pipeline()
    assert links.link(Tied, "a", "b", 0.5, pipeline) is None
    assert links.strengthen(Tied, "a", "b", 0.5, pipeline) is None
    assert links.weaken_all(Tied, "a", 0.5, pipeline) is None
    assert links.unlink(Tied, "c", "d", pipeline) is None
    assert edges(server) == {}
    assert pipeline.execute() == [b"0.5", b"1", 0, 0]
    assert edges(server) == {("a", "b"): 0.5, ("b", "a"): 0.5}


# -- the cap -----------------------------------------------------------------------------------------------------------


def test_a_full_node_drops_its_weakest_edge_on_both_sides(server: redis.Redis, way: Callable[..., Any]) -> None:
    small: Any = SmallGraph._meta.fields["links"]
    for name, weight in [("b", 0.5), ("c", 0.3), ("d", 0.4)]:
        small.link(SmallGraph, "a", name, weight)
    assert way(small.link, SmallGraph, "a", "e", 0.35) == 0.35
    assert {target for source, target in edges(server, SmallGraph) if source == "a"} == {"b", "d", "e"}
    assert small.get_linked(SmallGraph, "c") == []
    assert way(small.link, SmallGraph, "a", "f", 0.1) == 0.0, "the new one is the weakest"
    assert small.get_linked(SmallGraph, "f") == []
    assert way(small.strengthen, SmallGraph, "a", "f", 0.45) == 0.45
    assert {target for source, target in edges(server, SmallGraph) if source == "a"} == {"b", "d", "f"}


def test_the_cap_of_the_other_side_counts_too(server: redis.Redis) -> None:
    small: Any = SmallGraph._meta.fields["links"]
    for name, weight in [("b", 0.5), ("c", 0.3), ("d", 0.4)]:
        small.link(SmallGraph, "hub", name, weight)
    assert small.link(SmallGraph, "new", "hub", 0.2) == 0.0
    assert small.get_linked(SmallGraph, "new") == []
    assert len(edges(server, SmallGraph)) == 6


def test_the_cap_of_one_way_edges(server: redis.Redis) -> None:
    field: Any = SmallStep._meta.fields["leads"]
    for name, weight in [("b", 0.5), ("c", 0.3), ("d", 0.4)]:
        field.link(SmallStep, "a", name, weight)
        field.link(SmallStep, name, "z", weight)
    assert edges(server, SmallStep, "leads").keys() == {("a", "b"), ("a", "d"), ("b", "z"), ("c", "z"), ("d", "z")}


# -- get_linked --------------------------------------------------------------------------------------------------------


def test_linked_nodes_come_heaviest_first(server: redis.Redis, way: Callable[..., Any], round_trips: Any) -> None:
    for name, weight in [("b", 0.5), ("c", 0.9), ("d", 0.5), ("e", 0.009), ("f", 0.01)]:
        links.link(Tied, "a", name, weight)
    assert way(links.get_linked, Tied, "a") == [("c", 0.9), ("d", 0.5), ("b", 0.5), ("f", 0.01)]
    assert way(links.get_linked, Tied, "a", limit=2) == [("c", 0.9), ("d", 0.5)]
    assert way(links.get_linked, Tied, "a", 0.5, -1) == [("c", 0.9), ("d", 0.5), ("b", 0.5)]
    assert len(way(links.get_linked, Tied, "a", 0.0, -7)) == 5
    assert way(links.get_linked, Tied, "a", limit=0) == []
    assert way(links.get_linked, Tied, "never") == []
    with round_trips() as trips:
        links.get_linked(Tied, "a")
    assert trips.count == 1


def test_neighbours_that_have_expired_take_no_place(server: redis.Redis) -> None:
    (a,) = facts("a")
    for number in range(5):
        brief = Tied(name=f"brief{number}")
        brief._ttl = 0.02
        brief.save()
        links.link(Tied, a, brief, 1.0)
    (b,) = facts("b")
    links.link(Tied, a, b, 0.5)
    links.link(Tied, "topic", a, 0.3)
    time.sleep(0.05)
    assert links.get_linked(Tied, a, limit=2) == [("Tied:b", 0.5), ("topic", 0.3)]
    assert links.propagate(Tied, [a], depth=1) == {"Tied:b": 0.25, "topic": 0.15}


# -- propagate ---------------------------------------------------------------------------------------------------------


def test_propagation_to_the_digit(server: redis.Redis, way: Callable[..., Any]) -> None:
    for source, target, weight in [("a", "b", 0.8), ("b", "c", 0.5), ("c", "d", 1.0), ("a", "e", 0.01)]:
        links.link(Tied, source, target, weight)
    assert way(links.propagate, Tied, ["a"]) == {"b": 0.4, "c": 0.4 * 0.5 * 0.5}
    assert way(links.propagate, Tied, ["a"], depth=3) == {"b": 0.4, "c": 0.1, "d": 0.05}
    assert way(links.propagate, Tied, ["a"], depth=1, threshold=0.005) == {"b": 0.4, "e": 0.005}
    assert way(links.propagate, Tied, ["a"], decay_per_hop=1.0) == {"b": 0.8, "c": 0.4, "e": 0.01}
    assert list(way(links.propagate, Tied, ["a"], decay_per_hop=1.0)) == ["b", "c", "e"], "heaviest first"
    assert way(links.propagate, Tied, ["a", "c"], depth=1) == {"b": 0.4, "d": 0.5}, "the better way, without the seeds"


def test_a_longer_way_may_be_the_better_one(server: redis.Redis) -> None:
    for source, target, weight in [("a", "d", 0.1), ("a", "b", 1.0), ("b", "d", 1.0), ("d", "e", 1.0)]:
        leads.link(Hop, source, target, weight)
    assert leads.propagate(Hop, ["a"], depth=3, decay_per_hop=0.9) == pytest.approx({"b": 0.9, "d": 0.81, "e": 0.729})


def test_the_decay_a_hop_follows_the_default(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    links.link(Tied, "a", "b")
    monkeypatch.setattr(Defaults, "CO_OCCURRENCE_DECAY_PER_HOP", 0.25)
    assert links.propagate(Tied, ["a"], 1) == {"b": 0.25}


def test_edges_of_propagation(server: redis.Redis, way: Callable[..., Any], round_trips: Any) -> None:
    links.link(Tied, "a", "b")
    with round_trips() as trips:
        assert way(links.propagate, Tied, []) == way(links.propagate, Tied, None) == {}
        assert way(links.propagate, Tied, ["a"], depth=0) == {"a": 1.0}
        assert way(links.propagate, Tied, ["a"], depth=-1) == {}
        for wrong in ("abc", b"abc", Tied(name="x")):
            with pytest.raises(TypeError, match="expected a list"):
                way(links.propagate, Tied, wrong)
        with pytest.raises(TypeError, match="depth"):
            way(links.propagate, Tied, ["a"], 1.5)
        for name in ("decay_per_hop", "threshold"):
            with pytest.raises(ValueError, match=name):
                way(links.propagate, Tied, ["a"], **{name: float("nan")})
    assert trips.count == 0


def test_a_hop_is_one_round_trip_however_wide(server: redis.Redis, round_trips: Any) -> None:
    pipeline = server.pipeline()
    for number in range(120):
        pipeline.zadd("$CoOcF:Hop:leads:a", {f"n{number}": 1.0})
        for other in range(3):
            pipeline.zadd(f"$CoOcF:Hop:leads:n{number}", {f"m{number}-{other}": 1.0})
    pipeline.execute()
    with round_trips() as trips:
        assert len(leads.propagate(Hop, ["a"], depth=2)) == 120 + 360
    assert trips.count == 2
    with round_trips() as trips:
        leads.propagate(Hop, ["a"], depth=9)
    assert trips.count == 3, "it ends where nothing is new"


def brute_force(
    graph: dict[str, dict[str, float]], seeds: list[str], depth: int, decay: float, threshold: float, most: int
) -> dict[str, float]:
    """The best product over all walks of up to `depth` edges, by going them all."""
    best: dict[str, float] = {}

    def walk(node: str, weight: float, left: int) -> None:
        if not left:
            return
        strongest = sorted(graph.get(node, {}).items(), key=lambda item: (item[1], item[0]), reverse=True)[:most]
        for target, edge in strongest:
            reached = weight * decay * edge
            if reached >= threshold:
                best[target] = max(best.get(target, 0.0), reached)
                walk(target, reached, left - 1)

    for seed in seeds:
        walk(seed, 1.0, depth)
    return {node: weight for node, weight in best.items() if node not in seeds}


NODES = [f"n{number}" for number in range(7)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_propagation_equals_going_every_way(server: redis.Redis, data: st.DataObject) -> None:
    server.flushall()
    weights = st.sampled_from([0.05, 0.3, 0.5, 0.9, 1.0, 1.7])
    drawn = data.draw(st.dictionaries(st.tuples(st.sampled_from(NODES), st.sampled_from(NODES)), weights, max_size=20))
    graph: dict[str, dict[str, float]] = {}
    for (source, target), weight in drawn.items():
        if source != target:
            leads.link(Hop, source, target, weight)
            graph.setdefault(source, {})[target] = weight
    seeds = data.draw(st.lists(st.sampled_from(NODES), min_size=1, max_size=3, unique=True))
    depth = data.draw(st.integers(1, 4))
    decay, threshold = data.draw(st.sampled_from([(0.5, 0.01), (1.0, 0.2), (0.9, 0.0)]))
    expected = brute_force(graph, seeds, depth, decay, threshold, 500)
    assert leads.propagate(Hop, seeds, depth, decay, threshold) == expected


def test_only_the_strongest_edges_of_a_node_lead_on(server: redis.Redis) -> None:
    field: Any = SmallStep._meta.fields["leads"]
    server.zadd("$CoOcF:SmallStep:leads:a", {"b": 0.5, "c": 0.6, "d": 0.7})  # more than the cap, from another time
    assert field.propagate(SmallStep, ["a"], 1, 1.0) == {"d": 0.7, "c": 0.6}


# -- with the record ---------------------------------------------------------------------------------------------------


def test_an_expired_record_leads_nowhere(server: redis.Redis, way: Callable[..., Any]) -> None:
    gone, kept = Tied(name="gone"), Tied.create(name="kept")
    gone._ttl = 100
    gone.save()
    links.link(Tied, gone, kept)
    links.link(Tied, kept, "a topic")
    assert way(links.get_linked, Tied, gone) == [("Tied:kept", 1.0)]
    server.pexpire("Tied:gone", 1)
    time.sleep(0.01)
    assert way(links.get_linked, Tied, gone) == []
    assert way(links.propagate, Tied, [gone]) == {}
    assert way(links.propagate, Tied, [gone, kept]) == {"a topic": 0.5}


@pytest.mark.parametrize("node", [None, "", b""])
def test_what_names_no_node_is_refused(server: redis.Redis, node: Any) -> None:
    for call in (lambda: links.link(Tied, node, "x"), lambda: links.get_linked(Tied, node)):
        with pytest.raises(ValueError, match="expected an instance, a Redis key or another text"):
            call()
    assert stored(server) == {}


@pytest.mark.parametrize("limit", [None, "3", 2.0, True])
def test_a_limit_of_neighbours_is_a_whole_number(server: redis.Redis, limit: Any) -> None:
    with pytest.raises(TypeError, match="limit= expected a whole number"):
        links.get_linked(Tied, "x", limit=limit)


def test_saves_leave_the_edges_alone(server: redis.Redis) -> None:
    a, b = facts("a", "b")
    links.link(Tied, a, b, 0.5)
    before = edges(server)
    a.text = "new"
    a.save()
    a.save(update_fields=["links"])
    Tied(name="b", text="another instance").save()
    assert edges(server) == before


@pytest.mark.parametrize("fields", [None, ["name"]], ids=["whole", "partial"])
def test_a_record_keeps_its_edges_under_a_new_key(server: redis.Redis, fields: list[str] | None) -> None:
    quokka, b, c = facts("quokka", "b", "c")
    links.link(Tied, quokka, b, 0.5)
    links.link(Tied, c, quokka, 0.3)
    links.link(Tied, "quokka", "topic", 0.2)
    quokka.name = "num-bat"
    quokka.save(migrate_key=True, update_fields=fields)
    new = quokka.pk
    assert new == "Tied:num/-bat"
    assert links.get_linked(Tied, quokka) == [("Tied:b", 0.5), ("Tied:c", 0.3)]
    assert links.get_linked(Tied, b) == [(new, 0.5)]
    assert links.get_linked(Tied, "topic") == [("num-bat", 0.2)]
    edges(server)
    assert traces(server, "quokka") == []


def test_one_way_edges_follow_in_both_directions(server: redis.Redis) -> None:
    for name in ("quokka", "b", "c"):
        Hop.create(name=name)
    leads.link(Hop, "Hop:quokka", "Hop:b", 0.5)
    leads.link(Hop, "Hop:c", "Hop:quokka", 0.3)
    step = Hop.query.get(name="quokka")
    step.name = "numbat"
    step.save(migrate_key=True)
    assert edges(server, Hop, "leads") == {
        ("Hop:numbat", "Hop:b"): 0.5,
        ("Hop:c", "Hop:numbat"): 0.3,
    }
    assert traces(server, "quokka") == []


def test_delete_takes_the_edges_along_on_all_sides(server: redis.Redis) -> None:
    quokka, b = facts("qu-okka", "b")
    links.link(Tied, quokka, b)
    links.link(Tied, "qu-okka", "topic")
    links.link(Tied, "topic", "other")
    quokka.delete()
    assert edges(server) == {("topic", "other"): 1.0, ("other", "topic"): 1.0}
    assert traces(server, "okka") == []
    for name in ("quokka", "b", "c"):
        Hop.create(name=name)
    leads.link(Hop, "Hop:quokka", "Hop:b")
    leads.link(Hop, "Hop:c", "Hop:quokka")
    Hop.query.get(name="quokka").delete()
    assert edges(server, Hop, "leads") == {}
    assert traces(server, "quokka") == []


def test_the_last_record_leaves_nothing(server: redis.Redis) -> None:
    pairs = [TeamFact.create(name=name, team="t") for name in "ab"]
    field: Any = TeamFact._meta.fields["links"]
    field.link(TeamFact, *pairs)
    field.link(TeamFact, "a:t", "topic")
    for pair in pairs:
        pair.delete()
    assert stored(server) == {}


def test_expiry_takes_the_edges_along_with_the_next_write(server: redis.Redis) -> None:
    (a,) = facts("a")
    brief = Tied(name="quokka")
    brief._ttl = 0.02
    brief.save()
    links.link(Tied, a, brief)
    time.sleep(0.05)
    facts("b")
    assert traces(server, "quokka") == []


def test_records_stored_before_the_field_was_there_are_cleaned_up_too(server: redis.Redis) -> None:
    class Loose(Model):
        name = KeyField()

    for name in ("quokka", "b"):
        Loose.create(name=name)

    class Linked(Model):
        name = KeyField()
        links = CoOccurrenceField()

        class Meta:
            key_name = "Loose"

    field: Any = Linked._meta.fields["links"]
    field.link(Linked, "Loose:quokka", "Loose:b")
    Linked.query.get(name="quokka").delete()
    assert traces(server, "quokka") == []
    assert not server.exists("$CoOcF:Loose:links:Loose:b")


def test_names_with_special_characters_stay_apart(server: redis.Redis) -> None:
    a, b = facts("a:b", "a{&#58;}b")
    links.link(Tied, a, b, 0.5)
    assert links.get_linked(Tied, a) == [(b.pk, 0.5)]
    a.delete()
    b.delete()
    assert stored(server) == {}


# -- at once -----------------------------------------------------------------------------------------------------------


def test_a_repeat_after_a_cut_reply_adds_once(server: redis.Redis, shared_server: Any, way: Callable[..., Any]) -> None:
    for script in Script._all:
        server.script_load(script.source)
    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        proxy.cut_replies(times=2)
        assert way(links.strengthen, Tied, "a", "b", 0.5) == 0.5
        assert proxy.cuts == 2
        redis_db.configure_url(shared_server.url)


def test_threads_that_link_strengthen_and_weaken_leave_one_sided_edges_nowhere(server: redis.Redis) -> None:
    small: Any = SmallGraph._meta.fields["links"]

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(60):
            source, target = rng.sample(NODES, 2)
            rng.choice([small.link, small.strengthen, small.unlink])(SmallGraph, source, target)
            small.weaken_all(SmallGraph, source, 0.9)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = edges(server, SmallGraph)
    assert all(sum(source == node for source, _ in found) <= 3 for node in NODES)


def test_nothing_is_lost_when_many_strengthen_one_edge(server: redis.Redis) -> None:
    async def add() -> None:
        await asyncio.gather(*(links.async_strengthen(Tied, "a", "b", 1.0) for _ in range(50)))

    asyncio.run(add())
    assert links.get_linked(Tied, "a") == [("b", 50.0)]
