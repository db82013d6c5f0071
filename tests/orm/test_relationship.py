"""Relationship: what the attribute takes and gives, when the record behind it is read, and filters along it."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import logging
import pickle
import threading
import warnings
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto import redis_db
from popoto.exceptions import ModelException, QueryException
from popoto.orm.db_key import DB_key
from popoto.orm.fields.base import Field
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import AutoKeyField, KeyField
from popoto.orm.fields.relationship import Relationship
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import DecimalField, DictField, IntField, ListField
from popoto.orm.keys import whole_key
from popoto.orm.model import Model
from popoto.orm.q import Q
from tests.orm.oracle import indexes_agree


class RelCity(Model):
    name = KeyField()
    country = IndexedField()
    people = SortedField(type=int, default=0)
    wealth = SortedField(partition_by="country", default=0.0)
    mayor = Relationship("RelCustomer")  # further down, and it points back


class RelCustomer(Model):
    username = KeyField()
    email = UniqueField()
    age = IntField()
    balance = DecimalField(default=Decimal(0))
    tags = ListField()
    city = Relationship(RelCity)
    friend = Relationship("self")


class RelOrder(Model):
    order_id = AutoKeyField()
    status = IndexedField(default="open")
    total = SortedField(default=0.0)
    customer = Relationship(RelCustomer, null=True)
    courier = Relationship(model="tests.orm.test_relationship.RelCustomer")


class RelStrict(Model):
    name = KeyField()
    customer = Relationship(RelCustomer, null=False)


@pytest.fixture
def shop(server):
    """Three cities, four customers, eight orders and one without a customer."""
    bonn = RelCity.create(name="Bonn", country="de", people=330, wealth=2.0)
    ulm = RelCity.create(name="Ulm", country="de", people=126, wealth=3.0)
    oslo = RelCity.create(name="Oslo", country="no", people=700, wealth=9.0)
    ada = RelCustomer.create(username="ada", email="ada@x", age=36, city=bonn, tags=["a", "b"])
    bob = RelCustomer.create(username="bob", email="bob@x", age=17, city=oslo, friend=ada, balance=Decimal("1.50"))
    cai = RelCustomer.create(username="cai", email="cai@x", city=ulm, friend=bob)
    RelCustomer.create(username="dan", email="dan@x")
    bonn.mayor = cai
    bonn.save()
    for number in range(8):
        customer = (ada, bob, cai, "RelCustomer:dan")[number % 4]
        RelOrder.create(
            order_id=f"o{number}", total=float(number), customer=customer, status=["open", "odd"][number % 2]
        )
    RelOrder.create(order_id="loose", total=99.0)
    return server


def rk(local):
    """Return a record's key as it is on the server in use: on a cluster a hash tag stands before it."""
    return whole_key(redis_db.key_namespace(), local, redis_db.on_cluster())


def trips_of(found):
    """Return how many round trips an answer may take; on a cluster each related model is asked on its own."""
    return found if not redis_db.on_cluster() else 10


def ids(found):
    return [order.order_id for order in found]


# -- definition --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, 3, "", str, Field()], ids=["None", "int", "empty", "str", "field"])
def test_a_relationship_needs_a_model(given):
    with pytest.raises(ModelException, match=r"model= expected a model, its name, its dotted path or 'self'"):
        Relationship(given)


def test_many_is_reserved():
    with pytest.raises(ModelException, match="reserved and not offered"):
        Relationship(RelCity, many=True)
    assert Relationship(RelCity, many=False).null is True


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ModelException, match="leave indexed= and unique= out"):
        Relationship(RelCity, unique=True)
    with pytest.raises(ModelException, match="type= is always str"):
        Relationship(RelCity, type=int)
    with pytest.raises(TypeError):
        Relationship(RelCity, on_delete="cascade")


def test_an_abstract_model_has_no_records_to_point_to():
    class RelAbstract(Model):
        class Meta:
            abstract = True

    with pytest.raises(ModelException, match="RelAbstract is abstract"):

        class RelPointsNowhere(Model):
            name = KeyField()
            other = Relationship(RelAbstract)


def test_a_name_that_no_model_has_is_told_when_it_is_needed():
    class RelLonely(Model):
        name = KeyField()
        other = Relationship("RelNobody")

    assert "other__isnull" in RelLonely.get_info()["query_filters"]
    with pytest.raises(ModelException, match=r"RelLonely\.other: no model 'RelNobody' is defined"):
        RelLonely(name="x", other="RelNobody:y")


def test_a_path_that_cannot_be_imported_is_told():
    class RelFar(Model):
        name = KeyField()
        other = Relationship("no.such.module.Thing")

    with pytest.raises(ModelException, match=r"'no\.such\.module\.Thing' cannot be imported"):
        RelFar(name="x", other="Thing:y")


def test_the_field_gives_its_model_when_asked_on_the_class():
    assert RelCity.mayor.model is RelCustomer
    assert RelCustomer.friend.model is RelCustomer
    assert RelOrder.courier.model is RelCustomer
    assert RelOrder._meta.relationship_field_names == {"customer", "courier"}


