"""The runner's side of a worker: a process that is asked one line at a time and may be lost without loss of
the run."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .server import Server


@dataclass(frozen=True, slots=True)
class Spec:
    """A contender: `module` in `benchmarks.workers`, its interpreter, its database, and whether it runs our
    own package."""

    name: str
    title: str
    module: str
    python: str
    db: int
    own_package: bool = False


class WorkerLostError(Exception):
    """The worker ended, or did not answer within its time."""


class Contender:
    def __init__(self, spec: Spec, server: Server, folder: Path, root: Path) -> None:
        """`folder` becomes the working folder: it holds a link to `benchmarks` and nothing else to import. So
        a peer whose package has the same name as ours cannot pick up ours. `root` is the checkout."""
        self.spec = spec
        self._server = server
        self._folder = folder
        self._root = root
        self._log = folder / f"{spec.name}.log"
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.Queue[str] = queue.Queue()
        self.versions: dict[str, str] = {}
        self.failed: str | None = None

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        environment |= {
            "PYTHONNOUSERSITE": "1",
            "REDIS_URL": f"unix://{self._server.socket}?db={self.spec.db}",
        }
        if self.spec.own_package:
            environment["PYTHONPATH"] = str(self._root)
        command = [
            self.spec.python,
            "-m",
            f"benchmarks.workers.{self.spec.module}",
            self._server.socket,
            str(self.spec.db),
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=environment,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._replies = queue.Queue()
        threading.Thread(target=self._collect, args=(self._process.stdout, self._replies), daemon=True).start()
        try:
            reply = self.ask({"op": "hello"}, timeout=30.0)
        except WorkerLostError as error:
            reply = {"error": str(error)}
        self.versions = reply.get("versions", {})
        self.failed = reply.get("error")

    @staticmethod
    def _collect(stdout: IO[str], replies: queue.Queue[str]) -> None:
        for line in stdout:
            replies.put(line)
        replies.put("")

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request, return the reply.

        Raises: WorkerLostError: the worker ended or was too slow; it and its script on the server were ended.
        """
        process = self._process
        if process is None or process.stdin is None:
            raise WorkerLostError("not running")
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = self._replies.get(timeout=timeout)
        except queue.Empty:
            self.stop(at_once=True)
            self._server.stop_script()
            raise WorkerLostError("over budget") from None
        except OSError:
            line = ""
        if not line:
            self.stop(at_once=True)
            raise WorkerLostError(self._last_words())
        reply: dict[str, Any] = json.loads(line)
        return reply

    def ask_or_restart(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """As `ask`, but a lost worker is replaced (its data lie on the server) and the reply is {"skipped":
        reason}."""
        try:
            return self.ask(request, timeout)
        except WorkerLostError as error:
            self.start()
            return {"skipped": str(error)}

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "the worker ended without a word"

    def stop(self, at_once: bool = False) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        if at_once:
            process.kill()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
