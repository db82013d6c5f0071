"""Saving and deleting: one step each, and a refused one changes nothing at all."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
import redis

from popoto import redis_db
from popoto.exceptions import KeyMutationError, ModelException, SkipSaveException
from popoto.orm.fields.base import Field
from popoto.orm.fields.datetime import DatetimeField
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import KeyField, UniqueKeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import IntField, ListField
from popoto.orm.model import Model

from .oracle import dump, indexes_agree, nothing_left, stored_records


class SaveBook(Model):
    title = KeyField()
    shelf = KeyField()
    author = IndexedField()
    isbn = IndexedField(unique=True)
    price = SortedField(type=float, default=0.0)
    rank = SortedField(type=int, partition_by=("genre", "author"), default=0)
    genre = Field()
    pages = IntField()
    tags = ListField()
    changed = DatetimeField(auto_now=True)


class SaveUser(Model):
    email = UniqueKeyField()
    nick = UniqueField()


def book(**values):
    return SaveBook(**{"title": "Emma", "shelf": "A", "author": "Austen", "isbn": "1", "genre": "novel", **values})


@pytest.fixture
def unchanged(server):
    """A context: what is refused inside leaves the database as it was, to the last byte and expiry."""

    class Unchanged:
        def __enter__(self):
            self.before = dump(server)

        def __exit__(self, *_):
            assert dump(server) == self.before

    return Unchanged


# -- one step ---------------------------------------------------------------------------------------------------------


def test_each_operation_is_one_round_trip(server, round_trips):
    for number in range(3):
        book(title=f"warm {number}", isbn=f"w{number}").save()
    SaveBook.query.filter(author="Austen", price__gte=0).order_by("-price").limit(2).all()
    SaveBook.query.count()
    book(title="warm", isbn="warm").delete()

    record = book()

    def check(call):
        with round_trips() as trips:
            result = call()
        assert trips.count == 1
        return result

    check(record.save)
    check(record.save)
    record.author = "Jane"
    check(lambda: record.save(update_fields=["author", "price"]))
    record.title = "Emma II"
    check(lambda: record.save(migrate_key=True))
    assert check(lambda: SaveBook.query.get(title="Emma II", shelf="A")) == record
    assert check(lambda: SaveBook.query.get(record.pk)) == record
    assert check(lambda: SaveBook.load(title="Emma II", shelf="A")) == record
    assert len(check(lambda: SaveBook.query.get_many([record.pk, "SaveBook:A:warm 1", "SaveBook:x:y"]))) == 3
    assert check(lambda: SaveBook.query.filter(author="Austen").order_by("-price").limit(2).all())
    assert check(lambda: SaveBook.query.filter(author="Austen", price__gte=0, title__startswith="w").limit(2).all())
    assert check(lambda: SaveBook.query.filter(author="Austen").count()) == 3
    assert check(SaveBook.query.count) == 4
    assert check(lambda: SaveBook.query.filter(author="Austen").exists())
    assert check(lambda: SaveBook.query.filter(author="Austen").first())
    assert check(lambda: SaveBook.query.filter(author="Austen")[1])
    assert check(lambda: SaveBook.query.filter(author="Austen").keys())
    assert check(record.delete) is True
    assert check(lambda: SaveBook.create(title="new", shelf="B"))


def test_a_get_by_an_indexed_field_is_one_round_trip(server, round_trips):
    record = book()
    record.save()
    SaveBook.query.get(isbn="1")
    with round_trips() as trips:
        assert SaveBook.query.get(isbn="1") == record
    assert trips.count == 1


def test_a_save_returns_how_many_fields_of_the_hash_are_new(server):
    record = book()
    assert record.save() == len(SaveBook._meta.fields)
    assert record.save() == 0
    server.hdel(record.pk, "pages", "tags")
    assert record.save(update_fields=["pages"]) == 1
    assert record.save() == 1
    assert record.save(update_fields=[]) == 0


def test_a_delete_says_whether_the_record_existed(server):
    record = book()
    assert record.delete() is False
    record.save()
    other = SaveBook.query.get(record.pk)
    assert record.delete() is True
    assert other.delete() is False
    nothing_left(server)
    record.save()
    assert SaveBook.query.count() == 1, "a deleted record may be saved again"
    indexes_agree(SaveBook)


def test_create_saves_and_returns_the_instance(server):
    record = SaveBook.create(title="Emma", shelf="A")
    assert record._is_persisted and SaveBook.query.get(title="Emma", shelf="A") == record


def test_a_full_save_writes_every_field_over_what_is_stored(server):
    book(tags=["old"], pages=3).save()
    fresh = book(author="Other", isbn="2", price=9.0)
    fresh.save()
    loaded = SaveBook.query.get(fresh.pk)
    assert (loaded.author, loaded.isbn, loaded.tags, loaded.pages) == ("Other", "2", None, None)
    assert SaveBook.query.filter(author="Austen") == []
    book(title="other", isbn="1").save()  # the old unique value is free
    indexes_agree(SaveBook)


# -- a stale instance -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", ["get", "filter", "values of before"])
def test_no_entry_of_an_older_state_stays_however_the_instance_came_to_be(server, load):
    book(price=1.0, rank=1).save()
    if load == "get":
        one = SaveBook.query.get(title="Emma", shelf="A")
    elif load == "filter":
        (one,) = SaveBook.query.filter(author="Austen")
    else:
        one = book(price=1.0, rank=1)
    one.author, one.isbn, one.genre, one.price = "Jane", "2", "essay", 2.0
    one.save()
    indexes_agree(SaveBook)
    assert SaveBook.query.filter(author="Austen") == []
    assert SaveBook.query.filter(genre="novel", author="Austen", rank=1) == []
    assert SaveBook.query.filter(genre="essay", author="Jane", rank=1) == [one]
    one.author = None
    one.save()
    assert SaveBook.query.filter(author=None) == [one]
    one.author = "Jane"
    one.save()
    assert SaveBook.query.filter(author=None) == []
    one.delete()
    nothing_left(server)


def test_two_instances_of_one_record_leave_the_indexes_right_in_any_order(server):
    book().save()
    one, two = SaveBook.query.filter()[0], SaveBook.query.get(title="Emma", shelf="A")
    one.author, one.isbn, one.price = "one", "10", 1.0
    two.author, two.isbn, two.price, two.genre = "two", "20", 2.0, "essay"
    for instance in (one, two, one, two, two, one):
        instance.save()
        indexes_agree(SaveBook)
        assert SaveBook.query.filter(author=instance.author) == [instance]
        assert SaveBook.query.count(price=instance.price) == 1
    two.save(update_fields=["isbn"])
    indexes_agree(SaveBook)
    assert SaveBook.query.filter(author="one", isbn="20") == [one]
    two.delete()
    nothing_left(server)


def test_a_stale_partial_save_moves_what_is_stored_not_what_it_remembers(server):
    book(price=1.0, rank=1).save()
    stale = SaveBook.query.get(title="Emma", shelf="A")
    fresh = SaveBook.query.get(title="Emma", shelf="A")
    fresh.genre, fresh.rank, fresh.author = "essay", 9, "Jane"
    fresh.save()

    stale.pages = 5
    stale.save(update_fields=["pages"])
    indexes_agree(SaveBook)

    stale.genre = "play"  # a part of the partition; the author and the rank are the stored ones'
    stale.save(update_fields=["genre"])
    indexes_agree(SaveBook)
    assert SaveBook.query.filter(genre="play", author="Jane", rank=9) == [stale]

    stale.rank = 4  # the payload; the partition is the stored one's
    stale.save(update_fields=["rank"])
    indexes_agree(SaveBook)
    assert SaveBook.query.filter(genre="play", author="Jane", rank=4) == [stale]
    loaded = SaveBook.query.get(stale.pk)
    assert (loaded.genre, loaded.author, loaded.rank, loaded.pages) == ("play", "Jane", 4, 5)


def test_a_partition_moves_even_if_the_instance_forgot_the_score(server):
    book(rank=3).save()
    record = SaveBook.query.get(title="Emma", shelf="A")
    record.rank = None
    record.genre = "essay"
    record.save(update_fields=["genre"])
    indexes_agree(SaveBook)
    assert SaveBook.query.filter(genre="essay", author="Austen", rank=3) == [record]


def test_a_score_that_is_not_saved_need_not_be_valid(server):
    book(rank=3).save()
    record = SaveBook.query.get(title="Emma", shelf="A")
    record.rank = "unsaved nonsense"
    record.genre = "essay"
    record.save(update_fields=["genre"])
    indexes_agree(SaveBook)
    assert SaveBook.query.get(record.pk).rank == 3


def test_eight_writers_of_one_record_leave_its_indexes_right(server):
    book().save()
    failures = []

    def write(number):
        try:
            record = SaveBook.query.get(title="Emma", shelf="A")
            for turn in range(20):
                record.author, record.price = f"{number}-{turn}", float(turn)
                record.save(update_fields=["author"] if turn % 3 else None)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    indexes_agree(SaveBook)


# -- partial saves ----------------------------------------------------------------------------------------------------


def test_a_partial_save_writes_the_listed_fields_only(server):
    record = book()
    record.save()
    changed = record.changed
    record.author, record.pages, record.price = "Jane", 7, 3.0
    record.save(update_fields=["author"])
    loaded = SaveBook.query.get(record.pk)
    assert (loaded.author, loaded.pages, loaded.price, loaded.changed) == ("Jane", None, 0.0, changed)
    indexes_agree(SaveBook)
    for names in (("pages",), {"pages"}, iter(["pages"]), ["pages", "pages"]):
        record.pages += 1
        record.save(update_fields=names)
        assert SaveBook.query.get(record.pk).pages == record.pages


def test_a_partial_save_of_nothing_does_nothing(server, round_trips):
    record = book()
    with round_trips() as trips:
        assert record.save(update_fields=[]) == 0
    assert trips.count == 0 and server.dbsize() == 0


def test_a_partial_save_names_fields_that_exist(server, unchanged):
    record = book()
    record.save()
    with unchanged():
        with pytest.raises(ModelException, match=r"no field nobody.*Fields: title"):
            record.save(update_fields=["pages", "nobody"])
        with pytest.raises(TypeError, match="list of field names"):
            record.save(update_fields="pages")


def test_a_partial_save_of_a_record_that_is_gone_is_refused(server, unchanged):
    record, never = book(), book(title="never")
    record.save()
    server.delete(record.pk)
    for instance in (record, never):
        with unchanged(), pytest.raises(ModelException, match="not stored"):
            instance.save(update_fields=["pages"])
    record.save()
    record.delete()
    with unchanged(), pytest.raises(ModelException, match="not stored"):
        record.save(update_fields=["pages"])
    assert stored_records(SaveBook) == {}


# -- refused saves ----------------------------------------------------------------------------------------------------


def test_a_refused_save_changes_nothing(server, unchanged):
    book(isbn="taken", title="owner").save()
    record = book(isbn="mine", tags=["a"])
    record._ttl = 500
    record.save()

    def refused(error=ModelException, match="", save=None, **changes):
        instance = SaveBook.query.get(record.pk)
        for name, value in changes.items():
            setattr(instance, name, value)
        with unchanged(), pytest.raises(error, match=match):
            instance.save() if save is None else save(instance)

    refused(match="already exists", isbn="taken", author="new", price=5.0)
    refused(match="already exists", isbn="taken", save=lambda r: r.save(update_fields=["isbn", "author"]))
    refused(error=KeyMutationError, match="title", title="other", author="new")
    refused(match="already exists", title="owner", save=lambda r: r.save(migrate_key=True), author="new")
    refused(match="expected int", pages="many", author="new")
    refused(match="None", price=None, author="new")
    refused(match="NaN", price=float("nan"), author="new")
    refused(match="surrogate", author="\ud800", pages=9)
    refused(match="max_length", author="x" * 2000, pages=9)
    refused(match="tags", tags=[object()], author="new")
    refused(match="_ttl", _ttl=-5, author="new")
    refused(match="_ttl", _ttl=0, author="new")
    refused(match="_ttl", _ttl="soon", author="new")
    refused(match="_ttl", _ttl=True, author="new")
    refused(match="_ttl", _ttl=float("inf"), author="new")
    refused(match="_ttl", _ttl=float("nan"), author="new")
    refused(match="_expire_at", _expire_at=5, author="new")
    refused(match="_expire_at", _expire_at=datetime(2001, 1, 1), author="new")
    refused(match="both", _expire_at=datetime(2100, 1, 1), _ttl=5, author="new")
    indexes_agree(SaveBook)


@pytest.mark.parametrize("ttl", [10**11, 10**13, 10**15, 10**18, 10**30, timedelta.max, 1e300], ids=str)
def test_a_ttl_too_far_for_the_server_is_refused_whole_or_taken(server, unchanged, ttl):
    record = book()
    record.save()
    before = dump(server)
    record.author, record._ttl = "new", ttl
    try:
        record.save()
    except ModelException:
        assert dump(server) == before
    else:
        assert server.pttl(record.pk) > 10**13
    indexes_agree(SaveBook)


def test_a_key_of_another_type_in_the_way_refuses_the_save_whole(server, unchanged):
    record = book(price=1.0)
    record.save()
    for key in (
        "$IndexF:SaveBook:author:Jane",
        "$SortF:SaveBook:rank:novel:Jane",
        "$IndexF:SaveBook:isbn:2",
    ):
        server.set(key, "in the way")
        record.author, record.isbn, record.pages = "Jane", "2", 3
        with unchanged(), pytest.raises(ModelException, match="nothing was written"):
            record.save()
        server.delete(key)
    server.set("SaveBook:A:Other", "in the way")
    with unchanged(), pytest.raises(ModelException, match="nothing was written"):
        book(title="Other", isbn="3").save()
    server.delete("SaveBook:A:Other")
    record.save()
    indexes_agree(SaveBook)


@pytest.mark.parametrize("key", ["SaveBook:A:Emma", "$IndexF:SaveBook:author:Austen", "$Class:SaveBook"])
def test_a_key_of_another_type_in_the_way_refuses_the_delete_whole(server, unchanged, key):
    record = book()
    record.save()
    server.delete(key)
    server.set(key, "in the way")
    with unchanged(), pytest.raises(ModelException, match="nothing was written"):
        record.delete()


@pytest.mark.parametrize("update_fields", [None, ["author"]], ids=["full", "partial"])
def test_ignore_errors_logs_and_returns_false(server, unchanged, caplog, update_fields):
    book(isbn="taken", title="owner").save()
    record = book(isbn="mine")
    record.save()
    with unchanged():
        record.author = "x" * 2000
        assert record.save(ignore_errors=True, update_fields=update_fields) is False
        assert "max_length" in caplog.text
        record.author, record.isbn = "x", "taken"
        assert record.save(ignore_errors=True, update_fields=update_fields and ["isbn"]) is False
        assert "already exists" in caplog.text
        record.isbn, record.title = "mine", "other"
        assert record.save(ignore_errors=True, update_fields=update_fields) is False


# -- unique -----------------------------------------------------------------------------------------------------------


def test_a_unique_value_is_taken_once_and_free_again_after_a_change_or_delete(server, unchanged):
    anna = SaveUser.create(email="anna@x", nick="a")
    with unchanged(), pytest.raises(ModelException, match=r"nick.*already exists.*SaveUser:anna@x"):
        SaveUser.create(email="bert@x", nick="a")
    bert = SaveUser.create(email="bert@x", nick="b")
    anna.save()
    anna.nick = "c"
    anna.save()
    bert.nick = "a"
    bert.save()
    anna.delete()
    SaveUser.create(email="carl@x", nick="c")
    indexes_agree(SaveUser)


def test_a_unique_key_that_is_the_whole_key_is_not_overwritten_by_a_second_create(server, unchanged):
    anna = SaveUser.create(email="anna@x", nick="a")
    with unchanged(), pytest.raises(ModelException, match="already exists"):
        SaveUser.create(email="anna@x", nick="b")
    anna.nick = "b"
    anna.save()
    SaveUser.query.get(email="anna@x").save()
    assert SaveUser.query.count() == 1


def test_a_unique_value_whose_owner_was_deleted_by_hand_is_free(server):
    SaveUser.create(email="anna@x", nick="a")
    server.delete("SaveUser:anna@x")
    bert = SaveUser.create(email="bert@x", nick="a")
    assert SaveUser.query.filter(nick="a") == [bert]
    assert server.smembers("$UniquF:SaveUser:nick:a") == {b"SaveUser:bert@x"}
    assert bert.delete()


def test_of_eight_that_create_one_unique_value_at_once_one_succeeds(server):
    barrier = threading.Barrier(8)
    made, refused = [], []

    def create(number):
        barrier.wait()
        try:
            made.append(SaveUser.create(email=f"{number}@x", nick="a"))
        except ModelException as error:
            refused.append(error)

    for _ in range(5):
        server.flushall()
        made.clear()
        refused.clear()
        threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(made), len(refused)) == (1, 7)
        indexes_agree(SaveUser)


# -- key changes ------------------------------------------------------------------------------------------------------


def test_a_changed_key_is_refused_with_field_old_and_new_value(server, unchanged):
    record = book(title="a:b")
    record.save()
    record.title = "new"
    for names in (None, ["pages"], ["title"]):
        with unchanged(), pytest.raises(KeyMutationError, match=r"SaveBook\.title .*'a:b'.*'new'.*migrate_key=True"):
            record.save(update_fields=names)
    assert record.pk == record._redis_key == "SaveBook:A:a{&#58;}b"
    assert str(record.db_key) != record.pk
    record.title = "a:b"
    record.save()


def test_a_key_computed_by_pre_save_does_not_slip_past_the_guard(server, unchanged):
    class SaveSlug(Model):
        slug = KeyField()
        name = Field()

        def pre_save(self, **kwargs):
            self.slug = self.name.lower()
            return super().pre_save(**kwargs)

    record = SaveSlug.create(name="One")
    assert record.pk == "SaveSlug:one"
    record.name = "Two"
    with unchanged(), pytest.raises(KeyMutationError):
        record.save()
    record.save(migrate_key=True)
    assert SaveSlug.query.all() == [record] and record.pk == "SaveSlug:two"
    indexes_agree(SaveSlug)


@pytest.mark.parametrize("load", ["saved", "get", "filter"])
@pytest.mark.parametrize("update_fields", [None, ["price"], ["title"]], ids=str)
def test_a_migrated_record_takes_everything_along(server, load, update_fields):
    record = book(price=1.0, rank=3, tags=["a"], pages=7)
    record._ttl = 1000
    record.save()
    if load == "get":
        record = SaveBook.query.get(record.pk)
    elif load == "filter":
        (record,) = SaveBook.query.filter(title="Emma")
    record.title, record.price = "Persuasion", 2.0
    if update_fields:
        record.pages = "unsaved nonsense"
    record.save(migrate_key=True, update_fields=update_fields)
    assert record.pk == "SaveBook:A:Persuasion"
    assert SaveBook.query.get(title="Emma", shelf="A") is None
    (loaded,) = SaveBook.query.all()
    assert (loaded.title, loaded.tags, loaded.pages, loaded.author, loaded.isbn) == (
        "Persuasion",
        ["a"],
        7,
        "Austen",
        "1",
    )
    assert loaded.price == (1.0 if update_fields == ["title"] else 2.0)
    assert SaveBook.query.filter(title="Emma") == []
    assert SaveBook.query.filter(title="Persuasion", isbn="1", genre="novel", author="Austen", rank=3) == [record]
    assert server.ttl(record.pk) > 900
    indexes_agree(SaveBook)
    record.delete()
    nothing_left(server)


def test_a_migration_onto_an_existing_record_is_refused(server, unchanged):
    book(title="other", isbn="2").save()
    record = book()
    record.save()
    record.title = "other"
    for names in (None, ["pages"]):
        with unchanged(), pytest.raises(ModelException, match=r"SaveBook:A:other already exists.*Delete that record"):
            record.save(migrate_key=True, update_fields=names)
    indexes_agree(SaveBook)


def test_a_partial_migration_of_a_record_that_is_gone_makes_no_half_record(server, unchanged):
    record = book()
    record.save()
    SaveBook.query.get(record.pk).delete()
    record.title = "new"
    with unchanged(), pytest.raises(ModelException):
        record.save(migrate_key=True, update_fields=["pages"])
    assert stored_records(SaveBook) == {}


def test_a_full_migration_of_a_record_that_is_gone_stores_it_whole(server):
    record = book()
    record.save()
    SaveBook.query.get(record.pk).delete()
    record.title = "new"
    record.save(migrate_key=True)
    assert SaveBook.query.all() == [record]
    indexes_agree(SaveBook)


def test_a_migration_may_keep_its_own_unique_value(server):
    anna = SaveUser.create(email="anna@x", nick="a")
    anna.email = "anna@y"
    anna.save(migrate_key=True)
    assert SaveUser.query.filter(nick="a") == [anna]
    indexes_agree(SaveUser)


def test_a_key_part_that_was_none_may_be_filled_in(server):
    record = SaveBook.create(title="Emma")
    assert record.pk == "SaveBook:None:Emma"
    record.shelf = "B"
    record.save()
    assert [r.pk for r in SaveBook.query.all()] == ["SaveBook:B:Emma"]
    indexes_agree(SaveBook)


def test_a_record_whose_every_key_part_is_none_is_refused(server):
    with pytest.raises(ModelException, match=r"every key field is None \(shelf, title\)"):
        SaveBook.create(isbn="1")
    nothing_left(server)


def test_a_delete_removes_the_record_that_was_saved_whatever_the_key_says_now(server):
    record = book()
    record.save()
    book(title="other", isbn="2").save()
    record.title = "other"
    assert record.delete() is True
    assert [r.title for r in SaveBook.query.all()] == ["other"]
    indexes_agree(SaveBook)


# -- pipelines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transaction", [True, False])
def test_a_pipeline_queues_and_runs_at_execute(server, round_trips, transaction):
    pipeline = server.pipeline(transaction=transaction)
    records = [book(title=str(number), isbn=str(number)) for number in range(20)]
    for record in records:
        assert record.save(pipeline=pipeline) is pipeline
    assert SaveBook.create(pipeline=pipeline, title="created", shelf="A") is pipeline
    assert server.dbsize() == 0
    with round_trips() as trips:
        replies = pipeline.execute()
    assert trips.count == 1
    assert replies == [len(SaveBook._meta.fields)] * 21
    assert SaveBook.query.count() == 21
    indexes_agree(SaveBook)

    records[0].pages = 5
    records[0].save(pipeline=pipeline, update_fields=["pages"])
    records[1].title = "moved"
    records[1].save(pipeline=pipeline, migrate_key=True)
    assert records[2].delete(pipeline=pipeline) is pipeline
    assert records[3].delete(pipeline) is pipeline
    pipeline.execute()
    assert SaveBook.query.count() == 19
    assert SaveBook.query.get(title="0", shelf="A").pages == 5
    assert SaveBook.query.get(title="moved", shelf="A") == records[1]
    indexes_agree(SaveBook)


def test_a_refusal_in_a_pipeline_is_the_reply_of_its_command_and_of_no_other(server):
    pipeline = server.pipeline()
    for title, isbn in [("a", "1"), ("b", "1"), ("c", "2")]:
        book(title=title, isbn=isbn).save(pipeline=pipeline)
    _, second, _ = pipeline.execute(raise_on_error=False)
    assert isinstance(second, redis.ResponseError) and "already exists" in str(second)
    assert [record.title for record in SaveBook.query.all()] == ["a", "c"]
    indexes_agree(SaveBook)


def test_a_pipeline_runs_on_a_server_that_forgot_the_scripts(server):
    book().save()
    server.script_flush()
    pipeline = server.pipeline()
    record = book(title="a", isbn="a")
    record.save(pipeline=pipeline)
    record.delete(pipeline=pipeline)
    record.save(pipeline=pipeline)
    pipeline.execute()
    server.script_flush()
    book(title="b", isbn="b").save()
    assert SaveBook.query.count() == 3
    indexes_agree(SaveBook)


def test_what_is_no_pipeline_is_a_type_error(server, unchanged):
    record = book()
    for wrong in (server, "pipeline", True, object()):
        with unchanged(), pytest.raises(TypeError, match="Pipeline"):
            record.save(pipeline=wrong)
        with unchanged(), pytest.raises(TypeError, match="Pipeline"):
            record.delete(wrong)


def test_nothing_to_save_returns_the_pipeline(server):
    pipeline = server.pipeline()
    assert book().save(pipeline=pipeline, update_fields=[]) is pipeline
    assert len(pipeline) == 0


# -- hooks ------------------------------------------------------------------------------------------------------------


class Audited(Field):
    """A user's own field: counts its saves and deletes on the server."""

    seen: list = []

    @classmethod
    def on_save(cls, instance, field_name, field_value, pipeline=None, ignore_errors=False, **kwargs):
        cls.seen.append(("save", field_name, field_value, kwargs))
        pipeline.rpush("audit", f"save {field_name}={field_value}")
        pipeline.hincrby("audit:count", field_name, 1)
        return pipeline

    @classmethod
    def on_delete(cls, instance, field_name, field_value, pipeline=None, saved_redis_key=None, **kwargs):
        cls.seen.append(("delete", field_name, saved_redis_key, kwargs))
        pipeline.rpush("audit", f"delete {saved_redis_key}")
        return pipeline

    @classmethod
    def is_valid(cls, field, value, null_check=True, **kwargs):
        return value != "forbidden"

    def format_value_pre_save(self, value, skip_auto_now=False, **kwargs):
        return value.strip() if isinstance(value, str) else value


