"""The floor: redis-py doing the same commands by hand. Replies are not decoded; there is no model at all.

Two rows are no floor in the strict sense, for no plain command answers the question:

- `filter` intersects into a temporary key on the server (ZINTERSTORE, ZRANGE, DEL in one MULTI), then reads
  the hashes.
- `top_by_decay` reads the ten *last touched* and their hashes. It ranks by age alone: what fetching any ten
  costs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import chain
from typing import Any

from .. import data
from . import raw_commands as raw
from .protocol import Stopwatch, Worker, serve


class Raw(Worker):
    packages = ("msgpack",)

    def _multi(self, commands: Iterable[raw.Command]) -> list[Any]:
        pipe = self.redis.pipeline(transaction=True)
        for command in commands:
            pipe.execute_command(*command)
        return pipe.execute()

    def _hashes(self, keys: Iterable[bytes | str]) -> list[dict[bytes, bytes]]:
        pipe = self.redis.pipeline(transaction=False)
        for key in keys:
            pipe.hgetall(key)
        return pipe.execute()

    def save_one(self, row: data.RecordRow) -> None:
        self._multi(raw.save_commands(row))

    @staticmethod
    def _names(keys: Iterable[bytes]) -> list[str]:
        return [key.decode().rsplit(":", 1)[1] for key in keys]

    def load_records(self, numbers: Iterable[int]) -> None:
        self._multi(chain.from_iterable(raw.save_commands(data.record(number)) for number in numbers))

    def load_memories(self, numbers: Iterable[int]) -> None:
        now = time.time()
        self._multi(chain.from_iterable(raw.save_memory_commands(data.memory(number, now)) for number in numbers))

    def op_hydrate(self, size: int, repeat: int, watch: Stopwatch) -> None:
        keys = [raw.record_key(data.name_of(number)) for number in range(data.BATCH)]
        with watch:
            for _ in range(repeat):
                self._hashes(keys)

    def op_save(self, size: int, repeat: int, watch: Stopwatch) -> None:
        rows = [data.record(number) for number in self.new_numbers(repeat)]
        with watch:
            for row in rows:
                self._multi(raw.save_commands(row))
        self._remove(rows)

    op_create = op_save  # there is nothing to construct

    def _remove(self, rows: Iterable[data.RecordRow]) -> None:
        self._multi(chain.from_iterable(map(raw.delete_commands, rows)))

    def op_save_pipelined(self, size: int, repeat: int, watch: Stopwatch) -> None:
        for _ in range(repeat):
            rows = [data.record(number) for number in self.new_numbers(data.BATCH)]
            with watch:
                self._multi(chain.from_iterable(map(raw.save_commands, rows)))
            self._remove(rows)

    op_bulk_create = op_save_pipelined

    def op_bulk_update(self, size: int, repeat: int, watch: Stopwatch) -> None:
        numbers = range(data.BATCH)  # known beforehand: there is no query
        for call in range(repeat):
            with watch:
                self._multi(
                    chain.from_iterable(raw.update_score_commands(data.name_of(n), 0.5 + call) for n in numbers)
                )
        self._multi(chain.from_iterable(raw.update_score_commands(data.name_of(n), data.score_of(n)) for n in numbers))

    def op_delete_all(self, size: int, repeat: int, watch: Stopwatch) -> None:
        for _ in range(repeat):
            rows = [data.record(number) for number in self.new_numbers(data.BATCH)]
            self._multi(chain.from_iterable(map(raw.save_commands, rows)))
            with watch:
                self._remove(rows)

    def op_get(self, size: int, repeat: int, watch: Stopwatch) -> None:
        keys = [raw.record_key(data.name_of(data.loaded_number(call, size))) for call in range(repeat)]
        with watch:
            for key in keys:
                self.redis.hgetall(key)

    def op_update_one(self, size: int, repeat: int, watch: Stopwatch) -> None:
        numbers = [data.loaded_number(call, size) for call in range(min(repeat, size, 200))]
        names = [data.name_of(number) for number in numbers]
        with watch:
            for call in range(repeat):
                self._multi(raw.update_score_commands(names[call % len(names)], 0.5 + call))
        for number in numbers:
            self._multi(raw.update_score_commands(data.name_of(number), data.score_of(number)))

    def op_delete(self, size: int, repeat: int, watch: Stopwatch) -> None:
        rows = [data.record(number) for number in self.new_numbers(repeat)]
        self._multi(chain.from_iterable(map(raw.save_commands, rows)))
        with watch:
            for row in rows:
                self._multi(raw.delete_commands(row))

    def op_filter(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        low, high = data.SCORE_RANGE
        keys: list[bytes] = []
        with watch:
            for call in range(repeat):
                members = raw.category_set(data.asked_category(call))
                replies = self._multi(
                    [
                        ("ZINTERSTORE", "$Tmp", 2, members, raw.SCORE_SET, "WEIGHTS", 0, 1),
                        ("ZRANGE", "$Tmp", low, high, "BYSCORE", "LIMIT", 0, data.PAGE),
                        ("DEL", "$Tmp"),
                    ]
                )
                keys = replies[1]
                self._hashes(keys)
        return self._names(keys)

    def op_range(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        low, high = data.NARROW_RANGE
        keys: list[bytes] = []
        with watch:
            for _ in range(repeat):
                keys = self.redis.execute_command("ZRANGE", raw.SCORE_SET, low, high, "BYSCORE")
                self._hashes(keys)
        return self._names(keys)

    def op_order_by(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        keys: list[bytes] = []
        with watch:
            for _ in range(repeat):
                keys = self.redis.execute_command("ZRANGE", raw.SCORE_SET, 0, data.PAGE - 1, "REV")
                self._hashes(keys)
        return self._names(keys)

    def op_startswith(self, size: int, repeat: int, watch: Stopwatch) -> list[str]:
        prefixes = [data.asked_prefix(call, size).encode() for call in range(repeat)]
        keys: list[bytes] = []
        with watch:
            for prefix in prefixes:
                low = raw.record_key("").encode() + prefix
                keys = self.redis.zrangebylex(raw.ORDER_BY_NAME, b"[" + low, b"(" + low + b"\xff")
                self._hashes(keys)
        return self._names(keys)

    def op_count(self, size: int, repeat: int, watch: Stopwatch) -> int:
        answer = 0
        with watch:
            for _ in range(repeat):
                answer = self.redis.scard(raw.CLASS_SET)
        return answer

    def op_count_where(self, size: int, repeat: int, watch: Stopwatch) -> int:
        answer = 0
        with watch:
            for call in range(repeat):
                answer = self.redis.scard(raw.category_set(data.asked_category(call)))
        return answer

    def op_top_by_decay(self, size: int, repeat: int, watch: Stopwatch) -> None:
        with watch:
            for _ in range(repeat):
                self._hashes(self.redis.execute_command("ZRANGE", raw.DECAY_SET, 0, data.PAGE - 1, "REV"))


if __name__ == "__main__":
    serve(Raw)
