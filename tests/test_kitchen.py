"""The Popoto Kitchen runs as its README says, on a server of its own or a named one, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import popoto

REPOSITORY = Path(popoto.__file__).resolve().parent.parent
EXAMPLES = REPOSITORY / "agents_examples"
pytest.importorskip("rich")


def kitchen(*arguments: str, **environment: str) -> str:
    """Run the example in a process of its own and return what it printed."""
    known = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "ENV")}
    run = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-m", "popoto_kitchen", *arguments],
        cwd=EXAMPLES,
        env={**known, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "160", "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return run.stdout


def lines_with(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if all(word in line for word in words)]


def test_the_tour_answers_its_questions_on_a_server_of_its_own():
    shown = kitchen()
    assert "A private server that is thrown away" in shown
    assert lines_with(shown, "Order", " 8 ") and lines_with(shown, "MenuItem", " 24 ")
    assert lines_with(shown, "Mexican special", "9.75")
    assert [line.split()[1] for line in shown.splitlines() if line.endswith(("0.23 │", "1.73 │"))] == [
        "Burger",
        "Green",
    ]
    assert lines_with(shown, "order4", "bob", "Sushi Spot", "Omar")
    assert lines_with(shown, "order5", "cora", "Green Bowl")
    assert lines_with(shown, "erin", "True") and lines_with(shown, "erin", "False")
    assert "3 orders are on their way now." in shown
    assert "Free drivers: Pia" in shown


def test_ops_breaks_the_indexes_finds_the_orphans_and_removes_them():
    shown = kitchen("--ops")
    orders = [line.split("│") for line in lines_with(shown, "│ Order ")]
    orphans = [int(cells[3]) for cells in orders if len(cells) == 6]
    assert orphans[0] == 0 and orphans[1] > 0 and orphans[2] == 0
    removed = [int(cells[2]) for cells in orders if len(cells) == 4]
    assert removed[-1] == orphans[1]
    assert "relationships.customer: 1" in shown
    assert "All indexes are healthy." in shown


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_server_that_is_named_is_left_as_it_was(server, shared_server, how):
    server.set("Order:mine", "untouched")
    if how == "argument":
        shown = kitchen("--url", shared_server.url)
    else:
        shown = kitchen("--ops", REDIS_URL=shared_server.url)
    assert "in the namespace 'popoto-kitchen'" in shown
    left = {key for key in server.keys("*") if b"$Token:" not in key}
    assert left == {b"Order:mine"}


def test_the_readme_names_the_files_there_are():
    folder = EXAMPLES / "popoto_kitchen"
    text = (folder / "README.md").read_text("utf-8")
    assert {path.name for path in folder.glob("*.py")} - {"__init__.py", "__main__.py", "screen.py"} == {
        name for name in ("models.py", "data.py", "tour.py", "operations.py", "server.py") if f"`{name}`" in text
    }
