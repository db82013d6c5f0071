"""Bulk operations: each batch whole or not at all, in one round trip, with the hooks of save() and delete()."""

from __future__ import annotations

import asyncio
import gc
import weakref
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto.exceptions import KeyMutationError, ModelException, SkipSaveException
from popoto.memory.bm25 import BM25Field
from popoto.memory.confidence import ConfidenceField
from popoto.memory.decay import DecayingSortedField
from popoto.memory.model import Model as MemoryModel
from popoto.orm.fields.base import Field
from popoto.orm.fields.datetime import DatetimeField
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import IntField, ListField
from popoto.orm.model import Model
from popoto.orm.q import Q

from .oracle import dump, indexes_agree, nothing_left, stored_records


class LoggedField(Field):
    """Writes down, in the step of the save or delete, what it was told."""

    @classmethod
    def on_save(cls, instance, field_name, value, pipeline=None, **kwargs):
        return pipeline.rpush("saves", str(value))

    @classmethod
    def on_delete(cls, instance, field_name, value, pipeline=None, **kwargs):
        return pipeline.rpush("deletes", str(value))


class BulkItem(Model):
    name = KeyField()
    code = IndexedField(unique=True)
    status = IndexedField(default="new")
    rank = SortedField(type=int, default=0, partition_by="status")
    score = SortedField(type=float, default=0.0)
    count = IntField(default=1)
    tags = ListField(default=[])
    changed = DatetimeField(auto_now=True)
    made = DatetimeField(auto_now_add=True)


class BulkItems(Model):
    """Its name begins as that of the other one does."""

    name = KeyField()
    status = IndexedField(default="new")


class BulkHooked(Model):
    name = KeyField()
    note = LoggedField()
    size = IntField(default=0)
    doubled = SortedField(type=int, default=0)

    def pre_save(self, **kwargs):
        if self.note == "skip":
            raise SkipSaveException("not wanted")
        if self.note == "no":
            return False
        self.doubled = 2 * self.size
        return super().pre_save(**kwargs)


class BulkOwnMethods(Model):
    name = KeyField()
    status = IndexedField(default="new")

    def save(self, pipeline=None, **kwargs):
        if self.status == "vetoed":
            return False
        self.status = self.status.lower()
        pipeline.rpush("own", f"save {self.name}")
        return super().save(pipeline=pipeline, **kwargs)

    def delete(self, pipeline=None, **kwargs):
        pipeline.rpush("own", f"delete {self.name}")
        return super().delete(pipeline=pipeline, **kwargs)


class BulkSeat(Model):
    seat = UniqueField()


class BulkMemory(MemoryModel):
    name = KeyField()
    topic = IndexedField(null=True)
    text = Field(default="")
    weight = SortedField(type=float, default=1.0)
    relevance = DecayingSortedField(base_score_field="weight", partition_by="topic")
    certainty = ConfidenceField(partition_by="topic")
    words = BM25Field(source="text")


def synchronously(method, *args, **kwargs):
    return method(*args, **kwargs)


def asynchronously(method, *args, **kwargs):
    return asyncio.run(getattr(method.__self__, f"async_{method.__name__}")(*args, **kwargs))


@pytest.fixture(params=[synchronously, asynchronously], ids=["sync", "async"])
def way(request):
    """`way(Model.bulk_create, items)` calls it, or awaits its twin."""
    return request.param


def items(n: int, **values: Any) -> list[BulkItem]:
    return [BulkItem(name=f"n{i:04}", code=f"c{i}", rank=i, **values) for i in range(n)]


def names(model: Any = BulkItem) -> set[str]:
    return {values["name"] for values in stored_records(model).values()}


def refused(server, text, call, *args, error=ModelException, **kwargs):
    """The call raises this, and changes nothing."""
    before = dump(server)
    with pytest.raises(error, match=text):
        call(*args, **kwargs)
    assert dump(server) == before