class SaveAudited(Model):
    key = KeyField()
    note = Audited()
    plain = Field(null=False, default="p")
    single = IndexedField(unique=True)


@pytest.fixture
def seen():
    Audited.seen.clear()
    return Audited.seen


def test_hooks_run_with_the_save_and_the_delete(server, round_trips, seen):
    SaveAudited.create(key="warm", single="w")
    server.delete("audit", "audit:count")
    seen.clear()
    with round_trips() as trips:
        record = SaveAudited.create(key="k", note=" hello ")
    assert trips.count == 1
    assert record.note == "hello", "format_value_pre_save gives the value that is stored"
    assert server.lrange("audit", 0, -1) == [b"save note=hello"]
    record.save(update_fields=["plain"])
    assert server.hget("audit:count", "note") == b"1"
    record.save(update_fields=["note"], reason="why")
    assert server.hget("audit:count", "note") == b"2"
    assert seen[-1] == ("save", "note", "hello", {"reason": "why"})
    record.delete(reason="because")
    assert server.lrange("audit", -1, -1) == [b"delete SaveAudited:k"]
    assert seen[-1] == ("delete", "note", "SaveAudited:k", {"reason": "because"})


def test_hooks_of_a_refused_save_run_nothing(server, unchanged, seen):
    SaveAudited.create(key="owner", single="1", note="x")
    record = SaveAudited.create(key="k", note="x")
    with unchanged():
        record.single = "1"
        with pytest.raises(ModelException, match="already exists"):
            record.save()
        record.single, record.plain = None, None
        with pytest.raises(ModelException, match="None"):
            record.save()
        record.plain, record.note = "p", "forbidden"
        with pytest.raises(ModelException, match=r"SaveAudited\.note.*not valid"):
            record.save()
        assert not record.is_valid()
        record.note, record.key = "y", "other"
        with pytest.raises(KeyMutationError):
            record.save()


