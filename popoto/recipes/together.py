"""Operations side by side: what several of them ask the server next travels in one round trip."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from popoto.orm.commands import Command


def together(*operations: Generator[Any, Any, Any]) -> Generator[Any, Any, list[Any]]:
    """Run operations of reads (popoto.orm.commands) in step with each other; return their results in their order.

    It takes as many round trips as the longest of them. An error of one ends all.
    """
    results: list[Any] = [None] * len(operations)
    asked: dict[int, Command[Any] | list[Command[Any]]] = {}

    def go_on(number: int, reply: Any) -> None:
        try:
            asked[number] = operations[number].send(reply)
        except StopIteration as end:
            results[number] = end.value

    for number in range(len(operations)):
        go_on(number, None)
    while asked:
        steps, asked = asked, {}
        commands = [command for step in steps.values() for command in (step if isinstance(step, list) else [step])]
        replies = iter((yield commands))
        for number, step in steps.items():
            if isinstance(step, list):
                go_on(number, [next(replies) for _ in step])
            else:
                go_on(number, next(replies))
    return results
