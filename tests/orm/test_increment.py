"""atomic_increment: exact, once, one round trip, and no index entry stays behind."""

from __future__ import annotations

import asyncio
import math
import random
import struct
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact
from fractions import Fraction
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from popoto import redis_db
from popoto.exceptions import KeyMutationError, ModelException
from popoto.memory.confidence import ConfidenceField
from popoto.memory.decay import DecayingSortedField
from popoto.memory.model import Model
from popoto.orm import commands
from popoto.orm.codec import encoder_for
from popoto.orm.fields.base import Field
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import DecimalField, FloatField, IntField
from popoto.orm.keys import index_part
from popoto.orm.scripts import read_lua
from popoto.orm.slots import Made, Slot
from tests.conftest import Server
from tests.faults import workers
from tests.faults.proxy import cutting_proxy

from .oracle import dump, indexes_agree

EXACT = Context(prec=20_000, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[Inexact])

several = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class IncCounter(Model):
    name = KeyField()
    hits = IntField()
    weight = FloatField()
    price = DecimalField()
    note = Field()


class IncIndexed(Model):
    name = KeyField()
    level = IndexedField(type=int)
    ratio = IndexedField(type=float)
    price = IndexedField(type=Decimal)
    ticket = UniqueField(type=int)
    rank = SortedField(type=int, default=0)
    cost = SortedField(type=Decimal, default=Decimal(0))
    speed = SortedField(type=float, partition_by=("level", "note"), default=0.0)
    note = Field()


class IncDecaying(Model):
    name = KeyField()
    importance = FloatField()
    level = IntField(default=1)
    relevance = DecayingSortedField(base_score_field="importance", partition_by="level")
    trust = ConfidenceField(partition_by="level", initial_confidence=0.5)


class TensField(Field):
    """Indexes a number by its tens, which the server knows nothing of."""

    def slots(self) -> list[Slot]:
        name = self.name

        def make(values: Any) -> Made | None:
            return [str(values[name] // 10)], False, None

        return [Slot(name, "s", self.field_class_key, name, (name,), (), make)]


class IncOdd(Model):
    name = KeyField()
    tens = TensField(type=int, default=0)
    number = KeyField(type=int, default=1)


class CentsField(IntField):
    """Stores a number in a form of its own."""

    def encode(self, value: Any) -> bytes:
        return super().encode(value * 100)


class IncCents(Model):
    name = KeyField()
    cents = CentsField(default=1)


def indexed(**values: Any) -> IncIndexed:
    return IncIndexed(**{"name": "a", "ticket": 1, "note": "x", **values})


def stored(name: str, raw: bytes | None) -> IncCounter:
    """Return a saved record whose field `name` holds these bytes; None takes the field away."""
    record = IncCounter.create(name="a")
    client = redis_db.get_REDIS_DB()
    if raw is None:
        client.hdel(record.pk, name)
    else:
        client.hset(record.pk, name, raw)
    return record


def raw_of(record: Any, name: str) -> bytes:
    return redis_db.get_REDIS_DB().hget(record.pk, name)  # type: ignore[return-value]


# -- the number -------------------------------------------------------------------------------------------------------

edges = [0, 1, 127, 128, 255, 256, 2**15, 2**16, 2**31, 2**32, 2**53, 2**63, 2**64, 10**15, 10**16, 2**200]
whole = st.one_of(
    st.sampled_from([sign * (edge + by) for edge in edges for by in (-1, 0, 1) for sign in (-1, 1)]),
    st.integers(-300, 300),
    st.integers(-(2**64), 2**64),
    st.integers(-(10**60), 10**60),
)


@several
@given(before=whole, delta=whole)
@example(2**60 + 1, 1)
@example(2**64 - 1, 1)
@example(2**64, -1)
@example(-(2**63), -1)
@example(-(2**63) - 1, 1)
def test_ints_of_any_size_are_exact_and_stored_as_a_save_would(server: redis.Redis, before: int, delta: int) -> None:
    record = stored("hits", encoder_for(int)(before))

    assert record.atomic_increment("hits", delta) == before + delta == record.hits

    assert raw_of(record, "hits") == encoder_for(int)(before + delta)
    assert type(record.hits) is int


finite = st.floats(allow_nan=False, allow_infinity=False)


@several
@given(before=finite, delta=finite)
@example(0.1, 0.2)
@example(-0.0, -0.0)
@example(5e-324, -5e-324)
def test_floats_add_as_in_python(server: redis.Redis, before: float, delta: float) -> None:
    record = stored("weight", encoder_for(float)(before))
    total = before + delta
    if math.isinf(total):
        with pytest.raises(ModelException, match="no finite float; nothing was written"):
            record.atomic_increment("weight", delta)
        total = before
    else:
        assert repr(record.atomic_increment("weight", delta)) == repr(total)
    assert raw_of(record, "weight") == encoder_for(float)(total)


decimals = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9),
    st.builds(
        lambda sign, digits, exponent: Decimal((sign, tuple(map(int, str(digits))), exponent)),
        st.integers(0, 1),
        st.integers(0, 10**40) | st.integers(0, 20),
        st.integers(-60, 60),
    ),
)


