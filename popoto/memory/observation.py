"""ObservationProtocol: what an agent did with what it was given, and what that does to the memories.

| effect on | acted | used | dismissed | deferred | contradicted |
|---|---|---|---|---|---|
| decaying fields | touched | - | - | - | - |
| staged reads | confirmed | confirmed | discarded | discarded | discarded |
| amplitudes of cycles | x 1.2 | - | x 0.8 | - | x 0.5 |
| pressure | resolved | - | - | - | resolved if hardly believed any more |
| confidences | signal 0.9 | - | - | - | signal 0.1 |
| open prediction | error 0.1 | 0.3 | 0.5 | - | 0.9 |
| pending proposals | removed | removed | removed | removed | removed |

A batch of outcomes is one atomic step and one round trip (a model), whatever it does (lua/observe.lua): all of it
happens, or nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from popoto.memory import access, clock
from popoto.memory.confidence import ConfidenceField
from popoto.memory.cyclic import KIND as CYCLES
from popoto.memory.cyclic import CyclicDecayField
from popoto.memory.decay import DecayingSortedField
from popoto.memory.defaults import Defaults
from popoto.memory.events import LoggedScript, event_of
from popoto.memory.ledger_reading import meta_key
from popoto.memory.prediction import PredictionLedgerMixin, confidence_fields, outcome_errors
from popoto.memory.proposals import FRAGMENTS as PROPOSALS
from popoto.memory.proposals import RecallProposal, by_place
from popoto.memory.stored import stored_keys
from popoto.memory.valueless import text_of_key
from popoto.orm.commands import Command, queue_all
from popoto.orm.drivers import adrive, drive, one_by_one
from popoto.orm.keys import index_part
from popoto.orm.plan import pack
from popoto.orm.scripts import Script

OBSERVE = LoggedScript(
    Script(
        "popoto.memory",
        "observe",
        (
            *PROPOSALS,
            ("popoto.memory", "kind_access"),
            CYCLES,
            ("popoto.memory", "kind_confidence"),
            ("popoto.memory", "kind_prediction"),
        ),
        with_kinds=True,
    )
)

VALID_OUTCOMES = frozenset({"acted", "used", "dismissed", "deferred", "contradicted"})

logger = logging.getLogger("popoto.memory")


class ObservationProtocol:
    """Tells the memories what became of them; all calls are static, and `async_` twins await them."""

    @staticmethod
    def on_read(instance: Any, pipeline: Any = None) -> Any:
        """Stage a read of a record whose model tracks them; queries do so by themselves."""
        return instance.on_read(pipeline) if isinstance(instance, access.AccessTrackerMixin) else pipeline

    @staticmethod
    async def async_on_read(instance: Any, pipeline: Any = None) -> Any:
        """Await `on_read()`."""
        return await instance.async_on_read(pipeline) if isinstance(instance, access.AccessTrackerMixin) else pipeline

    @staticmethod
    def on_surfaced(
        instances: Iterable[Any], reason: str = "proactive", partition: Any = None, pipeline: Any = None
    ) -> Any:
        """Note that records were put before an agent unasked: pending proposals, see RecallProposal.create_batch."""
        return RecallProposal.create_batch(instances, reason, partition, pipeline)

    @staticmethod
    async def async_on_surfaced(
        instances: Iterable[Any], reason: str = "proactive", partition: Any = None, pipeline: Any = None
    ) -> Any:
        """Await `on_surfaced()`."""
        return await RecallProposal.async_create_batch(instances, reason, partition, pipeline)

    @staticmethod
    def on_context_used(instances: Iterable[Any], outcome_map: Mapping[Any, str], pipeline: Any = None) -> Any:
        """Apply what became of each record that was in the agent's context.

        The attributes of the instances follow (touched times, confidences), without a pipeline.

        Args:
            instances: records, of one model or several (one atomic step a model); one that is given twice counts twice.
            outcome_map: Redis key -> "acted", "used", "dismissed", "deferred" or "contradicted"; for an instance that
                is not in it "deferred".
            pipeline: a redis-py pipeline; all of it is queued.
        Returns: None, or the pipeline.
        Raises: ValueError: another outcome, also of a key that belongs to no instance. TypeError: an instance that an
            outcome would change was never saved. Nothing is done then. A record that is gone meanwhile (deleted by
            another, expired) is passed over, and logged.
        """
        commands = observe_commands(instances, outcome_map)
        return drive(one_by_one(commands)) if pipeline is None else queue_all(commands, pipeline)

    @staticmethod
    async def async_on_context_used(
        instances: Iterable[Any], outcome_map: Mapping[Any, str], pipeline: Any = None
    ) -> Any:
        """Await `on_context_used()`."""
        commands = observe_commands(instances, outcome_map)
        return await adrive(one_by_one(commands)) if pipeline is None else queue_all(commands, pipeline)


def observe_commands(instances: Iterable[Any], outcome_map: Mapping[Any, str]) -> list[Command[None]]:
    """Return the effects of a batch of outcomes, a command a model; see `on_context_used`."""
    records = list(instances)
    if not records:
        return []
    for outcome in outcome_map.values():
        if outcome not in VALID_OUTCOMES:
            raise ValueError(
                f"on_context_used(): an outcome is one of {', '.join(sorted(VALID_OUTCOMES))}, got {outcome!r}; "
                "nothing was done."
            )
    outcomes = {text_of_key(key): outcome for key, outcome in outcome_map.items()}
    groups = by_place(records)
    for (model, _), some in groups.items():
        _refuse_unsaved(model, some, outcomes)
    return [_observe_command(model, keys, some, outcomes) for (model, keys), some in groups.items()]


def _outcome_of(instance: Any, outcomes: Mapping[Any, str]) -> str:
    return outcomes.get(instance.pk, "deferred")


def _fields(model: Any, kind: type) -> list[Any]:
    return [field for field in model._meta.fields.values() if isinstance(field, kind)]


def _refuse_unsaved(model: Any, instances: list[Any], outcomes: Mapping[Any, str]) -> None:
    tracks = issubclass(model, access.AccessTrackerMixin)
    believes, turns = bool(_fields(model, ConfidenceField)), bool(_fields(model, CyclicDecayField))
    changes = {
        "acted": tracks or believes or bool(_fields(model, DecayingSortedField)),
        "used": tracks,
        "dismissed": turns,
        "contradicted": turns or believes,
    }
    for instance in instances:
        outcome = _outcome_of(instance, outcomes)
        if changes.get(outcome) and not stored_keys(instance):
            raise TypeError(
                f"on_context_used(): the outcome '{outcome}' would change {instance!r}, which was never saved, or is "
                "deleted; nothing was done. Save it first, or leave it out."
            )


def _observe_command(model: Any, keys: Any, instances: list[Any], outcomes: Mapping[Any, str]) -> Command[None]:
    now = clock.now()
    decaying, turning = _fields(model, DecayingSortedField), _fields(model, CyclicDecayField)
    beliefs = confidence_fields(model)
    its_outcomes = [_outcome_of(instance, outcomes) for instance in instances]
    reads = (
        [access.count_key(keys), access.longest_log(model)] if issubclass(model, access.AccessTrackerMixin) else False
    )
    query = {
        "now": now,
        "outcomes": its_outcomes,
        "touches": [(field.name, field.encode(now)) for field in decaying],
        "reads": reads,
        "cycles": [f"{field.name}#cycles" for field in turning if field.cycles],
        "pressures": [(f"{field.name}#pressure", field.pressure_rate) for field in turning if field.pressure_rate],
        "factors": {
            "acted": float(Defaults.ACTED_CYCLE_STRENGTHEN_FACTOR),
            "dismissed": float(Defaults.DISMISSED_CYCLE_WEAKEN_FACTOR),
            "contradicted": float(Defaults.CONTRADICTED_CYCLE_WEAKEN_FACTOR),
        },
        "beliefs": beliefs,
        "signals": {
            "acted": float(Defaults.ACTED_CONFIDENCE_SIGNAL),
            "contradicted": float(Defaults.CONTRADICTED_CONFIDENCE_SIGNAL),
        },
        "discharge": float(Defaults.AUTO_DISCHARGE_CONFIDENCE_THRESHOLD),
        "ledger": meta_key(keys) if issubclass(model, PredictionLedgerMixin) else False,
        "event": event_of(model, keys, ",".join(field.name for field in decaying)) or False,
        "errors": [_error(instance, outcome) for instance, outcome in zip(instances, its_outcomes, strict=True)],
    }

    def parse(reply: Any) -> None:
        for instance, outcome, (done, *confidences) in zip(instances, its_outcomes, reply, strict=True):
            if not done:
                if stored_keys(instance):
                    logger.warning("on_context_used(): %s is gone (deleted or expired); passed over", instance.pk)
                continue
            values = instance.__dict__
            if outcome == "acted":
                values.update((field.name, now) for field in decaying)
            for (name, _, _), confidence in zip(beliefs, confidences, strict=True):
                if confidence is not None:
                    values[name] = float(confidence)

    args = (*(instance.pk for instance in instances), keys.sentinel, pack(query), "")
    return Command(args, parse, OBSERVE.of(model), key_count=len(instances) + 1, repeat="token")


def _error(instance: Any, outcome: str) -> Any:
    """Return (error, partition, what the confidences get or False) for an open prediction; False for no change."""
    if not isinstance(instance, PredictionLedgerMixin) or outcome == "deferred":
        return False
    error = outcome_errors(instance).get(outcome)
    if error is None:
        return False  # the model says that this outcome resolves nothing
    # contradicted: the confidence is contradicted already, and one penalty is enough
    lowers = outcome != "contradicted" and error > instance._pl_confidence_error_threshold
    signal = float(instance._pl_confidence_low_signal) if lowers else False
    return float(error), index_part(str(instance._pl_partition)), signal
