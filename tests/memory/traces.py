"""What a database holds, to prove that nothing of a deleted record is left in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import redis

_READ: dict[bytes, Callable[[redis.Redis, bytes], Any]] = {
    b"string": lambda server, key: server.get(key),
    b"hash": lambda server, key: server.hgetall(key),
    b"set": lambda server, key: server.smembers(key),
    b"zset": lambda server, key: server.zrange(key, 0, -1, withscores=True),
    b"list": lambda server, key: server.lrange(key, 0, -1),
}


def stored(server: redis.Redis) -> dict[bytes, Any]:
    """Return all keys with their contents, without the replies that are kept for repeats (they expire)."""
    keys = (key for key in server.keys("*") if b"$Token:" not in key)
    return {key: _READ[server.type(key)](server, key) for key in keys}


def traces(server: redis.Redis, *words: str) -> list[bytes]:
    """Return the keys that hold one of the words in their name or in their contents."""
    return [
        key
        for key, content in stored(server).items()
        if any(word.encode() in key or word in repr(content) for word in words)
    ]


def synchronously(method: Any, *args: Any, **kwargs: Any) -> Any:
    return method(*args, **kwargs)


def asynchronously(method: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the async twin of a bound method."""
    return asyncio.run(getattr(method.__self__, f"async_{method.__name__}")(*args, **kwargs))


WAYS = [synchronously, asynchronously]
