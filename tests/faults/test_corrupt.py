"""Corrupt input: a clear error, or a record that is left out and logged; never a wrong result or a failed query."""

from __future__ import annotations

import logging
from typing import Any

import msgpack
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto.exceptions import ModelException, PopotoException
from popoto.orm.fields.base import Field
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import IntField
from popoto.orm.keys import occupancy_key
from popoto.orm.model import Model
from tests.orm.oracle import dump


class CorruptRow(Model):
    name = KeyField()
    kind = IndexedField()
    code = UniqueField()
    rank = SortedField(type=int, default=0)
    level = SortedField(type=float, partition_by="kind", default=0.0)
    count = IntField()
    note = Field()

    class Meta:
        indexes = ((("kind", "note"), False),)


HOME = {"$Class:CorruptRow": "set", "$Order:CorruptRow": "zset", "$Expiry:CorruptRow": "zset"}
ROWS = 4


def row(number: int, **values: Any) -> CorruptRow:
    given = {"name": f"r{number}", "kind": "a", "code": f"c{number}", "rank": number, "count": number, "note": "n"}
    return CorruptRow(**{**given, "level": float(number), **values})


@pytest.fixture
def rows(server: redis.Redis) -> list[CorruptRow]:
    made = [row(number) for number in range(ROWS)]
    for record in made:
        record.save()
    return made


def names(found: Any) -> list[str]:
    return sorted(record.name for record in found)


ALL = [f"r{number}" for number in range(ROWS)]

# -- values -----------------------------------------------------------------------------------------------------------

VALUES = [
    b"",
    b"\xc1",
    b"\xff" * 20,
    b"\xda\xff\xff",
    msgpack.packb({"a": 1}),
    msgpack.packb([1, 2]),
    b"\xde\xad\xbe\xef",
]


@pytest.mark.parametrize("raw", VALUES, ids=lambda raw: raw[:4].hex() or "empty")
@pytest.mark.parametrize("field", ["name", "kind", "rank", "level", "count", "note"])
def test_a_record_with_corrupt_bytes_is_left_out_and_logged(server, rows, caplog, field, raw):
    server.hset("CorruptRow:r1", field, raw)
    others = [name for name in ALL if name != "r1"]

    found = CorruptRow.query.filter(kind="a").all()
    assert names(found) == others, "one record more or less"
    assert names(CorruptRow.query.all()) == others
    assert [r.name for r in CorruptRow.query.filter(rank__gte=0).order_by("-rank")] == others[::-1]
    assert "CorruptRow:r1" in caplog.text and f"'{field}'" in caplog.text
    with pytest.raises(ModelException, match=f"CorruptRow:r1: the stored value of field '{field}' cannot be read"):
        CorruptRow.query.get(name="r1")

    found = CorruptRow.check_indexes()
    indexed = field in ("name", "kind", "rank", "level", "note")
    assert found["unreadable"] == indexed == found["total"]
    rebuilt = CorruptRow.rebuild_indexes()
    assert set(rebuilt.skipped) == ({"CorruptRow:r1"} if indexed else set()) and rebuilt == ROWS - indexed
    assert CorruptRow.clean_indexes() == 0

    rows[1].save()  # a full save makes it good
    assert names(CorruptRow.query.all()) == ALL and CorruptRow.check_indexes()["total"] == 0


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    raws=st.dictionaries(
        st.sampled_from(["name", "kind", "code", "rank", "level", "count", "note"]), st.binary(max_size=12)
    ),
)
def test_random_bytes_in_stored_fields_never_break_a_query(server, raws):
    server.flushall()
    for number in range(ROWS):
        row(number).save()
    logging.disable(logging.ERROR)
    try:
        if raws:
            server.hset("CorruptRow:r1", mapping=raws)
        others = [name for name in ALL if name != "r1"]
        for builder in (
            CorruptRow.query.filter(),
            CorruptRow.query.filter(kind="a"),
            CorruptRow.query.filter(rank__gte=0),
            CorruptRow.query.filter(kind="a").order_by("level"),
            CorruptRow.query.filter(kind="a", note="n").order_by("count"),
            CorruptRow.query.filter(kind__startswith="a", note="n"),
        ):
            found = [record.pk.rpartition(":")[2] for record in builder]
            assert len(found) == len(set(found)) and set(found) <= set(ALL)
            assert set(found) >= set(others)
        assert len(CorruptRow.query.filter(kind="a").values("name", "note").all()) >= len(others)
        counted = CorruptRow.check_indexes()
        rebuilt = CorruptRow.rebuild_indexes()
        assert rebuilt + len(rebuilt.skipped) == ROWS
        assert CorruptRow.check_indexes()["total"] in (
            0,
            len(rebuilt.skipped) + sum(len(sentences) for sentences in rebuilt.conflicts.values()),
        ), counted
        row(1).save()
        assert names(CorruptRow.query.all()) == ALL and CorruptRow.check_indexes()["total"] == 0
    finally:
        logging.disable(logging.NOTSET)


