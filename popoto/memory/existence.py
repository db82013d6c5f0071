"""ExistenceFilter: does the store know anything about a word? A Bloom filter that can forget.

A Bloom filter (Bloom 1970) answers "certainly not" or "perhaps": each word sets k of m bits, and a word whose bits
are not all set is in no record. For n words and an error rate p the formulas of the textbook give

    m = -k n / ln(1 - p^(1/k)),    k the whole number for which m is least (near log2(1 / p))

Beside the bits stand counts of the words that fall on each (a counting filter: Fan et al. 2000), and each record's
occupancy names its words. So what a record held is forgotten when it is deleted, expires or says something else, in
the same atomic step (lua/kind_existence.lua): a filter never has to be thrown away and built anew.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, ClassVar

from popoto.exceptions import ModelException
from popoto.memory.number import is_number
from popoto.memory.tokenizer import tokenize
from popoto.memory.valueless import ValuelessField
from popoto.orm.commands import Command
from popoto.orm.drivers import adrive, arun, drive, run
from popoto.orm.fields.sorted import require_fields
from popoto.orm.keys import ModelKeys
from popoto.orm.merging import asked, local
from popoto.orm.plan import pack
from popoto.orm.scripts import Script, register_kind
from popoto.orm.slots import Made, Slot, WholeSlot

_KIND = ("popoto.memory", "kind_existence")
register_kind(*_KIND, "ef")
MIGHT_EXIST = Script("popoto.memory", "might_exist", (("popoto.orm", "lib_record"), _KIND), flags="no-writes")

PREFIX = "$EF"
MARGIN = 0.8  # a filter is made for this part of its error rate: what is measured varies around what is expected
_MOST_BITS = 2**29  # the counts take a byte for each, and a string of the server holds so many

logger = logging.getLogger("popoto.memory")
Fingerprint = Callable[[Any], Any]


class FingerprintField(ValuelessField):
    """What ExistenceFilter and FrequencySketch share: where the words of a record come from.

    Args:
        fingerprint_fn: from an instance to a text (anything else by str()); None takes the text of `source`, and
            without that the record's Redis key.
        source: name(s) of the fields that the text is made of. Give it beside a `fingerprint_fn` too: a partial save of
            other fields then leaves the words alone. Without it, each save takes the words of the instance as it is.
    """

    advice: ClassVar[str] = "It keeps the words of each record: see fingerprint_fn= and source=."

    def __init__(
        self,
        *,
        fingerprint_fn: Fingerprint | None = None,
        source: str | tuple[str, ...] = (),
        **options: Any,
    ) -> None:
        if fingerprint_fn is not None and not callable(fingerprint_fn):
            raise ModelException(
                f"{type(self).__name__}: fingerprint_fn= expected a function from an instance to a text, got "
                f"{fingerprint_fn!r}."
            )
        self.source = (source,) if isinstance(source, str) else source
        if not isinstance(self.source, tuple) or not all(isinstance(name, str) for name in self.source):
            raise ModelException(
                f"{type(self).__name__}: source= expected a field name or a tuple of them, got {source!r}."
            )
        super().__init__(**options)
        self.fingerprint_fn = fingerprint_fn
        self._model: Any = None

    def bind(self, model: Any) -> None:
        self._model = model
        require_fields(self, model, "source", self.source)

    def _slot(self, kind: str, prefix: str, make: Callable[[Mapping[str, Any]], Made | None]) -> Slot:
        if self.source:
            return Slot(self.name, kind, prefix, self.name, (), (*self.source, self.name), make)
        return WholeSlot(self.name, kind, prefix, self.name, (), (), make)

    def words_of(self, values: Mapping[str, Any]) -> list[str]:
        """Return the words of a record with these values.

        Raises: ValueError: the fingerprint is None.
        """
        if self.fingerprint_fn is None:
            if self.source:
                return words_in(" ".join(str(v) for v in map(values.__getitem__, self.source) if v is not None))
            return words_in(local(self._model._meta.record_key(values)))
        instance = self._model.__new__(self._model)
        instance.__dict__ = values
        fingerprint = self.fingerprint_fn(instance)
        if fingerprint is None:
            key = self._model._meta.record_key(values)
            raise ValueError(
                f"{self._label()}: the fingerprint of {key} is None. Return a text, an empty one where there is none."
            )
        return words_in(str(fingerprint))


class ExistenceFilter(FingerprintField):
    """Tells what no record holds, without looking at records; the attribute itself is always None.

    Its methods take the model first: `Memory.known.might_exist(Memory, "kubernetes")`. Saves, deletes and expiry keep
    it.

    Args:
        error_rate: largest share of unknown words that it takes for known ones, above 0 and below 1.
        capacity: how many distinct words it is made for; with more the error rate grows, which is logged.
        fingerprint_fn, source: see FingerprintField.
    Raises: ModelException: an option is out of range.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.field_class_key = PREFIX

    def __init__(self, *, error_rate: float = 0.01, capacity: int = 100_000, **options: Any) -> None:
        if not (is_number(error_rate) and 0 < error_rate < 1):
            raise ModelException(
                f"ExistenceFilter: error_rate= expected a number between 0 and 1, got {error_rate!r}. 0.01 is usual."
            )
        if type(capacity) is not int or capacity < 1:
            raise ModelException(f"ExistenceFilter: capacity= expected a whole number from 1 on, got {capacity!r}.")
        super().__init__(**options)
        self.error_rate, self.capacity = float(error_rate), capacity
        self.bits, self.hashes = filter_size(capacity, error_rate * MARGIN)
        self._warned = False

    def slots(self) -> list[Slot]:
        shape = f"{self.bits}x{self.hashes}"

        def make(values: Mapping[str, Any]) -> Made | None:
            packed: Any = b"".join(sorted(map(word_hash, self.words_of(values))))
            return [shape], packed, None

        return [self._slot("ef", PREFIX, make)]

    # -- questions ----------------------------------------------------------------------------------------------------

    def might_exist(self, model_class: Any, fingerprint: Any) -> bool:
        """Return False if no record holds any word of the text; True if one may (or, rarely, does not)."""
        return drive(self._answers(model_class, [fingerprint]))[0]

    async def async_might_exist(self, model_class: Any, fingerprint: Any) -> bool:
        """Await `might_exist()`."""
        return (await adrive(self._answers(model_class, [fingerprint])))[0]

    def definitely_missing(self, model_class: Any, fingerprint: Any) -> bool:
        """Return True if no record holds any word of the text, for certain."""
        return not self.might_exist(model_class, fingerprint)

    async def async_definitely_missing(self, model_class: Any, fingerprint: Any) -> bool:
        """Await `definitely_missing()`."""
        return not await self.async_might_exist(model_class, fingerprint)

    def might_exist_batch(self, model_class: Any, fingerprints: Iterable[Any] | None) -> dict[Any, bool]:
        """Return text -> might_exist of many texts, in one round trip.

        Raises: TypeError: a single text.
        """
        unique = _unique(fingerprints)
        if not unique:
            return {}
        answers = drive(self._answers(model_class, unique))
        return dict(zip(unique, answers, strict=True))

    async def async_might_exist_batch(self, model_class: Any, fingerprints: Iterable[Any] | None) -> dict[Any, bool]:
        """Await `might_exist_batch()`."""
        unique = _unique(fingerprints)
        if not unique:
            return {}
        answers = await adrive(self._answers(model_class, unique))
        return dict(zip(unique, answers, strict=True))

    def might_exist_count(self, model_class: Any, fingerprints: Iterable[Any] | None) -> int:
        """Return how many of the texts might exist; equal ones count once."""
        return sum(self.might_exist_batch(model_class, fingerprints).values())

    async def async_might_exist_count(self, model_class: Any, fingerprints: Iterable[Any] | None) -> int:
        """Await `might_exist_count()`."""
        return sum((await self.async_might_exist_batch(model_class, fingerprints)).values())

    def fill_ratio(self, model_class: Any) -> float:
        """Return the share of bits that are set, 0.0 to 1.0; above about 0.5 the error rate is exceeded."""
        return run(self._fill_command(model_class))

    async def async_fill_ratio(self, model_class: Any) -> float:
        """Await `fill_ratio()`."""
        return await arun(self._fill_command(model_class))

    # -- commands -----------------------------------------------------------------------------------------------------

    def _answers(self, model: Any, texts: list[Any]) -> Generator[Any, Any, list[bool]]:
        """Ask the filter, on a cluster that of each shard: a text might exist where one of them says so."""

        def here() -> Generator[Any, Any, list[bool]]:
            return (yield self._command(model, texts))  # type: ignore[no-any-return]

        return (yield from asked(model._meta, here, lambda lists: list(map(any, zip(*lists, strict=True)))))

    def _command(self, model: Any, texts: list[Any]) -> Command[list[bool]]:
        keys: ModelKeys = model._meta.keys
        questions = [b"".join(map(word_hash, words_in(str(text)))) for text in texts]
        base = keys.base(PREFIX, self.name)

        def parse(reply: Any) -> list[bool]:
            answers, shapes = reply
            if answers is None:
                self._warn(f"the key {base} holds another kind of filter, so everything might exist; delete that key.")
                return [True] * len(texts)
            pairs = iter(shapes)
            for shape, filled in zip(pairs, pairs, strict=True):
                self._judge(base, shape, int(filled))
            return [answer == 49 for answer in answers]

        return Command((keys.sentinel, base, pack(questions)), parse, MIGHT_EXIST, key_count=1)

    def _fill_command(self, model: Any) -> Command[float]:
        base = model._meta.keys.base(PREFIX, self.name)
        shape = f"{self.bits}x{self.hashes}"

        def parse(filled: bytes | None) -> float:
            self._judge(base, shape.encode(), int(filled or 0))
            return int(filled or 0) / self.bits

        return Command(("HGET", base + "::shapes", shape), parse)

    def _judge(self, base: str, shape: bytes, filled: int) -> None:
        bits, hashes = map(int, shape.split(b"x"))
        rate = (filled / bits) ** hashes
        if rate > self.error_rate:
            self._warn(
                f"{base} is {filled / bits:.0%} full: about {rate:.2%} of unknown words pass for known ones, more than "
                f"the error rate of {self.error_rate:.2%}. Give the field a larger capacity (now {self.capacity}) and "
                "save its records again, or run rebuild_indexes()."
            )

    def _warn(self, sentence: str) -> None:
        if not self._warned:  # once a process
            self._warned = True
            logger.warning("ExistenceFilter: %s", sentence)


