"""The wire of a cluster: which node a command goes to, and what a node's redirection means.

A redirection (MOVED, ASK) says that nothing ran, so it is followed here. What only time cures (TRYAGAIN: half of the
keys of a slot have moved; CLUSTERDOWN; a node that is gone) is raised: `commands.exchange` pauses and asks again.

redis-py's cluster clients are used for the table of slots and for their connections. Their own `execute_command` gives
up on TRYAGAIN after 0.4 s, and its async one sends ASKING on whichever connection is free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import redis.exceptions
from redis.crc import key_slot

from popoto.orm.keys import front_of

Call = tuple[Any, ...]

REDIRECTIONS = 5  # of one call, then it counts as unplaced
UNPLACED = (
    redis.exceptions.TryAgainError,
    redis.exceptions.AskError,  # MovedError is one
    redis.exceptions.ClusterDownError,
    redis.exceptions.SlotNotCoveredError,
)
"""Nothing ran, and a later try may: the slot is moving, or its node is being replaced."""

_KEY_FIRST = frozenset(
    {"HGETALL", "HMGET", "HGET", "HSET", "HSCAN", "GET", "SET", "DEL", "UNLINK", "EXISTS", "TYPE", "PUBLISH", "XADD"}
    | {"SMEMBERS", "SADD", "SREM", "SCARD", "SSCAN", "ZCARD", "ZSCORE", "ZCOUNT", "ZRANGE", "ZSCAN", "PTTL", "XACK"}
    | {"ZREVRANGE", "ZUNIONSTORE"}
)
_KEY_SECOND = frozenset({"XGROUP", "XINFO", "OBJECT"})


def routing_key(args: Call) -> Any:
    """Return a key of the command, which tells its slot; None for a command that this module does not know."""
    name = args[0]
    if name in ("EVALSHA", "EVAL"):
        return args[3] if int(args[2]) else None
    if name in _KEY_FIRST:
        return args[1]
    if name in _KEY_SECOND:
        return args[2]
    if name == "XREADGROUP":
        return args[args.index("STREAMS") + 1]
    if name == "SCAN" and "MATCH" in args:
        return front_of(args[args.index("MATCH") + 1]) or None  # of the keys behind one hash tag: its node has them
    return None


def slot_of(key: Any) -> int:
    """Return the slot of a key (str or bytes), 0 to 16383."""
    if isinstance(key, str):
        front = front_of(key)
        return _slot(front or key)
    return int(key_slot(key))


@lru_cache(maxsize=65536)
def _slot(text: str) -> int:
    return int(key_slot(text.encode()))


def _node_of(client: Any, slot: int) -> Any:
    nodes = client.nodes_manager.slots_cache.get(slot)
    if not nodes:
        raise redis.exceptions.SlotNotCoveredError(f"no node is known for the slot {slot}")
    return nodes[0]


def _named(client: Any, error: redis.exceptions.AskError) -> Any:
    """Return the node that a redirection names, or None when it is a new one."""
    return client.nodes_manager.get_node(host=error.host, port=error.port)


def _note(client: Any, error: redis.exceptions.MovedError, node: Any) -> None:
    client.nodes_manager.slots_cache[error.slot_id] = [node]


# -- sync -------------------------------------------------------------------------------------------------------------


def call(client: Any, *args: Any) -> Any:
    """Send one command to the node of its slot and return the raw reply.

    Raises: redis-py's errors, for nothing is repeated here; those of UNPLACED mean that nothing ran.
    """
    key = routing_key(args)
    if key is None:
        return client.execute_command(*args)
    slot = slot_of(key)
    node, asking = _find(client, slot), False
    for redirections in range(REDIRECTIONS + 1):
        try:
            return _call_node(client, node, args, asking)
        except redis.exceptions.AskError as error:
            moved = isinstance(error, redis.exceptions.MovedError)
            node, asking = _follow(client, error, moved), not moved
            if redirections == REDIRECTIONS:
                raise
    raise AssertionError("unreachable")


def _find(client: Any, slot: int) -> Any:
    try:
        return _node_of(client, slot)
    except redis.exceptions.SlotNotCoveredError:
        refresh(client)
        return _node_of(client, slot)


def _follow(client: Any, error: redis.exceptions.AskError, moved: bool) -> Any:
    node = _named(client, error)
    if node is None or node.redis_connection is None:
        refresh(client, (error.host, error.port))
        node = _named(client, error)
    if node is None:
        raise error
    if moved:
        _note(client, error, node)  # type: ignore[arg-type]
    return node


def refresh(client: Any, *also: tuple[str, int]) -> None:
    """Ask the nodes for the slots anew; keep what is known where none answers."""
    with suppress(redis.exceptions.RedisClusterException, redis.RedisError):
        client.nodes_manager.initialize(additional_startup_nodes_info=list(also))


def _call_node(client: Any, node: Any, args: Call, asking: bool) -> Any:
    pool = node.redis_connection.connection_pool
    connection = _connected(client, pool)
    try:
        if asking:
            connection.send_packed_command(connection.pack_commands([("ASKING",), args]))
            connection.read_response()
        else:
            connection.send_command(*args)
        return connection.read_response()
    except redis.exceptions.ClusterDownError:
        refresh(client)
        raise
    except redis.exceptions.ResponseError:
        raise  # an answer like any other
    except BaseException as error:
        connection.disconnect()
        if isinstance(error, redis.RedisError):
            refresh(client)
        raise
    finally:
        pool.release(connection)


def _connected(client: Any, pool: Any) -> Any:
    try:
        return pool.get_connection()
    except redis.RedisError:
        refresh(client)
        raise


def calls(client: Any, commands: Sequence[Call]) -> list[Any]:
    """Send commands to the nodes of their slots, to each node in one write, and return the replies in order.

    An error stands in the place of its reply: also one of the connection, for the other nodes have answered.
    """
    replies: list[Any] = [None] * len(commands)
    parts = _by_node(client, commands, replies)
    open_parts: list[tuple[Any, Any, list[int]]] = []
    for node, places in parts.values():
        pool = node.redis_connection.connection_pool
        try:
            connection = pool.get_connection()
        except redis.RedisError as error:
            _fill(replies, places, error)
            continue
        open_parts.append((pool, connection, places))
    answered = 0
    try:
        for _, connection, places in open_parts:
            with suppress(redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
                connection.send_packed_command(connection.pack_commands([commands[at] for at in places]))
        for _, connection, places in open_parts:
            _read(connection, places, replies)
            answered += 1
    finally:
        for number, (pool, connection, _) in enumerate(open_parts):
            if number >= answered:
                connection.disconnect()
            pool.release(connection)
    if any(isinstance(reply, redis.exceptions.ConnectionError) for reply in replies):
        refresh(client)
    for at, reply in enumerate(replies):
        if isinstance(reply, redis.exceptions.AskError):
            if _is_awaited(commands, at):
                with suppress(redis.RedisError):
                    _follow(client, reply, isinstance(reply, redis.exceptions.MovedError))
                continue
            try:
                replies[at] = call(client, *commands[at])
            except redis.RedisError as error:
                replies[at] = error
    return replies


def _by_node(client: Any, commands: Sequence[Call], replies: list[Any]) -> dict[str, tuple[Any, list[int]]]:
    """Return node name -> (node, places of its commands); what has no node gets its error as reply."""
    parts: dict[str, tuple[Any, list[int]]] = {}
    refreshed, slot = False, 0
    for at, command in enumerate(commands):
        if command[0] != "WAIT":  # which waits for what goes before it, on the same connection
            key = routing_key(command)
            slot = slot_of(command[1] if key is None else key)
        nodes = client.nodes_manager.slots_cache.get(slot)
        if not nodes and not refreshed and isinstance(client, redis.RedisCluster):
            refresh(client)
            refreshed = True
        try:
            node = _node_of(client, slot)
        except redis.exceptions.SlotNotCoveredError as error:
            replies[at] = error
            continue
        parts.setdefault(node.name, (node, []))[1].append(at)
    return parts


def _is_awaited(commands: Sequence[Call], at: int) -> bool:
    """Return True when a WAIT follows: it must go where the command goes, so both are left for the next try."""
    return at + 1 < len(commands) and commands[at + 1][0] == "WAIT"


def _fill(replies: list[Any], places: Sequence[int], error: Exception) -> None:
    for at in places:
        replies[at] = error


def _read(connection: Any, places: Sequence[int], replies: list[Any]) -> None:
    for number, at in enumerate(places):
        try:
            replies[at] = connection.read_response()
        except redis.exceptions.ResponseError as error:
            replies[at] = error
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
            connection.disconnect()
            _fill(replies, places[number:], error)
            return


# -- async ------------------------------------------------------------------------------------------------------------


async def acall(client: Any, *args: Any) -> Any:
    """Await `call` on an async client."""
    key = routing_key(args)
    if key is None:
        return await client.execute_command(*args)
    slot = slot_of(key)
    node, asking = await _afind(client, slot), False
    for redirections in range(REDIRECTIONS + 1):
        try:
            return (await _acall_node(client, node, [args], asking))[0]
        except redis.exceptions.AskError as error:
            moved = isinstance(error, redis.exceptions.MovedError)
            node, asking = await _afollow(client, error, moved), not moved
            if redirections == REDIRECTIONS:
                raise
    raise AssertionError("unreachable")


async def _ready(client: Any) -> None:
    if client._initialize:
        try:
            await client.initialize()
        except redis.exceptions.RedisClusterException as error:
            raise redis.ConnectionError(f"Error connecting to the cluster: {error}") from error


async def _afind(client: Any, slot: int) -> Any:
    await _ready(client)
    try:
        return _node_of(client, slot)
    except redis.exceptions.SlotNotCoveredError:
        await arefresh(client)
        return _node_of(client, slot)


async def _afollow(client: Any, error: redis.exceptions.AskError, moved: bool) -> Any:
    node = _named(client, error)
    if node is None:
        await arefresh(client, (error.host, error.port))
        node = _named(client, error)
    if node is None:
        raise error
    if moved:
        _note(client, error, node)  # type: ignore[arg-type]
    return node


async def arefresh(client: Any, *also: tuple[str, int]) -> None:
    """Await `refresh` on an async client."""
    with suppress(redis.exceptions.RedisClusterException, redis.RedisError):
        await client.nodes_manager.initialize(additional_startup_nodes_info=list(also))


def _room(client: Any) -> asyncio.Semaphore:
    """Return what keeps the calls of a client under the number of connections that a node gives out."""
    room: asyncio.Semaphore | None = client.__dict__.get("_popoto_room")
    if room is None:
        room = client._popoto_room = asyncio.Semaphore(client.connection_kwargs["max_connections"] // 2)
    return room


async def _acall_node(client: Any, node: Any, commands: Sequence[Call], asking: bool = False) -> list[Any]:
    """Send commands to one node in one write; the reply of a single one is raised when it is an error."""
    sent = [("ASKING",), *commands] if asking else commands
    async with _room(client):
        connection = node.acquire_connection()
        try:
            await node.disconnect_if_needed(connection)
            await connection.send_packed_command(connection.pack_commands(sent))
            if asking:
                await connection.read_response()
            if len(commands) == 1:
                return [await connection.read_response()]
            return [await _aread(connection) for _ in commands]
        except redis.exceptions.ClusterDownError:
            await arefresh(client)
            raise
        except redis.exceptions.ResponseError:
            raise
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, redis.RedisError):
                await arefresh(client)
            raise
        finally:
            node.release(connection)


async def _aread(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except redis.exceptions.ResponseError as error:
        return error


async def acalls(client: Any, commands: Sequence[Call]) -> list[Any]:
    """Await `calls` on an async client; the nodes are asked at the same time."""
    await _ready(client)
    replies: list[Any] = [None] * len(commands)
    parts = _by_node(client, commands, replies)

    async def ask(node: Any, places: list[int]) -> None:
        try:
            answers = await _acall_node(client, node, [commands[at] for at in places])
        except redis.RedisError as error:
            _fill(replies, places, error)
        else:
            for at, answer in zip(places, answers, strict=True):
                replies[at] = answer

    await asyncio.gather(*(ask(*part) for part in parts.values()))
    for at, reply in enumerate(replies):
        if isinstance(reply, redis.exceptions.AskError):
            if _is_awaited(commands, at):
                with suppress(redis.RedisError):
                    await _afollow(client, reply, isinstance(reply, redis.exceptions.MovedError))
                continue
            try:
                replies[at] = await acall(client, *commands[at])
            except redis.RedisError as error:
                replies[at] = error
    return replies
