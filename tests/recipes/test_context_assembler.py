"""ContextAssembler: the cues decide, the scores explain, the budget holds, no record of another partition appears."""

from __future__ import annotations

import asyncio
import json
import math
import random
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from popoto import (
    AssemblyResult,
    BM25Field,
    ConfidenceField,
    ContextAssembler,
    DecayingSortedField,
    Field,
    FloatField,
    IndexedField,
    KeyField,
    Model,
    ModelException,
    QueryException,
)
from popoto.memory import clock
from popoto.memory.decay import decay_score
from popoto.recipes import fitting
from popoto.recipes.fitting import CUT_MARK
from popoto.recipes.formats import FORMATS

NOW = 1_750_000_000.0
DAY = 86_400.0


class AssemblyMemory(Model):
    agent_id = KeyField()
    name = KeyField()
    text = Field(max_length=None)
    kind = IndexedField(default="fact")
    weight = FloatField(default=1.0)
    words = BM25Field(source="text")
    relevance = DecayingSortedField(partition_by="agent_id", base_score_field="weight")
    certainty = ConfidenceField()


class AssemblyPlain(Model):
    """No words, no agent."""

    name = KeyField()
    text = Field(max_length=None)
    relevance = DecayingSortedField()
    certainty = ConfidenceField()


class AssemblyTeam(Model):
    name = KeyField()
    team = Field()
    text = Field()
    certainty = ConfidenceField(partition_by="team")


class AssemblyWords(Model):
    name = KeyField()
    text = Field(max_length=None)
    words = BM25Field(source="text")


class AssemblyBare(Model):
    name = KeyField()


@pytest.fixture(autouse=True)
def at_now(server: redis.Redis) -> Iterator[clock.FrozenClock]:
    with clock.frozen(NOW) as frozen:
        yield frozen


def remember(name: str, text: str, agent: str = "a", days: float = 0.0, **more: Any) -> AssemblyMemory:
    memory = AssemblyMemory(agent_id=agent, name=name, text=text, relevance=NOW - days * DAY, **more)
    memory.save(skip_auto_now=True)
    return memory


def names(result: AssemblyResult) -> list[str]:
    return [record.name for record in result.records]


ALL = {"relevance": 0.3, "certainty": 0.2}
WORDS = ["dentist", "tuesday", "dog", "chicken", "train", "berlin", "coffee", "garden", "violin", "passport"]


# -- what the cues do --------------------------------------------------------------------------------------------------


def test_a_record_with_the_words_beats_a_fresher_one() -> None:
    remember("fresh", "The train to Berlin leaves at nine.", days=0)
    remember("old", "The dentist appointment is on Tuesday.", days=400)
    result = ContextAssembler(AssemblyMemory, ALL).assemble({"topic": "When is the dentist?"}, agent_id="a")
    assert names(result) == ["old", "fresh"]
    result = ContextAssembler(AssemblyMemory, ALL).assemble({"topic": "Is there a train?"}, agent_id="a")
    assert names(result) == ["fresh", "old"]


def test_the_words_of_all_cues_count() -> None:
    for name, text in [("one", "dentist"), ("both", "dentist on tuesday"), ("none", "coffee")]:
        remember(name, text)
    cues = {"topic": "dentist", "when": "tuesday", "empty": None, "number": 7}
    result = ContextAssembler(AssemblyMemory, {}).assemble(cues, agent_id="a")
    assert names(result) == ["both", "one"]


@pytest.mark.parametrize("cues", [None, {}])
def test_without_cues_nothing_is_pulled(cues: Any, round_trips: Any) -> None:
    remember("x", "dentist")
    with round_trips() as trips:
        result = ContextAssembler(AssemblyMemory, ALL).assemble(cues, agent_id="a")
    assert (result.records, result.proactive, result.formatted) == ([], [], "[]")
    assert result.metadata["pull_count"] == result.metadata["total_candidates"] == result.metadata["token_count"] == 0
    assert trips.count == 0


def test_words_alone_find_what_holds_one_of_them_and_nothing_else() -> None:
    for name in "abc":
        AssemblyWords.create(name=name, text=f"dentist {name * 3}")
    assembler = ContextAssembler(AssemblyWords, {})
    assert names(assembler.assemble({"q": "bbb dentist"})) == ["b", "c", "a"]
    assert names(assembler.assemble({"q": "nothing like it"})) == []
    assert names(assembler.assemble({"q": "the of and"})) == []  # stop words


