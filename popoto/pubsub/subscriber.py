"""Subscriber: receive the messages of channels, one poll at a time or in a loop that outlives the connection."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from abc import ABC
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, TypeVar

from popoto import redis_db
from popoto.exceptions import SubscriberException
from popoto.orm.tagged import CodecError, decode_any
from popoto.orm.wire import BROKEN, hopeless

__all__ = ["Subscriber", "SubscriberException"]

POLL_S: Final = 0.1  # how long a loop waits for a message before it looks at its stop event
HAND_OVER_S: Final = 1.0  # how long async_run waits for the confirmation, one round trip, that it may take over
_PAUSES_S: Final = (0.0, 0.05, 0.2, 0.5, 1.0)  # before each attempt to connect again; the last one repeats

S = TypeVar("S", bound="Subscriber")

logger = logging.getLogger(__name__)


class Subscriber(ABC):  # noqa: B024  # the default handle() is part of the interface, so nothing is abstract
    """Hands each message of `sub_channel_names` to `pre_handle` and then `handle`.

    Subscribes when it is made, on a connection of its own (`.pubsub`) which it holds until `close()`. One thread
    uses an instance at a time. A server keeps no messages for a subscriber that is away: what is published while
    the connection is down is lost.
    """

    sub_channel_names: Sequence[str] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Subscribe. Arguments are for subclasses and are not used here.

        Raises: SubscriberException: `sub_channel_names` is no list of names. redis-py's errors: no connection.
        """
        self._channels()
        self.pubsub: Any = None
        self._closed = False
        self._running = False
        self._lock = threading.Lock()  # of the two flags: close() may come from another thread
        self._connect()

    def pre_handle(self, channel: str, data: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B027
        """Called before `handle` with the same arguments; does nothing unless overridden."""

    def handle(self, channel: str, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Process one message; override this. May be `async def` if only `async_run` is used."""
        logger.warning("%s received a message on %r and has no handle() of its own", type(self).__name__, channel)

    # -- one poll ---------------------------------------------------------------------------------------------------

    def __call__(self) -> None:
        """Take one message if there is one, without waiting, and handle it.

        The server's confirmation of each subscription takes a poll too. After an error of the connection the next
        poll connects and subscribes again.

        Raises: SubscriberException: a handler failed (the error is the cause), or this is closed. redis-py's
            errors: the connection broke.
        """
        self._require_open()
        self._poll(0.0)

    def _poll(self, timeout_s: float) -> bool:
        """Handle one message; return False if none of any kind came."""
        if self.pubsub is None:
            self._connect()
        try:
            message = self.pubsub.get_message(timeout=timeout_s) if self._channels() else None
        except BROKEN:
            self._disconnect()
            raise
        found = self._read(message)
        if found is not None:
            self._call(self.pre_handle, *found)
            self._call(self.handle, *found)
        return message is not None

    def _call(self, hook: Any, channel: str, data: Any) -> None:
        try:
            result = hook(channel, data)
        except Exception as error:
            raise self._failure(hook, channel, error) from error
        if inspect.iscoroutine(result):
            result.close()
            raise SubscriberException(
                f"{type(self).__name__}.{hook.__name__} is a coroutine function, which only async_run() can await. "
                "Use await subscriber.async_run(), or make it a plain function."
            )

    async def _acall(self, hook: Any, channel: str, data: Any) -> None:
        try:
            result = hook(channel, data)
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            raise self._failure(hook, channel, error) from error

    def _failure(self, hook: Any, channel: str, error: Exception) -> SubscriberException:
        return SubscriberException(
            f"{type(self).__name__}.{hook.__name__} failed on a message of {channel!r}: {type(error).__name__}: {error}"
        )

    def _read(self, message: Any) -> tuple[str, Any] | None:
        """Return (channel, value) of a message that can be read, None for anything else."""
        if message is None or message["type"] != "message":
            return None
        channel = message["channel"].decode("utf-8", "replace")
        try:
            return channel, decode_any(message["data"])
        except CodecError as error:
            logger.warning("%s skipped a message on %r: %s", type(self).__name__, channel, error)
            return None

    # -- loops ------------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event | None = None) -> None:
        """Handle messages until `stop` is set or this is closed, from a handler or another thread.

        Where the connection breaks it connects and subscribes again, for as long as it takes. A stop is noticed
        within 0.1 s and never in the middle of a handler.

        Raises: SubscriberException: a handler failed; run() may be called again and goes on with the next message.
        """
        stop = stop or threading.Event()
        failures = 0
        self._enter()
        try:
            while not (stop.is_set() or self._closed):
                try:
                    self._poll(POLL_S)
                    failures = 0
                except BROKEN as error:
                    pause_s = self._pause(error, failures)
                    failures += 1
                    stop.wait(pause_s)
        finally:
            self._leave()

    async def async_run(self, stop: asyncio.Event | threading.Event | None = None) -> None:
        """Await `run` on a connection of the running loop; handlers may be coroutine functions.

        The connection that the instance was made with hands over what it had received and is let go; a later poll
        makes a new one. Cancelling the task stops it as well. When it ends, by an error of a handler too, so does its
        subscription.
        """
        self._enter()
        # In a task of its own: up to Python 3.11 `asyncio.wait_for`, which redis-py and handlers may call, swallows a
        # cancellation that comes as it ends. So a cancellation here also stops the loop.
        cancelled = asyncio.Event()
        task = asyncio.ensure_future(self._async_loop(stop, cancelled))
        task.add_done_callback(lambda _: self._leave())
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled.set()
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # nobody asks for it: the caller is cancelled
            raise
        task.result()

    async def _async_loop(self, stop: asyncio.Event | threading.Event | None, cancelled: asyncio.Event) -> None:
        failures = 0
        await self._hand_over()
        while not (self._closed or self._stopped(stop) or cancelled.is_set()):
            try:
                async with (await redis_db.get_async_redis_db()).pubsub() as pubsub:
                    if self._channels():
                        await pubsub.subscribe(*self._channels())
                    while not (self._closed or self._stopped(stop) or cancelled.is_set()):
                        if not self._channels():
                            await asyncio.sleep(POLL_S)
                            continue
                        message = await pubsub.get_message(timeout=POLL_S)
                        failures = 0
                        await self._adispatch(message)
            except BROKEN as error:
                pause_s = self._pause(error, failures)
                failures += 1
                await asyncio.sleep(pause_s)

    async def _hand_over(self) -> None:
        """Handle what the sync connection was sent, up to the confirmation that it is sent no more; let it go."""
        try:
            if self.pubsub is not None and self.pubsub.subscribed:
                self.pubsub.unsubscribe()
            while self.pubsub is not None and self.pubsub.subscribed:
                message = self.pubsub.get_message(timeout=HAND_OVER_S)
                if message is None:
                    return
                await self._adispatch(message)
        except BROKEN:
            return  # what it had received is lost like all that is published while a connection is down
        finally:
            self._disconnect()

    async def _adispatch(self, message: Any) -> None:
        found = self._read(message)
        if found is not None:
            await self._acall(self.pre_handle, *found)
            await self._acall(self.handle, *found)

    @staticmethod
    def _stopped(stop: asyncio.Event | threading.Event | None) -> bool:
        return stop is not None and stop.is_set()

    def _pause(self, error: Exception, failures: int) -> float:
        """Return the seconds to wait before the next attempt. Raises what no further attempt can help."""
        if hopeless(error):
            raise error
        if failures == 0:
            logger.warning("%s lost its connection (%s) and tries to get it back", type(self).__name__, error)
        return _PAUSES_S[min(failures, len(_PAUSES_S) - 1)]

    def _enter(self) -> None:
        with self._lock:
            self._require_open()
            if self._running:
                raise SubscriberException(f"{type(self).__name__} is running already. Make a second instance.")
            self._running = True

    def _leave(self) -> None:
        with self._lock:
            self._running = False
            if self._closed:
                self._disconnect()

    # -- the connection ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Unsubscribe and let the connection go; a loop that runs ends after the message at hand. Never raises."""
        with self._lock:
            self._closed = True
            if not self._running:  # else the loop, whose connection it is, does it
                self._disconnect()

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> None:
        # The client is asked for each time, so that a change of settings is followed.
        pubsub = redis_db.get_REDIS_DB().pubsub()  # type: ignore[no-untyped-call, unused-ignore]
        channels = self._channels()
        try:
            if channels:
                pubsub.subscribe(*channels)
        except BaseException:
            pubsub.close()
            raise
        self.pubsub = pubsub

    def _disconnect(self) -> None:
        pubsub, self.pubsub = self.pubsub, None
        if pubsub is not None:
            pubsub.close()

    def _channels(self) -> tuple[str, ...]:
        names = self.sub_channel_names
        if isinstance(names, (str, bytes)) or not all(isinstance(name, str) and name for name in names):
            raise SubscriberException(
                f"{type(self).__name__}.sub_channel_names expected a list of channel names, got {names!r}. "
                'Write for example sub_channel_names = ["orders"].'
            )
        return tuple(names)

    def _require_open(self) -> None:
        if self._closed:
            raise SubscriberException(f"{type(self).__name__} is closed. Make a new one.")
