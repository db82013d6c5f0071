"""walrus. It has no bulk save, no partial save, no limit (its query is a generator, of which the first ten
are taken), no prefix search without its full-text index and no count by a condition."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import walrus

from .. import data, micro
from .protocol import Stopwatch, Worker, serve


class Record(walrus.Model):
    __namespace__ = "benchmark"
    name = walrus.TextField(primary_key=True)
    category = walrus.TextField(index=True)
    score = walrus.FloatField(index=True)
    rank = walrus.IntegerField(index=True)
    note = walrus.TextField()
    active = walrus.BooleanField()


class Walrus(Worker):
    packages = ("walrus",)

    def __init__(self, socket: str, db: int) -> None:
        super().__init__(socket, db)
        Record.__database__ = walrus.Database(unix_socket_path=socket, db=db)

    def load_records(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            Record.create(**data.record(number))

    def op_construct(self, size: int, repeat: int, watch: Stopwatch) -> None:
        micro.construct(Record, repeat, watch)

    def op_save(self, size: int, repeat: int, watch: Stopwatch) -> None:
        instances = [Record(**data.record(number)) for number in self.new_numbers(repeat)]
        with watch:
            for instance in instances:
                instance.save()
        for instance in instances:
            instance.delete()

    def op_create(self, size: int, repeat: int, watch: Stopwatch) -> None:
        rows = [data.record(number) for number in self.new_numbers(repeat)]
        with watch:
            instances = [Record.create(**row) for row in rows]
        for instance in instances:
            instance.delete()

    def op_get(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        names = [data.name_of(data.loaded_number(call, size)) for call in range(repeat)]
        answer = ""
        with watch:
            for name in names:
                answer = micro.read_record(Record.load(name))
        return [answer]

    def op_update_one(self, size: int, repeat: int, watch: Stopwatch) -> None:
        count = min(repeat, size, 200)
        instances = [Record.load(data.name_of(data.loaded_number(call, size))) for call in range(count)]
        olds = [instance.score for instance in instances]
        with watch:
            for call in range(repeat):
                instance = instances[call % count]
                instance.score += 0.5
                instance.save()
        for instance, old in zip(instances, olds, strict=True):
            instance.score = old
            instance.save()

    def op_delete(self, size: int, repeat: int, watch: Stopwatch) -> None:
        instances = [Record.create(**data.record(number)) for number in self.new_numbers(repeat)]
        with watch:
            for instance in instances:
                instance.delete()

    def op_filter(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        low, high = data.SCORE_RANGE
        answer: list[str] = []
        with watch:
            for call in range(repeat):
                asked = (Record.category == data.asked_category(call)) & (Record.score >= low) & (Record.score <= high)
                answer = [micro.read_record(instance) for instance in islice(Record.query(asked), data.PAGE)]
        return answer

    def op_order_by(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        answer: list[str] = []
        with watch:
            for _ in range(repeat):
                found = Record.query(order_by=Record.score.desc())
                answer = [micro.read_record(instance) for instance in islice(found, data.PAGE)]
        return answer

    def op_count(self, size: int, repeat: int, watch: Stopwatch) -> int:
        answer = 0
        with watch:
            for _ in range(repeat):
                answer = Record.count()
        return answer


if __name__ == "__main__":
    serve(Walrus)
