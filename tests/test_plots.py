"""The plots of the docs: each is there, is shown on a page, and can be drawn again."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
SCRIPT = DOCS / "plots.py"


def names() -> list[str]:
    """Return the names of the plots without running the script, which needs matplotlib."""
    for node in ast.walk(ast.parse(SCRIPT.read_text("utf-8"))):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "PLOTS":
            assert isinstance(node.value, ast.Dict)
            return [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
    raise AssertionError("docs/plots.py has no PLOTS")


@pytest.mark.parametrize("name", names())
def test_each_plot_is_kept_and_shown_on_a_page(name: str) -> None:
    image = DOCS / "img" / f"{name}.svg"
    assert image.read_text("utf-8").rstrip().endswith("</svg>")
    shown = [page.name for page in DOCS.glob("*.md") if f"](img/{name}.svg)" in page.read_text("utf-8")]
    assert len(shown) == 1


def test_no_image_is_left_over() -> None:
    assert {image.stem for image in (DOCS / "img").iterdir()} == set(names())


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed (popoto[docs] brings it)")
def test_the_script_draws_all_of_them(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(DOCS.parent), *sys.path])}
    drawn = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert drawn.returncode == 0, drawn.stderr
    assert {image.stem for image in tmp_path.iterdir()} == set(names())
    for image in tmp_path.iterdir():
        assert image.read_text("utf-8").rstrip().endswith("</svg>")
