"""At most two round trips for a filter of any mix, and `explain()` that foretells them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from popoto import (
    DecimalField,
    F,
    IndexedField,
    IntField,
    KeyField,
    ListField,
    Model,
    Q,
    Relationship,
    SortedField,
    redis_db,
)

BIG = 2**60  # beyond 2**53 neighbours share a score, so values decide


class Maker(Model):
    name = KeyField()
    share = DecimalField()  # compared by Python
    marks = ListField()
    serial = SortedField(type=int)
    log = ListField(max_length=3)

    class Meta:
        key_name = "RoundTripMaker"


class Part(Model):
    name = KeyField()
    maker = Relationship(model=Maker)
    spare = Relationship(model=Maker, null=True)
    number = IntField()
    serial = SortedField(type=int)
    kind = IndexedField()

    class Meta:
        key_name = "RoundTripPart"


@pytest.fixture
def parts(server) -> list[Part]:
    makers = Maker.bulk_create(
        Maker(name=f"m{i}", share=Decimal(i) / 4, marks=[i], serial=i, log=[str(i)]) for i in range(5)
    )
    return Part.bulk_create(
        Part(
            name=f"p{i:02}",
            maker=makers[i % 5],
            spare=makers[i % 3],
            number=-i,
            serial=BIG + i,
            kind="ab"[i % 2],
        )
        for i in range(30)
    )


QUERIES = {
    "python decides on a related value, python orders": (
        lambda: Part.query.filter(maker__share__gt=Decimal("0.3")).order_by("number"),
        lambda p: p.maker.share > Decimal("0.3"),
    ),
    "two relationships": (
        lambda: Part.query.filter(maker__marks=[1], spare__share=Decimal("0.25")).order_by("number"),
        lambda p: p.maker.marks == [1] and p.spare.share == Decimal("0.25"),
    ),
    "under not and or": (
        lambda: Part.query.filter(~Q(maker__marks=[1]) | Q(kind="a", maker__share=Decimal(0))).order_by(
            F("number") * 2
        ),
        lambda p: p.maker.marks != [1] or (p.kind == "a" and p.maker.share == 0),
    ),
    "values share scores": (
        lambda: Part.query.filter(serial__gte=BIG + 7, kind="a").order_by("number"),
        lambda p: p.serial >= BIG + 7 and p.kind == "a",
    ),
    "values share scores, in their own order": (
        lambda: Part.query.filter(kind="a").order_by("-serial"),
        lambda p: p.kind == "a",
    ),
}


@pytest.mark.parametrize("limit", [None, 2])
@pytest.mark.parametrize("what", QUERIES)
def test_a_filter_takes_at_most_two_round_trips(parts, round_trips, what, limit):
    query, holds = QUERIES[what]
    expected = sorted((p for p in parts if holds(p)), key=lambda p: p.number)

    with round_trips() as trips:
        found = list(query().limit(limit))

    assert [p.name for p in found] == [p.name for p in expected[:limit]]
    assert [(p.maker.name, p.serial) for p in found] == [(p.maker.name, p.serial) for p in expected[:limit]]
    assert trips.count <= 2


@pytest.mark.parametrize("what", QUERIES)
def test_explain_foretells_the_round_trips(parts, round_trips, what):
    query, _ = QUERIES[what]
    plan = query().explain()

    with round_trips() as trips:
        list(query())

    assert plan.round_trips == trips.count


def test_explain_foretells_that_a_sort_by_a_function_takes_one(parts, round_trips):
    query = Part.query.filter(kind="a").computed_sort(lambda part: part.number)
    plan = query.explain()

    with round_trips() as trips:
        list(query)

    assert plan.round_trips == trips.count == 1


def test_lists_of_dicts_that_python_decided_on_come_in_two(parts, round_trips):
    with round_trips() as trips:
        found = list(Maker.query.filter(marks=[3]).values("name", "log"))

    assert found == [{"name": "m3", "log": ["3"]}]
    assert trips.count == 2


@pytest.mark.parametrize("count", [30, 31])
def test_related_values_that_share_scores_are_told_apart_in_two(server, round_trips, count):
    makers = [Maker.create(name=f"m{i}", share=Decimal(0), serial=BIG + i) for i in range(3)]
    Part.bulk_create(Part(name=f"p{i:02}", maker=makers[i % 3], number=-i, serial=i, kind="a") for i in range(count))

    with round_trips() as trips:
        found = list(Part.query.filter(maker__serial=BIG + 1).order_by("number").limit(4))

    assert [-p.number for p in found] == [i for i in reversed(range(count)) if i % 3 == 1][:4]
    assert trips.count == (3 if redis_db.on_cluster() else 2)  # there the makers are asked by themselves


def test_more_matches_than_one_answer_holds_are_all_found_in_order(server, monkeypatch):
    from popoto.orm import selection

    monkeypatch.setattr(selection, "ROWS", 7)
    monkeypatch.setattr(selection, "SLICE", 10)
    monkeypatch.setattr(selection, "GATHER", 5)
    makers = [Maker.create(name=f"m{i}", share=Decimal(i), serial=i) for i in range(2)]
    Part.bulk_create(Part(name=f"p{i:02}", maker=makers[i % 2], number=-i, serial=i, kind="a") for i in range(60))
    query = Part.query.filter(maker__share=Decimal(1)).order_by("number")

    assert [-p.number for p in query] == list(range(59, 0, -2))
    assert [-p.number for p in query.limit(20)] == list(range(59, 20, -2))
    assert [-p.number for p in query.limit(20)[15:18]] == [29, 27, 25]
