"""Computed order, distinct values, aggregates, iteration with a cursor, the plan."""

from __future__ import annotations

from decimal import Decimal

import pytest

from popoto.exceptions import QueryException
from popoto.orm import selection
from popoto.orm.aggregates import Avg, Count, Max, Min, Sum
from popoto.orm.fields.base import Field
from popoto.orm.fields.indexed import IndexedField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import DecimalField, FloatField, IntField, ListField
from popoto.orm.model import Model
from popoto.orm.ordering import F
from popoto.orm.q import Q


class AnswerItem(Model):
    number = KeyField(type=int)
    group = IndexedField()
    weight = SortedField(type=float)
    big = SortedField(type=int, default=0)
    size = IntField()
    cost = DecimalField()
    ratio = FloatField(default=1.0)
    note = Field()
    tags = ListField()


@pytest.fixture
def items(server):
    pipeline = server.pipeline(transaction=False)
    for n in range(20):
        AnswerItem(
            number=n,
            group=[None, "a", "b"][n % 3],
            weight=float(n % 7),
            size=None if n == 5 else n % 4,
            cost=Decimal(n) / 10,
            tags=[n % 2],
        ).save(pipeline=pipeline)
    pipeline.execute()
    return AnswerItem.query


@pytest.fixture
def small_slices(monkeypatch):
    for name, value in {"GATHER": 3, "SLICE": 6, "ROWS": 4, "READ_CHUNK": 4}.items():
        monkeypatch.setattr(selection, name, value)


def numbers(found):
    return [item.number for item in found]


# -- order ------------------------------------------------------------------------------------------------------------


def test_several_names_order_one_after_the_other(items):
    found = items.order_by("group", "-size", "number").all()
    assert found == sorted(found, key=lambda i: (i.group or "", -(-1 if i.size is None else i.size), i.number))
    assert items.filter(order_by=("group", "-size", "number")).all() == found
    assert items.order_by("-group", "-size", "-number").all() == items.order_by("group", "size", "number").all()[::-1]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (F("number") * 2 - F("weight"), lambda i: i.number * 2 - i.weight),
        (3 - F("weight"), lambda i: 3 - i.weight),
        (F("number") % 5 + F("weight") / 10, lambda i: i.number % 5 + i.weight / 10),
        (F("number") ** 2 // 7, lambda i: i.number**2 // 7),
        (F("cost") * F("number"), lambda i: i.cost * i.number),
        (F("weight"), lambda i: i.weight),
    ],
    ids=lambda value: str(value) if isinstance(value, F) else "",
)
def test_an_expression_orders_by_what_it_computes(items, expression, value):
    every = sorted(items.all(), key=lambda i: str(i.pk))
    assert items.order_by(expression).all() == sorted(every, key=value)
    assert items.order_by(-expression).all() == items.order_by(expression).all()[::-1]
    assert items.order_by(expression).limit(3).all() == sorted(every, key=value)[:3]


def test_an_expression_of_none_comes_first(items):
    assert items.order_by(F("size") + 1).first().number == 5
    assert items.order_by(-(F("size") + 1)).last().number == 5


def test_what_cannot_be_computed_names_the_expression(items):
    with pytest.raises(QueryException, match=r"F\('number'\) / F\('size'\)"):
        items.order_by(F("number") / F("size")).all()
    with pytest.raises(QueryException, match="no such field"):
        items.order_by(F("number") + F("sise"))
    with pytest.raises(TypeError):
        F("number") * "x"
    with pytest.raises(TypeError, match="expected the name"):
        F(5)


def test_a_computed_sort_runs_last_and_before_the_limit(items):
    found = items.filter(group="a").computed_sort(lambda i: -i.number).limit(2)
    assert numbers(found) == [19, 16] and numbers(found[1:]) == [16]
    assert found.last().number == 16 and found.first().number == 19
    assert found.keys() == [b"AnswerItem:19", b"AnswerItem:16"] and found.count() == 7
    assert items.values("number").computed_sort(lambda row: row["number"], reverse=True).limit(1).all() == [
        {"number": 19}
    ]
    assert numbers(items.order_by("weight").computed_sort(lambda i: 0).limit(3)) == numbers(
        items.order_by("weight").limit(3)
    )
    for wrong in (None, 5):
        with pytest.raises(TypeError, match="computed_sort"):
            items.computed_sort(wrong)


