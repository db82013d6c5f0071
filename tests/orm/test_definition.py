"""What a class body may say, and what it becomes."""

from __future__ import annotations

import copy
import pickle
from datetime import datetime
from enum import Enum

import pytest

from popoto.exceptions import ModelException, QueryException
from popoto.orm.fields.base import Field
from popoto.orm.fields.indexed import IndexedField
from popoto.orm.fields.key import AutoKeyField, KeyField, UniqueKeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import IntField, ListField
from popoto.orm.model import Model

from .oracle import indexes_agree


class DefinitionPet(Model):
    name = KeyField()
    kind = IndexedField(default="cat")
    age = IntField(default=1)
    tags = ListField(default=list)
    _secret = Field()
    _colour = "plain"

    def speak(self) -> str:
        return f"{self.name} the {self.kind}"

    @property
    def loud(self) -> str:
        return self.name.upper()

    @staticmethod
    def legs() -> int:
        return 4

    @classmethod
    def kindly(cls, name: str) -> DefinitionPet:
        return cls(name=name, kind="kind")


def define(model="DefinitionThing", bases=(Model,), /, *, module=__name__, qualname=None, **body):
    """Define a model as if a class statement stood in `module`; without a qualname it is a local class."""
    return type(Model)(model, bases, {"__module__": module, "__qualname__": qualname or f"f.<locals>.{model}", **body})


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["limit", "order_by", "values"])
def test_a_keyword_of_filter_is_no_field_name(name):
    with pytest.raises(ModelException, match=rf"{name}.*keyword of filter"):
        define(**{name: Field()})


@pytest.mark.parametrize("name", ["Name", "NAME", "9lives", "é", "ünder"])
def test_a_field_name_starts_with_a_lowercase_letter_or_an_underscore(name):
    with pytest.raises(ModelException, match="lowercase"):
        define(**{name: Field()})


@pytest.mark.parametrize("name", ["a:b", "a b", "a*"])
def test_a_field_name_is_an_identifier(name):
    with pytest.raises(ModelException, match="Rename"):
        define(**{name: Field()})


@pytest.mark.parametrize(
    "name",
    [
        "save",
        "delete",
        "create",
        "load",
        "pk",
        "db_key",
        "query",
        "objects",
        "is_valid",
        "pre_save",
        "to_dict",
        "get_info",
        "async_save",
        "query_class",
        "_meta",
        "_options",
        "_ttl",
        "_expire_at",
        "_redis_key",
        "_is_persisted",
        "_saved_key",
        "_validate",
    ],
)
def test_a_name_of_model_itself_is_no_field_name(name):
    with pytest.raises(ModelException, match=rf"{name}.*Rename"):
        define(**{name: Field()})


def test_a_public_attribute_that_is_no_field_is_refused_with_what_to_write():
    for value in (5, "text", [1], {"a": 1}, (1,), 1.5):
        with pytest.raises(ModelException, match=r"DefinitionThing\.age.*Field.*_age"):
            define(age=value)


def test_methods_properties_nested_classes_and_private_attributes_are_left_alone():
    class Kind(Enum):
        CAT = 1

    model = define(Kind=Kind, shout=lambda self: "!", limit_of=staticmethod(len), _private=5, __slots_hint__=1)
    assert model.Kind is Kind and model._private == 5
    pet = DefinitionPet.kindly("Tom")
    assert pet.speak() == "Tom the kind"
    assert (pet.loud, pet.legs(), pet._colour) == ("TOM", 4, "plain")
    assert set(DefinitionPet._meta.fields) == {"name", "kind", "age", "tags", "_secret"}


def test_a_hidden_field_is_stored_and_not_shown(server):
    pet = DefinitionPet.create(name="Tom", _secret="mouse")
    assert DefinitionPet.query.get(name="Tom")._secret == "mouse"
    assert pet.to_dict() == {"name": "Tom", "kind": "cat", "age": 1, "tags": []}
    assert pet.to_dict(include=["name", "age", "nothing"], exclude=["age"]) == {"name": "Tom"}
    assert list(DefinitionPet._meta.fields)[-1] == "_secret", "hidden fields come last"
    assert list(DefinitionPet._meta.hidden_fields) == ["_secret"]
    assert "_secret" not in DefinitionPet._meta.explicit_fields


