"""A cluster of real servers on loopback, made without redis-cli."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

SLOTS = 16384
NODE_TIMEOUT_MS = 1000
SETTLED_S = 0.5  # how long after a move the nodes may still hear what was sent before it
HIGHEST_PORT = 55534  # the bus listens 10,000 above


def free_port() -> int:
    while True:
        port = random.randrange(20000, HIGHEST_PORT)
        with socket.socket() as one, socket.socket() as bus, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10000))
            return port


def wait_for(what: str, test: Callable[[], Any], patience_s: float = 20.0) -> Any:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError, OSError):
            found = test()
            if found:
                return found
        time.sleep(0.03)
    raise RuntimeError(f"waited {patience_s} s for {what}")


class Node:
    """One server process of a cluster."""

    def __init__(self, binary: str, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="popoto-cluster-"))
        self.port = free_port()
        command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        command += ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--loglevel", "warning"]
        command += ["--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--repl-diskless-sync-delay", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client = redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=10)
        wait_for("a node to start", self.client.ping)

    @property
    def id(self) -> str:
        return str(self.client.execute_command("CLUSTER MYID").decode())

    def kill(self) -> None:
        """End the process as a crash does; what is on disk stays until `remove()`."""
        self.process.kill()
        self.process.wait()

    def remove(self) -> None:
        self.client.close()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Cluster:
    """Masters that share the slots evenly."""

    def __init__(self, binary: str, masters: int = 3, options: tuple[str, ...] = ()) -> None:
        self.binary = binary
        self.options = options
        self._moved_at: dict[int, float] = {}
        self.nodes = [Node(binary, *options) for _ in range(masters)]
        for number, node in enumerate(self.nodes):
            first, last = number * SLOTS // masters, (number + 1) * SLOTS // masters - 1
            node.client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            node.client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self._introduce(node)
        self.wait_until_whole()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def _introduce(self, node: Node) -> None:
        node.client.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[0].port)

    def wait_until_whole(self) -> None:
        """Wait until every node knows every other and all agree who serves which slot."""

        def whole() -> bool:
            views = set()
            for node in self.nodes:
                state = node.client.execute_command("CLUSTER INFO")
                if state["cluster_state"] != "ok" or int(state["cluster_known_nodes"]) != len(self.nodes):
                    return False
                slots = node.client.execute_command("CLUSTER SLOTS")
                views.add(str(sorted((first, last, master[1]) for first, last, master, *_ in slots)))
            return len(views) == 1

        wait_for("the nodes to agree", whole)

    def add_master(self) -> Node:
        """Add a node that serves no slot yet."""
        node = Node(self.binary, *self.options)
        self.nodes.append(node)
        self._introduce(node)
        self.wait_until_whole()
        return node

    def add_replica(self, master: Node) -> Node:
        node = Node(self.binary, *self.options)
        self.nodes.append(node)
        self._introduce(node)
        self.wait_until_whole()
        wait_for("a replica to know its master", lambda: _replicate(node, master))
        wait_for("a replica to be in step", lambda: node.client.info("replication").get("master_link_status") == "up")
        return node

    def flush(self) -> None:
        """Empty every master."""
        for node in self.nodes:
            with contextlib.suppress(redis.ReadOnlyError, redis.ConnectionError):
                node.client.flushall()

    def owner(self, slot: int) -> Node:
        """Return the node that serves a slot: the one that says so of itself, for the others may not know yet."""

        def claiming() -> list[Node]:
            claims = [node for node in self.nodes if node.process.poll() is None and _claims(node, slot)]
            return claims if len(claims) == 1 else []

        found: list[Node] = wait_for(f"one node to serve slot {slot}", claiming)
        return found[0]

    def move_slot(self, slot: int, target: Node, source: Node | None = None, batch: int = 10) -> None:
        """Move a slot with all its keys to another node, as `redis-cli --cluster reshard` does."""
        source = source or self.owner(slot)
        if source is target:
            return
        # A word that the source sent before it had the slot, and that comes only now, would make the target the owner
        # at once: the server then drops the keys that still lie at the source.
        time.sleep(max(0.0, self._moved_at.get(slot, 0.0) + SETTLED_S - time.monotonic()))
        source_id, target_id = source.id, target.id
        target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source_id)
        source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target_id)
        while True:
            keys = source.client.execute_command("CLUSTER GETKEYSINSLOT", slot, batch)
            if not keys:
                break
            source.client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        target.client.execute_command("CLUSTER SETSLOT", slot, "NODE", target_id)
        source.client.execute_command("CLUSTER SETSLOT", slot, "NODE", target_id)
        for node in self.nodes:
            if node not in (source, target):
                with contextlib.suppress(redis.RedisError):
                    node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", target_id)
        # Else a late word of an earlier owner may undo the next move: an epoch that is not known is not exceeded.
        wait_for("the nodes to know the move", lambda: len({_epochs(node) for node in self.nodes}) == 1)
        self._moved_at[slot] = time.monotonic()

    def remove(self) -> None:
        for node in self.nodes:
            node.remove()


def _epochs(node: Node) -> frozenset[tuple[str, str]]:
    """Return (node, its configuration epoch) of all nodes, as a node knows them."""
    known = node.client.execute_command("CLUSTER NODES")
    return frozenset((entry["node_id"], str(entry["epoch"])) for entry in known.values())


def _claims(node: Node, slot: int) -> bool:
    slots = node.client.execute_command("CLUSTER SLOTS")
    return any(first <= slot <= last and master[1] == node.port for first, last, master, *_ in slots)


def _replicate(node: Node, master: Node) -> bool:
    node.client.execute_command("CLUSTER REPLICATE", master.id)
    return True
