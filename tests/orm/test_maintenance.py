"""check_indexes finds what is wrong and writes nothing, clean_indexes removes ghosts, rebuild_indexes heals."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import textwrap
import threading
from datetime import datetime, timedelta
from typing import Any

import msgpack
import pytest

from popoto import redis_db
from popoto.exceptions import ModelException
from popoto.memory.access import AccessTrackerMixin
from popoto.memory.bm25 import BM25Field
from popoto.memory.co_occurrence import CoOccurrenceField
from popoto.memory.confidence import ConfidenceField
from popoto.memory.cyclic import CyclicDecayField
from popoto.memory.decay import DecayingSortedField
from popoto.memory.existence import ExistenceFilter
from popoto.memory.frequency import FrequencySketch
from popoto.memory.model import Model as MemoryModel
from popoto.memory.prediction import PredictionLedgerMixin
from popoto.memory.write_filter import WriteFilterMixin
from popoto.orm.fields.base import Field
from popoto.orm.fields.geo import GeoField
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import KeyField, UniqueKeyField
from popoto.orm.fields.relationship import Relationship
from popoto.orm.fields.sorted import SortedField, SortedKeyField
from popoto.orm.keys import occupancy_key
from popoto.orm.model import Model

from .oracle import dump, indexes_agree, nothing_left


class KeptCity(Model):
    name = KeyField()


class KeptShop(Model):
    name = KeyField()
    number = SortedKeyField(type=int, default=0)
    kind = IndexedField()
    code = UniqueField()
    price = SortedField(type=int, partition_by="kind", default=0)
    city = Relationship(model=KeptCity)
    spot = GeoField()
    note = Field()

    class Meta:
        indexes = ((("kind", "code"), True), (("kind", "note"), False))


class KeptMemory(MemoryModel):
    name = UniqueKeyField()
    topic = IndexedField()
    text = Field(default="")
    weight = SortedField(type=float, default=1.0)
    heat = DecayingSortedField(base_score_field="weight", partition_by="topic")
    sure = ConfidenceField(partition_by="topic")
    words = BM25Field(source="text")


class KeptAuto(Model):
    kind = IndexedField()


def shop(number: int, **values: Any) -> KeptShop:
    given = {"name": f"n{number}", "kind": "tea", "code": f"c{number}", "price": number, "note": "x"}
    return KeptShop(**{**given, "city": f"KeptCity:{number}", "spot": (52.0, number / 10), **values})


def memory(number: int, **values: Any) -> KeptMemory:
    return KeptMemory(**{"name": f"m{number}", "topic": "t", "text": f"green tea number {number}", **values})


def saved(make: Any, count: int) -> list[Any]:
    records = [make(number) for number in range(count)]
    for record in records:
        record.save()
    return records


def total(model: Any) -> int:
    return int(model.check_indexes()["total"])


def faults(model: Any) -> dict[str, Any]:
    """Return what check_indexes counts, without zeros and the total."""
    found = {}
    for bucket, value in model.check_indexes().items():
        if isinstance(value, dict):
            value = {name: count for name, count in value.items() if count}
        if value and bucket != "total":
            found[bucket] = value
    return found


def contents(stored: Any) -> dict[Any, Any]:
    """Return what keys hold, without their expiries and the lists of entries, which may be written in two ways."""
    return {key: held[:2] for key, held in stored.items() if b"$occ" not in key.lower()}


BATCHES = [1, 2, 7, 1000]


# -- check ------------------------------------------------------------------------------------------------------------


def test_the_result_names_each_field_of_every_kind_also_where_nothing_is_wrong(server):
    assert KeptShop.check_indexes() == {
        "class_set": 0,
        "partial_writes": 0,
        "key_fields": {"name": 0},
        "sorted_fields": {"number": 0, "price": 0},
        "geo_fields": {"spot": 0},
        "composite_indexes": {"$Index:KeptShop:kind:code": 0, "$Index:KeptShop:kind:note": 0},
        "indexed_fields": {"kind": 0, "code": 0},
        "relationships": {"city": 0},
        "lists": {},
        "other_fields": {},
        "order": 0,
        "expiry": 0,
        "occupancy": 0,
        "stale": 0,
        "missing": 0,
        "unreadable": 0,
        "total": 0,
    }
    result = KeptMemory.check_indexes()
    assert result["sorted_fields"] == {"weight": 0, "heat": 0}
    assert result["other_fields"] == {"sure": 0, "words": 0}
    assert KeptAuto.check_indexes()["key_fields"] == {}, "an auto key keeps no index"


@pytest.mark.parametrize("make", [shop, memory], ids=["shop", "memory"])
@pytest.mark.parametrize("batch_size", BATCHES)
def test_what_was_saved_is_right_whatever_the_batch_size(server, make, batch_size):
    records = saved(make, 12)
    records[3].kind = records[3].topic = "coffee"
    records[3].save()
    records[4].delete()
    assert type(records[0]).check_indexes(batch_size)["total"] == 0
    assert type(records[0]).clean_indexes(batch_size) == 0
    assert type(records[0]).rebuild_indexes(batch_size) == 11


@pytest.mark.parametrize("make", [shop, memory], ids=["shop", "memory"])
@pytest.mark.parametrize("batch_size", BATCHES)
def test_a_record_that_was_deleted_by_hand_is_found_in_every_index_and_cleaned_out_of_it(server, make, batch_size):
    model = type(make(0))
    saved(make, 5)
    others = dump(server)
    victim = make(7)
    victim.save()
    server.delete(victim.pk)
    before = dump(server)

    found = model.check_indexes(batch_size)

    assert dump(server) == before, "a check writes nothing"
    assert found["class_set"] == found["order"] == found["occupancy"] == 1
    for bucket in ("key_fields", "sorted_fields", "geo_fields", "composite_indexes", "indexed_fields", "other_fields"):
        assert all(count >= 1 for count in found[bucket].values()), bucket
    assert not (found["stale"] or found["missing"] or found["unreadable"])
    flat = [n for value in found.values() for n in (value.values() if isinstance(value, dict) else [value])]
    assert found["total"] == sum(flat) - found["total"]

    assert model.clean_indexes(batch_size) == found["total"]
    assert dump(server) == others, "it is gone without a trace, and nothing else is touched"
    assert total(model) == 0


def test_an_entry_under_a_value_that_the_record_has_not_is_stale(server):
    saved(shop, 3)
    server.sadd("$IndexF:KeptShop:kind:coffee", "KeptShop:n1:0")
    server.sadd("$KeyF:KeptShop:name:zzz", "KeptShop:n1:0")
    server.zadd("$SortF:KeptShop:price:coffee", {"KeptShop:n2:0": 5})
    server.hset("$Index:KeptShop:kind:code", "0123456789abcdef", "KeptShop:n2:0")
    assert faults(KeptShop) == {"stale": 4}
    assert KeptShop.query.count(kind="coffee") == 1, "that is the harm it does"
    assert KeptShop.clean_indexes() == 4
    assert KeptShop.query.count(kind="coffee") == 0
    assert total(KeptShop) == 0


def test_a_wrong_score_is_stale_and_rebuilt(server):
    saved(shop, 3)
    server.zadd("$SortF:KeptShop:price:tea", {"KeptShop:n1:0": 99})
    assert faults(KeptShop) == {"stale": 1}
    assert KeptShop.rebuild_indexes() == 3
    assert server.zscore("$SortF:KeptShop:price:tea", "KeptShop:n1:0") == 1 and total(KeptShop) == 0


def test_values_that_were_written_by_hand_are_found_and_rebuilt(server):
    saved(shop, 3)
    server.hset("KeptShop:n1:0", "kind", msgpack.packb("coffee"))
    assert faults(KeptShop) == {"stale": 4}, "kind, price and both composites"
    KeptShop.rebuild_indexes()
    assert total(KeptShop) == 0
    assert [s.name for s in KeptShop.query.filter(kind="coffee")] == ["n1"]
    assert KeptShop.query.filter(kind="coffee", price=1).count() == 1


@pytest.mark.parametrize("make", [shop, memory], ids=["shop", "memory"])
def test_every_entry_that_is_missing_is_found_and_rebuilt(server, make):
    model = type(make(0))
    saved(make, 3)
    before = dump(server)
    statistics = (":df", ":n", ":total", ":avgdl")
    indexes = [key for key in before if key.startswith(b"$") and not key.decode().endswith(statistics)]
    for key in indexes:
        if b"ConfidencF" in key and b"::rank" not in key:
            continue  # what is learnt cannot be made anew
        if key.endswith((b":dl",)):
            continue  # the lengths make the statistics: see the test of BM25
        server.delete(key)
        # postings are held against the list of a record's words; a text that is listed needs its set
        assert faults(model).keys() - {"stale" if b":tf:" in key else "indexed_fields"} == {"missing"}, key
        assert model.rebuild_indexes() == 3
        assert contents(dump(server)) == contents(before), key
        assert total(model) == 0


def test_a_record_without_occupancy_is_found_and_rebuilt(server):
    saved(shop, 3)
    before = dump(server)
    server.delete(occupancy_key("KeptShop:n1:0"))
    assert faults(KeptShop) == {"missing": 10}
    assert KeptShop.clean_indexes() == 0, "what nobody has listed is not taken for stale"
    assert KeptShop.rebuild_indexes() == 3
    assert dump(server) == before and total(KeptShop) == 0


def test_expiries_are_checked(server):
    records = saved(shop, 3)
    records[0]._ttl = 1000
    records[0].save()
    assert total(KeptShop) == 0
    server.expire(records[1].pk, 500)
    server.expire(records[0].pk, 700)
    server.zadd("$Expiry:KeptShop", {records[2].pk: 9e12, "KeptShop:gone:0": 9e12})
    assert faults(KeptShop) == {"expiry": 1, "stale": 2, "missing": 1}
    KeptShop.rebuild_indexes()
    assert total(KeptShop) == 0 and set(server.zrange("$Expiry:KeptShop", 0, -1)) == {
        records[0].pk.encode(),
        records[1].pk.encode(),
    }


def test_what_expired_records_left_is_no_fault_and_clean_removes_it(server):
    nothing = dump(server)
    for number in range(250):
        record = shop(number)
        record._expire_at = datetime.now() + timedelta(seconds=30)
        record.save()
    for number in range(250):
        server.pexpire(f"KeptShop:n{number}:0", 1)
    # as if time had passed: the model's list of expiries says what the server does
    server.zadd("$Expiry:KeptShop", {f"KeptShop:n{number}:0": 1 for number in range(250)})
    while server.exists("KeptShop:n249:0"):
        pass
    assert KeptShop.query.count() == 0
    assert total(KeptShop) == 0
    assert KeptShop.clean_indexes() == 0
    assert dump(server) == nothing


def test_a_partial_write_is_counted_and_cleaned_with_its_record(server):
    KeptAuto.create(kind="a")
    before = dump(server)
    server.hset("KeptAuto:f00", mapping={"kind": msgpack.packb("b")})
    server.sadd("$Class:KeptAuto", "KeptAuto:f00")
    server.hset("KeptAuto:f01", mapping={"_auto_key": b"", "kind": msgpack.packb("b")})
    server.sadd("$Class:KeptAuto", "KeptAuto:f01")
    assert faults(KeptAuto) == {"partial_writes": 2}
    assert KeptAuto.clean_indexes() == 2
    assert dump(server) == before


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "10", None])
def test_a_batch_size_is_a_positive_whole_number(server, wrong):
    for call in (KeptShop.check_indexes, KeptShop.clean_indexes, KeptShop.rebuild_indexes):
        with pytest.raises(ModelException, match="batch_size"):
            call(batch_size=wrong)


def test_large_indexes_are_read_in_parts(server):
    pipeline = server.pipeline()
    for number in range(210):
        shop(number).save(pipeline)
        memory(number).save(pipeline)
    pipeline.execute()
    for model in (KeptShop, KeptMemory):
        assert model.check_indexes(batch_size=50)["total"] == 0
    for number in range(0, 210, 7):
        server.delete(f"KeptShop:n{number}:0", f"KeptMemory:m{number}")
    for model in (KeptShop, KeptMemory):
        found = model.check_indexes(batch_size=50)["total"]
        assert found == model.check_indexes()["total"] and found > 300
        assert model.clean_indexes(batch_size=50) == found
        assert total(model) == 0 and model.query.count() == 180
    kept = [int(server.get(f"$BM25:KeptMemory:words:{name}")) for name in ("n", "total")]
    assert list(BM25Field.recompute_stats(KeptMemory, "words")) == kept and kept[0] == 180


@pytest.mark.parametrize("work", [1, 25])
def test_a_call_ends_where_its_records_have_many_entries_and_the_next_one_goes_on(
    server, monkeypatch, round_trips, work
):
    from popoto.orm import maintenance_rebuild, maintenance_records

    saved(memory, 30)
    saved(shop, 30)
    before = dump(server)
    with round_trips() as few:
        KeptMemory.check_indexes()
    for module in (maintenance_records, maintenance_rebuild):
        monkeypatch.setattr(module, "WORK", work)
    with round_trips() as many:
        assert total(KeptMemory) == 0
    assert many.count >= few.count + 300 / (10 + work), "a record has some ten entries and places"
    server.delete("KeptMemory:m3", "KeptShop:n3:0", *[f"KeptMemory:m{n}::$occ" for n in range(10, 20)])
    server.hset("KeptShop:n5:0", "kind", msgpack.packb("coffee"))
    for model in (KeptMemory, KeptShop):
        assert total(model) > 0
        assert model.rebuild_indexes() == 29
        assert total(model) == 0
    memory(3).save()
    shop(3).save()
    shop(5).save()
    assert dump(server).keys() == before.keys()
    assert total(KeptMemory) == total(KeptShop) == 0


def test_other_models_are_not_touched(server):
    class KeptShopTwo(Model):
        name = KeyField()
        kind = IndexedField()
        kin = IndexedField()

    KeptShopTwo.create(name="a", kind="tea", kin="x")
    shop(1).save()
    server.delete("KeptShopTwo:a")
    assert total(KeptShop) == 0
    KeptShop.rebuild_indexes()
    assert KeptShopTwo.check_indexes()["indexed_fields"] == {"kind": 1, "kin": 1}
    shop_keys = {key for key in dump(server) if b"KeptShopTwo" not in key}
    KeptShopTwo.clean_indexes()
    assert set(dump(server)) == shop_keys


def test_few_round_trips(server, round_trips):
    saved(shop, 120)
    KeptShop.check_indexes()
    keys = len(dump(server))
    for call, most in ((KeptShop.check_indexes, 45), (KeptShop.clean_indexes, 45), (KeptShop.rebuild_indexes, 90)):
        with round_trips() as trips:
            call()
        assert trips.count <= most, f"{trips.count} round trips for {keys} keys"


# -- rebuild ----------------------------------------------------------------------------------------------------------


def strip_to_old_layout(server: Any, model: Any) -> None:
    """Take away all that earlier versions did not keep."""
    for key in list(server.scan_iter(count=1000)):
        if key.endswith((b"::$occ", b"::values", b"::shared")) or b"$Order" in key or b"$Expiry" in key:
            server.delete(key)
        if b"DecayBase" in key or b"::rank" in key or key.endswith(b":total"):
            server.delete(key)


@pytest.mark.parametrize("make", [shop, memory], ids=["shop", "memory"])
@pytest.mark.parametrize("batch_size", [3, 1000])
def test_a_store_of_an_earlier_version_is_opened(server, make, batch_size):
    records = saved(make, 7)
    model = type(records[0])
    if make is memory:
        for signal in (0.9, 0.2):
            ConfidenceField.update_confidence(records[2], "sure", signal)
    records[0]._ttl = 1000
    records[0].save(**({"skip_auto_now": True} if make is memory else {}))
    before = dump(server)
    strip_to_old_layout(server, model)
    assert model.query.count() == 7 and model.query.all() == []
    if make is shop:  # leftovers of that version's own faults
        server.hset("$Index:KeptShop:kind:code", "0123456789abcdef", "KeptShop:n2:0")
        server.sadd("$IndexF:KeptShop:kind:old", "KeptShop:n2:0", "KeptShop:gone:0")
    else:
        server.zadd("$BM25:KeptMemory:words:inv:old", {"KeptMemory:gone": 1})

    assert model.rebuild_indexes(batch_size) == 7

    after = dump(server)
    assert contents(after) == contents(before)
    assert total(model) == 0 and len(model.query.all()) == 7
    if make is memory:
        assert ConfidenceField.get_confidence_data(records[2], "sure")["evidence_count"] == 2


def test_the_indexes_of_a_field_that_was_renamed_or_removed_are_cleared(server):
    class KeptRow(Model):
        name = KeyField()
        old = IndexedField(default="x")
        gone = SortedField(type=int, default=1)

    for number in range(3):
        KeptRow.create(name=f"r{number}")
    KeptRow.create(name="dead")
    server.delete("KeptRow:dead")

    class KeptRow(Model):
        name = KeyField()
        new = IndexedField(default="y")

    assert faults(KeptRow)["missing"] == 3 and faults(KeptRow)["stale"] >= 6
    assert KeptRow.rebuild_indexes() == 3
    assert total(KeptRow) == 0
    assert not [key for key in dump(server) if b":old" in key or b":gone" in key or b"dead" in key]
    assert KeptRow.query.filter(new="y").count() == 3
    for row in KeptRow.query.all():
        row.delete()
    nothing_left(server)


def test_a_unique_value_that_two_records_have_is_reported_and_the_rest_is_indexed(server, caplog):
    saved(shop, 3)
    server.hset("KeptShop:n2:0", "code", msgpack.packb("c1"))
    rebuilt = KeptShop.rebuild_indexes()
    assert rebuilt == 3 and rebuilt.skipped == {}
    assert list(rebuilt.conflicts) in (["KeptShop:n2:0"], ["KeptShop:n1:0"])
    assert all("already exists" in sentence for sentences in rebuilt.conflicts.values() for sentence in sentences)
    assert "not indexed in full" in caplog.text
    assert KeptShop.query.filter(kind="tea").count() == 3
    assert set(faults(KeptShop)) == {"missing"}
    (loser,) = rebuilt.conflicts
    record = KeptShop.query.get(loser)
    with pytest.raises(ModelException, match="already exists"):
        record.save()
    record.code = "free"
    record.save()
    assert KeptShop.rebuild_indexes().conflicts == {} and total(KeptShop) == 0


def test_records_that_cannot_be_read_are_reported_and_left_as_they_are(server, caplog):
    saved(shop, 3)
    server.hset("KeptShop:n1:0", "kind", b"\xc1 no msgpack")
    server.hset("KeptShop:foreign:hash", "a", "b")
    server.set("KeptShop:foreign:string", "b")
    before = dump(server)
    assert faults(KeptShop) == {"unreadable": 2}
    rebuilt = KeptShop.rebuild_indexes()
    assert rebuilt == 2 and set(rebuilt.skipped) == {"KeptShop:n1:0", "KeptShop:foreign:hash"}
    assert "'kind' cannot be read" in rebuilt.skipped["KeptShop:n1:0"] and "KeptShop:n1:0" in caplog.text
    assert dump(server) == before


def test_a_field_that_older_records_lack_is_indexed_by_its_default(server):
    saved(shop, 2)
    server.hdel("KeptShop:n1:0", "kind", "price")
    KeptShop.rebuild_indexes()
    assert total(KeptShop) == 0
    loaded = KeptShop.query.get("KeptShop:n1:0")
    assert (loaded.kind, loaded.price) == (None, 0)
    assert KeptShop.query.filter(kind=None, price=0).count() == 1


def test_progress_is_told(server):
    saved(shop, 5)
    told: list[tuple[int, int]] = []
    KeptShop.rebuild_indexes(batch_size=2, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (5, 5) and [done for done, _ in told] == sorted(done for done, _ in told) and len(told) >= 3


def test_rebuild_leaves_what_is_right_alone(server):
    saved(shop, 20)
    saved(memory, 20)
    before = dump(server)
    changes = server.info("persistence")["rdb_changes_since_last_save"]
    assert KeptShop.rebuild_indexes() == KeptMemory.rebuild_indexes() == 20
    assert dump(server) == before
    assert server.info("persistence")["rdb_changes_since_last_save"] == changes, "not one write"


def test_async_twins_do_the_same(server):
    async def walk() -> None:
        saved(shop, 30)
        server.delete("KeptShop:n3:0")
        server.delete("$Order:KeptShop")
        found = await KeptShop.async_check_indexes(batch_size=3)
        assert found == KeptShop.check_indexes()
        assert await KeptShop.async_clean_indexes(batch_size=3) == found["total"] - found["missing"]
        rebuilt = await KeptShop.async_rebuild_indexes(batch_size=3, progress=lambda *_: None)
        assert rebuilt == 29 and rebuilt.conflicts == {}
        assert (await KeptShop.async_check_indexes())["total"] == 0

    asyncio.run(walk())


# -- on a living store ------------------------------------------------------------------------------------------------


def test_nothing_is_found_wrong_and_nothing_is_lost_while_others_write(server):
    saved(shop, 12)
    stop = threading.Event()
    failures: list[BaseException] = []

    def write(seed: int) -> None:
        try:
            for turn in itertools.count():
                if stop.is_set():
                    return
                number = (seed * 7 + turn * 3) % 12
                record = shop(number, kind=["tea", "coffee", None][turn % 3], price=turn % 5)
                if turn % 4 == 3:
                    record.delete()
                else:
                    record.save()
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(2)]
    for writer in writers:
        writer.start()
    try:
        for batch_size in (3, 1000):
            assert KeptShop.check_indexes(batch_size)["total"] == 0
            assert KeptShop.clean_indexes(batch_size) == 0
            rebuilt = KeptShop.rebuild_indexes(batch_size)
            assert rebuilt.skipped == {} and rebuilt.conflicts == {}
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert not failures
    assert total(KeptShop) == 0


def test_queries_see_no_hole_during_a_rebuild(server):
    saved(shop, 60)
    client = redis_db.get_REDIS_DB()
    stop = threading.Event()
    counts: set[Any] = set()

    def read() -> None:
        while not stop.is_set():
            counts.add((KeptShop.query.count(kind="tea"), len(KeptShop.query.filter(kind="tea", price__gte=0))))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(4):
            for key in client.scan_iter("KeptShop:*::$occ"):
                client.delete(key)
            KeptShop.rebuild_indexes(batch_size=5)
    finally:
        stop.set()
        reader.join()
    assert counts == {(60, 60)}
    assert total(KeptShop) == 0


def test_a_rebuild_that_is_killed_leaves_a_store_that_a_second_one_completes(server, shared_server):
    saved(shop, 60)
    saved(memory, 60)
    before = dump(server)
    strip_to_old_layout(server, KeptShop)
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from popoto import redis_db
        redis_db.configure_url({shared_server.url!r})
        from tests.orm.test_maintenance import KeptMemory, KeptShop
        at = int(sys.argv[1])
        def tell(done, of):
            if done >= at:
                os.kill(os.getpid(), signal.SIGKILL)
        KeptShop.rebuild_indexes(batch_size=4, progress=tell)
        """
    )
    ended = subprocess.run([sys.executable, "-c", script, "25"], check=False)
    assert ended.returncode == -9
    found = {record.pk for record in KeptShop.query.all()}
    assert 20 <= len(found) < 60, "it was in the middle"
    assert KeptShop.query.filter(kind="tea").count() == 60, "nothing that was indexed is missing"
    assert KeptShop.rebuild_indexes() == 60 and KeptMemory.rebuild_indexes() == 60
    assert contents(dump(server)) == contents(before)
    assert total(KeptShop) == total(KeptMemory) == 0


