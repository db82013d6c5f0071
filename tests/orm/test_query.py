"""Queries: what each lookup finds, what it refuses and how, when it runs, what it costs."""

from __future__ import annotations

import asyncio
import threading
from datetime import date, datetime
from decimal import Decimal

import pytest

from popoto import redis_db
from popoto.exceptions import ModelException, QueryException
from popoto.orm import selection
from popoto.orm.fields.base import Field
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import BooleanField, DictField, IntField, ListField
from popoto.orm.model import Model


class QueryCity(Model):
    name = KeyField()
    country = IndexedField()
    code = UniqueField()
    people = SortedField(type=int)
    density = SortedField(partition_by="country", default=0.0)
    founded = SortedField(type=date, default=date(1000, 1, 1))
    mayor = Field()
    height = IntField()
    coastal = BooleanField(default=False)
    sights = ListField()
    facts = DictField()


CITIES = [
    # name, country, code, people, density, mayor, height, coastal
    ("Oslo", "no", "OSL", 700, 1.5, "Anne", 23, True),
    ("Bergen", "no", "BGO", 290, 0.6, "Marit", None, True),
    ("Ulm", "de", "ULM", 126, 1.1, None, 478, False),
    ("Bonn", "de", "BNJ", 330, 2.3, "Katja", 60, False),
    ("Köln", "de", "CGN", 1080, 2.7, "Henriette", 37, False),
    ("Atlantis", None, "ATL", 0, 0.0, None, -900, True),
]


@pytest.fixture
def cities(server):
    pipeline = server.pipeline()
    for name, country, code, people, density, mayor, height, coastal in CITIES:
        QueryCity(
            name=name,
            country=country,
            code=code,
            people=people,
            density=density,
            mayor=mayor,
            height=height,
            coastal=coastal,
            sights=[name],
            facts={"n": len(name)},
        ).save(pipeline=pipeline)
    pipeline.execute()
    return QueryCity.query


def names(results):
    return [city.name for city in results]


BY_KEY = sorted((row[0] for row in CITIES), key=str.encode)


