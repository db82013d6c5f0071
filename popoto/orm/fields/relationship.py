"""Relationship: a field that points to a record of another model, or of its own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any, ClassVar

from popoto import redis_db
from popoto.exceptions import ModelException, QueryException
from popoto.orm import metaclass, shards
from popoto.orm.beside import keys_beside
from popoto.orm.coerce import describe
from popoto.orm.conditions import Steps
from popoto.orm.db_key import DB_key
from popoto.orm.drivers import drive, warn_of_a_blocking_read
from popoto.orm.fields.base import Condition, Field
from popoto.orm.keys import ModelKeys, escape, front_of, local_key, whole_key
from popoto.orm.lookups import compile_filters, split_parameter
from popoto.orm.metaclass import ModelBase
from popoto.orm.record import Record
from popoto.orm.related import Reference, follow
from popoto.orm.selection import Order, Selection
from popoto.orm.slots import Made, Slot


class Relationship(Field):
    """A reference to one record, stored as its key; the record is read when the attribute is first looked at.

    The attribute takes an instance (stored or not), a key (str, bytes or DB_key) or None, and gives the related
    instance or None. It is None as well where the record does not exist (any more); the key stays until another is
    assigned.

    Lookups: exact (an instance, a key or None), __in, __isnull, and each filter of the related model behind two
    underscores, to any depth: `customer__username="alice"`, `customer__city__name__startswith="B"`.

    Args:
        model: the related model; or its name, its dotted path or "self", looked up when it is first needed.
        null: may be None at save.
        many: reserved; only False.
    Raises: ModelException: `model` is no model, or `many` is asked for.
    """

    is_relationship: ClassVar[bool] = True
    lookups: ClassVar[tuple[str, ...]] = ("", "in", "isnull")

    def __init__(self, model: Any = None, null: bool = True, many: bool = False, **options: Any) -> None:
        if many is not False:
            raise ModelException(
                f"{self._label()}: many= is reserved and not offered. Give the model on the other side a Relationship "
                "back to this one, and filter by that."
            )
        if not (isinstance(model, ModelBase) or (isinstance(model, str) and model)):
            raise ModelException(
                f"{self._label()}: model= expected a model, its name, its dotted path or 'self'; got {model!r}."
            )
        if options.pop("type", str) is not str:
            raise ModelException(f"{self._label()}: type= is always str (a key is stored); leave it out.")
        default = options.pop("default", None)
        if default is not None and not callable(default):
            given = default  # it is checked when it is used: the related model may not be there yet
            default = lambda: given  # noqa: E731
        super().__init__(type=str, null=null, default=default, max_length=None, **options)
        self._declared: Any = model
        self._model: Any = None
        self._owner: Any = None

    def bind(self, model: Any) -> None:
        self._owner = model
        self._model = None  # an inherited field is a copy: "self" is another model now
        if isinstance(self._declared, ModelBase):
            self._model = self._usable(self._declared)

    @property
    def model(self) -> Any:
        """The related model.

        Raises: ModelException: no model of this name is defined.
        """
        if self._model is None:
            found = self._known() or self._imported()
            if found is None:
                raise ModelException(
                    f"{self._owner_label()}: no model '{self._declared}' is defined. Import the module that defines it "
                    "first, or give its dotted path."
                )
            self._model = self._usable(found)
        return self._model

    def _known(self) -> Any:
        """Return the related model if it is defined by now, else None; imports nothing."""
        name = self._declared
        if self._model is not None or not isinstance(name, str):
            return self._model
        if name == "self":
            return self._owner
        module, _, last = name.rpartition(".")
        found = [
            model
            for model in list(metaclass._models.values())
            if model.__name__ == last and module in ("", model.__module__)
        ]
        near = [model for model in found if model.__module__ == getattr(self._owner, "__module__", None)]
        if len(near or found) > 1:
            paths = ", ".join(f"{model.__module__}.{model.__name__}" for model in found)
            raise ModelException(f"{self._owner_label()}: several models are named '{name}': {paths}. Give one's path.")
        return next(iter(near or found), None)

    def _imported(self) -> Any:
        module, _, name = self._declared.rpartition(".")
        if not module:
            return getattr(sys.modules.get(self._owner.__module__), name, None)
        try:
            return getattr(importlib.import_module(module), name, None)
        except ImportError as error:
            raise ModelException(f"{self._owner_label()}: '{self._declared}' cannot be imported: {error}.") from None

    def _usable(self, model: Any) -> Any:
        if not isinstance(model, ModelBase):
            raise ModelException(f"{self._owner_label()}: '{self._declared}' is no model but {model!r}.")
        if model._meta.abstract:
            raise ModelException(
                f"{self._owner_label()}: {model.__name__} is abstract, it has no records. Name one of its subclasses."
            )
        return model

    def _owner_label(self) -> str:
        return f"{getattr(self._owner, '__name__', 'Relationship')}.{self.name}"

    # -- the attribute ----------------------------------------------------------------------------------------------

    def __get__(self, instance: Any, owner: type) -> Any:
        """Return the related instance or None; reads it at the first look, for the whole list the instance came in."""
        if instance is None:
            return self
        try:
            reference = instance.__dict__[self.name]
        except KeyError:
            raise AttributeError(f"{owner.__name__}.{self.name} has no value on this instance") from None
        if reference is None or reference.record is False:
            return None
        if reference.record is None:
            warn_of_a_blocking_read(
                f"{owner.__name__}.{self.name}",
                f"`await instance.async_related({self.name!r})`, or prefetch({self.name!r}) with the query",
            )
            return drive(follow(instance, [self.name]))
        return reference.record

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.name] = self.coerce(value)

    def key_of(self, instance: Any) -> str | None:
        """Return the key that an instance refers to, without reading the record."""
        reference = instance.__dict__.get(self.name)
        return None if reference is None else str(reference)

    # -- values -----------------------------------------------------------------------------------------------------

    def coerce(self, value: Any) -> Any:
        """Return the Reference to an instance or a key.

        Raises: ModelException: it is of another model, or no key.
        """
        if value is None:
            return None
        if isinstance(value, Reference) and value.local.startswith(self._start):
            return self._to_record(value.record) if value.record else value  # its key may have changed
        if isinstance(value, Record):
            if value._meta.model_name != self.model._meta.model_name:
                raise ModelException(
                    f"{self._label()}: expected {self._expected()}, got a {type(value).__name__} ({value.pk})."
                )
            return self._to_record(value)
        key = _key_text(value)
        reference = None if key is None else self._to_key(key)
        if reference is None:
            raise ModelException(f"{self._label()}: expected {self._expected()}, got {describe(value)}.")
        return reference

    @property
    def _start(self) -> str:
        """What the local keys of the related model begin with."""
        return escape(self.model._meta.model_name) + ":"

    def _expected(self) -> str:
        return f"a {self.model.__name__}, its key ({self.model._meta.model_name}:...) or None"

    def _to_record(self, record: Any) -> Reference:
        meta, key = record._meta, record._saved_key
        if key is None or not meta.holds(key):  # it was stored in another namespace
            key = meta.record_key(record.__dict__)
        return Reference.to(key, local_key(redis_db.key_namespace(), key), record)

    def _to_key(self, key: str) -> Reference | None:
        """Return the Reference to a key of the related model, with or without the namespace; None for another key."""
        holds, namespace = self.model._meta.holds, redis_db.key_namespace()
        if holds(key):
            return Reference.to(key, local_key(namespace, key))
        whole = whole_key(namespace, key, redis_db.on_cluster())
        return Reference.to(whole, key) if holds(whole) else None

    def encode(self, value: Any) -> bytes:
        """Return the bytes of the hash field.

        Raises: ModelException: the related instance has no key yet.
        """
        if value is None:
            return self._encode(None)
        record = value.record
        if record and record._saved_key is None and all(record.__dict__[n] is None for n in record._meta.key_names):
            raise ModelException(
                f"{self._label()}: the {type(record).__name__} has no key yet. Give its key fields a value first."
            )
        return self._encode(value.local)

    def decode(self, raw: bytes) -> Any:
        local = self._decode(raw)
        if local is None:
            return None
        return Reference.to(whole_key(redis_db.key_namespace(), local, redis_db.on_cluster()), local)

    def slots(self) -> list[Slot]:
        name = self.name

        def make(values: Mapping[str, Any]) -> Made | None:
            reference = values[name]
            return None if reference is None else ([reference.local], False, None)

        return [Slot(name, "s", self.field_class_key, name, (name,), (), make)]

    # -- filters ----------------------------------------------------------------------------------------------------

    def filter_parameters(self) -> dict[str, str]:
        """Return the field's own parameters and those of the related model, one level deep, as far as it is defined."""
        own = super().filter_parameters()
        related = self._known()
        if related is None:
            return own
        theirs = {
            parameter
            for field in related._meta.fields.values()
            for parameter in (Field.filter_parameters(field) if field.is_relationship else field.filter_parameters())
        }
        return {**{f"{self.name}__{parameter}": parameter for parameter in sorted(theirs)}, **own}

    def lookup_of(self, parameter: str) -> str | None:
        rest = parameter[len(self.name) + 2 :]
        try:
            split_parameter(self.model._meta, rest)
        except QueryException as error:
            reason = str(error).removeprefix("Invalid filter parameters: ").removeprefix(f"'{rest}': ")
            raise QueryException(f"Invalid filter parameters: '{parameter}': {reason}") from None
        return rest

    def filter_value(self, value: Any) -> Any:
        """Return the key (whole, as a Reference) that a filter names; that of another model matches nothing.

        Raises: QueryException: it is neither an instance nor a key.
        """
        if value is None or isinstance(value, Reference):
            return value
        if isinstance(value, Record):
            return self._to_record(value)
        key = _key_text(value)
        reference = None if key is None else self._to_key(key)
        if reference is None:
            raise QueryException(f"filter({self.name}=...): expected {self._expected()}, got {value!r}.")
        return reference

    def condition(self, keys: ModelKeys, lookup: str, value: Any, given: Mapping[str, Any]) -> Condition:
        base = keys.base(self.field_class_key, self.name)
        none = ["raw", self.name, self._encode(None), False]
        if lookup == "":
            reference = self.filter_value(value)
            if reference is None:
                return Condition(none)
            local = reference.local
            return Condition(["set", f"{base}:{local}"], holds=lambda ref: ref is not None and ref.local == local)
        if lookup == "isnull":
            if not isinstance(value, bool):
                raise QueryException(f"filter({self.name}__isnull=...): expected True or False, got {value!r}.")
            return Condition(none if value else ["not", none])
        if lookup == "in":
            return Condition(self._one_of(base, none, value))
        asked = self._asked_of_related(given)
        if lookup != next(iter(asked)):
            return Condition(["all"])  # the first of the parameters stands for them all
        return self._related_condition(keys, base, asked)

    def _one_of(self, base: str, none: list[Any], values: Any) -> list[Any]:
        if isinstance(values, (str, bytes, Mapping, Record)) or not hasattr(values, "__iter__"):
            raise QueryException(f"filter({self.name}__in=...): expected a list of instances or keys, got {values!r}.")
        references = [self.filter_value(value) for value in values]
        sets = ["set", *dict.fromkeys(f"{base}:{ref.local}" for ref in references if ref is not None)]
        return ["or", sets, none] if None in references else sets

    def _asked_of_related(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a filter asks of the related record: parameters of its model, and their values."""
        asked = {}
        for parameter, value in given.items():
            name, lookup = split_parameter(self._owner._meta, parameter)
            if name == self.name and lookup not in self.lookups:
                asked[lookup] = value
        return asked

    def _related_condition(self, keys: ModelKeys, base: str, asked: Mapping[str, Any]) -> Condition:
        """Return the condition on the related record: in the same script, or asked first where that cannot be.

        It cannot be where Python must decide on the related values, and on a cluster, where another model's records lie
        in another slot.
        """
        related = self.model
        meta = related._meta
        if shards.is_sharded(meta):  # in whichever shard of it they lie, also where this is the same model
            query = related.query.filter(**asked)
            in_all = partial(shards.within, meta, None, lambda: query.selection().record_keys())
            return self._asked_for(["set"], base, in_all)
        theirs = meta.keys

        def server(where: list[Any]) -> list[Any]:
            return ["related", base, self.name, theirs.namespace, where, *theirs.home[:3]]

        inner = compile_filters(meta, theirs, asked)
        if inner.tests is not None and inner.first:  # Python decides here and further on: it reads both in one go
            inner = compile_filters(meta, theirs, asked, by_value=True, beside=True)
        found = Selection(related, theirs, inner, Order(theirs.order))
        if inner.tests is not None and inner.first:
            return self._asked_for(server(inner.where), base, partial(keys_beside, found))
        if inner.tests is not None or front_of(keys.namespace) != front_of(theirs.namespace):
            return self._asked_for(server(inner.where), base, found.record_keys)
        if inner.again is None:
            return Condition(server(inner.where), first=found.settled if inner.first else None)
        by_value = inner.again()
        if by_value.tests is not None:  # a field of the user's own, which only Python can read
            return self._asked_for(server(inner.where), base, found.record_keys)
        shared = tuple(inner.shared)
        return Condition(server(inner.where), shared_elsewhere=shared, loose=server(by_value.where))

    def _asked_for(
        self, condition: list[Any], base: str, ask: Callable[[], Generator[Any, Any, list[str]]]
    ) -> Condition:
        """Return a condition on related records whose keys must be asked for."""

        def joined() -> tuple[Callable[[], Steps], Callable[[Any], bool]]:
            found: set[str] = set()

            def steps() -> Steps:
                namespace = redis_db.key_namespace()
                found.update(local_key(namespace, key) for key in (yield from ask()))

            return steps, lambda reference: reference is not None and reference.local in found

        return Condition(condition, self.name, first=_pointing(condition, base, ask), joined=joined)


def _pointing(
    condition: list[Any], base: str, ask: Callable[[], Generator[Any, Any, list[str]]]
) -> Callable[[], Steps]:
    """Return the steps that ask for the related records and make the condition one of the sets that point to them."""

    def steps() -> Steps:
        found = yield from ask()
        namespace = redis_db.key_namespace()
        condition[:] = ["set", *(f"{base}:{local_key(namespace, key)}" for key in found)]

    return steps


def _key_text(value: Any) -> str | None:
    if isinstance(value, DB_key):
        return value.redis_key
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return value if isinstance(value, str) else None