# -- foreign keys -----------------------------------------------------------------------------------------------------


def put_foreign(server: Any, key: str, kind: str) -> None:
    """Put a key of another type there."""
    server.delete(key)
    if kind == "string":
        server.set(key, "foreign")
    elif kind == "list":
        server.rpush(key, "foreign")
    elif kind == "hash":
        server.hset(key, "foreign", "1")
    elif kind == "zset":
        server.zadd(key, {"foreign": 1})
    else:
        server.sadd(key, "foreign")


@pytest.mark.parametrize("foreign", ["string", "list", "hash"])
@pytest.mark.parametrize("home", HOME)
def test_a_foreign_key_in_place_of_a_key_of_the_model_is_told_of(server, rows, home, foreign):
    put_foreign(server, home, foreign)
    before = dump(server)
    for call in (CorruptRow.check_indexes, CorruptRow.clean_indexes, CorruptRow.rebuild_indexes):
        with pytest.raises(ModelException, match=r"holds a \w+ where the index keeps a"):
            call()
    for write in (row(9).save, rows[0].save, rows[0].delete):
        with pytest.raises(ModelException, match=r"holds a \w+ where the index keeps a"):
            write()
    assert dump(server) == before
    assert CorruptRow.query.get(name="r2").rank == 2, "a record by its key needs none of them"
    server.delete(home)
    assert CorruptRow.rebuild_indexes() == ROWS
    assert CorruptRow.check_indexes()["total"] == 0 and names(CorruptRow.query.all()) == ALL


PLACES = [
    "$IndexF:CorruptRow:kind:a",
    "$SortF:CorruptRow:rank",
    "$SortF:CorruptRow:level:a",
    "$UniquF:CorruptRow:code:c1",
]
PLACES += ["$Index:CorruptRow:kind:note::a:n", "$KeyF:CorruptRow:name:r1"]


@pytest.mark.parametrize("foreign", ["string", "list", "hash"])
@pytest.mark.parametrize("place", PLACES)
def test_a_foreign_key_in_place_of_an_index_is_told_of_and_the_rest_is_rebuilt(server, rows, caplog, place, foreign):
    put_foreign(server, place, foreign)
    with pytest.raises(ModelException, match=r"holds a \w+ where the index keeps a"):
        rows[1].save()
    held = dump(server)[place.encode()]
    found = CorruptRow.check_indexes()
    assert found["missing"] >= 1
    rebuilt = CorruptRow.rebuild_indexes()
    assert rebuilt == ROWS and "CorruptRow:r1" in rebuilt.conflicts
    assert all("holds a" in sentence for sentences in rebuilt.conflicts.values() for sentence in sentences)
    assert "not indexed in full" in caplog.text
    assert dump(server)[place.encode()] == held, "what is foreign stays"
    assert names(CorruptRow.query.all()) == ALL
    server.delete(place)
    assert CorruptRow.rebuild_indexes().conflicts == {}
    assert CorruptRow.check_indexes()["total"] == 0


@pytest.mark.parametrize("foreign", ["string", "list", "set"])
def test_a_foreign_key_in_place_of_a_record_is_left_out(server, rows, caplog, foreign):
    put_foreign(server, "CorruptRow:r1", foreign)
    others = [name for name in ALL if name != "r1"]
    assert names(CorruptRow.query.filter(kind="a")) == others
    assert "CorruptRow:r1" in caplog.text
    with pytest.raises((PopotoException, redis.ResponseError)):
        rows[1].save()
    assert CorruptRow.check_indexes()["total"] > 0
    CorruptRow.rebuild_indexes()
    assert CorruptRow.check_indexes()["total"] == 0
    assert CorruptRow.query.count() == len(others) and server.exists("CorruptRow:r1")


# -- the list of what a record occupies -------------------------------------------------------------------------------


def whole(server: Any) -> bytes:
    return bytes(server.get(occupancy_key("CorruptRow:r1")))


