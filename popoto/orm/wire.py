"""The wire below a command: one call on a pooled connection, and what an error says about whether it ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hiredis
import redis.exceptions

from popoto._pool import Pool

BROKEN = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
# redis-py counts these among connection errors, but the server (or the pool) has answered: no use to repeat
REFUSED = (
    redis.exceptions.AuthenticationError,
    redis.exceptions.AuthorizationError,
    redis.exceptions.MaxConnectionsError,
)

UNREAD = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.NoPermissionError,
    redis.exceptions.BusyLoadingError,
)
UNREAD_CODES = ("OOM", "READONLY", "MISCONF", "NOREPLICAS", "NOPERM", "MASTERDOWN", "BUSY")


def _giver(pool: Any) -> Any:
    """Return the function that takes a connection back."""
    return pool.give if type(pool) is Pool else pool.release


def call(client: Any, *args: Any) -> Any:
    """Send one command and return the raw reply.

    `client.execute_command` without its metrics, checks of arguments and reply callbacks, which cost a third of a round
    trip on loopback.
    """
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_packed_command((hiredis.pack_command(args),))
        return connection.read_response()
    except redis.exceptions.ResponseError:
        raise  # an answer like any other
    except BaseException:
        connection.disconnect()  # else the next call would get the reply that this one did not wait for
        raise
    finally:
        _giver(pool)(connection)


def calls(client: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Send several commands in one write and return the raw replies; a refusal stands in the place of its reply."""
    pool = client.connection_pool
    connection = pool.get_connection()
    replies: list[Any] = []
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        for _ in commands:
            try:
                replies.append(connection.read_response())
            except redis.exceptions.ResponseError as error:
                replies.append(error)
        return replies
    except BaseException:
        connection.disconnect()
        raise
    finally:
        _giver(pool)(connection)


async def acall(client: Any, *args: Any) -> Any:
    """Await `call` on an async client."""
    return await client.execute_command(*args)


async def acalls(client: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Await `calls` on an async client."""
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    replies: list[Any] = await pipeline.execute(raise_on_error=False)
    return replies


def refused_unread(error: Exception) -> bool:
    """Return True where the server refused a repeat before the script could look for its token: that says nothing
    about the first try."""
    return isinstance(error, UNREAD) or str(error).partition(" ")[0] in UNREAD_CODES


def never_sent(error: Exception) -> bool:
    """A connection that could not be made has carried nothing; a server that still loads has run nothing."""
    text = str(error)
    return (
        isinstance(error, redis.exceptions.BusyLoadingError)
        or (text.startswith("Error ") and "connecting to" in text)
        or text.startswith("Timeout connecting")
    )


def hopeless(error: Exception) -> bool:
    """Return True where a repeat cannot help: a refusal, or a pool that has already waited for a free connection."""
    return isinstance(error, REFUSED) or str(error).startswith("No connection available")
