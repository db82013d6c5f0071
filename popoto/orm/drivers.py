"""The drivers: the only code that knows whether I/O is sync or async.

- `run` / `arun`: one command.
- `drive` / `adrive`: an operation, a generator that yields commands (or lists of reads for one round trip) and is sent
  their results.
- `stream` / `astream`: the same for one that yields `Batch`es of items besides, slice by slice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from typing import Any, Generic, TypeVar

from popoto import redis_db
from popoto.orm.commands import Command, Exchange, exchange, exchange_reads
from popoto.orm.wire import call

T = TypeVar("T")
Steps = Generator["Command[Any] | list[Command[Any]]", Any, T]


def _hold(talk: Exchange[T], client: Any) -> T:
    """Hold a conversation with the server."""
    try:
        step = next(talk)
        while True:
            try:
                if isinstance(step, tuple):
                    reply = call(client, *step)
                elif isinstance(step, float):
                    time.sleep(step)
                    reply = None
                else:
                    reply = step.execute(raise_on_error=False)
            except Exception as error:
                step = talk.throw(error)
            else:
                step = talk.send(reply)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def _ahold(talk: Exchange[T], client: Any) -> T:
    try:
        step = next(talk)
        while True:
            try:
                if isinstance(step, tuple):
                    reply = await client.execute_command(*step)
                elif isinstance(step, float):
                    await asyncio.sleep(step)
                    reply = None
                else:
                    reply = await step.execute(raise_on_error=False)
            except Exception as error:
                step = talk.throw(error)
            else:
                step = talk.send(reply)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def run(command: Command[T], client: Any = None) -> T:
    """Run one command and return its parsed reply; for what it raises see `commands.exchange`."""
    return _hold(exchange(command), client or redis_db.get_REDIS_DB())


async def arun(command: Command[T], client: Any = None) -> T:
    """Await `run` on the running loop's client."""
    return await _ahold(exchange(command), client or redis_db.get_async_client())


def run_reads(commands: Sequence[Command[Any]], client: Any = None) -> list[Any]:
    """Run commands that only read, in one round trip, and return their parsed replies."""
    client = client or redis_db.get_REDIS_DB()
    return [run(commands[0], client)] if len(commands) == 1 else _hold(exchange_reads(commands, client), client)


async def arun_reads(commands: Sequence[Command[Any]], client: Any = None) -> list[Any]:
    """Await `run_reads` on the running loop's client."""
    client = client or redis_db.get_async_client()
    if len(commands) == 1:
        return [await arun(commands[0], client)]
    return await _ahold(exchange_reads(commands, client), client)


def drive(steps: Steps[T]) -> T:
    """Run an operation of several commands."""
    reply: Any = None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        reply = run_reads(step) if isinstance(step, list) else run(step)


async def adrive(steps: Steps[T]) -> T:
    """Await an operation of several commands."""
    reply: Any = None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        reply = await arun_reads(step) if isinstance(step, list) else await arun(step)


class Batch(Generic[T]):
    """What a generator yields to hand out results before it ends: a slice of a long answer."""

    __slots__ = ("items",)

    def __init__(self, items: list[T]) -> None:
        self.items = items


def stream(steps: Generator[Any, Any, None]) -> Iterator[Any]:
    """Run a generator that yields commands and `Batch`es; give out the batches' items one by one."""
    reply: Any = None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration:
            return
        if isinstance(step, Batch):
            reply = None
            yield from step.items
        else:
            reply = run_reads(step) if isinstance(step, list) else run(step)


async def astream(steps: Generator[Any, Any, None]) -> AsyncIterator[Any]:
    """Await `stream`."""
    reply: Any = None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration:
            return
        if isinstance(step, Batch):
            reply = None
            for item in step.items:
                yield item
        else:
            reply = await arun_reads(step) if isinstance(step, list) else await arun(step)