@several
@given(before=decimals, delta=decimals)
@example(Decimal("1E+3"), Decimal("-0.00"))
@example(Decimal("-0"), Decimal("-0.0"))
@example(Decimal("1.10"), Decimal("-1.1"))
@example(Decimal("0E-7"), Decimal("0E+9"))
@example(Decimal("1E-6"), Decimal("0E-7"))
def test_decimals_are_exact_with_the_larger_scale(server: redis.Redis, before: Decimal, delta: Decimal) -> None:
    record = stored("price", encoder_for(Decimal)(before))
    total = EXACT.add(before, delta)

    assert str(record.atomic_increment("price", delta)) == str(total) == str(record.price)

    assert raw_of(record, "price") == encoder_for(Decimal)(total)


@pytest.mark.parametrize("raw", [None, b"\xc0"], ids=["missing", "None"])
def test_nothing_counts_as_zero(server: redis.Redis, raw: bytes | None) -> None:
    for name, delta in [("hits", -5), ("weight", 0.5), ("price", Decimal("1.50"))]:
        record = stored(name, raw)
        assert record.atomic_increment(name, delta) == delta
        assert raw_of(record, name) == encoder_for(type(delta))(delta)


def test_what_another_writer_left_in_a_wider_form_is_read(server: redis.Redis) -> None:
    for name, raw, delta, total in [
        ("hits", b"\xcb" + struct.pack(">d", 2.0**70), 1, 2**70 + 1),
        ("hits", b"\xd3" + struct.pack(">q", -3), 1, -2),
        ("hits", b"\xcf" + struct.pack(">Q", 3), 1, 4),
        ("hits", encoder_for(int)(-(10**300)), 1, 1 - 10**300),
        ("hits", encoder_for(int)(7 * 10**80000 // 10**79000), 1, 7 * 10**1000 + 1),
        ("weight", b"\x03", 0.5, 3.5),
        ("weight", encoder_for(int)(2**63), 1.0, 2.0**63),
        ("weight", encoder_for(int)(2**70), 1.0, 2.0**70),
        ("weight", b"\xca" + struct.pack(">f", 0.5), 1.0, 1.5),
    ]:
        record = stored(name, raw)
        assert record.atomic_increment(name, delta) == total
        assert raw_of(record, name) == encoder_for(type(total))(total)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("hits", b""),
        ("hits", b"\x01\x02"),
        ("hits", b"\xcf\x01"),
        ("hits", b"\xc3"),
        ("hits", b"\xa15"),
        ("hits", b"\xc4\x015"),
        ("hits", b"\xcb" + struct.pack(">d", 2.5)),
        ("hits", b"\xcb" + struct.pack(">d", math.nan)),
        ("hits", encoder_for(object)(Decimal(5))),
        ("hits", encoder_for(object)({"__int__": True})),
        ("hits", b"\x82\xa7__int__\xc3\xacas_encodable\xa11\xc0"),
        ("hits", b"\x82\xa7__int__\xc3\xacas_encodable\xa3 12"),
        ("weight", b"\x82\xa7__int__\xc3\xacas_encodable"),
        ("weight", b"\xcf" + b"\xff" * 8),
        ("weight", b"\xcb\x00"),
        ("weight", b"\xa3nan"),
        ("weight", encoder_for(float)(math.nan)),
        ("weight", encoder_for(float)(-math.inf)),
        ("price", b"\x05"),
        ("price", encoder_for(float)(1.5)),
        ("price", encoder_for(Decimal)(Decimal("NaN"))),
        ("price", encoder_for(Decimal)(Decimal("-Infinity"))),
        ("price", b"\x82\xab__Decimal__\xc3\xacas_encodable\xa21_"),
        ("price", b"\x82\xab__Decimal__\xc3\xacas_encodable\xa1."),
        ("price", b"\x82\xab__Decimal__\xc2\xacas_encodable\xa11"),
    ],
)
def test_stored_bytes_that_are_no_such_number_are_refused(server: redis.Redis, name: str, raw: bytes) -> None:
    record = stored(name, raw)
    before = dump(server)

    with pytest.raises(ModelException, match=rf"IncCounter:a.*{name}.*nothing was written"):
        record.atomic_increment(name, 1)

    assert dump(server) == before