def test_hooks_run_in_a_callers_pipeline_too(server, seen):
    pipeline = server.pipeline()
    record = SaveAudited(key="k", note="x")
    record.save(pipeline=pipeline)
    record.delete(pipeline=pipeline)
    assert server.dbsize() == 0
    pipeline.execute()
    assert server.lrange("audit", 0, -1) == [b"save note=x", b"delete SaveAudited:k"]


def test_a_hooks_failing_command_says_that_the_record_is_saved(server, seen):
    server.set("audit", "in the way")
    record = SaveAudited(key="k", note="x")
    with pytest.raises(ModelException, match=r"SaveAudited:k is saved.*rpush|RPUSH"):
        record.save()
    assert SaveAudited.query.get(key="k").note == "x"
    with pytest.raises(ModelException, match="SaveAudited:k is deleted"):
        SaveAudited.query.get(key="k").delete()
    assert SaveAudited.query.count() == 0


def test_a_hook_that_executes_its_pipeline_is_refused(server, unchanged):
    class Hasty(Field):
        @classmethod
        def on_save(cls, instance, field_name, field_value, pipeline=None, **kwargs):
            pipeline.set("x", 1)
            pipeline.execute()

    class SaveHasty(Model):
        note = Hasty()

    with unchanged(), pytest.raises(ModelException, match="execute"):
        SaveHasty.create(note="x")


