"""A conversation as memories: the lines of the demo that use popoto are all here, to be read and copied."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

import popoto
from popoto import (
    BM25Field,
    ConfidenceField,
    ContextAssembler,
    DatetimeField,
    DecayingSortedField,
    Field,
    KeyField,
    Model,
)
from popoto.cli.results import Outcome, Recall, Recalled
from popoto.cli.turns import Transcript

MAX_ITEMS = 5
USED, CONTRADICTED = 0.9, 0.1  # the signals of an outcome: it proved right, it proved wrong
_BATCH = 500


class DemoMemory(Model):
    """One turn of a conversation."""

    conversation = KeyField()
    turn = KeyField()
    content = Field(max_length=None)  # "speaker: text", so that a question may name who said it
    said_at = DatetimeField()
    relevance = DecayingSortedField(partition_by="conversation")  # fades from when it was said or last used
    certainty = ConfidenceField(initial_confidence=0.5)  # moves with what is reported back
    words = BM25Field(source="content")  # keyword search


class ConversationMemory:
    """The memories of one conversation on the configured server."""

    def __init__(self, name: str, transcript: Transcript, *, max_tokens: int) -> None:
        self.name = name
        self.transcript = transcript
        self.max_tokens = max_tokens
        self.assembler = ContextAssembler(
            DemoMemory,
            score_weights={"relevance": 0.3, "certainty": 0.2},
            max_items=MAX_ITEMS,
            max_tokens=max_tokens,
            output_format="natural",
        )

    def remember(self) -> int:
        """Store every turn; returns how many memories of an earlier run under this name were replaced.

        A turn is as old as it was at the end of the conversation, so that a conversation of last year is not
        remembered as if all of it had faded alike.
        """
        replaced = self.forget()
        now, end = time.time(), self.transcript.end
        for start in range(0, len(self.transcript.turns), _BATCH):
            pipe = popoto.get_redis().pipeline()
            for position, turn in enumerate(self.transcript.turns[start : start + _BATCH], start):
                memory = DemoMemory(
                    conversation=self.name,
                    turn=f"{position + 1:05d}",
                    content=f"{turn.speaker}: {turn.text}",
                    said_at=turn.at,
                    relevance=now - (end - turn.at).total_seconds(),
                )
                memory.save(pipeline=pipe, skip_auto_now=True)
            pipe.execute()
        return replaced

    def forget(self) -> int:
        """Delete the memories stored under this name; returns how many there were."""
        memories = list(DemoMemory.query.filter(conversation=self.name))
        for start in range(0, len(memories), _BATCH):
            pipe = popoto.get_redis().pipeline()
            for memory in memories[start : start + _BATCH]:
                memory.delete(pipeline=pipe)
            pipe.execute()
        return len(memories)

    def recall(self, question: str) -> Recall:
        """Assemble the context for a question."""
        result = self.assembler.assemble(query_cues={"topic": question}, partition_filters={"conversation": self.name})
        scores: dict[str, dict[str, float]] = result.metadata["scores"]
        items = []
        for record in result.records:
            signals = dict(scores[record.pk])
            total = signals.pop("total")
            position = int(record.turn) - 1
            items.append(Recalled(position, self.transcript.turns[position], total, signals))
        return Recall(
            question,
            tuple(items),
            result.formatted,
            result.metadata["token_count"],
            result.metadata["total_candidates"],
            result.metadata["timing_ms"],
        )

    def report(self, position: int, *, proved_right: bool) -> Outcome:
        """Report back how a recalled turn fared; one that was used becomes fresh again as well."""
        memory: Any = DemoMemory.query.get(conversation=self.name, turn=f"{position + 1:05d}")
        before = ConfidenceField.get_confidence(memory, "certainty")
        signal = USED if proved_right else CONTRADICTED
        after = ConfidenceField.update_confidence(memory, "certainty", signal)
        if proved_right:
            memory.touch("relevance")
        return Outcome(position, proved_right, before, after)


def conversation_name(path: str | None) -> str:
    """The key of a conversation: "demo" for the bundled one, and one of its own for each file."""
    if path is None:
        return "demo"
    full = os.path.abspath(path).encode("utf-8", "surrogateescape")
    return f"demo-{hashlib.sha256(full).hexdigest()[:12]}"
