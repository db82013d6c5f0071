"""An operation is a value: a `Command`. The sync API runs it, the async API awaits it, a pipeline queues it.

How a command is sent, repeated and given up is written once, as a generator (`exchange`); so are operations of several
commands (slices, hops), which yield commands and are sent their results. popoto.orm.drivers runs both, sync and async.

redis-py's own retries are off, for they repeat a command whose reply was cut. Here each command says what may be done
when the connection breaks: a read is repeated; a write carries a token, under which the server keeps its reply for a
minute, so that a repeat is answered and not done again; what can neither be repeated nor recognised raises
UnknownOutcomeError.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import redis.exceptions
from redis.client import Pipeline

from popoto import redis_db
from popoto.exceptions import ModelException, QueryException, UnknownOutcomeError
from popoto.orm import keys
from popoto.orm.scripts import Script, evalsha_or_source
from popoto.orm.wire import BROKEN, hopeless, never_sent, refused_unread

T = TypeVar("T")
_PAUSES_S = (0.0, 0.05, 0.2, 0.5, 1.0)  # before each repeat; together far below the minute that a token lives
_ERRORS: dict[str, type[Exception]] = {  # the first word of a script's refusal -> what it raises
    "UNIQUE": ModelException,
    "EXISTS": ModelException,
    "MISSING": ModelException,
    "GONE": TypeError,  # a method of a stored record, called on one that is not
    "CORRUPT": ModelException,
    "RANGE": ModelException,
    "UNINDEXED": ModelException,
    "UNKNOWNKIND": ModelException,
    "HOOK": ModelException,
    "BADQUERY": QueryException,
}


def _same(reply: Any) -> Any:
    return reply


@dataclass(slots=True)
class Command(Generic[T]):
    """One server call and how to read its reply; does no I/O itself.

    Attributes:
        args: a plain command, or KEYS followed by ARGV of `script`.
        script: None for a plain command.
        key_count: how many of `args` are KEYS.
        parse: turns the reply into the result; also called for each queued command of a bulk call.
        repeat: "read" = may be sent again; "token" = the last argument is a token key, "" in a pipeline; "never".
    """

    args: tuple[Any, ...]
    parse: Callable[[Any], T] = _same
    script: Script | None = None
    key_count: int = 0
    repeat: str = "read"

    def with_token(self) -> tuple[Any, ...]:
        """Return the arguments, with a fresh token where the command wants one."""
        if self.repeat != "token":
            return self.args
        return (*self.args[:-1], keys.token_key(redis_db.key_namespace(), _new_token()))


_token_state: tuple[int, str, itertools.count[int]] = (0, "", itertools.count())


def _new_token() -> str:
    """Return a name no other call has: random per process, counted within it (fork safe)."""
    global _token_state
    pid, prefix, counter = _token_state
    if pid != os.getpid():
        prefix, counter = os.urandom(8).hex(), itertools.count()
        _token_state = (os.getpid(), prefix, counter)
    return f"{prefix}{next(counter):x}"


def translated(error: redis.exceptions.ResponseError) -> Exception:
    """Return the package's own exception for a refusal of a script, else the error itself."""
    code, _, sentence = str(error).partition(" ")
    wanted = _ERRORS.get(code)
    if wanted is not None:
        return wanted(sentence)
    if code == "WRONGTYPE" and "nothing was written" in sentence:
        return ModelException(sentence)
    return error


def _attempts(command: Command[Any]) -> Iterator[tuple[float, bool]]:
    """Yield (pause before the attempt, is it the last) for a command."""
    pauses = _PAUSES_S if command.repeat != "never" else _PAUSES_S[:1]
    for number, pause in enumerate(pauses):
        yield pause, number == len(pauses) - 1


def _gave_up(command: Command[Any], error: Exception) -> Exception:
    if command.repeat == "read":
        return error
    name = command.script.name if command.script else command.args[0]
    return UnknownOutcomeError(
        f"the connection broke during '{name}' ({error}); whether it happened is unknown. "
        "Read the record before you repeat it."
    )


