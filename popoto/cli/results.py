"""What the demo shows, as plain values: recalled turns with their scores, and outcomes reported back."""

from __future__ import annotations

from dataclasses import dataclass

from popoto.cli.turns import Turn, turn_name


@dataclass(frozen=True, slots=True)
class Recalled:
    """One recalled turn: its position in the transcript, its score, and what each signal added to it."""

    position: int
    turn: Turn
    total: float
    signals: dict[str, float]

    @property
    def name(self) -> str:
        """What the turn is called in the output: its own id, else its number."""
        return turn_name(self.turn, self.position)


@dataclass(frozen=True, slots=True)
class Recall:
    """What a question brought back, best first, and the text made of it for the next model call."""

    question: str
    items: tuple[Recalled, ...]
    context: str
    tokens: int
    candidates: int
    ms: float

    def rank_of(self, position: int) -> int | None:
        """The rank (from 1) of the turn at `position`, None if it was not recalled."""
        return next((rank for rank, item in enumerate(self.items, 1) if item.position == position), None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was reported back about one turn, and its certainty before and after."""

    position: int
    proved_right: bool
    before: float
    after: float
