"""What an instance costs without (as far as that can be had) the server: constructing one, and reading a
thousand.

`construct` needs no server. `hydrate` reads 1,000 records by one `get_many` and then reads every field of
each, so that a library which decodes on first access gains nothing. What the same reply costs bare redis-py
(a pipeline of HGETALL, nothing decoded) is shown beside it: the difference is the library's own share.

`python -m benchmarks.micro` runs the two alone and prints rates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from . import data


def read_record(instance: Any) -> str:
    """Read all six fields, so that lazy decoding is paid for; return the name."""
    name: str = instance.name
    _ = (instance.category, instance.score, instance.rank, instance.note, instance.active)
    return name


def construct(make: Callable[..., Any], repeat: int, watch: Any) -> None:
    """Time `make(**fields)`, called `repeat` times."""
    rows = [data.record(number) for number in range(repeat)]
    with watch:
        for row in rows:
            make(**row)


def hydrate(read: Callable[[], Iterable[Any]], repeat: int, watch: Any) -> None:
    """Time `read()`, which returns BATCH instances, and the reading of every field of them, `repeat`
    times."""
    with watch:
        for _ in range(repeat):
            count = 0
            for instance in read():
                read_record(instance)
                count += 1
            if count != data.BATCH:
                raise AssertionError(f"hydrated {count} records, expected {data.BATCH}")


def rates(seconds_an_item: dict[tuple[str, str], float]) -> list[str]:
    """Lines of the micro report from (operation, contender) -> seconds an item."""
    lines = ["contender      construct/s   hydrate/s   hydrate/s less bare redis-py"]
    bare = seconds_an_item.get(("hydrate", "raw"))
    for contender in dict.fromkeys(name for _, name in seconds_an_item):
        made = seconds_an_item.get(("construct", contender))
        read = seconds_an_item.get(("hydrate", contender))
        own = read - bare if read is not None and bare is not None and read > bare else None
        shown = [f"{1 / seconds:,.0f}" if seconds else "-" for seconds in (made, read, own)]
        lines.append(f"{contender:<12}{shown[0]:>14}{shown[1]:>12}{shown[2]:>31}")
    return lines


if __name__ == "__main__":
    import sys

    from .__main__ import main

    sys.exit(main(["--only", "construct,hydrate", "--sizes", "1k", "--rates", *sys.argv[1:]]))
