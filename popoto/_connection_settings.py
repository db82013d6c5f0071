"""What a user says about the server, turned into the clients that talk to it.

`from_url` and `from_arguments` read the two ways to say it; both give a `ServerSettings`. `sync_client` and
`async_client` make the clients. They decide four things whatever the user gave, because the layers above rely
on them:

- replies are bytes (`decode_responses=False`) of one shape (RESP2);
- redis-py repeats nothing: by default it sends a command again after a lost reply, and an INCR counts twice;
- both pools wait for a free connection where redis-py's default pool raises;
- no client holds a single connection, which a fork would share.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import SSLConnection, UnixDomainSocketConnection, parse_url
from redis.retry import Retry

from popoto import _cluster_clients, _embedded
from popoto._pool import Pool
from popoto.exceptions import ConnectionSettingsError

# Names that hold with the types that redis-py ships and with separate stubs, where the classes are generic.
SyncClient: TypeAlias = "redis.Redis[Any]"  # type: ignore[type-arg, unused-ignore]
AsyncClient: TypeAlias = "redis.asyncio.Redis[Any]"  # type: ignore[type-arg, unused-ignore]

SYNC_CONNECTIONS = 128
ASYNC_CONNECTIONS = 64  # of one event loop; more tasks than that wait their turn
POOL_WAIT_S = 20.0
SOCKET_TIMEOUT_S = 5.0
SCHEMES = "redis://, rediss://, unix://, embedded://, redis+cluster:// or rediss+cluster://"

# Decided below, or of no use with what is decided.
_OVERRULED = frozenset(
    {
        "decode_responses",
        "encoding",
        "encoding_errors",
        "legacy_responses",
        "maint_notifications_config",
        "protocol",
    }
    | {"retry", "retry_on_error", "retry_on_timeout", "single_connection_client"}
)
_SYNC_NAMES = frozenset(inspect.signature(redis.Redis.__init__).parameters) - {"self", "connection_pool"}
_ASYNC_NAMES = frozenset(inspect.signature(redis.asyncio.Redis.__init__).parameters)


@dataclass(frozen=True)
class ServerSettings:
    """One server, or a cluster of them.

    Attributes:
        arguments: keyword arguments of `redis.Redis`.
        store: the holder of the embedded engine, if that is the server.
        pool_wait_s: seconds that a call waits for a free connection.
        nodes: (host, port) of some nodes of a cluster; empty for one server.
        wait_replicas: replicas of a cluster's node that must have a write before it counts as done.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    store: _embedded.EmbeddedStore | None = None
    pool_wait_s: float | None = POOL_WAIT_S
    nodes: _cluster_clients.Nodes = ()
    wait_replicas: int = 0

    def with_db(self, db: int) -> ServerSettings:
        """The same server, another database number.

        Raises: ConnectionSettingsError: it is a cluster, and the number is not 0.
        """
        if self.nodes and db:
            raise ConnectionSettingsError(
                f"A cluster has one database, number 0, and no number {db}. Use a namespace "
                "(env_partition_name), or a single server."
            )
        return replace(self, arguments={**self.arguments, "db": db})


def from_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ServerSettings:
    """Settings out of the arguments of `redis.Redis(*args, **kwargs)`.

    Raises: ConnectionSettingsError: redis.Redis does not take these arguments.
    """
    try:
        bound = inspect.signature(redis.Redis).bind(*args, **kwargs).arguments
    except TypeError as error:
        raise ConnectionSettingsError(
            f"redis.Redis() does not take these settings: {error}. "
            "Pass what redis.Redis takes, such as host, port, db, username, password, ssl, unix_socket_path."
        ) from error
    pool = bound.pop("connection_pool", None)
    if pool is not None:
        options = {"max_connections": pool.max_connections, **pool.connection_kwargs}
        arguments = _client_arguments(pool.connection_class, options)
        bound = {**{name: value for name, value in arguments.items() if name in _SYNC_NAMES}, **bound}
    return _checked(ServerSettings(bound))