def test_without_words_to_search_the_weighted_fields_alone_decide() -> None:
    for name, days, certainty in [("fresh", 0, 0.1), ("sure", 100, 1.0), ("neither", 100, 0.1)]:
        AssemblyPlain(name=name, relevance=NOW - days * DAY, certainty=certainty).save(skip_auto_now=True)
    cues = {"topic": "anything"}
    assert names(ContextAssembler(AssemblyPlain, {"relevance": 1.0}).assemble(cues)) == ["fresh", "sure", "neither"]
    assert names(ContextAssembler(AssemblyPlain, {"certainty": 1.0}).assemble(cues)) == ["sure", "neither", "fresh"]
    assert names(ContextAssembler(AssemblyPlain, {"relevance": 0.2, "certainty": 0.8}).assemble(cues))[0] == "sure"
    assert names(ContextAssembler(AssemblyPlain, {}).assemble(cues)) == []
    assert names(ContextAssembler(AssemblyBare, {}).assemble(cues)) == []


@pytest.mark.parametrize("weight", ["relevance", "certainty"])
def test_the_best_of_many_by_one_weight_are_the_best(weight: str) -> None:
    rng = random.Random(7)
    wanted = []
    for n in range(120):
        record = AssemblyPlain(name=f"n{n}", relevance=NOW - rng.random() * 900 * DAY, certainty=rng.random())
        record.save(skip_auto_now=True)
        wanted.append((getattr(record, weight), record.name))
    result = ContextAssembler(AssemblyPlain, {weight: 1.0}, max_items=7).assemble({"q": "x"})
    assert names(result) == [name for _, name in sorted(wanted, reverse=True)[:7]]


def test_a_belief_outside_of_the_freshest_and_the_matching_is_considered() -> None:
    for n in range(30):
        remember(f"n{n:02}", "dentist", days=n)
    ConfidenceField.update_confidence(remember("sure", "coffee", days=999), "certainty", 1.0)
    result = ContextAssembler(AssemblyMemory, {"certainty": 9.0, "relevance": 0.1}, max_items=3).assemble(
        {"q": "dentist"}, agent_id="a"
    )
    assert names(result)[0] == "sure"


# -- scores ------------------------------------------------------------------------------------------------------------


def brute_force(records: list[AssemblyMemory], cues: str, keyword_weight: float) -> dict[str, dict[str, float]]:
    """Score every record of one agent by the documented formula."""
    keyword = dict(BM25Field.search(AssemblyMemory, "words", cues, limit=1000))
    signals = {
        "keyword": {r.pk: keyword.get(r.pk, 0.0) for r in records},
        "relevance": {r.pk: decay_score(r.weight, r.relevance, NOW, 0.1) for r in records},
        "certainty": {r.pk: ConfidenceField.get_confidence(r, "certainty") for r in records},
    }
    weights = {**ALL, "keyword": keyword_weight}
    scores: dict[str, dict[str, float]] = {r.pk: {"total": 0.0} for r in records}
    for name, values in signals.items():
        best = max(values.values())
        for key, value in values.items():
            scores[key][name] = weights[name] * value / best if best else 0.0
            scores[key]["total"] += scores[key][name]
    return scores


@pytest.mark.parametrize("seed", range(5))
def test_every_score_is_what_the_formula_says_and_explains_the_order(seed: int) -> None:
    rng = random.Random(seed)
    records = []
    for n in range(18):
        text = " ".join(rng.choices(WORDS, k=4))
        memory = remember(f"n{n}", text, days=rng.random() * 90, weight=rng.random() * 3)
        for _ in range(rng.randrange(3)):
            ConfidenceField.update_confidence(memory, "certainty", rng.random())
        records.append(memory)
    cues = " ".join(rng.sample(WORDS, 2))
    result = ContextAssembler(AssemblyMemory, ALL, max_items=18, keyword_weight=0.7).assemble({"q": cues}, agent_id="a")
    scores = result.metadata["scores"]
    wanted = brute_force(records, cues, 0.7)
    assert set(scores) == set(wanted)
    for key, parts in scores.items():
        assert set(parts) == {"total", "keyword", "relevance", "certainty"}
        assert parts == pytest.approx(wanted[key], rel=1e-12)
        assert parts["total"] == pytest.approx(sum(v for name, v in parts.items() if name != "total"), rel=1e-12)
    totals = [scores[record.pk]["total"] for record in result.records]
    assert totals == sorted(totals, reverse=True) and list(scores) == [record.pk for record in result.records]