def test_a_record_that_changes_between_reading_and_writing_is_read_again(server, monkeypatch):
    saved(shop, 3)
    strip_to_old_layout(server, KeptShop)
    from popoto.orm import maintenance_rebuild

    original = maintenance_rebuild._rebuild_command
    turns = iter(["coffee", "milk"])

    def meanwhile(*args: Any) -> Any:
        kind = next(turns, None)
        if kind is not None:
            server.hset("KeptShop:n1:0", "kind", msgpack.packb(kind))
        return original(*args)

    monkeypatch.setattr(maintenance_rebuild, "_rebuild_command", meanwhile)
    assert KeptShop.rebuild_indexes() == 3
    assert total(KeptShop) == 0 and KeptShop.query.filter(kind="milk").count() == 1


def test_the_keywords_of_ghosts_leave_with_their_statistics(server):
    saved(memory, 5)
    before = dump(server)
    server.zadd("$BM25:KeptMemory:words:inv:tea", {"KeptMemory:ghost": 3})
    server.zadd("$BM25:KeptMemory:words:df", {"tea": 6})
    memory(8).save()
    server.delete("KeptMemory:m8", "KeptMemory:m8::$occ")
    found = faults(KeptMemory)["other_fields"]["words"]
    assert found == 1 + 3 + 2, "a posting; three postings, their list and the length"
    assert KeptMemory.clean_indexes() == found + 9
    assert dump(server) == before


