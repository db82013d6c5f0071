"""ContextAssembler: from what the store knows to the context of the next model call.

    cues -> words that match (BM25)  \
                                      >  candidates -> every signal of each -> weighted sum -> cut to fit -> text
    filters -> what is fresh (decay) /

Each signal counts as its share of the best candidate's, so that weights compare: a record's score is

    keyword_weight * bm25 / best bm25  +  sum over weights of  weight * signal / best |signal|

Candidates are the best by words and the best by decay, each exact; a record that neither finds is not considered.
Three round trips, whatever the number of candidates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from popoto.exceptions import ModelException, QueryException
from popoto.memory.bm25 import BM25Field, scores_steps, search_steps
from popoto.memory.clock import now
from popoto.memory.confidence import ConfidenceField, read_command
from popoto.memory.decay import DecayingSortedField
from popoto.memory.ranking import score_command, top_by_decay_steps
from popoto.orm.commands import Command, adrive, drive, hash_of
from popoto.recipes.formats import FORMATS

DEFAULT_MAX_ITEMS = 10
DEFAULT_PROPAGATION_DEPTH = 2
KEYWORD_WEIGHT = 1.0  # what the cues say outweighs how fresh or believed a record is
CHARACTERS_A_TOKEN = 4  # the usual rule of thumb for English text
CUT_MARK = " […cut to fit]"

Scores = dict[str, dict[str, float]]


@dataclass
class AssemblyResult:
    """What an assembly gives.

    Attributes:
        records: the selected records, best first.
        proactive: those of them that nobody asked for (push path).
        formatted: the context as text.
        metadata: pull_count, push_count, token_count, timing_ms, total_candidates, truncated, and
            scores: record key -> {"total", "keyword", and each weight's name: its part of the total}.
    """

    records: list[Any] = field(default_factory=list)
    proactive: list[Any] = field(default_factory=list)
    formatted: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


class ContextAssembler:
    """Retrieves, ranks, cuts and formats memories.

    Args:
        model_class: the model.
        score_weights: DecayingSortedField and ConfidenceField names -> weights.
        max_items: at most this many records.
        max_tokens: budget of the formatted text, in tokens; None = no budget.
        surfacing_threshold, propagation_depth: for the push path and for associations, which later versions have.
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
            if not isinstance(weight, (int, float)) or weight != weight:
                raise QueryException(f"score_weights['{name}']: expected a number, got {weight!r}.")
        if self.output_format not in FORMATS:
            raise QueryException(f"output_format: expected one of {', '.join(FORMATS)}, got {self.output_format!r}.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise QueryException(f"max_tokens: expected a positive number or None, got {self.max_tokens!r}.")

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
        ranked = sorted(candidates, key=lambda key: (scores[key]["total"], key), reverse=True)
        selected = [candidates[key] for key in ranked[: max(0, self.max_items)]]
        records, formatted, tokens, truncated = self._fit(selected, frozenset(filters))
        return AssemblyResult(
            records=records,
            formatted=formatted,
            metadata={
                "pull_count": len(records),
                "push_count": 0,
                "token_count": tokens,
                "timing_ms": round((time.perf_counter() - started) * 1000, 2),
                "total_candidates": len(candidates),
                "truncated": truncated,
                "scores": {record.pk: scores[record.pk] for record in records},
            },
        )

    def _pull(self, builder: Any, text: str) -> Generator[Any, Any, tuple[dict[str, Any], Scores]]:
        """Return (candidates by key, their scores by signal)."""
        fields = self.model_class._meta.fields
        words = next((n for n, f in fields.items() if isinstance(f, BM25Field)), None)
        decays = [n for n in self.score_weights if isinstance(fields[n], DecayingSortedField)]
        beliefs = [n for n in self.score_weights if isinstance(fields[n], ConfidenceField)]
        at = now()
        found: dict[str, Any] = {}
        if words is not None:
            where = yield from builder.where_steps()
            hits = yield from search_steps(self.model_class, words, text, 4 * self.max_items, where=where)
            found.update({key: None for key, _ in hits})
        if decays:
            fresh = yield from top_by_decay_steps(builder, decays[0], 2 * self.max_items)
            found.update({record.pk: record for record in fresh})
        elif not found:
            keys = yield from builder.selection(limit=2 * self.max_items).record_keys()
            found.update(dict.fromkeys(keys))
        if not found:
            return {}, {}

        keys = list(found)
        unread = [key for key in keys if found[key] is None]
        commands: list[Command[Any]] = [score_command(self.model_class, name, keys, at) for name in decays]
        commands += [read_command(self.model_class, name, keys) for name in beliefs]
        commands += [Command(("HGETALL", key)) for key in unread]
        replies = yield commands
        for key, raw in zip(unread, replies[len(replies) - len(unread) :], strict=True):
            if raw:
                found[key] = self.model_class._hydrated(key, hash_of(raw))
        signals: dict[str, dict[str, float]] = dict(zip(decays, replies, strict=False))
        for name, data in zip(beliefs, replies[len(decays) :], strict=False):
            first = fields[name].initial_confidence
            signals[name] = {key: entry["confidence"] if entry else first for key, entry in data.items()}
        if words is not None:
            signals["keyword"] = yield from scores_steps(self.model_class, words, text, keys)
        return {k: v for k, v in found.items() if v is not None}, self._weighed(keys, signals)

    def _weighed(self, keys: list[str], signals: dict[str, dict[str, float]]) -> Scores:
        """Return each record's score by signal: weight * its share of the best candidate's."""
        weights = {**self.score_weights, "keyword": self.keyword_weight}
        best = {name: max((abs(v) for v in by_key.values()), default=0.0) for name, by_key in signals.items()}
        scores: Scores = {}
        for key in keys:
            parts = {
                name: weights[name] * by_key.get(key, 0.0) / best[name] if best[name] else 0.0
                for name, by_key in signals.items()
            }
            scores[key] = {"total": sum(parts.values()), **parts}
        return scores

    # -- fitting ------------------------------------------------------------------------------------------------------

    def _fit(self, records: list[Any], known: frozenset[str]) -> tuple[list[Any], str, int, bool]:
        """Return (records, text, tokens, cut?): as many of the first records as the budget holds.

        Args:
            known: fields that the filters fix: the same for every record, so they are not repeated in the text.
        """

        def form(some: list[Any]) -> str:
            return FORMATS[self.output_format](some, known)

        def tokens(some: list[Any]) -> int:
            if self.token_counter is not None:
                return sum(self.token_counter(record) for record in some)
            return len(form(some)) // CHARACTERS_A_TOKEN if some else 0

        if self.max_tokens is None:
            return records, form(records), tokens(records), False
        taken: list[Any] = []
        for record in records:
            if tokens([*taken, record]) > self.max_tokens:
                break
            taken.append(record)
        if taken or not records:
            return taken, form(taken), tokens(taken), False
        # the first record alone is over the budget: its text is cut, and says so where there is room for that
        budget = self.max_tokens * CHARACTERS_A_TOKEN
        mark = CUT_MARK if budget > 2 * len(CUT_MARK) else "…"
        return records[:1], form(records[:1])[: budget - len(mark)] + mark, self.max_tokens, True
