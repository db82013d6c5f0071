"""The drivers: the only code that knows whether I/O is sync or async.

- `run` / `arun`: one command.
- `drive` / `adrive`: an operation, a generator that yields commands (or lists of reads for one round trip) and is sent
  their results.
- `stream` / `astream`: the same for one that yields `Batch`es of items besides, slice by slice.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from popoto import redis_db
from popoto._cluster_clients import CLIENTS as CLUSTERS
from popoto.orm import cluster_wire, wire
from popoto.orm.commands import Command, Exchange, carry_out, exchange, exchange_many

T = TypeVar("T")
Steps = Generator["Command[Any] | list[Command[Any]]", Any, T]


def _hold(talk: Exchange[T], client: Any, send: Any, send_all: Any) -> T:
    """Hold a conversation with the server; `send` and `send_all` as in popoto.orm.wire."""
    try:
        step = next(talk)
        while True:
            try:
                if isinstance(step, tuple):
                    reply = send(client, *step)
                elif isinstance(step, float):
                    time.sleep(step)
                    reply = None
                else:
                    reply = send_all(client, step)
            except Exception as error:
                step = talk.throw(error)
            else:
                step = talk.send(reply)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def _ahold(talk: Exchange[T], client: Any, send: Any, send_all: Any) -> T:
    try:
        step = next(talk)
        while True:
            try:
                if isinstance(step, tuple):
                    reply = await send(client, *step)
                elif isinstance(step, float):
                    await asyncio.sleep(step)
                    reply = None
                else:
                    reply = await send_all(client, step)
            except Exception as error:
                step = talk.throw(error)
            else:
                step = talk.send(reply)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def run(command: Command[T], client: Any = None) -> T:
    """Run one command and return its parsed reply; for what it raises see `commands.exchange`."""
    client = client or redis_db.get_REDIS_DB()
    if type(client) in CLUSTERS:
        return _hold(exchange(command, True), client, cluster_wire.call, cluster_wire.calls)
    return _hold(exchange(command), client, wire.call, wire.calls)


async def arun(command: Command[T], client: Any = None) -> T:
    """Await `run` on the running loop's client."""
    client = client or redis_db.get_async_client()
    if type(client) in CLUSTERS:
        return await _ahold(exchange(command, True), client, cluster_wire.acall, cluster_wire.acalls)
    return await _ahold(exchange(command), client, wire.acall, wire.acalls)


def run_reads(commands: Sequence[Command[Any]], client: Any = None) -> list[Any]:
    """Run commands in one round trip (on a cluster, to each node), and return their parsed replies.

    Args:
        commands: reads, and writes with a token.
    """
    client = client or redis_db.get_REDIS_DB()
    if len(commands) == 1:
        return [run(commands[0], client)]
    if type(client) in CLUSTERS:
        return _hold(exchange_many(commands, True), client, cluster_wire.call, cluster_wire.calls)
    return _hold(exchange_many(commands), client, wire.call, wire.calls)


async def arun_reads(commands: Sequence[Command[Any]], client: Any = None) -> list[Any]:
    """Await `run_reads` on the running loop's client."""
    client = client or redis_db.get_async_client()
    if len(commands) == 1:
        return [await arun(commands[0], client)]
    if type(client) in CLUSTERS:
        return await _ahold(exchange_many(commands, True), client, cluster_wire.acall, cluster_wire.acalls)
    return await _ahold(exchange_many(commands), client, wire.acall, wire.acalls)


def prepare(command: Command[Any]) -> None:
    """Carry out what must come before a command that is queued in a pipeline. It blocks, for a queue cannot wait."""
    if command.firsts:
        client = redis_db.get_REDIS_DB()
        clustered = type(client) in CLUSTERS
        send = (cluster_wire.call, cluster_wire.calls) if clustered else (wire.call, wire.calls)
        _hold(carry_out(command.firsts, clustered), client, *send)


def drive(steps: Steps[T]) -> T:
    """Run an operation of several commands."""
    try:
        step = next(steps)
        while True:
            try:
                reply = run_reads(step) if isinstance(step, list) else run(step)
            except Exception as error:  # the operation may know what to do about it
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def adrive(steps: Steps[T]) -> T:
    """Await an operation of several commands."""
    try:
        step = next(steps)
        while True:
            try:
                reply = await arun_reads(step) if isinstance(step, list) else await arun(step)
            except Exception as error:  # the operation may know what to do about it
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def warn_of_a_blocking_read(attribute: str, advice: str) -> None:
    """Warn the user who reads an attribute that must be fetched, where an event loop runs in this thread.

    Called by the attribute's `__get__`, or by one function of it: the warning names the line that reads.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    text = f"{attribute} is read here and blocks the event loop meanwhile. Use {advice}."
    warnings.warn(text, RuntimeWarning, stacklevel=3)


def one_by_one(commands: Iterable[Command[Any]]) -> Steps[None]:
    """Return an operation that runs commands one after the other."""
    for command in commands:  # noqa: UP028 - a list takes no replies
        yield command


class Batch(Generic[T]):
    """What a generator yields to hand out results before it ends: a slice of a long answer."""

    __slots__ = ("items",)

    def __init__(self, items: list[T]) -> None:
        self.items = items


def relayed(
    steps: Generator[Any, Any, Any], take: Callable[[list[Any]], Iterable[Any] | None]
) -> Generator[Any, Any, Any]:
    """Run a generator of commands and `Batch`es within another: pass commands on, give each batch's items to `take`.

    What `take` returns (batches, or a generator of commands and batches) is passed on in the batch's place.
    Returns: what the steps return.
    """
    try:
        step = next(steps)
        while True:
            if isinstance(step, Batch):
                yield from take(step.items) or ()
                step = next(steps)
                continue
            try:
                reply = yield step
            except Exception as error:  # the steps may know what to do about it
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as end:
        return end.value


def stream(steps: Generator[Any, Any, None]) -> Iterator[Any]:
    """Run a generator that yields commands and `Batch`es; give out the batches' items one by one."""
    go_on: Any = steps.send
    reply: Any = None
    while True:
        try:
            step = go_on(reply)
        except StopIteration:
            return
        go_on = steps.send
        if isinstance(step, Batch):
            reply = None
            yield from step.items
        else:
            try:
                reply = run_reads(step) if isinstance(step, list) else run(step)
            except Exception as error:
                go_on, reply = steps.throw, error


async def astream(steps: Generator[Any, Any, None]) -> AsyncIterator[Any]:
    """Await `stream`."""
    go_on: Any = steps.send
    reply: Any = None
    while True:
        try:
            step = go_on(reply)
        except StopIteration:
            return
        go_on = steps.send
        if isinstance(step, Batch):
            reply = None
            for item in step.items:
                yield item
        else:
            try:
                reply = await arun_reads(step) if isinstance(step, list) else await arun(step)
            except Exception as error:
                go_on, reply = steps.throw, error
