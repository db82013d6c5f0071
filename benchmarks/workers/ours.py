"""The library of this repository."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from popoto.memory.bm25 import search_steps
from popoto.memory.composite import composite_of, composite_steps
from popoto.memory.cyclic_ranking import top_by_decay_steps
from popoto.orm.drivers import drive, run
from popoto.redis_db import get_REDIS_DB

from .. import data, signals
from .popoto_api import PopotoWorker, Record
from .protocol import serve


class Ours(PopotoWorker):
    packages = ("msgpack",)

    def save_batch(self, rows: Iterable[data.RecordRow]) -> None:
        pipe = get_REDIS_DB().pipeline()
        for row in rows:
            Record.create(pipeline=pipe, **row)
        pipe.execute()

    def visited(self, operation: str, call: int) -> int | None:
        steps = {
            "top_by_decay": self._decay_steps,
            "top_by_decay_cycles": self._cycle_steps,
            "composite_two": lambda stats: self._composite_steps(signals.TWO, stats),
            "composite_four": lambda stats: self._composite_steps(signals.FOUR, stats),
            "composite_unrelated": lambda stats: self._composite_steps(signals.FOUR, stats),
        }.get(operation)
        if operation == "search":
            return self._postings_read(signals.query(call))
        if steps is None:
            return None
        stats: dict[str, int] = {}
        drive(steps(stats))
        return stats["visited"]

    def _decay_steps(self, stats: dict[str, int]) -> Any:
        from .popoto_memory import Memory

        return top_by_decay_steps(Memory.query.filter(agent_id=data.AGENT), "relevance", data.PAGE, stats=stats)

    def _cycle_steps(self, stats: dict[str, int]) -> Any:
        from .popoto_signals import asked

        return top_by_decay_steps(asked(), "rhythm", data.PAGE, stats=stats)

    def _composite_steps(self, weights: dict[str, float], stats: dict[str, int]) -> Any:
        from .popoto_signals import asked

        return composite_steps(composite_of(asked(), weights), data.PAGE, stats=stats)

    def _postings_read(self, text: str) -> int:
        from .popoto_signals import Signal

        steps, reply, read = search_steps(Signal, "words", text, data.PAGE), None, 0
        while True:
            try:
                command = steps.send(reply)
            except StopIteration:
                return read
            reply = run(command)
            read += reply[2]


if __name__ == "__main__":
    serve(Ours)