def test_a_sum_of_too_many_digits_is_refused(server: redis.Redis) -> None:
    record = IncCounter.create(name="a", hits=10**4300 - 1, price=Decimal("1E+20000"))
    before = dump(server)
    for name, delta in [("hits", 1), ("price", 1), ("price", Decimal("1E+40000"))]:
        with pytest.raises(ModelException, match="digits; nothing was written"):
            record.atomic_increment(name, delta)
    with pytest.raises(ModelException, match="more than 4300 digits"):
        record.atomic_increment("hits", 1 << 20_000)
    assert dump(server) == before

    assert record.atomic_increment("hits", -1) == 10**4300 - 2
    assert str(record.atomic_increment("price", Decimal("1E+20000"))) == "2E+20000"


# -- the text of an index ---------------------------------------------------------------------------------------------

PARTS = (
    read_lua("popoto.orm", "lib_number")
    + """
local out = {}
for i = 2, #ARGV do out[#out + 1] = number[ARGV[1]].part(number[ARGV[1]].read(ARGV[i])) end
return out
"""
)


def parts_on_the_server(client: redis.Redis, values: list[Any]) -> list[str]:
    encode = encoder_for(type(values[0]))
    reply: Any = client.eval(PARTS, 0, type(values[0]).__name__, *map(encode, values))
    return [part.decode() for part in reply]


def test_floats_print_on_the_server_as_python_prints_them(server: redis.Redis) -> None:
    rng = random.Random(7)
    values = [sign * 2.0**power for power in range(-1074, 1024) for sign in (1, -1)]
    values += [math.nextafter(v, way) if hasattr(math, "nextafter") else v for v in values[:4000] for way in (0, 1e999)]
    values += [float(f"{sign}{digit}e{power}") for power in range(-330, 309) for digit in (1, 5, 9.5) for sign in "+-"]
    values += [0.0, -0.0, 1e15, 1e16, 1e17, 0.0001, 0.00001, 0.1, 1 / 3, 123456789012345680.0, 9007199254740993.0]
    values += struct.unpack("<20000d", rng.randbytes(160_000))
    values = [value for value in values if math.isfinite(value)]
    for start in range(0, len(values), 4000):
        some = values[start : start + 4000]
        assert parts_on_the_server(server, some) == [index_part(value) for value in some]


@several
@given(numbers=st.lists(finite, min_size=1, max_size=50))
def test_a_float_has_one_index_text_on_both_sides(server: redis.Redis, numbers: list[float]) -> None:
    assert parts_on_the_server(server, numbers) == [index_part(number) for number in numbers]


@several
@given(numbers=st.lists(decimals, min_size=1, max_size=50))
def test_a_decimal_has_one_index_text_on_both_sides(server: redis.Redis, numbers: list[Decimal]) -> None:
    assert parts_on_the_server(server, numbers) == [index_part(number) for number in numbers]


# -- indexes ----------------------------------------------------------------------------------------------------------


