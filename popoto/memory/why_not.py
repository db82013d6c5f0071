"""What kept a record out of a composite ranking, and how far it was."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from popoto.memory.composite import Composite
from popoto.memory.ranking import wanted_of
from popoto.memory.valueless import text_of_key
from popoto.orm import shards
from popoto.orm.commands import Command
from popoto.orm.keys import front_of


@dataclass(frozen=True, slots=True)
class WhyNot:
    """The answer of `why_not()`; `str()` is a sentence.

    Attributes:
        key: the record's key.
        stored: it exists (and has not expired).
        refused_by: filters of the builder that do not let it through.
        score: its composite as it would be shown; None where no signal holds it.
        parts: signal -> weighted score, None for a signal that does not hold it.
        rank: its place among all candidates, from 1; None where it is none.
        last_score: shown score of the last record that was returned; None when there was none.
        missing: how much its shown score lacks to reach `last_score` (or `min_score`); 0.0 too for an equal score that
            loses by its key.
        below_minimum: its score is below `min_score`.
        post_filtered: `post_filter` refused it.
        returned: it is among the results after all.
    """

    key: str
    stored: bool
    refused_by: tuple[str, ...] = ()
    score: float | None = None
    parts: dict[str, float | None] = field(default_factory=dict)
    rank: int | None = None
    last_score: float | None = None
    missing: float | None = None
    below_minimum: bool = False
    post_filtered: bool = False
    returned: bool = False

    def __str__(self) -> str:
        if not self.stored:
            return f"{self.key} is not stored (never saved, deleted or expired)."
        if self.refused_by:
            return f"{self.key} does not satisfy {', '.join(self.refused_by)}."
        if self.score is None:
            return f"{self.key} is held by none of the signals ({', '.join(self.parts)})."
        shown = f"{self.key} scores {self.score:.6g} ({_listed(self.parts)})"
        if self.below_minimum:
            return f"{shown}, {self.missing:.6g} below min_score."
        if self.post_filtered:
            return f"{shown}; post_filter refused it."
        if self.returned:
            return f"{shown} and is number {self.rank}: it is among the results."
        more = f"{self.missing:.6g} more" if self.missing else "and comes first by its key"
        return f"{shown} and is number {self.rank}; the last one returned scores {self.last_score:.6g}, {more}."


def why_not_steps(composite: Composite, record: Any, limit: int) -> Generator[Any, Any, WhyNot]:
    """Return what keeps a record (an instance or a Redis key) out of the best `limit`.

    A diagnosis: it costs a call for each filter and scores every candidate, in slices.

    Raises: ValueError: the record is None or an empty text.
    """
    key = text_of_key(record)
    builder = composite.builder
    stored = yield Command(("EXISTS", key))
    if not stored:
        return WhyNot(key, False)
    meta = builder.model_class._meta
    if front_of(key) != meta.keys.front:  # it lies in another shard than the one that is ranked
        refused = yield from shards.within(meta, meta.keys_at(key), lambda: _refusals(builder, key))
        return WhyNot(key, True, tuple(refused), None, dict.fromkeys(composite.names))
    scored = yield composite.scores([key])
    raw, parts = scored.get(key.encode(), (None, [None] * len(composite.names)))
    named = dict(zip(composite.names, parts, strict=True))
    refused = yield from _refusals(builder, key)
    if refused or raw is None:
        return WhyNot(key, True, tuple(refused), None if raw is None else raw / composite.temperature, named)
    shown = raw / composite.temperature
    if composite.least is not None and raw < composite.least:
        lacks = (composite.least - raw) / composite.temperature
        return WhyNot(key, True, (), shown, named, missing=lacks, below_minimum=True)
    filtered = composite.post_filter is not None and not composite.post_filter(key, shown)
    ranked = yield from composite.all_ranked()
    rank = next((place for place, (other, _, _) in enumerate(ranked, 1) if other == key.encode()), None)
    wanted = wanted_of(builder, "why_not(limit", limit)
    best = (yield from composite.surviving(wanted)) if wanted > 0 else []
    last = best[-1][1] / composite.temperature if best else None
    inside = any(other == key.encode() for other, _, _ in best)
    lacks = None if last is None else 0.0 if inside else max(0.0, last - shown)
    return WhyNot(key, True, (), shown, named, rank, last, lacks, post_filtered=filtered, returned=inside)


def _refusals(builder: Any, key: str) -> Generator[Any, Any, list[str]]:
    """Return the filters, one by one, that do not let the record through."""
    model = builder.model_class
    partition = {name for field in model._meta.fields.values() for name in getattr(field, "partition_by", ())}
    given = {name: value for name, value in builder.exact().items() if name in partition}
    conditions = [
        (f"{name}={value!r}", model.query.filter(**{**given, name: value})) for name, value in builder._filters.items()
    ]
    conditions += [(repr(tree), model.query.filter(tree, **given)) for tree in builder._trees]
    out = []
    for shown, alone in conditions:
        selection = alone.selection()
        selection.compiled.narrow(["keys", key])
        if not (yield from selection.record_keys()):
            out.append(shown)
    return out


def _listed(parts: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {'-' if part is None else format(part, '.4g')}" for name, part in parts.items())