@pytest.mark.parametrize("order", [None, "weight", "-weight", "size", "-number"])
@pytest.mark.parametrize("limit", [None, 0, 1, 3, 50])
def test_first_and_last_are_those_of_the_list_and_read_one_record(items, server, round_trips, order, limit):
    builder = items.filter(group="a").order_by(order).limit(limit)
    every = builder.all()
    fresh = builder.order_by(order)
    assert fresh.last() == (every[-1] if every else None) and fresh.first() == (every[0] if every else None)
    with round_trips() as trips:
        items.order_by("weight").last()
    assert trips.count == 1


# -- distinct ---------------------------------------------------------------------------------------------------------


def test_distinct_gives_each_value_once_in_the_order_of_the_query(items):
    assert items.distinct("group") == [None, "a", "b"]
    assert items.order_by("-weight").distinct("weight") == [6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    assert items.filter(group="b").limit(2).distinct("weight", "group") == [(4.0, "b"), (0.0, "b")]
    assert items.filter(number__in=[0, 1, 2]).distinct("tags") == [[0], [1]]
    assert items.filter(group=None).values("group").distinct() == [{"group": None}]
    assert items.filter(tags=[1]).distinct("group") == ["a", "b", None]
    for wrong in (lambda: items.distinct("nobody"), lambda: items.distinct()):
        with pytest.raises(QueryException, match="distinct"):
            wrong()


def test_distinct_sends_values_and_no_records(items, round_trips):
    with round_trips() as trips:
        assert len(items.distinct("group", "size")) == 13
    assert trips.count == 1


# -- aggregates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "conditions", [[], [Q(group="a")], [~Q(group="a")], [Q(tags=[1])], [Q(number=99)]], ids=lambda c: str(c)
)
def test_aggregates_are_those_of_the_list(items, small_slices, conditions):
    found = items.filter(*conditions)
    every = found.all()
    sizes = [i.size for i in every if i.size is not None]
    assert found.aggregate(
        n=Count(), sized=Count("size"), total=Sum("size"), mean=Avg("size"), low=Min("size"), high=Max("cost"),
        cost=Sum("cost"), middle=Avg("cost"), weight=Sum("weight"), group=Max("group"),
    ) == {
        "n": len(every), "sized": len(sizes), "total": sum(sizes), "mean": sum(sizes) / len(sizes) if sizes else None,
        "low": min(sizes, default=None), "high": max((i.cost for i in every), default=None),
        "cost": sum((i.cost for i in every), Decimal(0)),
        "middle": sum((i.cost for i in every), Decimal(0)) / len(every) if every else None,
        "weight": sum(i.weight for i in every), "group": max((i.group for i in every if i.group), default=None),
    }  # fmt: skip
    assert found.limit(1).aggregate(n=Count())["n"] == len(every), "whatever the limit"


def test_sums_lose_no_digit_whatever_their_size(server):
    ints = [2**53, 1, 1, 10**40, -(10**40), -(2**63), 2**64 - 1, 7]
    costs = [Decimal("1E+30"), Decimal("0.1"), Decimal("1E-20"), Decimal("-1E+30")]
    for n, value in enumerate(ints):
        AnswerItem.create(number=n, weight=0.1, size=value, cost=costs[n % 4] if n < 4 else None)
    got = AnswerItem.query.aggregate(ints=Sum("size"), costs=Sum("cost"), floats=Sum("weight"))
    assert got["ints"] == sum(ints)
    assert got["costs"] == Decimal("0.10000000000000000001")
    assert got["floats"] == 0.8, "compensated: ten times 0.1 would be 0.7999999999999999 added one by one"
    assert AnswerItem.query.aggregate(low=Min("size"), high=Max("size")) == {"low": -(10**40), "high": 10**40}


def test_sums_of_nothing_are_zero_of_their_type(server):
    got = AnswerItem.query.aggregate(Sum("size"), Sum("cost"), Sum("ratio"), Avg("size"), Min("note"), Count())
    assert got == {
        "size__sum": 0, "cost__sum": 0, "ratio__sum": 0, "size__avg": None, "note__min": None, "count": 0,
    }  # fmt: skip
    assert [type(got[f"{name}__sum"]) for name in ("size", "cost", "ratio")] == [int, Decimal, float]


def test_a_field_name_stands_for_all_that_its_type_has(items):
    assert items.filter(group="a").aggregate("weight") == {
        "count": 7,
        "sum": 21.0,
        "avg": 3.0,
        "min": 0.0,
        "max": 6.0,
    } | ({name: value for name, value in items.filter(group="a").aggregate("weight").items() if name in ("sum", "avg")})
    assert set(items.aggregate("note")) == {"count", "min", "max"}
    assert set(items.aggregate("tags")) == {"count"}


