"""Ranking by decayed score, whatever decays: with cycles and pressure the walk of lua/composite.lua, else that of
popoto.memory.ranking.

Each cycle shape and each pressure rate is a further ordered set of the walk (lua/lib_cyclic.lua): at one moment a
shape's cosine is one number for all records, so the amplitude alone ranks them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from popoto.memory import clock, ranking
from popoto.memory.composite import Composite, group_of
from popoto.memory.cyclic import KIND, CyclicDecayField
from popoto.orm.commands import Command
from popoto.orm.plan import pack
from popoto.orm.scripts import Script

if TYPE_CHECKING:
    from popoto.orm.builder import QueryBuilder

CYCLIC_SCORES = Script(
    "popoto.memory", "cyclic_scores", (KIND, ("popoto.memory", "lib_decay")), with_kinds=True, flags="no-writes"
)


def top_by_decay_steps(
    builder: QueryBuilder[Any],
    field_name: str | None = None,
    n: int = 10,
    decay_rate: float | None = None,
    base_score_field: str | None = None,
    *,
    stats: dict[str, int] | None = None,
) -> Generator[Any, Any, list[Any]]:
    """Return the n records with the highest score of a decaying field; see ranking.top_by_decay_steps."""
    model = builder.model_class
    field = ranking.decaying_field(model, field_name)
    if not isinstance(field, CyclicDecayField):
        plain = ranking.top_by_decay_steps(builder, field.name, n, decay_rate, base_score_field, stats=stats)
        return (yield from plain)
    ranking.refuse_misplaced(builder, "top_by_decay()")
    rate = ranking.rate_of(field, decay_rate)
    wanted = ranking.wanted_of(builder, "top_by_decay(n", n)
    meta = model._meta
    own = field.ranking_keys(meta.keys, builder.exact(), meta.fields)
    base = ranking.base_plan(model, field, own, base_score_field)
    if wanted <= 0:
        return []
    walk = Composite(builder, "SUM", None, 1.0, None, names=[field.name], answered=field.partition_by)
    group = group_of(own[0], meta.keys.base(field.field_class_key, field.name))
    places = walk.place(own[0]), walk.place(base["key"]) if base["base"] == "set" else 0
    walk.signals.append(["cyclic", 1.0, *places, group, rate, base["name"]])
    ranked = yield from walk.best(wanted)
    counted = {"visited": walk.visited, "calls": walk.calls}
    out = yield from ranking.read_ranked(model, ranked, counted, "_decay_score")
    if stats is not None:
        stats.update(counted)
    return out


def score_command(
    model: Any,
    field_name: str,
    keys: Sequence[str],
    now: float | None = None,
    decay_rate: float | None = None,
    base_score_field: str | None = None,
) -> Command[dict[str, float]]:
    """Return what records are worth at a time, in one call; see ranking.score_command."""
    field = ranking.decaying_field(model, field_name)
    plain = ranking.score_command(model, field_name, keys, now, decay_rate, base_score_field)
    if not isinstance(field, CyclicDecayField):
        return plain
    query = {
        "field": field.name,
        "base": ranking.base_field(model, field, base_score_field) or False,
        "now": float(clock.now() if now is None else now),
        "rate": ranking.rate_of(field, decay_rate),
    }
    return Command((*plain.args[:-1], pack(query)), plain.parse, CYCLIC_SCORES, key_count=plain.key_count)
