"""StreamConsumer: one member of a group that shares the entries of a Redis stream.

Each entry goes to one consumer of the group and stays pending until that one has acknowledged it, which it does after
the handler has returned. So an entry is handled at least once: twice if its consumer ends between the two, or takes
longer than `claim_timeout_ms`.

What is pending for longer than that is taken over by whoever asks next (XAUTOCLAIM), and handed to the handler again,
each entry alone: one that cannot be handled takes no other with it. After `max_retries` further attempts it moves to
the stream `dead:<stream>`, in the step that acknowledges it (lua/fetch.lua).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import redis.exceptions

from popoto import redis_db
from popoto.orm import keys
from popoto.orm.commands import Command
from popoto.orm.scripts import Script
from popoto.orm.wire import BROKEN
from popoto.streams.driving import Entries, Handle, Handler, Steps, adrive, drive, refuse_nested_loop

__all__ = ["StreamConsumer"]

FETCH = Script("popoto.streams", "fetch")
SETTLE = Script("popoto.streams", "settle")

LOOK_MS: Final = 250  # how long one read blocks; between two it is looked whether to stop
_PAUSES_S: Final = (0.0, 0.05, 0.2, 0.5, 1.0)  # before each attempt to connect again; the last one repeats
_PAUSE_S: Final = 1.0  # after any other error
_LONGEST_REASON: Final = 500  # characters of a handler's error that its dead letter keeps

logger = logging.getLogger(__name__)


class StreamConsumer:
    """Hands the entries of a stream to a handler, batch by batch, and acknowledges them.

    Args:
        stream_key: the stream's key as it is stored; `Model.event_stream_key()` gives that of a model.
        group_name: the group; made at the beginning of the stream where it is missing.
        consumer_name: this consumer within the group; no other that runs at the same time may have the name.
        handler: called with a list of (entry id, {field: text}); a function or a coroutine function. An error of
            it leaves the entries pending.
        batch_size: entries that are handed over at once, at most.
        block_ms: how long to wait for new entries where there are none, ms; 0 to go on at once.
        max_retries: how often an entry is handed out again before it becomes a dead letter.
        claim_timeout_ms: after how long an entry that was not acknowledged is handed out again, ms. Choose it longer
            than the handler takes.
        dead_letter_max_length: about how many dead letters are kept; None for all.
    Raises: ValueError, TypeError: an argument is none of that.
    """

    def __init__(
        self,
        stream_key: str,
        group_name: str,
        consumer_name: str,
        handler: Handler,
        batch_size: int = 50,
        block_ms: int = 5000,
        max_retries: int = 3,
        claim_timeout_ms: int = 180000,
        dead_letter_max_length: int | None = None,
    ) -> None:
        for name, text in (
            ("stream_key", stream_key),
            ("group_name", group_name),
            ("consumer_name", consumer_name),
        ):
            if not isinstance(text, str) or not text:
                raise ValueError(f"StreamConsumer: {name}= expected a text, got {text!r}.")
        if not callable(handler):
            raise TypeError(f"StreamConsumer: handler= expected a function, got {handler!r}.")
        for name, number, least in (
            ("batch_size", batch_size, 1),
            ("block_ms", block_ms, 0),
            ("max_retries", max_retries, 0),
            ("claim_timeout_ms", claim_timeout_ms, 0),
            ("dead_letter_max_length", 0 if dead_letter_max_length is None else dead_letter_max_length, 0),
        ):
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise ValueError(f"StreamConsumer: {name}= expected a whole number from {least} on, got {number!r}.")
        self.stream_key = stream_key
        self.group_name = group_name
        self.consumer_name = consumer_name
        self.handler = handler
        self.batch_size = batch_size
        self.block_ms = block_ms
        self.max_retries = max_retries
        self.claim_timeout_ms = claim_timeout_ms
        self.dead_letter_max_length = dead_letter_max_length
        self._stopped = threading.Event()
        self._search_from = "0-0"

    @property
    def dead_letter_key(self) -> str:
        """The stream of the entries that could not be handled."""
        return keys.dead_letter_key(self.stream_key, redis_db.key_namespace())

    # -- one batch ----------------------------------------------------------------------------------------------------

    async def process_batch(self) -> int:
        """Handle what is due again and what is new, waiting up to `block_ms` where there is neither.

        Returns: how many entries were handled and acknowledged.
        Raises: what the handler raised; those entries stay pending, the others are acknowledged. redis-py's errors: the
            connection, a key that holds no stream.
        """
        return await adrive(self._batch(), self._stopped)

    def process_batch_sync(self) -> int:
        """Do `process_batch` without an event loop; a coroutine handler gets one of its own.

        Raises: RuntimeError: a loop runs in this thread, and the handler is a coroutine function.
        """
        refuse_nested_loop(self.handler)
        return drive(self._batch(), self._stopped)

    def _batch(self) -> Steps[int]:
        self._search_from, again, new = yield self._fetch()
        if not again and not new:
            new = yield from self._wait()
        handled = 0
        failed: list[Exception] = []
        for entries in [*([entry] for entry in again), new]:
            if not entries:
                continue
            try:
                yield Handle(self.handler, entries)
            except Exception as error:
                failed.append(error)
                yield self._note(entries, error)
            else:
                yield self._settle(entries)
                handled += len(entries)
        for other in failed[1:]:  # one of them is raised; nobody would hear of the others
            logger.error("the handler of %s failed: %s", self.stream_key, other, exc_info=other)
        if failed:
            raise failed[0]
        return handled

    def _wait(self) -> Steps[Entries]:
        """Wait for new entries, in short reads: a stop is noticed, and no read outlasts the socket's own timeout."""
        end = time.monotonic() + self.block_ms / 1000
        while not self._stopped.is_set():
            left_ms = round((end - time.monotonic()) * 1000)
            if left_ms <= 0:
                break
            try:
                new: Entries = yield self._read(min(left_ms, LOOK_MS, _half_of_socket_timeout_ms()))
            except redis.exceptions.ResponseError as error:
                if str(error).partition(" ")[0] not in ("NOGROUP", "UNBLOCKED"):
                    raise
                break  # the stream was deleted; the next fetch makes the group again
            if new:
                return new
        return []

    # -- commands -----------------------------------------------------------------------------------------------------

    def _fetch(self) -> Command[tuple[str, Entries, Entries]]:
        dead = self.dead_letter_key
        longest = self.dead_letter_max_length
        args: tuple[Any, ...] = (
            *(self.stream_key, dead, keys.stream_errors_key(dead, self.group_name), keys.stream_sentinel_key(dead)),
            *(self.group_name, self.consumer_name, self.batch_size, self.claim_timeout_ms, self.max_retries),
            *(self._search_from, "" if longest is None else longest),
        )

        def parse(reply: Any) -> tuple[str, Entries, Entries]:
            return _text(reply[0]), _entries(reply[1]), _entries(reply[2])

        return Command(args, parse, FETCH, key_count=4)

    def _read(self, block_ms: int) -> Command[Entries]:
        reader = ("XREADGROUP", "GROUP", self.group_name, self.consumer_name)
        args = (*reader, "COUNT", self.batch_size, "BLOCK", block_ms, "STREAMS", self.stream_key, ">")
        return Command(args, lambda reply: _entries(reply[0][1]) if reply else [])

    def _settle(self, entries: Entries) -> Command[int]:
        dead = self.dead_letter_key
        errors, sentinel = keys.stream_errors_key(dead, self.group_name), keys.stream_sentinel_key(dead)
        args = (self.stream_key, errors, sentinel, self.group_name, *(entry[0] for entry in entries))
        return Command(args, int, SETTLE, key_count=3)

    def _note(self, entries: Entries, error: Exception) -> Command[Any]:
        """Keep why the entries failed: it goes into the dead letter, whichever consumer writes that."""
        reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON].encode("utf-8", "replace")
        pairs = [part for entry in entries for part in (entry[0], reason)]
        return Command(("HSET", keys.stream_errors_key(self.dead_letter_key, self.group_name), *pairs))

    # -- loops --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Process batches until `stop()`. Errors are logged, those of the connection included, and it goes on."""
        try:
            await adrive(self._loop(), self._stopped)
        finally:
            self._stopped.clear()

    def run_sync(self) -> None:
        """Do `run` without an event loop; a coroutine handler gets one of its own.

        Raises: RuntimeError: a loop runs in this thread, and the handler is a coroutine function.
        """
        refuse_nested_loop(self.handler)
        try:
            drive(self._loop(), self._stopped)
        finally:
            self._stopped.clear()

    def stop(self) -> None:
        """End `run` after the batch at hand; a wait for new entries ends within 0.25 s.

        May be called from another thread, a signal handler or the handler itself; before `run` it ends that at once.
        """
        self._stopped.set()

    def _loop(self) -> Steps[None]:
        failures = 0
        while not self._stopped.is_set():
            try:
                handled = yield from self._batch()
                failures = 0
                pause_s = 0.0 if handled or self.block_ms else LOOK_MS / 1000
            except BROKEN as error:
                if failures == 0:
                    logger.warning("the consumer of %s lost its connection and tries again: %s", self.stream_key, error)
                pause_s = _PAUSES_S[min(failures, len(_PAUSES_S) - 1)]
                failures += 1
            except Exception as error:
                logger.error("a batch of %s failed, it stays pending: %s", self.stream_key, error, exc_info=error)
                pause_s = _PAUSE_S
            if pause_s:
                yield pause_s


def _half_of_socket_timeout_ms() -> int:
    """Return how long a read may block so that the reply comes well before the client gives up on it."""
    pool = getattr(redis_db.get_REDIS_DB(), "connection_pool", None)
    timeout_s = pool.connection_kwargs.get("socket_timeout") if pool is not None else None
    return max(1, round(timeout_s * 500)) if timeout_s else LOOK_MS


def _entries(raw: Sequence[Any]) -> Entries:
    """Return the entries of a reply; a client may have made a dict of each one's fields."""
    found = []
    for entry_id, held in raw:
        pairs = held.items() if isinstance(held, dict) else zip(held[::2], held[1::2], strict=True)
        found.append((_text(entry_id), {_text(name): _text(value) for name, value in pairs}))
    return found


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