def test_more_matches_than_are_asked_for_are_scored_alike() -> None:
    records = [remember(f"n{n:02}", "dentist " * (1 + n % 7) + "x " * (n % 5), days=n) for n in range(60)]
    result = ContextAssembler(AssemblyMemory, ALL, max_items=4).assemble({"q": "dentist"}, agent_id="a")
    scores, wanted = result.metadata["scores"], brute_force(records, "dentist", 1.0)
    assert next(iter(scores)) == max(wanted, key=lambda key: wanted[key]["total"])
    for key, parts in scores.items():
        assert parts["keyword"] == pytest.approx(wanted[key]["keyword"], rel=1e-12), key


def test_equal_totals_go_by_descending_key() -> None:
    for name in "bac":
        remember(name, "dentist")
    assert names(ContextAssembler(AssemblyMemory, ALL).assemble({"q": "dentist"}, agent_id="a")) == ["c", "b", "a"]


@pytest.mark.parametrize("weight", [math.inf, 1e308, 5e-324, -1e308, 0.0])
def test_extreme_base_scores_give_finite_totals(weight: float) -> None:
    remember("extreme", "dentist", weight=weight)
    remember("usual", "dentist", weight=1.0)
    result = ContextAssembler(AssemblyMemory, {"relevance": 1e308}).assemble({"q": "dentist"}, agent_id="a")
    totals = [parts["total"] for parts in result.metadata["scores"].values()]
    assert all(math.isfinite(total) for total in totals) and totals == sorted(totals, reverse=True)


def test_a_weight_below_zero_counts_against_a_record() -> None:
    remember("sure", "dentist", certainty=1.0)
    remember("unsure", "dentist", certainty=0.1)
    result = ContextAssembler(AssemblyMemory, {"certainty": -0.5}).assemble({"q": "dentist"}, agent_id="a")
    assert names(result) == ["unsure", "sure"]
    assert result.metadata["scores"]["AssemblyMemory:a:sure"]["certainty"] == -0.5


# -- partitions and filters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_records_of_another_partition_never_appear(seed: int) -> None:
    rng = random.Random(seed)
    for n in range(60):
        remember(
            f"n{n}",
            " ".join(rng.choices(WORDS, k=3)),
            agent=rng.choice("abc"),
            days=rng.random(),
            certainty=rng.random(),
            kind=rng.choice(["fact", "task"]),
        )
    assembler = ContextAssembler(AssemblyMemory, ALL, max_items=rng.choice([1, 3, 50]))
    for agent in "abcz":
        cues = {"q": rng.choice(WORDS)}
        result = assembler.assemble(cues, agent_id=agent)
        assert {record.agent_id for record in result.records} <= {agent}
        assert (result.records == []) == (agent == "z")
        result = assembler.assemble(cues, partition_filters={"agent_id": agent, "kind": "task"})
        assert {(record.agent_id, record.kind) for record in result.records} <= {(agent, "task")}


def test_agent_id_is_a_filter_that_the_model_must_have() -> None:
    remember("mine", "dentist", agent="a")
    remember("yours", "dentist", agent="b")
    assembler = ContextAssembler(AssemblyMemory, ALL)
    assert names(assembler.assemble({"q": "dentist"}, agent_id="a")) == ["mine"]
    assert names(assembler.assemble({"q": "dentist"}, agent_id="b", partition_filters={"agent_id": "a"})) == ["yours"]
    AssemblyPlain.create(name="p")
    with pytest.raises(QueryException, match="AssemblyPlain has no field agent_id"):
        ContextAssembler(AssemblyPlain, ALL).assemble({"q": "x"}, agent_id="whoever")


def test_filters_of_any_kind_restrict_the_candidates() -> None:
    for n in range(5):
        remember(f"n{n}", "dentist", days=n)
    filters = {"agent_id": "a", "name__in": ["n1", "n2"], "relevance__lt": NOW - 1.5 * DAY}
    assert names(ContextAssembler(AssemblyMemory, ALL).assemble({"q": "dentist"}, partition_filters=filters)) == ["n2"]
    filters = {"agent_id": "a", "text__contains": "nothing"}
    with pytest.raises(QueryException, match="text__contains"):
        ContextAssembler(AssemblyMemory, ALL).assemble({"q": "dentist"}, partition_filters=filters)


