"""Ctrl-C, or whatever a signal handler raises, in the middle of a call: the next calls get their own replies."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.connection

from tests.faults.conftest import number
from tests.faults.models import FaultItem
from tests.faults.proxy import Proxy


class Interrupt(BaseException):
    """What the handler raises, as that of Ctrl-C does."""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGALRM raises Interrupt in the main thread."""

    def interrupt(*_: Any) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.signal(signal.SIGALRM, before)


def later_calls_get_their_own_replies() -> None:
    assert FaultItem.load(name="none") is None
    assert FaultItem.query.count(name="none") == 0
    assert FaultItem(name="later", rank=7).save() == 4
    assert FaultItem.load(name="later").rank == 7  # type: ignore[union-attr]


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="the system has no such signal")
def test_a_call_interrupted_while_it_waits(proxy: Proxy, server: redis.Redis, interruptible: None) -> None:
    go_on = threading.Event()

    def interrupt_the_waiting_thread() -> None:
        os.kill(os.getpid(), signal.SIGALRM)
        go_on.wait(20)

    proxy.hold_reply(then=interrupt_the_waiting_thread)
    with pytest.raises(Interrupt):
        FaultItem(name="a").save()
    later_calls_get_their_own_replies()
    go_on.set()

    assert number(server, "saves") == 2  # it had been sent, so it has happened
    assert FaultItem.query.count() == 2


def test_a_call_interrupted_between_sending_and_waiting(
    proxy: Proxy, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply comes late, when the connection might be in use again."""
    go_on = threading.Event()
    proxy.hold_reply(then=lambda: go_on.wait(20))
    read = redis.connection.AbstractConnection.read_response

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(redis.connection.AbstractConnection, "read_response", read)
        raise Interrupt

    monkeypatch.setattr(redis.connection.AbstractConnection, "read_response", interrupted)
    with pytest.raises(Interrupt):
        FaultItem(name="a").save()
    release = threading.Timer(0.3, go_on.set)
    release.start()
    try:
        later_calls_get_their_own_replies()
    finally:
        release.join()
