"""The pytest plugin `popoto`: every test finds an empty database that is not the program's own.

It waits at the one place where popoto resolves its settings to a server. What passes there goes to the test
database, which is flushed at its first use in a test; so a test that does not use popoto neither connects nor
fails where no server is. Settings that a test changes pass there too: no test reaches another database by them.

The number of the database is that of POPOTO_TEST_DB, else of the ini option popoto_test_db, else 15. The workers
of pytest-xdist have one each: that number, the one below, and so on down to 1.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable
from contextlib import suppress

import pytest
import redis

from popoto import _connection_settings as _settings
from popoto import redis_db
from popoto.testing import uncounted

DEFAULT_DB = 15
ENVIRONMENT, OPTION = "POPOTO_TEST_DB", "popoto_test_db"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(OPTION, f"database that tests use and flush, 1 or greater (default: {DEFAULT_DB})", default="")


def pytest_configure(config: pytest.Config) -> None:
    isolation = _Isolation(lambda: _test_db(config))
    isolation.install()
    config.pluginmanager.register(isolation, "popoto-isolation")


def _test_db(config: pytest.Config) -> int:
    """The database of this process. Raises ValueError: it would be 0, negative or no number."""
    text, origin = os.environ.get(ENVIRONMENT, "").strip(), f"The environment variable {ENVIRONMENT}"
    if not text:
        text, origin = str(config.getini(OPTION)).strip(), f"The ini option {OPTION}"
    if not text:
        text, origin = str(DEFAULT_DB), f"The default of {OPTION}"
    if not re.fullmatch(r"-?[0-9]+", text):
        raise ValueError(f"{origin} is {text!r}; expected the number of a database, such as 15.")
    first = int(text)
    if first < 1:
        raise ValueError(
            f"{origin} is {first}; expected 1 or greater, such as 15. "
            "Database 0 is where real data lies, and each test flushes the database it uses."
        )
    worker = getattr(config, "workerinput", {}).get("workerid", "gw0")
    number = re.fullmatch(r"gw([0-9]+)", worker)
    if number is None:
        raise ValueError(
            f"The test worker {worker!r} has no number, so no database of its own; expected gw0, gw1 and so on. "
            "Leave out the id= of --tx."
        )
    db = first - int(number[1])
    if db < 1:
        raise ValueError(
            f"The test worker {worker} has no database: each worker has one of its own, from {first} down to 1. "
            f"Run at most {first} workers (pytest -n {first}), or give {ENVIRONMENT} a greater number "
            "on a server with more databases."
        )
    return db


class _Isolation:
    """Stands in for `redis_db._current_server`, through which every client, sync or async, gets its settings."""

    def __init__(self, test_db: Callable[[], int]) -> None:
        self._test_db = test_db
        self._resolve = redis_db._current_server
        self._flushed: set[Hashable] = set()  # servers whose test database this test has already flushed
        self._used: set[Hashable] = set()  # the same, of all tests

    def install(self) -> None:
        vars(redis_db)["_current_server"] = self._current_server
        self._forget_clients()

    def _current_server(self) -> _settings.ServerSettings:
        with redis_db._lock:
            db = self._test_db()
            server = self._resolve().with_db(db)
            address = _address(server)
            if address not in self._flushed:
                _flush(server)
                self._flushed.add(address)
                self._used.add(address)
            return server

    def _forget_clients(self) -> None:
        """Let the next use, sync or async, pass `_current_server` again. Talks to nobody; an engine runs on."""
        with redis_db._lock:
            client, redis_db._client = redis_db._client, None
            redis_db._generation += 1  # each event loop gets a new client
        if client is not None:
            client.connection_pool.disconnect(inuse_connections=False)

    @pytest.hookimpl(tryfirst=True)  # before any fixture
    def pytest_runtest_setup(self) -> None:
        self._flushed.clear()
        self._forget_clients()

    def pytest_unconfigure(self) -> None:
        server = redis_db._server
        if server is not None and _address(server) in self._used:
            with suppress(redis.RedisError, redis_db.PopotoException):
                _flush(server.with_db(self._test_db()))  # leave nothing behind
        vars(redis_db)["_current_server"] = self._resolve
        self._forget_clients()


def _address(server: _settings.ServerSettings) -> Hashable:
    store = server.store.socket_path if server.store is not None else None
    return (store, *(server.arguments.get(name) for name in ("unix_socket_path", "host", "port")))


def _flush(server: _settings.ServerSettings) -> None:
    client = _settings.sync_client(server)
    try:
        with uncounted():
            client.flushdb()
    finally:
        client.connection_pool.disconnect()
