"""Ranking by a weighted composite of several signals: exact, in one call, without temporary keys (lua/composite.lua).

    raw(record)   = aggregate over the signals of weight * score
    shown(record) = raw(record) / temperature

A signal that does not hold the record counts 0; for MIN it does not count. Scores are not normalised: the decayed score
of a decaying field, the confidence, the access count, the priority, the number of another sorted field (Unix seconds of
a datetime, days of a date). Boosts are signals of weight 1 that come with the call. Candidates are the records that a
signal holds and that every filter of the builder lets through; equal scores go by key, descending.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from popoto.exceptions import QueryException
from popoto.memory import clock
from popoto.memory.confidence import ConfidenceField
from popoto.memory.decay import DecayingSortedField
from popoto.memory.number import is_number
from popoto.memory.ranking import CHUNKS, GATHER, ROWS, SLICE, TOP_MAX, read_ranked, refuse_misplaced, wanted_of
from popoto.orm import shards
from popoto.orm.commands import Command
from popoto.orm.fields.sorted import SortedIndex
from popoto.orm.plan import pack
from popoto.orm.scripts import Script

if TYPE_CHECKING:
    from popoto.orm.builder import QueryBuilder

COMPOSITE = Script(
    "popoto.memory",
    "composite",
    tuple(("popoto.memory", f"lib_{name}") for name in ("decay", "cyclic", "signals", "top", "walk", "choice")),
    flags="no-writes",
)
AGGREGATES = ("SUM", "MIN", "MAX")

PostFilter = Callable[[str, float], bool]
Steps = Generator[Any, Any, Any]
Ranked = list[tuple[bytes, float, Any]]
"""(record key, raw score, HGETALL or None when it was not read), best first."""


@dataclass(slots=True)
class Composite:
    """One composite ranking, ready to run.

    Attributes:
        names: what each signal is called in explanations.
        keys: the ordered sets that the signals read, each once.
        signals: as lua/composite.lua has them; they name sets by their place in `keys`, from 1.
        answered: fields of the builder's filters that the choice of `keys` has applied: no signal holds other records.
    """

    builder: QueryBuilder[Any]
    aggregate: str
    least: float | None
    temperature: float
    post_filter: PostFilter | None
    names: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    signals: list[list[Any]] = field(default_factory=list)
    answered: tuple[str, ...] = ()
    visited: int = 0
    calls: int = 0

    # -- what is asked ------------------------------------------------------------------------------------------------

    def place(self, key: str) -> int:
        """Return the place of a set in KEYS, from 1."""
        self.keys.append(key)
        return len(self.keys)

    def add(self, name: str, weight: Any) -> None:
        """Add the signal of a field, or one of the names that mixins bring.

        Raises: QueryException: no such signal, a weight that is no finite number, a partition without a filter.
        """
        if not is_number(weight):
            raise QueryException(f"composite_score(): the weight of '{name}' is {weight!r}; expected a finite number.")
        model = self.builder.model_class
        meta, filters = model._meta, self.builder.exact()
        self.names.append(name)
        special = signal_keys(model).get(name)
        if special is not None:
            self.signals.append(["set", float(weight), self.place(special), False])
            return
        source = meta.fields.get(name)
        if isinstance(source, DecayingSortedField):
            touched, base = source.ranking_keys(meta.keys, filters, meta.fields)
            group = group_of(touched, meta.keys.base(source.field_class_key, name))
            signal = [source.signal_kind, float(weight), self.place(touched), self.place(base), group]
            self.signals.append([*signal, source.decay_rate, source.base_score_field or False])
        elif isinstance(source, ConfidenceField):
            key = source.rank_key(meta.keys, filters, meta.fields)
            group = group_of(key, source.rank_base(meta.keys))
            self.signals.append(["set", float(weight), self.place(key), group])
        elif isinstance(source, SortedIndex):
            key = source.sorted_set_key(meta.keys, filters, meta.fields)
            group = group_of(key, meta.keys.base(source.field_class_key, name))
            self.signals.append(["set", float(weight), self.place(key), group])
        else:
            self._refuse(name, source)

    def add_given(self, name: str, scores: Mapping[str, float] | None) -> None:
        """Add scores that come with the call, with weight 1. None and {} are no signal.

        Raises: QueryException: it is no dict of record keys and finite numbers.
        """
        if scores is not None and not isinstance(scores, Mapping):
            raise QueryException(
                f"composite_score({name}={scores!r}): expected a dict of record keys and finite numbers."
            )
        if not scores:
            return
        flat: list[Any] = []
        for key, score in scores.items():
            if not isinstance(key, (str, bytes)) or not is_number(score):
                raise QueryException(
                    f"composite_score({name}=...): expected a dict of record keys and finite numbers, got "
                    f"{key!r}: {score!r}."
                )
        for key, score in (shards.of_here(self.builder.model_class._meta, scores) or {}).items():
            flat += (key, float(score))
        self.names.append(name)
        self.signals.append(["given", 1.0, flat])

    def _refuse(self, name: str, source: Any) -> None:
        model = self.builder.model_class
        kinds = (DecayingSortedField, ConfidenceField, SortedIndex)
        usable = [n for n, f in model._meta.fields.items() if isinstance(f, kinds)]
        found = "has no such field" if source is None else f"keeps no order ({type(source).__name__})"
        if name in ("priority", "access_count", "access_score"):
            mixin = "WriteFilterMixin" if name == "priority" else "AccessTrackerMixin"
            found = f"is no {mixin}, which would keep it"
        raise QueryException(
            f"composite_score({{'{name}': ...}}): {model.__name__} {found}. Signals: "
            f"{', '.join([*usable, *signal_keys(model)]) or 'none'}."
        )

    # -- calls --------------------------------------------------------------------------------------------------------

    def _query(self, n: int, where: list[Any]) -> dict[str, Any]:
        return {
            "home": len(self.keys) + 1, "now": clock.now(), "signals": self.signals, "aggregate": self.aggregate,
            "n": n, "least": False if self.least is None else self.least, "where": where, "members": False,
            "slice": SLICE, "chunks": CHUNKS, "gather": min(GATHER, self._slice()), "rows": ROWS,
            "fields": list(self.builder.model_class._meta.fields),
        }  # fmt: skip

    def _slice(self) -> int:
        """Return how many records one call may score by all signals."""
        return max(1, 3 * SLICE // max(3, len(self.keys)))

    def _command(self, query: Mapping[str, Any], state: Any = b"") -> Command[Any]:
        home = self.builder.model_class._meta.keys.home
        return Command((*self.keys, *home, pack(query), state), script=COMPOSITE, key_count=len(self.keys) + len(home))

    def best(self, n: int) -> Steps:
        """Return the best n (a Ranked)."""
        compiled = self.builder.compiled(answered=self.answered)
        if not compiled.exact or n > TOP_MAX:
            return (yield from self._best_of_all(n))
        query = self._query(n, compiled.where)
        state: Any = b""
        while True:
            reply = yield self._command(query, state)
            code, flat, rows, visited = reply[:4]
            self.visited += visited
            self.calls += 1
            if code == 0:
                pairs = iter(flat)
                scored = zip(pairs, pairs, strict=True)
                return [(key, float(text), rows[i] if rows else None) for i, (key, text) in enumerate(scored)]
            state = reply[4]

    def all_ranked(self) -> Steps:
        """Return every candidate (a Ranked)."""
        return (yield from self._best_of_all(2**31))

    def _best_of_all(self, n: int) -> Steps:
        """Score every candidate, in slices; for filters that Python decides, and for more than the server ranks."""
        keys = yield from self.builder.selection().whole().record_keys()
        best: list[tuple[float, bytes]] = []
        for start in range(0, len(keys), self._slice()):
            scored = yield self.scores(keys[start : start + self._slice()])
            self.calls += 1
            self.visited += len(scored)
            best = heapq.nlargest(n, best + [(score, key) for key, (score, _) in scored.items()])
        least = self.least
        return [(key, score, None) for score, key in best if least is None or score >= least]

    def scores(self, keys: list[Any]) -> Command[dict[bytes, tuple[float, list[float | None]]]]:
        """Return raw score and parts of each of these records, whatever the filter; without those no signal holds."""

        def parse(reply: Any) -> dict[bytes, tuple[float, list[float | None]]]:
            items = iter(reply[1])
            return {
                key: (float(score), [None if part is None else float(part) for part in parts])
                for key, score, parts in zip(items, items, items, strict=True)
            }

        command = self._command({**self._query(1, ["all"]), "members": keys})
        return Command(command.args, parse, COMPOSITE, key_count=command.key_count)

    def surviving(self, limit: int) -> Steps:
        """Return the best `limit` that `post_filter` lets through."""
        n = limit if self.post_filter is None else limit + 32
        verdicts: dict[bytes, bool] = {}
        while True:
            ranked: Ranked = yield from self.best(n)
            if self.post_filter is None:
                return ranked
            out: Ranked = []
            for item in ranked:
                key, raw, _ = item
                if key not in verdicts:
                    verdicts[key] = bool(self.post_filter(key.decode(), raw / self.temperature))
                if verdicts[key]:
                    out.append(item)
                    if len(out) == limit:
                        return out
            if len(ranked) < n:
                return out
            n *= 4


def group_of(key: str, base: str) -> str:
    """Return the partition in a set's key: sets of one partition have the same members."""
    return key.removeprefix(base)


