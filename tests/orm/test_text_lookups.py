"""startswith, endswith and contains: what the distinct texts of an index, or the record's own key, answer."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto.exceptions import ModelException
from popoto.orm.fields.indexed import IndexedField
from popoto.orm.fields.key import AutoKeyField, KeyField
from popoto.orm.model import Model

from .oracle import content, indexes_agree, nothing_left


class TextPage(Model):
    area = KeyField()  # the first part of the key
    name = KeyField()
    title = IndexedField()
    code = IndexedField(unique=True)


class TextAuto(Model):
    number = AutoKeyField()
    title = IndexedField()


class TextLast(Model):
    area = KeyField()
    number = AutoKeyField()


FIELDS = ("area", "name", "title", "code")
TESTS = {
    "startswith": lambda text, needle: text.startswith(needle),
    "endswith": lambda text, needle: text.endswith(needle),
    "contains": lambda text, needle: needle in text,
}
LOOKUPS = [(f, k) for f in FIELDS for k in TESTS if k != "contains" or f in ("area", "name")]
texts = st.one_of(
    st.none(),
    st.sampled_from(
        ["None", "Nonesuch", "No", "", ":", "a:b", "{&#58;}", "/{&#58;}", "{", "//", "/None", "a\0b", "\0", "ü"]
    ),
    st.text(alphabet="No/:{}&#58;\0aü\U0010ffff", max_size=4),
)
needles = st.one_of(
    st.sampled_from(["", "N", "No", "None", "None:", "/", "{", ":", "\0", "{&#58;}"]), texts.filter(bool)
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(texts, texts, texts, texts), max_size=6), asked=st.lists(needles, min_size=1, max_size=4)
)
def test_every_text_lookup_finds_what_python_finds(server, rows, asked):
    server.flushall()
    stored = {}
    for row in rows:
        try:
            item = TextPage.create(**dict(zip(FIELDS, row, strict=True)))
        except ModelException:  # a code that is taken, a key of None alone
            continue
        stored[item.pk] = item
    indexes_agree(TextPage)
    for needle in asked:
        for field, lookup in LOOKUPS:
            wanted = {
                key
                for key, item in stored.items()
                if getattr(item, field) is not None and TESTS[lookup](getattr(item, field), needle)
            }
            query = TextPage.query.filter(**{f"{field}__{lookup}": needle})
            assert {item.pk for item in query} == wanted, (field, lookup, needle)
            assert query.count() == len(wanted), (field, lookup, needle)
            first = TextPage.query.filter(**{f"{field}__{lookup}": needle}).limit(1).all()
            assert len(first) == min(1, len(wanted))


def test_a_text_is_listed_once_from_its_first_record_to_its_last(server):
    pages = [TextPage.create(area="a", name=f"n{i}", title="same") for i in range(3)]
    assert content(server, b"$IndexF:TextPage:title::values") == {b"same": 0.0}
    pages[0].title = "other"
    pages[0].save()
    pages[1].delete()
    assert content(server, b"$IndexF:TextPage:title::values") == {b"same": 0.0, b"other": 0.0}
    pages[2].delete()
    pages[0].delete()
    nothing_left(server)


def test_the_first_key_field_needs_no_list_of_texts(server):
    TextPage.create(area="north", name="n")
    assert not server.exists("$KeyF:TextPage:area::values") and server.exists("$KeyF:TextPage:name::values")
    assert TextPage.query.filter(area__startswith="no").count() == 1


def test_auto_keys_are_found_by_their_beginning_wherever_they_stand(server):
    first, second = TextAuto.create(number="abc", title="x"), TextLast.create(area="a", number="abd")
    TextAuto.create(number="xyz")
    for model, found in ((TextAuto, first), (TextLast, second)):
        assert model.query.filter(number__startswith="ab").all() == [found]
        assert model.query.filter(number__contains="b").count() == 1
        assert model.query.filter(number__endswith="zz").count() == 0


@pytest.mark.parametrize("lookup", TESTS)
def test_more_texts_than_one_call_looks_at_are_found_by_reading(server, lookup):
    TextPage.bulk_create(TextPage(area="a", name=f"{i:05}", title=f"t{i}") for i in range(10_100))
    needle = {"startswith": "", "endswith": "7", "contains": "0099"}[lookup]
    field = "name"
    expected = sum(1 for i in range(10_100) if TESTS[lookup](f"{i:05}", needle))
    assert TextPage.query.filter(**{f"{field}__{lookup}": needle}).count() == expected
    page = TextPage.query.filter(**{f"{field}__{lookup}": needle}).limit(3).all()
    assert len(page) == 3 and all(TESTS[lookup](item.name, needle) for item in page)
