"""popoto migrate: run a migration that a module of the user's holds, or look at it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from popoto import redis_db
from popoto.exceptions import ModelException
from popoto.migrations import Migration, Report


def migration_of(path: str) -> Migration:
    """Return the migration of `package.module:name`; modules of the working directory are found too.

    Raises: ModelException: there is none.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module, _, name = path.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelException(
            f"{path!r} names no migration: expected package.module:name, such as shop.migrations:orders ({error})."
        ) from error
    if not isinstance(found, Migration):
        raise ModelException(f"{path!r} is a {type(found).__name__}, expected a popoto.migrations.Migration.")
    return found


def migrate(path: str, url: str | None, what: str, said: Callable[[str], Any]) -> Report | None:
    """Plan ("plan"), run ("run"), run once more ("again") or look at ("status") a migration; return its report.

    Args:
        url: the server; None for the one that the settings name.
        said: told how far it is, a line a batch.
    """
    if url is not None:
        redis_db.configure_url(url)
    migration = migration_of(path)
    if what == "status":
        return migration.status()

    def progress(done: int, total: int) -> None:
        said(f"{done} of {total}")

    return migration.plan(progress) if what == "plan" else migration.run(progress, again=what == "again")