def test_a_hook_may_queue_any_value_a_client_takes(server):
    class Queueing(Field):
        @classmethod
        def on_save(cls, instance, field_name, field_value, pipeline=None, **kwargs):
            pipeline.set("bytes", b"\xff\x00")
            pipeline.set("float", 0.1)
            pipeline.zadd("zset", {"m": 1.5})
            pipeline.hset("hash", mapping={"a": 1})
            pipeline.execute_command("SET", "text", "é")
            return pipeline

    class SaveQueueing(Model):
        note = Queueing()

    SaveQueueing.create(note="x")
    assert server.get("bytes") == b"\xff\x00" and server.get("float") == b"0.1"
    assert server.zscore("zset", "m") == 1.5 and server.hget("hash", "a") == b"1"
    assert server.get("text").decode() == "é"


@pytest.mark.parametrize("how", ["raise", "false"])
def test_pre_save_may_skip_the_save(server, how):
    class SaveSkipped(Model):
        note = Field()

        def pre_save(self, **kwargs):
            if self.note == "skip":
                if how == "raise":
                    raise SkipSaveException("not worth it")
                return False
            return super().pre_save(**kwargs)

    assert SaveSkipped(note="skip").save() is False
    pipeline = server.pipeline()
    assert SaveSkipped(note="skip").save(pipeline=pipeline) is pipeline and len(pipeline) == 0
    assert not SaveSkipped.create(note="skip")._is_persisted
    assert server.dbsize() == 0
    assert SaveSkipped.create(note="keep")._is_persisted


