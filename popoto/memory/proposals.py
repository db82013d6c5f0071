"""RecallProposal: records that were put before an agent unasked, until it is known what the agent made of them.

A proposal is a member of an ordered set a partition, scored by when it was surfaced. A partition is usually an agent.
What a record is proposed in stands among its index entries, so that an outcome finds the proposal wherever it was
made, and a record that goes takes its proposals along (lua/kind_proposal.lua).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, ClassVar

from popoto.memory import clock
from popoto.memory.stored import stored_keys
from popoto.orm.commands import Command, queue, queue_all
from popoto.orm.drivers import adrive, arun, drive, one_by_one, run
from popoto.orm.keys import ModelKeys, index_part
from popoto.orm.merging import asked, lowest
from popoto.orm.scripts import Script, register_kind

_KIND = ("popoto.memory", "kind_proposal")
register_kind(*_KIND, "rp")
FRAGMENTS = (("popoto.memory", "lib_claim"), _KIND)
PROPOSE = Script("popoto.memory", "propose", FRAGMENTS, with_kinds=True)
WITHDRAW = Script("popoto.memory", "withdraw", FRAGMENTS, with_kinds=True)
EXPIRE = Script("popoto.memory", "expire_proposals", FRAGMENTS, with_kinds=True)
PENDING = Script("popoto.memory", "pending", flags="no-writes")

PREFIX = "$RP"
ROWS = 1000  # proposals looked at, or removed, in one call

Steps = Generator[Any, Any, Any]


class RecallProposal:
    """The pending proposals of models; all calls are static, and `async_` twins await them.

    Attributes:
        DEFAULT_TTL: seconds after which `expire_stale()` takes a proposal for unanswered.
    """

    DEFAULT_TTL: ClassVar[float] = 3600

    @staticmethod
    def create_batch(
        instances: Iterable[Any], reason: str = "proactive", partition: Any = None, pipeline: Any = None
    ) -> Any:
        """Note that these records are put before an agent now; proposing one again refreshes its time.

        Args:
            instances: stored records, of one model or several (one call a model).
            reason: for the reader of the code; it is not stored.
            partition: who they are put before; None for "default".
        Returns: None, or the pipeline.
        Raises: TypeError: an instance was never saved; nothing is noted then. Records that are gone are passed over.
        """
        commands = propose_commands(instances, partition)
        return drive(one_by_one(commands)) if pipeline is None else queue_all(commands, pipeline)

    @staticmethod
    async def async_create_batch(
        instances: Iterable[Any], reason: str = "proactive", partition: Any = None, pipeline: Any = None
    ) -> Any:
        """Await `create_batch()`."""
        commands = propose_commands(instances, partition)
        return await adrive(one_by_one(commands)) if pipeline is None else queue_all(commands, pipeline)

    @staticmethod
    def resolve(instance: Any, outcome: str, partition: Any = None, pipeline: Any = None) -> Any:
        """Remove the proposal of a record in one partition; the outcome itself acts in `ObservationProtocol`.

        Returns: 1, or 0 if there was none (any more); or the pipeline.
        """
        command = withdraw_command(instance, partition)
        return run(command) if pipeline is None else queue(command, pipeline)

    @staticmethod
    async def async_resolve(instance: Any, outcome: str, partition: Any = None, pipeline: Any = None) -> Any:
        """Await `resolve()`."""
        command = withdraw_command(instance, partition)
        return await arun(command) if pipeline is None else queue(command, pipeline)

    @staticmethod
    def expire_stale(
        model_class: Any, partition: Any = None, ttl: float | None = None, pipeline: Any = None
    ) -> list[str]:
        """Remove the proposals that are `ttl` seconds old or older; return their record keys, the oldest first.

        Args:
            ttl: None for DEFAULT_TTL.
            pipeline: taken for compatibility; it runs at once, for it returns the keys.
        """
        return drive(_expire_steps(model_class, partition, ttl))

    @staticmethod
    async def async_expire_stale(
        model_class: Any, partition: Any = None, ttl: float | None = None, pipeline: Any = None
    ) -> list[str]:
        """Await `expire_stale()`."""
        return await adrive(_expire_steps(model_class, partition, ttl))

    @staticmethod
    def get_pending(model_class: Any, partition: Any = None) -> list[tuple[str, float]]:
        """Return (record key, when it was surfaced in Unix seconds) of a partition's proposals, the oldest first."""
        return drive(_pending_steps(model_class, partition))

    @staticmethod
    async def async_get_pending(model_class: Any, partition: Any = None) -> list[tuple[str, float]]:
        """Await `get_pending()`."""
        return await adrive(_pending_steps(model_class, partition))