# -- lookups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, BY_KEY),
        ({"name": "Ulm"}, ["Ulm"]),
        ({"name": "ulm"}, []),
        ({"name__in": ["Ulm", "Oslo", "Ulm", "Nowhere"]}, ["Oslo", "Ulm"]),
        ({"name__in": []}, []),
        ({"name__in": ("Ulm",)}, ["Ulm"]),
        ({"name__in": {"Ulm"}}, ["Ulm"]),
        ({"name__in": (n for n in ["Ulm"])}, ["Ulm"]),
        ({"name__startswith": "B"}, ["Bergen", "Bonn"]),
        ({"name__startswith": ""}, BY_KEY),
        ({"name__startswith": "Kö"}, ["Köln"]),
        ({"name__endswith": "n"}, ["Bergen", "Bonn", "Köln"]),
        ({"name__endswith": ""}, BY_KEY),
        ({"name__contains": "l"}, ["Atlantis", "Köln", "Oslo", "Ulm"]),
        ({"name__contains": "ö"}, ["Köln"]),
        ({"name__isnull": True}, []),
        ({"name__isnull": False}, BY_KEY),
        ({"country": "de"}, ["Bonn", "Köln", "Ulm"]),
        ({"country": None}, ["Atlantis"]),
        ({"country__isnull": True}, ["Atlantis"]),
        ({"country__isnull": False}, ["Bergen", "Bonn", "Köln", "Oslo", "Ulm"]),
        ({"country__in": ["no", None]}, ["Atlantis", "Bergen", "Oslo"]),
        ({"country__startswith": "d"}, ["Bonn", "Köln", "Ulm"]),
        ({"country__endswith": "o"}, ["Bergen", "Oslo"]),
        ({"country__startswith": ""}, ["Bergen", "Bonn", "Köln", "Oslo", "Ulm"]),
        ({"code": "ULM"}, ["Ulm"]),
        ({"code__in": ["ULM", "OSL"]}, ["Oslo", "Ulm"]),
        ({"code__startswith": "B"}, ["Bergen", "Bonn"]),
        ({"code__isnull": False}, BY_KEY),
        ({"people": 330}, ["Bonn"]),
        ({"people": "330"}, ["Bonn"]),
        ({"people": 330.0}, ["Bonn"]),
        ({"people__gt": 330}, ["Oslo", "Köln"]),
        ({"people__gte": 330}, ["Bonn", "Oslo", "Köln"]),
        ({"people__lt": 290.5}, ["Atlantis", "Ulm", "Bergen"]),
        ({"people__lte": 290}, ["Atlantis", "Ulm", "Bergen"]),
        ({"people__gt": 100, "people__lt": 300}, ["Ulm", "Bergen"]),
        ({"people__gt": 100, "people__gte": 290, "people__lte": 700}, ["Bergen", "Bonn", "Oslo"]),
        ({"people__between": (126, 330)}, ["Ulm", "Bergen", "Bonn"]),
        ({"people__between": [330, 126]}, []),
        ({"country": "de", "density__gt": 2}, ["Bonn", "Köln"]),
        ({"country": None, "density__gte": 0}, ["Atlantis"]),
        ({"country": "de", "density": 1.1}, ["Ulm"]),
        ({"founded": "1000-01-01"}, BY_KEY),
        ({"mayor": "Anne"}, ["Oslo"]),
        ({"mayor": None}, ["Atlantis", "Ulm"]),
        ({"height": 60}, ["Bonn"]),
        ({"height": None}, ["Bergen"]),
        ({"coastal": True}, ["Atlantis", "Bergen", "Oslo"]),
        ({"coastal": 0}, ["Bonn", "Köln", "Ulm"]),
        ({"sights": ["Ulm"]}, ["Ulm"]),
        ({"facts": {"n": 4}}, ["Bonn", "Köln", "Oslo"]),
        ({"country": "de", "name__endswith": "n"}, ["Bonn", "Köln"]),
        ({"country": "de", "mayor": None, "height": 478}, ["Ulm"]),
        ({"country": "de", "sights": ["Bonn"], "people__gt": 5}, ["Bonn"]),
        ({"name": "Ulm", "country": "no"}, []),
        ({"name": "Ulm", "mayor": None}, ["Ulm"]),
        ({"name": "Nowhere"}, []),
    ],
    ids=lambda value: str(value).split(" at 0x")[0],
)
def test_a_filter_finds_exactly_what_it_says_in_a_defined_order(cities, filters, found):
    result = cities.filter(**filters)
    assert names(result) == found
    if not any(hasattr(value, "send") for value in filters.values()):
        assert cities.count(**filters) == cities.filter(**filters).count() == len(found)
        assert cities.exists(**filters) is bool(found)
        assert cities.filter(**filters).keys() == [f"QueryCity:{name}".encode() for name in found]
        assert names(cities.filter(**filters).limit(2)) == found[:2]
        assert names(cities.filter(**filters)[1:]) == found[1:]


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"nmae": "x"}, ["Invalid filter parameters", "QueryCity", "'nmae'", "name, country"]),
        ({"nmae__in": "x"}, ["'nmae'", "name, country"]),
        ({"contry": "x"}, ["'contry'", "Did you mean 'country'?", "name, country"]),
        ({"mayor__gt": "x"}, ["mayor__gt", "It offers: mayor, mayor__in, mayor__isnull"]),
        ({"people__gtt": 1}, ["people__gtt", "Did you mean 'people__gt"]),
        ({"people__in": [1]}, ["people__in", "SortedField", "people__gte"]),
        ({"people__startswith": "1"}, ["people__startswith", "people__between"]),
        ({"country__contains": "x"}, ["country__contains", "IndexedField", "country__startswith"]),
        ({"name__exact": "x"}, ["name__exact", "name__contains"]),
        ({"name__": "x"}, ["name__"]),
        ({"country__country": "x"}, ["country__country"]),
    ],
    ids=str,
)
def test_an_unknown_parameter_is_refused_at_once_with_those_that_exist(server, filters, words):
    for ask in (QueryCity.query.filter, QueryCity.query.count, QueryCity.query.get, QueryCity.query.filter().filter):
        with pytest.raises(QueryException) as refused:
            ask(**filters)
        for word in words:
            assert word in str(refused.value)