def test_a_thousand_records_take_two_round_trips_at_most(server, round_trips):
    given = items(1000)
    calls = [
        (1, lambda: BulkItem.bulk_create(given)),
        (1, lambda: BulkItem.bulk_create(given)),
        (2, lambda: BulkItem.bulk_update(BulkItem.query.filter(status="new"), status="old")),  # none of them is loaded
        (2, lambda: BulkItem.bulk_update(BulkItem.query.filter(status="old"), rank=3, tags=["x"])),
        (1, lambda: BulkItem.bulk_update(given, status="up")),
        (1, lambda: BulkItem.raw_update([item.pk for item in given], score=1.5)),
        (2, lambda: BulkItem.bulk_delete(BulkItem.query.filter(status="up", code__in=[f"c{i}" for i in range(500)]))),
        (1, lambda: BulkItem.bulk_delete(given)),
    ]
    for expected, call in calls:
        with round_trips() as trips:
            call()
        assert trips.count == expected
    nothing_left(server)


# -- bulk_create -------------------------------------------------------------------------------------------------------


def test_bulk_create_stores_what_save_would(server, way):
    given = items(300)
    created = way(BulkItem.bulk_create, given)
    assert isinstance(created, list) and all(a is b for a, b in zip(created, given, strict=True))
    assert all(item._is_persisted and item._saved_key == item.pk for item in given)
    assert BulkItem.query.count() == 300 and BulkItem.query.filter(status="new", rank__lt=3).count() == 3
    indexes_agree(BulkItem)
    found = BulkItem.load(name="n0007")
    assert found.to_dict() == given[7].to_dict()
    assert abs(found.made - found.changed) < timedelta(seconds=1) and found.changed <= datetime.now()
    assert way(BulkItem.bulk_create, given) == given  # a second time it is an update
    indexes_agree(BulkItem)


def test_bulk_create_of_nothing_stores_nothing(server, way):
    assert way(BulkItem.bulk_create, []) == [] and way(BulkItem.bulk_create, None) == []
    assert list(way(BulkItem.bulk_create, iter(()))) == []
    nothing_left(server)


def test_one_instance_may_stand_for_a_list(server):
    (item,) = items(1)
    assert BulkItem.bulk_create(item) == [item]
    assert BulkItem.bulk_update(item, count=2) == 1 and BulkItem.bulk_delete(item) == 1
    nothing_left(server)


def test_a_batch_is_stored_whole_or_not_at_all_and_the_error_names_the_record(server, way):
    given = items(25)
    given[17].code = None
    given[17].name = None
    progress = []
    with pytest.raises(
        ModelException, match=r"record number 17 .*every key field is None.*before record number 10 was"
    ):
        way(BulkItem.bulk_create, given, batch_size=10, progress=lambda *at: progress.append(at))
    assert names() == {f"n{i:04}" for i in range(10)} and progress == [(10, 25)]
    assert [item._is_persisted for item in given] == [True] * 10 + [False] * 15
    indexes_agree(BulkItem)


@pytest.mark.parametrize("at", [0, 5, 9])
def test_a_value_that_the_server_refuses_refuses_the_batch(server, at):
    BulkItem.create(name="owner", code="taken")
    given = items(10)
    given[at].code = "taken"
    refused(
        server, rf"record number {at} \(BulkItem:n000{at}\): code: the value taken already", BulkItem.bulk_create, given
    )
    assert not any(item._is_persisted for item in given)


def test_two_equal_unique_values_in_one_batch_are_refused(server, way):
    given = items(10)
    given[8].code = given[3].code
    refused(
        server,
        r"record number 8 \(BulkItem:n0008\): code: .*c3 .*belongs to BulkItem:n0003",
        way,
        BulkItem.bulk_create,
        given,
    )
    assert (
        len(way(BulkItem.bulk_create, [*items(3), *(BulkItem(name=f"none{i}") for i in range(3))])) == 6
    )  # None is free
    indexes_agree(BulkItem)


def test_one_key_twice_in_a_batch_is_refused_and_in_two_batches_the_later_one_counts(server):
    twice = [BulkItem(name="a", code="1"), BulkItem(name="b"), BulkItem(name="a", code="2")]
    refused(server, r"record number 2 \(BulkItem:a\).*two records of one batch.*number 0", BulkItem.bulk_create, twice)
    BulkItem.bulk_create(twice, batch_size=2)
    assert BulkItem.load(name="a").code == "2"
    indexes_agree(BulkItem)


