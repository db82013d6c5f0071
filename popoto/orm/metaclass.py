"""ModelBase: turns a class body into a model."""

from __future__ import annotations

import copy
import weakref
from typing import Any

from popoto.exceptions import ModelException
from popoto.orm.fields.base import Field
from popoto.orm.options import ModelOptions

_models: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()
_PLAIN = (property, classmethod, staticmethod, type)


class ModelBase(type):
    """Metaclass of models: collects fields from all bases in MRO order, checks names, attaches `query` and `_meta`."""

    _meta: ModelOptions
    _options: ModelOptions
    _ttl: Any

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any], **kwargs: Any) -> ModelBase:
        cls = super().__new__(mcs, name, bases, body, **kwargs)
        parents = [base for base in bases if isinstance(base, ModelBase)]
        if not parents:
            return cls
        inherited = next((base._meta for base in parents if hasattr(base, "_meta")), None)
        meta = ModelOptions(name)
        meta.read_meta(body.get("Meta"), inherited)
        fields = _collected_fields(cls)
        for field_name, field in fields.items():
            _refuse_member_name(cls, field_name)
            meta.add_field(field_name, field)
        _refuse_stray_attributes(name, body)
        cls._meta = cls._options = meta
        meta.finish(cls)
        if meta.ttl is not None:
            cls._ttl = meta.ttl
        auto = meta.fields.get("_auto_key")
        if auto is not None and "_auto_key" not in body:
            cls._auto_key = auto  # type: ignore[attr-defined]
        if not meta.abstract:
            _refuse_second_class(cls, meta.model_name)
        cls._attach_query()
        return cls

    def _attach_query(cls) -> None:
        """Put the query object of the model's `query_class` on it; one a class."""
        factory = getattr(cls, "query_class", None)
        if factory is not None:
            query = factory(cls)
            cls.query = query
            cls.objects = query


def _collected_fields(cls: type) -> dict[str, Field]:
    """Return the fields of all bases, each subclass overriding what it inherits; a name set to None is dropped."""
    fields: dict[str, Field] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Field):
                if not (name == "_auto_key" and base is not cls):
                    fields[name] = value
            elif name in fields and not name.startswith("__"):
                del fields[name]
    for name, field in fields.items():
        if vars(cls).get(name) is not field:
            fields[name] = copy.copy(field)  # its own: a field knows its model
            setattr(cls, name, fields[name])
    return fields


def _refuse_member_name(cls: type, name: str) -> None:
    for base in cls.__mro__[1:]:
        if name in vars(base) and not isinstance(vars(base)[name], Field) and base is not object:
            raise ModelException(
                f"{cls.__name__}.{name}: the name belongs to Model itself (a method or property). Rename the field."
            )


def _refuse_stray_attributes(model: str, body: dict[str, Any]) -> None:
    for name, value in body.items():
        if name.startswith("_") or isinstance(value, (Field, *_PLAIN)) or callable(value) or value is None:
            continue
        if hasattr(value, "__get__"):
            continue
        raise ModelException(
            f"{model}.{name} = {value!r}: a public attribute of a model is a Field, a method or a property. "
            f"Write {name} = Field(default={value!r}), or _{name} for a plain class attribute."
        )


def _refuse_second_class(cls: type, key_name: str) -> None:
    """Two models of one name would share every key. A class defined again (reload, notebook, function body) may."""
    other = _models.get(key_name)
    if other is not None and "<locals>" not in other.__qualname__ + cls.__qualname__:
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ModelException(
                f"{cls.__module__}.{cls.__qualname__}: the model {other.__module__}.{other.__qualname__} already keeps "
                f"its records under '{key_name}'. Give one of them another name, or class Meta: key_name = '...'."
            )
    _models[key_name] = cls