@several
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["level", "rank", "ticket"]), whole),
            st.tuples(st.sampled_from(["ratio", "speed"]), st.floats(-1e300, 1e300)),
            st.tuples(st.sampled_from(["price", "cost"]), decimals),
        ),
        max_size=6,
    ),
    level=st.none() | st.integers(-3, 3),
)
def test_every_index_entry_moves_with_the_number(
    server: redis.Redis, steps: list[tuple[str, Any]], level: int | None
) -> None:
    server.flushall()
    record = indexed(level=level)
    record.save()
    for name, delta in steps:
        record.atomic_increment(name, delta)
    indexes_agree(IncIndexed)
    assert IncIndexed.query.filter(level=record.level).first() == record
    assert IncIndexed.query.filter(ratio=record.ratio, ticket=record.ticket).count() == 1
    record.save()
    indexes_agree(IncIndexed)
    record.delete()
    assert dump(server) == {}


def test_the_order_follows_the_number(server: redis.Redis) -> None:
    first, second = (IncIndexed.create(name=n, ticket=t, note="x", rank=t) for n, t in (("a", 1), ("b", 2)))

    first.atomic_increment("rank", 5)

    assert IncIndexed.query.filter().order_by("rank") == [second, first]
    assert IncIndexed.query.filter(rank__gt=5) == [first]


def test_an_entry_of_a_partition_follows_the_number_that_names_it(server: redis.Redis) -> None:
    record = indexed(level=1, speed=2.5)
    record.save()
    record.note = "not stored"  # what the caller has, but never saved, moves nothing

    record.atomic_increment("level", 1)

    assert server.zrange("$SortF:IncIndexed:speed:2:x", 0, -1, withscores=True) == [(b"IncIndexed:a", 2.5)]
    indexes_agree(IncIndexed)


def test_a_unique_number_that_is_taken_is_refused(server: redis.Redis) -> None:
    record = indexed(ticket=1)
    record.save()
    indexed(name="b", ticket=2).save()
    before = dump(server)

    with pytest.raises(ModelException, match=r"already exists.*nothing was written"):
        record.atomic_increment("ticket", 1)

    assert dump(server) == before
    assert record.ticket == 1
    assert record.atomic_increment("ticket", 2) == 3


def test_an_index_key_of_another_type_is_refused_before_anything_is_written(server: redis.Redis) -> None:
    record = indexed(level=1)
    record.save()
    server.set("$SortF:IncIndexed:speed:2:x", "in the way")
    before = dump(server)
    with pytest.raises(ModelException, match="nothing was written"):
        record.atomic_increment("level", 1)
    assert dump(server) == before


def test_the_base_score_of_a_decay_field_follows(server: redis.Redis) -> None:
    weak, strong = (IncDecaying.create(name=n, importance=i) for n, i in (("weak", 1.0), ("strong", 2.0)))
    ranked = IncDecaying.query.filter(level=1)
    assert ranked.top_by_decay("relevance", 2) == [strong, weak]

    weak.atomic_increment("importance", 5)

    assert IncDecaying.query.filter(level=1).top_by_decay("relevance", 2) == [weak, strong]
    assert server.zscore("$DecayBase:IncDecaying:relevance:1", weak.pk) == 6.0


def test_all_that_is_kept_by_partition_moves_along(server: redis.Redis) -> None:
    record = IncDecaying.create(name="a", importance=3.0)
    touched = record.relevance
    ConfidenceField.update_confidence(record, "trust", 0.9)
    learnt = ConfidenceField.get_confidence(record, "trust")

    record.atomic_increment("level", 1)

    assert server.zscore("$DecayBase:IncDecaying:relevance:2", record.pk) == 3.0
    assert server.zscore("$DecayingSortF:IncDecaying:relevance:2", record.pk) == touched
    assert ConfidenceField.get_confidence(record, "trust") == learnt != 0.5
    assert not [key for key in server.keys("$*:1") if not key.startswith(b"$Token")]
    assert IncDecaying.query.filter(level=2).top_by_decay("relevance", 2) == [record]


def test_the_time_of_a_decay_field_is_a_number_like_any_other(server: redis.Redis) -> None:
    record = IncDecaying.create(name="a")
    touched = record.relevance
    assert record.atomic_increment("relevance", -86400) == touched - 86400
    assert server.zscore("$DecayingSortF:IncDecaying:relevance:1", record.pk) == touched - 86400
    assert server.zscore("$DecayBase:IncDecaying:relevance:1", record.pk) == 1.0


