"""redis-om's HashModel. Every query of it needs the search module, which neither server here has: queries are
"-".

`index=True` lets it take `name` as the key; no search index is made, so its saves write the hash alone and
are not the same work as a save that keeps indexes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import redis_om

from .. import data, micro
from .protocol import Stopwatch, Worker, serve

CONNECTION = redis_om.get_redis_connection(url=f"unix://{sys.argv[1]}?db={sys.argv[2]}", decode_responses=True)


class Record(redis_om.HashModel, index=True):
    name: str = redis_om.Field(primary_key=True)
    category: str
    score: float
    rank: int
    note: str
    active: bool

    class Meta:
        database = CONNECTION
        global_key_prefix = "benchmark"
        model_key_prefix = "Record"


class RedisOm(Worker):
    packages = ("redis-om", "pydantic")

    def load_records(self, numbers: Iterable[int]) -> None:
        Record.add([Record(**data.record(number)) for number in numbers])

    def op_construct(self, size: int, repeat: int, watch: Stopwatch) -> None:
        micro.construct(Record, repeat, watch)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            Record.delete(name)

    def op_save(self, size: int, repeat: int, watch: Stopwatch) -> None:
        instances = [Record(**data.record(number)) for number in self.new_numbers(repeat)]
        with watch:
            for instance in instances:
                instance.save()
        self._remove(instance.name for instance in instances)

    def op_create(self, size: int, repeat: int, watch: Stopwatch) -> None:
        rows = [data.record(number) for number in self.new_numbers(repeat)]
        with watch:
            for row in rows:
                Record(**row).save()
        self._remove(row["name"] for row in rows)

    def op_save_pipelined(self, size: int, repeat: int, watch: Stopwatch) -> None:
        for _ in range(repeat):
            rows = [data.record(number) for number in self.new_numbers(data.BATCH)]
            with watch:
                Record.add([Record(**row) for row in rows])
            self._remove(row["name"] for row in rows)

    def op_get(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        names = [data.name_of(data.loaded_number(call, size)) for call in range(repeat)]
        answer = ""
        with watch:
            for name in names:
                answer = micro.read_record(Record.get(name))
        return [answer]

    def op_update_one(self, size: int, repeat: int, watch: Stopwatch) -> None:
        count = min(repeat, size, 200)
        instances = [Record.get(data.name_of(data.loaded_number(call, size))) for call in range(count)]
        olds = [instance.score for instance in instances]
        with watch:
            for call in range(repeat):
                instance = instances[call % count]
                instance.update(score=instance.score + 0.5)
        for instance, old in zip(instances, olds, strict=True):
            instance.update(score=old)

    def op_delete(self, size: int, repeat: int, watch: Stopwatch) -> None:
        names = [data.name_of(number) for number in self.new_numbers(repeat)]
        Record.add([Record(**data.record(data.FIRST_NEW)).model_copy(update={"name": name}) for name in names])
        with watch:
            for name in names:
                Record.delete(name)


if __name__ == "__main__":
    serve(RedisOm)
