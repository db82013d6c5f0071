"""The sync client's pool: redis-py's, with a few connections that stay checked out between two commands.

Checking a connection out and in costs redis-py about 20 us (its queue, its metrics), a fourth of a round trip on
loopback. `give` keeps a connection for the next command, which `get_connection` then has without that.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any

import redis

MOST_KEPT = 4
SHARE_KEPT = 8
"""At most one connection in so many of the pool is kept."""

_Blocking: Any = redis.BlockingConnectionPool  # its methods carry no types


class Pool(_Blocking):  # type: ignore[misc]
    """A blocking pool; a connection that is kept counts as free.

    Whoever waits gets it, `disconnect` closes it, and a forked process has none.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._kept: deque[Any] = deque()
        self._kept_by = os.getpid()
        self._waiting = 0
        self._counting = threading.Lock()
        super().__init__(*args, **options)
        # with a provider of credentials a release tells it about the connection, which may then have to sign in again
        signs_in_again = self.connection_kwargs.get("credential_provider") is not None
        self._may_keep = 0 if signs_in_again else min(MOST_KEPT, self.max_connections // SHARE_KEPT)

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """Return a connection that is ready to send: one that was kept, else one of the pool, waiting for it."""
        connection = self._kept_one()
        if connection is not None:
            return connection
        with self._counting:
            self._waiting += 1
        try:
            if self._kept and self.pool.qsize() < self._waiting:
                self._hand_back()
            return super().get_connection(*args, **options)
        finally:
            with self._counting:
                self._waiting -= 1

    def _kept_one(self) -> Any:
        """Return the connection that was kept last, or None."""
        if self._kept_by != os.getpid():  # after a fork: those are the parent's
            self._kept, self._kept_by = deque(), os.getpid()
            self._waiting, self._counting = 0, threading.Lock()
        try:
            connection = self._kept.pop()
        except IndexError:
            return None
        try:
            usable = not connection.should_reconnect() and not connection.can_read()  # nothing to read: not closed
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            usable = False
        if usable:
            return connection
        connection.disconnect()
        self.release(connection)
        return None

    def give(self, connection: Any) -> None:
        """Take a connection back, to keep it for the next command."""
        if len(self._kept) < self._may_keep and self._kept_by == os.getpid():
            self._kept.append(connection)
            if self._waiting:
                self._hand_back()
        else:
            self.release(connection)

    def _hand_back(self) -> None:
        while self._kept_by == os.getpid():
            try:
                self.release(self._kept.pop())
            except IndexError:
                return

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the free connections, or all."""
        self._hand_back()
        super().disconnect(inuse_connections)
