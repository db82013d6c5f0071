"""Q, exclude and expressions: how they are written, what they refuse, what they cost."""

from __future__ import annotations

import copy
import pickle
from datetime import date, datetime, timezone
from decimal import Decimal

import pytest

from popoto.exceptions import QueryException
from popoto.orm.expressions import CombinedExpression, Expression
from popoto.orm.fields.base import Field
from popoto.orm.fields.datetime import DatetimeField
from popoto.orm.fields.indexed import IndexedField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import DateField, DecimalField, IntField, ListField
from popoto.orm.model import Model
from popoto.orm.q import Q


class QDish(Model):
    name = KeyField()
    cuisine = IndexedField()
    price = SortedField(type=float)
    rank = SortedField(type=int, partition_by="cuisine", default=0)
    note = Field()
    stock = IntField()
    cost = DecimalField()
    made = DatetimeField()
    best = DateField()
    tags = ListField()


@pytest.fixture
def dishes(server):
    rows = [
        ("sushi", "japanese", 18.0, 1, 2, Decimal("9.5")),
        ("ramen", "japanese", 12.5, 2, None, Decimal("4.10")),
        ("taco", "mexican", 4.0, 1, 30, Decimal("1.1")),
        ("soup", None, 6.0, 0, 5, None),
    ]
    for n, (name, cuisine, price, rank, stock, cost) in enumerate(rows):
        at = datetime(2024, 1, 1 + n, tzinfo=timezone.utc if n % 2 else None)
        QDish.create(
            name=name,
            cuisine=cuisine,
            price=price,
            rank=rank,
            stock=stock,
            cost=cost,
            made=at,
            best=at.date(),
            tags=[n],
        )
    return QDish.query


def names(found):
    return [dish.name for dish in found]


# -- Q ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("q", "shown"),
    [
        (Q(), "Q()"),
        (Q(a=1, b="x"), "Q(a=1, b='x')"),
        (~Q(a=1), "~Q(a=1)"),
        (~~Q(a=1), "Q(a=1)"),
        (~(Q(a=1) | Q(c=2)), "~(Q(a=1) OR Q(c=2))"),
        (Q(a=1) & Q(b=2) & Q(c=3), "(Q(a=1) AND Q(b=2) AND Q(c=3))"),
        (Q(a=1) & (Q(b=2) | ~Q(c=3)), "(Q(a=1) AND (Q(b=2) OR ~Q(c=3)))"),
    ],
    ids=str,
)
def test_a_q_shows_what_it_says(q, shown):
    assert repr(q) == shown


def test_the_members_of_a_q_tell_what_it_is():
    leaf, both = Q(a=1), Q(a=1) | Q(b=2)
    assert (leaf.filters, leaf.connector, leaf.children, leaf.negated) == ({"a": 1}, Q.AND, (), False)
    assert (both.filters, both.connector, len(both.children), (~both).negated) == ({}, Q.OR, 2, True)
    assert leaf.is_leaf() and not both.is_leaf()
    assert Q().is_empty() and not leaf.is_empty() and not both.is_empty()
    assert both.negated is False, "~ makes a new one"


@pytest.mark.parametrize("other", [None, 5, "x", {"a": 1}, True], ids=repr)
def test_a_q_combines_with_conditions_only(other):
    for combine in (lambda: Q(a=1) & other, lambda: Q(a=1) | other, lambda: (QDish.price > 1) & other):
        with pytest.raises(TypeError, match="expected a Q or an expression"):
            combine()


def test_a_condition_has_no_truth_value():
    for ask in (lambda: bool(Q(a=1)), lambda: 1 < QDish.price < 5, lambda: QDish.price > 1 and QDish.stock > 2):
        with pytest.raises(TypeError, match="no truth value"):
            ask()


