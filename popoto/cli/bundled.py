"""The conversation that ships with the package, and questions about it.

`data/conversation.jsonl` is six weeks of a person and an assistant; several facts in it change (a start
date, an appointment, a diet, a city). `data/questions.json` names, for each question, the lines whose turn
holds the answer of today and the lines that hold an older one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import as_file, files

from popoto.cli.transcript import load_transcript
from popoto.cli.turns import Question, Transcript

TITLE = "six weeks of a move, a new job, a dog and a side project"


def bundled_transcript() -> Transcript:
    """The conversation with its questions."""
    data = files("popoto.cli").joinpath("data")
    with as_file(data.joinpath("conversation.jsonl")) as path:
        transcript = load_transcript(path)
    entries = json.loads(data.joinpath("questions.json").read_text("utf-8"))
    questions = tuple(
        Question(
            entry["question"],
            entry["answer"],
            tuple(line - 1 for line in entry["answered_on_lines"]),
            tuple(line - 1 for line in entry["outdated_on_lines"]),
        )
        for entry in entries
    )
    return replace(transcript, title=TITLE, questions=questions)
