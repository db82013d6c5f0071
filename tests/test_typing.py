"""The annotations hold from a user's side: `mypy --strict` agrees with what typing_tests/ asserts."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed (pip install -e '.[dev]')")
def test_mypy_agrees_with_every_assertion_in_typing_tests() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "typing_tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