def test_a_relationship_is_inherited_and_self_is_the_heir(server):
    class RelNode(Model):
        name = KeyField()
        parent = Relationship("self")
        city = Relationship(RelCity)

        class Meta:
            abstract = True

    class RelLeaf(RelNode):
        pass

    class RelTwig(RelNode):
        pass

    assert RelLeaf.parent.model is RelLeaf and RelTwig.parent.model is RelTwig and RelTwig.city.model is RelCity
    top = RelLeaf.create(name="top", city=RelCity(name="Bonn"))
    RelLeaf.create(name="low", parent=top)
    assert RelLeaf.query.get(name="low").parent == top
    with pytest.raises(ModelException, match="expected a RelTwig"):
        RelTwig(name="x", parent=top)


# -- what it takes and stores ------------------------------------------------------------------------------------------


def test_it_is_stored_as_the_key_and_indexed_by_it_unescaped(server):
    customer = RelCustomer.create(username="a:b-c", email="e")
    order = RelOrder.create(order_id="o1", customer=customer)
    local = "RelCustomer:a{&#58;}b/-c"
    assert customer.pk == local
    assert server.hget(order.pk, "customer") == bytes([0xA0 + len(local)]) + local.encode()
    base = RelOrder._meta.keys.base("$RelationshipF", "customer")
    assert base.endswith("$RelationshipF:RelOrder:customer")
    assert server.smembers(f"{base}:{local}") == {b"RelOrder:o1"}
    assert server.hget(order.pk, "courier") == b"\xc0"
    assert not server.keys("*$RelationshipF:RelOrder:courier*")
    assert order.customer is customer
    indexes_agree(RelOrder)


@pytest.mark.parametrize(
    "given",
    [
        "RelCustomer:ada",
        b"RelCustomer:ada",
        DB_key("RelCustomer", "ada"),
        RelCustomer(username="ada"),
    ],
    ids=["str", "bytes", "DB_key", "instance"],
)
def test_instances_and_keys_of_every_kind_are_taken(shop, given):
    order = RelOrder.create(order_id="new", customer=given)
    assert RelOrder.customer.key_of(order) == rk("RelCustomer:ada")
    loaded = RelOrder.query.get(order_id="new")
    assert loaded.customer.username == "ada"
    loaded.customer = None
    loaded.save()
    loaded.customer = given
    loaded.save(update_fields=["customer"])
    assert ids(RelOrder.query.filter(customer="RelCustomer:ada", order_id="new")) == ["new"]
    indexes_agree(RelOrder)


@pytest.mark.parametrize(
    "given", [3, "ada", "RelCity:Bonn", "RelCustomer:a:b", b"\xff", ["RelCustomer:ada"], RelCity(name="Bonn")], ids=str
)
def test_anything_else_is_refused_at_once(given):
    with pytest.raises(ModelException, match=r"expected a RelCustomer, its key \(RelCustomer:\.\.\.\) or None, got"):
        RelOrder(customer=given)
    order = RelOrder(order_id="x")
    with pytest.raises(ModelException, match="expected a RelCustomer"):
        order.customer = given
    assert order.customer is None


def test_null_false_needs_a_value_at_save(server):
    with pytest.raises(ModelException, match=r"RelStrict\.customer is None"):
        RelStrict(name="x").save()
    RelStrict.create(name="x", customer=RelCustomer(username="unsaved"))
    assert RelStrict.query.get(name="x").customer is None


def test_the_key_of_an_assigned_instance_is_taken_at_save(server):
    customer = RelCustomer(email="e")
    order = RelOrder(order_id="o1", customer=customer)
    with pytest.raises(ModelException, match="the RelCustomer has no key yet"):
        order.save()
    assert not server.keys("*RelOrder*")
    customer.username = "late"
    order.save()
    customer.save()
    assert RelOrder.query.get(order_id="o1").customer == customer
    indexes_agree(RelOrder)


def test_a_default_may_be_a_key_an_instance_or_a_function(server):
    class RelDefaults(Model):
        name = KeyField()
        by_key = Relationship("RelCity", default="RelCity:Bonn")
        by_instance = Relationship(RelCity, default=RelCity(name="Ulm"))
        by_call = Relationship(RelCity, default=lambda: "RelCity:Oslo")

    made = RelDefaults.create(name="x")
    assert made.to_dict() == {
        "name": "x",
        "by_key": rk("RelCity:Bonn"),
        "by_instance": rk("RelCity:Ulm"),
        "by_call": rk("RelCity:Oslo"),
    }
    indexes_agree(RelDefaults)