ExistenceFilter.field_class_key = PREFIX


def filter_size(capacity: int, error_rate: float) -> tuple[int, int]:
    """Return (bits, bits a word) of the smallest Bloom filter for `capacity` words at this error rate.

    Raises: ModelException: it would not fit into a string of the server.
    """
    near = max(1, round(-math.log2(error_rate)))
    sizes = [
        (math.ceil(-k * capacity / math.log1p(-(error_rate ** (1 / k)))), k) for k in range(max(1, near - 1), near + 2)
    ]
    bits, hashes = min(sizes)
    if bits > _MOST_BITS:
        raise ModelException(
            f"ExistenceFilter: capacity={capacity} at this error rate takes {bits} bits, more than the server's "
            f"{_MOST_BITS}. Lower the capacity, or allow more errors."
        )
    return max(bits, 8), hashes


def words_in(text: str) -> list[str]:
    """Return the words of a text, each once; the whole text in lower case where it has none."""
    return tokenize(text) or [text.lower()]


def word_hash(word: str) -> bytes:
    """Return 64 bits of hash of a word."""
    return hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _unique(texts: Iterable[Any] | None) -> list[Any]:
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"might_exist_batch(): expected a list of texts, got {texts!r}. Put it into a list.")
    return list(dict.fromkeys(texts or ()))
