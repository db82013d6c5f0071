"""The command line answers mistakes with one sentence on stderr and a fitting exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from popoto.cli import app as entry

ROOT = Path(__file__).parents[2]


def popoto(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "popoto.cli", *args],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **env},
    )


def test_the_version_is_printed() -> None:
    result = popoto("--version")

    assert result.returncode == 0 and result.stdout.startswith("popoto ") and not result.stderr


def test_help_names_the_demo_and_its_options() -> None:
    assert "demo" in popoto("--help").stdout
    text = popoto("demo", "--help").stdout
    assert all(option in text for option in ("--file", "--question", "--store", "--max-tokens"))


@pytest.mark.parametrize(
    "args",
    [
        ["nosuch"],
        ["demo", "--nosuch"],
        ["demo", "--max-tokens", "0"],
        ["demo", "--max-tokens", "many"],
        ["demo", "--question", "  "],
        ["demo", "--file"],
        ["demo", "extra"],
    ],
)
def test_bad_usage_exits_with_2_and_tells_why(args: list[str]) -> None:
    result = popoto(*args)

    assert result.returncode == 2
    assert "Error:" in result.stderr and "Traceback" not in result.stderr and not result.stdout


@pytest.mark.parametrize("name", ["gone.jsonl", "."])
def test_a_wrong_file_is_one_sentence_on_stderr_and_exit_code_1(name: str) -> None:
    result = popoto("demo", "--file", name)

    assert result.returncode == 1 and not result.stdout
    assert result.stderr.startswith("popoto: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "url",
    ["redis://127.0.0.1:1/0", "unix:///nosuch/socket", "http://example.org", "nonsense", "redis://h:port"],
)
def test_a_store_that_cannot_be_used_is_one_sentence_on_stderr_and_exit_code_1(url: str) -> None:
    result = popoto("demo", "--store", url)

    assert result.returncode == 1
    assert result.stderr.startswith("popoto: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str, tmp_path: Path) -> None:
    hide = f"import sys; sys.modules[{missing!r}] = None; from popoto.cli.app import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", hide], capture_output=True, text=True, timeout=60, cwd=ROOT
    )

    assert result.returncode == 1 and not result.stdout
    assert result.stderr.count("\n") == 1 and "pip install 'popoto[cli]'" in result.stderr


def test_a_module_that_is_missing_for_another_reason_is_not_blamed_on_the_extra() -> None:
    hide = "import sys; sys.modules['redis'] = None; from popoto.cli.app import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", hide], capture_output=True, text=True, timeout=60, cwd=ROOT
    )

    assert "popoto[cli]" not in result.stderr


def test_the_entry_point_is_a_function() -> None:
    assert callable(entry.main)
