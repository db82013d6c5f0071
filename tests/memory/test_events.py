"""What memory fields learn is told in the model's event stream, in the step that changes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from popoto import (
    ConfidenceField,
    CoOccurrenceField,
    CyclicDecayField,
    DecayingSortedField,
    EventStreamMixin,
    Field,
    KeyField,
    Model,
    ModelException,
    ObservationProtocol,
    PredictionLedgerMixin,
    redis_db,
)
from popoto.memory import clock
from tests.faults.proxy import cutting_proxy
from tests.memory.traces import WAYS

T0 = 1_700_000_000.0
STREAM = "stream:mutations:red"


class ToldFact(EventStreamMixin, PredictionLedgerMixin, Model):
    _stream_partition_field = "team"
    _stream_metadata_fields = ("text", "certainty")

    name = KeyField()
    team = Field(default="red")
    text = Field(default="x")
    relevance = DecayingSortedField()
    swing = CyclicDecayField(cycles=[(86_400, 1.0)], pressure_rate=0.5)
    certainty = ConfidenceField()
    links = CoOccurrenceField()


links: Any = ToldFact._meta.fields["links"]


@pytest.fixture(params=WAYS, ids=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def frozen() -> Iterator[clock.FrozenClock]:
    with clock.frozen(T0) as still:
        yield still


def told(server: redis.Redis, stream: str = STREAM) -> list[dict[str, str]]:
    """The entries after the one that tells of the record's making, without the time."""
    found = [{k.decode(): v.decode() for k, v in fields.items() if k != b"ts"} for _, fields in server.xrange(stream)]
    return [entry for entry in found if entry["op"] != "create"]


def used(way: Callable[..., Any], fact: ToldFact, outcome: str) -> None:
    if way is not WAYS[0]:
        asyncio.run(ObservationProtocol.async_on_context_used([fact], {fact.pk: outcome}))
    else:
        ObservationProtocol.on_context_used([fact], {fact.pk: outcome})


def entry(op: str, **more: str) -> dict[str, str]:
    plain = {"model": "ToldFact", "pk": "ToldFact:a", "op": op, "changed_fields": "", "text": "x", "certainty": "0.5"}
    return {**plain, **more}


def test_a_signal_is_told_with_the_new_confidence(
    server: redis.Redis, way: Callable[..., Any], round_trips: Any
) -> None:
    fact = ToldFact.create(name="a")
    with round_trips() as trips:
        way(ConfidenceField.update_confidence, fact, "certainty", 0.9)
    assert way is not WAYS[0] or trips.count == 1  # what is counted is the sync client
    learnt = {"field": "certainty", "signal": "0.9", "new_confidence": "0.9"}
    assert told(server) == [entry("confidence_update", certainty="0.9", **learnt)]


def test_a_touch_is_an_update_of_its_field(server: redis.Redis, way: Callable[..., Any]) -> None:
    fact = ToldFact.create(name="a")
    way(fact.touch, "relevance")
    assert told(server) == [entry("update", changed_fields="relevance")]


def test_a_resolution_is_told_and_what_it_does_to_the_confidence(server: redis.Redis, way: Callable[..., Any]) -> None:
    fact = ToldFact.create(name="a")
    ToldFact.record_prediction(fact, {"a": "x"})
    assert way(ToldFact.resolve_prediction, fact, {"a": "y"}) == 1.0
    assert way(ToldFact.resolve_prediction, fact, {"a": "y"}) is None, "nothing is open: nothing is told"
    lower = {"field": "certainty", "signal": "0.2", "new_confidence": "0.2"}
    assert told(server) == [
        entry("prediction_resolved", prediction_error="1.0", resolution_mode="explicit"),
        entry("confidence_update", certainty="0.2", **lower),
    ]


