"""A proxy that reads the protocol and cuts the connection where a test says so.

It handles one command after the other on each connection: reads the whole command, passes it to the server, reads the
whole reply, passes it back. So it knows, when it cuts, whether the command has reached the server and whether the
server has answered it.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

SCRIPTS = ("EVALSHA", "EVAL")


@dataclass
class _Cut:
    """One thing that is to happen to a command.

    Attributes:
        names: commands that it applies to.
        before: cut before the command reaches the server; otherwise after the server has answered.
        times: how often.
        then: called with the connection still open, before it is cut (another writer, a SCRIPT FLUSH).
        silent: keep the connection open and say nothing, as a server that hangs.
        late: pass the reply on after all, once `then` has returned.
    """

    names: tuple[str, ...]
    before: bool
    times: int
    then: Callable[[], Any] | None
    silent: bool = False
    late: bool = False


class Proxy:
    """Forwards TCP connections on a loopback port to a server's Unix socket.

    Attributes:
        url: for `popoto.redis_db.configure_url`.
        reached: how often a command of each name reached the server.
        cuts: how many connections were cut (or silenced, or made to wait) on demand.
    """

    def __init__(self, server_socket: str) -> None:
        self.server_socket = server_socket
        self.reached: Counter[str] = Counter()
        self.cuts = 0
        self.errors: list[BaseException] = []
        self._rules: list[_Cut] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_replies(
        self, *names: str, times: int = 1, then: Callable[[], Any] | None = None, silent: bool = False
    ) -> None:
        """Swallow the replies of the next `times` commands of these names (scripts by default), and cut."""
        self._rules.append(_Cut(names or SCRIPTS, False, times, then, silent))

    def cut_commands(self, *names: str, times: int = 1, then: Callable[[], Any] | None = None) -> None:
        """Cut before the next `times` commands of these names (scripts by default) reach the server."""
        self._rules.append(_Cut(names or SCRIPTS, True, times, then))

    def hold_reply(self, *names: str, then: Callable[[], Any]) -> None:
        """Pass the reply of the next command of these names (scripts by default) on when `then()` has returned."""
        self._rules.append(_Cut(names or SCRIPTS, False, 1, then, late=True))

    def close(self) -> None:
        """Refuse connections from now on and cut those that are open."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for held in self._open:
                with suppress(OSError):
                    held.shutdown(socket.SHUT_RDWR)

    # -- threads ----------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with self._lock:
            self._open |= {client, server}
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.connect(self.server_socket)
            with client.makefile("rb") as commands, server.makefile("rb") as replies:
                while self._one(client, server, commands, replies):
                    pass
        except (OSError, EOFError):
            pass  # either side has gone
        except BaseException as error:  # seen by the fixture, which fails the test
            self.errors.append(error)
        finally:
            with self._lock:
                self._open -= {client, server}
            client.close()
            server.close()

    def _one(self, client: socket.socket, server: socket.socket, commands: BinaryIO, replies: BinaryIO) -> bool:
        """Handle one command; False when the connection was cut."""
        raw, name = read_command(commands)
        if self._wants(name, before=True, reply=b""):
            return False
        server.sendall(raw)
        reply = read_reply(replies)
        self.reached[name] += 1
        cut = self._wants(name, before=False, reply=reply)
        if cut is None or cut.late:
            client.sendall(reply)
            return True
        if cut.silent:
            commands.read(1)  # until the client gives up
        return False

    def _wants(self, name: str, before: bool, reply: bytes) -> _Cut | None:
        """Return the rule that applies to this command now, and use it up."""
        if reply.startswith(b"-NOSCRIPT"):
            return None  # the script has not run; its source follows
        with self._lock:
            for rule in self._rules:
                if rule.before == before and rule.times > 0 and name in rule.names:
                    rule.times -= 1
                    self.cuts += 1
                    break
            else:
                return None
        if rule.then is not None:
            rule.then()
        return rule


def _line(source: BinaryIO) -> bytes:
    line = source.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError
    return line


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise EOFError
    return data


def read_command(source: BinaryIO) -> tuple[bytes, str]:
    """Return (bytes, name in capitals) of one command, an array of bulk strings."""
    raw = read_reply(source)
    return raw, raw.split(b"\r\n", 3)[2].decode().upper()


def read_reply(source: BinaryIO) -> bytes:
    """Return the bytes of one RESP2 value."""
    line = _line(source)
    kind, size = line[:1], line[1:-2]
    if kind == b"$":
        return line if size == b"-1" else line + _exactly(source, int(size) + 2)
    if kind == b"*" and size != b"-1":
        return line + b"".join(read_reply(source) for _ in range(int(size)))
    return line


@contextmanager
def cutting_proxy(server_socket: str) -> Iterator[Proxy]:
    """Run a proxy in front of a server."""
    proxy = Proxy(server_socket)
    try:
        yield proxy
    finally:
        proxy.close()
    assert not proxy.errors, proxy.errors
