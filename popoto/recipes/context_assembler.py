"""ContextAssembler: from what the store knows to the context of the next model call.

    cues -> words that match (BM25)   \
    filters -> what is fresh (decay)   >  candidates -> every signal of each -> weighted sum -> cut to fit -> text
    filters -> what is believed       /

Each signal counts as its share of the best candidate's, so that weights compare: a record's score is

    keyword_weight * bm25 / best bm25  +  sum over weights of  weight * signal / best |signal|

Candidates are the best by words and the best by each weighted field, each exact; a record that none of them finds is
not considered. Two round trips, whatever the number of candidates: one finds them, one reads their signals.

A model with a CyclicDecayField has a push path beside it (popoto.recipes.proactive): what is due takes a share of the
context without being asked for. That is one round trip more, and one each to stage reads of the answers, where the
model tracks reads, and to note what was proposed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from popoto.exceptions import ModelException, QueryException
from popoto.memory.clock import now
from popoto.memory.confidence import ConfidenceField
from popoto.memory.decay import DecayingSortedField
from popoto.memory.number import is_number
from popoto.orm.drivers import adrive, drive
from popoto.orm.merging import local
from popoto.recipes.candidates import candidates_steps
from popoto.recipes.fitting import Fitted, fit
from popoto.recipes.formats import FORMATS, format_natural, format_structured, format_xml, shown_fields
from popoto.recipes.proactive import due_steps, effects_steps, shared_out

__all__ = [
    "DEFAULT_MAX_ITEMS",
    "DEFAULT_PROPAGATION_DEPTH",
    "KEYWORD_WEIGHT",
    "AssemblyResult",
    "ContextAssembler",
    "format_natural",
    "format_structured",
    "format_xml",
]

DEFAULT_MAX_ITEMS = 10
DEFAULT_PROPAGATION_DEPTH = 2
KEYWORD_WEIGHT = 1.0  # what the cues say outweighs how fresh or believed a record is
_OWN_SCORES = ("total", "keyword", "push")  # names in `scores` that no field may have

Scores = dict[str, dict[str, float]]


@dataclass
class AssemblyResult:
    """What an assembly gives.

    Attributes:
        records: the selected records, best first.
        proactive: those of them that nobody asked for (push path); each has a pending proposal (RecallProposal).
        formatted: the context as text.
        metadata: pull_count, push_count, token_count, timing_ms, total_candidates, truncated, and
            scores: record key -> {"total", "keyword", and each weight's name: its part of the total}; "push" of a
            proactive record: how much it is due.
    """

    records: list[Any] = field(default_factory=list)
    proactive: list[Any] = field(default_factory=list)
    formatted: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


class ContextAssembler:
    """Retrieves, ranks, cuts and formats memories.

    Args:
        model_class: the model.
        score_weights: DecayingSortedField and ConfidenceField names -> weights; {} for words alone.
        max_items: at most this many records.
        max_tokens: budget of the formatted text, in tokens; None = no budget.
        surfacing_threshold: score of the model's CyclicDecayField from which on a record is due, asked for or not; 0 or
            less for any.
        propagation_depth: for associations, which later versions have.
        output_format: "structured" (JSON), "xml" or "natural" (numbered lines).
        token_counter: record -> tokens; by default the formatted text's characters // 4.
        keyword_weight: weight of the words of the cues, where the model has a BM25Field.
    Raises: QueryException: a weight that names no such field, an unknown format, an option out of range.
    """

    def __init__(
        self,
        model_class: Any,
        score_weights: Mapping[str, float],
        max_items: int = DEFAULT_MAX_ITEMS,
        max_tokens: int | None = None,
        surfacing_threshold: float = 0.5,
        propagation_depth: int = DEFAULT_PROPAGATION_DEPTH,
        output_format: str = "structured",
        token_counter: Callable[[Any], int] | None = None,
        *,
        keyword_weight: float = KEYWORD_WEIGHT,
    ) -> None:
        self.model_class = model_class
        self.score_weights = dict(score_weights)
        self.max_items = max_items
        self.max_tokens = max_tokens
        self.surfacing_threshold = surfacing_threshold
        self.propagation_depth = propagation_depth
        self.output_format = output_format
        self.token_counter = token_counter
        self.keyword_weight = keyword_weight
        self._check()

    def _check(self) -> None:
        fields = self.model_class._meta.fields
        usable = [n for n, f in fields.items() if isinstance(f, (DecayingSortedField, ConfidenceField))]
        for name, weight in self.score_weights.items():
            if name not in usable:
                raise QueryException(
                    f"score_weights: {self.model_class.__name__} has no DecayingSortedField or ConfidenceField "
                    f"'{name}'. It has: {', '.join(usable) or 'none'}."
                )
            if name in _OWN_SCORES:
                raise QueryException(f"score_weights: '{name}' names another score of the result; rename the field.")
            if not is_number(weight):
                raise QueryException(f"score_weights['{name}']: expected a finite number, got {weight!r}.")
        if not is_number(self.keyword_weight):
            raise QueryException(f"keyword_weight: expected a finite number, got {self.keyword_weight!r}.")
        if self.output_format not in FORMATS:
            raise QueryException(f"output_format: expected one of {', '.join(FORMATS)}, got {self.output_format!r}.")
        if not is_number(self.surfacing_threshold):
            raise QueryException(f"surfacing_threshold: expected a finite number, got {self.surfacing_threshold!r}.")
        if type(self.max_items) is not int:
            raise QueryException(f"max_items: expected a whole number, got {self.max_items!r}.")
        if self.max_tokens is not None and (type(self.max_tokens) is not int or self.max_tokens < 1):
            raise QueryException(f"max_tokens: expected a positive whole number or None, got {self.max_tokens!r}.")
        if self.token_counter is not None and not callable(self.token_counter):
            raise QueryException(
                f"token_counter: expected a function from a record to its tokens, got {self.token_counter!r}."
            )

    # -- assembling ---------------------------------------------------------------------------------------------------

    def assemble(
        self,
        query_cues: Mapping[str, Any] | None = None,
        agent_id: str | None = None,
        partition_filters: Mapping[str, Any] | None = None,
        assess_quality: bool = False,
    ) -> AssemblyResult:
        """Return the context for these cues.

        Args:
            query_cues: what it is about, name -> text; without cues nothing is pulled.
            agent_id: added to the filters as the field `agent_id`.
            partition_filters: filters of the store, e.g. {"agent_id": "a"}; no other record is ever considered.
        Raises: QueryException: a partition without a filter, an unknown filter.
        """
        return drive(self._steps(query_cues, agent_id, partition_filters, assess_quality))

    async def async_assemble(
        self,
        query_cues: Mapping[str, Any] | None = None,
        agent_id: str | None = None,
        partition_filters: Mapping[str, Any] | None = None,
        assess_quality: bool = False,
    ) -> AssemblyResult:
        """Await `assemble()`."""
        return await adrive(self._steps(query_cues, agent_id, partition_filters, assess_quality))

    def _steps(
        self, cues: Any, agent_id: str | None, partition_filters: Any, assess_quality: bool
    ) -> Generator[Any, Any, AssemblyResult]:
        started = time.perf_counter()
        if assess_quality:
            raise ModelException("assess_quality=True: this version has no RetrievalQuality yet.")
        for name, given in (("query_cues", cues), ("partition_filters", partition_filters)):
            if given is not None and not isinstance(given, Mapping):
                raise QueryException(f"{name}: expected a dict, name -> value, got {given!r}.")
        filters = dict(partition_filters or {})
        if agent_id is not None:
            if "agent_id" not in self.model_class._meta.fields:
                raise QueryException(
                    f"assemble(agent_id=...): {self.model_class.__name__} has no field agent_id, so other agents' "
                    "records could not be left out. Use partition_filters with the field that names the agent."
                )
            filters["agent_id"] = agent_id
        builder = self.model_class.query.filter(**filters)
        scores: Scores = {}
        candidates: dict[str, Any] = {}
        if cues and self.max_items > 0:
            text = " ".join(str(value) for value in cues.values() if value is not None)
            candidates, scores = yield from self._pull(builder, text)
        ranked = sorted(candidates, key=lambda key: (scores[key]["total"], local(key)), reverse=True)
        due = yield from due_steps(builder, self.max_items, self.surfacing_threshold)
        answers, unasked = shared_out([candidates[key] for key in ranked], due, max(0, self.max_items))
        for record in unasked:
            scores.setdefault(record.pk, {"total": 0.0})["push"] = record._decay_score
        fitted = self._fitted(answers + unasked, frozenset(filters))
        answers, unasked = fitted.records[: len(answers)], fitted.records[len(answers) :]
        yield from effects_steps(self.model_class, answers, unasked, agent_id)
        return AssemblyResult(
            records=fitted.records,
            proactive=unasked,
            formatted=fitted.text,
            metadata={
                "pull_count": len(answers),
                "push_count": len(unasked),
                "token_count": fitted.tokens,
                "timing_ms": round((time.perf_counter() - started) * 1000, 2),
                "total_candidates": len(candidates),
                "truncated": fitted.truncated,
                "scores": {record.pk: scores[record.pk] for record in fitted.records},
            },
        )

    def _pull(self, builder: Any, text: str) -> Generator[Any, Any, tuple[dict[str, Any], Scores]]:
        """Return (candidates by key, their scores by signal)."""
        found = yield from candidates_steps(builder, list(self.score_weights), text, 2 * self.max_items, now())
        return found.records, self._weighed(list(found.records), found.signals)

    def _weighed(self, keys: list[str], signals: dict[str, dict[str, float]]) -> Scores:
        """Return each record's score by signal: weight * its share of the best candidate's."""
        weights = {**self.score_weights, "keyword": self.keyword_weight}
        scores: Scores = {key: {"total": 0.0} for key in keys}
        for name, by_key in signals.items():
            values = {key: by_key.get(key, 0.0) for key in keys}
            best = max(map(abs, values.values()), default=0.0)
            for key, value in values.items():
                scores[key][name] = part = weights[name] * _share(value, best)
                scores[key]["total"] += part
        return scores

    # -- fitting ------------------------------------------------------------------------------------------------------

    def _fitted(self, records: list[Any], known: frozenset[str]) -> Fitted:
        """Return as many of the first records as the budget holds.

        Args:
            known: fields that the filters fix: the same for every record, so they are not repeated in the text.
        """
        formatter = FORMATS[self.output_format]
        return fit(
            records,
            lambda some: formatter(some, known),
            self.max_tokens,
            self.token_counter,
            None if formatter is format_natural else lambda record: shown_fields(record, known),
        )


def _share(value: float, best: float) -> float:
    """Return value / best, where both may be infinite or 0."""
    if math.isinf(best):
        return math.copysign(1.0, value) if math.isinf(value) else 0.0
    return value / best if best else 0.0