# -- metadata ---------------------------------------------------------------------------------------------------------


def test_query_and_objects_are_one_object_and_meta_and_options_too():
    assert DefinitionPet.query is DefinitionPet.objects
    assert DefinitionPet._meta is DefinitionPet._options
    assert DefinitionPet.query.model_class is DefinitionPet
    assert define("DefinitionA").query is not define("DefinitionB").query


def test_a_field_on_the_class_is_the_field_and_on_an_instance_its_value():
    assert isinstance(DefinitionPet.age, IntField)
    assert DefinitionPet(name="x").age == 1


def test_the_metadata_names_the_fields_by_kind():
    class DefinitionMeta(Model):
        zone = KeyField()
        area = UniqueKeyField()
        number = AutoKeyField()
        score = SortedField(default=0)
        status = IndexedField()
        plain = Field()

    meta = DefinitionMeta._meta
    assert meta.model_name == "DefinitionMeta"
    assert meta.field_names == ["zone", "area", "number", "score", "status", "plain"]
    assert meta.key_field_names == {"zone", "area", "number"}
    assert meta.auto_field_names == {"number"}
    assert meta.sorted_field_names == {"score"}
    assert meta.db_class_set_key == "$Class:DefinitionMeta"
    assert meta.db_key_length == 4
    assert [meta.get_db_key_index_position(name) for name in ("area", "number", "zone")] == [1, 2, 3]
    info = DefinitionMeta.get_info()
    assert info["name"] == "DefinitionMeta" and info["fields"] == meta.field_names
    assert {"zone", "zone__contains", "score__gte", "status__in", "plain"} <= set(info["query_filters"])
    assert "plain__startswith" not in info["query_filters"]
    assert meta.filter_query_params_by_field["plain"] == {"plain", "plain__in", "plain__isnull"}


# -- the key that is added --------------------------------------------------------------------------------------------


def test_a_model_without_a_key_has_an_auto_key_from_the_start(server):
    model = define(note=Field())
    assert isinstance(model._auto_key, AutoKeyField)
    assert list(model._meta.fields) == ["note", "_auto_key"]
    assert model.query.filter(_auto_key="x" * 32) == []
    assert model.query.get(note="x") is None
    record = model.create(note="x")
    assert record.pk == f"DefinitionThing:{record._auto_key}"
    again = define(note=Field())  # as another process would, which only reads
    found = again.query.filter()[0]
    assert found.pk == record.pk
    found.note = "y"
    found.save()
    assert again.query.count() == 1
    assert again.query.get(_auto_key=record._auto_key).note == "y"


def test_a_model_with_a_key_has_no_auto_key():
    assert "_auto_key" not in DefinitionPet._meta.fields
    assert not hasattr(DefinitionPet, "_auto_key")


def test_a_subclass_that_adds_a_key_loses_the_auto_key():
    parent = define("DefinitionParent", note=Field())
    child = define("DefinitionChild", (parent,), name=KeyField())
    assert set(parent._meta.fields) == {"note", "_auto_key"}
    assert set(child._meta.fields) == {"note", "name"}
    assert child._meta.key_names == ("name",)


# -- Meta -------------------------------------------------------------------------------------------------------------


def meta(**options):
    return type("Meta", (), options)


@pytest.mark.parametrize("wrong", ["nobody", "-nobody", "--name", "-", "", 5, ["name"], ("name",)], ids=repr)
def test_meta_order_by_names_a_field(wrong):
    with pytest.raises(ModelException, match="order_by"):
        define(name=KeyField(), Meta=meta(order_by=wrong))


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "5"], ids=repr)
def test_meta_ttl_is_a_positive_number_of_seconds(wrong):
    with pytest.raises(ModelException, match=r"ttl.*positive"):
        define(Meta=meta(ttl=wrong))


