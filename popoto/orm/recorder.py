"""The pipeline that hooks get: it records what they queue, for the plan of the save."""

from __future__ import annotations

from typing import Any

from redis.client import Pipeline

from popoto.exceptions import ModelException


class Recorder(Pipeline):
    """The pipeline that `on_save` and `on_delete` hooks get: it records commands, which then travel in the plan.

    They run on the server after the guards, in the same atomic step as the save; a refused save runs none of them.
    """

    def __init__(self) -> None:
        # no pool, no connection: nothing is ever sent from here
        self.commands: list[list[Any]] = []
        self.command_stack: list[Any] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Record one command; numbers and text travel as redis-py would send them."""
        self.commands.append([_as_sent(argument) for argument in args])
        return self

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Refuse: the commands run with the save."""
        raise ModelException(
            "a hook called execute() on the pipeline it was given; its commands run together with the save. "
            "Queue them and return the pipeline."
        )

    def __len__(self) -> int:
        return len(self.commands)

    def __bool__(self) -> bool:
        return True

    def __del__(self) -> None:
        pass


def _as_sent(argument: Any) -> str | bytes:
    if isinstance(argument, (str, bytes)):
        return argument
    if isinstance(argument, bool) or argument is None:
        raise TypeError(f"a Redis command takes text, bytes and numbers, got {argument!r}. Convert it first.")
    return repr(argument) if isinstance(argument, float) else str(argument)