def test_the_oracle_agrees_after_a_rebuild(server):
    class KeptPlain(Model):
        name = KeyField()
        kind = IndexedField()
        rank = SortedField(type=int, default=0, partition_by="kind")

    for number in range(9):
        KeptPlain.create(name=str(number), kind="ab"[number % 2], rank=2**53 + number)
    for key in list(server.scan_iter()):
        if key.startswith(b"$") and b"Class" not in key:
            server.delete(key)
    KeptPlain.rebuild_indexes()
    indexes_agree(KeptPlain)


# -- memory -----------------------------------------------------------------------------------------------------------


class KeptMind(AccessTrackerMixin, PredictionLedgerMixin, WriteFilterMixin, MemoryModel):
    name = KeyField()
    text = Field(default="")
    cycle = CyclicDecayField(cycles=[(86400.0, 2.0, 0.0)], pressure_rate=0.5, partition_by="topic")
    topic = Field(default="t")
    sure = ConfidenceField()
    links = CoOccurrenceField()
    seen = ExistenceFilter(source="text")
    often = FrequencySketch(source="text")
    words = BM25Field(source="text")

    def compute_filter_score(self) -> float:
        return 0.9


def mind(number: int) -> KeptMind:
    return KeptMind(name=f"m{number}", text=f"green tea number {number}")


