"""A transcript is read in each of its shapes; what is wrong with a file is told in a sentence."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popoto.cli import transcript as module
from popoto.cli.transcript import Transcript, TranscriptError, Turn, load_transcript

HELLO = {"role": "user", "content": "Hello there", "date": "2025-03-03T18:40:00+01:00"}
REPLY = {"role": "assistant", "content": "Good evening", "date": "2025-03-03T18:41:00+01:00"}
LOCOMO: dict[str, Any] = {
    "id": "7",
    "speakers": ["Ann", "Bo"],
    "sessions": [
        {
            "session": 1,
            "date": "1:56 pm on 8 May, 2023",
            "turns": [
                {"dia_id": "D1:1", "speaker": "Ann", "text": "I adopted a cat."},
                {"dia_id": "D1:2", "speaker": "Bo", "text": "Look!", "caption": "a photo of a heron"},
            ],
        },
        {
            "session": 2,
            "date": "12:05 am on 1 June, 2023",
            "turns": [{"dia_id": "D2:1", "speaker": "Ann", "text": "The cat is called Turnip."}],
        },
    ],
    "qa": [
        {"question": "What bird did Bo see?", "answer": "a heron", "evidence": ["D1:2"], "category": 4},
        {"question": "What did Bo adopt?", "answer": None, "evidence": ["D1:1"], "category": 5},
        {
            "question": "What is the cat called?",
            "answer": "Turnip",
            "evidence": ["D2:1", "D9:9"],
            "category": 1,
        },
        {"question": "Who has a pet?", "answer": "Ann", "evidence": ["D1:1"], "category": 1},
    ],
}


def lines(*entries: Any) -> str:
    return "".join(f"{json.dumps(entry)}\n" for entry in entries)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(content: str | bytes, name: str = "talk.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


# What can be read


def test_json_lines_become_turns_in_order(write: Any) -> None:
    transcript = load_transcript(write(lines(HELLO, REPLY)))

    cet = timezone(timedelta(hours=1))
    assert transcript.turns == (
        Turn("user", "Hello there", datetime(2025, 3, 3, 18, 40, tzinfo=cet)),
        Turn("assistant", "Good evening", datetime(2025, 3, 3, 18, 41, tzinfo=cet)),
    )
    assert transcript.title == "talk.jsonl"
    assert transcript.speakers == ("user", "assistant")
    assert transcript.questions == ()


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([HELLO, REPLY]),
        json.dumps([HELLO, REPLY], indent=2),
        "\n\n" + lines(HELLO) + "  \n" + lines(REPLY).replace("\n", "\r\n"),
        "\ufeff" + lines(HELLO, REPLY),
    ],
    ids=["array", "array over several lines", "blank lines and CRLF", "byte order mark"],
)
def test_other_ways_to_write_the_same_turns_are_read_alike(write: Any, text: str) -> None:
    assert load_transcript(write(text)).turns == load_transcript(write(lines(HELLO, REPLY), "plain")).turns


def test_one_object_is_a_conversation_of_one_turn(write: Any) -> None:
    assert len(load_transcript(write(json.dumps(HELLO))).turns) == 1
    assert len(load_transcript(write(json.dumps(HELLO, indent=1))).turns) == 1


def test_an_id_is_kept_and_other_keys_are_ignored(write: Any) -> None:
    transcript = load_transcript(write(lines({**HELLO, "id": 12, "model": "x"}, {**REPLY, "id": "b"})))

    assert [turn.id for turn in transcript.turns] == ["12", "b"]


def test_turns_without_text_are_left_out_and_counted(write: Any) -> None:
    transcript = load_transcript(write(lines(HELLO, {**REPLY, "content": "  "})))

    assert (len(transcript.turns), transcript.skipped) == (1, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-03-03T18:40:00+01:00", "2025-03-03T17:40:00+00:00"),
        ("2025-03-03T18:40:00Z", "2025-03-03T18:40:00+00:00"),
        ("2025-03-03T18:40:00.25-0530", "2025-03-04T00:10:00.250000+00:00"),
        ("2025-03-03 18:40", "2025-03-03T18:40:00+00:00"),
        ("2025-03-03T18:40:00.123456789+02", "2025-03-03T16:40:00.123456+00:00"),
        ("2025-03-03", "2025-03-03T00:00:00+00:00"),
    ],
)
def test_dates_in_iso_8601_are_read_and_count_as_utc_without_an_offset(write: Any, text: str, expected: str) -> None:
    (turn,) = load_transcript(write(lines({**HELLO, "date": text}))).turns

    assert turn.at == datetime.fromisoformat(expected)


@pytest.mark.parametrize("indent", [None, 1])
def test_the_locomo_shape_gives_turns_and_one_question_a_category(write: Any, indent: int | None) -> None:
    transcript = load_transcript(write(json.dumps(LOCOMO, indent=indent), "7.json"))

    assert [(turn.id, turn.speaker, turn.text) for turn in transcript.turns] == [
        ("D1:1", "Ann", "I adopted a cat."),
        ("D1:2", "Bo", "Look! [a photo of a heron]"),
        ("D2:1", "Ann", "The cat is called Turnip."),
    ]
    assert transcript.start == datetime(2023, 5, 8, 13, 56, tzinfo=timezone.utc)
    assert transcript.end == datetime(2023, 6, 1, 0, 5, tzinfo=timezone.utc)
    assert [(q.text, q.answer, q.evidence) for q in transcript.questions] == [
        ("What bird did Bo see?", "a heron", (1,)),
        ("What is the cat called?", "Turnip", (2,)),
    ]


def test_a_locomo_file_without_questions_is_a_conversation_too(write: Any) -> None:
    without = {key: value for key, value in LOCOMO.items() if key != "qa"}

    assert load_transcript(write(json.dumps(without))).questions == ()


# What cannot


def refusal(path: Any) -> str:
    with pytest.raises(TranscriptError) as caught:
        load_transcript(path)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and len(message) < 400
    return message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no file" in (message := refusal(tmp_path / "gone.jsonl")) and "gone.jsonl" in message


def test_a_folder_is_told_from_a_file(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


def test_a_path_that_no_file_can_have_is_refused() -> None:
    assert "cannot be read" in refusal("a\0b")
    assert "cannot be read" in refusal("x" * 5000)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_file_without_permission_says_how_to_get_it(write: Any) -> None:
    path = write(lines(HELLO))
    path.chmod(0)
    assert "chmod" in refusal(path)


def test_a_refused_open_says_how_to_get_permission(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert "chmod" in refusal("talk.jsonl")


@pytest.mark.parametrize("content", ["", "  \n\n\t\n", "\ufeff"])
def test_an_empty_file_says_what_belongs_in_it(write: Any, content: str) -> None:
    message = refusal(write(content))
    assert "is empty" in message and '"role"' in message


def test_a_file_that_is_not_utf_8_names_the_line_and_the_byte(write: Any) -> None:
    message = refusal(write(lines(HELLO).encode() + b'{"role": "us\xe9r"}\n'))
    assert "line 2" in message and "0xe9" in message and "UTF-8" in message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused_in_a_sentence(write: Any, encoding: str) -> None:
    refusal(write(lines(HELLO).encode(encoding)))


def test_a_huge_file_is_refused_after_the_limit(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1024**2)
    assert "larger than 1 MB" in refusal(write(b" " * (1024**2 + 1)))


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
def test_an_endless_device_is_refused_like_a_huge_file() -> None:
    assert "larger than" in refusal("/dev/zero")


def test_too_many_turns_are_refused_with_both_numbers(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TURNS", 3)
    message = refusal(write(lines(*[HELLO] * 4)))
    assert "4 turns" in message and "at most 3" in message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("Hello there\n", ["line 1 is not JSON", "'Hello there'"]),
        (lines(HELLO) + "{oops}\n", ["line 2 is not JSON", "'{oops}'"]),
        (lines(HELLO) + "[1]\n", ["line 2 is a list", "expected an object"]),
        ('{"role": "user", "content": "half\n', ["line 1 is not JSON"]),
        ('[{"role": "user"},\n {"role": oops}]', ["line 2 is not JSON"]),
        (json.dumps(LOCOMO, indent=1)[:-30], ["is not JSON"]),
        ("[" * 100_000, ["nested too deeply"]),
        (lines(HELLO) + "9" * 5000, ["line 2"]),
        ("42", ["is a number"]),
        ('"text"', ["is text"]),
        ("[]", ["no turns"]),
        ("[1]", ["item 1 is a number"]),
        ("{}", ["line 1 has no 'role'"]),
        ("{\n}", ["is an object", "no conversation"]),
        ('{\n"messages": [],\n"title": ""}', ["'messages', 'title'", "no conversation"]),
        ('{"messages": []}', ["has no 'role'", "'messages'"]),
        (lines({**HELLO, "content": ""}), ["no turns", "1 without text"]),
        (lines(HELLO, {"role": "user", "date": HELLO["date"]}), ["line 2 has no 'content'"]),
        (lines({"role": "user", "content": "x"}), ["line 1 has no 'date'"]),
        (lines({**HELLO, "role": ""}), ["line 1: 'role' is blank"]),
        (lines({**HELLO, "role": None}), ["line 1: 'role' is null"]),
        (lines({**HELLO, "content": [{"type": "text"}]}), ["line 1: 'content' is a list"]),
        (lines({**HELLO, "content": "\ud83d"}), ["line 1: 'content' holds half of a character"]),
        (lines({**HELLO, "date": 1741023600}), ["line 1: 'date' is a number"]),
        (lines({**HELLO, "date": "yesterday"}), ["line 1: the date 'yesterday'", "ISO 8601"]),
        (lines({**HELLO, "date": "2025-02-30T10:00:00Z"}), ["line 1: the date '2025-02-30T10:00:00Z'"]),
        (lines({**HELLO, "date": "0001-01-01T00:00:00+05:00"}), ["line 1: the date"]),
        (lines({**HELLO, "date": "2025-03-03T10:00:00+99:00"}), ["line 1: the date"]),
        (lines({**HELLO, "id": {"a": 1}}), ["line 1: 'id' is an object"]),
        (json.dumps([HELLO, {"role": "user"}]), ["item 2 has no 'content'"]),
    ],
)
def test_a_wrong_file_says_what_was_found_and_where(write: Any, content: str, told: list[str]) -> None:
    message = refusal(write(content))
    for words in ["talk.jsonl", *told]:
        assert words in message


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sessions": None}, "'sessions' is null"),
        ({"sessions": []}, "no turn with text"),
        ({"sessions": [7]}, "session 1 is a number"),
        ({"sessions": [{"turns": []}]}, "session 1 has no 'date'"),
        ({"sessions": [{"date": "8 May 2023", "turns": []}]}, "session 1: the date '8 May 2023'"),
        ({"sessions": [{"date": "13:56 pm on 8 May, 2023", "turns": []}]}, "session 1: the date"),
        ({"sessions": [{"date": "1:56 pm on 8 Mai, 2023", "turns": []}]}, "session 1: the date"),
        ({"sessions": [{"date": "1:56 pm on 8 May, 2023"}]}, "session 1: 'turns' is missing"),
        ({"sessions": [{"date": "1:56 pm on 8 May, 2023", "turns": ["x"]}]}, "session 1, turn 1 is text"),
        ({"sessions": [{"date": "1:56 pm on 8 May, 2023", "turns": [{"text": "x"}]}]}, "has no 'speaker'"),
        ({"qa": {"question": "x"}}, "'qa' is an object"),
        ({"qa": [{"answer": "x"}]}, "question 1 has no 'question'"),
    ],
)
def test_a_wrong_locomo_file_says_which_session_or_question(write: Any, change: Any, told: str) -> None:
    assert told in refusal(write(json.dumps({**LOCOMO, **change})))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from(["role", "content", "date", "sessions", "turns", "qa", "text", "speaker"]),
                    inner,
                    max_size=5,
                )
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_file_is_a_conversation_or_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    try:
        assert isinstance(load_transcript(path), Transcript)
    except TranscriptError as refused:
        assert str(refused)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turns=st.lists(
        st.builds(
            Turn,
            speaker=st.text(st.characters(codec="utf-8"), min_size=1, max_size=9).map(str.strip).filter(bool),
            text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).map(str.strip).filter(bool),
            at=st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)).map(
                lambda moment: moment.replace(tzinfo=timezone.utc)
            ),
            id=st.none() | st.text(st.characters(codec="utf-8"), max_size=6),
        ),
        min_size=1,
        max_size=6,
    ),
    plain=st.booleans(),
)
def test_what_is_written_as_json_lines_is_read_back(tmp_path: Path, turns: list[Turn], plain: bool) -> None:
    path = tmp_path / "talk.jsonl"
    entries = [
        {"role": turn.speaker, "content": turn.text, "date": turn.at.isoformat(), "id": turn.id} for turn in turns
    ]
    path.write_text("\n".join(json.dumps(entry, ensure_ascii=plain) for entry in entries), "utf-8", newline="\n")

    assert load_transcript(path).turns == tuple(turns)
