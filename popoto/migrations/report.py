"""What a migration tells: of a dry run, of a run, and of one that ended before it was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

SHOWN: Final = 100  # problems that a report holds; it counts all of them
EXAMPLES: Final = 5

PLANNED, RUNNING, FINISHED, INCOMPLETE = "planned", "running", "finished", "incomplete"


@dataclass(frozen=True)
class Problem:
    """A record that cannot be converted, and why. It stays as it is."""

    key: str
    reason: str


@dataclass(frozen=True)
class Example:
    """What happens to one record: the fields that are written and removed, and its key afterwards."""

    key: str
    new_key: str
    written: dict[str, Any]
    removed: list[str]


@dataclass
class Report:
    """How a migration went, or would go.

    Attributes:
        name: the migration's.
        state: "planned" (a dry run), "running" (or ended before it was done), "finished", "incomplete" (done, but for
            the records in `problems`).
        total: records that there are.
        seen: records that were looked at.
        migrated: records that were changed, or would be; over all runs of the migration.
        moved: those of them that got another key.
        failed: records that cannot be converted.
        problems: the first 100 of these.
        steps: step -> how many records it changed, in this run.
        examples: the first few changes, of a dry run.
        unknown_fields: field -> how many records hold it though neither the model nor a step knows it, of a dry run.
    """

    name: str
    state: str
    total: int = 0
    seen: int = 0
    migrated: int = 0
    moved: int = 0
    failed: int = 0
    problems: list[Problem] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    unknown_fields: dict[str, int] = field(default_factory=dict)

    def fails(self, key: str, reason: str) -> None:
        """Count a record that cannot be converted."""
        self.failed += 1
        if len(self.problems) < SHOWN:
            self.problems.append(Problem(key, reason))

    def __str__(self) -> str:
        moved = f", {self.moved} of them to another key" if self.moved else ""
        verb = "to change" if self.state == PLANNED else "changed"
        lines = [f"{self.name}: {self.state}; {self.seen} of {self.total} records seen, {self.migrated} {verb}{moved}"]
        lines += [f"  {step}: {count}" for step, count in self.steps.items()]
        lines += [f"  no step for the field '{name}' of {n} records" for name, n in self.unknown_fields.items()]
        if self.failed:
            lines.append(f"  {self.failed} cannot be converted:")
            lines += [f"    {problem.key}: {problem.reason}" for problem in self.problems]
        if self.failed > len(self.problems):
            lines.append(f"    and {self.failed - len(self.problems)} more")
        return "\n".join(lines)


_WORST_FIRST: Final = (INCOMPLETE, RUNNING, PLANNED, FINISHED)


def together(reports: Sequence[Report | None]) -> Report | None:
    """Return one report of the parts of a migration; None where there is none."""
    parts = [report for report in reports if report is not None]
    if len(parts) < 2:
        return parts[0] if parts else None
    whole = Report(parts[0].name, min((part.state for part in parts), key=_WORST_FIRST.index))
    for part in parts:
        for number in ("total", "seen", "migrated", "moved", "failed"):
            setattr(whole, number, getattr(whole, number) + getattr(part, number))
        whole.problems = [*whole.problems, *part.problems][:SHOWN]
        whole.examples = [*whole.examples, *part.examples][:EXAMPLES]
        whole.steps = dict(Counter(whole.steps) + Counter(part.steps)) | {
            step: 0 for step, count in part.steps.items() if count + whole.steps.get(step, 0) == 0
        }
        whole.unknown_fields = dict(Counter(whole.unknown_fields) + Counter(part.unknown_fields))
    return whole