def signal_keys(model: Any) -> dict[str, str]:
    """Return the ordered sets that the model's mixins keep for ranking: name -> key.

    A mixin offers them by a class method `ranking_signals(keys)`; all that a model inherits count.
    """
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        offered = vars(base).get("ranking_signals")
        if offered is not None:
            found.update(offered.__get__(None, model)(model._meta.keys))
    return found


def composite_of(
    builder: QueryBuilder[Any],
    indexes: Mapping[str, float] | None,
    aggregate: str = "SUM",
    min_score: float | None = None,
    post_filter: PostFilter | None = None,
    boosts: Mapping[str, Mapping[str, float] | None] | None = None,
    temperature: float = 1.0,
) -> Composite:
    """Return a composite ranking, checked.

    Raises: QueryException: no index, an unknown one, a weight, aggregate, min_score or temperature that is none, a
        partition without an exact filter.
    """
    refuse_misplaced(builder, "composite_score()")
    if not indexes or not isinstance(indexes, Mapping):
        raise QueryException(f"composite_score(indexes={indexes!r}): expected a dict of field names and weights.")
    if not isinstance(aggregate, str) or aggregate.upper() not in AGGREGATES:
        raise QueryException(f"composite_score(aggregate={aggregate!r}): expected one of {', '.join(AGGREGATES)}.")
    if not is_number(temperature) or temperature <= 0:
        raise QueryException(f"composite_score(temperature={temperature!r}): expected a number above 0.")
    if min_score is not None and not is_number(min_score):
        raise QueryException(f"composite_score(min_score={min_score!r}): expected a finite number or None.")
    if post_filter is not None and not callable(post_filter):
        raise QueryException(
            f"composite_score(post_filter={post_filter!r}): expected a function (redis_key, score) -> bool."
        )
    least = None if min_score is None else float(min_score)
    composite = Composite(builder, aggregate.upper(), least, float(temperature), post_filter)
    for name, weight in indexes.items():
        composite.add(name, weight)
    for name, scores in (boosts or {}).items():
        composite.add_given(name, scores)
    return composite