def pending_base(keys: ModelKeys) -> str:
    """Return the key of a model's pending proposals, without the partition."""
    return keys.base(PREFIX, "pending")


def _part(partition: Any) -> str:
    return "default" if partition is None else index_part(str(partition))


def by_place(instances: Iterable[Any]) -> dict[tuple[Any, ModelKeys], list[Any]]:
    """Return the instances by their model and the keys of their shard, all in the order they come."""
    groups: dict[tuple[Any, ModelKeys], list[Any]] = {}
    for instance in instances:
        model = type(instance)
        groups.setdefault((model, model._meta.keys_at(instance.pk)), []).append(instance)
    return groups


def propose_commands(instances: Iterable[Any], partition: Any) -> list[Command[Any]]:
    """Return the proposing of records, a command a model (and shard).

    Raises: TypeError: an instance was never saved.
    """
    commands: list[Command[Any]] = []
    for (model, keys), some in by_place(instances).items():
        record_keys = [key for instance in some for key in stored_keys(instance)]
        if len(record_keys) < len(some):
            raise TypeError(
                f"a {model.__name__} that was never saved (or is deleted) cannot be proposed; nothing was noted. "
                "Save it first, or leave it out."
            )
        args = (*record_keys, keys.sentinel, pending_base(keys), _part(partition), repr(clock.now()), "")
        commands.append(Command(args, script=PROPOSE, key_count=len(record_keys) + 1, repeat="token"))
    return commands


def withdraw_command(instance: Any, partition: Any) -> Command[int]:
    """Return the removal of one proposal."""
    keys = instance._meta.keys_at(instance.pk)
    args = (instance.pk, keys.sentinel, pending_base(keys), _part(partition), "")
    return Command(args, script=WITHDRAW, key_count=2, repeat="token")


def _expire_steps(model: Any, partition: Any, ttl: float | None) -> Generator[Any, Any, list[str]]:
    found = yield from asked(model._meta, lambda: _expire_here(model, partition, ttl), lowest)
    return [key for key, _ in found]


def _expire_here(model: Any, partition: Any, ttl: float | None) -> Generator[Any, Any, list[tuple[str, float]]]:
    keys = model._meta.keys
    base, part = pending_base(keys), _part(partition)
    until = clock.now() - (RecallProposal.DEFAULT_TTL if ttl is None else ttl)
    found: list[tuple[str, float]] = []
    while True:
        args = (f"{base}:{part}", keys.sentinel, base, part, repr(float(until)), ROWS, "")
        stale = _timed((yield Command(args, script=EXPIRE, key_count=2, repeat="token")))
        found += stale
        if len(stale) < ROWS:
            return found


def _pending_steps(model: Any, partition: Any) -> Generator[Any, Any, list[tuple[str, float]]]:
    return (yield from asked(model._meta, lambda: _pending_here(model, partition), lowest))


def _pending_here(model: Any, partition: Any) -> Generator[Any, Any, list[tuple[str, float]]]:
    keys = model._meta.keys
    key = f"{pending_base(keys)}:{_part(partition)}"
    found: list[tuple[str, float]] = []
    at = 0
    while True:
        looked_at, flat = yield Command((key, keys.sentinel, at, ROWS), script=PENDING, key_count=2)
        found += _timed(flat)
        at += looked_at
        if looked_at < ROWS:
            return found


def _timed(flat: list[bytes]) -> list[tuple[str, float]]:
    items = iter(flat)
    return [(member.decode(), float(time)) for member, time in zip(items, items, strict=True)]