def test_positional_keys_are_refused():
    with pytest.raises(TypeError):
        Q("name")


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ([Q()], ["ramen", "soup", "sushi", "taco"]),
        ([~Q()], []),
        ([Q() | Q(name="taco")], ["ramen", "soup", "sushi", "taco"]),
        ([Q(cuisine="japanese") | Q(price__lt=5)], ["ramen", "sushi", "taco"]),
        ([~Q(cuisine="japanese")], ["soup", "taco"]),
        ([~Q(cuisine="japanese"), Q(stock__gt=5)], ["taco"]),
        ([~(Q(cuisine="japanese") | Q(cuisine=None))], ["taco"]),
        ([Q(tags=[0]) | Q(name="taco")], ["sushi", "taco"]),
        ([~Q(tags=[0])], ["ramen", "soup", "taco"]),
        ([~(Q(tags=[0]) & Q(cuisine="japanese"))], ["ramen", "soup", "taco"]),
        ([~Q(stock__gte=5)], ["ramen", "sushi"]),
        ([Q(cuisine="japanese") & ~Q(rank__gt=1)], ["sushi"]),
        ([Q(cuisine="japanese", rank__gt=1) | Q(cuisine="mexican", rank=1)], ["ramen", "taco"]),
        ([Q(name__in=["taco", "soup"]) & (Q(cost=Decimal("1.10")) | Q(cost=None))], ["soup", "taco"]),
        ([QDish.price > 6], ["ramen", "sushi"]),
        ([QDish.price != 6], ["taco", "ramen", "sushi"]),
        ([~(QDish.price > 6)], ["soup", "taco"]),
        ([QDish.price.between(4, 6)], ["taco", "soup"]),
        ([(QDish.price >= 6) & (QDish.stock < 10) & (QDish.cuisine == None)], ["soup"]),  # noqa: E711
        ([(QDish.price <= 4) | Q(name="soup"), QDish.stock > 4], ["soup", "taco"]),
    ],
    ids=str,
)
def test_conditions_find_what_they_say(dishes, conditions, found):
    builder = dishes.filter(*conditions)
    assert sorted(names(builder)) == sorted(found)
    assert builder.count() == len(found)
    assert builder.order_by("name").keys() == [f"QDish:{name}".encode() for name in sorted(found)]
    assert builder.filter(name="taco").exists() is ("taco" in found)
    assert builder.order_by("-price").limit(1).keys() == builder.order_by("-price").keys()[:1]


def test_exclude_is_the_complement_of_filter(dishes):
    for given in (
        {"cuisine": "japanese"},
        {"stock": 2},
        {"cost": Decimal("1.1")},
        {"tags": [0]},
        {"name": "taco", "price": 5},
    ):
        kept, left_out = dishes.exclude(**given).keys(), dishes.filter(**given).keys()
        assert sorted(kept + left_out) == sorted(dishes.keys()) and not set(kept) & set(left_out)
    assert "soup" in names(dishes.exclude(cuisine="japanese")), "None is not equal to it"
    assert names(dishes.exclude(Q(cuisine="japanese") | Q(price__lt=5))) == ["soup"]
    with pytest.raises(TypeError, match="needs a condition"):
        dishes.exclude()


def test_unknown_names_are_refused_anywhere_in_a_tree(server):
    for ask in (
        lambda: QDish.query.filter(Q(name="x") | ~(Q(nmae="y") & Q())),
        lambda: QDish.query.exclude(nmae="y"),
        lambda: QDish.query.filter(Expression("nmae", "gt", 5)),
    ):
        with pytest.raises(QueryException, match=r"no field 'nmae'. Did you mean 'name'\?"):
            ask()
    with pytest.raises(QueryException, match=r"tags__gt.*It offers: tags, tags__in, tags__isnull"):
        QDish.query.filter(QDish.tags > [1])


def test_a_partition_must_be_said_around_its_sorted_field(dishes):
    with pytest.raises(QueryException, match="partitioned by cuisine"):
        dishes.filter(Q(rank__gt=1) | Q(cuisine="japanese")).all()
    assert names(dishes.filter(~Q(rank__gt=1), cuisine="japanese")) == ["sushi"]


