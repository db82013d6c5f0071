"""ExistenceFilter: no word of a stored record is missed, what is deleted is forgotten, errors stay within the rate."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto import ExistenceFilter, Field, IntField, KeyField, Model, ModelException, QueryException
from popoto.memory.existence import filter_size
from tests.memory.traces import stored, traces


class Memo(Model):
    name = KeyField()
    text = Field(default="", max_length=None)
    count = IntField(default=0)
    known = ExistenceFilter(source="text", capacity=2000)


class DescribedMemo(Model):
    name = KeyField()
    title = Field(default="")
    body = Field(default="")
    known = ExistenceFilter(fingerprint_fn=lambda memo: f"{memo.title} {memo.body}", capacity=1000)


class Named(Model):
    name = KeyField()
    known = ExistenceFilter()


class Tiny(Model):
    name = KeyField()
    text = Field(default="", max_length=None)
    known = ExistenceFilter(source="text", capacity=5, error_rate=0.1)


known: Any = Memo._meta.fields["known"]


def filter_keys(server: redis.Redis) -> list[bytes]:
    return server.keys("$EF:*")


# -- size --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error_rate", [0.5, 0.1, 0.05, 0.01, 0.001, 1e-6])
@pytest.mark.parametrize("capacity", [1, 10, 1000, 100_000])
def test_the_size_is_that_of_the_textbook(capacity: int, error_rate: float) -> None:
    bits, hashes = filter_size(capacity, error_rate)

    def rate(bits: int, hashes: int) -> float:
        return (1 - math.exp(-hashes * capacity / bits)) ** hashes

    assert rate(bits, hashes) <= error_rate * (1 + 1e-9)
    if bits > 8:
        assert all(rate(bits - 1, k) > error_rate * (1 - 1e-9) for k in range(1, 25)), "no smaller one would do"
    optimal = -capacity * math.log(error_rate) / math.log(2) ** 2
    assert bits <= max(8, optimal * 1.06 + 1)


def test_the_documented_default(server: redis.Redis) -> None:
    field: Any = Named._meta.fields["known"]
    assert (field.error_rate, field.capacity, field.fingerprint_fn) == (0.01, 100_000, None)
    assert (field.bits, field.hashes) == (1_004_958, 7)


@pytest.mark.parametrize(
    "options",
    [{"capacity": 0}, {"capacity": 1.5}, {"error_rate": 0}, {"error_rate": 1}, {"error_rate": 2}, {"error_rate": "x"},
     {"fingerprint_fn": "text"}, {"source": 3}, {"source": ["text"]}, {"default": "x"}, {"capacity": 10**10}],
    ids=str,
)  # fmt: skip
def test_options_out_of_range_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ModelException):
        ExistenceFilter(**options)


def test_a_source_that_is_no_field_is_refused() -> None:
    with pytest.raises(ModelException, match="'missing', which is no field"):

        class Wrong(Model):
            name = KeyField()
            known = ExistenceFilter(source="missing")


@pytest.mark.parametrize(("capacity", "error_rate"), [(2000, 0.01), (500, 0.1), (1000, 0.001)])
@pytest.mark.parametrize("shape", ["numbered", "random letters"])
def test_at_capacity_the_measured_error_rate_is_at_most_the_one_asked_for(
    server: redis.Redis, capacity: int, error_rate: float, shape: str
) -> None:
    class Full(Model):
        name = KeyField()
        text = Field(max_length=None)
        known = ExistenceFilter(source="text", capacity=capacity, error_rate=error_rate)

    rng = random.Random(7)

    def word(number: int) -> str:
        return f"item{number:06}" if shape == "numbered" else "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=8))

    words = list(dict.fromkeys(word(number) for number in range(capacity)))
    for start in range(0, capacity, 500):
        Full.create(name=str(start), text=" ".join(words[start : start + 500]))
    field: Any = Full._meta.fields["known"]
    assert all(field.might_exist_batch(Full, words).values())
    unknown = [text for text in (word(number) for number in range(10**6, 10**6 + 20_000)) if text not in words]
    errors = field.might_exist_count(Full, unknown)
    assert errors / len(unknown) <= error_rate
    assert field.fill_ratio(Full) == pytest.approx(0.5, abs=0.06)


# -- questions ---------------------------------------------------------------------------------------------------------


def test_any_word_counts(server: redis.Redis, way: Callable[..., Any], round_trips: Any) -> None:
    Memo.create(name="a", text="Deploy the Kubernetes cluster")
    assert way(known.might_exist, Memo, "kubernetes")
    assert way(known.might_exist, Memo, "nothing but CLUSTER")
    assert not way(known.might_exist, Memo, "postgres backups")
    assert way(known.definitely_missing, Memo, "postgres backups")
    assert not way(known.definitely_missing, Memo, "deploy")
    assert not way(known.might_exist, Memo, "the"), "a stop word is no word; as a text it was never stored"
    with round_trips() as trips:
        known.might_exist(Memo, "a text of a good many words, in one call")
        known.fill_ratio(Memo)
    assert trips.count == 2


def test_an_empty_store_knows_nothing(server: redis.Redis, way: Callable[..., Any]) -> None:
    assert not way(known.might_exist, Memo, "anything")
    assert way(known.fill_ratio, Memo) == 0.0
    assert way(known.might_exist_batch, Memo, ["a", "b"]) == {"a": False, "b": False}


def test_many_questions_are_one_round_trip(server: redis.Redis, way: Callable[..., Any], round_trips: Any) -> None:
    Memo.create(name="a", text=" ".join(f"word{number}" for number in range(50)))
    texts = [f"word{number} other" for number in range(100)]
    expected = {text: number < 50 for number, text in enumerate(texts)}
    with round_trips() as trips:
        assert known.might_exist_batch(Memo, texts) == expected
        assert known.might_exist_count(Memo, [*texts, *texts]) == 50
    assert trips.count == 2
    assert way(known.might_exist_batch, Memo, (text for text in texts)) == expected
    assert way(known.might_exist_count, Memo, texts) == 50


def test_answers_come_under_the_questions_as_given(server: redis.Redis) -> None:
    Memo.create(name="a", text="2024 Apple")
    assert known.might_exist_batch(Memo, ["Apple", 2024, "Apple", "pear"]) == {"Apple": True, 2024: True, "pear": False}
    assert list(known.might_exist_batch(Memo, ["z", "y", "z"])) == ["z", "y"]


@pytest.mark.parametrize("nothing", [[], None, ()], ids=str)
def test_no_question_no_call(server: redis.Redis, way: Callable[..., Any], round_trips: Any, nothing: Any) -> None:
    with round_trips() as trips:
        assert way(known.might_exist_batch, Memo, nothing) == {}
        assert way(known.might_exist_count, Memo, nothing) == 0
        for call in (known.might_exist_batch, known.might_exist_count):
            with pytest.raises(TypeError, match="expected a list"):
                way(call, Memo, "a single text")
    assert trips.count == 0


def test_thousands_of_words_in_one_question_and_in_one_record(server: redis.Redis) -> None:
    words = [f"word{number:05}" for number in range(9000)]
    Memo.create(name="a", text=" ".join(words))
    assert known.might_exist(Memo, "unknown " * 9000 + words[-1])
    assert all(known.might_exist_batch(Memo, words).values())
    Memo.query.get(name="a").delete()
    assert stored(server) == {}


# -- fingerprints ------------------------------------------------------------------------------------------------------


def test_a_function_makes_the_words(server: redis.Redis) -> None:
    DescribedMemo.create(name="a", title="apple", body="orange")
    field: Any = DescribedMemo._meta.fields["known"]
    assert field.might_exist_batch(DescribedMemo, ["apple", "orange", "pear"]) == {
        "apple": True,
        "orange": True,
        "pear": False,
    }


def test_without_function_and_source_it_is_the_key(server: redis.Redis) -> None:
    Named.create(name="quokka")
    field: Any = Named._meta.fields["known"]
    assert field.might_exist(Named, "quokka")
    record = Named.query.get(name="quokka")
    record.name = "numbat"
    record.save(migrate_key=True)
    assert field.might_exist_batch(Named, ["quokka", "numbat"]) == {"quokka": False, "numbat": True}


@pytest.mark.parametrize(
    ("made", "asked"),
    [("a b", "A B"), ("", ""), (42, "42"), (3.5, "3.5")],
    ids=["short words", "empty", "int", "float"],
)
def test_a_text_without_words_is_kept_whole(server: redis.Redis, made: Any, asked: str) -> None:
    class Odd(Model):
        name = KeyField()
        known = ExistenceFilter(fingerprint_fn=lambda _: made, capacity=10)

    Odd.create(name="a")
    field: Any = Odd._meta.fields["known"]
    assert field.might_exist(Odd, asked)
    assert not field.might_exist(Odd, "x")


def test_a_fingerprint_of_none_refuses_the_save(server: redis.Redis) -> None:
    class Wrong(Model):
        name = KeyField()
        known = ExistenceFilter(fingerprint_fn=lambda _: None)

    with pytest.raises(ValueError, match="the fingerprint of Wrong:a is None"):
        Wrong.create(name="a")
    assert stored(server) == {}


def test_it_holds_no_value(server: redis.Redis) -> None:
    assert Memo.create(name="a").known is None
    with pytest.raises(ModelException, match="takes no value"):
        Memo(name="a", known="x")
    with pytest.raises(QueryException, match="no value to filter by"):
        Memo.query.filter(known="x").all()


# -- forgetting --------------------------------------------------------------------------------------------------------


def test_what_is_deleted_is_certainly_absent(server: redis.Redis) -> None:
    Memo.create(name="a", text="apple orange")
    Memo.create(name="b", text="orange pear")
    Memo.query.get(name="a").delete()
    assert known.might_exist_batch(Memo, ["apple", "orange", "pear"]) == {"apple": False, "orange": True, "pear": True}
    Memo.query.get(name="b").delete()
    assert known.fill_ratio(Memo) == 0.0
    assert stored(server) == {}


def test_what_is_said_otherwise_is_forgotten(server: redis.Redis) -> None:
    memo = Memo.create(name="a", text="apple orange")
    memo.text = "orange pear"
    memo.save()
    assert known.might_exist_batch(Memo, ["apple", "orange", "pear"]) == {"apple": False, "orange": True, "pear": True}
    memo.text = "plum"
    memo.save(update_fields=["text"])
    assert known.might_exist_batch(Memo, ["orange", "pear", "plum"]) == {"orange": False, "pear": False, "plum": True}
    before = {key: server.dump(key) for key in filter_keys(server)}
    memo.save()
    memo.save()
    assert {key: server.dump(key) for key in filter_keys(server)} == before


def test_a_partial_save_of_other_fields_leaves_the_words(server: redis.Redis) -> None:
    Memo.create(name="a", text="apple")
    stale = Memo.query.get(name="a")
    fresh = Memo.query.get(name="a")
    fresh.text = "pear"
    fresh.save()
    stale.count = 5
    stale.save(update_fields=["count"])
    assert known.might_exist_batch(Memo, ["apple", "pear"]) == {"apple": False, "pear": True}
    assert stale.atomic_increment("count", 1) == 6


def test_without_a_source_each_save_takes_the_words(server: redis.Redis) -> None:
    field: Any = DescribedMemo._meta.fields["known"]
    memo = DescribedMemo.create(name="a", title="apple", body="orange")
    memo.title = "pear"
    memo.save(update_fields=["title"])
    assert field.might_exist_batch(DescribedMemo, ["apple", "orange", "pear"]) == {
        "apple": False,
        "orange": True,
        "pear": True,
    }


@pytest.mark.parametrize("fields", [None, ["name"]], ids=["whole", "partial"])
def test_a_key_migration_counts_words_once(server: redis.Redis, fields: list[str] | None) -> None:
    memo = Memo.create(name="quokka", text="apple")
    memo.name = "numbat"
    memo.save(migrate_key=True, update_fields=fields)
    assert known.might_exist(Memo, "apple")
    assert traces(server, "quokka") == []
    memo.delete()
    assert stored(server) == {}


def test_expired_words_are_forgotten_with_the_next_write(server: redis.Redis) -> None:
    brief = Memo(name="quokka", text="apple")
    brief._ttl = 0.02
    brief.save()
    Memo.create(name="b", text="pear")
    time.sleep(0.05)
    Memo.create(name="c", text="plum")
    assert known.might_exist_batch(Memo, ["apple", "pear"]) == {"apple": False, "pear": True}


def test_a_word_of_very_many_records_is_forgotten_with_the_last_one(server: redis.Redis) -> None:
    memos = [Memo.create(name=str(number), text="common") for number in range(300)]
    for memo in memos[:-1]:
        memo.delete()
    assert known.might_exist(Memo, "common")
    memos[-1].delete()
    assert not known.might_exist(Memo, "common")
    assert stored(server) == {}


WORDS = ["apple", "orange", "pear", "plum", "cherry", "grape", "lemon", "melon"]
WHAT = ["save", "delete", "partial", "move"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(WHAT), st.sets(st.sampled_from(WORDS))), max_size=15)
)
def test_the_filter_is_that_of_the_records_there_are(server: redis.Redis, steps: list[Any]) -> None:
    """Whatever happened, it equals a filter that only ever saw the records of now."""
    server.flushall()
    there: dict[str, set[str]] = {}
    for name, what, words in steps:
        memo = Tiny(name=name, text=" ".join(sorted(words)))
        if what == "save":
            memo.save()
            there[name] = words
        elif what == "delete":
            memo.delete()
            there.pop(name, None)
        elif name in there and what == "partial":
            memo.save(update_fields=["text"])
            there[name] = words
        elif name in there and what == "move" and "z" not in there:
            loaded: Any = Tiny.query.get(name=name)
            loaded.name = "z"
            loaded.save(migrate_key=True)
            there["z"] = there.pop(name)
    now = {key: server.get(key) for key in server.keys("$EF:*") if server.type(key) == b"string"}
    shapes = server.hgetall("$EF:Tiny:known::shapes")
    server.flushall()
    for name, words in there.items():
        Tiny.create(name=name, text=" ".join(sorted(words)))
    fresh = {key: server.get(key) for key in server.keys("$EF:*") if server.type(key) == b"string"}
    assert {k: v.rstrip(b"\0") for k, v in now.items()} == {k: v.rstrip(b"\0") for k, v in fresh.items()}
    assert shapes == server.hgetall("$EF:Tiny:known::shapes")


def test_writers_at_once_leave_the_filter_exact(server: redis.Redis) -> None:
    def write(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(40):
            memo = Memo(name=rng.choice("abc"), text=" ".join(rng.sample(WORDS, 3)))
            memo.save() if rng.random() < 0.7 else memo.delete()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there = {word for memo in Memo.query.all() for word in memo.text.split()}
    assert {word for word, hit in known.might_exist_batch(Memo, WORDS).items() if hit} == there


# -- other sizes, too many words, other people's keys ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["saves", "rebuild_indexes"])
def test_a_new_size_misses_nothing_that_is_stored_under_the_old_one(server: redis.Redis, how: str) -> None:
    class Sized(Model):
        name = KeyField()
        text = Field()
        known = ExistenceFilter(source="text", capacity=100)

    Sized.create(name="a", text="apple")
    Sized.create(name="b", text="pear")

    class Larger(Model):
        name = KeyField()
        text = Field()
        known = ExistenceFilter(source="text", capacity=10_000)

        class Meta:
            key_name = "Sized"

    field: Any = Larger._meta.fields["known"]
    assert field.might_exist_batch(Larger, ["apple", "pear", "plum"]) == {"apple": True, "pear": True, "plum": False}
    if how == "saves":
        for record in Larger.query.all():
            record.save()
    else:
        Larger.rebuild_indexes()
    assert len(server.hgetall("$EF:Sized:known::shapes")) == 1
    assert field.might_exist_batch(Larger, ["apple", "pear", "plum"]) == {"apple": True, "pear": True, "plum": False}
    for record in Larger.query.all():
        record.delete()
    assert stored(server) == {}


def test_too_many_words_are_reported_once(server: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    class Crowded(Model):
        name = KeyField()
        text = Field(max_length=None)
        known = ExistenceFilter(source="text", capacity=20)

    field: Any = Crowded._meta.fields["known"]
    with caplog.at_level(logging.WARNING, logger="popoto.memory"):
        Crowded.create(name="a", text=" ".join(f"word{number}" for number in range(20)))
        field.might_exist(Crowded, "word1")
        assert caplog.records == []
        Crowded.create(name="b", text=" ".join(f"other{number}" for number in range(40)))
        field.might_exist(Crowded, "word1")
        field.fill_ratio(Crowded)
    assert len(caplog.records) == 1
    assert "more than the error rate of 1.00%" in caplog.text
    assert "larger capacity (now 20)" in caplog.text
    assert field.fill_ratio(Crowded) > 0.7


def test_a_filter_of_another_make_is_not_misread(server: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    field: Any = Tiny._meta.fields["known"]
    server.setbit("$EF:Tiny:known", 5, 1)
    with caplog.at_level(logging.WARNING, logger="popoto.memory"):
        assert field.might_exist_batch(Tiny, ["anything", "else"]) == {"anything": True, "else": True}
    assert "another kind of filter" in caplog.text
    server.delete("$EF:Tiny:known")
    assert not field.might_exist(Tiny, "anything")
    field._warned = False


def test_a_foreign_key_in_the_way_refuses_the_save(server: redis.Redis) -> None:
    field: Any = Tiny._meta.fields["known"]
    key = f"$EF:Tiny:known:{field.bits}x{field.hashes}"
    server.sadd(key, "mine")
    with pytest.raises(ModelException, match="holds a set where the index keeps a string"):
        Tiny.create(name="a", text="apple")
    assert stored(server) == {key.encode(): {b"mine"}}


def test_the_words_of_a_record_that_was_deleted_by_hand_are_forgotten_by_clean_indexes(server: redis.Redis) -> None:
    lost = Memo.create(name="lost", text="platypus")
    Memo.create(name="kept", text="wombat")
    server.delete(lost.pk)
    assert known.might_exist(Memo, "platypus")
    Memo.clean_indexes()
    assert known.definitely_missing(Memo, "platypus")
    assert known.might_exist(Memo, "wombat")
    assert Memo.check_indexes()["total"] == 0
