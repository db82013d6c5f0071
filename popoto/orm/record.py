"""Record: an instance in memory: its values, its key, its validation. No I/O."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from popoto.exceptions import ModelException
from popoto.orm.codec import CodecError
from popoto.orm.db_key import DB_key
from popoto.orm.metaclass import ModelBase
from popoto.orm.options import ModelOptions

logger = logging.getLogger("popoto.model")
R = TypeVar("R", bound="Record")


class Record(metaclass=ModelBase):
    """What a model's instance is before it meets the server.

    Attributes:
        _meta, _options: the model's ModelOptions.
        _ttl: seconds until the record expires, set before `save()`; None on a stored record makes it permanent.
        _expire_at: datetime at which it expires.
    """

    _meta: ClassVar[ModelOptions]
    _options: ClassVar[ModelOptions]

    _ttl: Any = None
    _expire_at: Any = None
    _saved_key: str | None = None
    _is_persisted: bool = False
    _cohort: Any = None  # the instances of one query's answer (popoto.orm.related)

    # -- instances ----------------------------------------------------------------------------------------------------

    def __init__(self, **given: Any) -> None:
        """Make an instance in memory; nothing is stored.

        Raises: ModelException: a value of a wrong type, a name that is no field, an abstract model.
        """
        meta = self._meta
        if meta.abstract:
            raise ModelException(f"{type(self).__name__} is abstract (class Meta); make a subclass and use that.")
        values = self.__dict__
        try:
            for name, field in meta.init_items:
                if name in given:
                    value = given.pop(name)
                    if value is not None and (
                        type(value) is not field.type
                        or field._own_coerce
                        or (field._longest and len(value) > field._longest)
                    ):
                        value = field.coerce(value)
                    values[name] = value
                elif field.default is None and not field.is_auto:
                    values[name] = None
                else:
                    values[name] = field.default_value()
        except ModelException as error:
            raise ModelException(f"{type(self).__name__}: {error}") from None
        if meta.ttl is not None:
            values["_ttl"] = meta.ttl
        if given:
            self._take_private(given)

    def _take_private(self, given: dict[str, Any]) -> None:
        for name, value in given.items():
            if not name.startswith("_"):
                raise ModelException(
                    f"{type(self).__name__} has no field '{name}'. Fields: {', '.join(self._meta.fields)}."
                )
            setattr(self, name, value)

    @classmethod
    def _hydrated(cls: type[R], redis_key: str, raw: dict[bytes, bytes]) -> R:
        """Return the instance of a stored record.

        Raises: ModelException: a stored value is corrupt; names key, field and reason.
        """
        stored = raw.get
        return cls._hydrated_row(redis_key, [stored(raw_name) for raw_name, *_ in cls._meta.load_items])

    @classmethod
    def _hydrated_row(cls: type[R], redis_key: str, row: Sequence[bytes | None]) -> R:
        """Return the instance of a stored record, of its values in the order of `load_items`.

        Raises: ModelException: as `_hydrated`.
        """
        instance = cls.__new__(cls)
        values = instance.__dict__
        for (_, name, field, decode), packed in zip(cls._meta.load_items, row, strict=False):
            if packed is None:
                values[name] = field.missing_value()
                continue
            try:
                values[name] = decode(packed)
            except CodecError as error:
                raise ModelException(
                    f"{redis_key}: the stored value of field '{name}' cannot be read: {error}"
                ) from None
        values["_saved_key"] = redis_key
        values["_is_persisted"] = True
        return instance

    @classmethod
    def _returned_command(cls, record_keys: Sequence[str]) -> Any:
        """Hook: return the Command that a query runs for the records it hands out, or None."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle or copy takes over: all but the tie to the other instances of a list."""
        state = dict(self.__dict__)
        state.pop("_cohort", None)
        for name in self._meta.lists:
            if isinstance(state.get(name), list):
                state[name] = state[name].twin()
        return state

    @property
    def db_key(self) -> DB_key:
        """The key that the current values give."""
        return DB_key(self._meta.model_name, *(self.__dict__.get(name) for name in self._meta.key_names))

    @property
    def _redis_key(self) -> str | None:
        """The key the record was saved under; before that the key it will get; None while a key part is None."""
        if self._saved_key is not None:
            return self._saved_key
        values = self.__dict__
        if any(values.get(name) is None for name in self._meta.key_names):
            return None
        return self._meta.record_key(values)

    @property
    def pk(self) -> str:
        """The key the record was saved under, else the key that the current values give."""
        return self._saved_key or self._meta.record_key(self.__dict__)

    @property
    def obsolete_redis_key(self) -> str | None:
        """The key that `save(migrate_key=True)` would move the record away from; None while the key is unchanged."""
        saved = self._saved_key
        return saved if saved is not None and saved != self._meta.record_key(self.__dict__) else None

    def __str__(self) -> str:
        return self.pk

    def __repr__(self) -> str:
        return f"<{type(self).__name__} Popoto object at {self.pk}>"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._meta.record_key(self.__dict__) == other._meta.record_key(other.__dict__)

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._meta.record_key(self.__dict__)))

    # -- validation ---------------------------------------------------------------------------------------------------

    def is_valid(self, null_check: bool = True) -> bool:
        """Return True if every value has its field's type (coerced where that loses nothing), null and length.

        Problems are logged at ERROR.

        Raises: ModelException: `_ttl` and `_expire_at` are both set.
        """
        if self.__dict__.get("_ttl") and self._expire_at:
            raise ModelException(
                f"_ttl ({self._ttl!r}) and _expire_at ({self._expire_at!r}) are both set; use one of them."
            )
        try:
            self._validate(None, null_check)
        except ModelException as error:
            logger.error("%s", error)
            return False
        return True

    def _validate(self, names: frozenset[str] | None, null_check: bool = True) -> None:
        values = self.__dict__
        meta = self._meta
        try:
            for name, field in meta.init_items:
                value = values.get(name)
                if value is None:
                    values[name] = None
                elif (
                    type(value) is not field.type
                    or field._own_coerce
                    or (field._longest and len(value) > field._longest)
                ) and (names is None or name in names):
                    values[name] = field.coerce(value)
        except ModelException as error:
            raise ModelException(f"{type(self).__name__}: {error}") from None
        for field in meta.validated:
            if names is None or field.name in names:
                if not type(field).is_valid(field, values[field.name], null_check=null_check):
                    raise ModelException(f"{type(self).__name__}.{field.name}: {values[field.name]!r} is not valid.")
        if null_check:
            for name in meta.required:
                if values[name] is None and (names is None or name in names):
                    raise ModelException(
                        f"{type(self).__name__}.{name} is None, and the field is not null. Give it a value."
                    )

    # -- description ---------------------------------------------------------------------------------------------------

    @classmethod
    def get_info(cls) -> dict[str, Any]:
        """Return {"name", "fields": [names], "query_filters": [filter parameters]}."""
        parameters = cls._meta.filter_query_params_by_field.values()
        return {
            "name": cls.__name__,
            "fields": list(cls._meta.fields),
            "query_filters": sorted(set().union(*parameters)),
        }
