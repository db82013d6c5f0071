"""Field: a typed value in the record's hash, and the hooks by which a field of any kind plugs into the model.

Hooks, each optional; ours and a user's fields use the same:

- `slots()` declares index entries, which the ORM keeps right whatever happens (popoto.orm.slots).
- `condition()` answers a filter on the server; `filter_query()` answers it with keys, and `get_filter_query_params()`
  names what it accepts.
- `format_value_pre_save()` fills a value at save time (auto_now).
- `on_save()` / `on_delete()` queue Redis commands of their own; they run on the server in the same atomic step as the
  save, after everything that may refuse it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, ClassVar, overload

from popoto.exceptions import ModelException, QueryException
from popoto.orm.codec import CodecError, decoder_for, encoder_for
from popoto.orm.coerce import CoercionError, coercer_for
from popoto.orm.conditions import Condition as Condition
from popoto.orm.conditions import plain_condition, plain_lookups
from popoto.orm.db_key import DB_key
from popoto.orm.expressions import Comparing
from popoto.orm.filter_hooks import answering_itself
from popoto.orm.keys import ModelKeys, field_prefix, index_text
from popoto.orm.slots import Slot

VALID_FIELD_TYPES: frozenset[type] = frozenset(
    {int, float, Decimal, str, bool, bytes, list, dict, set, tuple, date, datetime, time}
)

_MUTABLE = (list, dict, set, bytearray)


_combined: dict[tuple[type, type], Any] = {}


def _with_index(plain: type[Field], flagged: type[Field]) -> type[Field]:
    """Return the class that `plain(indexed=True)` or `plain(unique=True)` makes.

    Raises: ModelException: the field keeps an index of its own kind.
    """
    if plain is Field:
        return flagged
    if (plain, flagged) in _combined:
        return _combined[plain, flagged]  # type: ignore[no-any-return]
    if plain.slots is not Field.slots:
        raise ModelException(f"{plain.__name__} keeps an index of its own; leave indexed= and unique= out.")
    combined: Any = type(plain.__name__, (flagged, plain), {})
    combined.field_class_key = flagged.field_class_key
    _combined[plain, flagged] = combined
    return combined  # type: ignore[no-any-return]


def refuse_half_pairs(name: str, text: str) -> None:
    """Refuse a filter text that no stored text can equal.

    Raises: QueryException: it holds half a surrogate pair.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise QueryException(
            f"filter({name}=...): the text {text!r} holds half a surrogate pair, which no stored text can hold."
        ) from None


