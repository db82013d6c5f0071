"""One question of the demo: recall, show, report the outcome back, recall again, show what changed."""

from __future__ import annotations

from popoto.cli.recall import ConversationMemory
from popoto.cli.render import Screen, listed
from popoto.cli.results import Outcome, Recall
from popoto.cli.turns import Question


class Asker:
    """Asks one question after the other; outcomes stay in the memory, so later questions meet them.

    Args:
        bundled: whether the conversation is the one of the package, which labels outdated turns as well.
    """

    def __init__(self, screen: Screen, memory: ConversationMemory, *, bundled: bool) -> None:
        self.screen = screen
        self.memory = memory
        self.bundled = bundled
        self.reported: set[int] = set()  # positions of turns whose outcome is in the memory already

    def ask(self, question: Question) -> None:
        """Show what a question brings back and, where there is an outcome to report, what that changes."""
        before = self.memory.recall(question.text)
        if not before.items:
            self.screen.say("Nothing was recalled.")
            return
        if all(item.signals.get("keyword") == 0 for item in before.items):
            self.screen.say("No turn has a word of the question; what comes back is only fresh.")
        self.screen.recall(before, self._notes(question))
        if question.answer is not None or question.evidence:
            self.screen.say(self._evidence(question, before))
        self.screen.context(before, self.memory.max_tokens)
        used, wrong = self._verdicts(question, before)
        if used or wrong:
            self._learn(before, used, wrong)

    def _learn(self, before: Recall, used: list[int], wrong: list[int]) -> None:
        outcomes = [self.memory.report(position, proved_right=True) for position in used]
        outcomes += [self.memory.report(position, proved_right=False) for position in wrong]
        self.reported.update(used, wrong)
        self.screen.say(self._told(outcomes))
        after = self.memory.recall(before.question)
        self.screen.say("The same question again:")
        self.screen.change(before, after)
        if [item.position for item in before.items] == [item.position for item in after.items]:
            self.screen.say("No record changed its place; the scores show what moved.")

    def _notes(self, question: Question) -> dict[int, str]:
        notes = dict.fromkeys(question.outdated, "out of date")
        right = "answers" if self.bundled else "evidence"
        return notes | dict.fromkeys(question.evidence, right)

    def _evidence(self, question: Question, recall: Recall) -> str:
        """Whether the turns that hold the answer were recalled, and whether their label had a part in it."""
        name_of = self.memory.transcript.name_of
        ranks = {position: recall.rank_of(position) for position in question.evidence}
        found = [f"{name_of(position)} (rank {rank})" for position, rank in ranks.items() if rank is not None]
        missed = "not" if len(ranks) == 1 else "none of them"
        outcome = f"recalled: {listed(found)}" if found else f"{missed} among the {len(recall.items)} recalled"
        owner = "The demo knows the answer" if self.bundled else "The file gives the answer"
        answer = "" if question.answer is None else f': "{question.answer}"'
        seen = self.reported.intersection(question.evidence)
        label = (
            f"An outcome that was reported before had already raised {listed(map(name_of, sorted(seen)))}."
            if seen
            else "The ranking did not see this label."
        )
        return f"{owner}{answer}. It is said in {listed(map(name_of, question.evidence))}; {outcome}. {label}"

    def _verdicts(self, question: Question, recall: Recall) -> tuple[list[int], list[int]]:
        """The recalled turns to report as used and as wrong; says where the verdict comes from."""
        used = [item.position for item in recall.items if item.position in question.evidence]
        wrong = [item.position for item in recall.items if item.position in question.outdated]
        if used or wrong:
            label = "the demo's label" if self.bundled else "the file's evidence label"
            self.screen.say(f"Now the outcome goes back into the memory, by {label}.")
        elif question.evidence:
            self.screen.say("No recalled turn holds the answer, so there is no outcome to report.")
        elif not self.reported and len(recall.items) > 1:
            self.screen.say(
                "Now an outcome, made up to show its effect: the second record was used, the first was wrong."
            )
            used, wrong = [recall.items[1].position], [recall.items[0].position]
        return used, wrong

    def _told(self, outcomes: list[Outcome]) -> str:
        parts = []
        for right, verdict in ((True, "Used and right"), (False, "Out of date or wrong")):
            told = [
                f"{self.memory.transcript.name_of(outcome.position)} "
                f"(certainty {outcome.before:.2f} to {outcome.after:.2f})"
                for outcome in outcomes
                if outcome.proved_right is right
            ]
            if told:
                parts.append(f"{verdict}: {listed(told)}.")
        return " ".join(parts)
