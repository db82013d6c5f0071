"""BM25Field: keyword search over one text field, ranked by BM25.

    idf(t)   = ln((N - df + 0.5) / (df + 0.5) + 1)
    score(d) = sum over the query's terms in d of  idf(t) * tf (k1 + 1) / (tf + k1 (1 - b + b * length / mean length))

N documents, df of them hold the term, tf times this one; lengths in words. The index is kept by the save itself
(lua/kind_bm25.lua); a search reads the postings that can matter, not all of them (lua/bm25_search.lua).

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009; the + 1 keeps every idf
positive.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from popoto.exceptions import ModelException, QueryException
from popoto.memory.bm25_statistics import (
    Known,
    idf_steps,
    known_steps,
    packed_or_refused,
    recount_steps,
    selective_steps,
)
from popoto.memory.number import is_number
from popoto.memory.tokenizer import ENGLISH, TokenizerLike
from popoto.orm.commands import Command
from popoto.orm.drivers import adrive, drive
from popoto.orm.fields.base import Condition, Field
from popoto.orm.keys import ModelKeys
from popoto.orm.merging import asked_for_highest
from popoto.orm.scripts import Script, register_kind
from popoto.orm.slots import Made, Slot

register_kind("popoto.memory", "kind_bm25", "b")

SEARCH = Script(
    "popoto.memory",
    "bm25_search",
    (("popoto.memory", "lib_top"), ("popoto.memory", "lib_walk")),
    flags="no-writes",
)

PREFIX = "$BM25"
SLICE = 6000  # postings visited in one call: about 10 ms
KEYS_A_CALL = 2000

Scored = list[tuple[str, float]]
Steps = Generator[Any, Any, Any]


class BM25Field(Field):
    """A search index over the text of another field; it holds no value of its own.

    Each save that writes the source field keeps the index in the same atomic step, partial saves and key migrations
    included; empty text has no entry.

    Args:
        source: name of the field with the text. A list of texts is searched as one.
        tokenizer: cuts text into terms, repeats kept: a Tokenizer, or a function; unless given, ENGLISH (stop words,
            stemming, accents folded). Records saved before it changed keep their old terms until they are saved again.
        k1: how much further occurrences of a term add; >= 0. Otherwise the class attribute BM25_K1.
        b: how much long texts are held back, 0 (not at all) to 1. Otherwise the class attribute BM25_B.
    Raises: ValueError: no source. ModelException: another option is wrong.
    """

    BM25_K1: ClassVar[float] = 1.2
    BM25_B: ClassVar[float] = 0.75
    lookups = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.field_class_key = PREFIX  # a subclass with other parameters reads the same index

    def __init__(
        self,
        source: str | None = None,
        tokenizer: TokenizerLike | None = None,
        k1: float | None = None,
        b: float | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(source, str) or not source:
            raise ValueError(f"BM25Field: source= expected the name of the field with the text, got {source!r}.")
        if tokenizer is not None and not callable(tokenizer):
            raise ModelException(
                f"BM25Field: tokenizer= expected a Tokenizer or a function from text to terms, got {tokenizer!r}."
            )
        if k1 is not None and not (is_number(k1) and k1 >= 0):
            raise ModelException(f"BM25Field: k1= expected a number from 0 on (1.2 is usual), got {k1!r}.")
        if b is not None and not (is_number(b) and 0 <= b <= 1):
            raise ModelException(f"BM25Field: b= expected a number from 0 to 1 (0.75 is usual), got {b!r}.")
        if any(options.get(name) for name in ("default", "indexed", "unique")) or not options.get("null", True):
            raise ModelException("BM25Field holds no value of its own: leave default, null, indexed and unique out.")
        super().__init__(**options)
        self.source = source
        self.tokenizer: TokenizerLike = tokenizer or ENGLISH
        self._k1, self._b = k1 if k1 is None else float(k1), b if b is None else float(b)

    @property
    def k1(self) -> float:
        return self.BM25_K1 if self._k1 is None else self._k1

    @property
    def b(self) -> float:
        return self.BM25_B if self._b is None else self._b

    # -- as a field ---------------------------------------------------------------------------------------------------

    def bind(self, model: Any) -> None:
        fields = model._meta.fields
        if self.source not in fields and not model._meta.abstract:
            raise ModelException(
                f"{model.__name__}.{self.name}: BM25Field(source={self.source!r}) names no field of the model. "
                f"Fields: {', '.join(name for name in fields if name != self.name)}."
            )
        if isinstance(fields.get(self.source), BM25Field):
            raise ModelException(
                f"{model.__name__}.{self.name}: source {self.source!r} is a BM25Field, which has no text. Name another."
            )

    def coerce(self, value: Any) -> Any:
        """Return None.

        Raises: ModelException: a value was given.
        """
        if value is not None:
            raise ModelException(
                f"{self._label()} takes no value, got {value!r}. It indexes the field '{self.source}': set that."
            )
        return None

    def condition(self, keys: ModelKeys, lookup: str, value: Any, given: Mapping[str, Any]) -> Condition:
        raise QueryException(
            f"filter({self.name}=...): a BM25Field has no value to filter by. Use query.keyword_search(text), which "
            f"takes filters on other fields, or filter by '{self.source}'."
        )

    def slots(self) -> list[Slot]:
        source = self.source

        def make(values: Mapping[str, Any]) -> Made | None:
            return self.entry_of(values[source])

        return [Slot(self.name, "b", PREFIX, self.name, (), (source,), make)]

    def entry_of(self, value: Any) -> Made | None:
        """Return what the index keeps of a source value (see kind_bm25.lua); None when it has no terms."""
        terms = self.tokenizer(_text_of(value))
        if not terms:
            return None
        counts = sorted(Counter(terms).items())
        digest = hashlib.blake2b(repr(counts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        payload: list[Any] = [len(terms)]
        for pair in counts:
            payload.extend(pair)
        return [], digest, payload

    def query_terms(self, query_text: str | None) -> list[str]:
        """Return the terms of a query, each once, in their order.

        Raises: TypeError: no text.
        """
        if query_text is None:
            return []
        if not isinstance(query_text, str):
            raise TypeError(f"query_text: expected a text (str), got {query_text!r} ({type(query_text).__name__}).")
        return list(dict.fromkeys(self.tokenizer(query_text)))

    # -- the index, by model and field name ---------------------------------------------------------------------------

    @classmethod
    def search(cls, model_class: Any, field_name: str, query_text: str | None, limit: int = 10) -> Scored:
        """Return (redis_key, score) of the records that match best, best first; equal scores by descending key.

        Exact. With filters: `Model.query.filter(...).keyword_search(text)`.

        Args:
            query_text: words, in any order; a repeated one counts once. None or no known word: [].
            limit: at most so many; 0 or less: [].
        Raises: QueryException: the field is no BM25Field. TypeError: no text, or the limit is no whole number.
        """
        return drive(_search_all(model_class, field_name, query_text, limit))

    @classmethod
    async def async_search(cls, model_class: Any, field_name: str, query_text: str | None, limit: int = 10) -> Scored:
        """Await `search()`."""
        return await adrive(_search_all(model_class, field_name, query_text, limit))

    @classmethod
    def get_idf(cls, model_class: Any, field_name: str, tokens: str | Iterable[str] | None) -> dict[str, float]:
        """Return the inverse document frequency of each token: how much a record that holds it stands out.

        A token is looked up as the index would keep it (stemmed, accents folded), or as it is; it is neither cut nor
        put in lower case. A token of no record has the highest, ln(2 N + 2); in an empty index each has 0.0.

        Args:
            tokens: a list; a single text is one token. None or []: {}.
        Raises: QueryException: the field is no BM25Field. TypeError: a token is no text.
        """
        return drive(idf_steps(model_class, bm25_field(model_class, field_name), tokens))

    @classmethod
    async def async_get_idf(
        cls, model_class: Any, field_name: str, tokens: str | Iterable[str] | None
    ) -> dict[str, float]:
        """Await `get_idf()`."""
        return await adrive(idf_steps(model_class, bm25_field(model_class, field_name), tokens))

    @classmethod
    def filter_selective_tokens(
        cls, model_class: Any, field_name: str, tokens: str | Iterable[str] | None, min_idf: float = 1.0
    ) -> list[str]:
        """Return the tokens whose inverse document frequency is at least `min_idf`, in their order."""
        return drive(selective_steps(model_class, bm25_field(model_class, field_name), tokens, min_idf))

    @classmethod
    async def async_filter_selective_tokens(
        cls, model_class: Any, field_name: str, tokens: str | Iterable[str] | None, min_idf: float = 1.0
    ) -> list[str]:
        """Await `filter_selective_tokens()`."""
        return await adrive(selective_steps(model_class, bm25_field(model_class, field_name), tokens, min_idf))

    @classmethod
    def recompute_stats(cls, model_class: Any, field_name: str) -> tuple[int, int]:
        """Count the documents and their words anew on the server; return (documents, words).

        Saves keep both exactly; this is for an index that something else has written to.
        """
        return drive(recount_steps(model_class, bm25_field(model_class, field_name)))

    @classmethod
    async def async_recompute_stats(cls, model_class: Any, field_name: str) -> tuple[int, int]:
        """Await `recompute_stats()`."""
        return await adrive(recount_steps(model_class, bm25_field(model_class, field_name)))


BM25Field.field_class_key = PREFIX


def search_steps(
    model: Any,
    field_name: str,
    query_text: str | None,
    limit: int = 10,
    where: Sequence[Any] | None = None,
    offset: int = 0,
    known: Known = None,
) -> Generator[Any, Any, Scored]:
    """Return the best (redis_key, score) among the records that `where` (lib_where.lua) lets through; skip `offset`.

    Args:
        known: the statistics to score by, of `known_steps`; None for those of the index.

    Raises: QueryException, TypeError: see `BM25Field.search`.
    """
    field, keys = _field_and_keys(model, field_name)
    if type(limit) is not int:
        raise TypeError(f"limit: expected a whole number, got {limit!r}.")
    terms = field.query_terms(query_text)
    if limit <= 0 or not terms or (known and not known[0]):
        return []
    query: dict[str, Any] = {
        "base": keys.base(PREFIX, field.name),
        "terms": terms,
        "k1": field.k1,
        "b": field.b,
        "k": limit + offset,
        "where": list(where) if where else ["all"],
        "known": known or False,
        "slice": SLICE,
        "state": False,
    }
    while True:
        state, rows, _ = yield Command((*keys.home, packed_or_refused(query)), script=SEARCH, key_count=4)
        if not state:
            flat = iter(rows)
            found = [(key.decode(), float(score)) for key, score in zip(flat, flat, strict=True)]
            return found[offset:]
        query["state"] = dict(zip(("order", "at", "position", "best"), state, strict=True))


def scores_steps(
    model: Any, field_name: str, query_text: str | None, keys: Sequence[str], known: Known = None
) -> Generator[Any, Any, dict[str, float]]:
    """Return the score of each of these records for a query, 0.0 for those that hold none of its terms; one round trip.

    Raises: QueryException, TypeError: see `BM25Field.search`.
    """
    field, model_keys = _field_and_keys(model, field_name)
    terms = field.query_terms(query_text)
    scores = dict.fromkeys(keys, 0.0)
    unique = list(scores)
    if not terms or not unique:
        return scores
    query: dict[str, Any] = {
        "base": model_keys.base(PREFIX, field.name),
        "terms": terms,
        "k1": field.k1,
        "b": field.b,
        "known": known or False,
        "slice": SLICE,
        "state": False,
    }
    commands: list[Command[Any]] = []
    for start in range(0, len(unique), KEYS_A_CALL):
        some = unique[start : start + KEYS_A_CALL]
        packed = packed_or_refused({**query, "k": len(some), "where": ["keys", *some]})
        commands.append(Command((*model_keys.home, packed), script=SEARCH, key_count=4))
    for _, rows, _ in (yield commands):
        flat = iter(rows)
        scores.update((key.decode(), float(score)) for key, score in zip(flat, flat, strict=True))
    return scores


def _search_all(model: Any, field_name: str, query_text: str | None, limit: int) -> Generator[Any, Any, Scored]:
    known = yield from known_steps(model, bm25_field(model, field_name), query_text)
    here = partial(search_steps, model, field_name, query_text, limit, known=known)
    return (yield from asked_for_highest(model._meta, here, limit))


def bm25_field(model: Any, field_name: str) -> BM25Field:
    """Return a model's BM25Field.

    Raises: QueryException: the model has no such BM25Field; lists those it has.
    """
    fields = model._meta.fields
    field = fields.get(field_name) if isinstance(field_name, str) else None
    if not isinstance(field, BM25Field):
        have = ", ".join(name for name, f in fields.items() if isinstance(f, BM25Field)) or "none"
        raise QueryException(f"{model._meta.model_name} has no BM25Field {field_name!r}. BM25 fields: {have}.")
    return field


def _field_and_keys(model: Any, field_name: str) -> tuple[BM25Field, ModelKeys]:
    return bm25_field(model, field_name), model._meta.keys


def _text_of(value: Any) -> str:
    """Return the text of a source value: itself, the elements of a list, or as `str` prints it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return " ".join(map(_text_of, value))
    return str(value)
