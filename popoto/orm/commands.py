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
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import redis.exceptions
from redis.asyncio.cluster import ClusterPipeline as AsyncClusterPipeline
from redis.client import Pipeline

from popoto import redis_db
from popoto.exceptions import (
    AlreadyExistsError,
    ModelException,
    QueryException,
    RecordGoneError,
    StaleRecordError,
    UnknownOutcomeError,
)
from popoto.orm import keys
from popoto.orm.cluster_wire import UNPLACED
from popoto.orm.misplaced import misplaced, refusal
from popoto.orm.scripts import Script, evalsha_or_source
from popoto.orm.wire import BROKEN, hopeless, never_sent, refused_unread

T = TypeVar("T")
_Call = tuple["Script | None", int, tuple[Any, ...]]
REPLICAS_MS = 1000  # so long a write waits for `wait_replicas`
NOSCRIPT = redis.exceptions.NoScriptError
_PAUSES_S = (0.0, 0.05, 0.2, 0.5, 1.0)  # before each repeat; together far below the minute that a token lives
_CLUSTER_PAUSES_S = (0.005, 0.02, 0.05, 0.1, 0.2, 0.3)
CLUSTER_PATIENCE_S = 30.0  # as long as a call waits for a cluster to be whole again; below the minute of a token
_ERRORS: dict[str, type[Exception]] = {  # the first word of a script's refusal -> what it raises
    "UNIQUE": AlreadyExistsError,
    "EXISTS": AlreadyExistsError,
    "MISSING": RecordGoneError,
    "STALE": StaleRecordError,
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
        repeat: "read" = may be sent again; "same" = a write that may, for it does the same again; "token" = the last
            argument is a token key, "" in a pipeline; "never".
        firsts: commands that must have been carried out before this one, on a cluster in other slots; who queues it in
            a pipeline runs them at once.
        thens: commands that come after it, likewise; a pipeline leaves them out.
    """

    args: tuple[Any, ...]
    parse: Callable[[Any], T] = _same
    script: Script | None = None
    key_count: int = 0
    repeat: str = "read"
    firsts: tuple[Command[Any], ...] = ()
    thens: tuple[Command[Any], ...] = ()

    def with_token(self) -> tuple[Any, ...]:
        """Return the arguments, with a fresh token where the command wants one."""
        if self.repeat != "token":
            return self.args
        space = keys.front_of(self.args[0]) + redis_db.key_namespace()  # the token lies in the slot of the keys
        return (*self.args[:-1], keys.token_key(space, _new_token()))


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


def stumbled(command: Command[Any], error: redis.exceptions.ResponseError) -> bool:
    """Return True when a script that only reads met a key of another type than the index keeps there."""
    text = str(error)
    unnamed = text.startswith("WRONGTYPE") and "nothing was written" not in text
    return unnamed and command.repeat == "read" and command.script is not None and command.script.reads_indexes


def _attempts(command: Command[Any], clustered: bool) -> Iterator[tuple[float, bool]]:
    """Yield (pause before the attempt, is it the last) for a command."""
    if clustered:
        yield from _attempts_on_cluster()
        return
    pauses = _PAUSES_S if command.repeat != "never" else _PAUSES_S[:1]
    for number, pause in enumerate(pauses):
        yield pause, number == len(pauses) - 1


def _attempts_on_cluster() -> Iterator[tuple[float, bool]]:
    """Yield attempts until a slot has had time to move, or a replica to take over."""
    end = time.monotonic() + CLUSTER_PATIENCE_S
    yield 0.0, False
    for pause in itertools.chain(_CLUSTER_PAUSES_S, itertools.repeat(_CLUSTER_PAUSES_S[-1])):
        last = time.monotonic() + pause >= end
        yield pause, last
        if last:
            return


def _gave_up(command: Command[Any], error: Exception) -> Exception:
    if command.repeat == "read":
        return error
    name = command.script.name if command.script else command.args[0]
    return UnknownOutcomeError(
        f"the connection broke during '{name}' ({error}); whether it happened is unknown. "
        "Read the record before you repeat it."
    )


Exchange = Generator[Any, Any, T]
"""A conversation with the server: yields a pause (float, seconds), one call (tuple of arguments) or a list of calls,
and is sent the reply or the list of replies (in which an error stands in the place of its reply), or thrown the error.
popoto.orm.drivers hold it, sync or async."""


def exchange(command: Command[T], clustered: bool = False) -> Exchange[T]:
    """Run one command: hash first, source where the server does not know it, repeats where the connection breaks.

    Raises: ModelException, QueryException: the server refused, nothing was written. UnknownOutcomeError: the connection
        broke during a write, and no repeat got through. redis-py's errors: the connection, a wrong type, a cluster that
        did not become whole in time.
    """
    if command.firsts:
        yield from carry_out(command.firsts, clustered)
    script = command.script
    args = command.with_token()
    wait = redis_db.replicas_to_wait_for() if clustered and command.repeat != "read" else 0
    sent = False
    for pause, last in _attempts(command, clustered):
        if pause:
            yield pause
        try:
            if wait:
                (reply,), short = yield from _awaited([(script, command.key_count, args)], wait)
                if isinstance(reply, NOSCRIPT):
                    (reply,), short = yield from _awaited([(script, command.key_count, args)], wait, by_hash=False)
                if isinstance(reply, Exception):
                    raise reply
            elif script is None:
                reply = yield args
            else:
                try:
                    reply = yield ("EVALSHA", script.sha, command.key_count, *args)
                except NOSCRIPT:
                    reply = yield ("EVAL", script.source, command.key_count, *args)
        except BROKEN as error:
            no_use = hopeless(error)
            sent = sent or not (no_use or never_sent(error))
            if last or no_use or (sent and command.repeat == "never"):
                raise (_gave_up(command, error) if sent else error) from error
        except UNPLACED as error:
            if last:
                raise (_gave_up(command, error) if sent else error) from error
        except redis.exceptions.ResponseError as error:
            if not (sent and command.repeat != "read" and refused_unread(error)):
                if stumbled(command, error):
                    raise (yield from misplaced(command.args, command.key_count)) from error
                raise translated(error) from None
            if last:
                raise _gave_up(command, error) from error
        else:
            result = command.parse(reply)
            if wait and short:
                raise _too_few(short, wait)
            if command.thens:
                yield from exchange_many(command.thens, clustered)
            return result
    raise AssertionError("unreachable")


def carry_out(firsts: Sequence[Command[Any]], clustered: bool) -> Exchange[None]:
    """Run what comes before a command; a result that is an exchange itself is carried on with."""
    for further in (yield from exchange_many(firsts, clustered)):
        if isinstance(further, Generator):
            yield from further


def exchange_many(commands: Sequence[Command[Any]], clustered: bool = False) -> Exchange[list[Any]]:
    """Run commands in one round trip (on a cluster, to each node), and return their replies parsed.

    Reads, and writes with a token: what was not answered is asked again, and only that.

    Raises: as `exchange`, for the first command that failed; the others have been carried out.
    """
    firsts = {first.args: first for command in commands for first in command.firsts}  # what several share, once
    if firsts:
        yield from carry_out(list(firsts.values()), clustered)
    calls = [(command.script, command.key_count, command.with_token()) for command in commands]
    writes = any(command.repeat != "read" for command in commands)
    wait = redis_db.replicas_to_wait_for() if clustered and writes else 0
    short: list[int] = []
    replies: list[Any] = [None] * len(commands)
    left: Sequence[int] = range(len(commands))
    for pause, last in _attempts(commands[0], clustered):
        if pause:
            yield pause
        try:
            if wait:
                got, short = yield from _awaited([calls[at] for at in left], wait)
            else:
                got = yield [_by_hash(*calls[at]) for at in left]
            unknown = [at for at, reply in zip(left, got, strict=True) if isinstance(reply, NOSCRIPT)]
            for at, reply in zip(left, got, strict=True):
                replies[at] = reply
            if unknown:
                if wait:
                    got, more = yield from _awaited([calls[at] for at in unknown], wait, by_hash=False)
                    short += more
                else:
                    got = yield [_by_source(*calls[at]) for at in unknown]
                for at, reply in zip(unknown, got, strict=True):
                    replies[at] = reply
        except BROKEN as error:
            if last or hopeless(error):
                raise next((_gave_up(c, error) for c in commands if c.repeat != "read"), error) from error
            continue
        left = [at for at in left if isinstance(replies[at], (*UNPLACED, *BROKEN)) and not hopeless(replies[at])]
        if left and last and isinstance(replies[left[0]], BROKEN):
            raise _gave_up(commands[left[0]], replies[left[0]])
        if not left or last:
            results = _parsed(commands, replies)
            if short:
                raise _too_few(short, wait)
            thens = [then for command in commands for then in command.thens]
            if thens:
                yield from exchange_many(thens, clustered)
            return results
    raise AssertionError("unreachable")


def _awaited(calls: Sequence[_Call], wait: int, by_hash: bool = True) -> Exchange[tuple[list[Any], list[int]]]:
    """Make calls that write, and let each wait for replicas on the connection that it is made on.

    Returns: the replies; of the calls that too few replicas have, how many had them in time.
    """
    form = _by_hash if by_hash else _by_source
    waiting = ("WAIT", wait, REPLICAS_MS)
    replies = yield [one for call in calls for one in (form(*call), waiting)]
    done = [n for reply, n in zip(replies[::2], replies[1::2], strict=True) if not isinstance(reply, Exception)]
    return replies[::2], [n for n in done if not isinstance(n, int) or n < wait]


def _too_few(short: Sequence[Any], wait: int) -> UnknownOutcomeError:
    had = short[0] if isinstance(short[0], int) else "an unknown number"
    return UnknownOutcomeError(
        f"written, but {had} of {wait} replicas have confirmed it within {REPLICAS_MS} ms: a failover now may "
        "lose it. Read the record before you repeat it."
    )


def _by_hash(script: Script | None, key_count: int, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return args if script is None else ("EVALSHA", script.sha, key_count, *args)


def _by_source(script: Script | None, key_count: int, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return args if script is None else ("EVAL", script.source, key_count, *args)


def _parsed(commands: Sequence[Command[Any]], replies: list[Any]) -> list[Any]:
    """Return the results; raise the first error once every other reply is parsed, for those commands have happened."""
    out: list[Any] = []
    failed: Exception | None = None
    for command, reply in zip(commands, replies, strict=True):
        try:
            if isinstance(reply, redis.exceptions.ResponseError):
                if stumbled(command, reply):
                    raise refusal("a key that this query reads holds another type than the index keeps there")
                raise translated(reply)
            if isinstance(reply, Exception):
                raise reply
            out.append(command.parse(reply))
        except Exception as error:
            failed = failed or error
    if failed is not None:
        raise failed
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


def queue_all(commands: Iterable[Command[Any]], pipeline: Any) -> Any:
    """Add commands to a caller's pipeline, in order, and return the pipeline (also where there are none)."""
    require_pipeline(pipeline)
    for command in commands:
        queue(command, pipeline)
    return pipeline


def require_pipeline(pipeline: Any) -> None:
    """Refuse what is not a pipeline: a call that was meant to be queued must not run at once."""
    if not isinstance(pipeline, (Pipeline, AsyncClusterPipeline)) and not hasattr(pipeline, "command_stack"):
        raise TypeError(
            f"pipeline= expected a redis-py Pipeline (get_redis().pipeline()), got {type(pipeline).__name__}. "
            "Leave it out to run at once."
        )
