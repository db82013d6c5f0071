"""Each field type: its options, its errors, its defaults, its values' way to the database, its keys there."""

from __future__ import annotations

import time as clock
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

import msgpack  # type: ignore[import-untyped]
import pytest

from popoto.exceptions import ModelException, QueryException
from popoto.orm.fields.base import VALID_FIELD_TYPES, Field
from popoto.orm.fields.datetime import DatetimeField
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import AutoKeyField, KeyField, UniqueKeyField
from popoto.orm.fields.sorted import SortedField, SortedKeyField
from popoto.orm.fields.typed import (
    BooleanField,
    BytesField,
    DateField,
    DecimalField,
    DictField,
    FloatField,
    IntField,
    ListField,
    SetField,
    StringField,
    TimeField,
    TupleField,
)
from popoto.orm.model import Model

from .oracle import indexes_agree

UTC = timezone.utc
TYPED_FIELDS = {
    IntField: (int, [0, -1, 2**63, -(2**80)]),
    FloatField: (float, [0.5, -0.0, float("inf"), 1e-300]),
    DecimalField: (Decimal, [Decimal("1.10"), Decimal("-0"), Decimal("1E-20")]),
    StringField: (str, ["", "text", "é\0\n"]),
    BooleanField: (bool, [True, False]),
    BytesField: (bytes, [b"", b"\xff\x00"]),
    ListField: (list, [[], [1, "a", [2, None]], [(1, 2), Decimal("1.0"), datetime(2024, 1, 2)]]),
    DictField: (dict, [{}, {"a": {"b": (1, {2})}}, {1: "int", "as_encodable": 1, "__set__": True}]),
    SetField: (set, [set(), {1, "a"}, {(1, 2)}]),
    TupleField: (tuple, [(), (1, (2, [3]))]),
    DateField: (date, [date(1, 1, 1), date(2024, 2, 29)]),
    TimeField: (time, [time(0), time(1, 2, 3, 4), time(1, tzinfo=timezone(timedelta(hours=5, minutes=30)))]),
    DatetimeField: (datetime, [datetime(1, 1, 1), datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC)]),
}


def model_of(**fields):
    """Return a new model with these fields and a key field `key`."""
    fields.setdefault("key", KeyField())
    return type(Model)("FieldsModel", (Model,), {**fields, "__qualname__": "<locals>.FieldsModel"})


# -- every type -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field_class", TYPED_FIELDS, ids=lambda c: c.__name__)
def test_a_typed_field_keeps_its_values(server, field_class):
    type_, values = TYPED_FIELDS[field_class]
    model = model_of(value=field_class())
    for value in [*values, None]:
        model.create(key="k", value=value)
        for loaded in (model.query.get(key="k"), model.query.filter()[0], model.load(key="k")):
            assert loaded.value == value
            assert type(loaded.value) is (type_ if value is not None else type(None))
        assert model.query.all(values=("value",)) == [{"value": value}]
        assert len(model.query.filter(value=value)) == 1


@pytest.mark.parametrize("field_class", TYPED_FIELDS, ids=lambda c: c.__name__)
def test_field_with_type_is_the_typed_field(server, field_class):
    type_, values = TYPED_FIELDS[field_class]
    model = model_of(value=Field(type=type_))
    model.create(key="k", value=values[-1])
    assert model.query.get(key="k").value == values[-1]


@pytest.mark.parametrize("field_class", TYPED_FIELDS, ids=lambda c: c.__name__)
def test_a_typed_field_refuses_another_type(field_class):
    type_, _ = TYPED_FIELDS[field_class]
    other = int if type_ is not int else str
    with pytest.raises(ModelException, match="type"):
        field_class(type=other)
    assert field_class(type=type_).type is type_


@pytest.mark.parametrize(
    ("field", "given", "stored"),
    [
        (IntField(), "5", 5),
        (IntField(), 5.0, 5),
        (FloatField(), 3, 3.0),
        (DecimalField(), "1.10", Decimal("1.10")),
        (DecimalField(), 0.1, Decimal("0.1")),
        (StringField(), 5, "5"),
        (BooleanField(), 1, True),
        (ListField(), (1, 2), [1, 2]),
        (TupleField(), [1, 2], (1, 2)),
        (SetField(), [1, 2], {1, 2}),
        (DateField(), "2024-02-29", date(2024, 2, 29)),
        (DatetimeField(), "2024-02-29T01:02:03Z", datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC)),
    ],
)
def test_a_value_of_another_type_is_taken_where_nothing_is_lost(server, field, given, stored):
    model = model_of(value=field)
    record = model.create(key="k", value=given)
    assert record.value == stored and type(record.value) is type(stored)
    record.value = given
    record.save(update_fields=["value"])
    assert record.value == stored
    assert model.query.get(key="k").value == stored


