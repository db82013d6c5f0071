"""Meta.indexes: combinations of values, found at once, and unique where that is said, whatever is saved how."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import random
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from popoto import redis_db
from popoto.exceptions import ModelException
from popoto.memory.decay import DecayingSortedField
from popoto.orm.fields.base import Field
from popoto.orm.fields.geo import GeoField
from popoto.orm.fields.indexed import IndexedField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.relationship import Relationship
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import DateField, DecimalField, IntField, ListField
from popoto.orm.model import Model

from .oracle import dump, indexes_agree, nothing_left


def define(indexes: Any = None, **body: Any) -> Any:
    meta = body.pop("meta", {"indexes": indexes})
    body = {"key": KeyField(), "a": Field(), "b": IntField(), **body, "__qualname__": "<locals>.CompositeModel"}
    return type(Model)("CompositeModel", (Model,), {**body, "Meta": type("Meta", (), meta)})


class Booking(Model):
    number = KeyField()
    room = Field()
    day = DateField()
    guest = IndexedField()
    nights = IntField(default=1)

    class Meta:
        indexes = ((("room", "day"), True), (("guest", "nights"), False))


MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)


def numbers(found):
    return sorted(record.number for record in found)


# -- declaring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("ab", "expected ((field names, unique), ...)"),
        ({"a": True}, "expected ((field names, unique), ...)"),
        ((("a", "b"), True), "for the field names"),
        ((("a", "b"),), "for the field names"),
        (((("a", "b"), True, 3),), "in it"),
        ((("ab", True),), "for the field names"),
        ((((), True),), "for the field names"),
        (((("a", 3), True),), "for the field names"),
        (((("a", "b"), 1),), "got 1 for unique"),
        (((("a", "nothing"), True),), "'nothing' is no field of the model. Fields: key, a, b"),
        (((("a", "a"), True),), "names a field twice"),
        (((("a", "b"), True), (("a", "b"), False)), "is declared twice"),
    ],
    ids=str,
)
def test_a_wrong_shape_is_refused_when_the_class_is_made(wrong, said):
    with pytest.raises(ModelException, match=r"CompositeModel.Meta.indexes") as refused:
        define(wrong)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "field",
    [ListField(), GeoField(), Field(type=bytes), Field(type=dict), DecayingSortedField()],
    ids=lambda f: type(f).__name__,
)
def test_a_field_without_a_plain_value_of_its_own_cannot_be_part(field):
    with pytest.raises(ModelException, match=r"'odd'.*cannot be part of an index"):
        define(((("a", "odd"), True),), odd=field)


def test_lists_are_taken_as_tuples_and_subclasses_inherit(server):
    model = define([[["a", "b"], True]])
    assert model._meta.indexes == ((("a", "b"), True),)

    class Narrower(model):
        c = Field()

        class Meta:
            key_name = "Narrower"

    assert Narrower._meta.indexes == ((("a", "b"), True),)
    Narrower.create(key="1", a="x", b=1)
    with pytest.raises(ModelException, match="already exists"):
        Narrower.create(key="2", a="x", b=1)
    model.create(key="2", a="x", b=1)  # another model has an index of its own


def test_unique_together_and_index_together_say_the_same():
    assert define(meta={"unique_together": ("a", "b")})._meta.indexes == ((("a", "b"), True),)
    both = {"unique_together": (("a", "b"), ("key", "a")), "index_together": [["b", "a"]]}
    assert define(meta=both)._meta.indexes == ((("a", "b"), True), (("key", "a"), True), (("b", "a"), False))
    for wrong in ("ab", (), (("a", "b"), "a"), 3):
        with pytest.raises(ModelException, match=r"Meta.unique_together: expected a group of field names"):
            define(meta={"unique_together": wrong})


# -- layout ------------------------------------------------------------------------------------------------------------


def test_the_keys_and_the_digest(server):
    booking = Booking.create(number="1", room="a:1", day=MONDAY, guest="Ada", nights=2)
    digest = hashlib.sha1(b"a{&#58;}1:2026/-03/-02").hexdigest()[:16]
    assert server.hgetall("$Index:Booking:room:day") == {digest.encode(): b"Booking:1"}
    assert server.smembers("$Index:Booking:guest:nights::Ada:2") == {b"Booking:1"}
    meta = Booking._meta
    assert meta.get_index_key(("room", "day")) == f"{meta.keys.namespace}$Index:Booking:room:day"
    assert meta.compute_index_hash(booking, ("room", "day")) == digest
    assert meta.compute_index_hash_from_values(("room", "day"), ("a:1", "2026-03-02")) == digest
    assert meta.compute_index_hash_from_values(("room", "day"), ("a:1", None)) is None
    booking.delete()
    nothing_left(server)


def test_values_that_run_into_one_another_are_told_apart(server):
    model = define(((("a", "key"), True),))
    model.create(key="y:z", a="x")
    model.create(key="z", a="x:y")
    model.create(key="None", a="None")
    assert server.hlen("$Index:CompositeModel:a:key") == 3
    indexes_agree(model)


def test_equal_values_are_one_combination_however_they_are_written(server):
    model = define(((("price", "at"), True),), price=DecimalField(), at=Field(type=datetime))
    noon = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)
    model.create(key="1", price=Decimal("1.10"), at=noon)
    with pytest.raises(ModelException, match="already exists"):
        model.create(key="2", price=Decimal("1.1"), at=noon.astimezone(timezone(timedelta(hours=2))))
    assert model.query.filter(price="1.100", at=noon)[0].key == "1"


# -- unique ------------------------------------------------------------------------------------------------------------


def test_a_combination_that_is_taken_is_refused_and_named(server):
    Booking.create(number="1", room="r", day=MONDAY)
    Booking.create(number="2", room="r", day=TUESDAY)
    before = dump(server)
    with pytest.raises(ModelException) as refused:
        Booking.create(number="3", room="r", day=MONDAY)
    for word in ("room", "day", "already exists", "Booking:1", "nothing was written"):
        assert word in str(refused.value)
    moved = Booking.query.get(number="2")
    moved.day = MONDAY
    for names in (None, ["day"], ["day", "nights"]):
        with pytest.raises(ModelException, match=r"\(room, day\)"):
            moved.save(update_fields=names)
    assert dump(server) == before


def test_a_record_may_keep_its_own_combination(server):
    booking = Booking.create(number="1", room="r", day=MONDAY)
    booking.save()
    booking.nights = 3
    booking.save(update_fields=["nights", "room"])
    booking.number = "9"
    booking.save(migrate_key=True)
    with pytest.raises(ModelException, match="Booking:9"):
        Booking.create(number="2", room="r", day=MONDAY)
    indexes_agree(Booking)


def test_a_none_is_in_no_combination(server):
    for number in "123":
        Booking.create(number=number, room="r", guest="Ada", nights=None)
    assert not server.exists("$Index:Booking:room:day")
    assert numbers(Booking.query.filter(room="r", day=None)) == ["1", "2", "3"]
    assert numbers(Booking.query.filter(guest="Ada", nights=None)) == ["1", "2", "3"]
    indexes_agree(Booking)


def test_a_combination_is_free_again_once_it_is_given_up(server):
    first = Booking.create(number="1", room="r", day=MONDAY)
    first.day = None
    first.save(update_fields=["day"])
    second = Booking.create(number="2", room="r", day=MONDAY)
    second.delete()
    third = Booking.create(number="3", room="r", day=MONDAY)
    server.delete(third.pk)  # behind our back, as an expiry does it
    Booking.create(number="4", room="r", day=MONDAY)
    assert numbers(Booking.query.filter(room="r", day=MONDAY)) == ["4"]
    third.delete()
    assert numbers(Booking.query.filter(room="r", day=MONDAY)) == ["4"], (
        "a late clean-up takes nothing from the new owner"
    )


def test_two_may_not_swap_into_one_another_but_a_batch_may_hand_on(server):
    bookings = [Booking(number=n, room="r", day=day) for n, day in (("1", MONDAY), ("2", TUESDAY))]
    Booking.bulk_create(bookings)
    with pytest.raises(ModelException, match="already exists"):
        Booking.bulk_create([Booking(number="3", room="s", day=MONDAY), Booking(number="4", room="s", day=MONDAY)])
    assert numbers(Booking.query.all()) == ["1", "2"]
    indexes_agree(Booking)


def _take(url: str, number: int, done: Any) -> None:
    redis_db.configure_url(url)
    try:
        Booking.create(number=str(number), room="r", day=MONDAY)
        done.put("won")
    except ModelException as error:
        done.put(str(error))
    done.close()
    done.join_thread()
    os._exit(0)


def test_of_eight_processes_that_want_one_combination_one_gets_it(server, shared_server):
    context = multiprocessing.get_context("fork")
    done = context.Queue()
    workers = [context.Process(target=_take, args=(shared_server.url, n, done)) for n in range(8)]
    for worker in workers:
        worker.start()
    said = [done.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join(10)
    assert said.count("won") == 1
    assert all("already exists" in text for text in said if text != "won")
    assert Booking.query.count() == 1
    indexes_agree(Booking)


# -- whatever is saved how ---------------------------------------------------------------------------------------------


def test_a_partial_save_moves_the_entry_by_what_is_stored_not_by_what_the_caller_believes(server):
    Booking.create(number="1", room="r", day=MONDAY, guest="Ada", nights=1)
    stale = Booking.query.get(number="1")
    Booking.query.get(number="1").delete()
    Booking.create(number="1", room="s", day=None, guest="Bob", nights=None)
    fresh = Booking.query.get(number="1")
    fresh.nights = 5
    fresh.save(update_fields=["nights"])
    stale.day = TUESDAY
    stale.save(update_fields=["day"])  # it believes in room r
    indexes_agree(Booking)
    assert numbers(Booking.query.filter(room="s", day=TUESDAY)) == ["1"]
    assert not Booking.query.filter(room="r", day=TUESDAY)
    stale.guest = None
    stale.save(update_fields=["guest"])
    indexes_agree(Booking)


def test_an_increment_moves_the_entry(server):
    Booking.create(number="1", guest="Ada", nights=1)
    stale = Booking.query.get(number="1")
    fresh = Booking.query.get(number="1")
    fresh.guest = None
    fresh.save()
    stale.atomic_increment("nights", 2)
    indexes_agree(Booking)
    fresh.guest = "Bob"
    fresh.save(update_fields=["guest"])
    fresh.atomic_increment("nights", 2)
    assert numbers(Booking.query.filter(guest="Bob", nights=5)) == ["1"]
    indexes_agree(Booking)


def test_an_increment_onto_a_taken_combination_is_refused(server):
    model = define(((("a", "b"), True),))
    model.create(key="1", a="x", b=1)
    other = model.create(key="2", a="x", b=3)
    before = dump(server)
    with pytest.raises(ModelException, match="already exists"):
        other.atomic_increment("b", -2)
    assert dump(server) == before
    other.atomic_increment("b", -1)
    indexes_agree(model)


def test_a_related_record_can_be_part(server):
    class CompositeGuest(Model):
        name = KeyField()

    model = define(((("guest", "b"), True),), guest=Relationship(model=CompositeGuest))
    ada, bob = CompositeGuest.create(name="Ada"), CompositeGuest.create(name="Bob")
    model.create(key="1", guest=ada, b=1)
    model.create(key="2", guest=bob, b=1)
    model.create(key="3", b=1)
    with pytest.raises(ModelException, match="already exists"):
        model.create(key="4", guest=ada.pk, b=1)
    assert [record.key for record in model.query.filter(guest=bob, b=1)] == ["2"]
    assert model.query.filter(guest=ada, b=1).compiled().where[1][0] == "owner"
    assert model.check_indexes()["total"] == 0


# -- filters -----------------------------------------------------------------------------------------------------------


def test_exact_filters_on_all_fields_are_answered_by_the_index(server, round_trips):
    for n in range(6):
        Booking.create(number=str(n), room="r", day=MONDAY + timedelta(n), guest="AB"[n % 2], nights=n // 2)
    query = Booking.query.filter(nights=1, guest="A")
    assert query.compiled().where == ["set", f"{Booking._meta.keys.namespace}$Index:Booking:guest:nights::A:1"]
    server.config_resetstat()
    with round_trips() as trips:
        assert numbers(query) == ["2"] and query.count() == 1
    assert trips.count == 2
    assert server.info("commandstats").get("cmdstat_hget", {"calls": 0})["calls"] == 0, "no record was looked into"
    assert numbers(Booking.query.filter(room="r", day=TUESDAY)) == ["1"]
    assert numbers(Booking.query.filter(room="r", day=TUESDAY, guest="A")) == []
    assert numbers(Booking.query.filter(guest="B", nights__in=[0, 1])) == ["1", "3"]


def test_whatever_is_saved_a_filter_finds_what_a_dict_holds_and_no_combination_is_owned_twice(server):
    model = define(
        ((("a", "b"), True), (("b", "c"), False), (("c", "s", "key"), False), (("c",), False)),
        c=IndexedField(),
        s=SortedField(type=int, default=0),
    )
    rnd = random.Random(11)
    truth: dict[str, dict[str, Any]] = {}
    held = {}
    refused = 0
    for step in range(400):
        key = rnd.choice("klmnopq")
        change = {
            "a": rnd.choice(["x", "x:y", None]),
            "b": rnd.choice([0, 1, 2, None]),
            "c": rnd.choice(["u", "None", None]),
            "s": rnd.choice([0, 1]),
        }
        change = {name: change[name] for name in rnd.sample(sorted(change), rnd.randint(1, 4))}
        instance = held.get(key) if rnd.random() < 0.6 else model.query.get(key=key)
        action = rnd.random()
        try:
            if key not in truth or instance is None:
                if key in truth:
                    continue
                held[key] = model.create(key=key, **change)
                truth[key] = {"a": None, "b": None, "c": None, "s": 0, **change}
            elif action < 0.1:
                instance.delete()
                del truth[key]
                held.pop(key, None)
            elif action < 0.25 and truth[key]["b"] is not None:
                instance.atomic_increment("b", 1)
                truth[key]["b"] += 1
            elif action < 0.35 and "z" not in truth:
                model.query.get(key=key)
                fresh = model.query.get(key=key)
                fresh.key = "z"
                fresh.save(migrate_key=True)
                truth["z"] = truth.pop(key)
                held.pop(key, None)
            else:
                for name, value in change.items():
                    setattr(instance, name, value)
                if rnd.random() < 0.7:
                    instance.save(update_fields=list(change))
                    truth[key].update(change)
                else:
                    instance.save()
                    truth[key] = {name: getattr(instance, name) for name in truth[key]}
        except ModelException as error:
            assert "already exists" in str(error)
            refused += 1
            held.pop(key, None)  # what it holds now is not what is stored
        if "z" in truth and rnd.random() < 0.3:
            model.query.get(key="z").delete()
            del truth["z"]
        if step % 5 == 0:
            indexes_agree(model)
        a, b, c, s = (
            rnd.choice(["x", "x:y", None]),
            rnd.choice([0, 1, None]),
            rnd.choice(["u", None]),
            rnd.choice([0, 1]),
        )
        for asked in ({"a": a, "b": b}, {"b": b, "c": c}, {"a": a, "b": b, "c": c}, {"c": c, "s": s}, {"c": c}):
            expected = sorted(k for k, row in truth.items() if all(row[n] == v for n, v in asked.items()))
            query = model.query.filter(**asked)
            assert sorted(record.key for record in query) == expected and query.count() == len(expected), asked
        pairs = [(row["a"], row["b"]) for row in truth.values() if row["a"] is not None and row["b"] is not None]
        assert len(set(pairs)) == len(pairs)
    assert refused > 5
    assert model.check_indexes()["total"] == 0


# -- maintenance -------------------------------------------------------------------------------------------------------


def test_check_clean_and_rebuild_know_the_index(server):
    for n, day in enumerate((MONDAY, TUESDAY)):
        Booking.create(number=str(n), room="r", day=day, guest="Ada")
    server.hset("$Index:Booking:room:day", "0123456789abcdef", "Booking:gone")
    server.sadd("$Index:Booking:guest:nights::Ada:1", "Booking:gone")
    found = Booking.check_indexes()
    assert found["composite_indexes"] == {"$Index:Booking:room:day": 1, "$Index:Booking:guest:nights": 1}
    assert Booking.clean_indexes() == 2
    assert Booking.check_indexes()["total"] == 0
    indexes_agree(Booking)
    server.delete("$Index:Booking:room:day", "$Index:Booking:guest:nights::Ada:1")
    assert Booking.check_indexes()["missing"] == 4
    Booking.rebuild_indexes()
    assert Booking.check_indexes()["total"] == 0
    indexes_agree(Booking)
    digest = Booking._meta.compute_index_hash_from_values(("room", "day"), ("r", MONDAY))
    server.hset("$Index:Booking:room:day", digest, "Booking:1")
    assert Booking.check_indexes()["total"] > 0
    Booking.rebuild_indexes()
    assert Booking.check_indexes()["total"] == 0
    indexes_agree(Booking)


def test_records_of_before_the_index_are_found_once_it_is_rebuilt(server):
    old = define(None, meta={})
    for n, (a, b) in enumerate(itertools.product("xy", (1, 2))):
        old.create(key=str(n), a=a, b=b)
    new = define(((("a", "b"), True),))
    new.rebuild_indexes()
    indexes_agree(new)
    assert [record.key for record in new.query.filter(a="y", b=1)] == ["2"]