@pytest.mark.parametrize(
    "wrong",
    ["name", ("name",), (("name", True),), ((("name",), "yes"),), ((("nobody",), True),), 5],
    ids=repr,
)
def test_meta_indexes_of_a_wrong_shape_are_refused(wrong):
    with pytest.raises(ModelException, match="indexes"):
        define(name=KeyField(), Meta=meta(indexes=wrong))


def test_an_unknown_option_of_meta_is_refused_with_those_there_are():
    with pytest.raises(ModelException, match=r"no option odrer_by.*order_by"):
        define(Meta=meta(odrer_by="x"))


@pytest.mark.parametrize("wrong", ["", 5, "a:b", None], ids=repr)
def test_a_key_name_that_would_meet_another_models_keys_is_refused_or_escaped(server, wrong):
    try:
        model = define(name=KeyField(), b=IndexedField(), Meta=meta(key_name=wrong))
    except ModelException:
        return
    model.create(name="x", b="c")
    assert all(key.count(b":") == 1 for key in server.scan_iter(match="$Class*"))


def test_meta_key_name_is_the_name_in_the_keys(server):
    model = define(name=KeyField(), Meta=meta(key_name="Renamed"))
    assert model.create(name="x").pk == "Renamed:x"
    assert server.exists("$Class:Renamed")
    assert model.query.get(name="x").pk == "Renamed:x"


def test_an_abstract_model_is_made_into_records_by_its_subclasses_only(server):
    base = define("DefinitionBase", name=KeyField(), Meta=meta(abstract=True))
    with pytest.raises(ModelException, match="DefinitionBase is abstract"):
        base(name="x")
    with pytest.raises(ModelException, match="abstract"):
        base.create(name="x")
    child = define("DefinitionChild", (base,), age=IntField())
    assert child.create(name="x", age=3).pk == "DefinitionChild:x"


# -- inheritance ------------------------------------------------------------------------------------------------------


def test_fields_are_inherited_overridden_and_dropped(server):
    class Stamped:
        made = Field(default="now")

        def stamp(self):
            return self.made

    class DefinitionAnimal(Model):
        name = KeyField()
        legs = IntField(default=4)
        sound = Field(default="...")

        class Meta:
            order_by = "-name"
            ttl = 60

    class DefinitionBird(Stamped, DefinitionAnimal):
        legs = IntField(default=2)
        sound = None
        wings = IntField(default=2)

    class DefinitionOwl(DefinitionBird):
        class Meta:
            ttl = 5

    assert set(DefinitionBird._meta.fields) == {"name", "legs", "made", "wings"}
    bird = DefinitionBird.create(name="Tit")
    assert (bird.legs, bird.made, bird.stamp(), bird.pk) == (2, "now", "now", "DefinitionBird:Tit")
    assert bird.sound is None
    assert DefinitionAnimal(name="x").legs == 4 and DefinitionAnimal(name="x").sound == "..."
    assert (DefinitionBird._meta.order_by, DefinitionBird._meta.ttl) == ("-name", 60)
    assert (DefinitionOwl._meta.order_by, DefinitionOwl._meta.ttl) == ("-name", 5)
    assert set(DefinitionOwl._meta.fields) == set(DefinitionBird._meta.fields)
    owl = DefinitionOwl.create(name="Uhu")
    assert DefinitionBird.query.all() == [bird] and DefinitionOwl.query.all() == [owl]
    assert DefinitionAnimal.query.count() == 0
    indexes_agree(DefinitionOwl)


def test_a_subclass_has_fields_of_its_own():
    child = define("DefinitionKitten", (DefinitionPet,))
    assert child.age is not DefinitionPet.age
    assert child.age.name == "age"
    assert isinstance(DefinitionPet.__dict__["age"], IntField)


def test_an_inherited_order_that_names_a_dropped_field_is_refused():
    parent = define("DefinitionParent", name=KeyField(), age=IntField(), Meta=meta(order_by="age"))
    with pytest.raises(ModelException, match="order_by"):
        define("DefinitionChild", (parent,), age=None)