def test_changing_clearing_and_deleting_moves_the_index_even_from_a_stale_instance(shop):
    one, other = RelOrder.query.get(order_id="o0"), RelOrder.query.filter(order_id="o0")[0]
    one.customer = "RelCustomer:bob"
    one.save()
    other.customer = "RelCustomer:cai"
    other.save(update_fields=["customer"])
    assert ids(RelOrder.query.filter(customer="RelCustomer:cai")) == ["o0", "o2", "o6"]
    assert "o0" not in ids(RelOrder.query.filter(customer="RelCustomer:ada"))
    indexes_agree(RelOrder)
    one.customer = None
    one.save()
    assert ids(RelOrder.query.filter(customer=None)) == ["loose", "o0"]
    indexes_agree(RelOrder)
    other.delete()
    indexes_agree(RelOrder)


def test_a_namespace_stands_before_keys_and_not_in_what_is_stored(server):
    try:
        redis_db.set_REDIS_DB_settings("stage", unix_socket_path=server.connection_pool.connection_kwargs["path"])
        customer = RelCustomer.create(username="ada", email="e")
        order = RelOrder.create(order_id="o1", customer=customer)
        assert customer.pk == "stage:RelCustomer:ada" == RelOrder.customer.key_of(order)
        assert server.hget("stage:RelOrder:o1", "customer").endswith(b"RelCustomer:ada")
        assert b"stage" not in server.hget("stage:RelOrder:o1", "customer")
        loaded = RelOrder.query.get(order_id="o1")
        assert RelOrder.customer.key_of(loaded) == customer.pk and loaded.customer == customer
        for given in (customer, customer.pk, "RelCustomer:ada"):
            assert ids(RelOrder.query.filter(customer=given)) == ["o1"]
        assert ids(RelOrder.query.filter(customer__email="e")) == ["o1"]
        indexes_agree(RelOrder)
    finally:
        redis_db.set_REDIS_DB_settings("", unix_socket_path=server.connection_pool.connection_kwargs["path"])


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "load",
    [
        lambda: RelOrder.query.get(order_id="o0"),
        lambda: RelOrder.load(rk("RelOrder:o0")),
        lambda: RelOrder.query.filter(order_id="o0")[0],
        lambda: RelOrder.query.filter(total=0.0).first(),
        lambda: RelOrder.query.get_many([rk("RelOrder:o0")])[0],
        lambda: RelOrder.query.all(order_by="total", limit=1)[0],
    ],
    ids=["get", "load", "filter", "first", "get_many", "all"],
)
def test_every_way_of_loading_reads_the_related_record_at_the_first_look_and_once(shop, round_trips, load):
    with round_trips() as trips:
        order = load()
        assert trips.count == 1
        assert order.customer.username == "ada"
        assert trips.count == 2
        assert order.customer is order.customer
        assert order.customer.city.name == "Bonn"
        assert trips.count == 3
        assert order.courier is None
        assert trips.count == 3


def test_a_list_is_read_in_one_round_trip_a_relationship_and_level(shop, round_trips):
    with round_trips() as trips:
        orders = RelOrder.query.filter(total__lt=50)
        found = [(o.customer.username, o.customer.city and o.customer.city.name) for o in orders]
        assert trips.count == 3
    assert found == [("ada", "Bonn"), ("bob", "Oslo"), ("cai", "Ulm"), ("dan", None)] * 2
    assert orders[0].customer is orders[4].customer, "one record, one instance"


def test_get_many_and_iterate_know_their_lists_too(shop, round_trips):
    with round_trips() as trips:
        orders = RelOrder.query.get_many([rk(f"RelOrder:o{n}") for n in (3, 1, 3, 77)])
        assert [o and o.customer.username for o in orders] == ["dan", "bob", "dan", None]
        assert trips.count == 2
        assert len({o.customer.username for o in RelOrder.query.filter(total__lt=50).iterate()}) == 4
        assert trips.count == 4


def test_a_list_keeps_none_of_its_instances_alive(shop):
    orders = list(RelOrder.query.filter(total__lt=50))
    first = orders[0]
    cohort = first._cohort
    assert len(cohort.living()) == 8
    del orders
    gc.collect()
    assert cohort.living() == [first]
    assert first.customer.username == "ada"


def test_prefetch_reads_ahead_level_by_level(shop, round_trips):
    query = RelOrder.query.filter(total__lt=50).prefetch("customer__city__mayor", "customer__friend", "courier")
    with round_trips() as trips:
        orders = list(query)
        assert trips.count == 4
        assert [o.customer.city.mayor and o.customer.city.mayor.username for o in orders[:3]] == ["cai", None, None]
        assert orders[1].customer.friend.username == "ada"
        assert orders[0].courier is None
        assert trips.count == 4
    assert RelOrder.query.prefetch("customer").filter(order_id="o1").first().customer.username == "bob"


def test_prefetch_of_what_is_no_relationship_lists_those_that_exist(shop):
    with pytest.raises(
        QueryException, match=r"'customer__email': RelCustomer has no relationship 'email'.*city, friend"
    ):
        RelOrder.query.prefetch("customer__email")
    with pytest.raises(QueryException, match=r"RelOrder has no relationship 'total'"):
        RelOrder.query.filter().prefetch("total")


