"""Reading records whose keys are known: all in one round trip, a thousand a script call."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final

from popoto.orm.commands import Command
from popoto.orm.keys import front_of
from popoto.orm.plan import pack
from popoto.orm.reading import Reader
from popoto.orm.scripts import Script

READ = Script("popoto.orm", "read", flags="no-writes")
_A_CALL: Final = 1000  # records: about 3 ms


def fetched(model: Any, keys: Iterable[str], strict: bool = False) -> Generator[Any, Any, dict[str, Any]]:
    """Return key -> instance of those that exist; what cannot be read is left out and logged.

    Args:
        keys: of records of the model, in any order.
    Raises: ModelException: with `strict`, a stored value is corrupt.
    """
    reader = Reader(model, None, None, strict)
    columns = reader.columns
    query = pack({"fields": columns.fields, "clear": columns.clear, "kept": columns.kept})
    commands: list[Command[Any]] = [
        Command((*some, model._meta.keys_at(some[0]).sentinel, query), script=READ, key_count=len(some) + 1)
        for some in _in_calls(dict.fromkeys(keys))
    ]
    found: dict[str, Any] = {}
    for reply in (yield commands) if commands else ():
        for instance in (yield from reader.take(reply)):
            found[instance._saved_key] = instance
    return found


def _in_calls(keys: Iterable[str]) -> Iterator[Sequence[str]]:
    """Yield the keys by their hash tag, so many as one call may read."""
    for _, group in groupby(sorted(keys, key=front_of), key=front_of):
        some = list(group)
        for start in range(0, len(some), _A_CALL):
            yield some[start : start + _A_CALL]
