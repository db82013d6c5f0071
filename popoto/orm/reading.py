"""From what the server sends of a record to an instance or a dict; what cannot be read is left out and logged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from popoto.exceptions import ModelException
from popoto.orm.codec import CodecError
from popoto.orm.columns import Columns
from popoto.orm.commands import Command
from popoto.orm.fields.capped import UnreadOf
from popoto.orm.nearest import attach_distance, projected, with_distance

if TYPE_CHECKING:
    from popoto.orm.fields.geo import Near
    from popoto.orm.model import Model

logger = logging.getLogger("popoto.query")


class Reader:
    """Makes of rows what a selection hands out.

    Args:
        model: whose records they are.
        values: names of the fields of the dicts; None for instances.
        near: the centre that distances are measured from, or None.
        strict: raise ModelException for a corrupt record.
        holds: (field, test) of what indexes answered: a record whose stored value says otherwise is left out.

    Attributes:
        asked: the fields to read of each record.
    """

    __slots__ = ("asked", "checks", "lists", "model", "names", "near", "strict", "values")

    def __init__(
        self,
        model: type[Model],
        values: tuple[str, ...] | None,
        near: Near | None,
        strict: bool,
        holds: Iterable[tuple[str, Callable[[Any], bool]]] = (),
    ) -> None:
        self.model, self.values, self.near, self.strict = model, values, near, strict
        self.names = tuple(model._meta.fields) if values is None else projected(near, values)
        self.asked = list(self.names) if values is None else asked(model, self.names)
        self.lists = [name for name in self.names if name in model._meta.lists]
        # a record that lacks the field, stored before there was one, has nothing to say
        self.checks = [(self.names.index(name), name, test) for name, test in holds if name in self.names]

    @property
    def columns(self) -> Columns:
        """How the server packs the records where it answers with them (`take`)."""
        known = self.model._meta.columns
        if self.names not in known:
            known[self.names] = Columns(self.model._meta, self.names)
        return known[self.names]

    def take(self, reply: Sequence[Any]) -> Generator[Any, Any, list[Any]]:
        """Return instances or dicts of a reply of lua/lib_rows.lua, 'records'.

        Where damaged bytes make it impossible to tell where a value ends, the records are read once more, one by one.
        """
        keys = [name_of(key) for key in reply[0]]
        out: list[Any] = []
        try:
            rows = self.columns.read(reply, keys, self.checks, self.strict and self.values is None)
        except CodecError:
            replies = yield self.commands(keys)
            return self.read(zip(keys, replies, strict=True))
        names, model, near = self.names, self.model, self.near
        if self.values is not None:
            for key, row in rows:
                found = dict(zip(names, row))  # noqa: B905 - as long as each other; asking takes as long as the dict
                for name in self.lists:
                    found[name] = UnreadOf(key)
                out.append(found if near is None else with_distance(near, found, self.values))
            return out
        new = model.__new__
        for key, row in rows:
            instance = new(model)
            values = instance.__dict__
            values.update(zip(names, row))  # noqa: B905 - as above
            values["_saved_key"] = key
            values["_is_persisted"] = True
            if near is not None:
                attach_distance(near, instance)
            out.append(instance)
        return out

    def commands(self, keys: Iterable[str]) -> list[Command[Any]]:
        """Return the reading of these records, as far as they are handed out."""
        return [Command(("HMGET", key, *self.asked)) for key in keys]

    def read(self, rows: Iterable[tuple[str, Any]]) -> list[Any]:
        """Return instances or dicts of (key, reply of HMGET of `asked`)."""
        if self.values is not None:
            return self._dicts(rows)
        out: list[Any] = []
        hydrated, near, checks = self.model._hydrated_row, self.near, self.checks
        for key, raw in rows:
            if raw is None or raw is False:
                logger.error("%s cannot be read (not a hash); skipped", key)
                continue
            if raw[0] is None and not any(value is not None for value in raw):
                continue  # the record vanished
            try:
                instance = hydrated(key, raw)
            except ModelException as error:
                if self.strict:
                    raise
                logger.error("%s; skipped", error)
                continue
            if checks and not _agrees(checks, key, raw, instance.__dict__):
                continue
            if near is not None:
                attach_distance(near, instance)
            out.append(instance)
        return out

    def _dicts(self, rows: Iterable[tuple[str, Any]]) -> list[Any]:
        out: list[Any] = []
        near = self.near
        for key, raw in rows:
            values = decoded(self.model, key, self.names, raw)
            if values is not None and _agrees(self.checks, key, raw, values):
                for name in self.lists:
                    values[name] = UnreadOf(key)
                out.append(values if near is None else with_distance(near, values, self.values or ()))
        return out


def _agrees(checks: Iterable[tuple[int, str, Callable[[Any], bool]]], key: str, raw: Any, values: Any) -> bool:
    """Return False for a record that an index names and whose value is another one."""
    for place, name, test in checks:
        if raw[place] is not None and not test(values[name]):
            logger.error("%s: the index of field '%s' names it, its value is another one; skipped", key, name)
            return False
    return True


def asked(model: type[Model], names: Iterable[str]) -> list[str]:
    """Return the fields to read: a key field behind those wanted tells a record from none."""
    return [*names, model._meta.key_names[0]]


def decoded(model: type[Model], key: str, names: Iterable[str], raws: Any) -> dict[Any, Any] | None:
    """Return the values of a reply of HMGET of `asked(names)`; None where the record vanished or cannot be read."""
    if raws is None or raws is False:
        logger.error("%s cannot be read (not a hash); skipped", key)
        return None
    if raws[0] is None and not any(raw is not None for raw in raws):
        return None  # the record vanished
    fields = model._meta.fields
    values: dict[Any, Any] = {}
    for name, raw in zip(names, raws, strict=False):
        field = fields[name]
        try:
            values[name] = field.missing_value() if raw is None else field.decode(raw)
        except ValueError as error:
            logger.error("%s: the stored value of field '%s' cannot be read: %s; skipped", key, name, error)
            return None
    return values


def name_of(member: bytes) -> str:
    """Return a member of an index as text; bytes that are no text name no record, and stay what they are."""
    try:
        return member.decode()
    except UnicodeDecodeError:
        return member.decode("utf-8", "surrogateescape")


def names_of(members: Iterable[bytes]) -> list[str]:
    """Return members of an index as text, without those that are no text and so no keys of records."""
    names = [name_of(member) for member in members]
    return names if all(map(_is_text, names)) else [name for name in names if _is_text(name)]


def _is_text(name: str) -> bool:
    return name.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in name)