def test_pre_save_computes_fields_before_they_are_checked(server):
    class SaveComputed(Model):
        key = KeyField()
        total = IntField(null=False)
        parts = ListField(default=list)

        def pre_save(self, **kwargs):
            self.total = str(sum(self.parts))
            return super().pre_save(**kwargs)

    assert SaveComputed.create(key="k", parts=[1, 2]).total == 3
    assert SaveComputed.query.get(key="k").total == 3


# -- TTL --------------------------------------------------------------------------------------------------------------


class SaveSession(Model):
    key = KeyField()
    user = IndexedField()
    token = IndexedField(unique=True)
    age = SortedField(type=int, default=0)
    note = Field()

    class Meta:
        ttl = 100


def gone(server, *keys):
    """Wait until the server has let these keys expire."""
    deadline = time.monotonic() + 5
    while server.exists(*keys):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_ttl_of_meta_and_of_the_instance(server):
    assert SaveSession(key="x")._ttl == 100
    default = SaveSession.create(key="default")
    assert 95 < server.ttl(default.pk) <= 100
    own = SaveSession(key="own")
    own._ttl = 1000
    own.save()
    assert 995 < server.ttl(own.pk) <= 1000
    forever = SaveSession(key="forever")
    forever._ttl = None
    forever.save()
    assert server.ttl(forever.pk) == -1
    span = SaveSession(key="span", _ttl=timedelta(minutes=5))
    span.save()
    assert 295 < server.ttl(span.pk) <= 300
    part = SaveSession(key="part", _ttl=1.5)
    part.save()
    assert 1000 < server.pttl(part.pk) <= 1500
    indexes_agree(SaveSession)