@pytest.mark.parametrize(
    "filters",
    [
        {"name__in": "Ulm"},
        {"name__in": 5},
        {"name__in": {"Ulm": 1}},
        {"name__in": [b"x"]},
        {"name": b"Ulm"},
        {"name__startswith": 5},
        {"name__startswith": None},
        {"name__contains": b"x"},
        {"country__isnull": 1},
        {"country__isnull": "yes"},
        {"country__isnull": None},
        {"people": "many"},
        {"people": None},
        {"people__gt": None},
        {"people__gt": float("nan")},
        {"people__between": 5},
        {"founded": datetime(2020, 1, 1)},
        {"founded__gt": 5},
        {"density__gt": 1},
        {"density": 1},
        {"height": "high"},
        {"height": 1.5},
        {"coastal": "yes"},
        {"sights": "Ulm"},
        {"mayor": b"x"},
        {"mayor": "\ud800"},
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_a_query_exception_that_names_the_field(server, filters):
    (parameter,) = filters
    for run in (lambda q: q.all(), lambda q: q.count(), lambda q: q.exists(), lambda q: q.keys()):
        with pytest.raises(QueryException, match=parameter.split("__")[0]):
            run(QueryCity.query.filter(**filters))


def test_positional_arguments_are_refused(server):
    with pytest.raises(TypeError, match="keywords"):
        QueryCity.query.filter("Ulm")


def test_a_later_filter_of_one_parameter_replaces_the_earlier(cities):
    assert names(cities.filter(country="no").filter(country="de", mayor="Katja")) == ["Bonn"]
    assert names(cities.filter(country="de").filter(people__gt=200)) == ["Bonn", "Köln"]


# -- the builder ------------------------------------------------------------------------------------------------------


def test_a_builder_runs_when_it_is_first_looked_at_and_once(cities, round_trips):
    with round_trips() as trips:
        builder = cities.filter(country="de").order_by("people").limit(5).values("name").values()
        repr(builder)
    assert trips.count == 0
    with round_trips() as trips:
        for _ in range(3):
            assert len(builder) == 3
            assert builder[0].name == "Ulm" and builder[-1].name == "Köln"
            assert names(builder[0:2]) == ["Ulm", "Bonn"]
            assert builder and builder[0] in builder and next(reversed(builder)).name == "Köln"
            assert names(builder.all()) == names(builder) == ["Ulm", "Bonn", "Köln"]
            assert builder == list(builder) and builder.index(builder[1]) == 1
            assert builder.first().name == "Ulm" and builder.last().name == "Köln"
    assert trips.count == 1


def test_a_chaining_call_leaves_the_builder_as_it_was(cities):
    base = cities.filter(country="de")
    chained = [
        base.filter(mayor="Katja"),
        base.limit(1),
        base.order_by("-people"),
        base.values("name"),
        base.filter(limit=1, order_by="-name", values=("name",)),
    ]
    for other in chained:
        assert other is not base
        other.all(), other.first(), other.count()
    assert names(base) == ["Bonn", "Köln", "Ulm"]
    assert [len(other) for other in chained] == [1, 1, 3, 3, 1]
    evaluated = base.limit(2)
    assert len(evaluated) == 2
    assert names(evaluated.limit(None)) == ["Bonn", "Köln", "Ulm"]
    assert base.first().name == "Bonn" and len(base) == 3, "first() limits nothing but itself"


def test_all_gives_a_list_of_its_own(cities):
    builder = cities.filter(country="de")
    builder.all().clear()
    assert len(builder) == 3


def test_a_builder_behaves_as_a_list(cities):
    builder = cities.filter(country="de").order_by("name")
    everything = builder.all()
    assert builder == everything and builder == cities.filter(name__in=["Ulm", "Bonn", "Köln"])
    assert builder != everything[:1] and builder != "text" and builder != 5
    assert sorted(builder, key=lambda c: c.people)[0].name == "Ulm"
    assert names(builder + [1][:0]) == names(builder)
    first, *_ = builder
    assert first == everything[0]
    assert not cities.filter(country="xx")
    assert cities.filter(country="xx") == []
    with pytest.raises(TypeError):
        hash(builder)


@pytest.mark.parametrize(
    "cut",
    [
        slice(0, 2),
        slice(1, 3),
        slice(None, 2),
        slice(2, None),
        slice(None, None),
        slice(4, 2),
        slice(10, 20),
        slice(-2, None),
        slice(None, -1),
        slice(None, None, 2),
        slice(None, None, -1),
        slice(1, 100),
        slice(2, 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("limit", [None, 4, 0])
@pytest.mark.parametrize("order", [None, "-people", "mayor"])
def test_slices_are_those_of_the_list(cities, cut, limit, order):
    everything = cities.filter().order_by(order).limit(limit).all()
    assert cities.filter().order_by(order).limit(limit)[cut] == everything[cut]


@pytest.mark.parametrize("order", [None, "-people", "mayor"])
def test_an_index_is_that_of_the_list(cities, order):
    builder = cities.filter().order_by(order).limit(4)
    everything = cities.filter().order_by(order).all()[:4]
    for at in range(-4, 4):
        assert cities.filter().order_by(order).limit(4)[at] == everything[at]
    for at in (4, 5, -5):
        with pytest.raises(IndexError):
            cities.filter().order_by(order).limit(4)[at]
    with pytest.raises(TypeError):
        builder["x"]


def test_a_slice_or_an_index_reads_no_more_than_it_returns(cities, server):
    server.config_resetstat()
    assert cities.filter().order_by("-people")[1].name == "Oslo"
    assert names(cities.filter().order_by("-people")[1:3]) == ["Oslo", "Bonn"]
    assert cities.filter().first().name == "Atlantis"
    assert server.info("commandstats")["cmdstat_hmget"]["calls"] == 4


def test_iterate_and_async_iteration_give_the_same(cities):
    assert names(cities.filter(country="de").iterate()) == ["Bonn", "Köln", "Ulm"]

    async def walk():
        found = [city.name async for city in cities.filter(country="de").order_by("-people")]
        await redis_db.close_async()
        return found

    assert asyncio.run(walk()) == ["Köln", "Bonn", "Ulm"]


# -- order, limit, values ---------------------------------------------------------------------------------------------


def test_order_by_a_field_puts_none_first_and_descending_is_the_exact_reversal(cities):
    assert names(cities.order_by("mayor")) == ["Atlantis", "Ulm", "Oslo", "Köln", "Bonn", "Bergen"]
    for name in QueryCity._meta.fields:
        if name in ("facts",):
            continue
        up, down = names(cities.order_by(name)), names(cities.order_by("-" + name))
        assert down == up[::-1], name
        assert names(cities.order_by(name).limit(3)) == up[:3]
        assert names(cities.order_by("-" + name).limit(3)) == down[:3]
    assert names(cities.order_by("height")) == ["Bergen", "Atlantis", "Oslo", "Köln", "Bonn", "Ulm"]
    assert names(cities.order_by("coastal")) == ["Bonn", "Köln", "Ulm", "Atlantis", "Bergen", "Oslo"], (
        "equal ones by key"
    )


def test_order_by_a_numeric_key_is_numeric_before_it_is_cut(server):
    class QueryNumber(Model):
        number = KeyField(type=int)

    for number in (2, 9, 10, 100):
        QueryNumber.create(number=number)
    assert [r.number for r in QueryNumber.query.order_by("number").limit(2)] == [2, 9]
    assert [r.number for r in QueryNumber.query.order_by("-number").limit(2)] == [100, 10]


def test_order_by_what_cannot_be_compared_is_a_query_exception(cities):
    with pytest.raises(QueryException, match=r"order_by\('facts'\).*compared"):
        cities.order_by("facts").all()


@pytest.mark.parametrize("wrong", ["nobody", "-nobody", "--name", "", "name,country", 5, ["name"]], ids=repr)
def test_order_by_names_a_field(server, wrong):
    for ask in (
        QueryCity.query.order_by,
        lambda w: QueryCity.query.filter(order_by=w),
        lambda w: QueryCity.query.all(order_by=w),
    ):
        with pytest.raises(QueryException, match=r"no such field.*name, country"):
            ask(wrong)


def test_a_limit_counts_results_and_zero_means_none_of_them(cities):
    for order in (None, "people", "mayor"):
        everything = names(cities.order_by(order))
        for limit in (0, 1, 5, 6, 7, 100):
            assert names(cities.order_by(order).limit(limit)) == everything[:limit]
            assert names(cities.filter(order_by=order, limit=limit)) == everything[:limit]
        assert names(cities.order_by(order).limit(None)) == everything
    assert cities.filter(country="de").limit(1).count() == 3, "count() does not look at the limit"


@pytest.mark.parametrize(
    ("wrong", "error"), [(-1, QueryException), ("5", TypeError), (1.0, TypeError), (True, TypeError)]
)
def test_a_limit_is_a_whole_number_from_zero(server, wrong, error):
    with pytest.raises(error, match="limit"):
        QueryCity.query.limit(wrong)
    with pytest.raises(error, match="limit"):
        QueryCity.query.filter(limit=wrong)


def test_meta_order_by_orders_what_nobody_ordered(server):
    class QueryRanked(Model):
        name = KeyField()
        rank = IntField()
        score = SortedField(default=0.0)

        class Meta:
            order_by = "-rank"

    for name, rank, score in [("a", 1, 3.0), ("b", None, 2.0), ("c", 5, 1.0)]:
        QueryRanked.create(name=name, rank=rank, score=score)
    query = QueryRanked.query
    assert [r.name for r in query.all()] == [r.name for r in query.filter()] == ["c", "a", "b"]
    assert [r.name for r in query.filter(score__gt=0)] == ["c", "a", "b"]
    assert [r.name for r in query.order_by("name")] == ["a", "b", "c"]
    assert query.all(values=("name",)) == [{"name": "c"}, {"name": "a"}, {"name": "b"}]
    assert query.first().name == "c" and query.limit(1)[0].name == "c"
    assert query.get(rank=5).name == "c" and query.count() == 3


def test_the_first_sorted_field_of_a_filter_gives_the_order(cities):
    assert names(cities.filter(people__gt=0, founded__gt=date(1, 1, 1))) == ["Ulm", "Bergen", "Bonn", "Oslo", "Köln"]
    assert names(cities.filter(founded__gt=date(1, 1, 1), people__gt=0)) == ["Bergen", "Bonn", "Köln", "Oslo", "Ulm"]


def test_values_give_dicts_of_the_named_fields(cities):
    assert cities.filter(country="no").values("name", "people").all() == [
        {"name": "Bergen", "people": 290},
        {"name": "Oslo", "people": 700},
    ]
    assert cities.filter(country="no", values=("mayor",)) == [{"mayor": "Marit"}, {"mayor": "Anne"}]
    assert cities.all(values=("name",), order_by="people", limit=2) == [{"name": "Atlantis"}, {"name": "Ulm"}]
    assert cities.filter(mayor="Anne").values("people").all() == [{"people": 700}], "a filter need not be projected"
    assert cities.order_by("mayor").values("name").limit(1).all() == [{"name": "Atlantis"}], "nor the order"
    assert cities.values("sights", "facts").first() == {"sights": ["Atlantis"], "facts": {"n": 8}}
    assert cities.filter(sights=["Ulm"]).values("code")[0] == {"code": "ULM"}
    assert isinstance(cities.values("name").values().first(), QueryCity)


@pytest.mark.parametrize("wrong", [["name"], "name", 5], ids=repr)
def test_values_as_a_keyword_is_a_tuple(server, wrong):
    with pytest.raises(QueryException, match="tuple of field names"):
        QueryCity.query.filter(values=wrong)


def test_values_name_fields_that_exist(server):
    for ask in (lambda: QueryCity.query.values("nobody"), lambda: QueryCity.query.all(values=("name", "nobody"))):
        with pytest.raises(QueryException, match=r"values\('nobody'\).*no such field"):
            ask()


# -- one record -------------------------------------------------------------------------------------------------------


def test_get_finds_one_by_key_or_filter(cities):
    ulm = cities.get(name="Ulm")
    assert ulm.code == "ULM"
    same = [
        cities.get("QueryCity:Ulm"),
        cities.get(db_key="QueryCity:Ulm"),
        cities.get(redis_key="QueryCity:Ulm"),
        cities.get(redis_key=b"QueryCity:Ulm"),
        cities.get(ulm.db_key),
        cities.get(code="ULM"),
        cities.get(country="de", people__lt=200),
        cities.get(name="Ulm", country="de"),
        cities.get(name="Ulm", mayor=None),
        cities.get("QueryCity:Ulm", country="de"),
        cities.get(sights=["Ulm"]),
        QueryCity.load("QueryCity:Ulm"),
        QueryCity.load(name="Ulm"),
        QueryCity.load(db_key=ulm.db_key),
    ]
    assert all(found == ulm and found.to_dict() == ulm.to_dict() for found in same)
    assert QueryCity.load() is None


def test_get_finds_none_where_nothing_matches(cities):
    assert cities.get(name="Nowhere") is None
    assert cities.get(name="Ulm", country="no") is None
    assert cities.get("QueryCity:Ulm", country="no") is None
    assert cities.get("QueryCity:Nowhere") is None
    assert cities.get(country="xx") is None


def test_get_of_several_is_a_query_exception_that_names_two(cities):
    with pytest.raises(QueryException, match=r"country='de'.*more than one.*QueryCity:Bonn.*QueryCity:Köln"):
        cities.get(country="de")
    with pytest.raises(QueryException, match="more than one"):
        cities.get()
    with pytest.raises(QueryException, match="more than one"):
        cities.get(mayor=None)


def test_get_without_arguments_is_the_only_record(server):
    assert QueryCity.query.get() is None
    only = QueryCity.create(name="x", code="x", people=1)
    assert QueryCity.query.get() == only


class QueryOther(Model):
    name = KeyField()


def test_a_key_of_another_model_is_no_record_of_this_one(cities, server):
    other = QueryOther.create(name="Ulm")
    assert cities.get(other.pk) is None
    assert cities.get(redis_key=other.pk) is None
    assert cities.get_many([other.pk, "QueryCity:Ulm"], skip_none=True) == [cities.get(name="Ulm")]
    assert cities.get("QueryCity:Ulm::$occ") is None
    assert cities.get("$Class:QueryCity") is None
    with pytest.raises(QueryException, match="key"):
        cities.get(5)


def test_get_many_keeps_order_repeats_and_gaps(cities):
    ulm, oslo = cities.get(name="Ulm"), cities.get(name="Oslo")
    wanted = [ulm.pk, "QueryCity:Nowhere", oslo.pk.encode(), ulm.db_key]
    assert cities.get_many(wanted) == [ulm, None, oslo, ulm]
    assert cities.get_many(redis_keys=wanted, skip_none=True) == [ulm, oslo, ulm]
    assert cities.get_many(iter([ulm.pk])) == [ulm]
    assert cities.get_many([]) == cities.get_many(None) == []
    with pytest.raises(QueryException, match="list of keys"):
        cities.get_many(ulm.pk)


def test_a_corrupt_record_is_skipped_by_a_query_and_raises_at_get(cities, server, caplog):
    server.hset("QueryCity:Ulm", "height", b"\xc1")
    assert names(cities.filter(country="de")) == ["Bonn", "Köln"]
    assert "QueryCity:Ulm" in caplog.text
    with pytest.raises(ModelException, match="QueryCity:Ulm"):
        cities.get(name="Ulm")
    caplog.clear()
    assert names(cities.get_many(["QueryCity:Ulm", "QueryCity:Bonn"], skip_none=True)) == ["Bonn"]
    assert "QueryCity:Ulm" in caplog.text


def test_a_foreign_key_in_place_of_a_record_is_an_error_at_get_and_a_gap_in_get_many(cities, server, caplog):
    server.delete("QueryCity:Ulm")
    server.rpush("QueryCity:Ulm", "no hash")
    with pytest.raises(ModelException, match="QueryCity:Ulm holds no record"):
        cities.get(name="Ulm")
    bonn = cities.get(name="Bonn")
    assert cities.get_many(["QueryCity:Ulm", "QueryCity:Bonn"]) == [None, bonn]
    assert "QueryCity:Ulm" in caplog.text


def test_a_record_whose_key_holds_another_type_is_skipped(cities, server):
    server.delete("QueryCity:Ulm")
    server.set("QueryCity:Ulm", "no hash")
    assert names(cities.filter(country="de")) == ["Bonn", "Köln"]
    assert names(cities.order_by("mayor").filter(country="de")) == ["Köln", "Bonn"]
    assert cities.filter(country="de").values("name").all() == [{"name": "Bonn"}, {"name": "Köln"}]
    assert names(cities.filter(mayor="Katja")) == ["Bonn"]
    assert names(cities.filter(name__contains="l")) == ["Atlantis", "Köln", "Oslo"]


# -- cost -------------------------------------------------------------------------------------------------------------


def test_no_query_ever_walks_the_key_space(cities, server):
    server.config_resetstat()
    for filters in (
        {},
        {"name": "Ulm"},
        {"name__startswith": "U"},
        {"name__endswith": "m"},
        {"name__contains": "l"},
        {"name__in": ["Ulm", "Oslo"]},
        {"country__startswith": "d"},
        {"country__isnull": False},
        {"people__gt": 5},
        {"country": "de", "density__gt": 1},
        {"mayor": None},
        {"sights": ["Ulm"]},
    ):
        query = cities.filter(**filters)
        query.all(), query.count(), query.keys(), query.exists(), query.first(), query.last()
        query.order_by("mayor").limit(2).all(), query.order_by("-people").values("name").all()
    cities.get(code="ULM"), cities.get_many(["QueryCity:Ulm"]), cities.keys()
    ulm = cities.get(name="Ulm")
    ulm.country = "at"
    ulm.save(), ulm.delete()
    used = {name.removeprefix("cmdstat_").partition("|")[0] for name in server.info("commandstats")}
    assert not used & {"keys", "scan", "sscan", "hscan", "zscan", "randomkey"}
    assert used & {"evalsha", "eval"}


def test_a_query_writes_nothing(cities, server):
    server.config_resetstat()
    cities.filter(country="de", name__contains="n").order_by("mayor").all()
    cities.filter(people__gt=5).limit(2).all()
    used = {name.removeprefix("cmdstat_").partition("|")[0] for name in server.info("commandstats")}
    assert not used & {
        "set",
        "zadd",
        "sadd",
        "del",
        "expire",
        "zunionstore",
        "zinterstore",
        "sinterstore",
        "sunionstore",
    }


def test_count_of_everything_is_the_size_of_the_class_set(cities, server):
    server.config_resetstat()
    assert cities.count() == 6
    used = server.info("commandstats")
    assert "cmdstat_scard" in used and "cmdstat_hmget" not in used and "cmdstat_zrange" not in used


class QueryLarge(Model):
    number = KeyField(type=int)
    half = IndexedField(type=bool)
    third = SortedField(type=int)
    note = Field()


@pytest.fixture(scope="module")
def many(shared_server):
    """5,000 records, made once; the tests that use them only read."""
    redis_db.configure_url(shared_server.url)
    client = redis_db.get_REDIS_DB()
    client.flushall()
    for start in range(0, 5000, 1000):
        pipeline = client.pipeline(transaction=False)
        for number in range(start, start + 1000):
            QueryLarge(number=number, half=number % 2 == 0, third=number // 3, note=str(number % 7)).save(
                pipeline=pipeline
            )
        pipeline.execute()
    return QueryLarge.query


NUMBERS = range(5000)


class TestLargeResults:
    def test_come_whole_and_in_order(self, many):
        assert [r.number for r in many.all()] == sorted(NUMBERS, key=lambda n: f"QueryLarge:{n}")
        assert {r.number for r in many.filter(half=True)} == set(NUMBERS[::2])
        assert len(many.filter(half=True)) == 2500
        by_third = sorted(NUMBERS, key=lambda n: (n // 3, f"QueryLarge:{n}"))
        assert [r.number for r in many.order_by("third")] == by_third
        assert [r.number for r in many.order_by("-third")] == by_third[::-1]
        assert [r.number for r in many.filter(third__gte=100, half=True)] == [
            n for n in by_third if n >= 300 and n % 2 == 0
        ]
        assert [r.number for r in many.order_by("-number").limit(3)] == [4999, 4998, 4997]

    def test_come_in_slices(self, many, round_trips):
        with round_trips() as trips:
            assert len(many.all()) == 5000
        assert 3 <= trips.count <= 5
        with round_trips() as trips:
            first = next(iter(many.filter().iterate()))
        assert trips.count == 1 and first.number == 0

    def test_are_counted_without_being_read(self, many, round_trips):
        redis_db.get_REDIS_DB().config_resetstat()
        assert many.count(half=True) == 2500
        assert many.count(third__gte=1000) == 2000
        assert many.count(note="3") == len([n for n in NUMBERS if n % 7 == 3])
        assert many.count(half=False, third__lt=100) == 150
        assert "cmdstat_hmget" not in redis_db.get_REDIS_DB().info("commandstats")

    def test_are_cut_on_the_server(self, many, round_trips):
        redis_db.get_REDIS_DB().config_resetstat()
        with round_trips() as trips:
            assert len(many.filter(half=True).order_by("-third").limit(10).all()) == 10
            assert many.order_by("third").first().number == 0
            assert many.filter(half=False)[2400].half is False
            assert many.filter(note="3").limit(5).count() == 714
        assert trips.count == 4
        assert redis_db.get_REDIS_DB().info("commandstats")["cmdstat_hmget"]["calls"] == 12

    def test_agree_however_they_are_sliced(self, many, monkeypatch):
        wanted = {
            "key": [r.number for r in many.filter(half=True)],
            "rank": [r.number for r in many.filter(half=True).order_by("-third")],
            "text": [r.number for r in many.filter(note="3", third__gt=7)],
        }
        for gather, cut, rows in [(10, 700, 300), (3, 5000, 1), (100_000, 9, 9)]:
            if rows == 1 or cut == 9:
                cut, rows = max(cut, 400), max(rows, 130)
            monkeypatch.setattr(selection, "GATHER", gather)
            monkeypatch.setattr(selection, "SLICE", cut)
            monkeypatch.setattr(selection, "ROWS", rows)
            assert [r.number for r in many.filter(half=True)] == wanted["key"]
            assert [r.number for r in many.filter(half=True).order_by("-third")] == wanted["rank"]
            assert [r.number for r in many.filter(note="3", third__gt=7)] == wanted["text"]
            assert [r.number for r in many.filter(half=True).order_by("-third")[100:1500]] == wanted["rank"][100:1500]
            assert many.filter(note="3", third__gt=7).count() == len(wanted["text"])

    def test_in_many_values(self, many):
        wanted = list(NUMBERS[:4500])
        assert len(many.filter(number__in=wanted)) == 4500
        assert many.count(number__in=wanted) == 4500
        assert len(many.get_many([f"QueryLarge:{n}" for n in wanted])) == 4500

    def test_of_get_many_keys(self, many, round_trips):
        with round_trips() as trips:
            found = many.get_many([f"QueryLarge:{n}" for n in range(3000)])
        assert trips.count == 1 and [r.number for r in found] == list(range(3000))


@pytest.mark.parametrize("order", [None, "third", "-third", "number"])
@pytest.mark.parametrize("what", ["all", "keys", "count", "values"])
def test_one_call_visits_no_more_members_than_a_slice(server, monkeypatch, round_trips, order, what):
    for name, value in {"GATHER": 3, "SLICE": 5, "ROWS": 4}.items():
        monkeypatch.setattr(selection, name, value)
    for number in range(30):
        QueryLarge(number=number, half=True, third=number, note="x").save()
    builder = QueryLarge.query.filter(note="x").order_by(order)
    ask = {"all": builder.all, "keys": builder.keys, "count": builder.count, "values": builder.values("number").all}[
        what
    ]
    with round_trips() as trips:
        found = ask()
    assert trips.count >= 6
    assert found == 30 or len(found) == 30


@pytest.mark.parametrize("order", [None, "third", "-third", "number", "-number"])
@pytest.mark.parametrize("scores", ["different", "equal", "some equal"])
@pytest.mark.parametrize("goes", ["those just seen", "every other", "one to come", "moves away"])
def test_records_that_come_and_go_between_slices_disturb_no_other(server, monkeypatch, order, scores, goes):
    monkeypatch.setattr(selection, "ROWS", 5)
    monkeypatch.setattr(selection, "SLICE", 64)
    third = {"different": lambda n: n, "equal": lambda n: 7, "some equal": lambda n: n // 50}[scores]
    pipeline = server.pipeline()
    for number in range(200):
        QueryLarge(number=number, half=True, third=third(number)).save(pipeline=pipeline)
    pipeline.execute()
    seen = []
    gone = set()
    for record in QueryLarge.query.order_by(order).iterate():
        seen.append(record.number)
        if goes == "those just seen" or (goes == "every other" and len(seen) % 2 == 0):
            record.delete()
        elif goes == "one to come" and len(seen) == 40:
            gone.add(next(n for n in range(199, -1, -1) if n not in seen[:70]))
            QueryLarge.query.get(number=max(gone)).delete()
        elif goes == "moves away" and len(seen) % 64 == 0 and order in ("third", "-third"):
            record.third = -1 if order == "third" else 1000  # behind the walk, where it is not met again
            record.save()
    assert len(seen) == len(set(seen)), "no record twice"
    assert set(range(200)) - set(seen) <= gone, "none lost but the deleted"


# -- async ------------------------------------------------------------------------------------------------------------


def test_the_async_forms_give_the_same(cities):
    async def ask():
        query = cities
        found = [
            await query.async_get(name="Ulm"),
            await query.async_get("QueryCity:Ulm"),
            await query.async_get(code="ULM"),
            await query.async_get_many(["QueryCity:Ulm", "QueryCity:x"]),
            await query.async_filter(country="de", order_by="-people", limit=2),
            await query.async_all(values=("name",)),
            await query.async_count(country="de"),
            await query.async_keys(),
            await query.async_exists(country="xx"),
            await query.async_first(country="de"),
            await query.filter(country="de").order_by("mayor").async_all(),
            await query.filter(country="de").async_count(),
        ]
        with pytest.raises(QueryException, match="more than one"):
            await query.async_get(country="de")
        await redis_db.close_async()
        return found

    ulm = cities.get(name="Ulm")
    assert asyncio.run(ask()) == [
        ulm,
        ulm,
        ulm,
        [ulm, None],
        cities.filter(country="de", order_by="-people", limit=2).all(),
        cities.all(values=("name",)),
        3,
        cities.keys(),
        False,
        cities.first(country="de"),
        cities.filter(country="de").order_by("mayor").all(),
        3,
    ]


def test_queries_in_threads_do_not_meet(cities):
    wrong = []

    def ask(country, mayor):
        for _ in range(40):
            if names(cities.filter(country=country, mayor=mayor, people__gte=0)) != names(by_hand(country, mayor)):
                wrong.append((country, mayor))

    def by_hand(country, mayor):
        return [c for c in everyone if c.country == country and c.mayor == mayor]

    everyone = cities.order_by("people").all()
    threads = [threading.Thread(target=ask, args=pair) for pair in [("de", "Katja"), ("no", "Anne"), ("de", None)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_float_filter_on_a_decimal_field_compares_by_value(server):
    class QueryPrice(Model):
        key = KeyField()
        price = SortedField(type=Decimal)

    half, tenth = QueryPrice.create(key="a", price="0.5"), QueryPrice.create(key="b", price="0.1")
    assert QueryPrice.query.filter(price=0.5) == QueryPrice.query.filter(price=Decimal("0.50")) == [half]
    assert QueryPrice.query.filter(price="0.1") == [tenth]
    assert QueryPrice.query.filter(price__gte=Decimal("0.1")) == [tenth, half]
