"""The steps of a migration: what happens to one record's fields.

Each step can tell from the record itself whether it has been done: a field is there or not, a value has its new type or
not. So a migration may be killed and run again, and a record that a program with the new model has saved meanwhile is
left as that program wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from popoto.exceptions import ModelException
from popoto.orm.fields.base import Field
from popoto.orm.tagged import CodecError, decode_any

if TYPE_CHECKING:
    from popoto.orm.options import ModelOptions

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "the field's own default"})()


class Draft(Mapping[str, Any]):
    """A record on its way to the new model: field name -> value, of the fields that are stored at this point.

    Functions of a migration get it to read from. Values are what their bytes say, whatever type the field has now.

    Attributes:
        key: the record's key as it is stored.
        raw: field name -> bytes.
        renamed: (field, its new name), of those that were carried over.
    """

    def __init__(self, meta: ModelOptions, key: str, raw: Mapping[str, bytes]) -> None:
        self.meta, self.key = meta, key
        self.raw = dict(raw)
        self.renamed: list[tuple[str, str]] = []

    def __getitem__(self, name: str) -> Any:
        raw = self.raw[name]
        field = self.meta.fields.get(name)
        if field is not None and has_own_bytes(field):
            return field.decode(raw)
        try:
            return decode_any(raw)
        except CodecError as error:
            raise ModelException(f"the stored value of field '{name}' cannot be read: {error}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def put(self, name: str, value: Any) -> None:
        """Set a field of the new model.

        Raises: ModelException: the value does not fit.
        """
        field = self.meta.fields[name]
        self.raw[name] = field.encode(field.coerce(value))


class Step(Protocol):
    """What a step has; a step of your own is any object with these, and a `str()` that is the same in each process."""

    def bind(self, meta: ModelOptions) -> None:
        """Check the step against the new model. Raises: ModelException."""

    def apply(self, record: Draft) -> bool:
        """Do it to one record; return False where there is nothing to do.

        Raises: any Exception: the record cannot be converted; it stays as it is, and the report has the reason.
        """


@dataclass(frozen=True)
class RenameField:
    """A field has another name. Where a record has a value under both, the new one counts: the new model wrote it."""

    old: str
    new: str

    def __str__(self) -> str:
        return f"RenameField({self.old} -> {self.new})"

    def bind(self, meta: ModelOptions) -> None:
        _known(meta, self.new, self)
        _gone(meta, self.old, self)

    def apply(self, record: Draft) -> bool:
        if self.old not in record.raw:
            return False
        raw = record.raw.pop(self.old)
        if self.new not in record.raw:
            record.raw[self.new] = raw
            record.renamed.append((self.old, self.new))
        return True


@dataclass(frozen=True)
class AddField:
    """A field that records do not have yet.

    Args:
        name: the field.
        default: its value in all of them; left out, the default of the field.
        make: instead: a function that gets the record (a mapping of its values) and returns the value.
    """

    name: str
    default: Any = MISSING
    make: Callable[[Mapping[str, Any]], Any] | None = None

    def __str__(self) -> str:
        return f"AddField({self.name})"

    def bind(self, meta: ModelOptions) -> None:
        field = _known(meta, self.name, self)
        if self.make is not None and self.default is not MISSING:
            raise ModelException(f"{self}: give default= or make=, not both.")
        if self.make is None and self.default is not MISSING:
            field.coerce(self.default)

    def apply(self, record: Draft) -> bool:
        if self.name in record.raw:
            return False
        if self.make is not None:
            value = self.make(record)
        else:
            value = record.meta.fields[self.name].default_value() if self.default is MISSING else self.default
        record.put(self.name, value)
        return True


@dataclass(frozen=True)
class DropField:
    """A field that the model no longer has: its stored values go."""

    name: str

    def __str__(self) -> str:
        return f"DropField({self.name})"

    def bind(self, meta: ModelOptions) -> None:
        _gone(meta, self.name, self)

    def apply(self, record: Draft) -> bool:
        return record.raw.pop(self.name, None) is not None


@dataclass(frozen=True)
class RetypeField:
    """A field has another type. A value that has it already stays, and so does None.

    Args:
        name: the field.
        convert: from the old value to the new one; left out, the field takes what it can without loss.
        was: the old type, if a value of any third one is to be reported and not converted.

    To convert between values of one type, such as cents to euros in an int, use a second field: only then can it be
    told whether a record has been converted.
    """

    name: str
    convert: Callable[[Any], Any] | None = None
    was: type | None = None

    def __str__(self) -> str:
        return f"RetypeField({self.name})"

    def bind(self, meta: ModelOptions) -> None:
        field = _known(meta, self.name, self)
        if self.was is not None and self.was is field.type:
            raise ModelException(
                f"{self}: the field is of type {field.type.__name__} before and after, so nothing would tell whether a "
                "record has been converted. Add a second field with AddField(make=...) and drop this one."
            )

    def apply(self, record: Draft) -> bool:
        raw, field = record.raw.get(self.name), record.meta.fields[self.name]
        if raw is None:
            return False
        if has_own_bytes(field):
            try:
                field.decode(raw)
                return False
            except CodecError:
                value = decode_any(raw)
        else:
            value = record[self.name]
            if value is None or type(value) is field.type:
                return False
        if self.was is not None and type(value) is not self.was:
            raise ModelException(
                f"field '{self.name}' holds a {type(value).__name__}, expected {self.was.__name__} or "
                f"{field.type.__name__}"
            )
        record.put(self.name, value if self.convert is None else self.convert(value))
        return True


@dataclass(frozen=True)
class RenameModel:
    """The model's records were kept under another name: that of the class, or its `Meta.key_name`.

    Their keys, and the keys of all their index entries, follow. What other records hold of these keys does not.
    """

    old: str

    def __str__(self) -> str:
        return f"RenameModel({self.old})"

    def bind(self, meta: ModelOptions) -> None:
        if self.old == meta.model_name:
            raise ModelException(f"{self}: the model keeps its records under this name now.")

    def apply(self, record: Draft) -> bool:
        return record.meta.keys.parts_of(record.key) is None


def has_own_bytes(field: Field) -> bool:
    """Return True when the field's class stores its values in a way of its own."""
    return type(field).decode is not Field.decode or type(field).encode is not Field.encode


def _known(meta: ModelOptions, name: str, step: Any) -> Field:
    field = meta.fields.get(name)
    if field is None:
        raise ModelException(f"{step}: {meta.model_name} has no field '{name}'. Fields: {', '.join(meta.fields)}.")
    return field


def _gone(meta: ModelOptions, name: str, step: Any) -> None:
    if name in meta.fields:
        raise ModelException(f"{step}: {meta.model_name} still has the field '{name}'. Take it out of the class first.")