DAMAGE = {
    "cut": lambda blob: blob[:-3],
    "short": lambda blob: blob[:10],
    "empty": lambda blob: b"",
    "random": lambda blob: b"\x93\xc1\xff\x00 garbage",
    "a number": lambda blob: msgpack.packb(7),
    "a map": lambda blob: msgpack.packb({"a": 1}),
    "two values": lambda blob: blob + blob,
    "wrong shape": lambda blob: msgpack.packb([["name", 5, None, "x", False]]),
    "numbers": lambda blob: msgpack.packb([1, 2, 3]),
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda name: name.replace(" ", "-"))
def test_a_damaged_occupancy_is_told_of_by_writes_and_made_good_by_rebuild(server, rows, damage):
    server.set(occupancy_key("CorruptRow:r1"), DAMAGE[damage](whole(server)))
    before = dump(server)
    rows[1].kind = "b"
    for write in (rows[1].save, lambda: rows[1].save(update_fields=["kind"]), rows[1].delete):
        with pytest.raises(ModelException, match="rebuild_indexes"):
            write()
    assert dump(server) == before, "nothing was written"
    assert names(CorruptRow.query.filter(kind="a")) == ALL
    assert CorruptRow.check_indexes()["missing"] > 0
    assert CorruptRow.clean_indexes() == 0
    assert CorruptRow.rebuild_indexes() == ROWS
    assert CorruptRow.check_indexes()["total"] == 0
    rows[1].save()
    assert names(CorruptRow.query.filter(kind="b")) == ["r1"]
    assert rows[1].delete() is True
    assert CorruptRow.check_indexes()["total"] == 0


def test_an_occupancy_that_lost_entries_leaves_none_behind(server, rows):
    entries = msgpack.unpackb(whole(server))
    server.set(occupancy_key("CorruptRow:r1"), msgpack.packb(entries[:2], use_bin_type=False))
    assert CorruptRow.check_indexes()["total"] > 0
    CorruptRow.rebuild_indexes()
    assert CorruptRow.check_indexes()["total"] == 0
    rows[1].kind = "b"
    rows[1].save()
    assert CorruptRow.query.count(kind="a") == ROWS - 1 and CorruptRow.check_indexes()["total"] == 0


@pytest.mark.parametrize("foreign", ["list", "hash", "set"])
def test_a_foreign_key_in_place_of_an_occupancy_is_told_of(server, rows, foreign):
    put_foreign(server, occupancy_key("CorruptRow:r1"), foreign)
    with pytest.raises((PopotoException, redis.ResponseError), match=r"holds a|WRONGTYPE|cannot be read"):
        rows[1].save()
    assert names(CorruptRow.query.filter(kind="a")) == ALL
    assert CorruptRow.check_indexes()["missing"] >= 1
    rebuilt = CorruptRow.rebuild_indexes()
    assert list(rebuilt.conflicts) == ["CorruptRow:r1"]
    server.delete(occupancy_key("CorruptRow:r1"))
    assert CorruptRow.rebuild_indexes().conflicts == {} and CorruptRow.check_indexes()["total"] == 0


# -- missing indexes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [*PLACES, *HOME])
def test_a_missing_index_gives_no_wrong_record_and_is_rebuilt(server, rows, place):
    server.delete(place)
    for builder in (CorruptRow.query.filter(kind="a"), CorruptRow.query.filter(rank__gte=0), CorruptRow.query.filter()):
        assert set(names(builder)) <= set(ALL)
    assert CorruptRow.rebuild_indexes() == ROWS
    assert CorruptRow.check_indexes()["total"] == 0
    assert names(CorruptRow.query.filter(kind="a", rank__gte=0)) == ALL


def test_members_that_are_no_keys_of_the_model_are_cleaned(server, rows):
    server.sadd("$Class:CorruptRow", b"\xff\xfe", "nonsense", "")
    server.zadd("$Order:CorruptRow", {b"\xff\xfe": 0, "Other:1": 0})
    server.sadd("$IndexF:CorruptRow:kind:a", b"\xff", "x")
    server.hset("Other:1", "a", "b")
    assert names(CorruptRow.query.filter(kind="a").order_by("rank")) == ALL
    found = CorruptRow.check_indexes()
    assert (found["class_set"], found["order"], found["indexed_fields"]["kind"], found["total"]) == (3, 2, 2, 7)
    assert CorruptRow.clean_indexes() == 7
    assert CorruptRow.check_indexes()["total"] == 0 and server.exists("Other:1")
