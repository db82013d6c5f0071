"""Ranking by decayed score: exact, in one round trip, without scoring every record (lua/top_by_decay.lua).

A query that must visit much goes in slices, so that no call holds the server long. Slices see no snapshot: what changes
between them may be missed, and the best are scored once more at the end.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from popoto.exceptions import QueryException
from popoto.memory import clock
from popoto.memory.decay import DecayingSortedField
from popoto.memory.number import is_number
from popoto.orm.commands import Command
from popoto.orm.fetching import fetched
from popoto.orm.fields.sorted import SortedIndex
from popoto.orm.plan import pack
from popoto.orm.reading import Reader
from popoto.orm.related import together
from popoto.orm.scripts import Script
from popoto.orm.selection import READ_CHUNK, Order, Selection

if TYPE_CHECKING:
    from popoto.orm.builder import QueryBuilder


_DECAY = ("popoto.memory", "lib_decay")
TOP_BY_DECAY = Script(
    "popoto.memory",
    "top_by_decay",
    (_DECAY, ("popoto.memory", "lib_top"), ("popoto.memory", "lib_walk")),
    flags="no-writes",
)
DECAY_SCORES = Script("popoto.memory", "decay_scores", (_DECAY,), flags="no-writes")

SLICE = 2500  # members visited in one call: 5 to 15 ms
GATHER = 2500  # matches of a filter that are all scored in one call
CHUNKS = (32, 512)  # members taken from a set at once: at first, at most
ROWS = 1000  # records read in the call that ranks: about 4 ms
TOP_MAX = 2000  # so many are ranked by the server; for more, all candidates are scored and ranked here
_NUMBERS: tuple[type, ...] = (int, float, Decimal)

Scored = list[tuple[bytes, float, Any]]
"""(record key, score, HGETALL or None when it was not read), best first."""


def decaying_field(model: Any, field_name: str | None) -> DecayingSortedField:
    """Return the decaying field of that name, or the only one.

    Raises: QueryException: no such field, one that does not decay, none or several to choose from.
    """
    fields = model._meta.fields
    decaying = [name for name, field in fields.items() if isinstance(field, DecayingSortedField)]
    listed = ", ".join(decaying) or "none"
    if field_name is None:
        if not decaying:
            raise QueryException(f"top_by_decay(): {model.__name__} has no DecayingSortedField; add one to the model.")
        if len(decaying) > 1:
            raise QueryException(
                f"top_by_decay(): {model.__name__} has several DecayingSortedFields ({listed}); give field_name=."
            )
        field_name = decaying[0]
    field = fields.get(field_name)
    if not isinstance(field, DecayingSortedField):
        found = "is no field" if field is None else f"is a {type(field).__name__}"
        raise QueryException(
            f"top_by_decay('{field_name}'): {model.__name__}.{field_name} {found}; expected a DecayingSortedField "
            f"({listed})."
        )
    return field


def top_by_decay_steps(
    builder: QueryBuilder[Any],
    field_name: str | None = None,
    n: int = 10,
    decay_rate: float | None = None,
    base_score_field: str | None = None,
    *,
    stats: dict[str, int] | None = None,
) -> Generator[Any, Any, list[Any]]:
    """Return the n records with the highest decayed score, best first, equal scores by key descending.

    The filters of the builder decide who takes part, its limit how many are returned.

    Args:
        builder: exact filters for the field's partition are required; `order_by` and `values` have no meaning here.
        field_name: the decaying field; may be left out when the model has one.
        n: 0 or less gives [].
        decay_rate: any finite number, instead of the field's; 0 ignores age, below 0 age adds.
        base_score_field: field of the base score, instead of the field's own; "" for 1. A SortedField without a
            partition of its own is ranked by its index; any other number is read from every candidate, in slices: that
            is linear.
        stats: gets "visited" (members looked at) and "calls".
    Returns: instances; each has its score in `_decay_score` (float).
    Raises: QueryException: a wrong field, rate or base, a partition without filter. TypeError: n is no int.
    """
    model = builder.model_class
    field = decaying_field(model, field_name)
    refuse_misplaced(builder, "top_by_decay()")
    rate = rate_of(field, decay_rate)
    wanted = wanted_of(builder, "top_by_decay(n", n)
    meta = model._meta
    keys = meta.keys
    touched_key, base_key = field.ranking_keys(keys, builder.exact(), meta.fields)
    base = base_plan(model, field, (touched_key, base_key), base_score_field)
    if wanted <= 0:
        return []
    compiled = builder.compiled(answered=field.partition_by)
    query: dict[str, Any] = {
        "now": clock.now(), "rate": rate, "n": wanted, "where": compiled.where,
        "members": False, "last": True, "collect": wanted > TOP_MAX,
        "slice": SLICE, "chunks": CHUNKS, "gather": GATHER, "rows": ROWS, "fields": list(meta.fields),
    }  # fmt: skip
    given: list[str] | None = None
    if not compiled.exact:
        given = yield from Selection(model, keys, compiled, Order(keys.order)).record_keys()
        query["where"] = ["all"]
    stats = {} if stats is None else stats
    stats.update(visited=0, calls=0)
    ranked = yield from _ranked(query, base, (touched_key, keys.home), given, stats)
    if ranked is None:  # a base set that lacks members: records that were stored before it was kept
        by_hash = {"base": "hash", "field": base["name"], "key": keys.order, "paired": False}
        ranked = yield from _ranked(query, by_hash, (touched_key, keys.home), given, stats)
    return (yield from read_ranked(model, ranked or [], stats, "_decay_score"))


def score_command(
    model: Any,
    field_name: str,
    keys: Sequence[str],
    now: float | None = None,
    decay_rate: float | None = None,
    base_score_field: str | None = None,
) -> Command[dict[str, float]]:
    """Return what records are worth at a time, in one call; about 2 us a record on the server.

    Args:
        keys: record keys, in whatever partition.
        now: Unix seconds; None for the clock's.
        decay_rate, base_score_field: instead of the field's, as for `top_by_decay`.
    Returns: a Command of record key -> decayed score; records that are gone are left out.
    Raises: QueryException: the field does not decay; a wrong rate or base.
    """
    field = decaying_field(model, field_name)
    record_keys = list(keys)
    query = {
        "field": field.name,
        "base": base_field(model, field, base_score_field) or False,
        "now": float(clock.now() if now is None else now),
        "rate": rate_of(field, decay_rate),
    }

    def parse(texts: list[Any]) -> dict[str, float]:
        return {key: float(text) for key, text in zip(record_keys, texts, strict=True) if text is not None}

    home = model._meta.keys_at(record_keys[0] if record_keys else "").home
    return Command((*record_keys, *home, pack(query)), parse, DECAY_SCORES, key_count=len(record_keys) + len(home))


# -- the parts of top_by_decay ---------------------------------------------------------------------------------------


def wanted_of(builder: QueryBuilder[Any], call: str, n: Any) -> int:
    """Return how many records a ranking is to give: n, but not more than the builder's limit; 0 or less for none.

    Args:
        call: the call as far as its argument, e.g. "top_by_decay(n".
    Raises: TypeError: n is no int.
    """
    if type(n) is not int:
        raise TypeError(f"{call}={n!r}): expected a whole number.")
    return min(n, 2**31) if builder._limit is None else min(n, builder._limit, 2**31)


def refuse_misplaced(builder: QueryBuilder[Any], call: str) -> None:
    """Refuse what a ranking call has no use for.

    Raises: QueryException: the builder has an order or asks for values.
    """
    for name, given in (("order_by", builder._order_by), ("values", builder._values)):
        if given:
            raise QueryException(
                f"{name}({given!r}) before {call}: it returns instances in the order of their scores. "
                f"Leave {name}() out."
            )


def rate_of(field: DecayingSortedField, override: float | None) -> float:
    rate = field.decay_rate if override is None else override
    if not is_number(rate):
        raise QueryException(f"decay_rate={rate!r}: expected a finite number.")
    return float(rate)


def base_field(model: Any, field: DecayingSortedField, override: str | None) -> str | None:
    """Return the name of the field that holds base scores, or None where all are 1.

    Raises: QueryException: the override names no field.
    """
    if override is None:
        return field.base_score_field
    if override and override not in model._meta.fields:
        raise QueryException(
            f"base_score_field={override!r}: {model.__name__} has no such field. "
            f"Fields: {', '.join(model._meta.fields)}."
        )
    return override or None


def base_plan(model: Any, field: DecayingSortedField, own: tuple[str, str], override: str | None) -> dict[str, Any]:
    """Return where base scores come from: `base`, `key`, `paired`, `field` of the query; `name` of the field."""
    meta = model._meta
    name = base_field(model, field, override)
    touched_key, base_key = own
    plan = {"base": "set", "key": base_key, "paired": True, "field": False, "name": name or False}
    if name == field.base_score_field:
        return plan if name else {**plan, "base": "one"}
    everyone = {**plan, "base": "one", "key": meta.keys.order, "paired": False, "name": False}
    if name is None:
        return everyone
    source = meta.fields[name]
    if source.type not in _NUMBERS:
        return everyone  # what is no number counts 1
    if isinstance(source, SortedIndex) and source.partition_by in ((), field.partition_by):
        partition = touched_key.removeprefix(meta.keys.base(field.field_class_key, field.name))
        key = meta.keys.base(source.field_class_key, name) + (partition if source.partition_by else "")
        return {**plan, "key": key, "paired": False}
    return {**plan, "base": "hash", "key": meta.keys.order, "paired": False, "field": name}


def _ranked(
    query: dict[str, Any], base: Mapping[str, Any], sets: tuple[str, tuple[str, ...]], given: list[str] | None,
    stats: dict[str, int],
) -> Generator[Any, Any, Scored | None]:  # fmt: skip
    """Return the best n; None when the base set lacks members."""
    query = {**query, **{name: base[name] for name in ("base", "field", "paired")}}
    touched_key, home = sets
    chunks = _chunks(given, query["slice"])
    if given is not None:
        query["collect"] = False
    collected: list[tuple[float, bytes]] = []
    state: Any = b""
    while True:
        if given:
            query["members"], query["last"] = next(chunks)
        args = (touched_key, base["key"], *home, pack(query), state)
        reply = yield Command(args, script=TOP_BY_DECAY, key_count=6)
        if reply[0] == 2:
            return None
        code, flat, rows, visited = reply[:4]
        stats["visited"] += visited
        stats["calls"] += 1
        pairs = iter(flat)
        scored = [(float(text), key) for key, text in zip(pairs, pairs, strict=True)]
        if query["collect"]:
            collected = heapq.nlargest(query["n"], collected + scored)
        if code == 0:
            break
        state = reply[4]
    if query["collect"]:
        return [(key, score, None) for score, key in collected]
    return [(key, score, rows[i] if rows else None) for i, (score, key) in enumerate(scored)]


def _chunks(members: list[str] | None, size: int) -> Iterator[tuple[list[str], bool]]:
    members = members or []
    for start in range(0, max(len(members), 1), size):
        yield members[start : start + size], start + size >= len(members)


def read_ranked(model: Any, ranked: Scored, stats: dict[str, int], attribute: str) -> Generator[Any, Any, list[Any]]:
    """Return the records with their scores in `attribute`; read those that were not.

    One that is gone or corrupt is left out (and logged).
    """
    out: list[Any] = []
    for start in range(0, len(ranked), READ_CHUNK):
        chunk = ranked[start : start + READ_CHUNK]
        if chunk[0][2] is None:
            records = yield from fetched(model, [key.decode() for key, _, _ in chunk])
            stats["calls"] += 1
        else:
            rows = ((key.decode(), row or None) for key, _, row in chunk)
            records = {record._saved_key: record for record in Reader(model, None, None, False).read(rows)}
        for key, score, _ in chunk:
            instance = records.get(key.decode())
            if instance is not None:
                instance.__dict__[attribute] = score
                out.append(instance)
    together(model, out)
    return out
