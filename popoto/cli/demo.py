"""`popoto demo`: remember a conversation, recall for questions, report outcomes, show what they change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from popoto._embedded import temporary_embedded
from popoto.cli.bundled import bundled_transcript
from popoto.cli.recall import ConversationMemory, DemoMemory, conversation_name
from popoto.cli.render import Screen, day, listed
from popoto.cli.results import Outcome, Recall
from popoto.cli.topics import topics
from popoto.cli.transcript import load_transcript
from popoto.cli.turns import Question, Transcript
from popoto.redis_db import configure_url

MAX_TOKENS = 400


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
        memory = ConversationMemory(
            conversation_name(options.file), transcript, max_tokens=options.max_tokens
        )
        _remember(screen, memory)
        screen.say(source)
        _explain(screen)
        for number, question in enumerate(questions, 1):
            screen.heading(f"Question {number} of {len(questions)}: {question.text}")
            _ask(screen, memory, question, labelled=options.file is None, first=number == 1)
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
    screen.say(
        f"The conversation: {transcript.title}; {turns} of {listed(who)}, from {day(first)} to {day(last)}."
    )
    if transcript.skipped:
        screen.say(f"Turns left out because they hold no text: {transcript.skipped:,}.")


@contextmanager
def _server(screen: Screen, store: str | None) -> Iterator[None]:
    if store is not None:
        configure_url(store)
        screen.say(
            f"The store: {_without_password(store)}. Only {DemoMemory.__name__} records of this conversation "
            "are touched there; they stay when the demo ends, and the next run replaces them."
        )
        yield
        return
    with temporary_embedded() as url:
        configure_url(url)
        screen.say("The store: a throw-away server of this demo, on this machine; it ends with the demo.")
        yield


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _remember(screen: Screen, memory: ConversationMemory) -> None:
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


def _ask(
    screen: Screen, memory: ConversationMemory, question: Question, *, labelled: bool, first: bool
) -> None:
    before = memory.recall(question.text)
    if not before.items:
        screen.say("Nothing was recalled.")
        return
    if all(item.signals.get("keyword") == 0 for item in before.items):
        screen.say("No turn has a word of the question; what comes back is only fresh.")
    screen.recall(before, _notes(question, labelled))
    if question.answer is not None:
        _tell_evidence(screen, memory.transcript, question, before, labelled)
    screen.context(before, memory.assembler.max_tokens or MAX_TOKENS)
    used, wrong = _outcomes(screen, memory.transcript, question, before, labelled=labelled, first=first)
    if not used and not wrong:
        return
    outcomes = [memory.report(position, proved_right=True) for position in used]
    outcomes += [memory.report(position, proved_right=False) for position in wrong]
    screen.say(_told(memory.transcript, outcomes))
    after = memory.recall(question.text)
    screen.say("The same question again:")
    screen.change(before, after)
    if [item.position for item in before.items] == [item.position for item in after.items]:
        screen.say("No record changed its place; the scores show what moved.")


def _notes(question: Question, labelled: bool) -> dict[int, str]:
    notes = {position: "out of date" for position in question.outdated}
    return notes | {position: "answers" if labelled else "evidence" for position in question.evidence}


def _tell_evidence(
    screen: Screen, transcript: Transcript, question: Question, recall: Recall, labelled: bool
) -> None:
    """Say whether the turns that hold the answer were recalled; the labels are not known to the ranking."""
    owner = "The demo knows the answer" if labelled else "The file gives the answer"
    ranks = {position: recall.rank_of(position) for position in question.evidence}
    found = [f"{transcript.name_of(p)} (rank {rank})" for p, rank in ranks.items() if rank is not None]
    names = listed(transcript.name_of(position) for position in question.evidence)
    outcome = (
        f"recalled: {listed(found)}" if found else f"none of them among the {len(recall.items)} recalled"
    )
    screen.say(
        f'{owner}: "{question.answer}". It is said in {names}; {outcome}. The ranking did not see this label.'
    )


def _outcomes(
    screen: Screen,
    transcript: Transcript,
    question: Question,
    recall: Recall,
    *,
    labelled: bool,
    first: bool,
) -> tuple[list[int], list[int]]:
    """Which recalled turns to report as used and which as wrong; says where the verdict comes from."""
    used = [item.position for item in recall.items if item.position in question.evidence]
    wrong = [item.position for item in recall.items if item.position in question.outdated]
    if used or wrong:
        label = "the demo's label" if labelled else "the file's evidence label"
        screen.say(f"Now the outcome goes back into the memory, by {label}.")
        return used, wrong
    if question.evidence:
        screen.say("No recalled turn holds the answer, so there is no outcome to report.")
        return [], []
    if first and len(recall.items) > 1:
        screen.say(
            "Now an outcome, made up to show its effect: the second record was used, the first was wrong."
        )
        return [recall.items[1].position], [recall.items[0].position]
    return [], []


def _told(transcript: Transcript, outcomes: list[Outcome]) -> str:
    parts = []
    for right, verdict in ((True, "Used and right"), (False, "Out of date or wrong")):
        told = [
            f"{transcript.name_of(o.position)} (certainty {o.before:.2f} to {o.after:.2f})"
            for o in outcomes
            if o.proved_right is right
        ]
        if told:
            parts.append(f"{verdict}: {listed(told)}.")
    return " ".join(parts)


def _close(screen: Screen, memory: ConversationMemory, options: DemoOptions) -> None:
    screen.heading("What next")
    if options.store is None:
        screen.say("The throw-away server is stopped now and nothing is left behind.")
    else:
        screen.say(f"The memories stay in your store as {DemoMemory.__name__}, conversation {memory.name!r}.")
    screen.say("- The code of all this: popoto/cli/recall.py, a model of eight fields and one assembler.")
    screen.say("- What each figure means, and your own conversations: docs/demo.md")
    if options.file is None:
        screen.say('- Ask it something else: popoto demo --question "Which flat did I refuse, and why?"')
        screen.say("- Give it your own conversation: popoto demo --file FILE")