def test_a_unique_value_that_one_gives_up_is_free_for_those_behind_it(server):
    first, second, third = BulkItem.bulk_create(items(3))
    first.code, second.code, third.code = "fresh", "c0", "c1"
    refused(server, "record number 0 .*c0", BulkItem.bulk_create, [second, first, third])  # as one by one
    BulkItem.bulk_create([first, second, third])
    assert [BulkItem.query.get(code=code).name for code in ("fresh", "c0", "c1")] == ["n0000", "n0001", "n0002"]
    indexes_agree(BulkItem)


def test_a_value_given_up_and_taken_is_not_free_for_a_third(server):
    first, second, third = BulkItem.bulk_create(items(3))
    first.code, second.code, third.code = "fresh", "c0", "c0"
    refused(
        server,
        "record number 2 .*c0 already exists .it belongs to BulkItem:n0001",
        BulkItem.bulk_create,
        [first, second, third],
    )


def test_the_value_of_an_expired_record_is_free_in_a_batch(server):
    BulkItem.create(name="short", code="c1", _ttl=0.02)
    while BulkItem.query.count():
        pass
    BulkItem.bulk_create(items(3))
    indexes_agree(BulkItem)


def test_a_key_that_may_not_be_overwritten_is_refused(server):
    seat = BulkSeat.create(seat="1A")
    refused(server, "record number 1 .*already exists", BulkSeat.bulk_create,
            [BulkSeat(seat="2A"), BulkSeat(_auto_key=seat._auto_key, seat="3A")])  # fmt: skip


def test_a_changed_key_is_refused_as_by_save(server):
    first, second = BulkItem.bulk_create(items(2))
    second.name = "other"
    refused(server, "record number 1 ", BulkItem.bulk_create, [first, second], error=KeyMutationError)


def test_instances_of_another_class_are_refused(server, way):
    for call in (BulkItem.bulk_create, BulkItem.bulk_delete):
        refused(
            server,
            "record number 1: expected an instance of BulkItem, got",
            way,
            call,
            [*items(1), BulkItems(name="x")],
        )
    refused(server, "expected an instance of BulkItem, got 7", way, BulkItem.bulk_update, [7], count=3)
    for wrong in ("text", b"text", {"name": "x"}, 7, BulkItem, BulkItem.query):
        for call in (BulkItem.bulk_create, BulkItem.bulk_delete):
            refused(server, "expected BulkItem.query.filter", way, call, wrong)
    refused(server, "abstract", Model.bulk_create, [])
    refused(server, "abstract", Model.delete_all)


def test_a_batch_size_is_a_whole_number_and_below_one_counts_as_one(server, round_trips):
    BulkItem.bulk_create(items(1))
    with round_trips() as trips:
        BulkItem.bulk_create(items(3), batch_size=0)
    assert trips.count == 3
    for wrong in (2.0, "10", None, True):
        with pytest.raises(TypeError, match="batch_size"):
            BulkItem.bulk_create([], batch_size=wrong)


def test_a_generator_is_read_a_batch_at_a_time_and_its_instances_are_let_go(server, way):
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = stored = 0

    def source():
        nonlocal most
        for item in (BulkItem(name=f"g{i:04}", rank=i) for i in range(200)):
            alive.add(item)
            most = max(most, len(alive))
            assert BulkItem.query.count() >= stored
            yield item

    def progress(done, total):
        nonlocal stored
        stored = done
        assert total is None and BulkItem.query.count() == done

    created = way(BulkItem.bulk_create, source(), batch_size=20, progress=progress)
    gc.collect()
    assert most <= 45 and len(alive) == 0
    assert len(created) == 200 and created.keys[3] == "BulkItem:g0003"
    assert created[3].rank == 3 and [item.rank for item in created[5:8]] == [5, 6, 7] and created[-1].name == "g0199"
    assert [item.rank for item in created] == list(range(200))
    assert created == [BulkItem(name=f"g{i:04}") for i in range(200)] and created != [BulkItem(name="g0000")]
    assert asyncio.run(created.async_all())[7].rank == 7
    indexes_agree(BulkItem)


