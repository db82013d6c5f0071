"""What the demo draws fits 80 columns and says the same without colour, Unicode or a terminal."""

from __future__ import annotations

import io
import re
from datetime import datetime, timedelta, timezone

import pytest

from popoto.cli.render import Screen, clean, day, listed
from popoto.cli.results import Recall, Recalled
from popoto.cli.turns import Turn

START = datetime(2025, 3, 3, 18, 40, tzinfo=timezone.utc)
LONG = "The dentist just called, the practice is closed this week because of a burst pipe. " * 2


def item(position: int, total: float, text: str = LONG, **signals: float) -> Recalled:
    turn = Turn("user", text, START + timedelta(days=position))
    return Recalled(position, turn, total, signals or {"keyword": total - 0.3, "relevance": 0.2, "certainty": 0.1})


def recall(*items: Recalled, context: str = "1. speaker: user, content: hello") -> Recall:
    return Recall("When?", items, context, 12, 40, 0.8)


def draw(step: str, *args: object, encoding: str = "utf-8", width: int | None = 80) -> str:
    raw = io.BytesIO()
    screen = Screen(io.TextIOWrapper(raw, encoding=encoding, write_through=True, newline="\n"), width)
    getattr(screen, step)(*args)
    return raw.getvalue().decode(encoding)


BEFORE = recall(item(1, 0.9), item(2, 0.8), item(3, 0.7), item(4, 0.6))
AFTER = recall(item(2, 0.95), item(1, 0.5), item(3, 0.4), item(5, 0.3))


def test_each_recalled_turn_shows_its_score_and_every_signal() -> None:
    text = draw("recall", BEFORE, {})

    assert re.search(r"1 +0\.90 +keyword +0\.60 █+ .*turn 2, 4 Mar 2025, user: The", text)
    assert text.count("keyword") == text.count("relevance") == text.count("certainty") == 4


def test_signals_of_any_name_and_sign_are_drawn() -> None:
    text = draw("recall", recall(item(0, -0.2, neighbourhood=-0.5, semantic=0.3)), {})

    assert re.search(r"neighbourhood -0\.50 ░{8}", text) and re.search(r"semantic +0\.30 █{5}", text)


def test_a_record_without_signals_is_drawn_too() -> None:
    bare = Recalled(0, Turn("user", "hello", START), 0.0, {})

    assert "hello" in draw("recall", recall(bare), {})


def test_a_note_stands_beside_its_turn() -> None:
    text = draw("recall", recall(item(1, 0.9, "short"), item(2, 0.8, "brief")), {2: "out of date"})

    assert "[out of date] turn 3, " in text and text.count("out of date") == 1


def test_the_context_is_shown_whole_with_its_token_count() -> None:
    text = draw("context", recall(item(1, 0.9), context="1. content: alpha\n2. content: [b]beta[/b]"), 400)

    assert "12 of at most 400 tokens" in text
    assert "1. content: alpha" in text and "2. content: [b]beta[/b]" in text


def test_an_empty_context_says_so() -> None:
    assert "(empty)" in draw("context", recall(context=""), 400)


def test_a_change_shows_who_rose_fell_stayed_came_and_left() -> None:
    rows = [line.split() for line in draw("change", BEFORE, AFTER).splitlines() if re.match(r" +[-\d]", line)]

    assert [row[:4] for row in rows] == [
        ["1", "2", "▲", "1"],
        ["2", "1", "▼", "1"],
        ["3", "3", "=", "0.70"],
        ["4", "-", "▲", "new"],
        ["-", "4", "▼", "out"],
    ]
    assert "0.80 → 0.95" in draw("change", BEFORE, AFTER)


def everything(**how: object) -> str:
    parts = [("heading", "A question? " * 9), ("recall", BEFORE, {1: "out of date"}), ("say", LONG)]
    parts += [("context", recall(context="\n".join([LONG] * 3)), 400), ("change", BEFORE, AFTER)]
    return "".join(draw(*part, **how) for part in parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, everything(width=width).splitlines())) <= width


def test_without_a_terminal_it_takes_80_columns_and_sends_no_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    text = everything(width=None)

    assert "\x1b" not in text and max(map(len, text.splitlines())) <= 80


def test_a_very_wide_terminal_is_not_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")

    assert max(map(len, everything(width=None).splitlines())) <= 100


def test_no_color_keeps_colour_out_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = re.compile(r"\x1b\[[\d;]*3\dm")
    assert coloured.search(everything())

    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured.search(everything())


def test_an_ascii_output_gets_ascii_and_marks_what_it_cannot_show() -> None:
    text = everything(encoding="ascii")

    assert re.search(r"keyword +0\.60 #+", text) and "0.80 -> 0.95" in text and "up 1" in text
    assert "caf?" in draw("say", "café", encoding="ascii")


def test_text_of_a_transcript_is_no_markup_and_sends_no_control_codes() -> None:
    evil = item(0, 0.5, ":a: [bold red]hi[/] \x1b[2J\x07\x9b1m")
    for text in (
        draw("recall", recall(evil), {}, width=100),
        draw("context", recall(evil, context=evil.turn.text), 9),
        draw("change", recall(evil), recall(evil), width=100),
        draw("heading", evil.turn.text),
    ):
        assert ":a: [bold red]hi[/]" in text
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_clean_keeps_lines_and_tabs() -> None:
    assert clean("a\tb\nc\r\x00") == "a\tb\nc\ufffd\ufffd"


def test_days_and_lists_read_as_in_a_sentence() -> None:
    assert day(Turn("user", "x", START)) == "3 Mar 2025"
    assert [listed([]), listed("a"), listed("ab"), listed("abc")] == ["none", "a", "a and b", "a, b and c"]