@pytest.mark.parametrize("zone", [None, timezone.utc, timezone(timedelta(hours=9))], ids=str)
def test_expire_at_is_a_moment(server, zone):
    record = SaveSession(key="k")
    record._ttl, record._expire_at = None, datetime.now(zone) + timedelta(seconds=300)
    record.save()
    assert 295 < server.ttl(record.pk) <= 300
    assert server.pexpiretime(record.pk) == int(record._expire_at.timestamp() * 1000)
    indexes_agree(SaveSession)


def test_both_kinds_of_expiry_are_refused(server, unchanged):
    record = SaveSession(key="k")
    record._expire_at = datetime(2100, 1, 1)
    with unchanged(), pytest.raises(ModelException, match=r"_ttl \(100\) and _expire_at"):
        record.save()
    record._ttl = None
    record.save()
    assert server.ttl(record.pk) > 10**8


def test_a_ttl_of_none_makes_a_stored_record_permanent(server):
    record = SaveSession.create(key="k")
    record._ttl = None
    record.save()
    assert server.ttl(record.pk) == -1
    assert server.exists("$Expiry:SaveSession") == 0
    again = SaveSession.query.get(key="k")
    again._ttl = 50
    again.save(update_fields=["note"])
    assert 45 < server.ttl(record.pk) <= 50
    loaded = SaveSession.query.get(key="k")
    loaded._ttl = None
    loaded.save()
    assert server.ttl(record.pk) == -1
    indexes_agree(SaveSession)


