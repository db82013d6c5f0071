"""How a consumer's steps are run, sync or async: the only code here that knows the difference.

A step is a Command, a pause in seconds or a `Handle`, the call of the user's handler. Errors of any of them are thrown
into the generator, which decides what they mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass
from threading import Event
from typing import Any, TypeVar

from popoto import redis_db
from popoto.orm.commands import Command
from popoto.orm.drivers import arun, run

T = TypeVar("T")
Entries = list[tuple[str, dict[str, str]]]
Handler = Callable[[Entries], Any]
Steps = Generator["Command[Any] | Handle | float", Any, T]

LOOK_S = 0.25  # how often a pause looks whether it is to end


@dataclass(frozen=True, slots=True)
class Handle:
    """The handler is to be called with these entries, and awaited where it is a coroutine function."""

    handler: Handler
    entries: Entries


def drive(steps: Steps[T], stopped: Event) -> T:
    """Run the steps. A coroutine handler runs in an event loop of its own, the same one for the whole drive.

    Raises: RuntimeError: this thread runs an event loop already, in which a coroutine handler has to be awaited.
    """
    with _Loop() as loop:
        reply: Any = None
        error: Exception | None = None
        while True:
            try:
                step = steps.send(reply) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            reply, error = None, None
            try:
                if isinstance(step, float):
                    stopped.wait(step)
                elif isinstance(step, Handle):
                    loop.finish(step.handler(step.entries))
                else:
                    reply = run(step)
            except Exception as failure:
                error = failure


async def adrive(steps: Steps[T], stopped: Event) -> T:
    """Await the steps on the running loop. A plain handler is called where the loop runs, which it blocks.

    They run in a task of their own. Up to Python 3.11 `asyncio.wait_for`, which redis-py calls, swallows a cancellation
    that comes as it ends; a loop would then go on for ever. So a cancellation here sets `stopped` as well.
    """
    task = asyncio.ensure_future(_adrive(steps, stopped))
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        was_stopped = stopped.is_set()
        stopped.set()
        task.cancel()
        try:
            await asyncio.wait({task})
        finally:
            if not was_stopped:
                stopped.clear()
        if not task.cancelled():
            task.exception()  # it is not asked for, for the caller is cancelled
        raise
    return task.result()


async def _adrive(steps: Steps[T], stopped: Event) -> T:
    await redis_db.get_async_redis_db()
    reply: Any = None
    error: Exception | None = None
    while True:
        try:
            step = steps.send(reply) if error is None else steps.throw(error)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        reply, error = None, None
        try:
            if isinstance(step, float):
                await _pause(step, stopped)
            elif isinstance(step, Handle):
                result = step.handler(step.entries)
                if inspect.isawaitable(result):
                    await result
            else:
                reply = await arun(step)
        except Exception as failure:
            error = failure


async def _pause(seconds: float, stopped: Event) -> None:
    while seconds > 0 and not stopped.is_set():
        await asyncio.sleep(min(seconds, LOOK_S))
        seconds -= LOOK_S


class _Loop:
    """An event loop for coroutine handlers of a sync drive, made when the first one is called."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def finish(self, result: Any) -> None:
        """Wait for what a handler returned."""
        if not inspect.isawaitable(result):
            return
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(_awaited(result))

    def __enter__(self) -> _Loop:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._loop is not None:
            with contextlib.closing(self._loop):
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())


async def _awaited(result: Any) -> Any:
    return await result


def refuse_nested_loop(handler: Handler) -> None:
    """Refuse a sync call of a coroutine handler where an event loop runs: nothing could wait for it there.

    Raises: RuntimeError.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__):
        raise RuntimeError(
            "the handler is a coroutine function and this thread runs an event loop, in which a sync call cannot wait "
            "for it. Use await consumer.process_batch() or await consumer.run()."
        )
