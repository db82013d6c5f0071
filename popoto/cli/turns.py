"""What a conversation is once it has been read: turns, and questions whose answers lie in some of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from popoto.exceptions import PopotoException


class TranscriptError(PopotoException):
    """A file is no conversation that can be read: what was found and where, what was expected, what to do."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing said.

    Args:
        speaker: who said it, as the file spells it ("user", "assistant", a name).
        text: what was said; never blank.
        at: when; always with a timezone.
        id: the file's own name for the turn, if it has one.
    """

    speaker: str
    text: str
    at: datetime
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a conversation.

    `evidence` and `outdated` are positions in `Transcript.turns` (from 0): the turns that hold the answer,
    and turns that answer it with what is no longer true. Both only label what was recalled; no ranking sees
    them.
    """

    text: str
    answer: str | None = None
    evidence: tuple[int, ...] = ()
    outdated: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """A conversation in the order of the file. `skipped` counts turns left out because they hold no text."""

    turns: tuple[Turn, ...]
    title: str
    questions: tuple[Question, ...] = ()
    skipped: int = 0

    @property
    def speakers(self) -> tuple[str, ...]:
        """Each speaker once, in order of appearance."""
        return tuple(dict.fromkeys(turn.speaker for turn in self.turns))

    def name_of(self, position: int) -> str:
        """What the turn at `position` is called in the output: its own id, else its number (from 1)."""
        return turn_name(self.turns[position], position)

    @property
    def start(self) -> datetime:
        return min(turn.at for turn in self.turns)

    @property
    def end(self) -> datetime:
        return max(turn.at for turn in self.turns)


def turn_name(turn: Turn, position: int) -> str:
    """What a turn is called in the output: its own id, else its number (from 1)."""
    return turn.id or f"turn {position + 1}"


def kind(value: Any) -> str:
    """What a JSON value is, in words: for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object"


def shown(value: object, limit: int = 40) -> str:
    """A value in quotes, cut to `limit` characters: for messages."""
    text = str(value)
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def text_of(entry: dict[str, Any], key: str, where: str, *, may_be_blank: bool = False) -> str:
    """The text under `key`.

    Raises: TranscriptError: there is none, it is not text, it is blank, or it cannot be written as UTF-8.
    """
    if key not in entry:
        keys = ", ".join(map(shown, list(entry)[:6])) or "no keys at all"
        raise TranscriptError(f"{where} has no {key!r} (it has {keys}). Give each turn its {key!r} as text.")
    value = entry[key]
    if not isinstance(value, str):
        raise TranscriptError(f"{where}: {key!r} is {kind(value)}, expected text. Put it in quotes.")
    if not may_be_blank and not value.strip():
        raise TranscriptError(f"{where}: {key!r} is blank, expected text. Fill it in.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        # JSON can spell half of a surrogate pair as \ud83d; no server or terminal takes it.
        raise TranscriptError(
            f"{where}: {key!r} holds half of a character (a lone surrogate such as \\ud83d). Export it anew."
        ) from None
    return value.strip()