def test_circular_references_end(shop):
    bonn = RelCity.query.get(name="Bonn")
    assert bonn.mayor.friend.friend.city == bonn
    bonn.mayor.city = bonn
    assert bonn.mayor.city is bonn


def test_a_dangling_reference_is_none_and_its_key_stays(shop, round_trips):
    RelCustomer.query.get(username="ada").delete()
    orders = list(RelOrder.query.filter(total__lt=50))
    with round_trips() as trips:
        assert [o.customer and o.customer.username for o in orders] == [None, "bob", "cai", "dan"] * 2
        assert trips.count == 1, "what is not there is not looked for again"
    order = orders[0]
    assert RelOrder.customer.key_of(order) == rk("RelCustomer:ada")
    order.status = "odd"
    order.save()
    assert "o0" in ids(RelOrder.query.filter(customer="RelCustomer:ada"))
    indexes_agree(RelOrder)
    RelCustomer.create(username="ada", email="new")
    assert order.customer is None
    order.refresh()
    assert order.customer.email == "new"


def test_an_expired_record_dangles_as_well(shop):
    shop.pexpire(rk("RelCustomer:ada"), 1)
    while shop.exists(rk("RelCustomer:ada")):
        pass
    assert RelOrder.query.get(order_id="o0").customer is None


def test_a_corrupt_related_record_is_an_error_for_who_looks_at_it_and_no_other(shop):
    shop.hset(rk("RelCustomer:bob"), "age", b"\xc1")
    orders = list(RelOrder.query.filter(total__lt=50))
    assert orders[0].customer.username == "ada"
    with pytest.raises(ModelException, match="RelCustomer:bob: the stored value of field 'age' cannot be read"):
        orders[1].customer
    assert orders[2].customer.username == "cai"


def test_a_related_key_of_another_type_is_left_out_and_logged(shop, caplog):
    shop.delete(rk("RelCustomer:bob"))
    shop.set(rk("RelCustomer:bob"), "text")
    with caplog.at_level(logging.ERROR):
        found = [o.customer and o.customer.username for o in RelOrder.query.filter(total__lt=50)]
    assert found == ["ada", None, "cai", "dan"] * 2
    assert "RelCustomer:bob cannot be read (not a hash)" in caplog.text


def test_a_stored_key_of_another_model_points_to_nothing(shop):
    shop.hset(rk("RelOrder:o0"), "customer", b"\xacRelCity:Bonn")
    assert RelOrder.query.get(order_id="o0").customer is None