def test_a_generator_that_fails_leaves_the_batches_before(server):
    def source():
        yield from items(25)
        raise RuntimeError("the file is torn")

    with pytest.raises(RuntimeError, match="torn"):
        BulkItem.bulk_create(source(), batch_size=10)
    assert len(names()) == 20
    indexes_agree(BulkItem)


def test_ttl_and_expiry_are_those_of_each_instance(server):
    given = items(3)
    given[0]._ttl = 100
    given[1]._expire_at = datetime.now() + timedelta(seconds=500)
    BulkItem.bulk_create(given)
    assert 90_000 < server.pttl("BulkItem:n0000") <= 100_000 and 490_000 < server.pttl("BulkItem:n0001") <= 500_000
    assert server.pttl("BulkItem:n0002") == -1
    indexes_agree(BulkItem)
    given[0]._ttl = None
    given[2]._ttl, given[2]._expire_at = 5, datetime.now() + timedelta(seconds=5)
    refused(server, "record number 2 .*both set", BulkItem.bulk_create, given)
    BulkItem.bulk_create(given[:2])
    assert server.pttl("BulkItem:n0000") == -1
    indexes_agree(BulkItem)


def test_hooks_run_as_in_save_and_a_skipped_record_is_left_out(server, way):
    given = [BulkHooked(name=f"h{i}", note=note, size=i) for i, note in enumerate(["a", "skip", "b", "no", "c"])]
    assert [item.name for item in way(BulkHooked.bulk_create, given)] == ["h0", "h2", "h4"]
    assert names(BulkHooked) == {"h0", "h2", "h4"} and BulkHooked.load(name="h4").doubled == 8
    assert server.lrange("saves", 0, -1) == [b"a", b"b", b"c"]
    assert [item._is_persisted for item in given] == [True, False, True, False, True]
    indexes_agree(BulkHooked)


def test_what_hooks_queued_does_not_run_for_a_refused_batch(server):
    server.set("$Class:BulkHooked", "not a set")
    refused(server, "WRONGTYPE|holds a string", BulkHooked.bulk_create, [BulkHooked(name="a", note="x")])
    server.delete("$Class:BulkHooked")


def test_a_hook_that_fails_is_told_and_the_records_are_stored(server):
    server.set("saves", "a text")
    given = [BulkHooked(name="a", note="x"), BulkHooked(name="b", note="y")]
    with pytest.raises(ModelException, match="BulkHooked:a is saved, but the command"):
        BulkHooked.bulk_create(given)
    assert names(BulkHooked) == {"a", "b"} and all(item._is_persisted for item in given)
    indexes_agree(BulkHooked)


def test_a_save_and_delete_of_the_models_own_are_called_for_each_record(server, way):
    given = [BulkOwnMethods(name=n, status=s) for n, s in (("a", "UP"), ("b", "vetoed"), ("c", "DOWN"))]
    assert [item.name for item in way(BulkOwnMethods.bulk_create, given)] == ["a", "c"]
    assert server.lrange("own", 0, -1) == [b"save a", b"save c"] and given[0]._saved_key == "BulkOwnMethods:a"
    assert given[1]._saved_key is None
    assert BulkOwnMethods.query.filter(status="up").count() == 1
    assert way(BulkOwnMethods.bulk_update, BulkOwnMethods.query.filter(status="up"), status="High") == 1
    assert BulkOwnMethods.load(name="a").status == "high"
    indexes_agree(BulkOwnMethods)
    assert way(BulkOwnMethods.bulk_delete, [given[2]]) == 1 and given[2]._saved_key is None
    assert way(BulkOwnMethods.delete_all) == 1
    assert server.lrange("own", 2, -1) == [b"save a", b"delete c", b"delete a"]
    server.delete("own")
    nothing_left(server)