class Field(Comparing):
    """A value of one type, stored in the record's hash.

    Args:
        type: one of int, float, Decimal, str, bool, bytes, list, dict, set, tuple, date, datetime, time.
        null: may be None at save.
        default: a value (mutable ones are copied for each record) or a callable without arguments.
        max_length: longest text in characters, for type str; None lifts it.
        indexed: keep an index, as IndexedField does.
        unique: as UniqueField does: one record a value, never None.
    Raises: ModelException: an option has a wrong value. TypeError: an option does not exist.
    """

    name: str = ""
    valid_types: ClassVar[frozenset[type]] = VALID_FIELD_TYPES
    default_max_length: ClassVar[int | None] = 1024
    is_key: ClassVar[bool] = False
    is_auto: ClassVar[bool] = False
    is_sorted: ClassVar[bool] = False
    is_relationship: ClassVar[bool] = False
    in_hash: ClassVar[bool] = True  # False: the value lies elsewhere, see capped.py
    field_class_key: str = "$F"
    lookups: ClassVar[tuple[str, ...]] = ("",)
    flagged: ClassVar[tuple[type[Field], type[Field]]]  # what indexed=True and unique=True stand for; set by indexed.py

    def __new__(cls, *args: Any, **options: Any) -> Field:
        if (options.get("indexed") or options.get("unique")) and not issubclass(cls, cls.flagged[0].__mro__[1]):
            return super().__new__(_with_index(cls, cls.flagged[bool(options.get("unique"))]))
        return super().__new__(cls)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.field_class_key = field_prefix(cls.__name__)

    def __init__(
        self,
        *,
        type: type = str,
        null: bool = True,
        default: Any = None,
        max_length: int | str | None = "default",
        indexed: bool = False,
        unique: bool = False,
    ) -> None:
        if type not in self.valid_types:
            allowed = ", ".join(sorted(t.__name__ for t in self.valid_types))
            raise ModelException(f"{self._label()}: type= expected one of {allowed}; got {type!r}.")
        if max_length == "default":
            max_length = self.default_max_length
        if max_length is not None and (max_length.__class__ is not int or int(max_length) < 1):
            raise ModelException(
                f"{self._label()}: max_length= expected a positive number of characters or None, got {max_length!r}."
            )
        self.type: Any = type
        self.null = null
        self.default = default
        self.max_length: int | None = max_length
        self.indexed = indexed
        self.unique = unique
        self._coerce = coercer_for(type)
        self._encode = encoder_for(type)
        self._decode = decoder_for(type)
        self._longest: int = (max_length or 0) if type is str else 0
        self._own_coerce = self.__class__.coerce is not Field.coerce
        self._own_codec = self.__class__.encode is not Field.encode or self.__class__.decode is not Field.decode
        if default is not None and not callable(default):
            self.default = self.coerce(default)
        self._copies_default = isinstance(self.default, _MUTABLE)

    # -- where the field stands -------------------------------------------------------------------------------------

    def __set_name__(self, owner: type, name: str) -> None:
        if not self.name:
            self.name = name

    def _label(self) -> str:
        kind = self.__class__.__name__
        return f"{kind} '{self.name}'" if self.name else kind

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} {self.name or '?'}: {self.type.__name__}>"

    @overload
    def __get__(self, instance: None, owner: type) -> Field: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Any: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        """Return the field on the class. (On an instance its value stands in __dict__ and is found first.)"""
        if instance is None:
            return self
        raise AttributeError(f"{owner.__name__}.{self.name} has no value on this instance")

    def bind(self, model: Any) -> None:
        """Check the options that name other fields, once the model's fields are known.

        Raises: ModelException: an option names a field that does not exist.
        """

    # -- values -----------------------------------------------------------------------------------------------------

    def default_value(self) -> Any:
        """Return the default for one record: called, or copied where it is mutable."""
        default = self.default
        if callable(default):
            value = default()
            return value if value is None else self.coerce(value)
        return copy.deepcopy(default) if self._copies_default else default

    def missing_value(self) -> Any:
        """Return what a record has whose hash lacks the field."""
        return None if self.is_auto else self.default_value()

    def coerce(self, value: Any) -> Any:
        """Return `value` as the field's type.

        Raises: ModelException: it cannot be without loss, or the text is too long.
        """
        if value is None:
            return None
        if type(value) is not self.type:
            try:
                value = self._coerce(value)
            except CoercionError as error:
                raise ModelException(f"{self._label()}: {error}") from None
        if self._longest and len(value) > self._longest:
            raise ModelException(
                f"{self._label()}: the text has {len(value)} characters, max_length is {self.max_length}. Shorten it, "
                "give the field a larger max_length (None lifts it), or use a ContentField for long content."
            )
        return value

    def encode(self, value: Any) -> bytes:
        """Return the bytes of the hash field.

        Raises: ModelException: the value cannot be stored.
        """
        try:
            return self._encode(value)
        except CodecError as error:
            raise ModelException(f"{self._label()}: {error}") from None

    def decode(self, raw: bytes) -> Any:
        """Return the value of a hash field's bytes.

        Raises: CodecError: they are corrupt or of another type.
        """
        return self._decode(raw)

    # -- hooks ------------------------------------------------------------------------------------------------------

    @classmethod
    def is_valid(cls, field: Field, value: Any, null_check: bool = True, **kwargs: Any) -> bool:
        """Return False to refuse a value at save; a field of your own may also raise ModelException with a reason."""
        return True

    def format_value_pre_save(self, value: Any, skip_auto_now: bool = False, **kwargs: Any) -> Any:
        """Return the value to store; called at each save that writes the field."""
        return value

    @classmethod
    def on_save(
        cls,
        instance: Any,
        field_name: str,
        field_value: Any,
        pipeline: Any = None,
        ignore_errors: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Queue commands that run with the save; return the pipeline."""
        return pipeline

    @classmethod
    def on_delete(
        cls,
        instance: Any,
        field_name: str,
        field_value: Any,
        pipeline: Any = None,
        saved_redis_key: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Queue commands that run with the delete; return the pipeline."""
        return pipeline

    def slots(self) -> list[Slot]:
        """Return the index entries that each record has for this field."""
        return []

    @classmethod
    def get_special_use_field_db_key(cls, model: Any, *parts: Any) -> DB_key:
        """Return the key of an index of this kind of field, of a model that is not split over a cluster.

        Args:
            parts: the field's name, and the value or the values of the partition.
        """
        values = (part if part is None else index_text(part) for part in parts)
        return DB_key(cls.field_class_key, model._meta.model_name, *values)

    # -- filters ----------------------------------------------------------------------------------------------------

    def filter_parameters(self) -> dict[str, str]:
        """Return what `filter()` accepts for this field: parameter (`name`, `name__lookup`...) -> lookup."""
        offered = self.lookups
        if offered is Field.lookups and type(self).condition is Field.condition:
            offered = plain_lookups(self.type)
        return {f"{self.name}__{lookup}" if lookup else self.name: lookup for lookup in offered}

    def get_filter_query_params(self, field_name: str) -> set[str]:
        """Return the parameters that `filter()` accepts for this field; a field of your own may add to them."""
        return set(self.filter_parameters())

    @classmethod
    def filter_query(cls, model: Any, field_name: str, **query_params: Any) -> set[bytes]:
        """Return the keys of the records that satisfy these parameters of `filter()`.

        A field of your own that overrides it answers all its parameters so, and may leave some to `super()`. It blocks
        where it reads, also in async code; `condition()` does not.
        """
        with answering_itself(model, field_name):
            return set(model.query.filter(**query_params).keys())

    def lookup_of(self, parameter: str) -> str | None:
        """Return the lookup of a parameter `name__...` that `filter_parameters` cannot list, or None."""
        return None

    def filter_value(self, value: Any) -> Any:
        """Return a filter's value as the field's type.

        Raises: QueryException: it cannot be.
        """
        if value is not None and type(value) is not self.type:
            try:
                value = self._coerce(value)
            except CoercionError as error:
                raise QueryException(f"filter({self.name}=...): {error}") from None
        if type(value) is str and not value.isascii():
            refuse_half_pairs(self.name, value)
        return value

    def condition(self, keys: ModelKeys, lookup: str, value: Any, given: Mapping[str, Any]) -> Condition:
        """Return what `name__lookup=value` asks; `given` holds all parameters of the filter.

        Raises: QueryException: the value does not fit.
        """
        return plain_condition(self, lookup, value)
