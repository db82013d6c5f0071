"""Read a conversation from a file: JSON lines, a JSON array of the same objects, or the LoCoMo shape.

JSON lines is one object a line, `{"role": ..., "content": ..., "date": ...}`; the date is ISO 8601 and
counts as UTC when it has no offset; an `"id"` is kept if there is one, other keys are ignored. The LoCoMo
shape is in `locomo.py`.

Whatever is wrong with a file becomes a `TranscriptError`: what was found and where, what was expected, what
to do.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from popoto.cli.locomo import read_locomo
from popoto.cli.turns import Question, Transcript, TranscriptError, Turn, kind, shown, text_of

__all__ = ["MAX_BYTES", "MAX_TURNS", "Question", "Transcript", "TranscriptError", "Turn", "load_transcript"]

MAX_BYTES = 32 * 1024 * 1024  # enough for MAX_TURNS of 3,000 characters
MAX_TURNS = 10_000  # stored in about five seconds
_EXPECTED = 'Expected JSON lines such as {"role": "user", "content": "Hello", "date": "2025-03-03T18:40:00+01:00"}'
# Python 3.10's fromisoformat knows neither "Z" nor offsets without a colon, nor 1, 2 or 4 digits of a second.
_ISO = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2})?(?:[.,](\d{1,9}))?\s?(Z|z|[+-]\d{2}(?::?\d{2})?)?)?"
)


def load_transcript(path: str | os.PathLike[str]) -> Transcript:
    """Read the conversation in `path`, whichever of the three shapes it has.

    Returns: the turns in the file's order, the file's name as the title, and the file's own questions if any.
    Raises: TranscriptError: there is no such file, or it is not a conversation; the text says why.
    """
    name = Path(path).name or str(path)
    text = _text(path, name)
    if not text.strip():
        raise TranscriptError(f"{name} is empty. {_EXPECTED}.")
    if text.lstrip().startswith("[") or not _is_json(text.lstrip().split("\n", 1)[0]):
        transcript = _from_document(text, name)
    else:
        transcript = _from_lines(text, name)
    if len(transcript.turns) > MAX_TURNS:
        raise TranscriptError(
            f"{name} has {len(transcript.turns):,} turns, expected at most {MAX_TURNS:,}. Cut it to fewer."
        )
    return transcript


def _text(path: str | os.PathLike[str], name: str) -> str:
    shown_path = shown(os.fspath(path), 200)
    try:
        with open(path, "rb") as file:
            # Reading one byte past the limit measures pipes and devices too, which have no size to ask for.
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise TranscriptError(f"There is no file {shown_path}. Check the path, or run without --file.") from None
    except IsADirectoryError:
        raise TranscriptError(f"{shown_path} is a folder, expected a file. Name one file in it.") from None
    except PermissionError:
        raise TranscriptError(
            f"You may not read {shown_path}. Change its permissions (chmod u+r) or name a file of your own."
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise TranscriptError(f"{shown_path} cannot be read: {reason}. Name a readable file.") from None
    if len(data) > MAX_BYTES:
        raise TranscriptError(
            f"{name} is larger than {MAX_BYTES // 1024**2} MB, the most that is read. Cut it to fewer turns."
        )
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TranscriptError(f"{name} is UTF-16, expected UTF-8. Save it as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TranscriptError(
            f"{name}, line {line}: the byte 0x{data[error.start]:02x} is not UTF-8. Save it as UTF-8 text."
        ) from None


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(text: str, where: str, first_line: int = 1) -> Any:
    """The JSON in `text`; `where` gets the line number of a fault, counted from `first_line`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        begin = text.split("\n")[error.lineno - 1].strip()
        raise TranscriptError(
            f"{where}, line {line} is not JSON ({_first_lower(error.msg)} at column {error.colno}): "
            f"{shown(begin)}. {_EXPECTED}."
        ) from None
    except RecursionError:
        raise TranscriptError(f"{where}, line {first_line} is nested too deeply. {_EXPECTED}.") from None
    except ValueError as error:  # a number of thousands of digits
        raise TranscriptError(f"{where}, line {first_line} cannot be read: {error}. {_EXPECTED}.") from None


def _first_lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _from_document(text: str, name: str) -> Transcript:
    """The whole file as one JSON value: an array of turns, or the LoCoMo shape printed over several lines."""
    data = _parse(text, name)
    if isinstance(data, list):
        items = ((f"{name}, item {number}", entry) for number, entry in enumerate(data, 1))
        return _from_entries(items, name)
    return _from_object(data, name)


def _from_lines(text: str, name: str) -> Transcript:
    # Not splitlines(): it also splits at U+2028 and others, which may stand unescaped inside JSON text.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if len(lines) == 1:
        data = _parse(lines[0][1], name, lines[0][0])
        if isinstance(data, dict) and "sessions" in data:
            return read_locomo(data, name)
    entries = ((f"{name}, line {number}", _parse(line, name, number)) for number, line in lines)
    return _from_entries(entries, name)


def _from_object(data: Any, name: str) -> Transcript:
    if isinstance(data, dict) and "sessions" in data:
        return read_locomo(data, name)
    if isinstance(data, dict) and {"role", "content", "date"} <= data.keys():
        return _from_entries([(name, data)], name)
    found = kind(data)
    if isinstance(data, dict) and data:
        found += f" with the keys {', '.join(map(shown, list(data)[:6]))}"
    raise TranscriptError(f"{name} is {found}, which is no conversation. {_EXPECTED}, or the LoCoMo shape.")


def _from_entries(entries: Iterable[tuple[str, Any]], name: str) -> Transcript:
    turns: list[Turn] = []
    skipped = 0
    for where, entry in entries:
        turn = _turn(entry, where)
        if turn is None:
            skipped += 1
        else:
            turns.append(turn)
    if not turns:
        blank = f" ({skipped} without text)" if skipped else ""
        raise TranscriptError(f"{name} has no turns{blank}. {_EXPECTED}.")
    return Transcript(tuple(turns), name, (), skipped)


def _turn(entry: Any, where: str) -> Turn | None:
    """The turn, or None when it has no text: exports of agents hold such turns where a tool was called."""
    if not isinstance(entry, dict):
        raise TranscriptError(f"{where} is {kind(entry)}, expected an object. {_EXPECTED}.")
    speaker = text_of(entry, "role", where)
    text = text_of(entry, "content", where, may_be_blank=True)
    at = _date(text_of(entry, "date", where), where)
    given = entry.get("id")
    if given is not None and not isinstance(given, (str, int)):
        raise TranscriptError(f"{where}: 'id' is {kind(given)}, expected text. Name it or leave it out.")
    return Turn(speaker, text, at, None if given is None else str(given)) if text else None


def _date(text: str, where: str) -> datetime:
    match = _ISO.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        day, minute, second, fraction, offset = match.groups()
        clock = f"{minute or '00:00'}{second or ':00'}.{(fraction or '0')[:6]:0<6}"
        if offset is None or offset in "Zz":
            offset = "+00:00"
        elif len(offset) == 3:
            offset += ":00"
        elif ":" not in offset:
            offset = f"{offset[:3]}:{offset[3:]}"
        at = datetime.fromisoformat(f"{day}T{clock}{offset}")
        at.astimezone(timezone.utc)  # the calendar's first and last day overflow here, not later
    except (ValueError, OverflowError):
        raise TranscriptError(
            f"{where}: the date {shown(text)} cannot be read. Write it in ISO 8601, "
            "such as '2025-03-03T18:40:00+01:00'."
        ) from None
    return at
