"""ModelOptions: what a model's class body says, checked once and laid out for the hot paths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from popoto import redis_db
from popoto.exceptions import ModelException
from popoto.orm import shards
from popoto.orm.composite import PREFIX, CompositeIndex, Declared, declared_indexes, digest, together
from popoto.orm.event_stream import stream_settings
from popoto.orm.fields.base import Field
from popoto.orm.fields.geo import GeoField
from popoto.orm.fields.indexed import SetIndex
from popoto.orm.fields.key import AutoKeyField
from popoto.orm.keys import ModelKeys, composite_name, index_part, model_keys
from popoto.orm.shapes import Shape, origins_of
from popoto.orm.slots import Slot, mixin_slots

if TYPE_CHECKING:
    from popoto.orm.columns import Columns

RESERVED = frozenset({"limit", "order_by", "values"})
_FIELD_NAME = re.compile(r"_?[a-z]\w*|_\w+", re.ASCII)
_META_NAMES = frozenset(
    {"order_by", "ttl", "indexes", "abstract", "key_name", "unique_together", "index_together", "shard_by"}
)


class ModelOptions:
    """Metadata of a model: `Model._meta`, also `Model._options`.

    Attributes:
        model_name: the name in keys (`Meta.key_name`, else the class name).
        fields: name -> Field, public ones first, then hidden ones (leading underscore).
        order_by, ttl, indexes, abstract, shard_by: as in `class Meta`.
    """

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name
        self.fields: dict[str, Field] = {}
        self.order_by: str | None = None
        self.ttl: int | None = None
        self.indexes: Declared = ()
        self.shard_by: str | None = None
        self.composites: list[CompositeIndex] = []
        self.abstract = False
        self.slots: list[Slot] = []
        self._heads_for: ModelKeys | None = None
        self._heads: list[tuple[str, str, str, Any]] = []
        self._shape: Shape | None = None

    # -- built from the class body ----------------------------------------------------------------------------------

    def add_field(self, name: str, field: Field) -> None:
        """Add a field under its name.

        Raises: ModelException: the name cannot be a field's.
        """
        if not _FIELD_NAME.fullmatch(name):
            raise ModelException(
                f"{self.model_name}.{name}: a field name starts with a lowercase letter or an underscore. Rename it."
            )
        if name in RESERVED:
            raise ModelException(f"{self.model_name}.{name}: the name is a keyword of filter(). Rename the field.")
        self.fields[name] = field

    def read_meta(self, meta: Any, inherited: ModelOptions | None) -> None:
        """Take over `class Meta`; what it does not say comes from the parent model, except `abstract`."""
        given = {k: v for k, v in vars(meta).items() if not k.startswith("__")} if meta is not None else {}
        unknown = sorted(set(given) - _META_NAMES)
        if unknown:
            raise ModelException(
                f"{self.model_name}.Meta has no option {', '.join(unknown)}. Options: {', '.join(sorted(_META_NAMES))}."
            )
        if inherited is not None:
            self.order_by, self.ttl, self.indexes = inherited.order_by, inherited.ttl, inherited.indexes
            self.shard_by = inherited.shard_by
        self.order_by = given.get("order_by", self.order_by)
        self.ttl = given.get("ttl", self.ttl)
        self.shard_by = given.get("shard_by", self.shard_by)
        self.indexes = given.get("indexes", self.indexes)
        for option, unique in (("unique_together", True), ("index_together", False)):
            if option in given:
                self.indexes = (*self.indexes, *together(self.model_name, option, given[option], unique))
        self.abstract = bool(given.get("abstract", False))
        key_name = given.get("key_name", self.model_name)
        if not isinstance(key_name, str) or not key_name:
            raise ModelException(f"{self.model_name}.Meta.key_name: expected the name used in keys, got {key_name!r}.")
        self.model_name = key_name

    def finish(self, model: Any) -> None:
        """Check what names fields, and lay out what the hot paths walk.

        Raises: ModelException: an option of Meta or of a field is wrong.
        """
        if not self.key_field_names and not self.abstract:
            auto = AutoKeyField()
            auto.name = "_auto_key"
            self.fields["_auto_key"] = auto
        public = {n: f for n, f in self.fields.items() if not n.startswith("_")}
        hidden = {n: f for n, f in self.fields.items() if n.startswith("_")}
        self.fields = {**public, **hidden}
        for field in self.fields.values():
            if hasattr(field, "model_fields"):
                field.model_fields = self.fields
        self._check_meta()
        self.key_names: tuple[str, ...] = tuple(sorted(self.key_field_names))
        shards.check(self)
        self.partition_fields = {p for field in self.fields.values() for p in getattr(field, "partition_by", ())}
        self.init_items = [(name, field) for name, field in self.fields.items()]
        self.load_items = [
            (name.encode(), name, field, field._decode if type(field).decode is Field.decode else field.decode)
            for name, field in self.fields.items()
        ]
        self.expiring = self.ttl is not None  # records with a TTL are expected (popoto.orm.counting)
        self.columns: dict[tuple[str, ...], Columns] = {}  # of the fields of each kind of result asked for so far
        self.prepared = [f for f in self.fields.values() if _overrides(f, "format_value_pre_save")]
        self.save_hooks = [f for f in self.fields.values() if _overrides(f, "on_save")]
        self.delete_hooks = [f for f in self.fields.values() if _overrides(f, "on_delete")]
        self.validated = [f for f in self.fields.values() if _overrides(f, "is_valid")]
        self.required = [n for n, f in self.fields.items() if not f.null]
        self.insert_only = [n for n in self.key_names if self.fields[n].unique]
        self.relationships: dict[str, Any] = {n: f for n, f in self.fields.items() if f.is_relationship}
        self.encoders = [
            (name, field._encode if type(field).encode is Field.encode else field.encode)
            for name, field in self.fields.items()
            if field.in_hash
        ]
        self.lists: dict[str, Any] = {n: f for n, f in self.fields.items() if not f.in_hash}
        for field in self.fields.values():
            field.bind(model)
        self.filter_parameters: dict[str, tuple[str, str]] = {
            parameter: (name, lookup)
            for name, field in self.fields.items()
            for parameter, lookup in field.filter_parameters().items()
        }
        self.answering = {n: model for n, f in self.fields.items() if _overrides(f, "filter_query")}
        for name, field in self.fields.items():
            if name in self.answering or _overrides(field, "get_filter_query_params"):
                own = field.get_filter_query_params(name)
                wanted = {parameter: (name, parameter.removeprefix(f"{name}__")) for parameter in own}
                self.filter_parameters = {**wanted, **self.filter_parameters}
        self.slots = [slot for field in self.fields.values() for slot in field.slots()]
        self.slots += mixin_slots(model)
        self.slots += [index.slot() for index in self.composites]
        self.has_whole_slots = any(slot.whole for slot in self.slots)
        names = [slot.name for slot in self.slots]
        if len(set(names)) != len(names):
            raise ModelException(f"{self.model_name}: two index slots have one name: {sorted(names)}.")
        self._origins = origins_of(self)
        self.stream = stream_settings(model, self)

    def _check_meta(self) -> None:
        if self.order_by is not None:
            if not isinstance(self.order_by, str) or self.order_by.removeprefix("-") not in self.fields:
                raise ModelException(
                    f"{self.model_name}.Meta.order_by: expected a field name, '-' before it for descending; got "
                    f"{self.order_by!r}. Fields: {', '.join(self.fields)}."
                )
        if self.ttl is not None and (type(self.ttl) is not int or self.ttl <= 0):
            raise ModelException(
                f"{self.model_name}.Meta.ttl: expected a positive whole number of seconds, got {self.ttl!r}."
            )
        self.composites = declared_indexes(self.model_name, self.indexes, self.fields)
        shards.check_unique(self)
        self.indexes = tuple((index.names, index.unique) for index in self.composites)

    # -- views ------------------------------------------------------------------------------------------------------

    @property
    def keys(self) -> ModelKeys:
        """The model's keys in the current namespace."""
        if redis_db.on_cluster():
            return shards.keys_here(self)
        return model_keys(redis_db.key_namespace(), self.model_name)

    def keys_for(self, values: Mapping[str, Any]) -> ModelKeys:
        """Return the keys of the shard in which a record with these values lies; off a cluster there is one."""
        if self.shard_by is None or not redis_db.on_cluster():
            return self.keys
        return shards.keys_for(self, values)

    def keys_at(self, redis_key: str) -> ModelKeys:
        """Return the keys of the shard in which a record's key lies."""
        if self.shard_by is None or not redis_db.on_cluster():
            return self.keys
        return shards.keys_at(self, redis_key)

    def slot_heads(self, keys: ModelKeys) -> list[tuple[str, str, str, Any]]:
        """Return (slot name, kind, base key, make) of each slot: what a full save needs of it."""
        if self._heads_for is not keys:
            self._heads = [(s.name, s.kind, keys.base(s.prefix, s.field_name), s.make) for s in self.slots]
            self._shape = None if self._origins is None else Shape(self._origins, self._heads)
            self._heads_for = keys
        return self._heads

    def shape(self, keys: ModelKeys) -> Shape | None:
        """Return the shape of what records occupy (popoto.orm.shapes), None where records need lists."""
        self.slot_heads(keys)
        return self._shape

    @property
    def field_names(self) -> list[str]:
        return list(self.fields)

    @property
    def key_field_names(self) -> set[str]:
        return {name for name, field in self.fields.items() if field.is_key}

    @property
    def auto_field_names(self) -> set[str]:
        return {name for name, field in self.fields.items() if field.is_auto}

    @property
    def sorted_field_names(self) -> set[str]:
        return {name for name, field in self.fields.items() if field.is_sorted}

    @property
    def geo_field_names(self) -> set[str]:
        return {name for name, field in self.fields.items() if isinstance(field, GeoField)}

    @property
    def indexed_field_names(self) -> set[str]:
        """The fields with an index of their values that are no keys: IndexedField, UniqueField."""
        return {name for name, field in self.fields.items() if isinstance(field, SetIndex) and not field.is_key}

    @property
    def relationship_field_names(self) -> set[str]:
        return set(self.relationships)

    @property
    def explicit_fields(self) -> dict[str, Field]:
        """The public fields."""
        return {name: field for name, field in self.fields.items() if not name.startswith("_")}

    @property
    def hidden_fields(self) -> dict[str, Field]:
        return {name: field for name, field in self.fields.items() if name.startswith("_")}

    @property
    def db_class_set_key(self) -> str:
        return self.keys.class_set

    @property
    def db_key_length(self) -> int:
        return 1 + len(self.key_names)

    def get_db_key_index_position(self, name: str) -> int:
        """Return the place of a key field among the parts of the record's key; the model's name is part 0."""
        return self.key_names.index(name) + 1

    @property
    def filter_query_params_by_field(self) -> dict[str, set[str]]:
        return {name: field.get_filter_query_params(name) for name, field in self.fields.items()}

    def record_key(self, values: Mapping[str, Any]) -> str:
        """Return the key of the record with these values."""
        return self.keys_for(values).record_key(values[name] for name in self.key_names)

    def get_index_key(self, field_names: Iterable[str]) -> str:
        """Return the key of the composite index of these fields: of its hash, or what its sets begin with."""
        return self.keys.base(PREFIX, composite_name(field_names))

    def compute_index_hash(self, instance: Any, field_names: Iterable[str]) -> str | None:
        """Return what stands for an instance in the hash of a unique composite index; None where a value is None."""
        names = list(field_names)
        return self.compute_index_hash_from_values(names, [instance.__dict__.get(name) for name in names])

    def compute_index_hash_from_values(self, field_names: Iterable[str], values: Iterable[Any]) -> str | None:
        """Return what stands for these values of these fields; None where one is None.

        Raises: QueryException: a value does not fit its field.
        """
        pairs = zip(field_names, values, strict=True)
        fitting = [self.fields[name].filter_value(value) for name, value in pairs]
        return None if None in fitting else digest([index_part(value) for value in fitting])

    def holds(self, redis_key: str) -> bool:
        """Return True when the key can be one of this model's records."""
        parts = self.keys_at(redis_key).parts_of(redis_key)
        return parts is not None and len(parts) == self.db_key_length


def _overrides(field: Field, hook: str) -> bool:
    """Return True when the field's class has a hook of its own, as a method or a class method."""
    own, plain = getattr(type(field), hook), getattr(Field, hook)
    return getattr(own, "__func__", own) is not getattr(plain, "__func__", plain)
