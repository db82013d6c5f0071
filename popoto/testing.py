"""Helpers for tests of programs that use popoto; none of them needs pytest.

`use_test_db` and `flush_test_db` give a test an empty database, `frozen_time` a clock that stands still,
`count_round_trips` the number of times a block waited for the server. Under the pytest plugin
(`popoto.pytest_plugin`) the first two are done for you.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from unittest import mock

import redis.asyncio.connection
import redis.connection

from popoto import redis_db
from popoto.memory import clock

__all__ = ["RoundTrips", "count_round_trips", "flush_test_db", "frozen_time", "use_test_db"]


def use_test_db(db: int = 15) -> None:
    """Go to database `db` of the server in use, sync and async; address, password and namespace stay.

    Args:
        db: 1 or greater.

    Raises:
        ValueError: `db` is 0, negative or no integer.
        ConnectionSettingsError: no server could be found.
    """
    if not isinstance(db, int) or isinstance(db, bool):
        raise ValueError(f"use_test_db() was given {db!r}; expected the number of a database, such as 15.")
    if db < 1:
        raise ValueError(
            f"use_test_db() was given {db}; expected 1 or greater, such as 15. "
            "Database 0 is where real data lies, and tests flush the database they use."
        )
    redis_db.select_db(db)


def flush_test_db() -> None:
    """Delete everything in the database in use, whatever its namespace.

    Raises: ValueError: the database in use is 0; nothing is deleted.
    """
    client = redis_db.get_REDIS_DB()
    if int(client.connection_pool.connection_kwargs.get("db") or 0) == 0:
        raise ValueError(
            "flush_test_db() does not flush database 0, where real data lies, and that is the one in use. "
            "Call use_test_db(15) first."
        )
    client.flushdb()


def frozen_time(at: float | datetime | None = None) -> AbstractContextManager[clock.FrozenClock]:
    """Freeze the clock of the process in a `with` block; gives the clock, which `advance(seconds)` moves.

    Every thread sees it. Times to live are counted by the server, whose clock nothing freezes.

    Args:
        at: Unix seconds or a datetime (a naive one is local time); None for the present moment.
    Raises: TypeError: it is neither.
    """
    if isinstance(at, datetime):
        at = at.timestamp()
    if at is not None and (isinstance(at, bool) or not isinstance(at, (int, float))):
        raise TypeError(f"frozen_time(at={at!r}): expected Unix seconds, a datetime or None.")
    return clock.frozen(at)


@dataclass
class RoundTrips:
    """How many round trips a block made.

    Attributes:
        count: writes to a connection that wait for an answer; a pipeline is one.
    """

    count: int = 0


_uncounted: ContextVar[bool] = ContextVar("_uncounted", default=False)  # a handshake, or the plugin at work
_HANDSHAKES = ("on_connect", "on_connect_check_health")  # which of them redis-py calls depends on its version


@contextmanager
def uncounted() -> Iterator[None]:
    """Make what this thread or task sends inside the block count for nothing."""
    token = _uncounted.set(True)
    try:
        yield
    finally:
        _uncounted.reset(token)


@contextmanager
def count_round_trips() -> Iterator[RoundTrips]:
    """Count the round trips of redis-py inside a `with` block: all its clients, sync and async, all threads.

    What a new connection says first (AUTH, SELECT and the like) does not count, so it makes no difference whether
    the pool has one at hand.
    """
    trips = RoundTrips()
    lock = threading.Lock()

    def counted() -> None:
        if not _uncounted.get():
            with lock:
                trips.count += 1

    sync_class, async_class = redis.connection.AbstractConnection, redis.asyncio.connection.AbstractConnection
    with ExitStack() as patches:
        for owner, wrap_send, wrap_handshake in (
            (sync_class, _sync_send, _sync_handshake),
            (async_class, _async_send, _async_handshake),
        ):
            send = wrap_send(owner.__dict__["send_packed_command"], counted)
            patches.enter_context(mock.patch.object(owner, "send_packed_command", send))
            for name in _HANDSHAKES:
                if name in owner.__dict__:
                    patches.enter_context(mock.patch.object(owner, name, wrap_handshake(owner.__dict__[name])))
        yield trips


def _sync_send(original: Any, counted: Callable[[], None]) -> Any:
    def send_packed_command(connection: Any, *args: Any, **kwargs: Any) -> Any:
        counted()
        return original(connection, *args, **kwargs)

    return send_packed_command


def _async_send(original: Any, counted: Callable[[], None]) -> Any:
    async def send_packed_command(connection: Any, *args: Any, **kwargs: Any) -> Any:
        counted()
        return await original(connection, *args, **kwargs)

    return send_packed_command


def _sync_handshake(original: Any) -> Any:
    def on_connect(connection: Any, *args: Any, **kwargs: Any) -> Any:
        with uncounted():
            return original(connection, *args, **kwargs)

    return on_connect


def _async_handshake(original: Any) -> Any:
    async def on_connect(connection: Any, *args: Any, **kwargs: Any) -> Any:
        with uncounted():
            return await original(connection, *args, **kwargs)

    return on_connect
