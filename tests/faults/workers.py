"""Processes that work on shared records until they are killed, and what starts them.

A "nursery" process imports everything once; each worker is a fork of it, so that a new one costs some milliseconds and
a test can afford to kill hundreds.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import traceback
from collections.abc import Callable
from typing import Any

from popoto import redis_db
from popoto.exceptions import ModelException
from popoto.memory.confidence import ConfidenceField
from tests.faults.models import SharedMemory, SharedRecord, SharedTicket, SplitCounter

ERRORS = "faults:errors"  # a list: what no worker should have met
DONE = "faults:done"  # counts operations, by kind

NAMES = [f"n{i}" for i in range(10)]
HANDLES = [f"@{i}" for i in range(6)]
SEATS = [f"seat{i}" for i in range(12)]
STATUSES = ["open", "closed", "a:b*", None]

nursery = multiprocessing.get_context("forkserver")
nursery.set_forkserver_preload([__name__])


def start(work: Callable[..., None], url: str, *args: Any) -> Any:
    """Start a worker process on the server at `url`."""
    process = nursery.Process(target=_guarded, args=(work, url, *args), daemon=True)
    process.start()
    return process


def _guarded(work: Callable[..., None], url: str, *args: Any) -> None:
    os.environ["REDIS_URL"] = url
    try:
        work(*args)
    except BaseException:
        redis_db.get_REDIS_DB().rpush(ERRORS, traceback.format_exc())


def random_work(seed: int) -> None:
    """Do random things to the shared records for ever."""
    rng = random.Random(seed)
    while True:
        work = rng.choice(KINDS)
        try:
            work(rng)
        except (ModelException, TypeError) as refused:  # a value taken, a record gone: the others were faster
            if not any(word in str(refused) for word in ("already exists", "is not stored")):
                raise
        redis_db.get_REDIS_DB().hincrby(DONE, work.__name__, 1)


def a_status(rng: random.Random) -> str | None:
    """Return a shared value, or one that nobody will have again: there a forgotten entry stays and is found."""
    return rng.choice([*STATUSES, f"only {rng.random()}"])


def record(rng: random.Random) -> SharedRecord:
    return SharedRecord(
        name=rng.choice(NAMES),
        handle=rng.choice([None, *HANDLES]),
        status=a_status(rng),
        rank=rng.randrange(100),
        level=rng.random(),
    )


def save(rng: random.Random) -> None:
    record(rng).save()


def save_for_a_moment(rng: random.Random) -> None:
    instance = record(rng)
    instance._ttl = rng.choice([0.01, 0.05, 0.2])
    instance.save()


def update(rng: random.Random) -> None:
    instance = SharedRecord.load(name=rng.choice(NAMES))
    if instance is not None:
        new = record(rng)
        names = rng.sample(["handle", "status", "rank", "level", "note"], rng.randint(1, 3))
        for name in names:
            setattr(instance, name, getattr(new, name))
        instance.save(update_fields=names)


def migrate(rng: random.Random) -> None:
    instance = SharedRecord.load(name=rng.choice(NAMES))
    if instance is not None:
        instance.name = rng.choice(NAMES)
        instance.save(migrate_key=True)


def migrate_and_update(rng: random.Random) -> None:
    instance = SharedRecord.load(name=rng.choice(NAMES))
    if instance is not None:
        instance.name, instance.status = rng.choice(NAMES), a_status(rng)
        instance.save(migrate_key=True, update_fields=["status"])


def delete(rng: random.Random) -> None:
    instance = SharedRecord.load(name=rng.choice(NAMES))
    if instance is not None:
        instance.delete()


def create_seat(rng: random.Random) -> None:
    SharedTicket.create(seat=rng.choice(SEATS))


def free_seat(rng: random.Random) -> None:
    ticket = SharedTicket.query.filter(seat=rng.choice(SEATS)).first()
    if ticket is not None:
        ticket.delete()


def memory(rng: random.Random) -> SharedMemory:
    words = rng.choices(["river", "stone", "bridge", "light", "under"], k=rng.randrange(6))
    return SharedMemory(
        name=rng.choice(NAMES[:5]), topic=rng.choice(["x", "y", None]), text=" ".join(words), weight=rng.random()
    )


def memory_save(rng: random.Random) -> None:
    instance = memory(rng)
    if rng.random() < 0.2:
        instance._ttl = rng.choice([0.01, 0.05])
    instance.save()


def memory_update(rng: random.Random) -> None:
    instance, new = SharedMemory.load(name=rng.choice(NAMES[:5])), memory(rng)
    if instance is not None:
        names = rng.sample(["topic", "text", "weight", "relevance"], rng.randint(1, 2))
        for name in names:
            setattr(instance, name, getattr(new, name))
        instance.save(update_fields=names)


def memory_migrate(rng: random.Random) -> None:
    instance = SharedMemory.load(name=rng.choice(NAMES[:5]))
    if instance is not None:
        instance.name = rng.choice(NAMES[:5])
        instance.save(migrate_key=True, update_fields=rng.choice([None, ["text"]]))


def memory_delete(rng: random.Random) -> None:
    SharedMemory(name=rng.choice(NAMES[:5])).delete()


def memory_touch(rng: random.Random) -> None:
    instance = SharedMemory.load(name=rng.choice(NAMES[:5]))
    if instance is not None:
        instance.touch("relevance")


def memory_signal(rng: random.Random) -> None:
    instance = SharedMemory.load(name=rng.choice(NAMES[:5]))
    if instance is not None:
        ConfidenceField.update_confidence(instance, "certainty", rng.random())


KINDS: list[Callable[[random.Random], None]] = [
    *(save, save, update, update, migrate, migrate_and_update, delete, save_for_a_moment, create_seat, free_seat),
    *(memory_save, memory_update, memory_update, memory_migrate, memory_delete, memory_touch, memory_signal),
]


# -- races -----------------------------------------------------------------------------------------------------------


def race_for_seats(number: int, rounds: int, barrier: Any) -> None:
    """Create the same unique value as everybody else, at the same moment, `rounds` times."""
    client = redis_db.get_REDIS_DB()
    for i in range(rounds):
        barrier.wait(30)
        try:
            ticket = SharedTicket.create(seat=f"round{i}")
            client.rpush(f"faults:won:{i}", ticket.number)
        except ModelException as refused:
            client.rpush(f"faults:lost:{i}", str(refused))


def race_for_one_key(number: int, rounds: int, barrier: Any) -> None:
    """Move a record of one's own onto the key that everybody wants."""
    client = redis_db.get_REDIS_DB()
    for i in range(rounds):
        mine = SharedRecord.create(name=f"from{number}-{i}", status="moving", rank=number)
        mine.name = f"goal{i}"
        barrier.wait(30)
        try:
            mine.save(migrate_key=True)
            client.rpush(f"faults:won:{i}", number)
        except ModelException as refused:
            client.rpush(f"faults:lost:{i}", str(refused))


def count_up(number: int, rounds: int, barrier: Any) -> None:
    """Write one field of a record whose other fields others write."""
    mine = SplitCounter.load(name="all")
    assert mine is not None
    barrier.wait(30)
    for i in range(1, rounds + 1):
        setattr(mine, f"c{number}", i)
        mine.save(update_fields=[f"c{number}"])