def test_a_refused_batch_leaves_instances_with_a_save_of_their_own_unsaved(server):
    first, second = BulkOwnMethods(name="a"), BulkOwnMethods(name="a")
    refused(server, "two records of one batch", BulkOwnMethods.bulk_create, [first, second])
    assert first._saved_key is None and not first._is_persisted


# -- bulk_update -------------------------------------------------------------------------------------------------------


def test_bulk_update_of_a_query_moves_the_index_entries(server, way):
    BulkItem.bulk_create(items(200))
    before = BulkItem.load(name="n0003")
    assert way(BulkItem.bulk_update, BulkItem.query.filter(rank__lt=100, status="new"), score=2.5, count=9) == 100
    assert BulkItem.query.filter(score=2.5).count() == 100
    after = BulkItem.load(name="n0003")
    assert (after.score, after.count, after.rank, after.code) == (2.5, 9, 3, "c3") and after.changed > before.changed
    assert after.made == before.made
    indexes_agree(BulkItem)


def test_bulk_update_of_a_partition_field_takes_the_score_along(server, way):
    BulkItem.bulk_create(items(20))
    assert way(BulkItem.bulk_update, BulkItem.query.filter(status="new"), status="old") == 20
    assert (
        BulkItem.query.filter(status="old", rank__gte=15).count() == 5
        and not BulkItem.query.filter(status="new").count()
    )
    assert way(BulkItem.bulk_update, BulkItem.query.filter(status="old", rank__gte=15), rank=-1) == 5
    assert BulkItem.query.filter(status="old", rank=-1).count() == 5
    indexes_agree(BulkItem)


def test_bulk_update_of_instances_changes_them_once_it_is_done_and_nothing_else(server, way):
    first, second, third = BulkItem.bulk_create(items(3))
    first.score, first.count = 7.0, 5  # stays unsaved
    third.delete()
    assert way(BulkItem.bulk_update, [first, second, third, first], status="up", tags=["x"]) == 2
    assert (first.status, second.tags, first.tags) == ("up", ["x"], ["x"]) and first.tags is not second.tags
    assert third.status == "new" and names() == {"n0000", "n0001"}
    stored = BulkItem.load(name="n0000")
    assert (stored.status, stored.score, stored.count) == ("up", 0.0, 1) and stored.changed == first.changed
    indexes_agree(BulkItem)


def test_a_record_deleted_meanwhile_is_neither_stored_again_nor_counted(server, way):
    BulkItem.bulk_create(items(5))
    query = BulkItem.query.filter(status="new")
    selected = list(query)
    BulkItem.load(name="n0001").delete()
    server.delete("BulkItem:n0002")
    assert way(BulkItem.bulk_update, selected, count=4) == 3
    assert names() == {"n0000", "n0003", "n0004"}
    assert way(BulkItem.raw_update, [item.pk for item in selected], count=5) == 3
    assert names() == {"n0000", "n0003", "n0004"}


def test_a_refused_update_changes_neither_the_store_nor_the_instances(server, way):
    given = BulkItem.bulk_create(items(5))
    before = [dict(item.__dict__) for item in given]
    refused(server, "record number 1 .*code: the value same", way, BulkItem.bulk_update, given, code="same", count=3)
    refused(
        server,
        "record number 1 .*code: the value same",
        way,
        BulkItem.bulk_update,
        BulkItem.query.filter(status="new"),
        code="same",
    )
    assert [item.__dict__ for item in given] == before


def test_updates_are_checked_before_anything_is_sent(server, round_trips):
    given = BulkItem.bulk_create(items(2))
    for call in (BulkItem.bulk_update, BulkItem.raw_update):
        with round_trips() as trips:
            refused_by = (
                ("no field colour. Fields: name", ModelException, {"colour": "red"}),
                ("name is part of the key", KeyMutationError, {"name": "x"}),
                ("count", ModelException, {"count": "many"}),
                ("score.* is None", ModelException, {"score": None}),
                ("1024", ModelException, {"status": "x" * 2000}),
            )
            for text, error, updates in refused_by:
                with pytest.raises(error, match=text):
                    call(given, **updates)
        assert trips.count == 0
    assert BulkItem.bulk_update(given) == 0 and BulkItem.bulk_update([], count=3) == 0
    assert BulkItem.bulk_update(None, count=3) == 0
    with pytest.raises(ModelException, match=r"query of BulkItems\. Call BulkItems.bulk_update"):
        BulkItem.bulk_update(BulkItems.query.filter(status="new"), count=3)