def test_saving_a_loaded_record_leaves_its_expiry_alone(server):
    record = SaveSession(key="k")
    record._ttl = 1000
    record.save()
    server.pexpire(record.pk, 500_000)
    for loaded in (SaveSession.query.get(key="k"), SaveSession.query.filter()[0]):
        loaded.note = "changed"
        loaded.save()
        assert 400 < server.ttl(record.pk) <= 500
        loaded.save(update_fields=["note"])
        assert 400 < server.ttl(record.pk) <= 500
    indexes_agree(SaveSession)


def test_an_expired_record_is_out_of_every_answer_at_once(server, unchanged):
    query = SaveSession.query
    short = SaveSession(key="short", user="u", token="t", age=1)
    short._ttl = 0.03
    stays = SaveSession.create(key="stays", user="u", token="other", age=2)
    short.save()
    gone(server, short.pk)
    assert server.sismember("$Class:SaveSession", short.pk), "the index still knows it"
    with unchanged():
        assert query.count() == query.count(user="u") == query.count(age__gte=0) == 1
        assert query.count(user__startswith="u") == 1 and query.count(key="short") == 0
        assert query.count(user__in=["u"]) == query.count(token__isnull=False) == 1
        assert query.all() == query.filter(user="u") == query.filter(age__lte=5) == [stays]
        assert query.order_by("age").limit(1).all() == query.order_by("-note").all() == [stays]
        assert query.filter(user="u").limit(1).all() == [stays]
        assert query.values("key").all() == [{"key": "stays"}]
        assert query.keys() == [b"SaveSession:stays"]
        assert query.filter(note=None) == [stays]
        assert query.get(key="short") is query.get(token="t") is None
        assert query.get_many([short.pk]) == [None]
        assert query.filter(key__contains="short") == []
        assert not query.exists(token="t") and query.first() == query.last() == stays
    taker = SaveSession.create(key="taker", token="t")
    assert query.filter(token="t") == [taker]
    indexes_agree(SaveSession)
    assert not server.sismember("$Class:SaveSession", short.pk), "a later write has removed it"
    assert server.smembers("$IndexF:SaveSession:token:t") == {b"SaveSession:taker"}


