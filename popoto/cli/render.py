"""Draw the demo with rich: recalled turns with their scores by signal, assembled contexts, rank changes.

All of it fits 80 columns, says the same without colour, and falls back to ASCII where the output's encoding
has no box characters. Text of a transcript is data: never read as markup, and it cannot send control codes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from popoto.cli.results import Recall, Recalled
from popoto.cli.turns import Turn

_WIDEST = 100  # longer lines are hard to read
_BAR = 8  # columns of a full bar
# C0 and C1 control characters but tab and line feed: a transcript may hold escape sequences.
_CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\ufffd")


class Screen:
    """Where the demo is drawn.

    Args:
        file: standard output if not given.
        width: columns; the terminal's, at most 100, if not given. Without a terminal rich takes 80.
    """

    def __init__(self, file: IO[str] | None = None, width: int | None = None) -> None:
        out = file or sys.stdout
        reconfigure = getattr(out, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")  # a transcript may hold letters that the terminal cannot show
        self.console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
        if width is None and self.console.width > _WIDEST:
            self.console.width = _WIDEST
        self.unicode = self.console.encoding.lower().replace("_", "-").startswith("utf")

    def say(self, sentence: str = "", style: str = "") -> None:
        """Print one plain sentence."""
        self.console.print(Text(clean(sentence), style=style))

    def heading(self, title: str) -> None:
        """Begin a section."""
        self.console.print()
        characters = "─" if self.unicode else "-"
        self.console.print(Rule(Text(clean(title), style="bold"), characters=characters, align="left"))

    def recall(self, recall: Recall, notes: Mapping[int, str]) -> None:
        """The recalled turns, best first, each score broken into its signals; `notes` by position."""
        largest = max((abs(value) for item in recall.items for value in item.signals.values()), default=0.0)
        table = self._table()
        table.add_column("#", justify="right")
        table.add_column("score", justify="right", style="bold")
        table.add_column("= by signal", no_wrap=True)
        table.add_column("what was said", ratio=1)
        for rank, item in enumerate(recall.items, 1):
            table.add_row(
                str(rank),
                f"{item.total:.2f}",
                self._signals(item, largest),
                _said(item, notes.get(item.position)),
            )
        self.console.print(table)

    def context(self, recall: Recall, max_tokens: int) -> None:
        """The assembled context: exactly the text that a model would get."""
        body: RenderableType = Text(clean(recall.context) or "(empty)")
        title = f"assembled context, {recall.tokens} of at most {max_tokens} tokens"
        self.console.print(
            Panel(body, title=Text(title), title_align="left", box=self._box(box.ROUNDED), padding=(0, 1))
        )

    def change(self, before: Recall, after: Recall) -> None:
        """The ranking after outcomes were reported, each place with where it was before."""
        table = self._table()
        table.add_column("now", justify="right", style="bold")
        table.add_column("was", justify="right")
        table.add_column("", no_wrap=True)
        table.add_column("score", justify="right", no_wrap=True)
        table.add_column("what was said", ratio=1, no_wrap=True, overflow="ellipsis")
        arrow = "→" if self.unicode else "->"
        old = {item.position: item for item in before.items}
        for rank, item in enumerate(after.items, 1):
            was = before.rank_of(item.position)
            earlier = old.get(item.position)
            score = f"{earlier.total:.2f} {arrow} {item.total:.2f}" if earlier else f"{item.total:.2f}"
            table.add_row(str(rank), str(was or "-"), self._move(was, rank), score, _short(item))
        for was, item in enumerate(before.items, 1):
            if after.rank_of(item.position) is None:
                table.add_row("-", str(was), self._move(was, None), f"{item.total:.2f}", _short(item))
        self.console.print(table)

    def _signals(self, item: Recalled, largest: float) -> RenderableType:
        width = max((len(name) for name in item.signals), default=0)
        signals = sorted(item.signals.items(), key=lambda signal: signal[0] != "keyword")  # the rest as given
        return Group(*(self._bar(name.ljust(width), value, largest) for name, value in signals))

    def _bar(self, name: str, value: float, largest: float) -> Text:
        length = round(_BAR * abs(value) / largest) if largest else 0
        mark = ("█" if value >= 0 else "░") if self.unicode else ("#" if value >= 0 else "-")
        bar = (mark * length).ljust(_BAR)
        return Text.assemble(f"{name} {value:5.2f} ", (bar, "cyan" if value >= 0 else "red"))

    def _move(self, was: int | None, now: int | None) -> Text:
        up, down = ("▲", "▼") if self.unicode else ("up", "down")
        if was is None:
            return Text(f"{up} new", style="green")
        if now is None:
            return Text(f"{down} out", style="red")
        if now == was:
            return Text("=")
        return Text(f"{up} {was - now}", style="green") if now < was else Text(f"{down} {now - was}", style="red")

    def _table(self) -> Table:
        return Table(box=self._box(box.SIMPLE_HEAD), expand=True, pad_edge=False, header_style="dim")

    def _box(self, wanted: box.Box) -> box.Box:
        return wanted if self.unicode else box.ASCII


def clean(text: str) -> str:
    """The text with every control character but tab and line feed replaced."""
    return text.translate(_CONTROLS)


def day(turn: Turn) -> str:
    """The turn's day, such as "3 Mar 2025" (English whatever the locale)."""
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{turn.at.day} {months[turn.at.month - 1]} {turn.at.year}"


def listed(words: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    items: Sequence[str] = list(words)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "none"


def _said(item: Recalled, note: str | None) -> Text:
    mark = (f"[{note}] " if note else "", "yellow")
    return Text.assemble(mark, (_origin(item), "dim"), clean(item.turn.text))


def _short(item: Recalled) -> str:
    return clean(_origin(item) + " ".join(item.turn.text.split()))


def _origin(item: Recalled) -> str:
    return clean(f"{item.name}, {day(item.turn)}, {item.turn.speaker}: ")