def test_an_update_runs_the_hooks_of_the_fields_it_names(server, way):
    BulkHooked.bulk_create([BulkHooked(name=f"h{i}", note="a", size=i) for i in range(3)])
    server.delete("saves")
    assert way(BulkHooked.bulk_update, BulkHooked.query.filter(doubled__gt=0), note="b") == 2
    assert server.lrange("saves", 0, -1) == [b"b", b"b"]
    assert way(BulkHooked.bulk_update, BulkHooked.query.filter(doubled__gt=0), note="skip") == 0
    assert way(BulkHooked.raw_update, ["BulkHooked:h0", b"BulkHooked:h1"], note="raw") == 2
    assert server.llen("saves") == 2 and BulkHooked.load(name="h1").note == "raw"
    indexes_agree(BulkHooked)


def test_raw_update_leaves_auto_now_alone_and_refuses_foreign_keys(server, way):
    (item,) = BulkItem.bulk_create(items(1))
    assert way(BulkItem.raw_update, [item.pk, item.db_key, "BulkItem:gone"], status="raw") == 1
    stored = BulkItem.load(name="n0000")
    assert stored.status == "raw" and stored.changed == item.changed
    refused(
        server, "'BulkItems:x' is no key of a BulkItem record", way, BulkItem.raw_update, ["BulkItems:x"], status="x"
    )
    assert way(BulkItem.raw_update, [], status="x") == 0
    indexes_agree(BulkItem)


def test_an_evaluated_query_gives_its_instances_the_values(server):
    BulkItem.bulk_create(items(4))
    query = BulkItem.query.filter(rank__gte=2, status="new")
    kept = list(query)
    assert BulkItem.bulk_update(query, status="seen") == 2
    assert [item.status for item in kept] == ["seen", "seen"]
    indexes_agree(BulkItem)


def test_limit_and_order_of_a_query_decide_which_records_are_updated(server):
    BulkItem.bulk_create([BulkItem(name=f"n{i}", score=float(i)) for i in range(10)])
    assert BulkItem.bulk_update(BulkItem.query.order_by("-score").limit(3), status="top", batch_size=2) == 3
    assert {item.name for item in BulkItem.query.filter(status="top")} == {"n9", "n8", "n7"}


def test_a_bulk_update_keeps_the_ttl_and_the_clock_of_decay(server):
    memory = BulkMemory.create(name="m", topic="x", text="river stone", _ttl=100)
    BulkMemory.bulk_create([BulkMemory(name=f"m{i}", topic="x", text="river") for i in range(3)])
    assert BulkMemory.bulk_update(BulkMemory.query.filter(topic="x"), topic="y", weight=2.0) == 4
    assert 90_000 < server.pttl("BulkMemory:m") <= 100_000
    stored = BulkMemory.load(name="m")
    assert stored.relevance == memory.relevance and stored.weight == 2.0
    assert {m.name for m in BulkMemory.query.filter(topic="y").top_by_decay("relevance", n=9)} == {
        "m",
        "m0",
        "m1",
        "m2",
    }


# -- bulk_delete and delete_all ----------------------------------------------------------------------------------------


def test_bulk_delete_removes_every_trace(server, way):
    given = BulkItem.bulk_create(items(200))
    assert way(BulkItem.bulk_delete, BulkItem.query.filter(status="new", rank__lt=80)) == 80
    indexes_agree(BulkItem)
    assert way(BulkItem.bulk_delete, given) == 120  # those that existed
    assert not any(item._is_persisted or item._saved_key for item in given)
    nothing_left(server)


