"""The typed shortcuts: what each fixes, and the sentences they refuse with."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pytest

from popoto.exceptions import ModelException
from popoto.orm.fields import typed
from popoto.orm.fields.datetime import DatetimeField
from popoto.orm.fields.key import KeyField
from popoto.orm.model import Model

SHORTCUTS: dict[Any, tuple[type, Any, Any]] = {  # field: type, a value as text or another form, the value it becomes
    typed.IntField: (int, "5", 5),
    typed.FloatField: (float, "2.5", 2.5),
    typed.DecimalField: (Decimal, "1.10", Decimal("1.10")),
    typed.StringField: (str, "text", "text"),
    typed.BooleanField: (bool, 1, True),
    typed.BytesField: (bytes, bytearray(b"x"), b"x"),
    typed.ListField: (list, (1, 2), [1, 2]),
    typed.DictField: (dict, {"a": 1}, {"a": 1}),
    typed.SetField: (set, [1, 2], {1, 2}),
    typed.TupleField: (tuple, [1, 2], (1, 2)),
    typed.DateField: (date, "2026-03-02", date(2026, 3, 2)),
    typed.TimeField: (time, "12:30", time(12, 30)),
    DatetimeField: (datetime, "2026-03-02T12:30", datetime(2026, 3, 2, 12, 30)),
}
every_shortcut = pytest.mark.parametrize("kind", SHORTCUTS, ids=lambda kind: kind.__name__)


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


def model_of(field: Any) -> Any:
    return type(Model)("TypedModel", (Model,), {"key": KeyField(), "v": field, "__qualname__": "<locals>.TypedModel"})


@every_shortcut
def test_the_type_is_fixed_and_values_are_brought_to_it(server, kind):
    type_, given, wanted = SHORTCUTS[kind]
    field = kind()
    assert field.type is type_ and field.null and kind(type=type_).type is type_
    model = model_of(field)
    model.create(key="a", v=given)
    model.create(key="b")
    found = model.query.get(key="a").v
    assert found == wanted and type(found) is type_
    assert model.query.get(key="b").v is None
    with pytest.raises(ModelException, match=rf"{kind.__name__}: type= is always {type_.__name__}; leave it out"):
        kind(type=Odd)


@every_shortcut
def test_what_does_not_fit_says_the_model_the_field_what_was_given_and_what_is_expected(server, kind):
    type_ = SHORTCUTS[kind][0]
    said = rf"TypedModel: {kind.__name__} 'v': expected {type_.__name__}, got <odd> .*Odd"
    with pytest.raises(ModelException, match=said):
        model_of(kind())(key="a", v=Odd())
    record = model_of(kind()).create(key="a")
    record.v = Odd()
    with pytest.raises(ModelException, match=said):
        record.save()
    with pytest.raises(ModelException, match=rf"{kind.__name__}: expected {type_.__name__}, got <odd>"):
        kind(default=Odd())
    with pytest.raises(ModelException, match=rf"'v': expected {type_.__name__}, got <odd>"):
        model_of(kind(default=Odd))(key="a")


@every_shortcut
def test_none_is_refused_at_save_where_the_field_is_not_null(server, kind):
    record = model_of(kind(null=False))(key="a")
    with pytest.raises(ModelException, match=r"TypedModel\.v is None, and the field is not null"):
        record.save()
    assert server.dbsize() == 0
    record.v = SHORTCUTS[kind][1]
    record.save()


@every_shortcut
def test_a_default_is_a_value_or_a_function_and_each_record_has_its_own(server, kind):
    _, given, wanted = SHORTCUTS[kind]
    by_value, by_function = model_of(kind(default=given)), model_of(kind(default=lambda: given))
    for model in (by_value, by_function):
        one, other = model(key="a"), model(key="b")
        assert one.v == other.v == wanted
        if model is by_value and isinstance(wanted, (list, dict, set)):
            assert one.v is not other.v


@every_shortcut
@pytest.mark.parametrize("wrong", [0, -1, "10", 2.5, True], ids=str)
def test_a_max_length_that_is_no_length_is_refused(kind, wrong):
    with pytest.raises(ModelException, match="max_length= expected a positive number of characters or None"):
        kind(max_length=wrong)


@every_shortcut
def test_an_option_that_does_not_exist_is_refused(kind):
    with pytest.raises(TypeError, match="nul"):
        kind(nul=True)
    with pytest.raises(TypeError):
        kind(SHORTCUTS[kind][0])


def test_a_text_longer_than_its_max_length_is_refused_never_cut(server):
    assert typed.StringField().max_length == 1024 and typed.StringField(max_length=None).max_length is None
    model = model_of(typed.StringField(max_length=3))
    model.create(key="a", v="abc")
    with pytest.raises(ModelException, match=r"'v': the text has 4 characters, max_length is 3.*ContentField"):
        model(key="b", v="abcd")
