"""The demo, run as a user runs it: in a process of its own, on a server of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from popoto._embedded import temporary_embedded
from popoto.cli.bundled import bundled_transcript

ROOT = Path(__file__).parents[2]


@pytest.fixture
def launch() -> Iterator[Any]:
    """Start the demo; temporary files go into a folder of this test, where leftovers can be seen."""
    # Not tmp_path: the path of a socket is limited to about 100 characters.
    temporary = Path(tempfile.mkdtemp(prefix="demo", dir="/tmp"))

    def launch(*args: str, **env: str) -> subprocess.Popen[str]:
        clean = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "FORCE_COLOR"}}
        return subprocess.Popen(
            [sys.executable, "-m", "popoto.cli", "demo", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=ROOT,
            env={**clean, "TMPDIR": str(temporary), "PYTHONIOENCODING": "utf-8", **env},
        )

    launch.temporary = temporary  # type: ignore[attr-defined]
    yield launch
    shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture
def run(launch: Any) -> Any:
    def run(*args: str, **env: str) -> str:
        process = launch(*args, **env)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        return out

    return run


@pytest.fixture
def store() -> Iterator[str]:
    with temporary_embedded() as url:
        yield url


def flat(text: str) -> str:
    return " ".join(text.split())


def everything(client: Any) -> dict[bytes, bytes]:
    """All keys that stay, with their types; the client's tokens of repeated calls vanish within a minute."""
    return {key: client.type(key) for key in client.scan_iter() if client.ttl(key) == -1}


