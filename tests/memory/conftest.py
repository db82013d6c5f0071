"""What the tests of the memory layer share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.memory.traces import WAYS


@pytest.fixture(params=WAYS, ids=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`way(note.confirm_access)` calls it, or awaits its async twin."""
    return request.param  # type: ignore[no-any-return]
