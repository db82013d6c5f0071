"""The documentation keeps its word: snippets run and print what they promise, links of the house hold.

Each page's ```python blocks run in order, in one namespace, on an empty database. A comment `# => text`, on the line of
a statement or below it, is a line that was printed; `...` in it stands for anything. Comments in a row are the last
lines printed so far, so they may follow one print or several. A block with `await` outside a function runs in an event
loop. A block marked `no-run` is only compiled: ```python no-run in README.md and CONTRIBUTING.md,
```{.python .no-run} in docs/ (the site knows only that).
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import fnmatch
import inspect
import io
import re
import textwrap
import tokenize
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import popoto
from popoto.orm import metaclass

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
# its snippets choose servers: tests/test_redis_db.py runs each in a process of its own
ELSEWHERE = {"configuration.md"}
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted(page for page in DOCS.rglob("*.md") if page.name not in ELSEWHERE),
]

_FENCE = re.compile(r"^ *```(?:python|\{\.python)(?P<marks>[^\n`]*)\n(?P<code>.*?)^ *``` *$", re.DOTALL | re.MULTILINE)
_PROMISE = re.compile(r"# => ?(.*)")


@dataclass(frozen=True)
class Block:
    """A ```python block of a page, padded so that tracebacks give the page's line numbers."""

    page: Path
    code: str
    marks: frozenset[str]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found = []
    for match in _FENCE.finditer(text):
        lines_before = text.count("\n", 0, match.start("code"))
        code = textwrap.dedent(match["code"])
        found.append(Block(page, "\n" * lines_before + code, frozenset(re.findall(r"[\w-]+", match["marks"]))))
    return found


def compiled(block: Block, tree: ast.Module) -> Any:
    return compile(tree, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def promises(block: Block) -> list[tuple[int, str]]:
    """Return (line, text) of each `# =>` comment."""
    tokens = tokenize.generate_tokens(io.StringIO(block.code).readline)
    comments = [(token.start[0], _PROMISE.match(token.string)) for token in tokens if token.type == tokenize.COMMENT]
    return [(line, match[1].rstrip()) for line, match in comments if match]


class Runner:
    """Runs the blocks of one page."""

    def __init__(self) -> None:
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self.unpromised: list[str] = []  # lines that the block printed since its last promise

    def run(self, block: Block) -> None:
        statements = ast.parse(block.code).body
        expected = promises(block)
        assert not expected or expected[0][0] >= statements[0].lineno, f"{block.page.name}: a promise before any code"
        self.unpromised = []
        codes = [compiled(block, ast.Module([statement], type_ignores=[])) for statement in statements]
        ends = [statement.lineno for statement in statements[1:]] + [10**9]
        steps = []
        for code, statement, end in zip(codes, statements, ends, strict=True):
            steps.append((code, statement.lineno, [text for line, text in expected if statement.lineno <= line < end]))
        if any(code.co_flags & inspect.CO_COROUTINE for code in codes):
            asyncio.run(self._awaited(block, steps))
            return
        for code, line, lines in steps:
            with self._compared(block, line, lines):
                exec(code, self.namespace)

    async def _awaited(self, block: Block, steps: list[Any]) -> None:
        for code, line, lines in steps:
            with self._compared(block, line, lines):
                result = eval(code, self.namespace)
                if inspect.iscoroutine(result):
                    await result

    @contextlib.contextmanager
    def _compared(self, block: Block, line: int, expected: list[str]) -> Iterator[None]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            yield
        lines = [text.rstrip() for text in out.getvalue().splitlines()]
        self.unpromised += lines
        if not expected:
            return
        printed = self.unpromised[-len(expected) :]
        self.unpromised = []
        same = len(lines) <= len(expected) == len(printed) and all(map(fits, printed, expected))
        assert same, f"{block.page.name}:{line} promises {expected}, printed {max(printed, lines, key=len)}"


def fits(printed: str, promised: str) -> bool:
    """Return True when the line is the promised one; `...` in the promise stands for anything."""
    if "..." not in promised:
        return printed == promised
    pattern = "*".join(re.sub(r"([*?\[])", r"[\1]", piece) for piece in promised.split("..."))
    return fnmatch.fnmatchcase(printed, pattern)


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pages name their models as tests elsewhere do, and may change the defaults of the process."""
    monkeypatch.setattr(metaclass, "_models", weakref.WeakValueDictionary())
    defaults = getattr(popoto, "Defaults", None)
    before = dict(vars(defaults)) if defaults else {}
    yield
    for name, value in before.items():
        if not name.startswith("__") and vars(defaults)[name] is not value:
            setattr(defaults, name, value)


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists()], ids=lambda page: page.stem)
def test_the_snippets_of_a_page_run_and_print_what_they_promise(page: Path, server: Any, undisturbed: None) -> None:
    runner = Runner()
    for block in blocks_of(page):
        if "no-run" in block.marks:
            compiled(block, ast.parse(block.code))
        else:
            runner.run(block)


def test_a_broken_promise_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)\n# => 3\n```\n", "utf-8")
    with pytest.raises(AssertionError, match=r"page\.md:2 promises"):
        Runner().run(*blocks_of(page))


def test_a_kept_promise_passes_inline_below_and_across_await(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    lines = [
        "import asyncio",
        "await asyncio.sleep(0)",
        "print('a')  # => a",
        "for n in range(2):",
        "    print(n, 0.25)",
    ]
    page.write_text("\n".join(["```python", *lines, "# => 0 0...", "# => 1 0.25", "```", ""]), "utf-8")
    Runner().run(*blocks_of(page))


# -- the site ----------------------------------------------------------------------------------------------------------


def nav_entries() -> list[str]:
    """Return the pages that the nav of mkdocs.yml names."""
    text = (REPOSITORY / "mkdocs.yml").read_text("utf-8")
    nav = text[text.index("\nnav:") :]
    return re.findall(r"([\w/-]+\.md)\s*$", nav, re.MULTILINE)


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_no_page_has_a_fence_that_the_site_shows_as_text(page: Path) -> None:
    broken = re.findall(r"^ *```[\w-]+[ ]+[^\n]*$", page.read_text("utf-8"), re.MULTILINE)
    assert not broken, "write ```{.python .no-run}"


def test_every_page_is_in_the_nav() -> None:
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} <= set(nav_entries())


def test_every_nav_entry_is_a_page() -> None:
    missing = [name for name in nav_entries() if not (DOCS / name).exists()]
    assert not missing


def test_no_page_is_in_the_nav_twice() -> None:
    assert len(nav_entries()) == len(set(nav_entries()))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_make_targets_that_a_page_names_exist(page: str) -> None:
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", (REPOSITORY / page).read_text("utf-8"), re.MULTILINE))
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_the_files_that_a_page_links_to_exist(page: str) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", (REPOSITORY / page).read_text("utf-8"))
    assert not [link for link in links if not (REPOSITORY / link).exists()]
