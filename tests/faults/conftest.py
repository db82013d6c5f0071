"""A proxy in front of the test server, and one spelling for a call and its async twin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from popoto import redis_db
from tests.conftest import Server
from tests.faults.models import FaultItem, FaultTicket
from tests.faults.proxy import Proxy, cutting_proxy

Way = Callable[..., Any]


def synchronously(method: Any, *args: Any, **kwargs: Any) -> Any:
    return method(*args, **kwargs)


def asynchronously(method: Any, *args: Any, **kwargs: Any) -> Any:
    """Run the async twin of a bound method in a loop of its own."""
    twin = getattr(method.__self__, f"async_{method.__name__}")
    return asyncio.run(twin(*args, **kwargs))


@pytest.fixture(params=[synchronously, asynchronously], ids=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Way:
    """`way(item.save, update_fields=["note"])` calls it, or awaits `async_save` with the same arguments."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def proxy(server: redis.Redis, shared_server: Server) -> Iterator[Proxy]:
    """A proxy that popoto goes through; `server` is the client that goes past it. The scripts are loaded."""
    with cutting_proxy(shared_server.socket) as proxy:
        redis_db.configure_url(proxy.url)
        warm = FaultItem.create(name="warm")
        FaultTicket.create(seat="warm").delete()
        FaultItem.query.filter(status="new").all()
        FaultItem.query.get_many(["FaultItem:warm"])
        warm.delete()
        server.flushall()
        proxy.reached.clear()
        yield proxy
        redis_db.configure_url(shared_server.url)


def number(client: redis.Redis, key: str) -> int:
    """Return a counter of CountingField."""
    return int(client.get(key) or 0)