def composite_steps(
    composite: Composite, limit: int = 10, explain: bool = False, stats: dict[str, int] | None = None
) -> Steps:
    """Return the best `limit` records, best first, as instances.

    Each has its shown score in `_composite_score`; with `explain` also `_score_parts`: signal -> weighted score, None
    for a signal that does not hold the record (one round trip more).

    Args:
        limit: 0 or less gives []. The builder's own limit counts as well.
        stats: gets "visited" (members looked at) and "calls".
    Raises: TypeError: limit is no int.
    """
    builder = composite.builder
    wanted = wanted_of(builder, "composite_score(limit", limit)
    if wanted <= 0:
        return []
    ranked: Ranked = yield from composite.surviving(wanted)
    shown = [(key, raw / composite.temperature, row) for key, raw, row in ranked]
    counted = {"calls": composite.calls, "visited": composite.visited}
    out = yield from read_ranked(builder.model_class, shown, counted, "_composite_score")
    if explain and out:
        scored = yield composite.scores([instance.pk for instance in out])
        counted["calls"] += 1
        for instance in out:
            parts = scored.get(instance.pk.encode(), (0.0, [None] * len(composite.names)))[1]
            instance.__dict__["_score_parts"] = dict(zip(composite.names, parts, strict=True))
    if stats is not None:
        stats.update(counted)
    return out
