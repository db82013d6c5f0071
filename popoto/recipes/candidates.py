"""The candidates of a context: the best by words and the best by each weighted field, with every signal of each.

Two round trips, whatever their number: one finds them, one reads their signals. On a cluster, where the filters name no
shard, each shard finds its own best; of them those are kept that are the best of all. (One more: what the shards count
of the words, so that scores of different shards compare.)
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from popoto.memory.bm25 import BM25Field, scores_steps, search_steps
from popoto.memory.bm25_statistics import Known, known_steps
from popoto.memory.confidence import ConfidenceField, most_believed_steps, read_command
from popoto.memory.cyclic_ranking import score_command, top_by_decay_steps
from popoto.memory.decay import DecayingSortedField
from popoto.orm import shards
from popoto.orm.commands import Command
from popoto.orm.fetching import fetched
from popoto.orm.merging import asked_each, highest
from popoto.recipes.together import together

KEYWORD = "keyword"
Rows = list[tuple[str, float]]


@dataclass
class Candidates:
    """What may come into a context.

    Attributes:
        records: record key -> record.
        signals: name of a field, or "keyword", -> record key -> its value.
        lists: the same names -> (record key, value) of those that were found by it, best first.
    """

    records: dict[str, Any] = field(default_factory=dict)
    signals: dict[str, dict[str, float]] = field(default_factory=dict)
    lists: dict[str, Rows] = field(default_factory=dict)


def candidates_steps(
    builder: Any, names: Sequence[str], text: str, each: int, at: float
) -> Generator[Any, Any, Candidates]:
    """Return the candidates among the records that a builder's filters let through.

    Args:
        names: DecayingSortedFields and ConfidenceFields.
        text: what the words are searched for in, where the model has a BM25Field.
        each: how many the best by a field are; twice as many are those by words.
        at: Unix seconds.
    """
    model = builder.model_class
    meta = model._meta
    words = next((f for f in meta.fields.values() if isinstance(f, BM25Field)), None)
    known: Known = None
    if words is not None and shards.are_many(meta) and shards.named(meta, builder.exact()) is None:
        known = yield from known_steps(model, words, text)
    parts = yield from asked_each(
        meta, builder.exact(), lambda: _of_one_shard(builder, words, names, text, each, at, known)
    )
    return parts[0] if len(parts) == 1 else _best_of_all(parts, each)


def _best_of_all(parts: list[Candidates], each: int) -> Candidates:
    best = Candidates()
    for name in parts[0].lists:
        found = highest(part.lists[name] for part in parts)
        best.lists[name] = found[: 2 * each if name == KEYWORD else each]
    kept = {key for rows in best.lists.values() for key, _ in rows}
    for part in parts:
        best.records.update((key, record) for key, record in part.records.items() if key in kept)
        for name, by_key in part.signals.items():
            best.signals.setdefault(name, {}).update((key, v) for key, v in by_key.items() if key in kept)
    return best


def _of_one_shard(
    builder: Any, words: BM25Field | None, names: Sequence[str], text: str, each: int, at: float, known: Known
) -> Generator[Any, Any, Candidates]:
    model, fields = builder.model_class, builder.model_class._meta.fields
    decays = [n for n in names if isinstance(fields[n], DecayingSortedField)]
    beliefs = [n for n in names if isinstance(fields[n], ConfidenceField)]
    hits, *others = yield from together(
        _search(builder, words, text, 2 * each, known),
        *(top_by_decay_steps(builder, name, each) for name in decays),
        *(most_believed_steps(builder, name, each) for name in beliefs),
    )
    fresh, trusted = others[: len(decays)], others[len(decays) :]
    found: dict[str, Any] = dict.fromkeys(key for key, _ in hits)
    for records in fresh:
        found.update({record.pk: record for record in records})
    for believed in trusted:
        found.update({key: None for key in believed if key not in found})
    lists: dict[str, Rows] = {} if words is None else {KEYWORD: hits}
    for name, records in zip(decays, fresh, strict=True):
        lists[name] = [(record.pk, record._decay_score) for record in records]
    if not found:
        return Candidates(lists={**lists, **{name: [] for name in beliefs}})

    keys = list(found)
    # fewer hits than were asked for are all there are: what is not among them holds none of the words
    matched = dict(hits)
    unknown = [] if len(hits) < 2 * each else [key for key in keys if key not in matched]
    read, decayed, believed, matching = yield from together(
        _read(model, [key for key in keys if found[key] is None]),
        _all([score_command(model, name, keys, at) for name in decays]),
        _all([read_command(model, name, keys) for name in beliefs]),
        scores_steps(model, words.name, text, unknown, known) if words is not None and unknown else _all([]),
    )
    found.update(read)
    signals: dict[str, dict[str, float]] = dict(zip(decays, decayed, strict=True))
    for name, data, best in zip(beliefs, believed, trusted, strict=True):
        first = fields[name].initial_confidence
        signals[name] = values = {key: entry["confidence"] if entry else first for key, entry in data.items()}
        lists[name] = [(key, values[key]) for key in best]
    if words is not None:
        signals[KEYWORD] = {**matched, **dict(matching)}
    return Candidates({key: record for key, record in found.items() if record is not None}, signals, lists)


def _search(
    builder: Any, words: BM25Field | None, text: str, limit: int, known: Known
) -> Generator[Any, Any, list[tuple[str, float]]]:
    """Return the best (key, score) for the words; none where the model has no BM25Field."""
    if words is None:
        return []
    where = yield from builder.where_steps()
    return (yield from search_steps(builder.model_class, words.name, text, limit, where=where, known=known))


def _read(model: Any, keys: list[str]) -> Generator[Any, Any, dict[str, Any]]:
    """Return key -> record; None for one that has gone or is corrupt, which is logged."""
    records = yield from fetched(model, keys)
    return {key: records.get(key) for key in keys}


def _all(commands: list[Command[Any]]) -> Generator[Any, Any, list[Any]]:
    """Run commands that do not follow from each other."""
    return (yield commands) if commands else []