Exchange = Generator[Any, Any, T]
"""A conversation with the server: yields a pause (float, seconds), one call (tuple of arguments) or a filled pipeline,
and is sent the reply or thrown the error. popoto.orm.drivers hold it, sync or async."""


def exchange(command: Command[T]) -> Exchange[T]:
    """Run one command: hash first, source where the server does not know it, repeats where the connection breaks.

    Raises: ModelException, QueryException: the server refused, nothing was written. UnknownOutcomeError: the connection
        broke during a write, and no repeat got through. redis-py's errors: the connection, a wrong type.
    """
    script = command.script
    args = command.with_token()
    sent = False
    for pause, last in _attempts(command):
        if pause:
            yield pause
        try:
            if script is None:
                reply = yield args
            else:
                try:
                    reply = yield ("EVALSHA", script.sha, command.key_count, *args)
                except redis.exceptions.NoScriptError:
                    reply = yield ("EVAL", script.source, command.key_count, *args)
        except BROKEN as error:
            no_use = hopeless(error)
            sent = sent or not (no_use or never_sent(error))
            if last or no_use:
                raise (_gave_up(command, error) if sent else error) from error
        except redis.exceptions.ResponseError as error:
            if not (sent and command.repeat != "read" and refused_unread(error)):
                raise translated(error) from None
            if last:
                raise _gave_up(command, error) from error
        else:
            return command.parse(reply)
    raise AssertionError("unreachable")


def exchange_reads(commands: Sequence[Command[Any]], client: Any) -> Exchange[list[Any]]:
    """Run commands that may be repeated in one round trip, and return their parsed replies."""
    for pause, last in _attempts(commands[0]):
        if pause:
            yield pause
        try:
            replies = yield _filled(commands, client, by_hash=True)
            if any(isinstance(reply, redis.exceptions.NoScriptError) for reply in replies):
                replies = yield _filled(commands, client, by_hash=False)
        except BROKEN as error:
            if last or hopeless(error):
                raise
        else:
            return _parsed(commands, replies)
    raise AssertionError("unreachable")


def _filled(commands: Sequence[Command[Any]], client: Any, by_hash: bool) -> Any:
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        if command.script is not None and by_hash:
            pipeline.execute_command("EVALSHA", command.script.sha, command.key_count, *command.args)
        else:
            queue(command, pipeline)
    return pipeline


def _parsed(commands: Sequence[Command[Any]], replies: list[Any]) -> list[Any]:
    out = []
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, redis.exceptions.ResponseError):
            raise translated(reply)
        if isinstance(reply, Exception):
            raise reply
        out.append(command.parse(reply))
    return out


def hash_of(reply: Any) -> dict[bytes, bytes]:
    """Return an HGETALL's reply as a dict: raw it is a flat list, from a pipeline redis-py has made a dict of it."""
    if isinstance(reply, dict):
        return reply
    pairs = iter(reply)
    return dict(zip(pairs, pairs, strict=True))


def queue(command: Command[Any], pipeline: Any) -> Any:
    """Add the command to a caller's pipeline and return the pipeline.

    The caller's `execute()` gives the raw reply; a refusal surfaces there as redis-py's ResponseError.
    """
    require_pipeline(pipeline)
    if command.script is None:
        pipeline.execute_command(*command.args)
    else:
        how, text = evalsha_or_source(command.script, pipeline)
        pipeline.execute_command(how, text, command.key_count, *command.args)
    return pipeline


def require_pipeline(pipeline: Any) -> None:
    """Refuse what is not a pipeline: a call that was meant to be queued must not run at once."""
    if not isinstance(pipeline, Pipeline) and not hasattr(pipeline, "command_stack"):
        raise TypeError(
            f"pipeline= expected a redis-py Pipeline (get_redis().pipeline()), got {type(pipeline).__name__}. "
            "Leave it out to run at once."
        )
