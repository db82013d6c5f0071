"""Batches: the saves or deletes of many records as one command (lua/bulk_commit.lua, lua/bulk_remove.lua)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any

import msgpack
import redis.exceptions

from popoto.exceptions import ModelException
from popoto.orm.commands import Command, translated
from popoto.orm.event_stream import with_events
from popoto.orm.options import ModelOptions
from popoto.orm.plan import COMMIT, COMMIT_LOGGED, REMOVE, REMOVE_LOGGED, pack
from popoto.orm.recorder import Recorder
from popoto.orm.scripts import Script

BULK_COMMIT = Script("popoto.orm", "bulk_commit", with_kinds=True)
BULK_REMOVE = Script("popoto.orm", "bulk_remove", with_kinds=True, flags="allow-oom")
BULK_COMMIT_LOGGED, BULK_REMOVE_LOGGED = with_events(BULK_COMMIT), with_events(BULK_REMOVE)

Progress = Callable[[int, "int | None"], Any]
"""Called after each batch with (records handled so far, all of them or None where that is not known)."""

_SINGLE = {COMMIT, COMMIT_LOGGED, REMOVE, REMOVE_LOGGED}


def chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of up to `size` items, reading no further ahead than that."""
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk


def checked_size(batch_size: Any) -> int:
    """Return the batch size; below 1 counts as 1.

    Raises: TypeError: no whole number.
    """
    if type(batch_size) is not int:
        raise TypeError(f"batch_size= expected a whole number of records, got {batch_size!r}.")
    return max(1, batch_size)


def length_of(items: Any) -> int | None:
    """Return how many items there are, None for a generator."""
    return len(items) if isinstance(items, Sized) else None


class Collector(Recorder):
    """The pipeline that an overridden save() or delete() gets in a bulk call: what it queues joins the batch.

    Attributes:
        taken: arguments of the saves or deletes that were queued.
        commands: all else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[Any, ...]] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Take one command."""
        if args[0] in ("EVAL", "EVALSHA"):
            if not any(args[1] in (script.source, script.sha) for script in _SINGLE):
                raise ModelException(
                    "a save() or delete() of the model's own queued a script call, which cannot join a batch. "
                    "Save or delete these records one by one."
                )
            self.taken.append(args[3:])
            return self
        return super().execute_command(*args, **options)


class Batch:
    """Records that are saved, or deleted, in one step.

    Args:
        operation: name of the bulk call, for errors.
        first: number of the batch's first record among all that the call was given.
    """

    def __init__(self, meta: ModelOptions, operation: str, first: int) -> None:
        self.meta, self.operation, self.first = meta, operation, first
        self._items: list[Any] = []
        self._firsts: tuple[Command[Any], ...] = ()
        self._thens: tuple[Command[Any], ...] = ()
        self._numbers: list[int] = []
        self._done: list[Callable[[Any], Any] | None] = []

    def __len__(self) -> int:
        return len(self._items)

    def take(self, number: int, command: Command[Any]) -> None:
        """Add the save or delete of one record; its `parse` runs once the batch has happened."""
        self._firsts += command.firsts
        self._thens += command.thens
        self._add(number, [command.args[0], *command.args[5:-1]], command.parse)

    def take_collected(self, number: int, collected: Collector, done: Callable[[Any], Any]) -> bool:
        """Add what an overridden method queued; return False if that is nothing.

        `done` runs once the batch has happened.

        Raises: ModelException: it queued saves or deletes of other records as well.
        """
        if len(collected.taken) > 1 or (collected.taken and collected.taken[0][1:5] != self.meta.keys.home):
            raise ModelException(
                "a save() or delete() of the model's own queued saves or deletes of further records, which cannot join "
                "a batch. Save or delete these records one by one."
            )
        if not collected.taken:
            return False
        args = collected.taken[0]
        item = [args[0], *args[5:-1]]
        if collected.commands:
            item = self._with_commands(item, collected.commands)
        self._add(number, item, done)
        return True

    def _with_commands(self, item: list[Any], commands: list[Any]) -> list[Any]:
        raise NotImplementedError

    def _add(self, number: int, item: Any, done: Callable[[Any], Any] | None) -> None:
        self._items.append(item)
        self._numbers.append(number)
        self._done.append(done)

    def key_at(self, place: int) -> str:
        """Return the key of the record at a place of the batch."""
        item = self._items[place]
        return item if isinstance(item, str) else item[0]

    def named(self, error: Exception, number: int, key: str) -> Exception:
        """Return an error of the same class that says which record it is about."""
        text = f"{self.operation}, record number {number} ({key}): {error}"
        if self.first:
            text += f" Nothing of its batch was done; what came before record number {self.first} was."
        return type(error)(text)

    def _refused(self, place: int, sentence: str) -> Exception:
        error = translated(redis.exceptions.ResponseError(sentence))
        if isinstance(error, ModelException) and not sentence.startswith("HOOK"):
            return self.named(error, self._numbers[place], self.key_at(place))
        return error


