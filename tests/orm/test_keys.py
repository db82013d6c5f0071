"""No value, whatever it contains, meets another one's key; and each is saved, found and deleted like any other."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto import redis_db
from popoto.exceptions import ModelException, PopotoException, QueryException
from popoto.orm.db_key import DB_key
from popoto.orm.fields.base import Field
from popoto.orm.fields.indexed import IndexedField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.keys import ModelKeys, escape, field_prefix, index_part, key_part, unescape
from popoto.orm.model import Model

from .oracle import indexes_agree, nothing_left, stored_records

texts = st.text(st.characters(codec="utf-8"))
spiky = st.text(st.sampled_from("a:/*?[]^-'{}&#58;\\ \n\0None\U0001f600é"), max_size=12)
offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)


class KeysParcel(Model):
    street = KeyField(max_length=None)
    label = IndexedField(max_length=None)
    text = Field(max_length=None)
    size = SortedField(type=int, partition_by="label", default=0)


AWKWARD = [
    "",
    " ",
    ":",
    "a:b",
    "a::values",
    "*",
    "a*",
    "a?c",
    "[ab]",
    "^",
    "-",
    "'",
    "/",
    "//",
    "/:",
    "{",
    "{tag}",
    "{&#58;}",
    "/{&#58;}",
    "a{&#58;}b",
    "None",
    "/None",
    "True",
    "1.0",
    "$Class",
    "::$occ",
    "\\",
    "\\*",
    "two words",
    " padded ",
    "line\nbreak",
    "\r\n",
    "tab\t",
    "nul\0inside",
    "\0",
    "\0\0",
    "\0\1",
    "ends with nul\0",
    "\x7f",
    "\U0001f600",
    "e\u0301",
    "é",
    "ÿ",
    "\U0010ffff",
    "日本語:東京",
    "x" * 10_000,
]
IDS = [repr(text[:20]) for text in AWKWARD]


# -- escaping ---------------------------------------------------------------------------------------------------------


@given(texts | spiky)
def test_unescaping_gives_back_what_was_escaped(text):
    assert unescape(escape(text)) == text


@given(texts | spiky)
def test_an_escaped_part_holds_no_separator_glob_or_hash_tag(text):
    part = escape(text)
    assert ":" not in part.replace("{&#58;}", "")
    bare = part.replace("{&#58;}", "").replace("//", "")
    for special in "'?*^[]-{":
        assert special not in bare.replace("/" + special, "")


@given(texts | spiky, texts | spiky)
def test_two_texts_share_no_part_of_a_key(a, b):
    assert (escape(a) == escape(b)) == (a == b)
    assert (key_part(a) == key_part(b)) == (a == b)
    assert (index_part(a) == index_part(b)) == (a == b)


@given(st.lists(spiky, min_size=1, max_size=3), st.lists(spiky, min_size=1, max_size=3))
def test_two_lists_of_parts_share_no_key(a, b):
    keys = ModelKeys("", "M")
    assert (keys.record_key(a) == keys.record_key(b)) == (a == b)
    assert (keys.index("$IndexF", "f", *a) == keys.index("$IndexF", "f", *b)) == (a == b)


@given(spiky)
def test_none_shares_its_part_with_no_text(text):
    assert key_part(None) == index_part(None) == "None"
    assert key_part(text) != "None"
    assert index_part(text) != "None"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("plain", "plain"),
        ("a/b", "a//b"),
        ("it's", "it/'s"),
        ("what?", "what/?"),
        ("a*", "a/*"),
        ("x^y", "x/^y"),
        ("[x]", "/[x/]"),
        ("2020-01-02", "2020/-01/-02"),
        ("a:b", "a{&#58;}b"),
        ("", ""),
        ("a b\n", "a b\n"),
        ("a}\\", "a}\\"),
    ],
)
def test_a_part_is_spelled_as_the_wire_layout_says(text, part):
    assert escape(text) == part
    assert unescape(part) == text


same_type_pairs = st.one_of(
    *(
        st.tuples(strategy, strategy)
        for strategy in (
            st.integers(),
            st.floats(allow_nan=False),
            st.decimals(allow_nan=False, min_value=-1000, max_value=1000),
            st.booleans(),
            st.dates(),
            st.datetimes(),
            st.datetimes(timezones=offsets, min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)),
            st.times(),
        )
    )
)


@given(same_type_pairs)
def test_an_index_keeps_equal_values_together_and_different_ones_apart(pair):
    a, b = pair
    assert (index_part(a) == index_part(b)) == (a == b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Decimal("1.10"), Decimal("1.1")),
        (Decimal("100"), Decimal("1E+2")),
        (Decimal("0"), Decimal("-0.00")),
        (Decimal("0"), Decimal("0E+5")),
        (0.0, -0.0),
        (datetime(2024, 1, 1, 12, tzinfo=timezone.utc), datetime(2024, 1, 1, 13, tzinfo=timezone(timedelta(hours=1)))),
        (time(12, tzinfo=timezone.utc), time(13, tzinfo=timezone(timedelta(hours=1)))),
    ],
)
def test_an_index_keeps_equal_values_of_different_looks_together(a, b):
    assert a == b
    assert index_part(a) == index_part(b)


@given(same_type_pairs)
def test_two_different_values_never_share_a_record_key(pair):
    a, b = pair
    if a != b:
        assert key_part(a) != key_part(b)


@pytest.mark.parametrize(
    ("class_name", "prefix"),
    [
        ("KeyField", "$KeyF"),
        ("UniqueKeyField", "$UniqueKeyF"),
        ("AutoKeyField", "$AutoKeyF"),
        ("IndexedField", "$IndexF"),
        ("UniqueField", "$UniquF"),
        ("SortedField", "$SortF"),
        ("SortedKeyField", "$SortedKeyF"),
        ("GeoField", "$GeoF"),
        ("Relationship", "$RelationshipF"),
        ("DecayingSortedField", "$DecayingSortF"),
        ("CyclicDecayField", "$CyclicDecayF"),
        ("ConfidenceField", "$ConfidencF"),
        ("DatetimeField", "$DatetimF"),
        ("DateField", "$DatF"),
        ("TimeField", "$TimF"),
        ("ListField", "$ListF"),
        ("FloatField", "$oatF"),
        ("TupleField", "$TupF"),
    ],
)
def test_the_prefix_of_an_index_comes_from_the_name_of_the_field_class(class_name, prefix):
    assert field_prefix(class_name) == prefix


# -- through the whole of the ORM -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", AWKWARD, ids=IDS)
def test_any_text_is_saved_found_and_deleted(server, text):
    other = KeysParcel.create(street="another", label="another", text="another")
    parcel = KeysParcel.create(street=text, label=text, text=text, size=3)
    query = KeysParcel.query

    loaded = query.get(street=text)
    assert (loaded.street, loaded.label, loaded.text, loaded.size) == (text, text, text, 3)
    assert query.get(parcel.pk) == parcel
    assert query.get(db_key=parcel.db_key) == parcel
    assert query.get_many([parcel.pk, other.pk]) == [parcel, other]
    for name in ("street", "label", "text"):
        assert query.filter(**{name: text}) == [parcel]
    for name in ("street", "label"):
        assert query.filter(**{f"{name}__in": [text, "x"]}) == [parcel]
        assert query.filter(**{f"{name}__isnull": True}) == []
        assert parcel in query.filter(**{f"{name}__isnull": False})
    assert query.filter(label=text, size__gte=1) == [parcel]
    indexes_agree(KeysParcel)

    assert parcel.delete() is True
    assert query.get(street=text) is None
    assert query.filter(label=text) == []
    assert other.delete() is True
    nothing_left(server)


@pytest.mark.parametrize("text", AWKWARD, ids=IDS)
def test_any_text_is_found_by_each_part_of_it(server, text):
    others = [KeysParcel(street=f"{i}{other}", label=other, text="") for i, other in enumerate(["zz", "q" * 9, "Q:/*"])]
    for other in others:
        other.save()
    parcel = KeysParcel.create(street=text, label=text)
    everyone = [*others, parcel]
    for cut in {0, 1, 2, len(text) // 2, len(text)}:
        for name in ("street", "label"):
            head, tail = text[:cut], text[len(text) - cut :]
            found = KeysParcel.query.filter(**{f"{name}__startswith": head})
            assert set(found) == {o for o in everyone if getattr(o, name).startswith(head)}
            found = KeysParcel.query.filter(**{f"{name}__endswith": tail})
            assert set(found) == {o for o in everyone if getattr(o, name).endswith(tail)}
        middle = text[cut : cut + 3]
        found = KeysParcel.query.filter(street__contains=middle)
        assert set(found) == {o for o in everyone if middle in o.street}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.lists(spiky | st.sampled_from(AWKWARD[:-1]), unique=True, min_size=2, max_size=8), spiky)
def test_texts_never_meet_each_other(server, streets, needle):
    server.flushall()
    pipeline = server.pipeline()
    for street in streets:
        KeysParcel(street=street, label=street[::-1], text=street).save(pipeline=pipeline)
    pipeline.execute()
    assert len(stored_records(KeysParcel)) == len(streets)
    indexes_agree(KeysParcel)

    def found(**filters: Any) -> set[str]:
        return {parcel.street for parcel in KeysParcel.query.filter(**filters)}

    for street in streets:
        assert found(street=street) == found(label=street[::-1]) == found(text=street) == {street}
    assert found(street__startswith=needle) == {s for s in streets if s.startswith(needle)}
    assert found(street__endswith=needle) == {s for s in streets if s.endswith(needle)}
    assert found(street__contains=needle) == {s for s in streets if needle in s}
    assert found(label__startswith=needle) == {s for s in streets if s[::-1].startswith(needle)}
    assert found(label__endswith=needle) == {s for s in streets if s[::-1].endswith(needle)}
    for parcel in KeysParcel.query.all():
        assert parcel.delete()
    nothing_left(server)


class KeysTwoParts(Model):
    a = KeyField()
    b = KeyField()
    label = IndexedField()


def test_none_and_the_text_none_are_two_records(server):
    absent = KeysTwoParts.create(a="x", b=None, label=None)
    text = KeysTwoParts.create(a="x", b="None", label="None")
    assert absent != text
    assert KeysTwoParts.query.count() == 2
    for name in ("b", "label"):
        assert KeysTwoParts.query.filter(**{name: None}) == [absent]
        assert KeysTwoParts.query.filter(**{name: "None"}) == [text]
        assert KeysTwoParts.query.filter(**{f"{name}__isnull": True}) == [absent]
        assert KeysTwoParts.query.filter(**{f"{name}__isnull": False}) == [text]
        assert set(KeysTwoParts.query.filter(**{f"{name}__in": [None, "None"]})) == {absent, text}
    assert KeysTwoParts.query.get(a="x", b=None) == absent
    assert KeysTwoParts.query.get(a="x", b="None") == text


def test_a_colon_does_not_move_text_from_one_key_part_to_the_next(server):
    KeysTwoParts.create(a="x:y", b="z")
    KeysTwoParts.create(a="x", b="y:z")
    assert KeysTwoParts.query.count() == 2


@pytest.mark.parametrize("name", ["a", "label"])
def test_half_a_surrogate_pair_is_refused_with_a_sentence(server, name):
    values = {"a": "x", "label": "x", name: "half \ud800"}
    with pytest.raises(ModelException, match="surrogate"):
        KeysTwoParts.create(b="y", **values)
    nothing_left(server)


@pytest.mark.parametrize("parameter", ["a", "label", "a__startswith", "label__endswith", "a__contains"])
def test_a_filter_for_half_a_surrogate_pair_is_refused_with_a_sentence(server, parameter):
    KeysTwoParts.create(a="x", b="y")
    with pytest.raises(PopotoException, match="surrogate"):
        KeysTwoParts.query.filter(**{parameter: "\ud800"}).all()


def test_a_get_for_half_a_surrogate_pair_is_refused_with_a_sentence(server):
    with pytest.raises(QueryException, match="surrogate"):
        KeysTwoParts.query.get(a="\ud800", b="x")


def test_keys_stand_behind_the_namespace_of_the_settings(server, monkeypatch):
    monkeypatch.setattr(redis_db, "_namespace", "staging:")
    parcel = KeysTwoParts.create(a="x", b="y", label="z")
    assert parcel.pk == "staging:KeysTwoParts:x:y"
    assert all(key.startswith(b"staging:") for key in server.scan_iter())
    assert KeysTwoParts.query.filter(label="z") == [parcel]
    indexes_agree(KeysTwoParts)
    monkeypatch.setattr(redis_db, "_namespace", "")
    assert KeysTwoParts.query.count() == 0
    assert KeysTwoParts.query.get(a="x", b="y") is None
    monkeypatch.setattr(redis_db, "_namespace", "staging:")
    parcel.delete()
    nothing_left_in = [key for key in server.scan_iter() if b"$Token:" not in key]
    assert nothing_left_in == []


# -- values of other types as keys ------------------------------------------------------------------------------------

TYPED = {
    int: [0, -5, 2**70],
    float: [0.0, 5.0, -1.5e300, float("inf")],
    Decimal: [Decimal("1.10"), Decimal("-3"), Decimal("1E+3")],
    bool: [True, False],
    date: [date(2024, 1, 2), date(1, 1, 1)],
    datetime: [datetime(2020, 1, 2, 3, 4, 5), datetime(2020, 1, 2, 3, 4, 5, 6)],
    time: [time(3, 4), time(23, 59, 59, 999999)],
}


@pytest.mark.parametrize("type_", TYPED, ids=lambda t: t.__name__)
def test_a_key_of_any_scalar_type_is_saved_found_and_deleted(server, type_):
    class KeysTyped(Model):
        key = KeyField(type=type_)
        label = IndexedField(type=type_)

    records = [KeysTyped.create(key=value, label=value) for value in TYPED[type_]]
    for record, value in zip(records, TYPED[type_], strict=True):
        loaded = KeysTyped.query.get(key=value)
        assert loaded.key == value and type(loaded.key) is type_
        assert KeysTyped.query.filter(key=value) == KeysTyped.query.filter(label=value) == [record]
        assert KeysTyped.query.filter(key=value, values=("key",)) == [{"key": value}]
    indexes_agree(KeysTyped)
    for record in records:
        record.delete()
    nothing_left(server)


def test_a_filter_value_is_taken_as_the_fields_type(server):
    class KeysFlags(Model):
        ratio = KeyField(type=float)
        on = IndexedField(type=bool)

    record = KeysFlags.create(ratio=5, on=1)
    assert record.pk == "KeysFlags:5.0"
    assert KeysFlags.query.filter(ratio=5) == [record]
    assert KeysFlags.query.get(ratio="5") == record
    assert KeysFlags.query.filter(on=1) == [record]
    assert KeysFlags.query.filter(on__in=[0]) == []


# -- DB_key -----------------------------------------------------------------------------------------------------------


@given(st.lists(spiky, min_size=1, max_size=4))
def test_a_db_key_is_read_back_from_its_redis_key(parts):
    key = DB_key("M", *parts)
    assert list(DB_key.from_redis_key(key.redis_key)) == ["M", *parts]
    assert DB_key.from_redis_key(key.redis_key.encode()).redis_key == str(key)


def test_a_db_key_finds_its_record(server):
    record = KeysTwoParts.create(a="x:y", b="z")
    assert str(record.db_key) == record.pk == "KeysTwoParts:x{&#58;}y:z"
    assert record.db_key.exists()
    assert record.db_key.get_instance(KeysTwoParts) == record
    record.delete()
    assert not record.db_key.exists()
    assert record.db_key.get_instance(KeysTwoParts) is None
