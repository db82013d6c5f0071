"""The Snowball English stemmer (Porter2): the part of an English word that its inflections share.

    running, runs -> run      national, nationally -> nation      deployment, deploys -> deploy

A stem is a key for comparing, not always a word: ponies -> poni. Vowels are a e i o u and y; a y that begins the word
or follows a vowel counts as a consonant and is written Y while the steps run.

Source: M. Porter and contributors, "The English (Porter2) stemming algorithm", snowballstem.org/algorithms/english.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Words whose stem the rules get wrong, and words that stay as they are.
_IRREGULAR = {
    "skis": "ski",
    "skies": "sky",
    "idly": "idl",
    "gently": "gentl",
    "ugly": "ugli",
    "early": "earli",
    "only": "onli",
    "singly": "singl",
    **{word: word for word in ("sky", "news", "howe", "atlas", "cosmos", "bias", "andes")},
}

# -eed and -ing that belong to the word
_NO_SUFFIX = frozenset({"inning", "outing", "canning", "herring", "earring", "evening", "proceed", "exceed", "succeed"})

_CONSONANT_Y = re.compile(r"(^|[aeiouy])y")
_HAS_VOWEL = re.compile(r"[aeiouy]")
_REGION = re.compile(r"[aeiouy][^aeiouy]")
_SHORT_SYLLABLE = re.compile(r"(?:[^aeiouy][aeiouy][^aeiouywxY]|^[aeiouy][^aeiouy]|past)$")
# Beginnings after which R1 starts, so that e.g. general and generous keep different stems.
_BEGINNING = re.compile(r"gener|commun|arsen|past|univers|later|emerg|organ|inter")
_DOUBLES = frozenset({"bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt"})
_LI_ENDINGS = "cdeghkmnrt"

# suffix -> what takes its place when it lies in R1; None where a further condition holds
_STEP_2: dict[str, str | None] = {
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "abli": "able",
    "entli": "ent",
    "izer": "ize",
    "ization": "ize",
    "ational": "ate",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "aliti": "al",
    "alli": "al",
    "fulness": "ful",
    "ousli": "ous",
    "ousness": "ous",
    "iveness": "ive",
    "iviti": "ive",
    "biliti": "ble",
    "bli": "ble",
    "ogist": "og",
    "ogi": None,
    "fulli": "ful",
    "lessli": "less",
    "li": None,
}
_STEP_3: dict[str, str | None] = {
    "tional": "tion",
    "ational": "ate",
    "alize": "al",
    "icate": "ic",
    "iciti": "ic",
    "ical": "ic",
    "ful": "",
    "ness": "",
    "ative": None,
}
# deleted when it lies in R2
_STEP_4: dict[str, str | None] = {
    **dict.fromkeys(
        [
            "al",
            "ance",
            "ence",
            "er",
            "ic",
            "able",
            "ible",
            "ant",
            "ement",
            "ment",
            "ent",
            "ism",
            "ate",
            "iti",
            "ous",
            "ive",
            "ize",
        ],
        "",
    ),
    "ion": None,
}


def _longest_suffix(suffixes: dict[str, str | None]) -> re.Pattern[str]:
    # tried from left to right, so the longest one that ends the word is found first
    return re.compile("(?:" + "|".join(suffixes) + ")$")


_STEP_2_SUFFIX, _STEP_3_SUFFIX, _STEP_4_SUFFIX = map(_longest_suffix, (_STEP_2, _STEP_3, _STEP_4))


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Return the stem of a lower-case English word; words of one or two letters are their own.

    Letters that English does not use count as consonants.
    """
    if len(word) <= 2:
        return word
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    word = word.removeprefix("'")
    if "y" in word:
        word = _CONSONANT_Y.sub(r"\1Y", word)
    r1, r2 = _regions(word)
    word = _step_1a(_possessive(word))
    word = _step_1c(_step_1b(word, r1))
    word = _step_4(_step_3(_step_2(word, r1), r1, r2), r2)
    return _step_5(word, r1, r2).replace("Y", "y")


def _regions(word: str) -> tuple[int, int]:
    """Return where R1 and R2 start: each behind the first consonant that follows a vowel, R2 so within R1."""
    beginning = _BEGINNING.match(word)
    found = beginning or _REGION.search(word)
    if not found:
        return len(word), len(word)
    r1 = found.end()
    found = _REGION.search(word, r1)
    return r1, found.end() if found else len(word)


def _possessive(word: str) -> str:
    for suffix in ("'s'", "'s", "'"):
        if word.endswith(suffix):
            return word.removesuffix(suffix)
    return word


def _step_1a(word: str) -> str:
    """Plurals."""
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) > 4 else word[:-1]
    # gaps, kiwis lose the s; gas, this and ss, us keep it
    if word.endswith("s") and not word.endswith(("us", "ss")) and _HAS_VOWEL.search(word, 0, len(word) - 2):
        return word[:-1]
    return word


def _step_1b(word: str, r1: int) -> str:
    """Past tenses and participles."""
    if word in _NO_SUFFIX:
        return word
    for suffix in ("eedly", "eed"):
        if word.endswith(suffix):
            at = len(word) - len(suffix)
            return word[:at] + "ee" if at >= r1 else word
    for suffix in ("ingly", "edly", "ing", "ed"):
        if word.endswith(suffix):
            break
    else:
        return word
    base = word.removesuffix(suffix)
    if suffix == "ing" and len(base) == 2 and base[1] == "y" and not _HAS_VOWEL.match(base):
        return base[0] + "ie"  # dying, lying, tying
    if not _HAS_VOWEL.search(base):
        return word
    if base.endswith(("at", "bl", "iz")):
        return base + "e"
    if base[-2:] in _DOUBLES:
        # add, egg, off are words of their own
        return base if len(base) == 3 and base[0] in "aeo" else base[:-1]
    if r1 >= len(base) and _SHORT_SYLLABLE.search(base):
        return base + "e"  # hoping
    return base


def _step_1c(word: str) -> str:
    if len(word) > 2 and word[-1] in "yY" and word[-2] not in "aeiouy":
        return word[:-1] + "i"
    return word


def _step_2(word: str, r1: int) -> str:
    found = _STEP_2_SUFFIX.search(word)
    if not found or found.start() < r1:
        return word
    base, suffix = word[: found.start()], found.group()
    if suffix == "ogi":
        return base + "og" if base.endswith("l") else word
    if suffix == "li":
        return base if base[-1:] in _LI_ENDINGS else word
    return base + (_STEP_2[suffix] or "")


def _step_3(word: str, r1: int, r2: int) -> str:
    found = _STEP_3_SUFFIX.search(word)
    if not found or found.start() < r1:
        return word
    base, suffix = word[: found.start()], found.group()
    if suffix == "ative":
        return base if found.start() >= r2 else word
    return base + (_STEP_3[suffix] or "")


def _step_4(word: str, r2: int) -> str:
    found = _STEP_4_SUFFIX.search(word)
    if not found or found.start() < r2:
        return word
    base = word[: found.start()]
    if found.group() == "ion" and not base.endswith(("s", "t")):
        return word
    return base


def _step_5(word: str, r1: int, r2: int) -> str:
    end = len(word) - 1
    if word.endswith("e"):
        if end >= r2 or (end >= r1 and not _SHORT_SYLLABLE.search(word, 0, end)):
            return word[:-1]
    elif word.endswith("l") and end >= r2 and word[-2] == "l":
        return word[:-1]
    return word
