"""get_or_create, update_or_create and refresh.

Both look first and write then; the server refuses the write when another caller was faster, and the call starts over.
So a lookup of all key fields, or of a unique field, gives one record whatever runs at the same time. Any other lookup
names no one record, and two callers may each create one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import Any, TypeVar

from popoto.exceptions import (
    AlreadyExistsError,
    KeyMutationError,
    ModelException,
    QueryException,
    RecordGoneError,
    StaleRecordError,
)
from popoto.orm.codec import CodecError
from popoto.orm.commands import Command
from popoto.orm.drivers import adrive, arun, drive, run
from popoto.orm.record import Record

U = TypeVar("U", bound="Upsert")
Steps = Generator[Any, Any, tuple[Any, bool]]
TRIES = 10  # of a call that others outrun again and again


class Upsert(Record):
    """get_or_create, update_or_create and refresh."""

    class Meta:
        abstract = True

    @classmethod
    def get_or_create(cls: type[U], defaults: Mapping[str, Any] | None = None, **lookup: Any) -> tuple[U, bool]:
        """Return (the record that the lookup finds, False), or create one and return (it, True).

        One round trip where it exists, two where it is created. Of concurrent callers whose lookup names all key
        fields, or a unique field, one creates.

        Args:
            defaults: further values of a new record; they win over those of the lookup.
            lookup: field=value; no lookups such as `__gt`, for a new record gets these values.
        Raises: QueryException: it matches several records, or is no field=value. ModelException: the new record is
            refused, e.g. for a unique value that a record of another lookup has.
        """
        return drive(_upsert(cls, lookup, defaults or {}, update=False))

    @classmethod
    async def async_get_or_create(
        cls: type[U], defaults: Mapping[str, Any] | None = None, **lookup: Any
    ) -> tuple[U, bool]:
        """Await `get_or_create()`."""
        return await adrive(_upsert(cls, lookup, defaults or {}, update=False))

    @classmethod
    def update_or_create(cls: type[U], defaults: Mapping[str, Any] | None = None, **lookup: Any) -> tuple[U, bool]:
        """Set `defaults` on the record that the lookup finds, or create one of both; return (it, whether it is new).

        What is found is saved in part: `defaults` and the `auto_now` fields, and nothing that others changed meanwhile.
        (A model with a `pre_save` of its own is saved whole.) Two round trips. Concurrency as in `get_or_create`.

        Raises: KeyMutationError: `defaults` would change the key of a record. The others as in `get_or_create`.
        """
        return drive(_upsert(cls, lookup, defaults or {}, update=True))

    @classmethod
    async def async_update_or_create(
        cls: type[U], defaults: Mapping[str, Any] | None = None, **lookup: Any
    ) -> tuple[U, bool]:
        """Await `update_or_create()`."""
        return await adrive(_upsert(cls, lookup, defaults or {}, update=True))

    def refresh(self, fields: Iterable[str] | None = None) -> None:
        """Read the stored values into this instance; what was assigned and not saved is lost.

        Related records are read anew when they are next looked at.

        Args:
            fields: only these.
        Raises: RecordGoneError: the record is not stored, or not any more; the instance stays as it is.
            ModelException: no such field, or a stored value is corrupt.
        """
        run(_refresh_command(self, fields))

    async def async_refresh(self, fields: Iterable[str] | None = None) -> None:
        """Await `refresh()`."""
        await arun(_refresh_command(self, fields))


def _upsert(model: Any, lookup: Mapping[str, Any], defaults: Mapping[str, Any], update: bool) -> Steps:
    fields = model._meta.fields
    strange = [name for name in lookup if name not in fields]
    if strange:
        raise QueryException(
            f"{model.__name__}: '{strange[0]}' is no field; a lookup gives a new record its values, so it is made of "
            f"field=value. Fields: {', '.join(fields)}."
        )
    error: Exception | None = None
    for _ in range(TRIES):
        found = yield from model.query._get(None, None, dict(lookup))
        if found is not None:
            if not update or not defaults:
                return found, False
            try:
                yield from _update(model, found, defaults)
            except (RecordGoneError, StaleRecordError) as gone:  # deleted or changed between the two
                error = gone
                continue
            return found, False
        new = model(**{**lookup, **defaults})
        command = new._save_command(False, False, None, False, None, {}, insert=True)
        if not isinstance(command, Command):  # a hook skipped the save
            return new, False
        try:
            yield command
        except AlreadyExistsError as taken:
            if error is not None and str(error) == str(taken):
                break  # not by a caller that was faster: the lookup does not find what stands in the way
            error = taken
            continue
        return new, True
    raise error or AssertionError("unreachable")


def _update(model: Any, found: Any, defaults: Mapping[str, Any]) -> Generator[Any, Any, None]:
    meta = model._meta
    for name, value in defaults.items():
        if name not in meta.fields:
            raise ModelException(f"{model.__name__} has no field '{name}'. Fields: {', '.join(meta.fields)}.")
        field = meta.fields[name]
        if field.is_key and field.coerce(value) != found.__dict__[name]:
            raise KeyMutationError(
                f"{model.__name__}.{name} is part of the key: update_or_create cannot change it from "
                f"{found.__dict__[name]!r} to {value!r}. Load the record, set it and save(migrate_key=True)."
            )
        setattr(found, name, value)
    names = {*defaults, *(name for name, field in meta.fields.items() if getattr(field, "auto_now", False))}
    if _computes(model):
        names = set(meta.fields)
    command = found._save_command(False, False, names, False, None, {})
    if isinstance(command, Command):
        yield command


def _computes(model: Any) -> bool:
    """Return True when the model's own `pre_save` may set further fields."""
    return not model.pre_save.__module__.startswith("popoto.")


def _refresh_command(instance: Any, fields: Iterable[str] | None) -> Command[None]:
    meta = instance._meta
    model = type(instance).__name__
    key = instance._saved_key
    if key is None:
        raise RecordGoneError(f"this {model} was never saved, or is deleted: there is nothing to read. Call save().")
    names = list(meta.fields) if fields is None else sorted(instance._listed(fields))

    def taken(raws: list[Any]) -> None:
        if all(raw is None for raw in raws):
            raise RecordGoneError(
                f"{key} is not stored any more (deleted or expired); the instance stays as it is. "
                "save() stores it again."
            )
        read = {}
        for name, raw in zip(names, raws, strict=False):
            field = meta.fields[name]
            try:
                read[name] = field.missing_value() if raw is None else field.decode(raw)
            except CodecError as error:
                raise ModelException(f"{key}: the stored value of field '{name}' cannot be read: {error}") from None
        instance.__dict__.update(read)
        instance.__dict__["_is_persisted"] = True

    return Command(("HMGET", key, *names, meta.key_names[0]), taken)
