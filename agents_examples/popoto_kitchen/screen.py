"""What the example prints: headings, the line of code that was run, and its results as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import IO, Any

from rich.console import Console
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text


class Screen:
    """Where the example is drawn.

    Args:
        file: standard output if not given.
    """

    def __init__(self, file: IO[str] | None = None) -> None:
        self.console = Console(file=file, highlight=False, markup=False, emoji=False)

    def heading(self, title: str) -> None:
        self.console.print()
        self.console.print(Rule(Text(title, style="bold"), align="left"))

    def say(self, sentence: str) -> None:
        self.console.print(Text(sentence))

    def code(self, line: str) -> None:
        self.console.print()
        self.console.print(Syntax(line, "python", background_color="default", word_wrap=True))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        table = Table(*columns, header_style="bold")
        for row in rows:
            table.add_row(*("-" if cell is None else str(cell) for cell in row))
        self.console.print(table)