def test_a_strengthened_edge_is_told_in_the_stream_of_its_source(server: redis.Redis, way: Callable[..., Any]) -> None:
    fact, other = ToldFact.create(name="a"), ToldFact.create(name="b", team="blue")
    links.link(ToldFact, fact, other)
    way(links.strengthen, ToldFact, fact, other, 0.25)
    edge = {"source_pk": "ToldFact:a", "target_pk": "ToldFact:b", "delta": "0.25"}
    assert told(server) == [entry("strengthen", **edge)]
    way(links.strengthen, ToldFact, "a topic", fact)
    topic = {"pk": "a topic", "source_pk": "a topic", "target_pk": "ToldFact:a", "delta": "0.05"}
    assert told(server, "stream:mutations") == [entry("strengthen", **{**topic, "text": "", "certainty": ""})]


def test_outcomes_tell_what_they_change(server: redis.Redis, way: Callable[..., Any]) -> None:
    fact = ToldFact.create(name="a")
    ToldFact.record_prediction(fact, {"a": 1})
    used(way, fact, "acted")
    up = {"field": "certainty", "signal": "0.9", "new_confidence": "0.9"}
    assert told(server) == [
        entry("update", changed_fields="relevance,swing"),
        entry("confidence_update", certainty="0.9", **up),
        entry("prediction_resolved", certainty="0.9", prediction_error="0.1", resolution_mode="observed"),
    ]
    for outcome in ("used", "dismissed", "deferred"):
        used(way, fact, outcome)
    assert len(told(server)) == 3, "they change nothing that is told"


def test_what_is_refused_is_not_told(server: redis.Redis, way: Callable[..., Any]) -> None:
    fact = ToldFact.create(name="a")
    ToldFact.query.get(name="a").delete()
    before = told(server)
    for call in (
        lambda: way(ConfidenceField.update_confidence, fact, "certainty", 0.9),
        lambda: way(fact.touch, "relevance"),
        lambda: way(links.strengthen, ToldFact, fact, "x"),
    ):
        with pytest.raises(TypeError, match="nothing was written"):
            call()
    used(way, fact, "acted")
    assert told(server) == before


def test_a_foreign_key_in_place_of_the_stream_refuses_the_change_whole(server: redis.Redis) -> None:
    fact = ToldFact.create(name="a")
    ToldFact.record_prediction(fact, {"a": 1})
    server.delete(STREAM)
    server.set(STREAM, "foreign")
    for call in (
        lambda: ConfidenceField.update_confidence(fact, "certainty", 0.9),
        lambda: fact.touch("relevance"),
        lambda: ToldFact.resolve_prediction(fact, {"a": 2}),
        lambda: links.strengthen(ToldFact, fact, "x"),
        lambda: ObservationProtocol.on_context_used([fact], {fact.pk: "acted"}),
    ):
        with pytest.raises(ModelException, match="nothing was written"):
            call()
    assert ToldFact.get_prediction_data(fact)["resolved"] is False  # type: ignore[index]
    assert ConfidenceField.get_confidence_data(fact, "certainty")["evidence_count"] == 0
    assert links.get_linked(ToldFact, fact) == []


def test_a_repeat_after_a_cut_reply_is_told_once(server: redis.Redis, shared_server: Any) -> None:
    fact = ToldFact.create(name="a")
    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        proxy.cut_replies(times=2)
        ConfidenceField.update_confidence(fact, "certainty", 0.9)
        assert proxy.cuts == 2
        redis_db.configure_url(shared_server.url)
    assert [found["op"] for found in told(server)] == ["confidence_update"]


def test_queued_calls_are_told_when_they_run(server: redis.Redis) -> None:
    fact = ToldFact.create(name="a")
    pipeline = redis_db.get_REDIS_DB().pipeline()
    fact.touch("relevance", pipeline=pipeline)
    links.strengthen(ToldFact, fact, "x", pipeline=pipeline)
    ObservationProtocol.on_context_used([fact], {fact.pk: "contradicted"}, pipeline=pipeline)
    assert told(server) == []
    pipeline.execute()
    assert [found["op"] for found in told(server)] == ["update", "strengthen", "confidence_update"]
