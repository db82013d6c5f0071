"""The LoCoMo shape: one JSON object of dated `sessions` and `qa`, questions that name their evidence.

    {"id": "26", "sessions": [{"session": 1, "date": "1:56 pm on 8 May, 2023",
                   "turns": [{"dia_id": "D1:1", "speaker": "...", "text": "...", "caption": "..."}]}],
     "qa": [{"question": "...", "answer": "... or null", "evidence": ["D1:3"], "category": 2}]}

Source of the shape: Maharana et al., "Evaluating Very Long-Term Conversational Memory of LLM Agents",
ACL 2024.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

from popoto.cli.turns import Question, Transcript, TranscriptError, Turn, kind, shown, text_of

_DATE = re.compile(r"(\d{1,2}):(\d{2}) ?([ap]m) on (\d{1,2}) ([a-z]+),? (\d{4})", re.IGNORECASE)
# Not strptime: its month names are those of the machine's locale.
_MONTHS = ["january", "february", "march", "april", "may", "june"]
_MONTHS += ["july", "august", "september", "october", "november", "december"]
_SHAPE = "LoCoMo is sessions: [{date, turns: [{dia_id, speaker, text}]}] and qa: [{question, evidence}]."
_KINDS = (4, 1, 2, 3)  # single-hop, multi-hop, temporal, inference; 5 asks for what was never said


def read_locomo(data: dict[str, Any], title: str) -> Transcript:
    """Read the parsed object.

    All turns of a session carry the session's date, the only one that the shape has. A photo's caption
    follows the text in brackets. `questions` is the first question of each answerable category: a rule, so
    that nobody picks them by how well they do.

    Raises: TranscriptError: a session, a turn or a question is not as above.
    """
    turns: list[Turn] = []
    skipped = 0
    for number, session in enumerate(_listed(data, "sessions", title), 1):
        where = f"{title}, session {number}"
        at = _date(text_of(_object(session, where), "date", where), where)
        for position, entry in enumerate(_listed(session, "turns", where), 1):
            spot = f"{where}, turn {position}"
            turn = _turn(_object(entry, spot), at, spot)
            if turn is None:
                skipped += 1
            else:
                turns.append(turn)
    if not turns:
        raise TranscriptError(f"{title} has sessions but no turn with text. Give it at least one turn.")
    return Transcript(tuple(turns), title, _questions(data, turns, title), skipped)


def _turn(entry: dict[str, Any], at: datetime, where: str) -> Turn | None:
    text = text_of(entry, "text", where, may_be_blank=True)
    if entry.get("caption"):
        text = f"{text} [{text_of(entry, 'caption', where)}]".strip()
    if not text:
        return None
    dia_id = entry.get("dia_id")
    return Turn(text_of(entry, "speaker", where), text, at, None if dia_id is None else str(dia_id))


def _questions(data: dict[str, Any], turns: list[Turn], title: str) -> tuple[Question, ...]:
    positions = {turn.id: position for position, turn in enumerate(turns) if turn.id is not None}
    first: dict[int, Question] = {}
    for number, entry in enumerate(_listed(data, "qa", title, optional=True), 1):
        where = f"{title}, question {number}"
        text = text_of(_object(entry, where), "question", where)
        names = _listed(entry, "evidence", where, optional=True)
        evidence = tuple(positions[name] for name in names if isinstance(name, str) and name in positions)
        category, answer = entry.get("category"), entry.get("answer")
        if evidence and isinstance(category, int) and category in _KINDS:
            first.setdefault(category, Question(text, None if answer is None else str(answer), evidence))
    return tuple(first[category] for category in _KINDS if category in first)


def _date(text: str, where: str) -> datetime:
    match = _DATE.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        hour, minute, half, day, month, year = match.groups()
        if not 1 <= int(hour) <= 12:
            raise ValueError
        hours = int(hour) % 12 + (12 if half.lower() == "pm" else 0)
        return datetime(int(year), _MONTHS.index(month.lower()) + 1, int(day), hours, int(minute), tzinfo=timezone.utc)
    except ValueError:
        raise TranscriptError(
            f"{where}: the date {shown(text)} cannot be read. Write it such as '1:56 pm on 8 May, 2023'."
        ) from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TranscriptError(f"{where} is {kind(value)}, expected an object. {_SHAPE}")
    return value


def _listed(entry: dict[str, Any], key: str, where: str, *, optional: bool = False) -> list[Any]:
    value = entry.get(key)
    if value is None and optional:
        return []
    if not isinstance(value, list):
        found = kind(value) if key in entry else "missing"
        raise TranscriptError(f"{where}: {key!r} is {found}, expected a list. {_SHAPE}")
    return value
