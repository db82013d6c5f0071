"""What a BM25 index counts: documents, their words, the documents that hold a term; over all shards of its model.

On a cluster each shard of a model has an index of its own. A search in one shard scores by the counts of that shard,
and one over all of them by their sums, as one server would.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from popoto.exceptions import QueryException
from popoto.memory.tokenizer import Tokenizer
from popoto.orm import shards
from popoto.orm.commands import Command
from popoto.orm.merging import asked, summed
from popoto.orm.plan import pack
from popoto.orm.scripts import Script

if TYPE_CHECKING:
    from popoto.memory.bm25 import BM25Field

IDF = Script("popoto.memory", "bm25_idf", flags="no-writes")
RECOUNT = Script("popoto.memory", "bm25_recount")

Known = Sequence[int] | None
"""Documents, their words, and the documents that hold each term of a query; None for those of the index itself."""


def known_steps(model: Any, field: BM25Field, query_text: str | None) -> Generator[Any, Any, Known]:
    """Return the statistics of all shards for a query; None where a shard, or one server, has all that is searched."""
    terms = field.query_terms(query_text)
    return (yield from _counts(model, field, terms)) if terms and shards.are_many(model._meta) else None


def idf_steps(
    model: Any, field: BM25Field, tokens: str | Iterable[str] | None
) -> Generator[Any, Any, dict[str, float]]:
    """Return token -> inverse document frequency; see `BM25Field.get_idf`."""
    wanted = _token_list(tokens)
    if not wanted:
        return {}
    normal = field.tokenizer.normal if isinstance(field.tokenizer, Tokenizer) else str
    unique = list(dict.fromkeys(wanted))
    n, _, *found = yield from _counts(model, field, [form for token in unique for form in (normal(token), token)])
    if not n:
        return dict.fromkeys(unique, 0.0)
    # the kept form counts; the token itself only where it is a kept form that no word was given for
    return {
        token: idf_of(n, kept or as_given)
        for token, kept, as_given in zip(unique, found[::2], found[1::2], strict=True)
    }


def idf_of(n: int, df: int) -> float:
    """Return ln((n - df + 0.5) / (df + 0.5) + 1): n documents, df of them hold the term."""
    return math.log((n - df + 0.5) / (df + 0.5) + 1)


def selective_steps(
    model: Any, field: BM25Field, tokens: str | Iterable[str] | None, min_idf: float
) -> Generator[Any, Any, list[str]]:
    """Return the tokens whose inverse document frequency is at least `min_idf`, in their order."""
    wanted = _token_list(tokens)
    idf = yield from idf_steps(model, field, wanted)
    return [token for token in wanted if idf[token] >= min_idf]


def recount_steps(model: Any, field: BM25Field) -> Generator[Any, Any, tuple[int, int]]:
    """Count the documents and their words anew; return both."""

    def here() -> Generator[Any, Any, list[int]]:
        keys = model._meta.keys
        args = (*keys.home, keys.base(field.field_class_key, field.name))
        return (yield Command(args, script=RECOUNT, key_count=4))  # type: ignore[no-any-return]

    n, words = yield from asked(model._meta, here, summed)
    return n, words


def _counts(model: Any, field: BM25Field, terms: list[str]) -> Generator[Any, Any, list[int]]:
    packed = packed_or_refused(terms)

    def here() -> Generator[Any, Any, list[int]]:
        keys = model._meta.keys
        args = (*keys.home, keys.base(field.field_class_key, field.name), packed)
        return (yield Command(args, script=IDF, key_count=4))  # type: ignore[no-any-return]

    return (yield from asked(model._meta, here, summed))


def packed_or_refused(value: Any) -> bytes:
    """Return the value for the server.

    Raises: QueryException: a text of it holds half a surrogate pair.
    """
    try:
        return pack(value)  # type: ignore[no-any-return]
    except UnicodeEncodeError as error:
        raise QueryException(f"{error}. No stored text can hold half a surrogate pair.") from None


def _token_list(tokens: Any) -> list[str]:
    wanted = [tokens] if isinstance(tokens, str) else list(tokens or ())
    for token in wanted:
        if not isinstance(token, str):
            raise TypeError(f"tokens: expected texts (str), got {token!r} ({type(token).__name__}).")
    return wanted