def test_what_the_server_cannot_compute_is_refused(server: redis.Redis) -> None:
    odd, trusted = IncOdd.create(name="a"), IncDecaying.create(name="a")
    before = dump(server)
    with pytest.raises(ModelException, match="cannot move the index entry 'tens'"):
        odd.atomic_increment("tens", 1)
    with pytest.raises(ModelException, match="cannot move the index entry 'trust#data'"):
        trusted.atomic_increment("trust", 0.1)
    with pytest.raises(KeyMutationError, match="part of the record's key"):
        odd.atomic_increment("number", 1)
    with pytest.raises(TypeError, match="stores its value as it is"):
        IncCents.create(name="a").atomic_increment("cents", 1)
    IncCents.load(name="a").delete()
    assert dump(server) == before


def test_a_record_without_a_list_of_its_entries_is_refused_if_one_would_move(server: redis.Redis) -> None:
    record = indexed(level=1)
    record.save()
    server.delete("IncIndexed:a::$occ")
    with pytest.raises(ModelException, match="rebuild_indexes"):
        record.atomic_increment("level", 1)
    counter = IncCounter.create(name="a", hits=1)
    server.delete("IncCounter:a::$occ")
    assert counter.atomic_increment("hits", 1) == 2


# -- the call ---------------------------------------------------------------------------------------------------------


def test_it_is_one_round_trip(server: redis.Redis, round_trips: Any) -> None:
    record, plain = indexed(level=1), IncCounter.create(name="a")
    record.save()
    record.atomic_increment("level", 1)
    with round_trips() as trips:
        record.atomic_increment("level", 1)
        record.atomic_increment("rank", 1)
        plain.atomic_increment("hits", 1)
    assert trips.count == 3


def test_what_is_stored_counts_and_nothing_else_is_written(server: redis.Redis) -> None:
    mine = IncCounter.create(name="a", hits=1, note="old")
    IncCounter.load(name="a").atomic_increment("hits", 10)
    mine.note = "unsaved"
    assert mine.atomic_increment("hits", 1) == 12 == mine.hits
    assert IncCounter.load(name="a").note == "old"


def test_async_is_the_same(server: redis.Redis) -> None:
    record = indexed(level=1)
    record.save()

    async def both() -> list[int]:
        return [await record.async_atomic_increment("level", by) for by in (1, -5)]

    assert asyncio.run(both()) == [2, -3]
    assert record.level == -3
    indexes_agree(IncIndexed)
    with pytest.raises(AttributeError):
        asyncio.run(record.async_atomic_increment("nothing", 1))
    server.delete(record.pk)
    with pytest.raises(TypeError, match="not stored"):
        asyncio.run(record.async_atomic_increment("level", 1))


def test_a_pipeline_queues_and_the_attribute_follows(server: redis.Redis) -> None:
    record = IncCounter.create(name="a", hits=1, price=Decimal("1.10"))
    IncCounter.load(name="a").atomic_increment("hits", 100)
    pipeline = server.pipeline()

    assert record.atomic_increment("hits", 2, pipeline=pipeline) is pipeline
    record.atomic_increment("price", Decimal("0.005"), pipeline=pipeline)
    record.atomic_increment("weight", 1.5, pipeline=pipeline)
    assert asyncio.run(record.async_atomic_increment("hits", 1, pipeline=pipeline)) is pipeline

    assert (record.hits, str(record.price), record.weight) == (4, "1.105", 1.5)
    assert IncCounter.load(name="a").hits == 101
    assert pipeline.execute() == [b"103", b"1.105", b"1.5", b"104"]
    assert IncCounter.load(name="a").hits == 104
    with pytest.raises(TypeError, match="pipeline="):
        record.atomic_increment("hits", 1, pipeline=server)


def test_a_refusal_in_a_pipeline_says_what_is_wrong(server: redis.Redis) -> None:
    record = IncCounter.create(name="a")
    server.delete(record.pk)
    pipeline = record.atomic_increment("hits", 1, pipeline=server.pipeline())
    with pytest.raises(redis.ResponseError, match="not stored"):
        pipeline.execute()


def test_the_ttl_stays(server: redis.Redis) -> None:
    record = indexed(_ttl=1000)
    record.save()
    at = server.pexpiretime(record.pk)
    record.atomic_increment("rank", 1)
    assert server.pexpiretime(record.pk) == at
    indexes_agree(IncIndexed)


