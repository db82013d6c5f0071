"""The connection to the server: one setting, which the sync client and each loop's async client follow.

Nothing connects at import. The server is found at first use; the first of these that says one, wins:

1. `set_REDIS_DB_settings(host=..., ...)` or `configure_url(url)`;
2. the environment variable REDIS_URL: redis://, rediss://, unix://, embedded:///absolute/folder or
   redis+cluster://host:port,host:port;
3. a server that answers on localhost:6379;
4. the embedded engine in the user's data folder, unless POPOTO_EMBEDDED=0.

Ask `get_REDIS_DB()` or `get_async_client()` for a client at each use, and never keep it: then a change of
settings reaches everything. `POPOTO_REDIS_DB` is an object that does so by itself. Errors of the connection
are redis-py's; settings that cannot be used raise `ConnectionSettingsError`.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from contextlib import suppress
from typing import Any, cast
from urllib.parse import quote

import redis

from popoto import _cluster_clients, _embedded
from popoto import _connection_settings as _settings
from popoto._connection_settings import AsyncClient, SyncClient
from popoto._loop_clients import LoopClients
from popoto.exceptions import ConnectionSettingsError, PopotoException

__all__ = [
    "BEGINNING_OF_TIME",
    "ENCODING",
    "POPOTO_REDIS_DB",
    "PopotoException",
    "async_check_connection",
    "async_print_redis_info",
    "async_scan_keys",
    "check_connection",
    "close",
    "close_async",
    "configure_url",
    "get_REDIS_DB",
    "get_async_client",
    "get_async_redis_db",
    "get_redis",
    "key_namespace",
    "on_cluster",
    "print_redis_info",
    "replicas_to_wait_for",
    "scan_keys",
    "select_db",
    "set_REDIS_DB_settings",
    "set_async_redis_db_settings",
    "settings_generation",
]

ENCODING = "utf-8"
LOCAL_SERVER = {"host": "localhost", "port": 6379}
PROBE_TIMEOUT_S = 0.3  # a server on this very machine answers in a millisecond or not at all

logger = logging.getLogger("POPOTO-REDIS_DB")
with suppress(ValueError):  # an unknown level is no reason not to start
    logger.setLevel(logging.WARNING)
    logger.setLevel(os.environ.get("POPOTO_LOG_LEVEL", "").strip().upper() or logging.WARNING)


def _beginning_of_time() -> int:
    given = os.environ.get("BEGINNING_OF_TIME", "0")
    try:
        return int(given)
    except ValueError:
        logger.critical("BEGINNING_OF_TIME is %r; expected Unix seconds as an integer. 0 is used.", given)
        return 0


BEGINNING_OF_TIME = _beginning_of_time()

_lock = threading.RLock()
_chosen: _settings.ServerSettings | None = None  # what the user set, if anything
_server: _settings.ServerSettings | None = None  # what is in use
_client: SyncClient | None = None
_namespace = ""
_generation = 0


# Settings


def set_REDIS_DB_settings(env_partition_name: str = "", *args: Any, **kwargs: Any) -> None:
    """Use another server from the next call on, sync and async.

    Args:
        env_partition_name: a namespace, put in front of every key; falls back to the environment's ENV.
        *args, **kwargs: as for `redis.Redis`. With none at all the server is found as at first use. Replies
            stay RESP2 bytes and redis-py's own retries stay off, whatever is given.

    Raises: ConnectionSettingsError: redis.Redis does not take these arguments.
    """
    if not isinstance(env_partition_name, str):
        raise ConnectionSettingsError(
            f"env_partition_name is a namespace for keys, a string, not {env_partition_name!r}. "
            "Pass the server by keyword: set_REDIS_DB_settings(host=..., port=...)."
        )
    chosen = _settings.from_arguments(args, kwargs) if args or kwargs else None
    _change(chosen, env_partition_name or os.environ.get("ENV", ""))


def configure_url(url: str) -> None:
    """Use another server from now on: redis://, rediss://, unix://, embedded:///absolute/folder or redis+cluster://.

    The namespace of the keys stays. Raises: ConnectionSettingsError: the URL cannot be used.
    """
    _change(_settings.from_url(url, "The url given to configure()"), None)


def select_db(db: int) -> None:
    """Stay on the server in use (it is found first, if need be) and go to its database number `db`, >= 0."""
    _change(_current_server().with_db(db), None)


async def set_async_redis_db_settings(env_partition_name: str = "", *args: Any, **kwargs: Any) -> None:
    """`set_REDIS_DB_settings`, and close what this loop had open. One setting serves sync and async."""
    await asyncio.to_thread(set_REDIS_DB_settings, env_partition_name, *args, **kwargs)
    await close_async()


def key_namespace() -> str:
    """What stands in front of every key: "" or the escaped partition name and a colon, such as "staging:"."""
    return _namespace


def on_cluster() -> bool:
    """Whether the server in use is a cluster. Reads settings only: nothing is looked for and nothing connects."""
    server = _server or _chosen
    if server is None:
        return _cluster_clients.is_cluster_url(os.environ.get("REDIS_URL", "").strip())
    return server.nodes != ()


def replicas_to_wait_for() -> int:
    """How many replicas must have a write before it counts as done (`?wait_replicas=` of a cluster's URL)."""
    server = _server or _chosen
    return 0 if server is None else server.wait_replicas


def settings_generation() -> int:
    """A number that grows with every change of settings; what was derived from an older one is stale."""
    return _generation


def _change(chosen: _settings.ServerSettings | None, partition: str | None) -> None:
    global _chosen, _namespace
    with _lock:
        _drop_client(keep_store=chosen.store if chosen is not None else None)
        _chosen = chosen
        if partition is not None:
            # Escaped, so that no name can reach into another namespace or be read as a pattern.
            _namespace = f"{quote(partition, safe='')}:" if partition else ""


def _drop_client(keep_store: _embedded.EmbeddedStore | None) -> None:
    global _server, _client, _generation
    servers, client = (_server, _chosen), _client
    _server, _client = None, None
    _generation += 1
    if client is not None:
        # Connections at work finish and go with the client.
        _cluster_clients.disconnect(client, inuse_connections=False)
    for server in servers:
        if server is not None and server.store is not None and server.store is not keep_store:
            server.store.close()


def _current_server() -> _settings.ServerSettings:
    global _server
    with _lock:
        if _server is None:
            _server = _chosen or _find_server()
        return _server


def _find_server() -> _settings.ServerSettings:
    url = os.environ.get("REDIS_URL", "").strip()
    if url:
        return _settings.from_url(url, "The environment variable REDIS_URL")
    if _answers_locally():
        return _settings.from_arguments((), LOCAL_SERVER)
    why = "it is turned off by POPOTO_EMBEDDED=0"
    if os.environ.get("POPOTO_EMBEDDED", "").strip().lower() not in ("0", "false", "no", "off"):
        folder = _embedded.default_folder()
        if _embedded.is_installed():
            server = _settings.embedded(folder)
            # A warning, because that is the level of this logger, and a user should know where the data is.
            logger.warning(
                "No server on localhost:6379 and no REDIS_URL: using the embedded engine, data in %s", folder
            )
            return server
        why = "it is not installed"
    raise ConnectionSettingsError(
        "No server found: REDIS_URL is not set, none answers on localhost:6379, and as for the embedded "
        f"engine, {why}. Do one of these: start a Redis or Valkey server on localhost:6379; "
        'set REDIS_URL=redis://host:port/db; call popoto.configure(url="redis://host:port/db"); '
        "pip install popoto[embedded] and leave POPOTO_EMBEDDED unset, which needs no server at all."
    )


def _answers_locally() -> bool:
    timeouts = {"socket_timeout": PROBE_TIMEOUT_S, "socket_connect_timeout": PROBE_TIMEOUT_S}
    probe = _settings.sync_client(_settings.from_arguments((), {**LOCAL_SERVER, **timeouts}))
    try:
        return bool(probe.ping())
    except (redis.AuthenticationError, redis.BusyLoadingError, redis.exceptions.ResponseError):
        return True  # a server it is: what it lacks (a password, time to load) is for the user to see
    except redis.RedisError:
        return False
    finally:
        probe.connection_pool.disconnect()


# Clients


def get_REDIS_DB() -> SyncClient:
    """The client for all threads of this process. Ask for it at each use; it costs a read of a global.

    Raises: ConnectionSettingsError: no server could be found, or the settings cannot be used.
    """
    client = _client
    return client if client is not None else _make_client()


get_redis = get_REDIS_DB


def _make_client() -> SyncClient:
    global _client
    with _lock:
        if _client is None:
            _client = _settings.sync_client(_current_server())
        return _client


class _CurrentClient:
    """Looks like the client and is, at each use, the one that `get_REDIS_DB()` gives."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # tools that look at modules must not connect
            raise AttributeError(name)
        return getattr(get_REDIS_DB(), name)

    def __repr__(self) -> str:
        return f"<the current client: {_client!r}>"


POPOTO_REDIS_DB = cast("SyncClient", _CurrentClient())


_loop_clients = LoopClients()


def get_async_client() -> AsyncClient:
    """The client of the event loop that runs now.

    The very first call of a process finds the server, which may block the loop for 0.3 s, and longer if an
    embedded engine has to start; `await get_async_redis_db()` does that on a thread.

    Raises:
        RuntimeError: no event loop runs in this thread.
        ConnectionSettingsError: see `get_REDIS_DB`.
    """
    return _loop_clients.current(_generation, _async_client_and_generation)


async def get_async_redis_db() -> AsyncClient:
    """The client of the event loop that runs now; finding the server does not block the loop."""
    if _server is None:
        await asyncio.to_thread(_current_server)
    return get_async_client()


def _async_client_and_generation() -> tuple[AsyncClient, int]:
    with _lock:
        return _settings.async_client(_current_server()), _generation


def close() -> None:
    """Close the sync connections and let go of the embedded engine. A later call connects again."""
    with _lock:
        client = _client
        _drop_client(keep_store=None)
        if client is not None:
            _cluster_clients.disconnect(client, inuse_connections=True)


async def close_async() -> None:
    """Close the async client of the loop that runs now. A later call connects again."""
    await _loop_clients.close_current()


# Registered after `_embedded.close_all`, so it runs before: ours are gone when the server counts connections.
atexit.register(close)


def _after_fork_in_child() -> None:
    """A child makes connections of its own; those it inherited are the parent's."""
    global _lock, _client
    _lock = threading.RLock()
    _client = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# Looking at the server


def check_connection() -> bool:
    """Whether the server answers a PING. Never raises."""
    try:
        return bool(get_REDIS_DB().ping())
    except Exception as error:  # the boundary of a health check: every failure is an answer
        logger.debug("The server did not answer: %s", error)
        return False


async def async_check_connection() -> bool:
    """Whether the server answers a PING. Never raises."""
    try:
        return bool(await (await get_async_redis_db()).ping())
    except Exception as error:
        logger.debug("The server did not answer: %s", error)
        return False


def scan_keys(pattern: str | bytes, count: int = 1000) -> list[bytes]:
    """All keys of the namespace that match a glob pattern, each once, as they are stored. Not for queries.

    Args:
        pattern: such as "User:*"; the namespace is put in front of it.
        count: keys that the server looks at a step.
    """
    client = get_REDIS_DB()
    # SCAN may give a key more than once
    return list(dict.fromkeys(key for glob in _globs(pattern) for key in client.scan_iter(match=glob, count=count)))


async def async_scan_keys(pattern: str | bytes, count: int = 1000) -> list[bytes]:
    """`scan_keys` on the async client."""
    client = await get_async_redis_db()
    found = [key for glob in _globs(pattern) async for key in client.scan_iter(match=glob, count=count)]
    return list(dict.fromkeys(found))


def _globs(pattern: str | bytes) -> list[bytes]:
    """The pattern behind the namespace, and on a cluster behind any hash tag as well."""
    glob = _namespace.encode() + (pattern.encode(ENCODING) if isinstance(pattern, str) else pattern)
    return [glob, b"{*}:" + glob] if on_cluster() else [glob]


def print_redis_info() -> None:
    """Log the server's version and memory at INFO, in one record (set POPOTO_LOG_LEVEL=INFO to see it).

    On a cluster those of one node.
    """
    logger.info(_describe(get_REDIS_DB().info()))


async def async_print_redis_info() -> None:
    """`print_redis_info` on the async client."""
    logger.info(_describe(await (await get_async_redis_db()).info()))


def _describe(info: Any) -> str:
    valkey = info.get("valkey_version")
    text = (
        f"{'Valkey' if valkey else 'Redis'} {valkey or info.get('redis_version')}, "
        f"up {info.get('uptime_in_seconds')} s, "
        f"{info.get('connected_clients')} clients, memory used {info.get('used_memory_human')}"
    )
    limit = int(info.get("maxmemory") or 0)
    if limit:
        text += f" of {info.get('maxmemory_human')} ({100 * int(info.get('used_memory') or 0) / limit:.1f} %)"
    return text