@pytest.mark.parametrize(
    ("args", "named", "words"),
    [
        ((), {}, "expected at least one"),
        ((), {"x": Sum("nobody")}, "no such field"),
        ((), {"x": Sum("note")}, r"type str; expected Decimal, float, int"),
        ((), {"x": Max("tags")}, "type list"),
        ((), {"x": 5}, "expected Count"),
        ((5,), {}, "expected a field name"),
        (("nobody",), {}, "no such field"),
    ],
)
def test_an_aggregate_that_makes_no_sense_is_refused(server, args, named, words):
    with pytest.raises(QueryException, match=words):
        AnswerItem.query.aggregate(*args, **named)


def test_values_that_cannot_be_read_are_left_out_and_logged(items, server, caplog):
    server.hset("AnswerItem:3", "size", b"\xc1")
    server.hdel("AnswerItem:4", "ratio")
    got = items.aggregate(mean=Avg("size"), total=Sum("size"), ratios=Sum("ratio"))
    sizes = [n % 4 for n in range(20) if n not in (3, 5)]
    assert (got["mean"], got["total"]) == (sum(sizes) / len(sizes), sum(sizes))
    assert got["ratios"] == 20.0, "a record without the field has its default"
    assert "size" in caplog.text


def test_aggregates_take_one_round_trip(items, round_trips):
    with round_trips() as trips:
        items.filter(group__in=["a", "b"]).aggregate(n=Count(), total=Sum("cost"), low=Min("size"))
    assert trips.count == 1


# -- iteration --------------------------------------------------------------------------------------------------------

ORDERS = [None, "weight", "-weight", "size", "-cost", ("group", "-size"), "number"]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("conditions", [[], [Q(group="a")], [Q(tags=[1])]], ids=str)
def test_iteration_resumed_at_every_place_gives_the_whole(items, small_slices, order, conditions):
    builder = items.filter(*conditions, order_by=order)
    every = builder.all()
    cursor, found = None, []
    while True:
        iteration = builder.iterate(chunk_size=3, cursor=cursor)
        item = next(iter(iteration), None)
        if item is None:
            break
        found.append(item)
        assert iteration.cursor != cursor
        cursor = iteration.cursor
    assert found == every
    assert [len(chunk) for chunk in builder.iterate(chunk_size=5).chunks()] == [5] * (len(every) // 5) + (
        [len(every) % 5] if len(every) % 5 else []
    )
    assert builder.limit(4).iterate().done is False
    assert list(builder.limit(4).iterate()) == every[:4]


@pytest.mark.parametrize("order", ["weight", "-weight", None, "size"])
def test_a_cursor_survives_writers(items, order):
    builder = items.order_by(order)
    every = builder.all()
    reading = builder.iterate(chunk_size=2)
    seen = [item for item, _ in zip(reading, range(5), strict=False)]
    place = len(every) - len(list(builder.iterate(cursor=reading.cursor)))
    assert place == 6, "zip has drawn one that it did not give"
    for gone in every[:place:2]:
        gone.delete()
    every[place - 1].delete()
    AnswerItem.create(number=100, weight=99.0 if order == "weight" else -1.0, group="z", size=99)
    rest = list(builder.iterate(cursor=reading.cursor))
    assert [i.number for i in rest if i.number != 100] == [i.number for i in every[place:]]
    assert 100 in [i.number for i in rest] or order is None
    assert len(seen) == 5


def test_values_and_limits_iterate_too(items):
    rows = list(items.filter(group="a").values("number").order_by("-number").limit(3).iterate(chunk_size=2))
    assert rows == [{"number": 19}, {"number": 16}, {"number": 13}]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("conditions", [[], [Q(weight__lt=6)], [Q(tags=[1])]], ids=str)
@pytest.mark.parametrize("chunk_size", [1, 3, None])
def test_what_is_gone_or_corrupt_takes_no_room_under_a_limit(
    items, server, small_slices, order, conditions, chunk_size
):
    builder = items.filter(*conditions, order_by=order)
    every = builder.all()
    for item in every[:6:2]:
        server.delete(item.pk)  # by hand: the indexes still name it
    server.hset(every[5].pk, "note", b"\xc1 no value")
    left = [every[1], every[3], *every[6:]]
    for limit in (1, 2, 3, 5, 100):
        iteration = builder.limit(limit).iterate(chunk_size=chunk_size)
        assert list(iteration) == left[:limit]
        assert list(builder.iterate(cursor=iteration.cursor)) == left[limit:]
        assert list(builder.limit(2).iterate(cursor=iteration.cursor)) == left[limit : limit + 2]
    assert [len(chunk) for chunk in builder.limit(4).iterate(chunk_size=2).chunks()] == [2, 2]