@pytest.mark.parametrize(
    "delta", [None, True, "1", b"1", [1], 1j, math.nan, math.inf, Decimal("NaN"), Decimal("-Infinity")]
)
@pytest.mark.parametrize("name", ["hits", "weight", "price"])
def test_a_delta_that_is_no_finite_number_is_refused(server: redis.Redis, name: str, delta: Any) -> None:
    record = IncCounter.create(name="a")
    with pytest.raises(TypeError, match=rf"IncCounter.{name}: delta="):
        record.atomic_increment(name, delta)


def test_a_delta_must_fit_the_field_without_loss(server: redis.Redis) -> None:
    record = IncCounter.create(name="a")
    for name, delta in [
        ("hits", 1.0),
        ("hits", Decimal(1)),
        ("hits", Fraction(1)),
        ("weight", 2**53 + 1),
        ("weight", Decimal("0.1234567890123456789")),
        ("price", Fraction(1, 3)),
    ]:
        with pytest.raises(TypeError, match="delta="):
            record.atomic_increment(name, delta)
    assert record.atomic_increment("weight", 2) == 2.0
    assert record.atomic_increment("weight", Decimal("0.5")) == 2.5
    assert record.atomic_increment("price", 0.1) == Decimal("0.1")
    assert record.atomic_increment("price", 1) == Decimal("1.1")
    assert [type(v) for v in (record.weight, record.price)] == [float, Decimal]


def test_a_numpy_integer_is_an_int(server: redis.Redis) -> None:
    numpy = pytest.importorskip("numpy")
    record = IncCounter.create(name="a")
    assert record.atomic_increment("hits", numpy.int64(3)) == 3
    assert record.atomic_increment("weight", numpy.float64(0.5)) == 0.5
    with pytest.raises(TypeError):
        record.atomic_increment("hits", numpy.bool_(True))


def test_a_wrong_field_or_record_is_refused(server: redis.Redis) -> None:
    record = IncCounter(name="a")
    with pytest.raises(TypeError, match="never saved"):
        record.atomic_increment("hits", 1)
    record.save()
    with pytest.raises(AttributeError, match="no field 'nothing'"):
        record.atomic_increment("nothing", 1)
    with pytest.raises(TypeError, match="needs a field of type int"):
        record.atomic_increment("note", 1)
    server.delete(record.pk)
    with pytest.raises(TypeError, match="IncCounter:a is not stored"):
        record.atomic_increment("hits", 1)
    assert not server.exists(record.pk)
    record.save()
    record.delete()
    with pytest.raises(TypeError, match="deleted"):
        record.atomic_increment("hits", 1)


# -- many and broken --------------------------------------------------------------------------------------------------


def count_up(times: int) -> None:
    record = IncIndexed.load(name="a")
    for number in range(times):
        record.atomic_increment("rank", 1)
        if number % 3 == 0:
            record.atomic_increment("level", 2)
            record.atomic_increment("cost", Decimal("0.01"))


def test_several_processes_lose_nothing(server: redis.Redis, shared_server: Server) -> None:
    indexed(level=2**62).save()
    running = [workers.start(count_up, shared_server.url, 300) for _ in range(4)]
    try:
        for process in running:
            process.join(60)
    finally:
        for process in running:
            process.kill()
    assert server.lrange(workers.ERRORS, 0, -1) == []
    record = IncIndexed.load(name="a")
    assert (record.rank, record.level, str(record.cost)) == (1200, 2**62 + 800, "4.00")
    indexes_agree(IncIndexed)


@pytest.mark.parametrize("cut", ["cut_replies", "cut_commands"])
def test_a_broken_connection_counts_once(
    server: redis.Redis, shared_server: Server, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_PAUSES_S", (0.0, 0.01, 0.01))
    record = indexed(level=1)
    record.save()
    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        try:
            getattr(proxy, cut)(then=lambda: server.hset("IncIndexed:a", "note", encoder_for(str)("between")))
            assert record.atomic_increment("level", 1) == 2
            getattr(proxy, cut)()
            assert asyncio.run(record.async_atomic_increment("level", 1)) == 3
            assert proxy.cuts == 2
        finally:
            redis_db.configure_url(shared_server.url)
    assert IncIndexed.load(name="a").level == 3