def lively(count: int) -> list[KeptMind]:
    records = saved(mind, count)
    for one, other in itertools.pairwise(records):
        KeptMind.links.link(KeptMind, one, other)
    for record in records:
        record.on_read()
        record.confirm_access()
        record.on_read()
        ConfidenceField.update_confidence(record, "sure", 0.8)
        KeptMind.record_prediction(record, {"a": 1})
    KeptMind.resolve_prediction(records[0], {"a": 2})
    return records


def test_every_memory_primitive_is_right_after_use_and_left_alone_by_a_rebuild(server):
    records = lively(4)
    records[1].topic = "u"
    records[1].save()
    before = dump(server)
    assert faults(KeptMind) == {}
    assert KeptMind.clean_indexes(3) == 0 and KeptMind.rebuild_indexes(3) == 4
    assert dump(server) == before


def test_what_memory_primitives_know_of_a_record_that_was_deleted_by_hand_is_found_and_cleaned(server):
    records = lively(4)
    server.delete(records[3].pk)
    found = KeptMind.check_indexes()
    others = found["other_fields"]
    assert others["sure"] == 2 and others["links"] == 1 and others["words"] == 5 and others["@access"] == 4
    assert KeptMind.clean_indexes() == found["total"] and faults(KeptMind) == {}
    assert [linked for linked, _ in KeptMind.links.get_linked(KeptMind, records[2])] == [records[1].pk]
    left = [
        key
        for key, held in dump(server).items()
        if records[3].pk.encode() in key or records[3].pk.encode() in repr(held[1]).encode()
    ]
    assert left == []


def test_a_record_that_lost_its_occupancy_keeps_what_it_has_learnt(server):
    records = lively(3)
    before = dump(server)
    learnt = [
        key for key in before if any(mark in key for mark in (b"ConfidencF", b"$AT", b"$PL", b"$CoOc", b":cycles"))
    ]
    server.delete(occupancy_key(records[1].pk))
    assert set(faults(KeptMind)) == {"missing"}
    assert KeptMind.rebuild_indexes() == 3 and faults(KeptMind) == {}
    assert {key: dump(server)[key] for key in learnt} == {key: before[key] for key in learnt}