def test_a_full_limit_costs_no_further_round_trip(items, round_trips):
    for order in ("weight", None):
        with round_trips() as trips:
            assert len(list(items.order_by(order).limit(5).iterate())) == 5
        assert trips.count == 1


def test_a_cursor_belongs_to_its_order(items):
    reading = items.order_by("weight").iterate()
    next(iter(reading))
    assert reading.cursor is not None
    for ask in (
        lambda: items.order_by("-weight").iterate(cursor=reading.cursor),
        lambda: items.iterate(cursor=reading.cursor),
        lambda: items.iterate(cursor="nonsense"),
        lambda: items.iterate(cursor=5),
        lambda: items.computed_sort(len).iterate(cursor=reading.cursor),
        lambda: items.iterate(chunk_size=0),
    ):
        with pytest.raises(QueryException, match="iterate"):
            ask()
    assert len(list(items.order_by("weight").filter(group="a").iterate(cursor=reading.cursor))) <= 7


async def _twins(items):
    builder = items.filter(group="a").order_by("-number")
    assert [item async for item in builder.iterate(chunk_size=2)] == builder.all()
    assert [len(chunk) async for chunk in items.async_iterate(chunk_size=8).async_chunks()] == [8, 8, 4]
    assert await builder.async_last() == builder.last() and await items.async_last(group="b") == items.last(group="b")
    assert await builder.async_values("number") == builder.values("number").all()
    assert await builder.async_distinct("size") == builder.distinct("size")
    assert await items.async_distinct("group") == items.distinct("group")
    assert await builder.async_aggregate(n=Count("size")) == builder.aggregate(n=Count("size"))
    assert await items.async_aggregate("size") == items.aggregate("size")
    assert str(await builder.async_explain()) == str(builder.explain())
    assert (
        await items.async_filter(Q(group="a") | Q(group="b"), limit=2)
        == items.filter(Q(group="a") | Q(group="b"), limit=2).all()
    )
    assert await items.async_exclude(group="a") == items.exclude(group="a").all()
    assert (
        await items.async_filter_for_keys_set(group="a") == items.filter_for_keys_set(group="a") == set(builder.keys())
    )
    assert await items.async_values("group") == items.values("group").all()
    assert await items.async_keys(clean=True) == items.keys(clean=True) == items.keys()


def test_the_async_twins_give_the_same(items):
    import asyncio

    asyncio.run(_twins(items))


# -- the plan ---------------------------------------------------------------------------------------------------------


def test_explain_says_how_and_what_it_touches_without_reading_records(items, server, round_trips):
    with round_trips() as trips:
        plan = items.filter(group="a", weight__gt=2).limit(3).explain()
    assert trips.count == 1
    assert (plan.model, plan.records, plan.python, plan.round_trips) == ("AnswerItem", 20, (), 1)
    assert plan.how in ("walk", "gather") and plan.order.endswith("weight") and 0 < plan.touched <= 20
    text = str(plan)
    assert (
        "20 records" in text
        and "group:a: at most 7" in text
        and "weight from (2.0 to +inf" in text
        and text == repr(plan)
    )


def test_explain_says_what_is_left_to_python(items):
    plan = items.filter(~Q(tags=[1])).order_by("cost", "-size").explain()
    assert plan.round_trips == 2
    assert plan.python == ("decides by tags, read from each candidate", "sorts by 'cost', 'size' descending")
    assert "sorts all results by a function" in str(items.computed_sort(len).explain())
    assert items.limit(0).explain().how == "empty" and items.limit(0).explain().round_trips == 0


@pytest.mark.parametrize(
    "builder",
    [
        lambda q: q.filter(group="a"),
        lambda q: q.filter(weight__gte=2, weight__lt=4),
        lambda q: q.filter(Q(group="a") | Q(group="b")),
        lambda q: q.filter(tags=[1]),
        lambda q: q.order_by("cost"),
    ],
)
def test_the_round_trips_of_a_plan_are_those_that_run(items, round_trips, builder):
    plan = builder(items).explain()
    with round_trips() as trips:
        builder(items).all()
    assert trips.count == plan.round_trips


def test_two_ends_of_one_range_bound_the_walk(items):
    plan = items.filter(weight__gte=2, weight__lt=4).explain()
    assert plan.touched == items.count(weight__gte=2, weight__lt=4) == 6
