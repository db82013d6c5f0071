"""Questions for a conversation that brings none: what its speakers come back to."""

from __future__ import annotations

import re
from collections import Counter
from importlib.resources import files

from popoto.cli.turns import Question, Transcript

_WORD = re.compile(r"\b[^\W\d_]{4,}\b")
# Words that every conversation repeats whatever it is about.
_COMMON = frozenset(files("popoto.cli").joinpath("data").joinpath("common_words.txt").read_text("utf-8").split())


def topics(transcript: Transcript, count: int = 3) -> tuple[Question, ...]:
    """The words that the most turns share without being everywhere, each as a question.

    A word counts from two turns on and up to a fifth of them (at least three turns); of two words that mostly
    occur in the same turns only the more frequent one is taken.
    """
    where: dict[str, set[int]] = {}
    spelt: dict[str, Counter[str]] = {}
    speakers = {speaker.casefold() for speaker in transcript.speakers}
    for position, turn in enumerate(transcript.turns):
        for word in _WORD.findall(turn.text):
            folded = word.casefold()
            if folded not in _COMMON and folded not in speakers:
                where.setdefault(folded, set()).add(position)
                spelt.setdefault(folded, Counter())[word] += 1
    most = max(3, len(transcript.turns) // 5)
    ranked = sorted(where, key=lambda word: (-len(where[word]), word))
    chosen: list[str] = []
    for word in ranked:
        turns = where[word]
        if not 2 <= len(turns) <= most or any(2 * len(turns & where[other]) > len(turns) for other in chosen):
            continue
        chosen.append(word)
        if len(chosen) == count:
            break
    if not chosen:  # a short conversation that repeats nothing
        chosen = ranked[:1]
    return tuple(Question(f"What was said about {spelt[word].most_common(1)[0][0]}?") for word in chosen)
