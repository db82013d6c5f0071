"""`python -m benchmarks.cluster`: calls of many agents, on one master and on three, in one run.

Workers (processes) save, increment, read and query records of their agents, with `Meta.shard_by`. Printed for each size
of cluster: calls a second, and the CPU time that the busiest master spent on 1,000 calls. The first depends on how many
cores workers and masters share; the second does not: it says how much one master has left for more agents.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

import popoto
from popoto import redis_db

from .server import find_binary

SLOTS = 16384
AGENTS = 60


class Memory(popoto.Model):
    agent = popoto.KeyField()
    number = popoto.KeyField(type=int)
    topic = popoto.IndexedField(default="")
    weight = popoto.SortedField(type=float, default=0.0)
    hits = popoto.IntField(default=0)

    class Meta:
        shard_by = "agent"


def free_port() -> int:
    while True:
        port = random.randrange(20000, 55000)
        with socket.socket() as one, socket.socket() as bus, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10000))
            return port


@contextlib.contextmanager
def masters(count: int, binary: str) -> Iterator[list[Any]]:
    """Give the plain clients of a cluster's masters, which share the slots evenly."""
    folders = [Path(tempfile.mkdtemp(prefix="popoto-bench-")) for _ in range(count)]
    ports = [free_port() for _ in range(count)]
    options = ("--bind", "127.0.0.1", "--save", "", "--cluster-enabled", "yes", "--loglevel", "warning")
    processes = [
        subprocess.Popen([binary, "--port", str(port), "--dir", str(folder), *options], stdout=subprocess.DEVNULL)
        for port, folder in zip(ports, folders, strict=True)
    ]
    clients: list[Any] = [redis.Redis(port=port) for port in ports]
    try:
        for number, client in enumerate(clients):
            _until(client.ping)
            client.execute_command("CLUSTER ADDSLOTSRANGE", number * SLOTS // count, (number + 1) * SLOTS // count - 1)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0])
        for client in clients:
            _until(lambda client=client: _is_whole(client.execute_command("CLUSTER INFO"), count))
        yield clients
    finally:
        for process, folder in zip(processes, folders, strict=True):
            process.kill()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _is_whole(state: Any, count: int) -> bool:
    return bool(state["cluster_state"] == "ok" and int(state["cluster_known_nodes"]) == count)


def _until(test: Any) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError):
            if test():
                return
        time.sleep(0.05)
    raise RuntimeError("the cluster did not come up")


def work(url: str, number: int, seconds: float, calls: Any) -> None:
    """Serve agents for some seconds: 4 saves, 2 increments, 2 reads and 2 queries in turn."""
    redis_db.configure_url(url)
    rng = random.Random(number)
    done = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        agent = f"agent-{rng.randrange(AGENTS)}"
        for _ in range(2):
            record = Memory.create(agent=agent, number=rng.randrange(200), topic=rng.choice("abc"), weight=rng.random())
            record.save()
            record.atomic_increment("hits", 1)
            Memory.query.get(agent=agent, number=record.number)
            Memory.query.filter(agent=agent, topic="a").order_by("-weight").limit(5).all()
        done += 10
    calls.put(done)


def measure(count: int, workers: int, seconds: float) -> tuple[float, float]:
    """Return calls a second, and CPU milliseconds of the busiest master for 1,000 calls."""
    with masters(count, find_binary()) as clients:
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{c.connection_pool.connection_kwargs['port']}" for c in clients)
        calls: Any = multiprocessing.Queue()
        team = [multiprocessing.Process(target=work, args=(url, n, seconds, calls)) for n in range(workers)]
        before = [_cpu_s(client) for client in clients]
        for process in team:
            process.start()
        total = sum(calls.get(timeout=seconds + 60) for _ in team)
        for process in team:
            process.join()
        busiest = max(_cpu_s(client) - had for client, had in zip(clients, before, strict=True))
    return total / seconds, busiest * 1e6 / total


def _cpu_s(client: Any) -> float:
    usage = client.info("cpu")
    return float(usage["used_cpu_user"]) + float(usage["used_cpu_sys"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    found = {count: measure(count, options.workers, options.seconds) for count in (1, 3)}
    for count, (rate, busiest) in found.items():
        print(f"{count} master(s): {rate:8,.0f} calls/s   busiest master: {busiest:6.1f} ms CPU for 1,000 calls")
    print(f"room for more agents on the busiest master: {found[1][1] / found[3][1]:.2f}x")


if __name__ == "__main__":
    main()
