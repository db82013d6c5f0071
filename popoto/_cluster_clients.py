"""The clients of a Redis Cluster: redis-py's own, as popoto.orm.cluster_wire uses them.

redis-py finds the nodes, keeps the table of slots and the connections. What is sent again, and when, is decided by the
command layer alone (popoto.orm.commands), for only that knows what may be repeated: its retries are off here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio.cluster
import redis.cluster
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException
from redis.retry import Retry

SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}  # -> that of one node
DEFAULT_PORT = 6379
CLIENTS: frozenset[Any] = frozenset({redis.cluster.RedisCluster, redis.asyncio.cluster.RedisCluster})

Nodes = tuple[tuple[str, int], ...]


def is_cluster_url(url: str) -> bool:
    """Return True when the URL names a cluster."""
    return url.partition("://")[0] in SCHEMES


def split_url(url: str) -> tuple[Nodes, int, str]:
    """Return what a cluster's URL says: the nodes, how many replicas to wait for, and the URL of the first node alone.

    Raises: ValueError: an address or an option cannot be read.
    """
    scheme, _, rest = url.partition("://")
    end = min((at for at in map(rest.find, "/?") if at >= 0), default=len(rest))
    user, at, hosts = rest[:end].rpartition("@")
    nodes: list[tuple[str, int]] = []
    for text in hosts.split(","):
        address = urlsplit(f"//{text}")
        if not address.hostname:
            raise ValueError(f"a node is host:port, not {text!r}")
        nodes.append((address.hostname, address.port or DEFAULT_PORT))
    path, question, query = rest[end:].partition("?")
    if path.strip("/") not in ("", "0"):
        raise ValueError(f"a cluster has one database, number 0, not {path.strip('/')!r}")
    options = [pair for pair in query.split("&") if pair.partition("=")[0] != "wait_replicas"]
    wait = [pair.partition("=")[2] for pair in query.split("&") if pair.partition("=")[0] == "wait_replicas"]
    if wait and not wait[-1].isdecimal():
        raise ValueError(f"wait_replicas is a number of replicas, not {wait[-1]!r}")
    first = f"{SCHEMES[scheme]}://{user}{at}{hosts.split(',')[0]}{question}{'&'.join(options)}"
    return tuple(nodes), int(wait[-1]) if wait else 0, first


def sync_client(nodes: Nodes, arguments: Mapping[str, Any]) -> Any:
    """Return a client for all threads. It asks the nodes for the slots at once.

    Args:
        nodes: where to begin; the others are found.
        arguments: of `redis.Redis`, for each node's connections.
    Raises: redis.ConnectionError: no node answers, or they are no cluster.
    """
    node: Any = redis.cluster.ClusterNode
    start = [node(host, port) for host, port in nodes]
    options = {name: value for name, value in arguments.items() if name not in ("host", "port", "db", "retry")}
    try:
        client = redis.cluster.RedisCluster(
            startup_nodes=start,
            retry=Retry(NoBackoff(), 0),  # type: ignore[no-untyped-call, unused-ignore]
            require_full_coverage=False,
            **options,
        )
    except RedisClusterException as error:
        raise redis.ConnectionError(_no_cluster(nodes, error)) from error
    _know_script_keys(client.commands_parser)
    return client


def _know_script_keys(parser: Any) -> None:
    """Let a pipeline find the keys of a script call itself; redis-py's asks a node, with the whole script, for each."""
    ask_node = parser.get_keys

    def get_keys(node: Any, *args: Any) -> Any:
        if args[0] in ("EVAL", "EVALSHA") and int(args[2]):
            return list(args[3 : 3 + int(args[2])])
        return ask_node(node, *args)

    parser.get_keys = get_keys


def async_client(nodes: Nodes, arguments: Mapping[str, Any], connections: int) -> Any:
    """Return a client for the event loop that runs now. It asks the nodes for the slots at its first command."""
    start = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in nodes]
    options = {name: value for name, value in arguments.items() if name not in ("host", "port", "db", "retry")}
    client: Any = redis.asyncio.cluster.RedisCluster(
        startup_nodes=start,
        retry=AsyncRetry(NoBackoff(), 0),  # type: ignore[no-untyped-call, unused-ignore]
        require_full_coverage=False,
        max_connections=2 * connections,  # of each node: half for the command layer, which waits for a free one
        **options,
    )
    return client


def _no_cluster(nodes: Nodes, error: Exception) -> str:
    asked = ", ".join(f"{host}:{port}" for host, port in nodes)
    return f"Error connecting to the cluster by {asked}: {error}"


def disconnect(client: Any, inuse_connections: bool) -> None:
    """Close the connections of a sync client, of one server or of a cluster; those at work only if asked to."""
    if type(client) not in CLIENTS:
        client.connection_pool.disconnect(inuse_connections=inuse_connections)
        return
    for node in list(client.nodes_manager.nodes_cache.values()):
        if node.redis_connection is not None:
            node.redis_connection.connection_pool.disconnect(inuse_connections=inuse_connections)


async def adisconnect(client: Any, inuse_connections: bool) -> None:
    """Await `disconnect` on an async client."""
    if type(client) not in CLIENTS:
        await client.connection_pool.disconnect(inuse_connections)
    elif inuse_connections:
        await client.aclose()
        for node in [*client.nodes_manager.nodes_cache.values(), *client.nodes_manager.startup_nodes.values()]:
            with suppress(redis.RedisError, OSError):
                await node.disconnect()  # also where the first look at the nodes was never finished
    else:
        nodes: list[Any] = list(client.nodes_manager.nodes_cache.values())
        for node in nodes:
            await node.disconnect_free_connections()