def from_url(url: str, origin: str) -> ServerSettings:
    """Settings out of a URL; that of an embedded engine starts or attaches to it.

    Args:
        origin: where the URL came from, for messages, which never show it: it may hold a password.

    Raises: ConnectionSettingsError: the URL cannot be used.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("redis", "rediss", "unix", "embedded", *_cluster_clients.SCHEMES):
        given = f"starts with {scheme}://" if separator else "has no scheme"
        raise ConnectionSettingsError(f"{origin} {given}; expected {SCHEMES}, for example redis://localhost:6379/0.")
    try:
        if scheme == "embedded":
            return _embedded_settings(rest)
        nodes: _cluster_clients.Nodes = ()
        replicas = 0
        if scheme in _cluster_clients.SCHEMES:
            nodes, replicas, url = _cluster_clients.split_url(url)
        if scheme != "unix":
            _check_address(url)
        elif not rest.rpartition("@")[2].startswith("/"):
            raise ValueError("a socket is named by its absolute path, such as unix:///run/redis.sock")
        options = parse_url(url)  # type: ignore[no-untyped-call, unused-ignore]
        wait_s = options.pop("timeout", POOL_WAIT_S)
        arguments = _client_arguments(options.pop("connection_class", None), options)
        unknown = sorted(arguments.keys() - _SYNC_NAMES)
        if unknown:
            raise ValueError(f"no connection has an option {', '.join(unknown)}")
    except ValueError as error:
        raise ConnectionSettingsError(
            f"{origin} cannot be read: {error}. Expected a URL such as redis://user:password@host:6379/0, "
            "unix:///run/redis.sock?db=0, embedded:///absolute/folder or redis+cluster://host:7000,host:7001."
        ) from error
    if nodes and arguments.pop("db", 0):
        raise ConnectionSettingsError(f"{origin} names a database; a cluster has one, number 0. Leave db out.")
    return _checked(ServerSettings(arguments, pool_wait_s=wait_s, nodes=nodes, wait_replicas=replicas))


def embedded(folder: Path, db: int = 0) -> ServerSettings:
    """Settings for the embedded engine in `folder`, which is started or attached to."""
    return _checked(ServerSettings({"db": db}, _embedded.open_store(folder)))


def sync_client(settings: ServerSettings) -> SyncClient:
    """A client with a pool of its own, for all threads. Connects at its first command; that of a cluster at once."""
    arguments = _decided(settings, no_retry())
    if settings.nodes:
        cluster: SyncClient = _cluster_clients.sync_client(settings.nodes, arguments)
        return cluster
    size = arguments.pop("max_connections", None) or SYNC_CONNECTIONS
    options = _pool_options(settings, redis.Redis(**arguments).connection_pool, _embedded.EmbeddedConnection)
    return redis.Redis(connection_pool=Pool(max_connections=size, **options))


def async_client(settings: ServerSettings) -> AsyncClient:
    """A client for the event loop that runs now, with a pool of its own. Connects at its first command.

    Raises: ConnectionSettingsError: a setting exists for sync clients only.
    """
    arguments = _decided(settings, AsyncRetry(NoBackoff(), 0))  # type: ignore[no-untyped-call, unused-ignore]
    sync_only = sorted(name for name in arguments.keys() - _ASYNC_NAMES if arguments[name])
    if sync_only:
        raise ConnectionSettingsError(
            f"redis.asyncio has no setting {', '.join(sync_only)}. Leave it out or use sync methods only."
        )
    arguments = {name: value for name, value in arguments.items() if name in _ASYNC_NAMES}
    size = arguments.pop("max_connections", None) or ASYNC_CONNECTIONS
    if settings.nodes:
        cluster: AsyncClient = _cluster_clients.async_client(settings.nodes, arguments, size)
        return cluster
    template = redis.asyncio.Redis(**arguments).connection_pool
    options = _pool_options(settings, template, _embedded.AsyncEmbeddedConnection)
    return redis.asyncio.Redis(connection_pool=redis.asyncio.BlockingConnectionPool(max_connections=size, **options))


def _pool_options(settings: ServerSettings, template: Any, embedded_class: type) -> dict[str, Any]:
    """Arguments of a blocking pool that connects as the pool `template` of a client would."""
    options = {**template.connection_kwargs, "timeout": settings.pool_wait_s}
    if settings.store is not None:
        return {**options, "connection_class": embedded_class, "store": settings.store}
    return {**options, "connection_class": template.connection_class}


def no_retry() -> Retry:
    """The policy of all sync clients: what was sent is never sent again by redis-py."""
    return Retry(NoBackoff(), 0)  # type: ignore[no-untyped-call, unused-ignore]


def _decided(settings: ServerSettings, retry: Retry | AsyncRetry) -> dict[str, Any]:
    arguments = {name: value for name, value in settings.arguments.items() if name not in _OVERRULED}
    if settings.store is not None:
        arguments["unix_socket_path"] = settings.store.socket_path
    timeouts = {"socket_timeout": SOCKET_TIMEOUT_S, "socket_connect_timeout": SOCKET_TIMEOUT_S}
    return {**timeouts, **arguments, "decode_responses": False, "protocol": 2, "retry": retry}


def _checked(settings: ServerSettings) -> ServerSettings:
    """Let redis-py look at the settings while the user's own line is on the stack."""
    try:
        sync_client(replace(settings, nodes=()))  # one server's client does not connect yet
    except (TypeError, ValueError, redis.RedisError) as error:
        raise ConnectionSettingsError(
            f"The connection settings cannot be used: {error}. "
            "Replies are RESP2 bytes here, so what needs RESP3 (such as a client-side cache) is not possible."
        ) from error
    return settings


def _client_arguments(connection_class: type | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a client out of those of a connection, as URLs and pools have them."""
    arguments = {name: value for name, value in options.items() if name not in _OVERRULED}
    if connection_class is not None and issubclass(connection_class, UnixDomainSocketConnection):
        arguments["unix_socket_path"] = arguments.pop("path")
    elif connection_class is not None and issubclass(connection_class, SSLConnection):
        arguments["ssl"] = True
    return arguments


def _check_address(url: str) -> None:
    """Refuse what redis-py would pass over in silence. Raises ValueError."""
    parts = urlsplit(url)
    _ = parts.port  # raises if it is no port number
    path = unquote(parts.path).strip("/")
    if path and not path.isdecimal():
        raise ValueError(f"the part after the host is the number of the database, not {path!r}")


def _embedded_settings(rest: str) -> ServerSettings:
    path, _, query = rest.partition("?")
    if path and not path.startswith("/"):
        raise ValueError("embedded:// needs an absolute folder, with three slashes")
    options = parse_qs(query)
    if options.keys() - {"db"}:
        raise ValueError(f"the only option of embedded:// is db, not {', '.join(sorted(options.keys() - {'db'}))}")
    db = options.get("db", ["0"])[0]
    if not db.isdecimal():
        raise ValueError(f"db is the number of the database, not {db!r}")
    return embedded(Path(unquote(path)) if path.strip("/") else _embedded.default_folder(), int(db))
