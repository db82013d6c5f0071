"""The connection layer, against real servers: which server is used, what a client is like, who closes it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from redis.cache import CacheConfig

from popoto import redis_db
from popoto._temporary_server import accepts
from popoto.exceptions import ConnectionSettingsError

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """URL of a redis-server of this test run, on a Unix socket and without persistence."""
    executable = shutil.which("redis-server") or shutil.which("valkey-server")
    if executable is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no redis-server or valkey-server on the PATH")
    folder = tempfile.mkdtemp(prefix="popoto-test-")
    path = os.path.join(folder, "server.sock")
    arguments = ["--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
    server = subprocess.Popen([executable, *arguments], stdout=subprocess.DEVNULL)
    try:
        while not accepts(path):
            assert server.poll() is None, "the server did not start"
        yield f"unix://{path}"
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting, no environment, and nobody on the local port, before each test; all closed after it."""
    for name in ("REDIS_URL", "ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("POPOTO_EMBEDDED", "0")
    monkeypatch.setattr(redis_db, "LOCAL_SERVER", {"host": "localhost", "port": free_port()})
    redis_db.set_REDIS_DB_settings()
    yield
    monkeypatch.undo()
    monkeypatch.delenv("ENV", raising=False)
    redis_db.set_REDIS_DB_settings()
    redis_db.close()


@pytest.fixture
def server(redis_server: str) -> Iterator[str]:
    redis_db.configure_url(redis_server)
    yield redis_server
    redis.Redis.from_url(redis_server).flushall()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    command = [sys.executable, "-W", "error", "-c", code]
    env = {**inherited, "PYTHONPATH": str(REPOSITORY), **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


class CuttingProxy:
    """A relay to a Unix socket; from `cut_replies()` on it takes commands to the server and no reply back."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._cutting = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_replies(self) -> None:
        self._cutting.set()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                upstream = socket.socket(socket.AF_UNIX)
                upstream.connect(self.path)
                threading.Thread(target=self._commands, args=(client, upstream), daemon=True).start()
                threading.Thread(target=self._replies, args=(client, upstream), daemon=True).start()

    def _commands(self, client: socket.socket, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                upstream.sendall(data)

    def _replies(self, client: socket.socket, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := upstream.recv(65536):
                if self._cutting.is_set():
                    break
                client.sendall(data)
        for end in (client, upstream):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def proxy(redis_server: str) -> Iterator[CuttingProxy]:
    relay = CuttingProxy(redis_server.removeprefix("unix://"))
    yield relay
    relay.close()
    redis.Redis.from_url(redis_server).flushall()


# Which server


def test_importing_connects_to_nothing_and_reads_no_url() -> None:
    code = (
        "import socket\n"
        "def refuse(*args): raise SystemExit('connected at import')\n"
        "socket.socket.connect = refuse\n"
        "from popoto.redis_db import POPOTO_REDIS_DB, get_REDIS_DB\n"
        "hasattr(POPOTO_REDIS_DB, '__wrapped__'); repr(POPOTO_REDIS_DB)\n"
    )
    done = python(code, REDIS_URL="nonsense")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_environment_names_the_server(redis_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"{redis_server}?db=3")
    assert redis_db.get_REDIS_DB().client_info()["db"] == 3


def test_settings_in_code_win_over_the_environment(redis_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"{redis_server}?db=3")
    redis_db.set_REDIS_DB_settings(unix_socket_path=redis_server.removeprefix("unix://"), db=4)
    assert redis_db.get_REDIS_DB().client_info()["db"] == 4
    redis_db.configure_url(f"{redis_server}?db=5")
    assert redis_db.get_REDIS_DB().client_info()["db"] == 5


def test_settings_without_a_server_leave_it_to_the_environment(
    redis_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", f"{redis_server}?db=3")
    redis_db.set_REDIS_DB_settings("staging")
    assert redis_db.get_REDIS_DB().client_info()["db"] == 3
    assert redis_db.key_namespace() == "staging:"


def test_a_server_on_the_local_port_is_found(proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_db, "LOCAL_SERVER", {"host": "localhost", "port": proxy.port})
    assert redis_db.get_REDIS_DB().ping()
    assert redis_db.get_REDIS_DB().connection_pool.connection_kwargs["port"] == proxy.port
    assert redis_db.get_REDIS_DB().connection_pool.connection_kwargs["socket_timeout"] == 5


def test_a_local_server_that_wants_a_password_is_used_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as client:
                        while client.recv(4096):
                            client.sendall(b"-NOAUTH Authentication required.\r\n" * 3)

        threading.Thread(target=refuse, daemon=True).start()
        monkeypatch.setattr(redis_db, "LOCAL_SERVER", {"host": "127.0.0.1", "port": listener.getsockname()[1]})
        with pytest.raises(redis.AuthenticationError):
            redis_db.get_REDIS_DB().ping()


@pytest.mark.parametrize("reason", ["turned off", "not installed"])
def test_without_any_server_the_error_names_every_remedy(
    reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if reason == "not installed":
        monkeypatch.delenv("POPOTO_EMBEDDED")
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        monkeypatch.setattr("popoto._embedded.is_installed", lambda: False)
    with pytest.raises(ConnectionSettingsError) as raised:
        redis_db.get_REDIS_DB()
    for words in (
        reason,
        "localhost:6379",
        "REDIS_URL=",
        "popoto.configure(url=",
        "pip install popoto[embedded]",
    ):
        assert words in str(raised.value)


def test_a_server_that_starts_after_a_failure_is_found(redis_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not redis_db.check_connection()
    monkeypatch.setenv("REDIS_URL", redis_server)
    assert redis_db.check_connection()


def test_the_embedded_engine_is_the_last_resort_and_says_where_the_data_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("POPOTO_EMBEDDED")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING, "POPOTO-REDIS_DB"):
        assert redis_db.get_REDIS_DB().ping()
        assert redis_db.get_REDIS_DB().ping()
    assert [str(tmp_path / "popoto") in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+cluster://user:secret@host/5", "one database"),
        ("localhost:6379", "has no scheme"),
        ("http://user:secret@host", "starts with http://"),
        ("redis://user:secret@host:notaport", "cannot be read"),
        ("redis://user:secret@host/name", "'name'"),
        ("redis://user:secret@host?colour=red", "colour"),
        ("redis://user:secret@host?socket_timeout=soon", "socket_timeout"),
        ("unix://", "absolute path"),
        ("unix://run/redis.sock", "absolute path"),
        ("embedded://relative/folder", "three slashes"),
        ("embedded:///folder?db=one", "'one'"),
        ("embedded:///folder?port=1", "port"),
    ],
)
def test_a_url_that_cannot_be_used_is_explained_at_first_use(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(ConnectionSettingsError, match="REDIS_URL") as raised:
        redis_db.get_REDIS_DB()
    assert words in str(raised.value)
    assert "secret" not in str(raised.value)
    with pytest.raises(ConnectionSettingsError, match="configure"):
        redis_db.configure_url(url)


def test_wrong_arguments_are_explained_when_they_are_given() -> None:
    with pytest.raises(ConnectionSettingsError, match="hots"):
        redis_db.set_REDIS_DB_settings(hots="localhost")
    with pytest.raises(ConnectionSettingsError, match="by keyword"):
        redis_db.set_REDIS_DB_settings(6379)  # type: ignore[arg-type]
    with pytest.raises(ConnectionSettingsError, match="RESP3"):
        redis_db.set_REDIS_DB_settings(cache_config=CacheConfig())


# What a client is like


def test_replies_are_bytes_of_one_shape_whatever_the_settings_say(redis_server: str) -> None:
    redis_db.configure_url(f"{redis_server}?decode_responses=True&protocol=3")
    client = redis_db.get_REDIS_DB()
    client.hset("h", "a", 1)
    assert client.hgetall("h") == {b"a": b"1"}
    assert int(client.client_info()["resp"]) == 2

    async def read() -> object:
        return await redis_db.get_async_client().hgetall("h")

    assert asyncio.run(read()) == {b"a": b"1"}
    client.flushall()


def test_timeouts_are_five_seconds_unless_set(redis_server: str) -> None:
    redis_db.configure_url("redis://localhost")
    options = redis_db.get_REDIS_DB().connection_pool.connection_kwargs
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (5, 5)
    redis_db.set_REDIS_DB_settings(socket_timeout=None)
    assert redis_db.get_REDIS_DB().connection_pool.connection_kwargs["socket_timeout"] is None


def test_a_pool_of_the_users_gives_its_settings_to_both_clients(redis_server: str) -> None:
    pool = redis.ConnectionPool.from_url(f"{redis_server}?db=7", max_connections=3)
    redis_db.set_REDIS_DB_settings(connection_pool=pool)
    assert redis_db.get_REDIS_DB().client_info()["db"] == 7
    assert redis_db.get_REDIS_DB().connection_pool.max_connections == 3

    async def db() -> object:
        return (await redis_db.get_async_client().client_info())["db"]

    assert asyncio.run(db()) == 7


def sync_incr() -> None:
    redis_db.get_REDIS_DB().incr("n")


def sync_transaction() -> None:
    redis_db.get_REDIS_DB().pipeline(transaction=True).incr("n").execute()


async def async_incr() -> None:
    await redis_db.get_async_client().incr("n")


async def async_transaction() -> None:
    await redis_db.get_async_client().pipeline(transaction=True).incr("n").execute()


@pytest.mark.parametrize("write", [sync_incr, sync_transaction, async_incr, async_transaction])
def test_a_write_whose_reply_is_lost_is_not_sent_again(
    write: Callable[[], object], proxy: CuttingProxy, redis_server: str
) -> None:
    redis_db.set_REDIS_DB_settings(host="127.0.0.1", port=proxy.port)

    async def on_a_warm_connection() -> None:
        await redis_db.get_async_client().ping()
        proxy.cut_replies()
        with pytest.raises(redis.ConnectionError):
            await write()  # type: ignore[misc]

    if asyncio.iscoroutinefunction(write):
        asyncio.run(on_a_warm_connection())
    else:
        redis_db.get_REDIS_DB().ping()
        proxy.cut_replies()
        with pytest.raises(redis.ConnectionError):
            write()
    assert redis.Redis.from_url(redis_server).get("n") == b"1"


def test_an_idle_connection_that_the_server_closed_is_replaced_unnoticed(server: str) -> None:
    client = redis_db.get_REDIS_DB()
    client.ping()
    redis.Redis.from_url(server).client_kill_filter(_type="normal")
    assert client.incr("n") == 1


def test_more_threads_than_connections_wait_their_turn(server: str) -> None:
    redis_db.configure_url(f"{server}?max_connections=4")
    with ThreadPoolExecutor(24) as threads:
        list(threads.map(lambda _: redis_db.get_REDIS_DB().incr("n"), range(240)))
    assert redis_db.get_REDIS_DB().get("n") == b"240"


def test_three_hundred_calls_at_once_work(server: str) -> None:
    async def many() -> list[int]:
        client = await redis_db.get_async_redis_db()
        return list(await asyncio.gather(*(client.incr("n") for _ in range(300))))

    assert sorted(asyncio.run(many())) == list(range(1, 301))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_after_a_fork_both_processes_go_on(server: str) -> None:
    client = redis_db.get_REDIS_DB()
    client.ping()
    child = os.fork()
    if child == 0:
        kept = all(client.incr("kept") for _ in range(50))  # one that somebody held on to
        asked = all(redis_db.get_REDIS_DB().incr("asked") for _ in range(50))
        os._exit(0 if kept and asked and redis_db.get_REDIS_DB() is not client else 1)
    for _ in range(50):
        client.incr("kept")
        redis_db.get_REDIS_DB().incr("asked")
    assert os.waitpid(child, 0)[1] == 0
    assert client.mget("kept", "asked") == [b"100", b"100"]


# Async clients and their loops


def open_sockets() -> int:
    links = Path("/proc/self/fd")
    return sum(os.readlink(link).startswith("socket:") for link in links.iterdir() if link.is_symlink())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_fifty_runs_leave_no_socket_and_no_loop(server: str) -> None:
    async def work() -> None:
        await asyncio.gather(*(redis_db.get_async_client().incr("n") for _ in range(3)))

    before = open_sockets()
    for _ in range(50):
        asyncio.run(work())
    assert open_sockets() == before
    assert not redis_db._loop_clients._held


def test_a_loop_closed_without_ending_its_generators_is_forgotten(server: str) -> None:
    async def work() -> None:
        client = redis_db.get_async_client()
        await client.ping()
        await client.connection_pool.disconnect()

    for _ in range(5):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(work())
        loop.close()
    asyncio.run(work())
    assert len(redis_db._loop_clients._held) <= 1


def test_each_loop_has_one_client_of_its_own(server: str) -> None:
    async def client() -> object:
        assert redis_db.get_async_client() is await redis_db.get_async_redis_db()
        await redis_db.get_async_client().ping()
        return redis_db.get_async_client()

    with ThreadPoolExecutor(4) as threads:
        clients = list(threads.map(lambda _: asyncio.run(client()), range(4)))
    assert len({id(each) for each in clients}) == 4


def test_outside_a_loop_there_is_no_async_client(server: str) -> None:
    with pytest.raises(RuntimeError):
        redis_db.get_async_client()


def test_closing_the_async_client_lets_the_next_call_connect_again(server: str) -> None:
    async def work() -> None:
        first = redis_db.get_async_client()
        await first.ping()
        await redis_db.close_async()
        await redis_db.close_async()
        assert redis_db.get_async_client() is not first
        assert await redis_db.async_check_connection()

    asyncio.run(work())


# A change of settings


def test_a_change_of_settings_reaches_every_client(server: str) -> None:
    async def change() -> None:
        generation = redis_db.settings_generation()
        await redis_db.get_async_client().set("where", "first")
        redis_db.select_db(1)
        assert redis_db.settings_generation() > generation
        await redis_db.get_async_client().set("where", "second")
        assert redis_db.get_REDIS_DB().get("where") == b"second"
        assert redis_db.POPOTO_REDIS_DB.get("where") == b"second"
        assert redis_db.get_redis().client_info()["db"] == 1
        await redis_db.set_async_redis_db_settings(unix_socket_path=server.removeprefix("unix://"))
        assert await redis_db.get_async_client().get("where") == b"first"
        assert redis_db.POPOTO_REDIS_DB.get("where") == b"first"

    asyncio.run(change())


def test_calls_under_way_survive_a_change_of_settings(server: str) -> None:
    async def change() -> None:
        waiting = asyncio.create_task(redis_db.get_async_client().blpop(["queue"], timeout=20))
        while redis_db.get_REDIS_DB().info("clients")["blocked_clients"] == 0:
            await asyncio.sleep(0)
        redis_db.select_db(1)
        await redis_db.get_async_client().ping()
        redis.Redis.from_url(server).rpush("queue", "item")
        assert await waiting == (b"queue", b"item")

    asyncio.run(change())


def test_selecting_a_database_stays_on_the_server_that_was_found(
    redis_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_server)
    redis_db.select_db(15)
    assert redis_db.get_REDIS_DB().client_info()["db"] == 15


# Namespace and scans


def test_the_namespace_falls_back_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert redis_db.key_namespace() == ""
    monkeypatch.setenv("ENV", "production")
    assert redis_db.key_namespace() == ""  # not before it is asked for
    redis_db.set_REDIS_DB_settings(host="localhost")
    assert redis_db.key_namespace() == "production:"
    redis_db.set_REDIS_DB_settings("staging", host="localhost")
    assert redis_db.key_namespace() == "staging:"
    redis_db.configure_url("redis://localhost")
    assert redis_db.key_namespace() == "staging:"


def test_no_namespace_reaches_into_another(server: str) -> None:
    redis_db.set_REDIS_DB_settings("a*:{b}", unix_socket_path=server.removeprefix("unix://"))
    assert redis_db.key_namespace() == "a%2A%3A%7Bb%7D:"


def test_a_scan_finds_each_key_of_its_namespace_once(server: str) -> None:
    path = server.removeprefix("unix://")
    redis_db.set_REDIS_DB_settings("staging", unix_socket_path=path)
    mine = [f"staging:User:{i}".encode() for i in range(500)]
    for key in [*mine, b"User:1", b"staging:Other:1", b"production:User:1"]:
        redis_db.get_REDIS_DB().set(key, "")
    assert sorted(redis_db.scan_keys("User:*", count=10)) == sorted(mine)
    assert sorted(asyncio.run(redis_db.async_scan_keys(b"User:*"))) == sorted(mine)
    redis_db.configure_url(server)
    assert redis_db.scan_keys("nothing*") == []


# Looking at the server


def test_checking_never_raises(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    assert redis_db.check_connection() is True
    assert asyncio.run(redis_db.async_check_connection()) is True
    redis_db.configure_url(f"redis://127.0.0.1:{free_port()}")
    assert redis_db.check_connection() is False
    assert asyncio.run(redis_db.async_check_connection()) is False
    redis_db.set_REDIS_DB_settings()
    monkeypatch.setenv("REDIS_URL", "nonsense")
    assert redis_db.check_connection() is False
    assert asyncio.run(redis_db.async_check_connection()) is False


def test_server_information_is_one_log_record(server: str, caplog: pytest.LogCaptureFixture) -> None:
    redis_db.get_REDIS_DB().config_set("maxmemory", "100mb")
    with caplog.at_level(logging.INFO, "POPOTO-REDIS_DB"):
        redis_db.print_redis_info()
        asyncio.run(redis_db.async_print_redis_info())
    redis_db.get_REDIS_DB().config_set("maxmemory", "0")
    assert len(caplog.records) == 2
    for record in caplog.records:
        assert record.levelno == logging.INFO
        assert "memory used" in record.getMessage() and "of 100.00M" in record.getMessage()


@pytest.mark.parametrize(("given", "level"), [("", "WARNING"), ("debug", "DEBUG"), ("LOUD", "WARNING")])
def test_the_log_level_comes_from_the_environment(given: str, level: str) -> None:
    code = "from popoto.redis_db import logger; import logging; print(logging.getLevelName(logger.level))"
    assert python(code, POPOTO_LOG_LEVEL=given).stdout.strip() == level


def test_the_beginning_of_time_comes_from_the_environment() -> None:
    code = "from popoto.redis_db import BEGINNING_OF_TIME; print(BEGINNING_OF_TIME)"
    assert python(code, BEGINNING_OF_TIME="86400").stdout.strip() == "86400"
    done = python(code, BEGINNING_OF_TIME="dawn")
    assert done.stdout.strip() == "0"
    assert "dawn" in done.stderr


PAGE = (REPOSITORY / "docs" / "configuration.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_the_snippets_of_the_configuration_page_run(snippet: str, server: str) -> None:
    done = python(snippet, REDIS_URL=server)
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"^ *print\(.*\)  # (.*)$", snippet, re.MULTILINE)
    assert not promised or done.stdout.splitlines() == promised