def test_what_the_filters_fix_is_not_repeated_in_the_text() -> None:
    remember("x", "dentist")
    assembler = ContextAssembler(AssemblyMemory, {}, output_format="natural")
    assert assembler.assemble({"q": "dentist"}).formatted == (
        "1. text: dentist, agent_id: a, name: x, kind: fact, weight: 1.0"
    )
    filters = {"agent_id": "a", "kind__in": ["fact"]}
    assert assembler.assemble({"q": "dentist"}, partition_filters=filters).formatted == (
        "1. text: dentist, name: x, kind: fact, weight: 1.0"
    )


# -- misconfiguration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"score_weights": {"relevanse": 1.0}}, "relevanse.*It has: relevance, certainty"),
        ({"score_weights": {"text": 1.0}}, "text"),
        ({"score_weights": {"relevance": math.nan}}, "finite number"),
        ({"score_weights": {"relevance": math.inf}}, "finite number"),
        ({"score_weights": {"relevance": "1"}}, "finite number"),
        ({"keyword_weight": None}, "keyword_weight"),
        ({"output_format": "yaml"}, "structured, xml, natural.*'yaml'"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_items": "10"}, "max_items"),
        ({"max_items": None}, "max_items"),
        ({"token_counter": 4}, "token_counter"),
    ],
)
def test_a_wrong_option_raises_when_the_assembler_is_made(options: dict[str, Any], said: str) -> None:
    with pytest.raises(QueryException, match=said):
        ContextAssembler(AssemblyMemory, **{"score_weights": ALL, **options})


def test_a_field_may_not_bear_the_name_of_another_score() -> None:
    class AssemblyClash(Model):
        name = KeyField()
        total = ConfidenceField()

    with pytest.raises(QueryException, match="'total'"):
        ContextAssembler(AssemblyClash, {"total": 1.0})


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"partition_filters": {"kind": "fact"}},
        {"partition_filters": {"agent_id__in": ["a"]}},
        {"partition_filters": {"agnt_id": "a"}, "agent_id": "a"},
        {"partition_filters": ["agent_id"], "agent_id": "a"},
        {"query_cues": "dentist", "agent_id": "a"},
    ],
)
def test_a_missing_partition_or_a_misspelt_filter_raises(call: dict[str, Any]) -> None:
    remember("x", "dentist")
    call = {"query_cues": {"q": "dentist"}, **call}
    assembler = ContextAssembler(AssemblyMemory, ALL)
    with pytest.raises(QueryException):
        assembler.assemble(**call)
    with pytest.raises(QueryException):
        asyncio.run(assembler.async_assemble(**call))


def test_a_partition_of_a_confidence_needs_a_filter_too() -> None:
    for team in ("red", "blue", None):
        AssemblyTeam.create(name=f"of {team}", team=team, text="x")
    assembler = ContextAssembler(AssemblyTeam, {"certainty": 1.0})
    with pytest.raises(QueryException, match="partitioned by team: add an exact filter for team"):
        assembler.assemble({"q": "x"})
    assert names(assembler.assemble({"q": "x"}, partition_filters={"team": "red"})) == ["of red"]
    assert names(assembler.assemble({"q": "x"}, partition_filters={"team": None})) == ["of None"]


def test_a_quality_that_is_not_there_yet_is_refused() -> None:
    with pytest.raises(ModelException, match="assess_quality"):
        ContextAssembler(AssemblyMemory, ALL).assemble({"q": "x"}, agent_id="a", assess_quality=True)


# -- size --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_items", [0, -1])
def test_no_items_are_no_items(max_items: int, round_trips: Any) -> None:
    remember("x", "dentist")
    with round_trips() as trips:
        result = ContextAssembler(AssemblyMemory, ALL, max_items=max_items).assemble({"q": "dentist"}, agent_id="a")
    assert (result.records, result.formatted, trips.count) == ([], "[]", 0)


def test_at_most_max_items_are_selected() -> None:
    for n in range(12):
        remember(f"n{n}", "dentist")
    for max_items in (1, 5, 12, 100):
        result = ContextAssembler(AssemblyMemory, ALL, max_items=max_items).assemble({"q": "dentist"}, agent_id="a")
        assert len(result.records) == result.metadata["pull_count"] == min(max_items, 12)


