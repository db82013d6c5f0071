"""What nobody asked for and is due all the same (push path), and what an assembly leaves behind.

A record is due when the score of the model's CyclicDecayField (freshness, rhythm and unresolved pressure together)
reaches the surfacing threshold. A share of the context is reserved for such records, so that good answers to the cues
do not keep them out for ever; what is not needed of it goes to the answers.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any

from popoto.memory.access import stage_command
from popoto.memory.cyclic import CyclicDecayField
from popoto.memory.proposals import propose_commands
from popoto.memory.staging import tracks
from popoto.orm import shards
from popoto.orm.drivers import one_by_one

PUSH_SHARE = 0.2  # of max_items

Steps = Generator[Any, Any, Any]


def due_steps(builder: Any, n: int, threshold: float) -> Generator[Any, Any, list[Any]]:
    """Return the n records that are most due, with their score in `_decay_score`; none without a CyclicDecayField.

    Args:
        builder: its filters decide who takes part; an exact one for the field's partition is required.
        threshold: lowest score that counts; 0 or less for none.
    Raises: QueryException: a partition without a filter.
    """
    fields = builder.model_class._meta.fields
    name = next((name for name, field in fields.items() if isinstance(field, CyclicDecayField)), None)
    if name is None or n <= 0:
        return []
    found = yield from builder.no_track()._top_by_decay(name, n, None, None)
    return [record for record in found if threshold <= 0 or record._decay_score >= threshold]


def shared_out(pulled: Sequence[Any], due: Sequence[Any], max_items: int) -> tuple[list[Any], list[Any]]:
    """Return (the answers, the proactive ones) that make up a context of `max_items` records.

    Args:
        pulled: answers to the cues, best first.
        due: records that are due, most due first; they may be among the answers.
    """
    reserved = math.ceil(PUSH_SHARE * max_items) if max_items > 1 else 0
    while True:
        answers = list(pulled[: max_items - reserved])
        inside = {record.pk for record in answers}
        unasked = [record for record in due if record.pk not in inside]
        if len(unasked) >= reserved:
            return answers, unasked[: max_items - len(answers)]
        reserved -= 1  # one place more than is needed: an answer gets it


def effects_steps(model: Any, answers: Sequence[Any], proactive: Sequence[Any], partition: Any) -> Steps:
    """Stage one read of each answer, where the model tracks reads; note a proposal for each proactive record."""
    read = shards.lists(model._meta, [record.pk for record in answers]) if tracks(model) else []
    yield from one_by_one([stage_command(model, keys) for keys in read] + propose_commands(proactive, partition))
