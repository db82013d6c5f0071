"""Counts what a process sends to the server: one send of redis-py is one round trip.

A pipeline, however long, is one send. Counting happens in the client, so nothing is asked of the server
(MONITOR would halve its speed).
"""

from __future__ import annotations

from typing import Any

_sends = 0


def sends() -> int:
    """Sends of this process since `install`."""
    return _sends


def install() -> None:
    """Count every send of every redis-py connection, sync and async, of this process from now on."""
    import redis.asyncio.connection
    import redis.connection

    sync_send = redis.connection.AbstractConnection.send_packed_command
    async_send = redis.asyncio.connection.AbstractConnection.send_packed_command

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        global _sends
        _sends += 1
        return sync_send(self, *args, **kwargs)

    def counted_async(self: Any, *args: Any, **kwargs: Any) -> Any:
        global _sends
        _sends += 1
        return async_send(self, *args, **kwargs)  # the coroutine; whoever called awaits it

    redis.connection.AbstractConnection.send_packed_command = counted
    redis.asyncio.connection.AbstractConnection.send_packed_command = counted_async
