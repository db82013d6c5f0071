"""A conversation without questions is asked about what its speakers come back to."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from popoto.cli.bundled import bundled_transcript
from popoto.cli.topics import topics
from popoto.cli.turns import Transcript, Turn

START = datetime(2025, 3, 3, tzinfo=timezone.utc)


def talk(*texts: str, speaker: str = "user") -> Transcript:
    turns = [Turn(speaker, text, START + timedelta(hours=hour)) for hour, text in enumerate(texts)]
    return Transcript(tuple(turns), "talk")


def asked(transcript: Transcript) -> list[str]:
    return [question.text for question in topics(transcript)]


def test_words_of_several_turns_are_asked_about_most_frequent_first() -> None:
    talked = talk("the greenhouse leaks", "a greenhouse fan", "greenhouse door", "my badger", "the badger ate", "rain")

    assert asked(talked) == ["What was said about greenhouse?", "What was said about badger?"]


def test_words_that_always_come_together_are_asked_about_once() -> None:
    assert len(asked(talk("salmon kibble", "salmon kibble", "hello there"))) == 1


def test_names_of_speakers_and_everyday_words_are_no_topic() -> None:
    talked = talk("thanks Caroline, really", "thanks again Caroline, really", "a walrus", speaker="Caroline")

    assert asked(talked) == ["What was said about walrus?"]


def test_a_word_keeps_the_spelling_it_mostly_has() -> None:
    assert asked(talk("Lantern broke", "lantern", "Lantern works")) == ["What was said about Lantern?"]


def test_a_conversation_of_everyday_words_has_no_topic() -> None:
    assert asked(talk("hi", "and you?")) == []


def test_the_bundled_conversation_has_three_topics() -> None:
    assert len(topics(bundled_transcript())) == 3


def test_topics_never_see_the_labels_of_questions() -> None:
    assert all(not question.evidence and question.answer is None for question in topics(bundled_transcript()))
