"""The operations in terms of the popoto API. Both the library of this repository and the published peer have
that API, so both are measured through the same lines; they differ in `save_batch` alone."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import popoto
from popoto import Field, IndexedField, KeyField, Model, SortedField
from popoto.redis_db import get_REDIS_DB

from .. import data, micro, signals
from .protocol import Stopwatch, Worker


class Record(Model):
    name = KeyField(type=str)
    category = IndexedField(type=str)
    score = SortedField(type=float)
    rank = SortedField(type=int)
    note = Field(type=str)
    active = Field(type=bool)


class Spare(Model):
    """Records of the same shape that an operation may change or delete as a whole."""

    name = KeyField(type=str)
    category = IndexedField(type=str)
    score = SortedField(type=float)
    rank = SortedField(type=int)
    note = Field(type=str)
    active = Field(type=bool)


class PopotoWorker(Worker):
    packages = ("msgpack",)

    def save_batch(self, rows: Iterable[data.RecordRow]) -> None:
        """Construct and save records in as few round trips as the library can."""
        raise NotImplementedError

    def save_one(self, row: data.RecordRow) -> None:
        Record(**row).save()

    def hello(self) -> dict[str, str]:
        return {
            **super().hello(),
            "popoto": getattr(popoto, "__version__", "of the checkout"),
            "popoto file": str(popoto.__file__),
        }

    def load_records(self, numbers: Iterable[int]) -> None:
        self.save_batch(map(data.record, numbers))

    def load_memories(self, numbers: Iterable[int]) -> None:
        from .popoto_memory import Memory

        # A plain save sets the time of last touch to now; skip_auto_now keeps the ages of the data.
        now = time.time()
        pipe = get_REDIS_DB().pipeline()
        for number in numbers:
            Memory(**data.memory(number, now)).save(pipeline=pipe, skip_auto_now=True)
        pipe.execute()

    def load_signals(self, numbers: Iterable[int]) -> None:
        from .popoto_signals import load

        load(numbers, time.time())

    def load_unrelated(self, numbers: Iterable[int]) -> None:
        from .popoto_signals import load

        load(numbers, time.time(), related=False)

    def op_construct(self, size: int, repeat: int, watch: Stopwatch) -> None:
        micro.construct(Record, repeat, watch)

    def op_hydrate(self, size: int, repeat: int, watch: Stopwatch) -> None:
        keys = [str(Record(**data.record(number)).db_key) for number in range(data.BATCH)]
        micro.hydrate(lambda: Record.query.get_many(redis_keys=keys), repeat, watch)

    def _remove(self, instances: Iterable[Any]) -> None:
        pipe = get_REDIS_DB().pipeline()
        for instance in instances:
            instance.delete(pipeline=pipe)
        pipe.execute()

    def op_save(self, size: int, repeat: int, watch: Stopwatch) -> None:
        instances = [Record(**data.record(number)) for number in self.new_numbers(repeat)]
        with watch:
            for instance in instances:
                instance.save()
        self._remove(instances)

    def op_create(self, size: int, repeat: int, watch: Stopwatch) -> None:
        rows = [data.record(number) for number in self.new_numbers(repeat)]
        with watch:
            instances = [Record.create(**row) for row in rows]
        self._remove(instances)

    def op_save_pipelined(self, size: int, repeat: int, watch: Stopwatch) -> None:
        for _ in range(repeat):
            rows = [data.record(number) for number in self.new_numbers(data.BATCH)]
            with watch:
                self.save_batch(rows)
            names = [row["name"] for row in rows]
            keys = [str(Record(name=name).db_key) for name in names]
            self._remove(Record.query.get_many(redis_keys=keys))

    def _spare(self) -> list[Spare]:
        return [Spare(**data.record(number)) for number in range(data.BATCH)]

    def op_bulk_create(self, size: int, repeat: int, watch: Stopwatch) -> None:
        for _ in range(repeat):
            instances = self._spare()
            with watch:
                Spare.bulk_create(instances)
            Spare.delete_all()

    def op_bulk_update(self, size: int, repeat: int, watch: Stopwatch) -> int:
        Spare.bulk_create(self._spare())
        changed = 0
        for call in range(repeat):
            with watch:
                changed = Spare.bulk_update(Spare.query.filter(score__gte=0.0), score=0.5 + call)
        Spare.delete_all()
        return changed

    def op_delete_all(self, size: int, repeat: int, watch: Stopwatch) -> int:
        deleted = 0
        for _ in range(repeat):
            Spare.bulk_create(self._spare())
            with watch:
                deleted = Spare.delete_all()
        return deleted

    def op_get(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        names = [data.name_of(data.loaded_number(call, size)) for call in range(repeat)]
        answer = ""
        with watch:
            for name in names:
                answer = micro.read_record(Record.query.get(name=name))
        return [answer]

    def op_update_one(self, size: int, repeat: int, watch: Stopwatch) -> None:
        count = min(repeat, size, 200)
        instances = [Record.query.get(name=data.name_of(data.loaded_number(call, size))) for call in range(count)]
        olds = [instance.score for instance in instances]
        with watch:
            for call in range(repeat):
                instance = instances[call % count]
                instance.score += 0.5
                instance.save(update_fields=["score"])
        for instance, old in zip(instances, olds, strict=True):
            instance.score = old
            instance.save(update_fields=["score"])

    def op_delete(self, size: int, repeat: int, watch: Stopwatch) -> None:
        instances = [Record(**data.record(number)) for number in self.new_numbers(repeat)]
        for instance in instances:
            instance.save()
        with watch:
            for instance in instances:
                instance.delete()

    def op_filter(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        low, high = data.SCORE_RANGE
        answer: list[str] = []
        with watch:
            for call in range(repeat):
                page = Record.query.filter(
                    category=data.asked_category(call), score__gte=low, score__lte=high, limit=data.PAGE
                )
                answer = [micro.read_record(instance) for instance in page]
        return answer

    def op_range(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        low, high = data.NARROW_RANGE
        answer: list[str] = []
        with watch:
            for _ in range(repeat):
                found = Record.query.filter(score__gte=low, score__lte=high)
                answer = [micro.read_record(instance) for instance in found]
        return answer

    def op_count_range(self, size: int, repeat: int, watch: Stopwatch) -> int:
        low, high = data.SCORE_RANGE
        answer = 0
        with watch:
            for call in range(repeat):
                answer = Record.query.count(category=data.asked_category(call), score__gte=low, score__lte=high)
        return answer

    def op_order_by(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        answer: list[str] = []
        with watch:
            for _ in range(repeat):
                page = Record.query.filter(order_by="-score", limit=data.PAGE)
                answer = [micro.read_record(instance) for instance in page]
        return answer

    def op_startswith(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        prefixes = [data.asked_prefix(call, size) for call in range(repeat)]
        answer: list[str] = []
        with watch:
            for prefix in prefixes:
                answer = [micro.read_record(instance) for instance in Record.query.filter(name__startswith=prefix)]
        return answer

    def op_count(self, size: int, repeat: int, watch: Stopwatch) -> int:
        answer = 0
        with watch:
            for _ in range(repeat):
                answer = Record.query.count()
        return answer

    def op_count_where(self, size: int, repeat: int, watch: Stopwatch) -> int:
        answer = 0
        with watch:
            for call in range(repeat):
                answer = Record.query.count(category=data.asked_category(call))
        return answer

    def op_top_by_decay(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        from .popoto_memory import Memory

        answer: list[str] = []
        with watch:
            for _ in range(repeat):
                top = Memory.query.filter(agent_id=data.AGENT).top_by_decay("relevance", n=data.PAGE)
                answer = [m.name for m in top if (m.agent_id, m.importance, m.relevance)]
        return answer

    def op_top_by_decay_cycles(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        from .popoto_signals import asked

        answer: list[str] = []
        with watch:
            for _ in range(repeat):
                answer = [m.name for m in asked().top_by_decay("rhythm", n=data.PAGE)]
        return answer

    def _composite(self, weights: dict[str, float], repeat: int, watch: Stopwatch) -> list[str]:
        from .popoto_signals import asked

        answer: list[str] = []
        with watch:
            for _ in range(repeat):
                answer = [m.name for m in asked().composite_score(indexes=weights, limit=data.PAGE)]
        return answer

    def op_composite_two(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        return self._composite(signals.TWO, repeat, watch)

    def op_composite_four(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        return self._composite(signals.FOUR, repeat, watch)

    def op_composite_unrelated(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        return self._composite(signals.FOUR, repeat, watch)

    def op_search(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        from .popoto_signals import Signal

        queries = [signals.query(call) for call in range(repeat)]
        found: list[Any] = []
        with watch:
            for text in queries:
                found = popoto.BM25Field.search(Signal, "words", text, limit=data.PAGE)
        return [key.rpartition(":")[2] for key, _ in found]
