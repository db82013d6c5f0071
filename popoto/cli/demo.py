"""`popoto demo`: remember a conversation, recall for questions, report outcomes, show what they change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from popoto._embedded import temporary_embedded
from popoto.cli.asking import Asker
from popoto.cli.bundled import bundled_transcript
from popoto.cli.recall import ConversationMemory, DemoMemory, conversation_name
from popoto.cli.render import Screen, day, listed
from popoto.cli.topics import topics
from popoto.cli.transcript import load_transcript
from popoto.cli.turns import Question, Transcript
from popoto.redis_db import configure_url

MAX_TOKENS = 400
_MANY = 2_000  # turns; about 2,000 are stored in a second


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line asked for."""

    file: str | None = None
    questions: tuple[str, ...] = ()
    store: str | None = None
    max_tokens: int = MAX_TOKENS


def run_demo(screen: Screen, options: DemoOptions) -> None:
    """Run the demo.

    Raises: TranscriptError: the file is no conversation. PopotoException, RedisError: there is no server.
    """
    transcript = bundled_transcript() if options.file is None else load_transcript(options.file)
    questions, source = _questions(transcript, options)
    screen.heading("popoto demo")
    _introduce(screen, transcript)
    with _server(screen, options.store):
        memory = ConversationMemory(conversation_name(options.file), transcript, max_tokens=options.max_tokens)
        _remember(screen, memory)
        screen.say(source)
        _explain(screen)
        asker = Asker(screen, memory, bundled=options.file is None)
        for number, question in enumerate(questions, 1):
            screen.heading(f"Question {number} of {len(questions)}: {question.text}")
            asker.ask(question)
    _close(screen, memory, options)


def _questions(transcript: Transcript, options: DemoOptions) -> tuple[tuple[Question, ...], str]:
    """The questions to ask and a sentence that says where they come from."""
    if options.questions:
        return tuple(Question(text) for text in options.questions), "The questions are yours."
    if transcript.questions:
        if options.file is None:
            return transcript.questions, "The questions come with the conversation."
        return (
            transcript.questions,
            "The questions are the file's first of each kind that it holds an answer to.",
        )
    found = topics(transcript)
    if not found:
        return (), "No --question was given and no word stands out to ask about. Ask with --question."
    return found, "No --question was given, so these are about words that come up several times."


def _introduce(screen: Screen, transcript: Transcript) -> None:
    count = len(transcript.turns)
    turns = f"{count:,} turns" if count != 1 else "1 turn"
    first = min(transcript.turns, key=lambda turn: turn.at)
    last = max(transcript.turns, key=lambda turn: turn.at)
    who = transcript.speakers if len(transcript.speakers) < 5 else (*transcript.speakers[:3], "others")
    screen.say(f"The conversation: {transcript.title}; {turns} of {listed(who)}, from {day(first)} to {day(last)}.")
    if transcript.skipped:
        screen.say(f"Turns left out because they hold no text: {transcript.skipped:,}.")


@contextmanager
def _server(screen: Screen, store: str | None) -> Iterator[None]:
    if store is not None:
        configure_url(store)
        screen.say(
            f"The store: {without_password(store)}. Only {DemoMemory.__name__} records of this conversation "
            "are touched there; they stay when the demo ends, and the next run replaces them."
        )
        yield
        return
    with temporary_embedded() as url:
        configure_url(url)
        screen.say("The store: a throw-away server of this demo, on this machine; it ends with the demo.")
        yield


def without_password(url: str) -> str:
    """The URL of a server without user, password and options, to be shown."""
    scheme, mark, rest = url.partition("?")[0].partition("://")
    # Of a path everything counts, an "@" too; a password may hold an unescaped "/".
    authority, slash, path = (rest, "", "") if scheme.startswith("redis") else rest.partition("/")
    return scheme + mark + authority.rpartition("@")[2] + slash + path


def _remember(screen: Screen, memory: ConversationMemory) -> None:
    if len(memory.transcript.turns) > _MANY:
        screen.say("That many take some seconds to remember.")
    begin = time.perf_counter()
    replaced = memory.remember()
    took = time.perf_counter() - begin
    days = (memory.transcript.end - memory.transcript.start).days
    again = f" (in place of {replaced:,} of an earlier run)" if replaced else ""
    screen.say(
        f"Remembered, one record a turn{again}, in {took:.2f} s. Ages are counted from the end of the "
        f"conversation: its last turn is fresh, its first is {days} days old."
    )


def _explain(screen: Screen) -> None:
    screen.say()
    screen.say(
        "Each score below is a sum of three signals, each measured against the best candidate's: keyword, "
        "how well the words match the question (BM25), at most 1; relevance, how fresh the memory is (it "
        "fades with time), at most 0.3; certainty, how the memory has fared so far, at most 0.2."
    )


def _close(screen: Screen, memory: ConversationMemory, options: DemoOptions) -> None:
    screen.heading("What next")
    if options.store is None:
        screen.say("The throw-away server is stopped now and nothing is left behind.")
    else:
        screen.say(f"The memories stay in your store as {DemoMemory.__name__}, conversation {memory.name!r}.")
    screen.say("- The code of all this: popoto/cli/recall.py, a model of seven fields and one assembler.")
    screen.say("- What each figure means, and your own conversations: docs/demo.md")
    if options.file is None:
        screen.say('- Ask it something else: popoto demo --question "Which flat had carpet everywhere?"')
        screen.say("- Give it your own conversation: popoto demo --file FILE")
