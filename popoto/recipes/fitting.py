"""Cutting a context to a budget of tokens: whole records from the best on, and never more than fits.

A first record that is over the budget on its own is cut, and says so. JSON and XML stay whole: the longest text of the
record is shortened inside them, and where that is not enough its other fields are left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

CHARACTERS_A_TOKEN = 4  # the usual rule of thumb for English text
CUT_MARK = " […cut to fit]"

Form = Callable[[list[Any]], str]


@dataclass(frozen=True)
class Fitted:
    """What fits a budget.

    Attributes:
        records: the first records, as many as fit.
        text: their form.
        tokens: what they cost.
        truncated: the only record was cut.
    """

    records: list[Any]
    text: str
    tokens: int
    truncated: bool = False


def fit(
    records: list[Any],
    form: Form,
    max_tokens: int | None,
    token_counter: Callable[[Any], int] | None,
    shown: Callable[[Any], Mapping[str, Any]] | None,
) -> Fitted:
    """Return as many of the first records as the budget holds.

    Args:
        form: from records (or mappings of their fields) to text.
        max_tokens: the budget, > 0; None for none.
        token_counter: record -> tokens; None: a quarter of the characters of the text.
        shown: record -> the fields that its text is made of; None where a cut anywhere leaves the text well-formed.
    """
    if token_counter is not None:
        taken, tokens = _counted(records, max_tokens, token_counter)
    else:
        taken = len(records)
        if max_tokens is not None:
            # texts only grow with each record, so the number that fits is found by halving
            taken = bisect_right(range(1, taken + 1), max_tokens, key=lambda n: _tokens(form(records[:n])))
        tokens = -1
    if taken or not records or max_tokens is None:
        text = form(records[:taken])
        if not taken:  # not even the frame of an empty context may be over the budget
            return Fitted([], text if max_tokens is None or _tokens(text) <= max_tokens else "", 0)
        return Fitted(records[:taken], text, _tokens(text) if tokens < 0 else tokens)
    text = form(records[:1])
    budget = max_tokens * CHARACTERS_A_TOKEN
    if token_counter is not None:
        budget = len(text) * max_tokens // token_counter(records[0])  # the share of its text that its cost allows
    text = _shortened(form, shown(records[0]), budget) if shown is not None else ""
    if not text:
        mark = CUT_MARK if budget > 2 * len(CUT_MARK) else "…"[:budget]
        text = form(records[:1])[: budget - len(mark)] + mark
    return Fitted(records[:1], text, max_tokens if token_counter is not None else _tokens(text), True)


def _tokens(text: str) -> int:
    return len(text) // CHARACTERS_A_TOKEN


def _counted(records: list[Any], max_tokens: int | None, token_counter: Callable[[Any], int]) -> tuple[int, int]:
    """Return (how many records fit, their tokens); no record behind the first that does not fit is counted."""
    tokens = 0
    for number, record in enumerate(records):
        more = tokens + token_counter(record)
        if max_tokens is not None and more > max_tokens:
            return number, tokens
        tokens = more
    return len(records), tokens


def _shortened(form: Form, fields: Mapping[str, Any], budget: int) -> str:
    """Return the form of the fields with the longest text cut so that it fits; "" when nothing would be left of it."""
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    if not texts:
        return ""
    name = max(texts, key=lambda name: len(texts[name]))

    for others in (fields, {}):

        def cut(keep: int, others: Mapping[str, Any] = others) -> str:
            return form([{**others, name: texts[name][:keep] + CUT_MARK}])

        keep = bisect_right(range(1, len(texts[name])), budget, key=lambda keep: len(cut(keep)))
        if keep:
            return cut(keep)
    return ""