@pytest.mark.parametrize(
    ("field", "given"),
    [
        (IntField(), "abc"),
        (IntField(), 3.7),
        (FloatField(), "abc"),
        (DecimalField(), "abc"),
        (BooleanField(), "false"),
        (StringField(), b"ab"),
        (BytesField(), 5),
        (BytesField(), "text"),
        (ListField(), "abc"),
        (DictField(), [1]),
        (DateField(), datetime(2024, 1, 1)),
        (DatetimeField(), 5),
        (KeyField(type=int), "x"),
        (IndexedField(type=int), 1.5),
        (SortedField(type=int), "x"),
        (SortedField(), object()),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_a_sentence_with_model_field_given_and_expected(server, field, given):
    model = model_of(value=field)
    with pytest.raises(ModelException) as refused:
        model(key="k", value=given)
    sentence = str(refused.value)
    assert "FieldsModel" in sentence and "'value'" in sentence
    assert f"expected {field.type.__name__}" in sentence
    assert "got" in sentence

    record = model(key="k", value=None)
    record.value = given
    for save in (record.save, lambda: record.save(update_fields=["value"])):
        with pytest.raises(ModelException, match="expected"):
            save()
    assert server.dbsize() == 0


def test_what_a_value_contains_is_refused_by_name_when_it_cannot_be_stored(server):
    model = model_of(value=ListField())
    with pytest.raises(ModelException, match=r"FieldsModel\.value"):
        model.create(key="k", value=[object()])
    assert server.dbsize() == 0


# -- common options ---------------------------------------------------------------------------------------------------

ALL_CLASSES = [Field, KeyField, UniqueKeyField, AutoKeyField, IndexedField, UniqueField, SortedField, SortedKeyField]


@pytest.mark.parametrize("field_class", [*ALL_CLASSES, *TYPED_FIELDS], ids=lambda c: c.__name__)
def test_an_unknown_option_is_a_type_error(field_class):
    with pytest.raises(TypeError, match="units"):
        field_class(units="km")


@pytest.mark.parametrize("field_class", [*ALL_CLASSES, *TYPED_FIELDS], ids=lambda c: c.__name__)
def test_options_are_keywords(field_class):
    with pytest.raises(TypeError):
        field_class(str)


@pytest.mark.parametrize("type_", sorted(VALID_FIELD_TYPES, key=lambda t: t.__name__), ids=lambda t: t.__name__)
def test_each_documented_type_is_accepted_by_field(type_):
    assert Field(type=type_).type is type_


@pytest.mark.parametrize(
    ("field_class", "type_"),
    [
        (Field, complex),
        (Field, "str"),
        (Field, None),
        (KeyField, list),
        (KeyField, bytes),
        (IndexedField, dict),
        (UniqueField, set),
        (SortedField, str),
        (SortedField, bool),
        (SortedField, time),
        (SortedKeyField, str),
    ],
)
def test_a_type_that_a_field_cannot_have_is_refused_with_those_it_can(field_class, type_):
    with pytest.raises(ModelException, match=r"expected one of .*int") as refused:
        field_class(type=type_)
    assert field_class.__name__ in str(refused.value)


@pytest.mark.parametrize(
    ("field", "longest"), [(Field(), 1024), (StringField(), 1024), (KeyField(), 128), (Field(max_length=3), 3)]
)
def test_max_length_is_enforced_and_the_error_says_what_to_do(server, field, longest):
    model = model_of(value=field)
    record = model.create(key="k", value="é" * longest)
    with pytest.raises(ModelException, match=rf"{longest + 1} characters.*max_length is {longest}.*None"):
        model(key="k", value="é" * (longest + 1))
    record.value += "x"
    for names in (None, ["value"]):
        with pytest.raises(ModelException, match="max_length"):
            record.save(update_fields=names, migrate_key=True)
    assert not record.is_valid()
    assert len(model.query.filter()[0].value) == longest


@pytest.mark.parametrize("field_class", [Field, KeyField, IndexedField, UniqueField])
def test_max_length_none_lifts_the_limit(server, field_class):
    model = model_of(value=field_class(max_length=None))
    model.create(key="k", value="x" * 100_000)
    assert len(model.query.filter()[0].value) == 100_000


@pytest.mark.parametrize("wrong", [0, -1, "3", 2.5])
def test_a_max_length_that_is_no_length_is_refused(wrong):
    with pytest.raises(ModelException, match="max_length="):
        Field(max_length=wrong)


def test_a_null_value_is_accepted_in_memory_and_refused_at_save(server):
    model = model_of(value=Field(null=False))
    record = model(key="k")
    assert record.is_valid(null_check=False)
    assert not record.is_valid()
    with pytest.raises(ModelException, match=r"FieldsModel\.value is None"):
        record.save()
    assert server.dbsize() == 0
    record.value = "x"
    record.save()
    record.value = None
    with pytest.raises(ModelException, match="None"):
        record.save(update_fields=["value"])
    assert model.query.get(key="k").value == "x"


def test_a_default_stands_where_no_value_is_given(server):
    made = iter(range(10))
    model = model_of(
        plain=Field(default="d"), called=IntField(default=lambda: next(made)), zero=IntField(default=0), none=Field()
    )
    first, second = model.create(key="1"), model.create(key="2")
    assert (first.plain, first.zero, first.none) == ("d", 0, None)
    assert (first.called, second.called) == (0, 1)
    assert model(key="3", plain=None).plain is None, "None that was given is no missing value"
    assert model.query.get(key="2").called == 1


@pytest.mark.parametrize("default", [[1], {"a": [1]}, {1}], ids=["list", "dict", "set"])
def test_each_record_has_its_own_copy_of_a_mutable_default(server, default):
    model = model_of(value=Field(type=type(default), default=default))
    first, second = model(key="1"), model(key="2")
    assert first.value == default and first.value is not second.value
    first.value.clear()
    assert second.value == default
    if isinstance(default, dict):
        second.value["a"].append(2)
    assert model(key="3").value == default


def test_a_default_of_a_wrong_type_is_refused():
    with pytest.raises(ModelException, match="expected int"):
        IntField(default="abc")
    with pytest.raises(ModelException, match="max_length"):
        Field(max_length=2, default="abc")
    assert IntField(default="5").default == 5


def test_a_field_that_a_stored_hash_lacks_reads_as_its_default(server):
    model = model_of(value=Field(default="d"), other=ListField(default=[1]))
    model.create(key="k", value="x")
    server.hdel("FieldsModel:k", "value", "other")
    loaded = model.query.get(key="k")
    assert (loaded.value, loaded.other) == ("d", [1])
    assert model.query.filter(value="d") == [loaded]
    assert model.query.filter(value="x") == []
    assert model.query.all(values=("value", "other")) == [{"value": "d", "other": [1]}]


def test_an_unknown_field_in_a_stored_hash_is_ignored(server):
    model = model_of(value=Field())
    model.create(key="k", value="x")
    server.hset("FieldsModel:k", "stranger", msgpack.packb(1))
    assert model.query.get(key="k").to_dict() == {"key": "k", "value": "x"}


def test_a_corrupt_value_names_key_and_field(server, caplog):
    model = model_of(value=IntField())
    model.create(key="good", value=1)
    model.create(key="bad", value=2)
    server.hset("FieldsModel:bad", "value", b"\xc1")
    with pytest.raises(ModelException, match=r"FieldsModel:bad.*'value'"):
        model.query.get(key="bad")
    assert [record.key for record in model.query.all()] == ["good"]
    assert "FieldsModel:bad" in caplog.text


# -- the wire layout --------------------------------------------------------------------------------------------------


def every_key(server):
    return {
        key.decode(): server.type(key).decode()
        for key in server.scan_iter()
        if not key.startswith((b"$Token:", b"$Order:")) and b"::" not in key
    }


def test_keys_and_types_in_the_database_are_those_of_the_wire_layout(server):
    class FieldsWire(Model):
        zone = KeyField()
        area = UniqueKeyField()
        count = SortedKeyField(type=int)
        status = IndexedField()
        email = UniqueField()
        score = SortedField(partition_by=("zone", "status"))
        born = SortedField(type=date)
        plain = IntField()

    FieldsWire.create(
        zone="a:b", area="x-y", count=7, status=None, email="e@x", score=1.5, born=date(2024, 1, 2), plain=3
    )
    rk = "FieldsWire:x/-y:7:a{&#58;}b"  # key fields in the order of their names
    assert every_key(server) == {
        rk: "hash",
        "$Class:FieldsWire": "set",
        "$KeyF:FieldsWire:zone:a{&#58;}b": "set",
        "$UniqueKeyF:FieldsWire:area:x/-y": "set",
        "$SortedKeyF:FieldsWire:count": "zset",
        "$IndexF:FieldsWire:status:None": "set",
        "$UniquF:FieldsWire:email:e@x": "set",
        "$SortF:FieldsWire:score:a{&#58;}b:None": "zset",
        "$SortF:FieldsWire:born": "zset",
    }
    assert server.smembers("$Class:FieldsWire") == {rk.encode()}
    assert server.smembers("$UniquF:FieldsWire:email:e@x") == {rk.encode()}
    assert server.zscore("$SortF:FieldsWire:score:a{&#58;}b:None", rk) == 1.5
    assert server.zscore("$SortF:FieldsWire:born", rk) == date(2024, 1, 2).toordinal()
    assert server.zscore("$SortedKeyF:FieldsWire:count", rk) == 7
    stored = {name.decode(): msgpack.unpackb(raw) for name, raw in server.hgetall(rk).items()}
    assert stored == {
        "zone": "a:b",
        "area": "x-y",
        "count": 7,
        "status": None,
        "email": "e@x",
        "score": 1.5,
        "born": {"__date__": True, "as_encodable": "20240102"},
        "plain": 3,
    }
    indexes_agree(FieldsWire)


def test_an_auto_key_writes_no_index_set(server):
    class FieldsAuto(Model):
        note = Field()

    record = FieldsAuto.create(note="x")
    assert every_key(server) == {f"FieldsAuto:{record._auto_key}": "hash", "$Class:FieldsAuto": "set"}


@pytest.mark.parametrize(
    ("flagged", "plain"),
    [
        (lambda: Field(indexed=True), IndexedField),
        (lambda: Field(indexed=True, type=int), lambda: IndexedField(type=int)),
        (lambda: Field(unique=True), UniqueField),
        (lambda: Field(indexed=True, unique=True), UniqueField),
        (lambda: IntField(indexed=True), lambda: IndexedField(type=int)),
        (lambda: StringField(unique=True), UniqueField),
        (lambda: IndexedField(), lambda: Field(indexed=True)),
    ],
)
def test_a_flag_on_field_gives_the_index_of_the_shortcut_class(server, flagged, plain):
    one, other = model_of(value=flagged()), model_of(value=plain())
    record = one.create(key="k", value=5 if one.value.type is int else "v")
    found = every_key(server)
    assert len(found) == 4
    assert other.query.filter(value=record.value)[0].key == "k"
    other.query.get(key="k").save()
    assert every_key(server) == found
    assert one.query.filter(value__in=[record.value])[0].key == "k"
    if other.value.unique:
        for model in (one, other):
            with pytest.raises(ModelException, match="already exists"):
                model.create(key="other", value=record.value)
    indexes_agree(one)


def test_a_unique_flag_forbids_null_as_unique_field_does(server):
    with pytest.raises(ModelException, match="None"):
        model_of(value=Field(unique=True)).create(key="k", value=None)


def test_an_index_on_a_type_that_has_none_is_refused():
    with pytest.raises(ModelException, match="expected one of"):
        Field(type=list, indexed=True)


# -- unique fields ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field_class", [UniqueField, UniqueKeyField, AutoKeyField], ids=lambda c: c.__name__)
@pytest.mark.parametrize("option", [{"unique": False}, {"null": True}], ids=str)
def test_a_unique_field_is_never_null_nor_shared(field_class, option):
    with pytest.raises(ModelException, match="unique"):
        field_class(**option)
    field_class(unique=True, null=False)


def test_a_unique_indexed_field_leaves_none_free_for_many(server):
    model = model_of(value=IndexedField(unique=True))
    a, b = model.create(key="a"), model.create(key="b")
    c = model.create(key="c", value="x")
    with pytest.raises(ModelException, match="already exists"):
        model.create(key="d", value="x")
    assert model.query.filter(value=None) == [a, b]
    assert model.query.filter(value__isnull=True) == [a, b]
    assert model.query.filter(value__isnull=False) == [c]
    assert set(model.query.filter(value__in=[None, "x"])) == {a, b, c}
    assert model.query.count(value=None) == 2
    indexes_agree(model)


def test_a_unique_key_part_is_taken_once_whatever_the_other_parts(server):
    model = model_of(email=KeyField(unique=True))
    model.create(key="1", email="e")
    with pytest.raises(ModelException, match="already exists"):
        model.create(key="2", email="e")
    model.create(key="1", email="f")
    assert model.query.count() == 2


def test_a_unique_sorted_field_is_unique(server):
    try:
        model = model_of(value=SortedField(unique=True))
    except (ModelException, TypeError):
        return  # refusing the option is as honest
    model.create(key="1", value=1)
    with pytest.raises(ModelException, match="already exists"):
        model.create(key="2", value=1)


# -- auto keys --------------------------------------------------------------------------------------------------------


def test_an_auto_key_is_made_with_the_instance(server):
    class FieldsTicket(Model):
        number = AutoKeyField(auto_uuid_length=8)
        note = Field()

    a, b = FieldsTicket(note="a"), FieldsTicket(note="b")
    assert a.number != b.number
    assert len(a.number) == 8 and set(a.number) <= set("0123456789abcdef")
    a.save()
    assert FieldsTicket.query.get(number=a.number) == a
    assert FieldsTicket.query.filter(number=a.number) == [a]
    assert FieldsTicket.query.filter(number__in=[a.number, b.number]) == [a]
    assert FieldsTicket.query.filter(number__startswith=a.number[:4]) == [a]
    assert FieldsTicket.query.filter(number__endswith=a.number[4:]) == [a]
    assert FieldsTicket.query.filter(number__contains=a.number[2:6]) == [a]
    assert FieldsTicket.query.filter(number__isnull=True) == []
    assert FieldsTicket.query.filter(number__isnull=False) == [a]
    assert FieldsTicket.query.filter(number=b.number) == []
    assert FieldsTicket(number="0" * 8).number == "0" * 8
    given = FieldsTicket(number="rush-123")
    given.save()
    assert FieldsTicket.query.get(number="rush-123") == given
    with pytest.raises(ModelException, match="already exists"):
        FieldsTicket(number="rush-123").save()


def test_a_taken_auto_key_is_refused_not_overwritten(server):
    class FieldsTaken(Model):
        number = AutoKeyField(auto_uuid_length=4)
        note = Field()

    FieldsTaken.create(number="0000", note="first")
    with pytest.raises(ModelException, match="already exists"):
        FieldsTaken.create(number="0000", note="second")
    assert FieldsTaken.query.get(number="0000").note == "first"


@pytest.mark.parametrize("length", [0, 33, "8", -1])
def test_an_auto_key_of_an_impossible_length_is_refused(length):
    with pytest.raises(ModelException, match="1 to 32"):
        AutoKeyField(auto_uuid_length=length)


def test_an_auto_key_is_a_uuid_and_other_strategies_are_refused():
    assert len(AutoKeyField(strategy="uuid4").get_new_auto_key_value()) == 32
    with pytest.raises(ModelException, match=r"strategy= offers 'uuid4' only, got 'ulid'.*KeyField"):
        AutoKeyField(strategy="ulid")


# -- datetimes that fill themselves -----------------------------------------------------------------------------------


def test_auto_now_add_is_set_once_and_leaves_a_given_value(server):
    model = model_of(made=DatetimeField(auto_now_add=True))
    record = model(key="k")
    assert record.made is None
    before = datetime.now()
    record.save()
    assert before <= record.made <= datetime.now()
    first = record.made
    record.save()
    assert record.made == model.query.get(key="k").made == first
    given = datetime(2020, 1, 1)
    assert model.create(key="other", made=given).made == given


def test_auto_now_is_set_by_each_full_save_and_by_a_partial_one_that_lists_it(server):
    model = model_of(changed=DatetimeField(auto_now=True), note=Field())
    record = model.create(key="k", changed=datetime(2020, 1, 1))
    first = record.changed
    assert first.year > 2020
    record.save(update_fields=["note"])
    assert record.changed == model.query.get(key="k").changed == first
    record.save(update_fields=["note", "changed"])
    second = record.changed
    assert second > first
    record.save(skip_auto_now=True)
    assert record.changed == second
    record.save()
    assert record.changed > second
    assert model.query.get(key="k").changed == record.changed


@pytest.mark.parametrize("type_", [int, float, datetime], ids=lambda t: t.__name__)
def test_a_sorted_field_can_fill_itself_with_the_time(server, type_):
    model = model_of(made=SortedField(type=type_, auto_now_add=True), changed=SortedField(type=type_, auto_now=True))
    started = datetime.now() if type_ is datetime else type_(clock.time())
    record = model.create(key="k")
    assert type(record.made) is type(record.changed) is type_
    assert record.made >= started
    made, changed = record.made, record.changed
    record.save()
    assert record.made == made and record.changed >= changed
    assert model.query.filter(made__gte=started) == [record]
    zero = datetime(1970, 1, 1) if type_ is datetime else type_(0)
    other = model.create(key="other", made=zero)
    assert other.made == zero, "a given value is kept, zero as well"
    indexes_agree(model)


def test_a_self_filling_sorted_field_that_was_told_not_to_is_refused_as_null(server):
    model = model_of(changed=SortedField(auto_now=True))
    with pytest.raises(ModelException, match="None"):
        model(key="k").save(skip_auto_now=True)
    assert server.dbsize() == 0


def test_auto_now_of_a_type_that_is_no_time_is_refused():
    with pytest.raises(ModelException, match="auto_now"):
        SortedField(type=date, auto_now=True)


# -- sorted fields ----------------------------------------------------------------------------------------------------

SORTED_VALUES = {
    int: [-(2**60), -5, 0, 3, 2**53, 2**53 + 1, 2**60, 2**60 + 1],
    float: [float("-inf"), -1.5, 0.0, 1e-300, 0.1, 1e300, float("inf")],
    Decimal: [Decimal("-1.5"), Decimal("0.1"), Decimal("0.10000000000000000001"), Decimal("0.2"), Decimal("3")],
    date: [date(1, 1, 1), date(2024, 2, 28), date(2024, 2, 29), date(9999, 12, 31)],
    datetime: [
        datetime(1, 1, 1),
        datetime(1969, 12, 31, 23, 59, 59, 999999),
        datetime(2024, 1, 1),
        datetime(2024, 1, 1, 0, 0, 0, 1),
        datetime(9999, 12, 31, 23, 59, 59, 999998),
        datetime(9999, 12, 31, 23, 59, 59, 999999),
    ],
}


@pytest.mark.parametrize("type_", SORTED_VALUES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("field_class", [SortedField, SortedKeyField], ids=lambda c: c.__name__)
def test_a_sorted_field_finds_exactly_the_values_in_a_range(server, type_, field_class):
    values = SORTED_VALUES[type_]
    model = model_of(value=field_class(type=type_))
    for place, value in enumerate(values):
        model.create(key=str(len(values) - place), value=value)

    def found(**filters):
        return sorted(record.value for record in model.query.filter(**filters))

    assert found() == values
    for at, value in enumerate(values):
        assert found(value=value) == [value]
        assert found(value__gt=value) == values[at + 1 :]
        assert found(value__gte=value) == values[at:]
        assert found(value__lt=value) == values[:at]
        assert found(value__lte=value) == values[: at + 1]
        assert found(value__between=(values[0], value)) == values[: at + 1]
        assert found(value__gt=values[0], value__lt=value) == values[1:at]
        assert model.query.count(value__gte=value) == len(values) - at
        assert model.query.filter(value=value)[0].value == value
    assert found(value__between=(values[-1], values[0])) == []
    indexes_agree(model)


@pytest.mark.parametrize("type_", SORTED_VALUES, ids=lambda t: t.__name__)
def test_the_order_of_a_sorted_field_is_that_of_its_values(server, type_):
    values = SORTED_VALUES[type_]
    model = model_of(value=SortedField(type=type_))
    for place, value in enumerate(values):
        model.create(key=str(len(values) - place), value=value)
    assert [record.value for record in model.query.order_by("value")] == values
    assert [record.value for record in model.query.order_by("-value")] == values[::-1]
    assert [record.value for record in model.query.order_by("-value").limit(3)] == values[::-1][:3]


def test_a_sorted_value_comes_back_with_its_type_and_digits(server):
    model = model_of(value=SortedField(type=Decimal))
    model.create(key="k", value="1.10")
    loaded = model.query.get(key="k")
    assert str(loaded.value) == "1.10"
    loaded.save()
    assert str(loaded.value) == "1.10" and type(loaded.value) is Decimal


@pytest.mark.parametrize(
    ("type_", "value"), [(float, float("nan")), (Decimal, Decimal("NaN")), (Decimal, Decimal("sNaN"))], ids=str
)
def test_nan_has_no_place_in_an_order(server, type_, value):
    model = model_of(value=SortedField(type=type_))
    with pytest.raises(ModelException, match="NaN"):
        model.create(key="k", value=value)
    assert server.dbsize() == 0
    with pytest.raises(QueryException):
        model.query.filter(value__gt=value).all()


def test_a_sorted_field_is_never_null(server):
    with pytest.raises(ModelException, match="null"):
        SortedField(null=True)
    with pytest.raises(ModelException, match="None"):
        model_of(value=SortedField()).create(key="k")


@pytest.mark.parametrize("wrong", [None, "abc", date(2024, 1, 1), float("nan"), [1]], ids=repr)
def test_a_bound_of_a_wrong_type_is_a_query_exception(server, wrong):
    model = model_of(value=SortedField())
    for lookup in ("value", "value__gt", "value__lte"):
        with pytest.raises(QueryException, match="value"):
            model.query.filter(**{lookup: wrong}).all()


@pytest.mark.parametrize("wrong", [5, (1,), (1, 2, 3), "ab", (1, None)], ids=repr)
def test_between_takes_two_bounds(server, wrong):
    model = model_of(value=SortedField())
    with pytest.raises(QueryException, match="value"):
        model.query.filter(value__between=wrong).all()


def test_a_naive_datetime_counts_as_utc_whatever_the_zone_of_the_process(server, monkeypatch):
    model = model_of(at=SortedField(type=datetime))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    clock.tzset()
    try:
        model.create(key="k", at=datetime(2024, 1, 1, 12))
        monkeypatch.setenv("TZ", "America/New_York")
        clock.tzset()
        assert len(model.query.filter(at=datetime(2024, 1, 1, 12))) == 1
        indexes_agree(model)
    finally:
        monkeypatch.undo()
        clock.tzset()


@pytest.mark.parametrize("year", [2024, 1500])
def test_aware_datetimes_compare_by_their_instant(server, year):
    model = model_of(at=SortedField(type=datetime))
    record = model.create(key="k", at=datetime(year, 1, 1, 12, tzinfo=UTC))
    same = datetime(year, 1, 1, 13, tzinfo=timezone(timedelta(hours=1)))
    assert model.query.filter(at=same) == [record]
    assert model.query.filter(at__lt=same) == []
    assert model.query.filter(at__gte=datetime(year, 1, 1)) == [record], "naive counts as UTC"


@pytest.mark.parametrize("more", [[], [datetime(9999, 12, 31, 23, 59, 59, 999998)]], ids=["plain", "sharing"])
def test_naive_and_aware_datetimes_have_one_order(server, more):
    model = model_of(team=Field(), at=SortedField(type=datetime), part=SortedField(type=datetime, partition_by="team"))
    values = [datetime(2024, 1, 1), datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 3), *more]
    for number, value in enumerate(values):
        model.create(key=str(9 - number), at=value, part=value)
    assert [record.at for record in model.query.order_by("at")] == values
    assert [record.at for record in model.query.order_by("-at").limit(2)] == values[::-1][:2]
    assert [record.at for record in model.query.order_by("part")] == values, "over all partitions"
    assert [record.at for record in model.query.filter(at__gte=values[1])] == values[1:]


@pytest.mark.parametrize("field_class", [KeyField, IndexedField, SortedField], ids=lambda c: c.__name__)
@pytest.mark.parametrize("moment", [datetime.max, datetime.min], ids=["last", "first"])
@pytest.mark.parametrize("hours", [-5, 5])
def test_a_moment_beyond_the_years_of_utc_is_stored_and_found(server, field_class, moment, hours):
    model = model_of(value=field_class(type=datetime))
    at = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    record = model.create(key="k", value=at)
    assert model.query.filter(value=at) == [record]
    assert model.query.get(key="k").value == at
    record.delete()
    assert [key for key in server.scan_iter() if not key.startswith(b"$Token:")] == []


def test_a_partition_is_made_of_values_that_print_alike_in_every_process(server):
    with pytest.raises(ModelException, match="partition_by"):
        model_of(tags=SetField(), score=SortedField(partition_by="tags"))


# -- partitions -------------------------------------------------------------------------------------------------------


def test_a_partition_is_an_order_of_its_own(server):
    model = model_of(team=Field(), score=SortedField(type=int, partition_by="team"))
    for key, team, score in [("a", "x", 1), ("b", "x", 2), ("c", "y", 3), ("d", None, 4), ("e", "None", 5)]:
        model.create(key=key, team=team, score=score)

    def keys(**filters):
        return [record.key for record in model.query.filter(**filters)]

    assert keys(team="x", score__gte=0) == ["a", "b"]
    assert keys(team="x", score__gt=1) == ["b"]
    assert keys(team=None, score__gt=0) == ["d"]
    assert keys(team="None", score__gt=0) == ["e"]
    assert keys(team="nobody", score__gt=0) == []
    assert keys(team="x", order_by="-score") == ["b", "a"]
    assert keys(order_by="-score") == ["e", "d", "c", "b", "a"], "an order over all partitions"
    indexes_agree(model)


def test_a_range_without_its_partition_is_refused_with_what_is_missing(server):
    model = model_of(team=KeyField(), place=Field(), score=SortedField(partition_by=("team", "place")))
    with pytest.raises(QueryException, match=r"partitioned by team, place.*exact filter for place"):
        model.query.filter(team="x", score__gt=1).all()
    with pytest.raises(QueryException, match="partitioned"):
        model.query.filter(team__in=["x"], place="p", score__gt=1).all()


def test_partitions_are_given_as_names(server):
    with pytest.raises(ModelException, match="partition_by="):
        SortedField(partition_by=["team"])
    with pytest.raises(ModelException, match=r"partition_by= names 'nobody'.*Fields"):
        model_of(score=SortedField(partition_by="nobody"))
    with pytest.warns(DeprecationWarning, match="partition_by"):
        assert SortedField(sort_by="team").partition_by == ("team",)
    with pytest.raises(ModelException, match="sort_by"):
        SortedField(sort_by="a", partition_by="b")


def test_a_sorted_key_field_has_the_lookups_of_both(server):
    model = model_of(number=SortedKeyField(type=int))
    a, b, c = (model.create(key=k, number=n) for k, n in [("a", 1), ("b", 12), ("c", 21)])
    query = model.query
    assert query.filter(number__gt=1) == [b, c]
    assert query.filter(number=12) == [b]
    assert set(query.filter(number__in=[1, 21, 99])) == {a, c}
    assert query.filter(number__startswith="1") == [a, b]
    assert query.filter(number__endswith="1") == [a, c]
    assert query.filter(number__contains="2") == [b, c]
    assert query.filter(number__isnull=True) == []
    assert query.filter(number__isnull=False) == [a, b, c]
    assert query.get(key="b", number=12) == b
    b.number = 13
    b.save(migrate_key=True)
    assert query.filter(number__between=(12, 13)) == [b]
    indexes_agree(model)


def test_field_names_that_contain_each_other_do_not_meet(server):
    model = model_of(a=SortedField(), ab=SortedField(), a_b=SortedField(), in_=IndexedField())
    one = model.create(key="1", a=1, ab=2, a_b=3, in_="x")
    two = model.create(key="2", a=3, ab=1, a_b=2, in_="y")
    assert model.query.filter(a__lt=2, ab__gt=1) == [one]
    assert model.query.filter(ab__lt=2, a_b__lt=3) == [two]
    assert model.query.filter(in___in=["y"]) == [two]