class SaveBatch(Batch):
    """Saves in one step.

    Args:
        lenient: a record that must be stored and is not is left out, instead of refusing the batch.
        plan, entries: what is written of each record that was added by its key alone.
    """

    def __init__(
        self,
        meta: ModelOptions,
        operation: str,
        first: int,
        lenient: bool = False,
        plan: bytes = b"",
        entries: bytes = b"",
    ) -> None:
        super().__init__(meta, operation, first)
        self._common = {"plan": plan, "entries": entries, "lenient": lenient}

    def take_key(self, number: int, key: str) -> None:
        """Add a record that gets what all of the batch get."""
        self._add(number, key, None)

    def _with_commands(self, item: list[Any], commands: list[Any]) -> list[Any]:
        return [*item, pack(commands)]

    def command(self) -> Command[int | None]:
        """Return the batch as one command. Its result: how many records were saved; None if one needs to be read first.

        Raises (its parse): ModelException: a record cannot be saved.
        """
        script = BULK_COMMIT if self.meta.stream is None else BULK_COMMIT_LOGGED
        args = (*self.meta.keys.home, pack(self._items), pack(self._common), "")
        return Command(args, self._saved, script, key_count=4, repeat="token", firsts=self._firsts, thens=self._thens)

    def _saved(self, reply: Any) -> int | None:
        if reply[0] == 1:
            sentence = reply[2].decode("utf-8", "replace")
            if sentence.startswith("UNREAD "):
                return None
            raise self._refused(reply[1], sentence)
        left_out = set(reply[1]) if reply[0] == 0 else set()
        for place, done in enumerate(self._done):
            if done is not None and place not in left_out:
                done(0)
        if reply[0] == 2:
            raise self._refused(reply[1], reply[2].decode("utf-8", "replace"))
        return len(self._items) - len(left_out)


class RemoveBatch(Batch):
    """Deletes in one step."""

    def _with_commands(self, item: list[Any], commands: list[Any]) -> list[Any]:
        return [item[0], pack([*msgpack.unpackb(item[1], raw=True), *commands]), *item[2:]]

    def command(self) -> Command[int]:
        """Return the batch as one command. Its result: how many of the records existed.

        Raises (its parse): ModelException: a record cannot be deleted.
        """
        script = BULK_REMOVE if self.meta.stream is None else BULK_REMOVE_LOGGED
        args = (*self.meta.keys.home, pack(self._items), "")
        return Command(args, self._removed, script, key_count=4, repeat="token")

    def _removed(self, reply: Any) -> int:
        if reply[0] == 1:
            raise self._refused(reply[1], reply[2].decode("utf-8", "replace"))
        existed = reply[1] if reply[0] == 0 else [1] * len(self._items)
        for done, found in zip(self._done, existed, strict=True):
            if done is not None:
                done(found)
        if reply[0] == 2:
            raise self._refused(reply[1], reply[2].decode("utf-8", "replace"))
        return sum(existed)
