"""One async client a running event loop, closed by the loop itself.

A `redis.asyncio` client belongs to the loop it first ran on. So each loop gets its own, kept by an async
generator that the loop knows: `asyncio.run` ends the generators of its loop, and that closes the client. A
mapping alone would keep every loop and its sockets for ever, because the client refers to its loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import redis

from popoto._cluster_clients import adisconnect
from popoto._connection_settings import AsyncClient


@dataclass(eq=False)
class _Held:
    """What one loop holds: its client, and earlier ones whose calls may still be under way."""

    client: AsyncClient
    generation: int
    pid: int
    retired: list[AsyncClient] = field(default_factory=list)
    keeper: AsyncGenerator[None, None] | None = None


class LoopClients:
    """The clients of all loops. Each loop touches its own entry only."""

    def __init__(self) -> None:
        self._held: dict[asyncio.AbstractEventLoop, _Held] = {}
        self._closing: set[asyncio.Task[None]] = set()  # a loop refers to its tasks weakly

    def current(self, generation: int, make: Callable[[], tuple[AsyncClient, int]]) -> AsyncClient:
        """The client of the loop that runs now, as of `generation`; `make` gives a new one with its own.

        Raises: RuntimeError: no event loop runs in this thread.
        """
        loop = asyncio.get_running_loop()
        held = self._held.get(loop)
        if held is not None and held.pid == os.getpid():
            if held.generation != generation:
                self._replace(loop, held, *make())
            return held.client
        client, generation = make()
        for closed in [other for other in list(self._held) if other.is_closed()]:
            self._held.pop(closed, None)  # a loop that was closed without ending its generators
        held = self._held[loop] = _Held(client, generation, os.getpid())
        held.keeper = self._keep(loop, held)
        with suppress(StopIteration):
            # The first step awaits nothing; taking it makes the generator known to the loop.
            held.keeper.__anext__().__await__().send(None)
        return client

    async def close_current(self) -> None:
        """Close the client of the loop that runs now, if it has one."""
        held = self._held.get(asyncio.get_running_loop())
        if held is not None and held.keeper is not None:
            await held.keeper.aclose()

    def _replace(self, loop: asyncio.AbstractEventLoop, held: _Held, client: AsyncClient, generation: int) -> None:
        held.retired.append(held.client)
        # Idle connections go now, those at work with the loop.
        task = loop.create_task(_disconnect(held.client, inuse_connections=False))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        held.client, held.generation = client, generation

    async def _keep(self, loop: asyncio.AbstractEventLoop, held: _Held) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if self._held.get(loop) is held:
                del self._held[loop]
            for client in (held.client, *held.retired):
                await _disconnect(client, inuse_connections=True)


async def _disconnect(client: AsyncClient, inuse_connections: bool) -> None:
    with suppress(redis.RedisError, OSError):
        await adisconnect(client, inuse_connections)