def test_a_delete_without_a_filter_is_refused(server, way):
    BulkItem.bulk_create(items(3))
    for query in (
        BulkItem.query.filter(),
        BulkItem.query.order_by("score"),
        BulkItem.query.filter(name__isnull=False).filter(),
    ):
        if query._filters:
            continue
        refused(server, r"no filter .*BulkItem.delete_all\(\)", way, BulkItem.bulk_delete, query)
    with pytest.raises(Exception, match="colour"):
        BulkItem.bulk_delete(BulkItem.query.filter(colour="red"))
    assert way(BulkItem.bulk_delete, []) == 0 and way(BulkItem.bulk_delete, None) == 0
    assert way(BulkItem.bulk_delete, BulkItem.query.order_by("-rank").limit(2)) == 2  # a limit is said on purpose
    assert way(BulkItem.bulk_delete, BulkItem.query.all()) == 1
    nothing_left(server)


def test_deletes_run_the_hooks(server, way):
    BulkHooked.bulk_create([BulkHooked(name=f"h{i}", note=f"v{i}", size=i) for i in range(4)])
    assert way(BulkHooked.bulk_delete, BulkHooked.query.filter(doubled__gte=4)) == 2
    assert server.lrange("deletes", 0, -1) == [b"v2", b"v3"]
    server.hset("BulkHooked:h1", "size", b"\xc1")  # cannot be read: it goes without its hooks
    assert way(BulkHooked.delete_all, batch_size=1) == 2
    assert server.lrange("deletes", 2, -1) == [b"v0"]
    server.delete("saves", "deletes")
    nothing_left(server)


def test_delete_all_takes_this_model_and_no_other(server, way):
    BulkItem.bulk_create(items(30))
    BulkItems.bulk_create(
        [BulkItems(name="BulkItem"), BulkItems(name="BulkItem:n0001"), BulkItems(name="x", status="BulkItem")]
    )
    foreign = {
        "BulkItemX": "1",
        "$KeyF:Other:f:BulkItem": "2",
        "BulkItem": "3",
        "other:BulkItem:n1": "4",
        "$Token:BulkItem": "5",
    }
    server.mset(foreign)
    seen = []
    assert way(BulkItem.delete_all, batch_size=12, progress=lambda *at: seen.append(at)) == 30
    assert seen[-1] == (30, 30) and len(seen) >= 3
    assert {key: server.get(key).decode() for key in foreign} == foreign
    server.delete(*foreign)
    indexes_agree(BulkItems)
    assert len(stored_records(BulkItems)) == 3 and BulkItem.query.count() == 0
    assert way(BulkItem.delete_all) == 0
    assert BulkItems.delete_all() == 3
    nothing_left(server)


def test_delete_all_removes_what_lost_records_left(server, way):
    BulkItem.bulk_create(items(8))
    BulkMemory.bulk_create([BulkMemory(name=f"m{i}", topic="x", text="river stone") for i in range(5)])
    server.delete("BulkItem:n0001", "BulkMemory:m1")
    server.srem("$Class:BulkItem", "BulkItem:n0002")
    server.zrem("$Order:BulkItem", "BulkItem:n0002")  # a record that no list names
    server.delete("BulkItem:n0003", "BulkItem:n0003::$occ")
    server.sadd("$IndexF:BulkItem:status:ghost", "BulkItem:nobody")
    server.zadd("$Expiry:BulkItem", {"BulkItem:long gone": 1})
    server.zadd("$Order:BulkItem", {"BulkItems:not mine": 0})
    server.set("BulkItems:not mine", "kept")
    assert way(BulkItem.delete_all) == 6
    assert way(BulkMemory.delete_all) == 4
    assert server.getdel("BulkItems:not mine") == b"kept"
    nothing_left(server)


def test_delete_all_of_a_store_that_another_program_wrote_in_the_layout(server):
    BulkItem.bulk_create(items(8))
    server.delete("$Order:BulkItem", *server.keys("*::$occ"))
    assert BulkItem.delete_all(batch_size=3) == 8
    nothing_left(server)


def test_delete_all_refuses_a_key_that_holds_something_else(server):
    BulkItem.bulk_create(items(3))
    server.delete("BulkItem:n0001")
    server.set("BulkItem:n0001", "a text")
    refused(server, "n0001 holds a string", BulkItem.delete_all)


