"""Reads staged by the very call that ranks: a ranking of a model that tracks its reads stays one round trip.

The ranking's script stands in a function, and what follows stages a read of each record that it returns
(lua/stage_ranked.lua). That suits a call whose best are the result as they are: on one server, without a `post_filter`.
Elsewhere the query stages what it hands out in a call of its own (access.stage_command).
"""

from __future__ import annotations

from collections.abc import Generator
from functools import cached_property
from typing import Any

import redis.exceptions

from popoto.memory import clock
from popoto.memory.access import FRAGMENTS, AccessTrackerMixin, count_key, longest_log
from popoto.memory.composite import COMPOSITE
from popoto.memory.ranking import TOP_BY_DECAY
from popoto.orm.commands import Command
from popoto.orm.scripts import Script


class StagingScript(Script):
    """A ranking's script, and behind it the staging of what it returns."""

    def __init__(self, ranking: Script) -> None:
        super().__init__("popoto.memory", "stage_ranked", FRAGMENTS, with_kinds=True)
        self._ranking = ranking
        self._behind = Script("popoto.memory", "stage_ranked", FRAGMENTS, with_kinds=True)

    @cached_property
    def source(self) -> str:
        first, _, ranking = self._ranking.source.partition("\n")
        own_first, _, own = self._behind.source.partition("\n")
        assert first.startswith("#!lua") and own_first == "#!lua"
        body = "".join(f" {line}\n" for line in ranking.splitlines())  # its locals are not those of the chunk
        return f"#!lua\nlocal function ranked()\n{body}end\n{own}"


_STAGING: dict[Script | None, StagingScript] = {script: StagingScript(script) for script in (COMPOSITE, TOP_BY_DECAY)}


def tracks(model: Any) -> bool:
    """Return True if queries stage reads of the model's records."""
    return issubclass(model, AccessTrackerMixin) and model._track_reads


def staged_within(model: Any, steps: Generator[Any, Any, list[Any]]) -> Generator[Any, Any, tuple[list[Any], bool]]:
    """Run a ranking, and stage what it returns in its last call; return the result and whether that was possible."""
    staged = False
    step = next_step = None
    error: Exception | None = None
    while True:
        try:
            step = steps.send(next_step) if error is None else steps.throw(error)
        except StopIteration as end:
            return end.value, staged
        next_step, error = None, None
        writing = _staging(model, step)
        try:
            next_step = yield step if writing is None else writing
            staged = staged or (writing is not None and next_step[0] == 0)
        except redis.exceptions.ResponseError as refusal:
            if writing is None or not str(refusal).startswith("WRONGTYPE"):
                error = refusal
                continue
            try:  # as a read, which finds out what lies in the way
                next_step = yield step
            except Exception as problem:
                error = problem
        except Exception as problem:
            error = problem


def _staging(model: Any, step: Any) -> Command[Any] | None:
    """Return a call that ranks as one that also stages; None for any other."""
    script = _STAGING.get(step.script) if isinstance(step, Command) else None
    if script is None:
        return None
    keys = model._meta.keys
    args = (*step.args, count_key(keys), repr(clock.now()), longest_log(model), "")
    return Command(args, step.parse, script, key_count=step.key_count, repeat="token")
