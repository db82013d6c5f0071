"""From text to the words that keyword search and the existence filter keep.

1. Letters are made comparable: Unicode NFKC and case folding (`Straße` and `STRASSE` are one word).
2. A word is a run of letters, digits, underscores and the marks that belong to letters.
3. Scripts written without spaces (Chinese, Japanese, Thai, ...) are cut into pairs of neighbouring characters, so
   that a part of a sentence finds it: 東京都 -> 東京, 京都.
4. Words shorter than 3 characters are dropped where letters spell sounds one by one (Latin, Greek, Cyrillic, digits);
   elsewhere two characters are a whole word (서울).
5. Stop words are dropped.
6. Optional: accents are folded (café -> cafe), English words are stemmed (running -> run), each emoji is a word
   (without its skin tone).

Nothing here depends on the order in which texts are seen: the same text always gives the same words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from popoto.memory.stemmer import stem

_STOP_WORDS = """
about all and are been but can did for from got had has have her his how into its let may new not now old one our out
say see she than that the their them then there they this too use was way what when which who will with would you
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

# Han, kana and bopomofo; Thai, Lao, Burmese, Khmer
_UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u3041-\u309f\u30a0-\u30ff\u31f0-\u31ff\u3100-\u312f\u31a0-\u31bf"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")
_ASCII_WORD = re.compile(r"\w+", re.ASCII)
# letters that spell sounds one by one: Latin, Greek, Cyrillic, Armenian, their extensions and marks; digits
_ALPHABETIC = re.compile(
    r"[0-9_A-Za-z\u00aa-\u058f\u1c80-\u1c8f\u1d00-\u1fff\u2c60-\u2c7f\u2de0-\u2dff\ua640-\ua69f\ua720-\ua7ff]*"
)
_ENGLISH = re.compile("[a-z]+")
# soft hyphen, zero-width joiners, word joiner, byte order mark, variation selectors: they show and split nothing
_INVISIBLE = dict.fromkeys((0xAD, 0x200C, 0x200D, 0x2060, 0xFEFF, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
# symbols, dingbats and pictographs, without skin tones; two regional indicators are a flag
_EMOJI = (
    "[\U0001f1e6-\U0001f1ff]{2}|"
    "[\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001f1e5\U0001f200-\U0001f3fa\U0001f400-\U0001faff]"
)
_DOT_ABOVE = "i\u0307"  # what İ becomes when its case is folded
_ACCENTS = re.compile("[\u0300-\u036f]")
# letters that are no base letter plus accent for Unicode, but for a reader
_UNACCENTED = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"}
)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """How a text becomes words. Frozen: what is stored was cut by it.

    Attributes:
        stop_words: words that are dropped, in lower case.
        min_length: shortest word kept, in characters.
        stem: reduce English words to their stem (Snowball English).
        fold_accents: café and cafe are one word.
        emoji: an emoji is a word; otherwise it only separates words.
    """

    stop_words: frozenset[str] = STOP_WORDS
    min_length: int = 3
    stem: bool = False
    fold_accents: bool = False
    emoji: bool = False

    def __call__(self, text: str | None, unique: bool = False) -> list[str]:
        """Return the words of a text in their order; None and "" have none.

        Args:
            unique: keep only the first of equal words.
        Raises: TypeError: `text` is no str.
        """
        if not text and (text is None or isinstance(text, str)):
            return []
        if not isinstance(text, str):
            raise TypeError(f"expected a text (str), got {text!r} ({type(text).__name__}). Convert it first.")
        if text.isascii():
            words: Iterable[str] = _ASCII_WORD.findall(text.lower())
        else:
            words = _words(text, self.emoji)
        min_length, stop_words = self.min_length, self.stop_words
        kept = [
            word
            for word in words
            if word not in stop_words and (len(word) >= min_length or not _ALPHABETIC.fullmatch(word))
        ]
        if self.stem or self.fold_accents:
            kept = list(map(self.normal, kept))
        return list(dict.fromkeys(kept)) if unique else kept

    def normal(self, word: str) -> str:
        """Return the form in which a word is kept, when it is kept: folded and stemmed as the options say."""
        if self.fold_accents and not word.isascii():
            word = _without_accents(word)
        return stem(word) if self.stem and _ENGLISH.fullmatch(word) else word


TokenizerLike = Callable[[str], list[str]]
"""What may cut texts: a Tokenizer, or any function from a text to its words, repeats kept."""

DEFAULT = Tokenizer()
ENGLISH = Tokenizer(stem=True, fold_accents=True, emoji=True)


def tokenize(text: str | None, unique: bool = True) -> list[str]:
    """Return the words of a text by the plain rules (no stemming, accents kept); see `Tokenizer`.

    Raises: TypeError: `text` is no str.
    """
    return DEFAULT(text, unique)


def _words(text: str, emoji: bool) -> list[str]:
    """Return the words of a text that is not ASCII, unspaced scripts as pairs of characters."""
    text = unicodedata.normalize("NFKC", text.translate(_INVISIBLE)).casefold()
    text = unicodedata.normalize("NFKC", text.replace(_DOT_ABOVE, "i"))
    marks = "".join(sorted(c for c in set(text) if not c.isascii() and unicodedata.category(c)[0] == "M"))
    found: list[str] = _word_pattern(marks, emoji).findall(text)
    if not _UNSPACED_RUN.search(text):
        return found
    out: list[str] = []
    for word in found:
        at = 0
        for run in _UNSPACED_RUN.finditer(word):
            if run.start() > at:
                out.append(word[at : run.start()])
            characters = run.group()
            if len(characters) == 1:
                out.append(characters)
            out.extend(map("".join, pairwise(characters)))
            at = run.end()
        if at < len(word):
            out.append(word[at:])
    return out


@lru_cache(maxsize=256)
def _word_pattern(marks: str, emoji: bool) -> re.Pattern[str]:
    """Return the pattern of a word; `re` does not count marks as parts of words, so those of the text are listed."""
    return re.compile(rf"[\w{re.escape(marks)}]+" + (f"|{_EMOJI}" if emoji else ""))


def _without_accents(word: str) -> str:
    bare = _ACCENTS.sub("", unicodedata.normalize("NFD", word))
    return unicodedata.normalize("NFC", bare).translate(_UNACCENTED)
