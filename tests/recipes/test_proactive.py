"""ContextAssembler: what is due has its share of the context, and an assembly leaves its reads and proposals behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from popoto import (
    AccessTrackerMixin,
    AssemblyResult,
    BM25Field,
    ContextAssembler,
    CyclicDecayField,
    Field,
    KeyField,
    Model,
    ObservationProtocol,
    QueryException,
    RecallProposal,
)
from popoto.memory import clock
from popoto.recipes.proactive import shared_out

NOW = 1_750_000_000.0
DAY = 86_400.0


class DueNote(AccessTrackerMixin, Model):
    agent_id = KeyField()
    name = KeyField()
    text = Field(default="nothing")
    words = BM25Field(source="text")
    urgency = CyclicDecayField(pressure_rate=0.5, partition_by="agent_id", base_score_field="weight")
    weight = Field(type=float, default=0.0)


@pytest.fixture(autouse=True)
def frozen(server: redis.Redis) -> Iterator[clock.FrozenClock]:
    with clock.frozen(NOW) as still:
        yield still


def note(name: str, text: str = "nothing", days: float = 0.0, agent: str = "a") -> DueNote:
    """A record whose pressure has built up for so many days, half a point each."""
    with clock.frozen(NOW - days * DAY):
        return DueNote.create(agent_id=agent, name=name, text=text)


def assembled(assembler: ContextAssembler, cues: Any, twin: bool, agent: str = "a") -> AssemblyResult:
    if twin:
        return asyncio.run(assembler.async_assemble(cues, agent_id=agent))
    return assembler.assemble(cues, agent_id=agent)


def names(records: list[Any]) -> list[str]:
    return [record.name for record in records]


def staged(server: redis.Redis) -> dict[str, int]:
    prefix = "$AT:DueNote:staged:"
    return {key.decode().removeprefix(prefix): server.llen(key) for key in server.keys(prefix + "*")}


@pytest.mark.parametrize("twin", [False, True], ids=["sync", "async"])
def test_what_is_due_comes_behind_the_answers(server: redis.Redis, twin: bool) -> None:
    for n in range(12):
        note(f"hit{n:02}", "dentist")
    note("old", days=10)
    note("older", days=20)
    note("young", days=0.5)  # 0.25: below the threshold
    note("other", days=90, agent="b")
    result = assembled(ContextAssembler(DueNote, {}, max_items=5), {"q": "dentist"}, twin)
    assert names(result.records)[:4] == ["hit11", "hit10", "hit09", "hit08"]
    assert names(result.records)[4:] == names(result.proactive) == ["older"]
    assert (result.metadata["pull_count"], result.metadata["push_count"]) == (4, 1)
    assert result.metadata["scores"]["DueNote:a:older"] == {"total": 0.0, "push": pytest.approx(10.0)}
    assert "push" not in result.metadata["scores"]["DueNote:a:hit11"]


def test_without_cues_there_is_only_what_is_due(server: redis.Redis) -> None:
    for days in (1, 2, 4):
        note(f"n{days}", days=days)
    result = ContextAssembler(DueNote, {}, surfacing_threshold=1.0).assemble(agent_id="a")
    assert names(result.records) == names(result.proactive) == ["n4", "n2"]
    assert names(ContextAssembler(DueNote, {}, surfacing_threshold=0).assemble(agent_id="a").records) == [
        "n4",
        "n2",
        "n1",
    ]


def test_what_is_due_and_answers_the_cues_is_an_answer(server: redis.Redis) -> None:
    note("both", "dentist", days=30)
    result = ContextAssembler(DueNote, {}).assemble({"q": "dentist"}, agent_id="a")
    assert names(result.records) == ["both"] and result.proactive == []
    assert RecallProposal.get_pending(DueNote, "a") == []


@pytest.mark.parametrize("twin", [False, True], ids=["sync", "async"])
def test_one_read_is_staged_of_each_answer_and_a_proposal_noted_of_the_rest(server: redis.Redis, twin: bool) -> None:
    for n in range(3):
        note(f"hit{n}", "dentist")
    due = note("due", days=10)
    result = assembled(ContextAssembler(DueNote, {}, max_items=3), {"q": "dentist"}, twin)
    assert names(result.records) == ["hit2", "hit1", "due"]
    assert staged(server) == {"DueNote:a:hit2": 1, "DueNote:a:hit1": 1}, "of what was returned, and nothing else"
    assert RecallProposal.get_pending(DueNote, "a") == [(due.pk, NOW)]
    ObservationProtocol.on_context_used(result.records, {due.pk: "acted", "DueNote:a:hit2": "used"})
    assert staged(server) == {} and RecallProposal.get_pending(DueNote, "a") == []
    assert DueNote.query.filter(agent_id="a").no_track().top_by_decay("urgency", n=1)[0]._decay_score < 0.5


def test_what_does_not_fit_the_budget_leaves_nothing_behind(server: redis.Redis) -> None:
    for n in range(2):
        note(f"hit{n}", "dentist")
    note("due", days=10)
    result = ContextAssembler(DueNote, {}, max_tokens=1, token_counter=lambda _: 1).assemble({"q": "dentist"}, "a")
    assert names(result.records) == ["hit1"] and result.proactive == []
    assert staged(server) == {"DueNote:a:hit1": 1}
    assert RecallProposal.get_pending(DueNote, "a") == []


def test_each_part_that_a_model_has_is_one_round_trip(server: redis.Redis, round_trips: Any) -> None:
    note("hit", "dentist")
    note("due", days=10)
    with round_trips() as trips:
        assert len(ContextAssembler(DueNote, {}).assemble({"q": "dentist"}, agent_id="a").records) == 2
    assert trips.count == 5  # find, read, what is due, stage, propose


def test_a_partition_that_no_filter_names_raises(server: redis.Redis) -> None:
    with pytest.raises(QueryException, match="partitioned by agent_id"):
        ContextAssembler(DueNote, {}).assemble({"q": "dentist"})


@pytest.mark.parametrize("threshold", [None, "0.5", float("nan"), True])
def test_a_threshold_that_is_no_number_is_refused(threshold: Any) -> None:
    with pytest.raises(QueryException, match="surfacing_threshold: expected a finite number"):
        ContextAssembler(DueNote, {}, surfacing_threshold=threshold)


@dataclass(frozen=True)
class Row:
    pk: int


ROWS = st.lists(st.integers(0, 15), unique=True).map(lambda pks: [Row(pk) for pk in pks])


@given(ROWS, ROWS, st.integers(0, 12))
def test_the_shares_of_answers_and_of_what_is_due(pulled: list[Row], due: list[Row], most: int) -> None:
    answers, proactive = shared_out(pulled, due, most)
    both = answers + proactive
    assert len(both) == len(set(both)) == min(most, len({*pulled[:most], *due})), "no place is left that can be filled"
    assert answers == pulled[: len(answers)] and proactive == [row for row in due if row in proactive]
    if len(pulled) >= most > 1:
        share = -(-most // 5)
        assert len(proactive) <= share
        assert len(proactive) == share or set(due) <= set(both), "as many as are reserved, or all that are due"
