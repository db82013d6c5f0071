"""Related records on several levels that Python must decide on: read side by side, and joined here.

One level after the other would be a round trip each.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from popoto.orm import shards
from popoto.orm.drivers import relayed

if TYPE_CHECKING:
    from popoto.orm.selection import Selection


def keys_beside(selection: Selection) -> Generator[Any, Any, list[str]]:
    """Return the keys of the matching records; what their conditions need to know is asked for beside them.

    The conditions are compiled for that: `compile_filters(beside=True)`.
    """
    compiled = selection.compiled
    tests, first = compiled.tests, [steps() for steps in compiled.first]
    assert tests is not None
    candidates = replace(selection, compiled=replace(compiled, tests=None, first=[]))
    found, *_ = yield from shards.in_step([_listed(candidates.values_by_value(())), *first])
    return [key for key, values, _ in found if tests(values)]


def _listed(steps: Generator[Any, Any, Any]) -> Generator[Any, Any, list[Any]]:
    """Run steps and return the items of their batches."""
    items: list[Any] = []
    yield from relayed(steps, items.extend)
    return items