def test_sorted_partitions_of_a_subclass_see_its_own_fields(server):
    parent = define(
        "DefinitionParent", name=KeyField(), team=Field(), score=SortedField(partition_by="team", default=0)
    )
    child = define("DefinitionChild", (parent,), team=IntField())
    record = child.create(name="x", team=5, score=2)
    assert child.query.filter(team="5", score__gt=1) == [record]
    with pytest.raises(QueryException):
        child.query.filter(team="text", score__gt=1).all()


# -- two classes of one name ------------------------------------------------------------------------------------------


def test_a_second_different_class_of_one_name_is_refused_unless_it_keeps_its_records_elsewhere():
    first = define("DefinitionTwin", module="shop.models", qualname="DefinitionTwin")
    with pytest.raises(ModelException, match=r"zoo\.models\.DefinitionTwin.*shop\.models\.DefinitionTwin.*key_name"):
        define("DefinitionTwin", module="zoo.models", qualname="DefinitionTwin")
    other = define(
        "DefinitionTwin", module="zoo.models", qualname="DefinitionTwin", Meta=meta(key_name="ZooDefinitionTwin")
    )
    assert other._meta.keys.class_set != first._meta.keys.class_set


def test_a_class_that_is_defined_again_is_welcome():
    first = define("DefinitionReloaded", module="shop.models", qualname="DefinitionReloaded")
    second = define("DefinitionReloaded", module="shop.models", qualname="DefinitionReloaded")
    assert first is not second


# -- instances --------------------------------------------------------------------------------------------------------


def test_values_are_given_by_keyword():
    with pytest.raises(TypeError):
        DefinitionPet("Tom")


def test_a_name_that_is_no_field_is_refused_with_the_fields():
    with pytest.raises(ModelException, match=r"DefinitionPet has no field 'nmae'.*name, kind, age"):
        DefinitionPet(nmae="Tom")
    assert DefinitionPet(name="Tom", _note="mine")._note == "mine"


def test_making_an_instance_stores_nothing(server):
    DefinitionPet(name="Tom")
    assert server.dbsize() == 0


def test_an_instance_knows_whether_and_where_it_is_stored(server):
    pet = DefinitionPet(name="Tom")
    assert (pet._is_persisted, pet._redis_key, pet.pk, str(pet)) == (False,) + ("DefinitionPet:Tom",) * 3
    assert DefinitionPet()._redis_key is None
    assert repr(pet) == "<DefinitionPet Popoto object at DefinitionPet:Tom>"
    pet.save()
    assert pet._is_persisted and DefinitionPet.query.get(name="Tom")._is_persisted
    pet.delete()
    assert not pet._is_persisted


def test_instances_are_equal_by_class_and_key_and_work_in_sets(server):
    a, b, c = DefinitionPet(name="Tom"), DefinitionPet(name="Tom", age=9), DefinitionPet(name="Jim")
    assert a == b and a != c and a != "DefinitionPet:Tom" and a is not b
    assert len({a, b, c}) == 2
    assert define("DefinitionOther", name=KeyField())(name="Tom") != a


def test_instances_are_copied_and_pickled(server):
    pet = DefinitionPet.create(name="Tom", tags=["a"])
    for twin in (copy.copy(pet), copy.deepcopy(pet), pickle.loads(pickle.dumps(pet))):
        assert twin == pet and twin.to_dict() == pet.to_dict() and twin._is_persisted
        twin.age += 1
        twin.save()
        assert DefinitionPet.query.get(name="Tom").age == twin.age
    assert copy.deepcopy(pet).tags is not pet.tags
    loaded = pickle.loads(pickle.dumps(DefinitionPet.query.filter()[0]))
    assert loaded.delete()


def test_is_valid_says_so_and_logs_why(server, caplog):
    pet = DefinitionPet(name="Tom")
    assert pet.is_valid()
    pet.age = "3"
    assert pet.is_valid() and pet.age == 3
    pet.age = "three"
    assert not pet.is_valid()
    assert "expected int" in caplog.text
    pet.age = 3
    pet._ttl, pet._expire_at = 5, datetime(2100, 1, 1)
    with pytest.raises(ModelException, match="both set"):
        pet.is_valid()
