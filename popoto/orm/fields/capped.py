"""ListField(max_length=N): a list that keeps its newest N elements, beside the record.

The elements lie in a Redis list at `record key::field`, newest first, each packed by itself, so that `push` is one step
on the server that reads nothing and loses nothing. The list is an index entry of the record (kind "l",
lua/kind_list.lua): it moves, expires and goes with it.

An instance of a stored record has its list read when the attribute is first looked at, for all instances of the query
that it came from in one round trip. A save rewrites the stored list only where this instance's was assigned or edited.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Mapping
from typing import Any, NoReturn, SupportsIndex

import redis.exceptions

from popoto.exceptions import ModelException, QueryException
from popoto.orm.codec import CodecError, decoder_for, encoder_for
from popoto.orm.coerce import CoercionError, coercer_for
from popoto.orm.commands import Command, queue
from popoto.orm.drivers import adrive, arun, drive, run, warn_of_a_blocking_read
from popoto.orm.event_stream import with_events
from popoto.orm.fields.base import Field
from popoto.orm.keys import list_key
from popoto.orm.plan import pack
from popoto.orm.scripts import Script, register_kind
from popoto.orm.slots import Made, Slot

logger = logging.getLogger("popoto.model")

register_kind("popoto.orm", "kind_list", "l")
PUSH = Script("popoto.orm", "push", with_kinds=True)
PUSH_LOGGED = with_events(PUSH)

_to_list = coercer_for(list)
_encode = encoder_for(object)
_decode = decoder_for(object)


class _Unread:
    """What stands in an instance for a list that was not read yet."""

    def __reduce__(self) -> str:
        return "UNREAD"

    def __repr__(self) -> str:
        return "UNREAD"


UNREAD = _Unread()


class UnreadOf:
    """What stands in a dict of `values()` until the list of this record is read."""

    __slots__ = ("record_key",)

    def __init__(self, record_key: str) -> None:
        self.record_key = record_key


def read_into_dicts(model: Any, rows: list[dict[str, Any]]) -> Generator[Any, Any, None]:
    """Read the lists that dicts of `values()` are to hold, all in one round trip.

    A dict whose list cannot be read (something else lies there, or an element is corrupt) is taken out of `rows`.
    """
    fields = model._meta.lists
    places = [(row, name) for row in rows for name in row if isinstance(row[name], UnreadOf)]
    if not places:
        return
    unreadable: set[int] = set()
    try:
        replies = yield [fields[name].read_command(row[name].record_key) for row, name in places]
    except redis.exceptions.ResponseError:  # something else lies in the place of one
        kinds = yield [Command(("TYPE", list_key(row[name].record_key, name))) for row, name in places]
        known = []
        for (row, name), kind in zip(places, kinds, strict=True):
            if kind in (b"list", b"none", "list", "none"):
                known.append((row, name))
            else:
                logger.error("%s is no list; skipped", list_key(row[name].record_key, name))
                unreadable.add(id(row))
        places = known
        replies = (yield [fields[name].read_command(row[name].record_key) for row, name in places]) if places else []
    for (row, name), stored in zip(places, replies, strict=True):
        try:
            row[name] = fields[name].elements(row[name].record_key, stored)
        except ModelException as error:
            logger.error("%s; skipped", error)
            unreadable.add(id(row))
    if unreadable:
        rows[:] = [row for row in rows if id(row) not in unreadable]


class CappedListProxy(list[Any]):
    """The list of one instance: a list like any other, and `push`."""

    __slots__ = ("_field", "_owner", "_sent", "_stored")
    _field: CappedListField | None
    _owner: Any
    _sent: list[bytes] | None  # what the save under way writes
    _stored: list[bytes] | None  # the elements as they lie on the server; None: not known, or none of it

    def __init__(self, elements: Iterable[Any] = (), stored: list[bytes] | None = None) -> None:
        super().__init__(elements)
        self._field = self._owner = self._sent = None
        self._stored = stored

    def push(self, value: Any, pipeline: Any = None) -> Any:
        """Put an element in front, on the server at once, and drop those beyond max_length: one atomic step.

        Args:
            pipeline: a redis-py pipeline; the push is queued and the pipeline returned.
        Raises: ModelException: the record is not stored, or the value cannot be; nothing is written then.
        """
        return self._bound().push(self._owner, value, pipeline)

    async def async_push(self, value: Any, pipeline: Any = None) -> Any:
        """Await `push()`."""
        return await self._bound().async_push(self._owner, value, pipeline)

    def _bound(self) -> CappedListField:
        if self._field is None:
            raise ModelException("this list belongs to no record; assign it to one, save that and push then.")
        return self._field  # type: ignore[no-any-return]

    def twin(self) -> CappedListProxy:
        """Return a copy for another instance of the same record."""
        return CappedListProxy(self, self._stored)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return CappedListProxy, (list(self), self._stored)


class CappedListField(Field):
    """What `ListField(max_length=N)` is; mixed into ListField by `typed.ListField.__new__`."""

    in_hash = False
    lookups = ()

    # -- the attribute ----------------------------------------------------------------------------------------------

    def __get__(self, instance: Any, owner: type) -> Any:
        """Return the list; reads it at the first look, for all instances that came out of the same query."""
        if instance is None:
            return self
        try:
            value = instance.__dict__[self.name]
        except KeyError:
            raise AttributeError(f"{owner.__name__}.{self.name} has no value on this instance") from None
        if value is UNREAD:
            where = f"{owner.__name__}.{self.name}"
            warn_of_a_blocking_read(where, f"`await {where}.async_read(instance)` before")
            drive(self.read_steps(instance))
            value = instance.__dict__[self.name]
        if value is None:
            value = instance.__dict__[self.name] = CappedListProxy()
        if value._owner is not None and value._owner is not instance:
            value = instance.__dict__[self.name] = value.twin()
        value._field, value._owner = self, instance
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        if isinstance(value, CappedListProxy) and value._owner is not instance:
            value = list(value)  # of another instance: these two shall not share one
        instance.__dict__[self.name] = self.coerce(value)

    def read(self, instance: Any) -> CappedListProxy:
        """Return the instance's list, as the attribute does.

        Raises: ModelException: a stored element is corrupt, or something else lies in the list's place.
        """
        if instance.__dict__.get(self.name) is UNREAD:
            drive(self.read_steps(instance))
        return self.__get__(instance, type(instance))  # type: ignore[no-any-return]

    async def async_read(self, instance: Any) -> CappedListProxy:
        """Await `read()`: for all instances of the query that this one came from, in one round trip."""
        if instance.__dict__.get(self.name) is UNREAD:
            await adrive(self.read_steps(instance))
        return self.__get__(instance, type(instance))  # type: ignore[no-any-return]

    def read_steps(self, instance: Any) -> Generator[Any, Any, None]:
        """Read the list of an instance, and of those of its query that are unread."""
        if instance.__dict__.get(self.name) is not UNREAD:
            return
        cohort = instance.__dict__.get("_cohort")
        others = cohort.living() if cohort is not None else []
        unread = [o for o in others if o is not instance and o.__dict__.get(self.name) is UNREAD and o._saved_key]
        wanted, replies = [instance, *unread], None
        while replies is None:
            try:
                replies = yield [self.read_command(one._saved_key) for one in wanted]
            except redis.exceptions.ResponseError as error:  # something else lies in the place of one
                if len(wanted) == 1:
                    raise ModelException(f"{list_key(instance._saved_key, self.name)} is no list: {error}") from None
                wanted = [instance]
        for one, stored in zip(wanted, replies, strict=True):
            if one.__dict__.get(self.name) is UNREAD:  # nobody has assigned another meanwhile
                try:
                    one.__dict__[self.name] = CappedListProxy(self.elements(one._saved_key, stored), stored)
                except ModelException as error:
                    if one is instance:
                        raise
                    logger.error("%s; it is left unread", error)

    def read_command(self, record_key: str | None) -> Command[list[bytes]]:
        """Return the reading of the packed elements of one record."""
        return Command(("LRANGE", list_key(record_key or "", self.name), 0, -1))

    def elements(self, record_key: str, stored: Iterable[bytes]) -> list[Any]:
        """Return the elements of packed ones.

        Raises: ModelException: one is corrupt.
        """
        try:
            return [_decode(packed) for packed in stored]
        except CodecError as error:
            raise ModelException(f"{record_key}: a stored element of '{self.name}' cannot be read: {error}") from None

    # -- values -----------------------------------------------------------------------------------------------------

    def coerce(self, value: Any) -> Any:
        """Return a CappedListProxy; None is the empty list.

        Raises: ModelException: it is no list or tuple.
        """
        if value is UNREAD or isinstance(value, CappedListProxy):
            return value
        try:
            return CappedListProxy(() if value is None else _to_list(value))
        except CoercionError as error:
            raise ModelException(f"{self._label()}: {error}") from None

    def default_value(self) -> Any:
        return self.coerce(super().default_value())

    def missing_value(self) -> Any:
        return UNREAD

    def decode(self, raw: bytes) -> Any:
        """Return UNREAD: what an uncapped ListField of this name has left in the hash is not the list."""
        return UNREAD

    def packed(self, elements: Iterable[Any]) -> list[bytes]:
        """Return the elements as they are stored.

        Raises: ModelException: one cannot be stored.
        """
        try:
            return [_encode(element) for element in elements]
        except CodecError as error:
            raise ModelException(f"{self._label()}: {error}") from None

    def slots(self) -> list[Slot]:
        name, longest = self.name, self.max_length

        def make(values: Mapping[str, Any]) -> Made | None:
            value = values.get(name, UNREAD)
            if value is UNREAD:
                return [], False, None
            packed = self.packed((value or ())[:longest])
            same = False
            if isinstance(value, CappedListProxy):
                same = packed == value._stored and values.get("_saved_key") is not None
                value._sent = packed
            return [], False, [same, packed]

        return [Slot(name, "l", self.field_class_key, name, (), (name,), make)]

    def was_saved(self, instance: Any) -> None:
        """Take note that what the last save sent lies on the server."""
        value = instance.__dict__.get(self.name)
        if value is None:
            instance.__dict__[self.name] = CappedListProxy((), [])
        elif isinstance(value, CappedListProxy) and value._sent is not None:
            value._stored, value._sent = value._sent, None
            del value[self.max_length :]

    def filter_parameters(self) -> dict[str, str]:
        return {}

    def condition(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise QueryException(
            f"'{self.name}' is a capped list, which no filter looks into. Keep what you search for in a field of its "
            "own."
        )

    # -- push -------------------------------------------------------------------------------------------------------

    def push(self, instance: Any, value: Any, pipeline: Any = None) -> Any:
        """Push to the list of an instance, without reading it; see `CappedListProxy.push`."""
        command = self._push_command(instance, value)
        if pipeline is None:
            return run(command)
        queue(command, pipeline)
        command.parse(0)
        return pipeline

    async def async_push(self, instance: Any, value: Any, pipeline: Any = None) -> Any:
        """Await `push()`."""
        if pipeline is not None:
            return self.push(instance, value, pipeline)
        return await arun(self._push_command(instance, value))

    def _push_command(self, instance: Any, value: Any) -> Command[None]:
        saved = instance._saved_key
        if saved is None:
            raise ModelException(
                f"{type(instance).__name__}.{self.name}: push() writes to a stored record, and this one is not. "
                "Call save() first, or append()."
            )
        packed = self.packed([value])[0]
        longest = self.max_length

        def pushed(_: Any) -> None:
            local = instance.__dict__.get(self.name)
            if isinstance(local, CappedListProxy):
                local.insert(0, value)
                del local[longest:]
                if local._stored is not None:
                    local._stored = [packed, *local._stored][:longest]

        meta = instance._meta
        keys = meta.keys_at(saved)
        event, script = b"", PUSH
        if meta.stream is not None:
            event, script = pack(meta.stream.event(keys, self.name)), PUSH_LOGGED
        args = (saved, *keys.home, self.name, packed, longest, event, "")
        return Command(args, pushed, script, key_count=5, repeat="token")
