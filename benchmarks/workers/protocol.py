"""The worker's side of the line protocol: one JSON object a line on stdin, one on stdout.

    {"op": "hello"}                                         -> {"versions": {...}}
    {"op": "written"}                                       -> {"keys": {key: type}}
    {"op": "load", "dataset", "start", "size", "budget"}    -> {"seconds", "calls", "round_trips"}
    {"op": "memory"}                                        -> {"bytes": of all keys that do not expire}
    {"op": "flush"}                                         -> {}
    {"op": "save", "size": 10000, "repeat": 200}            -> {"seconds", "calls", "round_trips", "answer"}

`size` is the number of records in the store, `repeat` the number of calls; `answer` is what the last call
returned (names or a count), so that the runner can check it. `written` saves one record into the empty
database, says what keys that made, and empties it again. Other replies: {"unsupported": true},
{"skipped": reason}, {"error": text}.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any

from .. import counting, data


class Stopwatch:
    """Times the body of a `with` and counts what it sends."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.round_trips = 0

    def __enter__(self) -> None:
        gc.collect()  # each starts from the same ground; the collector stays on, as it is in programs
        self._sends = counting.sends()
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds += time.perf_counter() - self._started
        self.round_trips += counting.sends() - self._sends


class Worker:
    """A contender. A subclass has a method `op_<name>(size, repeat, watch) -> answer` for each operation that
    it can do, and `load_<dataset>(numbers)` for each dataset; what it lacks is reported as "-"."""

    packages: tuple[str, ...] = ()

    def __init__(self, socket: str, db: int) -> None:
        import redis

        self.redis = redis.Redis(unix_socket_path=socket, db=db)
        self._new = 0

    def new_numbers(self, count: int) -> list[int]:
        """Numbers of records that were never stored before."""
        numbers = list(data.new_numbers(self._new, count))
        self._new += count
        return numbers

    def save_one(self, row: data.RecordRow) -> None:
        raise NotImplementedError

    def visited(self, operation: str, call: int) -> int | None:
        """How many members a ranking looks at in this call; None if that is not known."""
        return None

    def bytes_of_keys(self) -> int:
        """What the keys of the database take on the server, in bytes; those that expire are left out."""
        total, cursor = 0, 0
        while True:
            cursor, keys = self.redis.scan(cursor, count=1000)
            pipe = self.redis.pipeline(transaction=False)
            for key in keys:
                pipe.pttl(key)
                pipe.memory_usage(key, samples=0)
            replies = pipe.execute()
            total += sum(size or 0 for left, size in zip(replies[::2], replies[1::2], strict=True) if left == -1)
            if not cursor:
                return total

    def hello(self) -> dict[str, str]:
        found = {"python": platform.python_version()}
        for package in ("redis", "hiredis", *self.packages):
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                found[package] = "absent"
        return found


def _load(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    """Load in batches; give up as soon as the pace says that the budget (seconds) will not do."""
    load = getattr(worker, f"load_{request['dataset']}", None)
    if load is None:
        return {"unsupported": True}
    start, size, budget = request["start"], request["size"], request["budget"]
    began, sends = time.perf_counter(), counting.sends()
    for first in range(start, size, data.BATCH):
        load(range(first, min(first + data.BATCH, size)))
        seconds = time.perf_counter() - began
        loaded = min(first + data.BATCH, size) - start
        if seconds > 2.0 and seconds / loaded * (size - start) > budget:
            pace = loaded / seconds
            return {"skipped": f"over budget (loads {pace:,.0f} records/s)"}
    return {
        "seconds": time.perf_counter() - began,
        "calls": size - start,
        "round_trips": counting.sends() - sends,
    }


def _measure(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    operation = getattr(worker, f"op_{request['op']}", None)
    if operation is None:
        return {"unsupported": True}
    watch = Stopwatch()
    answer = operation(request["size"], request["repeat"], watch)
    return {
        "seconds": watch.seconds,
        "calls": request["repeat"],
        "round_trips": watch.round_trips,
        "answer": answer,
        "visited": worker.visited(request["op"], request["repeat"] - 1),
    }


def _answer(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    if request["op"] == "hello":
        return {"versions": worker.hello()}
    if request["op"] == "load":
        return _load(worker, request)
    if request["op"] == "memory":
        return {"bytes": worker.bytes_of_keys()}
    if request["op"] == "flush":
        worker.redis.flushdb()  # the server is a throw-away one, started for this run
        return {}
    if request["op"] == "written":
        worker.save_one(data.record(0))
        keys = {key.decode(): worker.redis.type(key).decode() for key in worker.redis.scan_iter()}
        worker.redis.flushdb()
        return {"keys": keys}
    return _measure(worker, request)


def serve(make: type[Worker]) -> None:
    """Answer requests until stdin ends. The arguments are the server's socket and the number of the
    database."""
    socket, db = sys.argv[1], int(sys.argv[2])
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a library that prints must not be taken for a reply
    counting.install()
    worker = make(socket, db)
    for line in sys.stdin:
        try:
            reply = _answer(worker, json.loads(line))
        except Exception as error:  # the boundary: one failed cell must not end the run
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