def test_names_with_every_special_character_are_deleted_and_updated_alike(server):
    hostile = ["a:b", "*", "[x]", "a\\*", "/", "{t}", "None", "", "ü\0z", "-", "::$occ", "?^'"]
    BulkItem.bulk_create([BulkItem(name=name, status=name) for name in hostile])
    assert BulkItem.bulk_update(BulkItem.query.filter(status__in=hostile), count=3) == len(hostile)
    indexes_agree(BulkItem)
    assert BulkItem.delete_all() == len(hostile)
    nothing_left(server)


# -- against a plain dict ----------------------------------------------------------------------------------------------

RECORDS = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.sampled_from([None, "1", "2", "3"]),
        st.sampled_from(["new", "old"]),
        st.integers(0, 3),
    ),
    max_size=5,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), RECORDS, st.integers(1, 6)),
        st.tuples(st.just("update"), st.sampled_from(["new", "old"]), st.fixed_dictionaries({}, optional={
            "status": st.sampled_from(["new", "old"]), "rank": st.integers(0, 3),
            "code": st.sampled_from([None, "1", "2"]),
        })),
        st.tuples(st.just("delete"), st.sampled_from(["new", "old"]), st.just(0)),
    ),
    max_size=8,
)  # fmt: skip


def saved_one_by_one(state, batch):
    """The dict after these saves, or None when one of them is refused."""
    after = dict(state)
    for name, code, status, rank in batch:
        if code is not None and any(other != name and values[0] == code for other, values in after.items()):
            return None
        after[name] = (code, status, rank)
    return after if len({name for name, *_ in batch}) == len(batch) else None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_random_batches_do_what_a_plain_dict_does(server, steps):
    server.flushall()
    state: dict[str, tuple[Any, str, int]] = {}
    for kind, what, how in steps:
        if kind == "create":
            given_items = [BulkItem(name=n, code=c, status=s, rank=r) for n, c, s, r in what]
            was_refused = False
            for start in range(0, len(what), how):
                after = saved_one_by_one(state, what[start : start + how])
                if after is None:
                    was_refused = True
                    break
                state = after
            if was_refused:
                with pytest.raises(ModelException):
                    BulkItem.bulk_create(given_items, batch_size=how)
            else:
                BulkItem.bulk_create(given_items, batch_size=how)
        elif kind == "update":
            chosen = sorted(name for name, values in state.items() if values[1] == what)
            new = [
                (n, how.get("code", state[n][0]), how.get("status", state[n][1]), how.get("rank", state[n][2]))
                for n in chosen
            ]
            after = saved_one_by_one(state, new)
            if after is None:
                with pytest.raises(ModelException):
                    BulkItem.bulk_update(BulkItem.query.filter(status=what), **how)
            else:
                assert BulkItem.bulk_update(BulkItem.query.filter(status=what), **how) == (len(chosen) if how else 0)
                state = after
        else:
            chosen = [name for name, values in state.items() if values[1] == what]
            assert BulkItem.bulk_delete(BulkItem.query.filter(status=what)) == len(chosen)
            for name in chosen:
                del state[name]
        stored = {v["name"]: (v["code"], v["status"], v["rank"]) for v in stored_records(BulkItem).values()}
        assert stored == state
        indexes_agree(BulkItem)


@pytest.mark.parametrize(
    "chosen",
    [
        lambda query: query.filter(Q()),
        lambda query: query.filter(Q() | Q(status="x")),
        lambda query: query.filter(~~Q()),
        lambda query: query.exclude(~Q()),
        lambda query: query.order_by("name"),
    ],
    ids=["empty", "or-empty", "not-not-empty", "excludes-nothing", "ordered"],
)
def test_a_bulk_delete_of_a_condition_that_is_always_true_is_refused(server, chosen):
    BulkItem.create(name="a")
    before = dump(server)
    with pytest.raises(ModelException, match=r"no filter .*delete_all"):
        BulkItem.bulk_delete(chosen(BulkItem.query))
    assert dump(server) == before
