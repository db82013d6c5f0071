"""FrequencySketch: how often words were saved, in constant space: a count-min sketch (Cormode & Muthukrishnan 2005).

`depth` rows of `width` counters; a word has one counter in each row, and its estimate is the least of them: never too
low, and too high by at most e / width of all that was counted, with probability 1 - e^-depth. The rows are
independent, and only the counters that hold the least are raised (conservative update), which keeps the estimates
closer.

It counts saves, not records: saving a record again counts its words again, and deleting one takes nothing back.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from popoto.exceptions import ModelException
from popoto.memory.existence import FingerprintField, word_hash, words_in
from popoto.orm.commands import Command
from popoto.orm.drivers import adrive, drive
from popoto.orm.merging import asked, summed
from popoto.orm.scripts import register_kind
from popoto.orm.slots import Made, Slot

register_kind("popoto.memory", "kind_sketch", "fs")

PREFIX = "$FS"


class FrequencySketch(FingerprintField):
    """Estimates how often a word was saved; the attribute itself is always None.

    Args:
        width: counters a row, from 1 on.
        depth: rows, 1 to 100.
        fingerprint_fn, source: see FingerprintField.
    Raises: ModelException: an option is out of range.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.field_class_key = PREFIX

    def __init__(self, *, width: int = 2000, depth: int = 7, **options: Any) -> None:
        for name, value, most in (("width", width, 2**32), ("depth", depth, 100)):
            if type(value) is not int or not 1 <= value <= most:
                raise ModelException(
                    f"FrequencySketch: {name}= expected a whole number from 1 to {most}, got {value!r}."
                )
        super().__init__(**options)
        self.width, self.depth = width, depth

    def slots(self) -> list[Slot]:
        def make(values: Mapping[str, Any]) -> Made | None:
            words = b"".join(map(word_hash, self.words_of(values)))
            return [], False, [self.width, self.depth, words]

        return [self._slot("fs", PREFIX, make)]

    def get_frequency(self, model_class: Any, fingerprint: Any) -> int:
        """Return about how often the text's rarest word was saved, never less than it was; one round trip."""
        return drive(self._least(model_class, fingerprint))

    async def async_get_frequency(self, model_class: Any, fingerprint: Any) -> int:
        """Await `get_frequency()`."""
        return await adrive(self._least(model_class, fingerprint))

    def _least(self, model: Any, fingerprint: Any) -> Generator[Any, Any, int]:
        """Return the estimate of the rarest word; a word of several shards counts with the sum of their estimates."""
        cells = [cell for word in words_in(str(fingerprint)) for cell in self._cells(word)]

        def here() -> Generator[Any, Any, list[int]]:
            counts = yield Command(("HMGET", model._meta.keys.base(PREFIX, self.name), *cells))
            return [min(int(n or 0) for n in counts[at : at + self.depth]) for at in range(0, len(cells), self.depth)]

        return min((yield from asked(model._meta, here, summed)))

    def _cells(self, word: str) -> list[str]:
        digest = word_hash(word)
        high, low = int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")
        return [f"{row}:{(high + row * low) % self.width}" for row in range(self.depth)]


FrequencySketch.field_class_key = PREFIX
