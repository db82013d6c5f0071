"""get_or_create, update_or_create, refresh: who creates, what is written, what others lose (nothing)."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime

import pytest

from popoto.exceptions import (
    AlreadyExistsError,
    KeyMutationError,
    ModelException,
    QueryException,
    RecordGoneError,
    SkipSaveException,
)
from popoto.orm.fields.base import Field
from popoto.orm.fields.datetime import DatetimeField
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.relationship import Relationship
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import IntField
from popoto.orm.model import Model
from tests.orm.oracle import indexes_agree


class UpsPlace(Model):
    city = KeyField()
    name = KeyField()
    stars = SortedField(type=int, default=0)
    status = IndexedField(default="open")
    seen = DatetimeField(auto_now=True)


class UpsAccount(Model):
    email = UniqueField()
    nick = UniqueField()
    visits = IntField(default=0)


class UpsVisit(Model):
    place = Relationship(UpsPlace)
    note = Field()


def in_threads(call, count=8):
    """Run a call in threads at once and return its results and errors."""
    start = threading.Barrier(count)
    out = []

    def one():
        start.wait()
        try:
            out.append(call())
        except Exception as error:
            out.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


# -- get_or_create -----------------------------------------------------------------------------------------------------


def test_what_exists_is_returned_in_one_round_trip_and_nothing_is_written(server, round_trips):
    UpsPlace.create(city="bonn", name="mensa", stars=3)
    with round_trips() as trips:
        found, created = UpsPlace.get_or_create(city="bonn", name="mensa", defaults={"stars": 5})
        assert trips.count == 1
    assert (found.stars, created) == (3, False)
    assert UpsPlace.query.get(city="bonn", name="mensa").stars == 3


def test_what_does_not_exist_is_created_of_lookup_and_defaults(server, round_trips):
    with round_trips() as trips:
        made, created = UpsPlace.get_or_create({"stars": 5}, city="bonn", name="mensa")
        assert trips.count == 2
    assert created and made.stars == 5 and made._is_persisted
    assert UpsPlace.query.filter(stars=5)[0] == made
    indexes_agree(UpsPlace)


def test_defaults_win_over_the_lookup_in_a_new_record(server):
    made, created = UpsPlace.get_or_create(city="bonn", name="mensa", status="open", defaults={"status": "new"})
    assert created and made.status == "new"


def test_a_lookup_may_name_a_relationship(server):
    place = UpsPlace.create(city="bonn", name="mensa")
    first, created = UpsVisit.get_or_create(place=place, note="x")
    again, created_again = UpsVisit.get_or_create(place=place.pk, note="x")
    assert created and not created_again and first == again and again.place == place


def test_several_matches_are_an_error(server):
    UpsPlace.create(city="bonn", name="a")
    UpsPlace.create(city="bonn", name="b")
    with pytest.raises(QueryException, match="more than one record"):
        UpsPlace.get_or_create(city="bonn")


@pytest.mark.parametrize("lookup", [{"stars__gt": 3}, {"bogus": 1}], ids=["lookup", "unknown"])
def test_a_lookup_that_a_new_record_cannot_have_is_refused(server, lookup):
    with pytest.raises(QueryException, match="is no field; a lookup gives a new record its values"):
        UpsPlace.get_or_create(city="bonn", **lookup)


def test_an_invalid_new_record_is_refused(server):
    with pytest.raises(ModelException, match="stars"):
        UpsPlace.get_or_create(city="bonn", name="x", defaults={"stars": "many"})
    with pytest.raises(ModelException, match="has no field 'zebra'"):
        UpsPlace.get_or_create(city="bonn", name="x", defaults={"zebra": 1})
    assert not server.keys("*UpsPlace*")


@pytest.mark.parametrize("attempt", range(5))
def test_of_callers_at_once_one_creates_by_key(server, attempt):
    out = in_threads(lambda: UpsPlace.get_or_create(city="bonn", name="mensa", defaults={"stars": 1}))
    assert sorted(created for _, created in out) == [False] * 7 + [True]
    assert UpsPlace.query.count() == 1
    indexes_agree(UpsPlace)


@pytest.mark.parametrize("attempt", range(5))
def test_of_callers_at_once_one_creates_by_a_unique_field(server, attempt):
    out = in_threads(lambda: UpsAccount.get_or_create(email="ada@x", defaults={"nick": "ada"}))
    assert sorted(created for _, created in out) == [False] * 7 + [True]
    assert len({account.pk for account, _ in out}) == 1
    indexes_agree(UpsAccount)


def test_a_unique_value_that_another_record_has_is_an_error_and_no_endless_try(server, round_trips):
    UpsAccount.create(email="ada@x", nick="ada")
    with round_trips() as trips:
        with pytest.raises(AlreadyExistsError, match="already exists"):
            UpsAccount.get_or_create(email="eve@x", defaults={"nick": "ada"})
        assert trips.count <= 4
    assert UpsAccount.query.count() == 1


def test_a_save_that_a_hook_skips_creates_nothing(server):
    class UpsSkipped(Model):
        name = KeyField()

        def pre_save(self, **kwargs):
            raise SkipSaveException("not today")

    made, created = UpsSkipped.get_or_create(name="x")
    assert made.name == "x" and not created and not made._is_persisted
    assert UpsSkipped.query.count() == 0


# -- update_or_create --------------------------------------------------------------------------------------------------


def test_what_is_found_gets_the_defaults_and_keeps_what_others_wrote(server, round_trips):
    UpsPlace.create(city="bonn", name="mensa", stars=3)
    with round_trips() as trips:
        found, created = UpsPlace.update_or_create(city="bonn", name="mensa", defaults={"stars": 5})
        assert trips.count == 2
    assert not created and found.stars == 5
    assert [p.stars for p in UpsPlace.query.filter(stars=5)] == [5]
    indexes_agree(UpsPlace)


def test_only_the_defaults_and_auto_now_fields_are_written(server):
    place = UpsPlace.create(city="bonn", name="mensa", stars=3)
    before = place.seen
    server.hset(place.pk, "status", b"\xa6closed")  # by another writer
    updated, _ = UpsPlace.update_or_create(city="bonn", name="mensa", defaults={"stars": 4})
    stored = UpsPlace.query.get(city="bonn", name="mensa")
    assert (stored.stars, stored.status) == (4, "closed")
    assert isinstance(stored.seen, datetime) and stored.seen >= before and stored.seen == updated.seen


def test_a_model_that_computes_fields_before_a_save_stores_them_too(server):
    class UpsComputed(Model):
        name = KeyField()
        title = Field()
        slug = Field()

        def pre_save(self, **kwargs):
            self.slug = (self.title or "").lower()
            return super().pre_save(**kwargs)

    UpsComputed.update_or_create(name="x", defaults={"title": "One"})
    UpsComputed.update_or_create(name="x", defaults={"title": "TWO"})
    assert UpsComputed.query.get(name="x").slug == "two"


def test_what_is_not_found_is_created(server):
    made, created = UpsPlace.update_or_create(city="bonn", name="mensa", defaults={"stars": 5})
    assert created and made.stars == 5
    found, created = UpsPlace.update_or_create(city="bonn", name="mensa")
    assert not created and found.stars == 5


def test_a_key_cannot_be_updated(server):
    UpsPlace.create(city="bonn", name="mensa")
    with pytest.raises(KeyMutationError, match=r"UpsPlace\.name is part of the key"):
        UpsPlace.update_or_create(city="bonn", name="mensa", defaults={"name": "other"})
    same, created = UpsPlace.update_or_create(city="bonn", name="mensa", defaults={"name": "mensa", "stars": 1})
    assert not created and same.stars == 1


def test_an_unknown_or_invalid_default_changes_nothing(server):
    UpsPlace.create(city="bonn", name="mensa", stars=3)
    for wrong in ({"zebra": 1}, {"stars": "many"}):
        with pytest.raises(ModelException):
            UpsPlace.update_or_create(city="bonn", name="mensa", defaults={"status": "new", **wrong})
    assert UpsPlace.query.get(city="bonn", name="mensa").status == "open"


@pytest.mark.parametrize("attempt", range(3))
def test_callers_at_once_make_one_record_and_all_update_it(server, attempt):
    out = in_threads(lambda: UpsPlace.update_or_create(city="bonn", name="mensa", defaults={"stars": 2}))
    assert sorted(created for _, created in out) == [False] * 7 + [True]
    indexes_agree(UpsPlace)


def test_a_record_that_others_delete_meanwhile_is_created_anew(server):
    stop = threading.Event()

    def deleting():
        while not stop.is_set():
            UpsPlace(city="bonn", name="mensa").delete()

    thread = threading.Thread(target=deleting)
    thread.start()
    try:
        for stars in range(50):
            place, _ = UpsPlace.update_or_create(city="bonn", name="mensa", defaults={"stars": stars})
            assert place.stars == stars
    finally:
        stop.set()
        thread.join()
    indexes_agree(UpsPlace)


def test_both_await(server):
    async def run():
        made, created = await UpsPlace.async_get_or_create(city="bonn", name="mensa", defaults={"stars": 1})
        assert created and made.stars == 1
        pairs = await asyncio.gather(
            *(UpsAccount.async_get_or_create(email="e", defaults={"nick": "n"}) for _ in range(8))
        )
        assert sorted(created for _, created in pairs) == [False] * 7 + [True]
        updated, created = await UpsPlace.async_update_or_create(city="bonn", name="mensa", defaults={"stars": 9})
        assert not created
        made.stars = 7
        await made.async_refresh()
        assert made.stars == updated.stars == 9

    asyncio.run(run())


# -- refresh -----------------------------------------------------------------------------------------------------------


def test_refresh_reads_what_is_stored_in_one_round_trip(server, round_trips):
    place = UpsPlace.create(city="bonn", name="mensa", stars=3)
    other = UpsPlace.query.get(city="bonn", name="mensa")
    other.stars, other.status = 4, "closed"
    other.save()
    place.stars, place.status = 100, "mine"
    with round_trips() as trips:
        assert place.refresh(fields=["stars"]) is None
        assert trips.count == 1
    assert (place.stars, place.status) == (4, "mine")
    place.refresh()
    assert (place.stars, place.status) == (4, "closed")


def test_refresh_takes_back_a_changed_key_and_reads_related_records_anew(server):
    place = UpsPlace.create(city="bonn", name="mensa")
    visit = UpsVisit.create(place=place, note="x")
    assert visit.place is place
    place.name = "other"
    place.refresh()
    assert place.name == "mensa"
    UpsPlace.update_or_create(city="bonn", name="mensa", defaults={"stars": 8})
    visit.refresh()
    assert visit.place is not place and visit.place.stars == 8


def test_refresh_of_a_record_that_is_gone_says_so_and_leaves_the_instance(server):
    place = UpsPlace.create(city="bonn", name="mensa", stars=3)
    UpsPlace(city="bonn", name="mensa").delete()
    place.stars = 4
    with pytest.raises(RecordGoneError, match="UpsPlace:bonn:mensa is not stored any more"):
        place.refresh()
    assert place.stars == 4
    with pytest.raises(RecordGoneError, match="never saved"):
        UpsPlace(city="a", name="b").refresh()


def test_refresh_of_an_unknown_field_or_a_corrupt_value_is_an_error(server):
    place = UpsPlace.create(city="bonn", name="mensa")
    with pytest.raises(ModelException, match="has no field zebra"):
        place.refresh(fields=["zebra"])
    server.hset(place.pk, "stars", b"\xc1")
    with pytest.raises(ModelException, match="the stored value of field 'stars' cannot be read"):
        place.refresh()
    place.refresh(fields=["status"])


def test_a_partial_save_of_a_record_that_is_gone_is_the_same_error(server):
    place = UpsPlace.create(city="bonn", name="mensa")
    UpsPlace(city="bonn", name="mensa").delete()
    with pytest.raises(RecordGoneError, match="is not stored"):
        place.save(update_fields=["stars"])