def servers_in(folder: Path) -> list[str]:
    """Command lines of processes that mention the folder, but for this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(folder) in line and int(path.parent.name) != os.getpid():
            found.append(line)
    return found


def test_it_recalls_explains_and_learns_and_leaves_nothing_behind(run: Any, launch: Any) -> None:
    out = run()

    for question in bundled_transcript().questions:
        assert question.text in out
    assert out.count("assembled context,") == 4
    assert {"keyword", "relevance", "certainty"} <= set(out.split())
    assert re.search(r"▲ \d", out) and re.search(r"▼ (\d|out)", out)
    assert "docs/demo.md" in out
    assert "\x1b" not in out and max(map(len, out.splitlines())) <= 80
    assert list(launch.temporary.iterdir()) == [] and servers_in(launch.temporary) == []

    # The scores shown are the sums of their signals.
    rows = re.split(r"\n +(?=\d +-?\d+\.\d\d +keyword)", out)[1:]
    assert len(rows) == 20
    for row in rows:
        total = float(row.split()[1])
        signals = re.findall(r" (?:keyword|relevance|certainty) +(-?\d+\.\d\d) ", row)
        assert len(signals) == 3 and abs(total - sum(map(float, signals))) < 0.021

    # The job's start moved twice: once that was reported back, the date that holds ranks first.
    changed = out.split("When do I start the new job?")[1].split("The same question again:")[1]
    first = next(line for line in changed.splitlines() if re.match(r" +1 ", line))
    assert "▲" in first and "9 Apr 2025" in first


def test_questions_of_ones_own_replace_those_of_the_demo(run: Any) -> None:
    out = run("--question", "Which train seat do I like?", "-q", "xyzzy plugh")

    assert "Question 2 of 2: xyzzy plugh" in out and "dentist appointment?" not in out
    assert "Window seat" in flat(out)


def test_the_context_keeps_to_the_budget_asked_for(run: Any) -> None:
    taken = re.findall(r"assembled context, (\d+) of at most 60 tokens", run("--max-tokens", "60"))

    assert len(taken) == 4 and all(int(tokens) <= 60 for tokens in taken)


def test_json_lines_of_ones_own_are_asked_about_what_recurs(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    texts = [
        "My tortoise is ill",
        "What does the tortoise eat?",
        "Dandelions",
        "The tortoise is well again",
        "",
    ]
    path.write_text(
        "\n".join(json.dumps({"role": "user", "content": text, "date": "2024-02-29"}) for text in texts),
        "utf-8",
    )
    out = flat(run("--file", str(path)))

    assert "mine.jsonl; 4 turns of user" in out and "left out because they hold no text: 1" in out
    assert "What was said about tortoise?" in out
    assert "made up" in out


def test_a_locomo_file_shows_whether_evidence_was_recalled_and_that_ranking_did_not_see_it(
    run: Any, tmp_path: Path
) -> None:
    path = tmp_path / "9.json"
    talk = [
        ("D1:1", "Ann", "I saw a heron today."),
        ("D1:2", "Bo", "Lucky you."),
        ("D1:3", "Ann", "We had soup."),
    ]
    data = {
        "sessions": [
            {
                "date": "1:56 pm on 8 May, 2023",
                "turns": [dict(zip(("dia_id", "speaker", "text"), turn, strict=True)) for turn in talk],
            }
        ],
        "qa": [
            {"question": "Who saw a heron?", "answer": "Ann", "evidence": ["D1:1"], "category": 4},
            {
                "question": "Who was told about the heron?",
                "answer": "Bo",
                "evidence": ["D1:2"],
                "category": 1,
            },
            {"question": "When was the heron seen?", "answer": "8 May", "evidence": ["D1:1"], "category": 2},
        ],
    }
    path.write_text(json.dumps(data), "utf-8")
    out = flat(run("--file", str(path)))

    assert 'The file gives the answer: "Ann". It is said in D1:1; recalled: D1:1 (rank 1).' in out
    assert "The ranking did not see this label." in out
    assert "An outcome that was reported before had already raised D1:1." in out


def test_a_store_of_ones_own_gets_only_the_demos_records_and_a_second_run_replaces_them(run: Any, store: str) -> None:
    client = redis.Redis.from_url(store)
    client.set("mine", "untouched")

    first = flat(run("--store", store))
    after_one = everything(client)
    second = flat(run("--store", store))

    turns = len(bundled_transcript().turns)
    assert "Only DemoMemory records of this conversation are touched" in first and "earlier run" not in first
    assert f"in place of {turns} of an earlier run" in second
    assert client.get("mine") == b"untouched"
    assert everything(client) == after_one
    assert all(b"DemoMemory" in key for key in after_one if key != b"mine")


def test_conversations_in_one_store_do_not_touch_each_other(run: Any, store: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"role": "user", "content": "My dentist is a walrus", "date": "2025-01-01"}', "utf-8")
    other = flat(run("--store", store, "--file", str(path), "-q", "Who is my dentist?"))
    bundled = flat(run("--store", store, "-q", "Who is my dentist?"))

    assert "walrus" in other and "Delft" not in other
    assert "walrus" not in bundled and "Delft" in bundled and "earlier run" not in bundled


def test_a_store_that_does_not_answer_is_one_sentence_without_its_password(launch: Any) -> None:
    process = launch("--store", "redis://me:secret7@127.0.0.1:1/0")
    out, err = process.communicate(timeout=60)

    assert process.returncode == 1 and "secret7" not in out + err
    assert err.startswith("popoto: the server of --store cannot be used: ") and err.count("\n") == 1


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
)
def test_no_server_outlives_it_however_it_is_stopped(launch: Any, number: int, code: int) -> None:
    # So many questions that the unread output blocks the process before it is done.
    process = launch(*[word for _ in range(150) for word in ("-q", "What does Pickle eat?")])
    assert process.stdout is not None
    while "Question 1 of" not in process.stdout.readline():
        pass
    assert servers_in(launch.temporary)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)

    assert process.returncode == code and "Traceback" not in err
    for _ in range(500):  # after SIGKILL the server's keeper ends it on its own
        if not servers_in(launch.temporary) and not list(launch.temporary.iterdir()):
            break
        signal.sigtimedwait([], 0.01)
    assert servers_in(launch.temporary) == [] and list(launch.temporary.iterdir()) == []


def test_a_reader_that_leaves_early_gets_no_traceback(launch: Any) -> None:
    process = launch(*[word for _ in range(150) for word in ("-q", "What does Pickle eat?")])
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.wait(timeout=30)

    assert err == "" and servers_in(launch.temporary) == []