@pytest.mark.parametrize(
    "condition",
    [
        Q(cuisine="japanese") | Q(price__lt=5) | ~Q(stock__gt=3),
        ~(Q(tags=[0]) | Q(cost__gt=2)),
        Q(name__startswith="s") & ~Q(made__lt=datetime(2024, 1, 2)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("order", [None, "price", "-stock"])
def test_any_mix_takes_two_round_trips_at_most(dishes, round_trips, condition, order):
    with round_trips() as trips:
        dishes.filter(condition).order_by(order).all()
    assert trips.count <= 2
    with round_trips() as trips:
        dishes.filter(condition).count()
    assert trips.count == 1


# -- expressions ------------------------------------------------------------------------------------------------------


def test_an_expression_shows_its_parts():
    made = QDish.price > 4
    assert (repr(made), made.to_kwargs(), repr(made.to_q())) == (
        "Expression(price__gt=4)", {"price__gt": 4}, "Q(price__gt=4)",
    )  # fmt: skip
    assert (QDish.name == "x").to_kwargs() == {"name": "x"}
    assert QDish.price.between(1, 2).to_kwargs() == {"price__between": (1, 2)}
    assert repr((QDish.name != "x").to_q()) == "~Q(name='x')"
    with pytest.raises(QueryException, match="not equal"):
        (QDish.name != "x").to_kwargs()
    with pytest.raises(QueryException, match="operator 'like'"):
        Expression("name", "like", "x")
    both = (QDish.price > 4) & (QDish.stock < 2) | (QDish.name == "x")
    assert isinstance(both, CombinedExpression) and both.connector == "OR"
    assert [e.field_name for e in both.get_all_expressions()] == ["price", "stock", "name"]
    assert repr(both.to_q()) == "((Q(price__gt=4) AND Q(stock__lt=2)) OR Q(name='x'))"
    assert isinstance((QDish.price > 4) | Q(name="x"), Q) and isinstance(Q(name="x") & (QDish.price > 4), Q)


def test_fields_compare_and_hash_by_identity():
    assert (QDish.price == QDish.price) is True and (QDish.price == QDish.stock) is False
    assert (QDish.price != QDish.stock) is True
    assert len({QDish.price, QDish.stock, QDish.price}) == 2
    assert QDish.price in [QDish.stock, QDish.price] and [QDish.stock, QDish.price].index(QDish.price) == 1
    assert copy.copy(QDish.stock) != QDish.stock
    with pytest.raises(TypeError, match="compared with a value"):
        assert QDish.price > QDish.stock


def test_records_with_expressive_fields_still_pickle(dishes):
    assert pickle.loads(pickle.dumps(dishes.get(name="taco"))) == dishes.get(name="taco")


# -- plain fields -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"stock__gt": 2}, ["soup", "taco"]),
        ({"stock__lt": 2.5}, ["sushi"]),
        ({"stock__lt": Decimal("2.5")}, ["sushi"]),
        ({"stock__lte": 10**30}, ["soup", "sushi", "taco"]),
        ({"stock__between": (2, 5)}, ["soup", "sushi"]),
        ({"stock__in": [2, 30, None]}, ["ramen", "sushi", "taco"]),
        ({"stock__isnull": True}, ["ramen"]),
        ({"cost__gte": Decimal("4.1")}, ["ramen", "sushi"]),
        ({"cost__in": [Decimal("1.10"), None]}, ["soup", "taco"]),
        ({"made__lt": datetime(2024, 1, 3)}, ["ramen", "sushi"]),
        ({"made__gte": datetime(2024, 1, 3, tzinfo=timezone.utc)}, ["soup", "taco"]),
        ({"made": datetime(2024, 1, 2, tzinfo=timezone.utc)}, ["ramen"]),
        ({"made": datetime(2024, 1, 2)}, []),
        ({"best__between": (date(2024, 1, 2), date(2024, 1, 3))}, ["ramen", "taco"]),
        ({"best__lt": "2024-01-02"}, ["sushi"]),
        ({"note__in": ["x"]}, []),
        ({"note__isnull": True}, ["ramen", "soup", "sushi", "taco"]),
        ({"tags__in": [[0], [3]]}, ["soup", "sushi"]),
    ],
    ids=str,
)
def test_lookups_of_a_plain_field_compare_its_values(dishes, filters, found):
    assert names(dishes.filter(**filters)) == found
    assert dishes.count(**filters) == len(found)
    assert names(dishes.filter(**filters).limit(1)) == found[:1]


@pytest.mark.parametrize(
    "filters",
    [{"stock__gt": None}, {"stock__gt": "x"}, {"stock__between": 5}, {"cost__lt": Decimal("NaN")}, {"made__lt": 5}],
    ids=str,
)
def test_a_bound_that_does_not_fit_names_its_field(server, filters):
    (parameter,) = filters
    with pytest.raises(QueryException, match=parameter.split("__")[0]):
        QDish.query.filter(**filters).all()


def test_a_plain_range_reads_on_the_server_and_sends_what_matches(dishes, round_trips):
    with round_trips() as trips:
        assert names(dishes.filter(stock__gt=2, best__lt=date(2024, 1, 4))) == ["taco"]
    assert trips.count == 1


def test_a_field_that_encodes_its_own_bytes_is_compared_by_value(server):
    class Shouted(Field):
        def encode(self, value):
            return super().encode(-value)

        def decode(self, raw):
            return -super().decode(raw)

    class QShout(Model):
        name = KeyField()
        volume = Shouted(type=float)

    for n in range(3):
        QShout.create(name=str(n), volume=float(n))
    assert names(QShout.query.filter(volume__gt=0.5)) == ["1", "2"]
    assert names(QShout.query.filter(~Q(volume=1.0))) == ["0", "2"]


def test_a_record_without_the_field_has_its_default_in_every_lookup(dishes, server):
    class QLater(Model):
        name = KeyField()
        score = IntField(default=5)
        cost = DecimalField(default=Decimal("1.5"))
        note = Field(default="n")

    for name in "ab":
        QLater.create(name=name, score=1, cost=Decimal(0), note="x")
    server.hdel("QLater:b", "score", "cost", "note")
    for found in ({"score": 5}, {"score__gt": 2}, {"score__in": [5, 6]}, {"cost__gte": Decimal("1.5")}, {"note": "n"}):
        assert names(QLater.query.filter(**found)) == ["b"]
        assert names(QLater.query.exclude(**found)) == ["a"]
        assert names(QLater.query.filter(~Q(**found) | Q(name="b"))) == ["a", "b"]
    assert names(QLater.query.filter(note__isnull=True)) == []
