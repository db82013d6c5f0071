"""Any tree of conditions gives what a list comprehension gives, whoever decides: the server, Python, or both."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto import redis_db
from popoto.orm import selection
from popoto.orm.aggregates import Avg, Count, Max, Min, Sum
from popoto.orm.fields.base import Field
from popoto.orm.fields.datetime import DatetimeField
from popoto.orm.fields.indexed import IndexedField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import DateField, DecimalField, FloatField, IntField, ListField, TimeField
from popoto.orm.model import Model
from popoto.orm.ordering import F
from popoto.orm.q import Q

SIZES = {"as-shipped": None, "small": {"GATHER": 3, "SLICE": 5, "ROWS": 4, "READ_CHUNK": 3}}


@pytest.fixture(params=SIZES)
def sizes(request, monkeypatch):
    for name, value in (SIZES[request.param] or {}).items():
        monkeypatch.setattr(selection, name, value)


class TreeItem(Model):
    shelf = KeyField()
    number = KeyField(type=int)
    color = IndexedField()
    weight = SortedField(type=float)
    big = SortedField(type=int)
    rank = SortedField(type=int, partition_by="team")
    team = Field()
    note = Field()
    size = IntField()
    ratio = FloatField(default=0.5)
    price = DecimalField()
    seen = DatetimeField()
    day = DateField()
    at = TimeField()
    tags = ListField()


UTC2 = timezone(timedelta(hours=2))
ints = st.sampled_from([-3, 0, 1, 7, 2**53, 2**53 + 1, 2**63 + 5, 2**64 - 1, -(2**62), 2**64 + 1, -(2**70)])
moments = st.sampled_from(
    [
        datetime(2024, 1, 1),
        datetime(2024, 1, 1, 0, 0, 0, 1),
        datetime(2024, 1, 1, 2, tzinfo=UTC2),
        datetime(2024, 1, 1, 1, tzinfo=timezone.utc),
        datetime(1, 1, 1),
        datetime(300, 5, 6),
    ]
)
VALUES: dict[str, Any] = {
    "shelf": st.sampled_from(["a", "b", "a:b"]),
    "number": st.integers(0, 9),
    "color": st.none() | st.sampled_from(["red", "blue", ""]),
    "weight": st.sampled_from([-1.0, 0.0, 2.5]),
    "big": st.sampled_from([0, 2**53, 2**53 + 1, 2**53 + 2]),
    "rank": st.integers(0, 3),
    "team": st.none() | st.sampled_from(["x", "y"]),
    "note": st.none() | st.sampled_from(["n", "m", ""]),
    "size": st.none() | ints,
    "ratio": st.none() | st.sampled_from([-0.0, 0.0, 0.5, 1.0, 1e300, float("inf")]),
    "price": st.none()
    | st.sampled_from([Decimal(t) for t in ("-1", "0.10", "0.1", "2", "1E+30", "0.1000000000000001")]),
    "seen": st.none() | moments,
    "day": st.none() | st.sampled_from([date(2024, 1, 1), date(2024, 1, 2), date(1, 1, 1), date(999, 9, 9)]),
    "at": st.none()
    | st.sampled_from([time(1), time(1, 0, 0, 5), time(23, 59), time(1, tzinfo=timezone.utc), time(2, tzinfo=UTC2)]),
    "tags": st.none() | st.lists(st.integers(0, 1), max_size=2),
}
tables = st.lists(st.fixed_dictionaries(VALUES), max_size=14, unique_by=lambda row: (row["number"], row["shelf"]))
RANGED = ("weight", "big", "size", "ratio", "price", "seen", "day", "at")
WITH_NULL = ("color", "note", "size", "ratio", "price", "seen", "day", "at", "team", "tags")


def comparable(value: Any) -> Any:
    if isinstance(value, (datetime, time)) and value.tzinfo is None:
        return value.replace(tzinfo=timezone.utc)
    return value


def holds(stored: Any, lookup: str, wanted: Any) -> bool:
    if lookup == "":
        return bool(stored == wanted)
    if lookup == "in":
        return stored in wanted
    if lookup == "isnull":
        return (stored is None) is wanted
    if stored is None:
        return False
    if lookup in ("startswith", "endswith"):
        return bool(getattr(stored, lookup)(wanted))
    stored = comparable(stored)
    if lookup == "between":
        return bool(comparable(wanted[0]) <= stored <= comparable(wanted[1]))
    wanted = comparable(wanted)
    return bool(
        {"gt": stored > wanted, "gte": stored >= wanted, "lt": stored < wanted, "lte": stored <= wanted}[lookup]
    )


def meant(row: dict[str, Any], q: Q) -> bool:
    if q.children:
        found = (all if q.connector == Q.AND else any)(meant(row, child) for child in q.children)
    else:
        found = all(
            holds(row[name], lookup, v) for p, v in q.filters.items() for name, _, lookup in [p.partition("__")]
        )
    return found != q.negated


@st.composite
def leaves(draw: Any) -> Q:
    kind = draw(st.sampled_from(["equal", "range", "null", "in", "text", "partition", "empty"]))
    if kind == "range":
        name = draw(st.sampled_from(RANGED))
        lookup = draw(st.sampled_from(["gt", "gte", "lt", "lte", "between"]))
        values = VALUES[name].filter(lambda v: v is not None)
        return Q(**{f"{name}__{lookup}": draw(st.tuples(values, values) if lookup == "between" else values)})
    if kind == "null":
        return Q(**{f"{draw(st.sampled_from(WITH_NULL))}__isnull": draw(st.booleans())})
    if kind == "in":
        name = draw(st.sampled_from([n for n in VALUES if n not in ("weight", "big", "rank")]))
        return Q(**{f"{name}__in": draw(st.lists(VALUES[name], max_size=3))})
    if kind == "text":
        name = draw(st.sampled_from(["color", "shelf"]))
        return Q(
            **{
                f"{name}__{draw(st.sampled_from(['startswith', 'endswith']))}": draw(
                    st.sampled_from(["", "a", "d", "b"])
                )
            }
        )
    if kind == "partition":
        return Q(team=draw(VALUES["team"]), rank__gte=draw(VALUES["rank"]))
    if kind == "empty":
        return Q()
    names = draw(st.lists(st.sampled_from([n for n in VALUES if n != "rank"]), min_size=1, max_size=2, unique=True))
    return Q(**{name: draw(VALUES[name]) for name in names})


trees = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
        inner.map(lambda q: ~q),
    ),
    max_leaves=7,
)


def store(table: list[dict[str, Any]]) -> dict[bytes, dict[str, Any]]:
    pipeline = redis_db.get_REDIS_DB().pipeline(transaction=False)
    stored = {}
    for row in table:
        record = TreeItem(**row)
        record.save(pipeline=pipeline)
        stored[record.pk.encode()] = row
    if table:
        pipeline.execute()
    return stored


def rank(row: dict[str, Any], key: bytes, name: str) -> tuple[Any, ...]:
    return (False, 0) if row[name] is None else (True, comparable(row[name]))


def in_order(stored: dict[bytes, dict[str, Any]], keys: list[bytes], names: tuple[str, ...]) -> list[bytes]:
    keys = sorted(keys, reverse=names[-1].startswith("-"))
    for name in reversed(names):
        keys.sort(key=lambda k: rank(stored[k], k, name.lstrip("-")), reverse=name.startswith("-"))
    return keys


orders = st.lists(
    st.sampled_from([sign + name for name in VALUES if name not in ("tags", "rank") for sign in ("", "-")]),
    min_size=1, max_size=3, unique=True,
)  # fmt: skip


@settings(
    deadline=None,
    max_examples=120,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    table=tables,
    tree=trees,
    more=trees,
    names=orders,
    limit=st.none() | st.integers(0, 5),
    chunk=st.none() | st.integers(1, 3),
    stop=st.integers(0, 5),
)
def test_a_tree_of_conditions_gives_what_a_list_comprehension_gives(
    server, sizes, table, tree, more, names, limit, chunk, stop
):
    server.flushall()
    stored = store(table)
    wanted = [key for key, row in stored.items() if meant(row, tree) and not meant(row, more)]
    unordered = TreeItem.query.filter(tree).exclude(more)
    assert sorted(unordered.keys()) == sorted(wanted)
    assert unordered.count() == len(wanted)

    builder = unordered.order_by(*names)
    ordered = in_order(stored, wanted, tuple(names))
    assert builder.keys() == ordered
    cut = ordered[:limit]
    limited = builder.limit(limit)
    assert [r.pk.encode() for r in limited.all()] == cut
    last = limited.order_by(*names).last()
    assert (last.pk.encode() if last is not None else None) == (cut[-1] if cut else None)
    assert limited.exists() == bool(cut)
    iteration = builder.iterate(chunk_size=chunk)
    seen = [record.pk.encode() for record in islice(iteration, stop)]
    rest = [record.pk.encode() for record in builder.iterate(chunk_size=chunk, cursor=iteration.cursor)]
    assert (seen, rest) == (ordered[:stop], ordered[stop:])

    rows = [stored[key] for key in wanted]
    unordered_keys = unordered.keys()
    assert unordered.distinct("color") == list(dict.fromkeys(stored[k]["color"] for k in unordered_keys))
    got = unordered.aggregate(
        n=Count(), sized=Count("size"), total=Sum("size"), price=Sum("price"), ratio=Sum("ratio"), mean=Avg("size"),
        least=Min("size"), most=Max("price"), first=Min("seen"), late=Max("at"), day=Max("day"), color=Min("color"),
        rank=Sum("rank"),
    )  # fmt: skip
    present = {name: [row[name] for row in rows if row[name] is not None] for name in VALUES}
    assert got["n"] == len(rows) and got["sized"] == len(present["size"])
    assert got["total"] == sum(present["size"]) and got["rank"] == sum(present["rank"])
    assert got["price"] == exact_sum(present["price"])
    assert got["ratio"] == pytest.approx(sum(present["ratio"]))
    assert got["mean"] == (sum(present["size"]) / len(present["size"]) if present["size"] else None)
    assert got["least"] == min(present["size"], default=None)
    assert got["most"] == max(present["price"], default=None)
    for name, field, choose in (
        ("first", "seen", min),
        ("late", "at", max),
        ("day", "day", max),
        ("color", "color", min),
    ):
        best = choose(map(comparable, present[field]), default=None)
        assert comparable(got[name]) == best
    str(unordered.explain())


def exact_sum(values: list[Decimal]) -> Decimal:
    from fractions import Fraction

    total = sum(map(Fraction, values), Fraction(0))
    return (
        Decimal(total.numerator) / Decimal(total.denominator) if len(str(total.numerator)) < 28 else exact_large(values)
    )


def exact_large(values: list[Decimal]) -> Decimal:
    from decimal import localcontext

    with localcontext() as context:
        context.prec = 200
        return sum(values, Decimal(0))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables, descending=st.booleans())
def test_an_order_by_an_expression_is_that_of_its_values(server, sizes, table, descending):
    server.flushall()
    stored = store(table)
    expression = F("number") * 2 - F("rank")
    found = TreeItem.query.order_by(-expression if descending else expression).keys()
    wanted = sorted(stored, key=lambda k: (stored[k]["number"] * 2 - stored[k]["rank"], k), reverse=descending)
    assert found == wanted
