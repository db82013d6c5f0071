"""Processes that tests start and kill: each is `python -m tests.streams.workers <what> <url> ...`."""

from __future__ import annotations

import sys
import time

from popoto import redis_db
from popoto.streams import StreamConsumer
from tests.streams.models import Event


def consume(stream: str, name: str, slow_s: str) -> None:
    """Handle entries slowly; print each id before and after."""

    def handler(entries: list[tuple[str, dict[str, str]]]) -> None:
        for entry_id, _ in entries:
            print("taken", entry_id, flush=True)
            time.sleep(float(slow_s))
            print("done", entry_id, flush=True)

    StreamConsumer(stream, "group", name, handler, batch_size=5, block_ms=50, claim_timeout_ms=200).run_sync()


def write(worker: str) -> None:
    """Save, change, move and delete records for ever; print each acknowledged step."""
    number = 0
    while True:
        name = f"w{worker}-{number}"
        event = Event(name=name, agent=f"a{number % 3}", count=number)
        event.save()
        print("create", event.pk, 1, flush=True)
        event.agent = "moved"
        event.save(update_fields=["agent"])
        print("update", event.pk, 2, flush=True)
        event.atomic_increment("count", 1)
        print("update", event.pk, 3, flush=True)
        if number % 2:
            event.delete()
            print("delete", event.pk, 4, flush=True)
        number += 1


if __name__ == "__main__":
    redis_db.configure_url(sys.argv[2])
    {"consume": consume, "write": write}[sys.argv[1]](*sys.argv[3:])