def test_threads_that_look_at_one_list_all_see_the_records(shop):
    for _ in range(20):
        orders = list(RelOrder.query.filter(total__lt=50))
        seen: list[list[str]] = []
        start = threading.Barrier(6)

        def look(orders=orders, seen=seen, start=start):
            start.wait()
            seen.append([order.customer.username for order in orders])

        threads = [threading.Thread(target=look) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [["ada", "bob", "cai", "dan"] * 2] * 6


# -- async -------------------------------------------------------------------------------------------------------------


def test_async_code_awaits_the_related_record(shop, round_trips):
    async def read():
        orders = await RelOrder.query.async_filter(total__lt=50)
        with round_trips() as trips, warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (await orders[0].async_related("customer")).username == "ada"
            assert [o.customer.username for o in orders] == ["ada", "bob", "cai", "dan"] * 2
            assert (await orders[1].async_related("customer__city")).name == "Oslo"
            assert await orders[3].async_related("customer__city") is None
            assert await orders[3].async_related("courier") is None
            ahead = await RelOrder.query.filter(total__lt=50).prefetch("customer").async_all()
            assert ahead[0].customer.username == "ada"
            assert [o.customer.username async for o in RelOrder.query.filter(total=1.0).prefetch("customer")] == ["bob"]
            assert trips.count == 0, "nothing went over the sync client"
        with pytest.raises(QueryException, match="RelOrder has no relationship 'total'"):
            await orders[0].async_related("total")

    asyncio.run(read())


def test_looking_at_an_unread_one_in_a_running_loop_works_and_warns(shop):
    async def read():
        order = await RelOrder.query.async_get(order_id="o0")
        with pytest.warns(RuntimeWarning, match=r"RelOrder\.customer is read here and blocks the event loop"):
            assert order.customer.username == "ada"

    asyncio.run(read())


# -- copies, pickles, equality -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("looked_at", [False, True], ids=["unread", "read"])
@pytest.mark.parametrize(
    "dup", [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copy", "deepcopy", "pickle"]
)
def test_an_instance_out_of_a_list_can_be_copied_and_pickled(shop, dup, looked_at):
    orders = list(RelOrder.query.filter(total__lt=50))
    if looked_at:
        assert orders[1].customer.city.name == "Oslo"
    again = dup(orders[1])
    assert again == orders[1] and hash(again) == hash(orders[1])
    assert again.customer.username == "bob" and again.customer.city.name == "Oslo"
    assert again._cohort is None
    again.customer = "RelCustomer:ada"
    again.save()
    assert orders[1].customer.username == "bob"
    indexes_agree(RelOrder)


def test_a_circle_of_instances_can_be_pickled(server):
    one, two = RelCustomer(username="one", email="1"), RelCustomer(username="two", email="2")
    one.friend, two.friend = two, one
    again = pickle.loads(pickle.dumps(one))
    assert again.friend.friend is again and again.friend.username == "two"


# -- to_dict -----------------------------------------------------------------------------------------------------------


def test_to_dict_gives_keys(shop):
    order = RelOrder.query.get(order_id="o1")
    assert order.to_dict() == {
        "order_id": "o1",
        "status": "odd",
        "total": 1.0,
        "customer": rk("RelCustomer:bob"),
        "courier": None,
    }
    assert type(order.to_dict()["customer"]) is str
    assert order.to_dict(relationships=True, max_depth=0) == order.to_dict()
    assert order.to_dict(include=["total", "customer", "zebra"], exclude=["total"]) == {
        "customer": rk("RelCustomer:bob")
    }
    json.dumps(RelOrder.query.filter(order_id="o1").values("customer")[0])
    assert RelOrder.query.filter(order_id="o1").values("customer")[0] == {"customer": rk("RelCustomer:bob")}


def test_to_dict_nests_related_records_level_by_level(shop, round_trips):
    order = RelOrder.query.get(order_id="o2")
    with round_trips() as trips:
        nested = order.to_dict(relationships=True, include=["order_id", "customer"])
        assert trips.count <= 4
    ada_city = {"name": "Bonn", "country": "de", "people": 330, "wealth": 2.0, "mayor": rk("RelCustomer:cai")}
    assert list(nested) == ["order_id", "customer"]
    cai = nested["customer"]
    assert cai["city"]["name"] == "Ulm" and cai["city"]["mayor"] is None
    assert cai["friend"]["username"] == "bob"
    assert cai["friend"]["friend"]["username"] == "ada"
    assert cai["friend"]["friend"]["city"] == ada_city, "a record on the way is its key"
    assert order.to_dict(relationships=True, max_depth=1)["customer"]["city"] == rk("RelCity:Ulm")


def test_to_dict_leaves_a_dangling_reference_a_key_and_takes_what_is_in_memory(shop):
    order = RelOrder.query.get(order_id="o2")
    order.courier = RelCustomer(username="unsaved", age=9)
    RelCustomer.query.get(username="cai").delete()
    nested = order.to_dict(relationships=True)
    assert nested["customer"] == rk("RelCustomer:cai")
    assert nested["courier"]["age"] == 9
    with pytest.raises(ModelException, match="max_depth"):
        order.to_dict(relationships=True, max_depth=-1)


def test_to_dict_ends_in_circles_of_any_length(server):
    people = [RelCustomer(username=f"p{n}", email=f"{n}", friend=f"RelCustomer:p{(n + 1) % 5}") for n in range(5)]
    for person in people:
        person.save()
    nested = RelCustomer.query.get(username="p0").to_dict(relationships=True)
    for n in range(1, 5):
        nested = nested["friend"]
        assert nested["username"] == f"p{n}"
    assert nested["friend"] == rk("RelCustomer:p0")


def test_to_dict_awaits_too(shop):
    async def read():
        order = await RelOrder.query.async_get(order_id="o1")
        return await order.async_to_dict(relationships=True)

    assert asyncio.run(read())["customer"]["city"]["name"] == "Oslo"


# -- filters -----------------------------------------------------------------------------------------------------------


ORDERS_OF = {"ada": ["o0", "o4"], "bob": ["o1", "o5"], "cai": ["o2", "o6"], "dan": ["o3", "o7"]}


def orders_of(*names):
    return sorted(order for name in names for order in ORDERS_OF[name])


FILTERS = [
    ({"customer": "RelCustomer:ada"}, orders_of("ada")),
    ({"customer": RelCustomer(username="ada")}, orders_of("ada")),
    ({"customer": b"RelCustomer:ada"}, orders_of("ada")),
    ({"customer": "RelCustomer:nobody"}, []),
    ({"customer": RelCity(name="Bonn")}, []),
    ({"customer": None}, ["loose"]),
    ({"customer__isnull": True}, ["loose"]),
    ({"customer__isnull": False}, orders_of(*ORDERS_OF)),
    ({"customer__in": ["RelCustomer:ada", RelCustomer(username="bob"), "RelCustomer:x"]}, orders_of("ada", "bob")),
    ({"customer__in": [None, "RelCustomer:ada"]}, ["loose", *orders_of("ada")]),
    ({"customer__in": []}, []),
    ({"customer__username": "ada"}, orders_of("ada")),
    ({"customer__username__in": ["ada", "dan", "x"]}, orders_of("ada", "dan")),
    ({"customer__username__startswith": "a"}, orders_of("ada")),
    ({"customer__username__contains": "a"}, orders_of("ada", "cai", "dan")),
    ({"customer__username__isnull": False}, orders_of(*ORDERS_OF)),
    ({"customer__email": "bob@x"}, orders_of("bob")),
    ({"customer__age": 17}, orders_of("bob")),
    ({"customer__age": None}, orders_of("cai", "dan")),
    ({"customer__balance": Decimal("1.5")}, orders_of("bob")),
    ({"customer__tags": ["a", "b"]}, orders_of("ada")),
    ({"customer__city": "RelCity:Ulm"}, orders_of("cai")),
    ({"customer__city": None}, orders_of("dan")),
    ({"customer__city__isnull": True}, orders_of("dan")),
    ({"customer__city__country": "de"}, orders_of("ada", "cai")),
    ({"customer__city__people__gt": 200}, orders_of("ada", "bob")),
    ({"customer__city__people__between": (100, 400)}, orders_of("ada", "cai")),
    ({"customer__city__country": "de", "customer__city__wealth__gte": 2.5}, orders_of("cai")),
    ({"customer__city__mayor__username": "cai"}, orders_of("ada")),
    ({"customer__city__mayor__friend__friend__city__name": "Bonn"}, orders_of("ada")),
    ({"customer__friend__friend__tags": ["a", "b"]}, orders_of("cai")),
    ({"customer__friend__username": "ada", "status": "odd"}, orders_of("bob")),
    ({"customer__city__country": "de", "total__gte": 3, "total__lt": 6}, ["o4"]),
    ({"customer__city__country": "de", "courier": None}, orders_of("ada", "cai")),
    ({"courier__username": "ada"}, []),
    ({"customer__city__people__gt": 200, "customer__tags": ["a", "b"]}, orders_of("ada")),
    ({"customer__city__people__gt": 200, "customer__friend__tags": ["a", "b"], "status": "odd"}, orders_of("bob")),
]


@pytest.mark.parametrize(("filters", "found"), FILTERS, ids=[f"{i}-{next(iter(f[0]))}" for i, f in enumerate(FILTERS)])
def test_filters_find_along_relationships_in_two_round_trips_at_most(shop, round_trips, filters, found):
    with round_trips() as trips:
        answer = ids(RelOrder.query.filter(**filters))
        assert trips.count <= trips_of(2)
    assert sorted(answer) == found
    assert RelOrder.query.count(**filters) == len(found)
    assert sorted(RelOrder.query.keys(**filters)) == [f"RelOrder:{name}".encode() for name in found]
    assert RelOrder.query.filter(**filters).exists() is bool(found)


def test_what_the_server_can_decide_takes_one_call(shop, round_trips):
    with round_trips() as trips:
        list(RelOrder.query.filter(customer__city__mayor__friend__age=17, customer__city__people__gt=1, total__gt=0))
        assert trips.count == 1 or redis_db.on_cluster()


def test_an_order_that_python_makes_takes_no_call_more_than_without_relationships(shop, round_trips):
    with round_trips() as trips:
        found = ids(RelOrder.query.filter(customer__city__people__gt=200, order_by="status"))
        assert trips.count <= trips_of(2)
    assert found == ["o1", "o5", "o0", "o4"]


def test_filters_along_relationships_await(shop):
    async def read():
        found = await RelOrder.query.async_filter(customer__city__country="de", customer__tags=["a", "b"])
        return ids(found), await RelOrder.query.async_count(customer__city__country="de")

    assert asyncio.run(read()) == (["o0", "o4"], 4)


def test_order_limit_values_and_slices_apply_behind_the_relationship(shop):
    query = RelOrder.query.filter(customer__city__country="de")
    assert ids(query.order_by("-total").limit(2)) == ["o6", "o4"]
    assert query.order_by("total").limit(1).values("total", "customer")[0] == {
        "total": 0.0,
        "customer": rk("RelCustomer:ada"),
    }
    assert ids(query.order_by("total")[1:3]) == ["o2", "o4"]
    assert query.order_by("status").values("status")[0] == {"status": "open"}
    assert ids(RelOrder.query.filter(total__lt=50).order_by("customer"))[:3] == ["o0", "o4", "o1"]


def test_related_values_that_share_a_score_are_told_apart(shop):
    close = RelCity.create(name="Close", country="x", people=2**53)
    closer = RelCity.create(name="Closer", country="x", people=2**53 + 1)
    RelCustomer.create(username="close", email="c1", city=close)
    RelCustomer.create(username="closer", email="c2", city=closer)
    RelOrder.create(order_id="c1", customer="RelCustomer:close")
    RelOrder.create(order_id="c2", customer="RelCustomer:closer")
    assert ids(RelOrder.query.filter(customer__city__people=2**53)) == ["c1"]
    assert ids(RelOrder.query.filter(customer__city__people__gt=2**53)) == ["c2"]
    assert RelOrder.query.count(customer__city__people__gt=2**53) == 1
    assert ids(RelOrder.query.filter(customer__city__people__gt=2**53, order_by="status")) == ["c2"]
    assert ids(RelOrder.query.filter(customer__city__people__gt=2**53, customer__tags=None)) == ["c2"]
    assert ids(RelOrder.query.filter(~Q(customer__city__people__lte=2**53), total=0.0)) == ["c2"]
    assert ids(RelOrder.query.filter(customer__city__people__gte=2**53, total=0).order_by("status")) == ["c1", "c2"]


def test_a_related_record_that_is_gone_satisfies_nothing(shop):
    if not redis_db.on_cluster():  # there its own index is asked first, which knows nothing of it
        shop.delete("RelCustomer:cai")  # by hand: its index entries stay
    else:
        RelCustomer.query.get(username="cai").delete()
    dan = RelCustomer.query.get(username="dan")
    dan._ttl = 0.02
    dan.save()
    while shop.exists(rk("RelCustomer:dan")):
        pass
    assert ids(RelOrder.query.filter(customer__username__in=["cai", "dan", "bob"])) == ["o1", "o5"]
    assert ids(RelOrder.query.filter(customer__username__isnull=False)) == ["o0", "o1", "o4", "o5"]
    assert ids(RelOrder.query.filter(customer__age=None)) == []
    assert ids(RelOrder.query.filter(customer="RelCustomer:cai")) == ["o2", "o6"]


def test_an_expired_record_is_in_no_answer_along_its_relationship(shop):
    order = RelOrder.query.get(order_id="o0")
    order._ttl = 0.02
    order.save()
    while shop.exists(rk("RelOrder:o0")):
        pass
    assert ids(RelOrder.query.filter(customer__username="ada")) == ["o4"]
    assert RelOrder.query.count(customer__username="ada") == 1
    assert RelOrder.query.count(customer="RelCustomer:ada") == 1


def test_thousands_of_related_records_are_tested_and_not_gathered(server):
    pipeline = server.pipeline()
    for number in range(3000):
        RelCustomer(username=f"u{number}", email=f"e{number}", age=number % 7).save(pipeline=pipeline)
        RelOrder(order_id=f"{number:05}", customer=f"RelCustomer:u{number}", total=float(number)).save(
            pipeline=pipeline
        )
    pipeline.execute()
    found = RelOrder.query.filter(customer__username__startswith="u", customer__age=3)
    assert found.count() == len([n for n in range(3000) if n % 7 == 3])
    assert ids(found.order_by("-total").limit(2)) == ["02999", "02992"]
    assert RelOrder.query.count(customer__email__startswith="e29") == 111


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"customer__bogus": 1}, r"'customer__bogus'.*RelCustomer"),
        ({"customer__city__bogus": 1}, r"'customer__city__bogus'.*RelCity"),
        ({"customer__city__people__startswith": "1"}, r"people"),
        ({"customer__exact": 1}, r"'customer__exact'"),
        ({"customer__city__wealth__gt": 1}, "country"),
        ({"customer": "ada"}, r"expected a RelCustomer, its key \(RelCustomer:\.\.\.\) or None, got 'ada'"),
        ({"customer": 3}, "expected a RelCustomer"),
        ({"customer__in": "RelCustomer:ada"}, "expected a list of instances or keys"),
        ({"customer__isnull": 1}, "expected True or False"),
        ({"customer__age": "x"}, "age"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_wrong_filter_says_what_is_wrong(shop, filters, message):
    with pytest.raises(QueryException, match=message):
        list(RelOrder.query.filter(**filters))


def test_get_info_lists_the_related_parameters_one_level_deep():
    listed = RelOrder.get_info()["query_filters"]
    assert {"customer", "customer__in", "customer__isnull", "customer__username__startswith"} <= set(listed)
    assert {"customer__city", "customer__city__isnull", "courier__email"} <= set(listed)
    assert not [name for name in listed if name.startswith("customer__city__name")]


def test_a_filter_on_the_model_itself_stays_in_its_own_keys(shop):
    assert [c.username for c in RelCustomer.query.filter(friend__friend__username="ada")] == ["cai"]
    assert [c.username for c in RelCustomer.query.filter(friend__age__isnull=False)] == ["bob", "cai"]
    assert [c.username for c in RelCustomer.query.filter(friend=None)] == ["ada", "dan"]


def test_a_partition_by_a_relationship_is_named_by_instance_or_key(server):
    class RelScore(Model):
        name = KeyField()
        owner = Relationship(RelCustomer)
        points = SortedField(type=int, partition_by="owner", default=0)

    ada = RelCustomer(username="ada")
    RelScore.create(name="a", owner=ada, points=3)
    RelScore.create(name="b", owner="RelCustomer:ada", points=5)
    RelScore.create(name="c", owner="RelCustomer:bob", points=7)
    assert [s.name for s in RelScore.query.filter(owner=ada, points__gt=3)] == ["b"]
    assert [s.name for s in RelScore.query.filter(owner="RelCustomer:ada", points__gte=3, order_by="-points")] == [
        "b",
        "a",
    ]
    indexes_agree(RelScore)


def test_conditions_along_relationships_combine_in_q_objects(shop):
    german, tagged = Q(customer__city__country="de"), Q(customer__tags=["a", "b"])
    everyone = [*orders_of(*ORDERS_OF), "loose"]

    def found(*trees, **filters):
        return sorted(ids(RelOrder.query.filter(*trees, **filters)))

    assert found(german | Q(total__gt=50)) == ["loose", *orders_of("ada", "cai")]
    assert found(~german) == sorted(set(everyone) - set(orders_of("ada", "cai")))
    assert found(~tagged) == sorted(set(everyone) - set(orders_of("ada")))
    assert found(~(german & ~tagged), total__lt=50) == orders_of("ada", "bob", "dan")
    assert found(tagged | Q(customer__balance=Decimal("1.5")), status="odd") == orders_of("bob")
    assert RelOrder.query.count(german | Q(customer=None)) == 5


def test_a_key_out_of_values_is_checked_like_any_other(shop):
    row = RelOrder.query.filter(order_id="o0").values("customer")[0]
    assert RelOrder(order_id="x", customer=row["customer"]).customer.username == "ada"
    with pytest.raises(ModelException, match="expected a RelCity"):
        RelCustomer(username="x", city=row["customer"])


# -- moving the target -------------------------------------------------------------------------------------------------


def test_references_to_a_record_that_moved_dangle_until_they_are_moved(shop):
    ada = RelCustomer.query.get(username="ada")
    old = ada.pk
    assert ada.obsolete_redis_key is None
    ada.username = "augusta"
    assert ada.obsolete_redis_key == old
    ada.save(migrate_key=True)
    assert ada.obsolete_redis_key is None
    assert RelOrder.query.get(order_id="o0").customer is None
    for order in RelOrder.query.filter(customer=old):
        order.customer = ada
        order.save(update_fields=["customer"])
    assert ids(RelOrder.query.filter(customer__username="augusta")) == ["o0", "o4"]
    assert RelOrder.query.count(customer=old) == 0
    indexes_agree(RelOrder)


# -- against a plain dict ----------------------------------------------------------------------------------------------


class RelPerson(Model):
    name = KeyField()
    age = SortedField(type=int, default=0)
    group = IndexedField()
    note = DictField()
    boss = Relationship("self")


NAMES = "abcdef"
people = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.integers(0, 3),
        st.sampled_from([None, "x", "y"]),
        st.sampled_from([None, {}, {"k": 1}]),
        st.sampled_from([None, *NAMES]),
    ),
    max_size=12,
)
steps = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(
            [
                *(("age", n) for n in range(3)),
                *(("age__gt", n) for n in range(3)),
                ("group", "x"),
                ("group", None),
                ("group__isnull", False),
                ("note", {}),
                ("note", {"k": 1}),
                ("name__startswith", "c"),
                ("isnull", True),
                ("isnull", False),
                ("name__in", ["a", "d"]),
            ]
        ),
    ),
    min_size=1,
    max_size=3,
)
CHECKS = {
    "age": lambda p, v: p[0] == v,
    "age__gt": lambda p, v: p[0] > v,
    "group": lambda p, v: p[1] == v,
    "group__isnull": lambda p, v: (p[1] is None) is v,
    "note": lambda p, v: p[2] == v,
    "name__startswith": lambda p, v: p[4].startswith(v),
    "name__in": lambda p, v: p[4] in v,
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(people=people, gone=st.sets(st.sampled_from(NAMES), max_size=2), steps=steps)
def test_any_filter_along_relationships_finds_what_a_dict_says(server, people, gone, steps):
    server.flushall()
    stored = {}
    for name, age, group, note, boss in people:
        RelPerson(name=name, age=age, group=group, note=note, boss=boss and f"RelPerson:{boss}").save()
        stored[name] = (age, group, note, boss, name)
    for name in gone:
        RelPerson(name=name).delete()
        stored.pop(name, None)
    filters = {}
    for depth, (lookup, value) in steps:
        front = "boss__" * depth
        if lookup == "isnull":
            filters[front + "boss__isnull"] = value
        else:
            filters[front + lookup] = value

    def holds(person, parameter, value):
        while parameter.startswith("boss__") and parameter != "boss__isnull":
            person, parameter = stored.get(person[3]), parameter.removeprefix("boss__")
            if person is None:
                return False
        if parameter == "boss__isnull":
            return (person[3] is None) is value
        return CHECKS[parameter](person, value)

    expected = sorted(n for n, p in stored.items() if all(holds(p, key, value) for key, value in filters.items()))
    assert sorted(p.name for p in RelPerson.query.filter(**filters)) == expected, filters
    assert RelPerson.query.count(**filters) == len(expected), filters
    indexes_agree(RelPerson)