FORM_NAMES = st.sampled_from(sorted(FORMATS))
TEXTS = st.lists(st.text(max_size=120), max_size=6)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(texts=[], budget=1, form_name="xml")
@given(texts=TEXTS, budget=st.integers(1, 120), form_name=FORM_NAMES)
def test_the_budget_is_never_exceeded_and_never_left_unused(texts: list[str], budget: int, form_name: str) -> None:
    rows = [{"text": text, "rank": number} for number, text in enumerate(texts)]
    form = FORMATS[form_name]
    shown = None if form_name == "natural" else dict
    fitted = fitting.fit(rows, form, budget, None, shown)
    assert len(fitted.text) // 4 <= budget
    assert fitted.tokens == (len(fitted.text) // 4 if rows else 0)
    count = len(fitted.records)
    assert fitted.records == rows[:count] and (count > 0) == bool(rows)
    if fitted.truncated:
        assert count == 1 and len(form(rows[:1])) // 4 > budget
        assert "…" in fitted.text
    else:
        assert fitted.text == (form(rows[:count]) if rows or len(form([])) // 4 <= budget else "")
        assert count == len(rows) or len(form(rows[: count + 1])) // 4 > budget
    assert fitting.fit(rows, form, None, None, shown).text == form(rows)


@pytest.mark.parametrize("form_name", sorted(FORMATS))
@pytest.mark.parametrize("budget", [1, 2, 7, 20, 50, 200, 10_000])
def test_the_first_record_alone_is_cut_and_marked(form_name: str, budget: int) -> None:
    remember("first", "dentist " * 500)
    remember("second", "dentist and a lot of other words, so that it matches less", days=1)
    result = ContextAssembler(AssemblyMemory, ALL, max_tokens=budget, output_format=form_name).assemble(
        {"q": "dentist"}, agent_id="a"
    )
    assert len(result.formatted) // 4 <= budget
    assert result.metadata["token_count"] == len(result.formatted) // 4
    assert names(result)[:1] == ["first"]
    assert result.metadata["truncated"] == (budget < 1000)
    if budget < 1000:
        assert names(result) == ["first"] and "…" in result.formatted
        assert (CUT_MARK in result.formatted) == (budget >= 20)
    else:
        assert names(result) == ["first", "second"]


@pytest.mark.parametrize("budget", [50, 100, 500])
def test_a_cut_context_still_parses(budget: int) -> None:
    remember("first", 'dentist "<&>"\n' * 300)
    for form_name in ("structured", "xml"):
        text = (
            ContextAssembler(AssemblyMemory, {}, max_tokens=budget, output_format=form_name)
            .assemble({"q": "dentist"}, agent_id="a")
            .formatted
        )
        if form_name == "structured":
            content = json.loads(text)[0]["text"]
        else:
            content = ElementTree.fromstring(text)[0].findtext("text")
        assert content.startswith('dentist "<&>"\ndentist') and content.endswith(CUT_MARK)
        assert budget * 4 - 12 < len(text) <= budget * 4  # an escape more would be too much


def test_fields_beside_the_longest_text_give_way_before_it() -> None:
    row = {"text": "a" * 100, "more": list(range(100))}
    fitted = fitting.fit([row], FORMATS["structured"], 20, None, dict)
    assert json.loads(fitted.text) == [{"text": "a" * 40 + CUT_MARK}] and len(fitted.text) == 80


def test_a_token_counter_of_ones_own_counts_records() -> None:
    for number, name in enumerate("abcd"):
        remember(name, f"dentist {'otherwise ' * number}")
    counted: list[str] = []

    def counter(record: Any) -> int:
        counted.append(record.name)
        return 10

    def assemble(max_tokens: int | None) -> AssemblyResult:
        counted.clear()
        assembler = ContextAssembler(AssemblyMemory, {}, max_tokens=max_tokens, token_counter=counter)
        return assembler.assemble({"q": "dentist"})

    assert (names(assemble(35)), counted) == (["a", "b", "c"], ["a", "b", "c", "d"])
    assert assemble(35).metadata["token_count"] == 30
    assert (names(assemble(10)), counted) == (["a"], ["a", "b"])
    assert (len(assemble(None).records), assemble(None).metadata["token_count"]) == (4, 40)
    whole = assemble(10).formatted
    cut = assemble(5)  # half of what the first record costs is half of its text
    assert (names(cut), cut.metadata["token_count"], cut.metadata["truncated"]) == (["a"], 5, True)
    assert len(cut.formatted) <= len(whole) / 2 and "…" in cut.formatted


def test_a_token_counter_that_fails_is_heard() -> None:
    remember("x", "dentist")

    def counter(record: Any) -> int:
        raise RuntimeError("no tokenizer")

    with pytest.raises(RuntimeError, match="no tokenizer"):
        ContextAssembler(AssemblyMemory, {}, max_tokens=5, token_counter=counter).assemble({"q": "dentist"})


# -- the result --------------------------------------------------------------------------------------------------------


def test_the_result_names_what_it_did() -> None:
    for n in range(5):
        remember(f"n{n}", "dentist", days=n)
    result = ContextAssembler(AssemblyMemory, ALL, max_items=2).assemble({"q": "dentist"}, agent_id="a")
    assert set(result.metadata) == {
        "pull_count",
        "push_count",
        "token_count",
        "timing_ms",
        "total_candidates",
        "truncated",
        "scores",
    }
    assert (result.metadata["pull_count"], result.metadata["push_count"]) == (2, 0)
    assert result.metadata["total_candidates"] == 5 and result.proactive == []
    assert type(result.metadata["timing_ms"]) is float and result.metadata["timing_ms"] >= 0
    assert result.metadata["timing_ms"] == round(result.metadata["timing_ms"], 2)
    assert result.metadata["token_count"] == len(result.formatted) // 4
    assert result.formatted == FORMATS["structured"](result.records, {"agent_id"})
    assert AssemblyResult() == AssemblyResult(records=[], proactive=[], formatted="", metadata={})


def test_records_come_with_the_confidence_of_now() -> None:
    memory = remember("x", "dentist")
    ConfidenceField.update_confidence(AssemblyMemory.load(agent_id="a", name="x"), "certainty", 0.9)
    memory.text = "dentist again"
    memory.save(skip_auto_now=True)
    record = ContextAssembler(AssemblyMemory, ALL).assemble({"q": "dentist"}, agent_id="a").records[0]
    assert (record.certainty, record.text) == (0.9, "dentist again")


def test_a_vanished_or_corrupt_record_is_left_out(server: redis.Redis) -> None:
    for name in ("gone", "corrupt", "fine"):
        remember(name, "dentist")
    server.delete("AssemblyMemory:a:gone")
    server.hset("AssemblyMemory:a:corrupt", "weight", b"\xc1")
    for weights in (ALL, {}, {"certainty": 1.0}):
        assert names(ContextAssembler(AssemblyMemory, weights).assemble({"q": "dentist"}, agent_id="a")) == ["fine"]


def test_assembling_changes_nothing_on_the_server(server: redis.Redis) -> None:
    for n in range(5):
        remember(f"n{n}", "dentist", days=n)
    changes = server.info("persistence")["rdb_changes_since_last_save"]
    ContextAssembler(AssemblyMemory, ALL, max_items=2).assemble({"q": "dentist"}, agent_id="a")
    assert server.info("persistence")["rdb_changes_since_last_save"] == changes


@pytest.mark.parametrize("stored", [3, 300])
@pytest.mark.parametrize("max_items", [1, 10, 40])
def test_two_round_trips_whatever_the_number_of_candidates(stored: int, max_items: int, round_trips: Any) -> None:
    rng = random.Random(1)
    for n in range(stored):
        remember(f"n{n}", " ".join(rng.choices(WORDS, k=3)), days=n)
    assembler = ContextAssembler(AssemblyMemory, ALL, max_items=max_items)
    for cues in ({"q": "dentist and dog"}, {"q": "nothing"}):
        with round_trips() as trips:
            assert assembler.assemble(cues, agent_id="a").records
        assert trips.count == 2


def test_the_async_twin_gives_the_same() -> None:
    rng = random.Random(3)
    for n in range(40):
        remember(f"n{n}", " ".join(rng.choices(WORDS, k=4)), days=n, certainty=rng.random())

    def comparable(result: AssemblyResult) -> Any:
        metadata = {**result.metadata, "timing_ms": 0}
        return names(result), result.proactive, result.formatted, metadata

    async def at_once(assembler: ContextAssembler, questions: list[str]) -> list[AssemblyResult]:
        twin = assembler.async_assemble
        return await asyncio.gather(*(twin({"q": question}, agent_id="a") for question in questions))

    for options in ({}, {"max_tokens": 60}, {"output_format": "xml", "max_items": 3}, {"max_tokens": 3}):
        assembler = ContextAssembler(AssemblyMemory, ALL, **options)
        found = asyncio.run(at_once(assembler, WORDS))
        assert [comparable(r) for r in found] == [
            comparable(assembler.assemble({"q": question}, agent_id="a")) for question in WORDS
        ]