def test_an_expired_record_that_is_saved_again_lives_again(server):
    record = SaveSession(key="k", user="u", token="t")
    record._ttl = 0.02
    record.save()
    stale = SaveSession.query.get(key="k")
    gone(server, record.pk)
    with pytest.raises(ModelException, match="not stored"):
        record.save(update_fields=["note"])
    if stale is None:
        stale = SaveSession(key="k")
    stale.user = "other"
    stale.save()
    assert SaveSession.query.filter(user="u") == []
    assert SaveSession.query.filter(user="other") == [stale]
    indexes_agree(SaveSession)


def test_a_delete_of_an_expired_record_removes_what_it_left(server):
    record = SaveSession(key="k", user="u", token="t")
    record._ttl = 0.02
    record.save()
    gone(server, record.pk)
    assert record.delete() is False
    nothing_left(server)


def test_a_record_that_was_made_permanent_by_hand_is_not_reaped(server):
    record = SaveSession(key="k", user="u")
    record._ttl = 0.05
    record.save()
    server.persist(record.pk)
    deadline = time.monotonic() + 5
    while True:  # until the expiry set says that it is due
        seconds, micros = server.time()
        if seconds * 1000 + micros // 1000 > server.zscore("$Expiry:SaveSession", record.pk):
            break
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert SaveSession.query.filter(user="u") == [record]
    assert SaveSession.query.count() == 1
    SaveSession.create(key="other")
    assert SaveSession.query.filter(user="u") == [record]
    indexes_agree(SaveSession)


def test_what_many_expired_records_left_is_removed_by_later_writes(server):
    pipeline = server.pipeline()
    for number in range(250):
        SaveSession(key=str(number), user="u", token=str(number), _ttl=0.02).save(pipeline=pipeline)
    pipeline.execute()
    gone(server, *(f"SaveSession:{number}" for number in range(250)))
    assert SaveSession.query.count() == 0
    for number in range(3):
        SaveSession.create(key=f"new {number}")
        assert SaveSession.query.count() == number + 1
    assert server.scard("$Class:SaveSession") == 3
    indexes_agree(SaveSession)


# -- async ------------------------------------------------------------------------------------------------------------


def test_the_async_forms_do_the_same(server):
    async def work():
        record = await SaveBook.async_create(title="Emma", shelf="A", isbn="1", pages=3)
        assert await SaveBook.async_load(title="Emma", shelf="A") == record
        record.pages = 4
        assert await record.async_save(update_fields=["pages"]) == 0
        assert await record.async_save(update_fields=[]) == 0
        record.isbn = 5 * "x" * 1000
        assert await record.async_save(ignore_errors=True) is False
        with pytest.raises(ModelException, match="max_length"):
            await record.async_save()
        record.isbn, record.title = "1", "other"
        with pytest.raises(KeyMutationError):
            await record.async_save()
        await record.async_save(migrate_key=True)
        with pytest.raises(ModelException, match="already exists"):
            await SaveBook.async_create(title="x", shelf="y", isbn="1")
        indexes_agree(SaveBook)
        assert (await asyncio.gather(*(SaveBook.async_create(title=str(n), shelf="s") for n in range(50))))[
            7
        ].title == "7"
        assert await SaveBook.query.async_count() == 51
        assert await record.async_delete() is True
        assert await record.async_delete() is False
        await redis_db.close_async()

    asyncio.run(work())
    indexes_agree(SaveBook)


def test_a_decimal_price_keeps_its_digits_through_saves(server):
    class SaveBill(Model):
        key = KeyField()
        total = SortedField(type=Decimal)

    bill = SaveBill.create(key="k", total="10.00")
    SaveBill.query.get(key="k").save()
    assert str(SaveBill.query.get(key="k").total) == "10.00"
    assert SaveBill.query.filter(total=10) == [bill]


def test_a_record_deleted_behind_the_orms_back_is_no_result(server):
    query = SaveSession.query
    lost, stays = SaveSession.create(key="a", user="u"), SaveSession.create(key="b", user="u")
    server.delete(lost.pk)
    assert query.all() == query.filter(user="u") == query.order_by("age").all() == [stays]
    assert query.values("key", "user").all() == [{"key": "b", "user": "u"}]
    assert query.order_by("note").values("key").all() == [{"key": "b"}]
    assert query.filter(note=None) == [stays]
    assert query.get(key="a") is None
    lost.save()
    assert query.all() == [lost, stays]
    indexes_agree(SaveSession)
