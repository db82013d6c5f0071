"""The conversation that ships with the package is what the demo and the docs say of it."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from importlib.resources import files

from popoto.cli.bundled import bundled_transcript


def test_it_is_six_weeks_of_two_speakers_in_order() -> None:
    transcript = bundled_transcript()

    assert 70 <= len(transcript.turns) <= 90
    assert transcript.speakers == ("user", "assistant")
    assert timedelta(weeks=5) < transcript.end - transcript.start < timedelta(weeks=7)
    times = [turn.at for turn in transcript.turns]
    assert times == sorted(times) and len(set(times)) == len(times)


def test_weekdays_that_it_names_with_a_date_are_right() -> None:
    named = re.compile(r"(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day (\d{1,2}) (March|April)")
    days = ["Mon", "Tues", "Wednes", "Thurs", "Fri", "Satur", "Sun"]
    found = [match for turn in bundled_transcript().turns for match in named.findall(turn.text)]

    assert len(found) > 10
    for weekday, number, month in found:
        assert days[date(2025, 3 if month == "March" else 4, int(number)).weekday()] == weekday


def test_each_label_of_a_question_points_at_a_turn_about_it() -> None:
    transcript = bundled_transcript()
    about = ["job|Job", "Pickle|kibble", "entist|appointment", "contacts"]

    assert len(transcript.questions) == len(about)
    for question, words in zip(transcript.questions, about, strict=True):
        assert question.answer and question.evidence
        for position in question.evidence + question.outdated:
            text = transcript.turns[position].text
            assert any(word in text for word in words.split("|")), text


def test_turns_that_are_out_of_date_come_before_those_that_answer() -> None:
    for question in bundled_transcript().questions:
        assert all(old < min(question.evidence) for old in question.outdated)
    assert sum(bool(question.outdated) for question in bundled_transcript().questions) >= 3


def test_the_file_holds_nothing_but_role_content_and_date() -> None:
    for line in files("popoto.cli").joinpath("data", "conversation.jsonl").read_text("utf-8").splitlines():
        assert list(json.loads(line)) == ["role", "content", "date"]
