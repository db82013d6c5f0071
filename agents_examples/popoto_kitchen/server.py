"""The server that the example runs on: the one you name, or one of its own that is thrown away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from popoto import redis_db
from popoto_kitchen.models import MODELS

NAMESPACE = "popoto-kitchen"  # what the example stores stands apart from all else on the server


@contextmanager
def kitchen_server(url: str | None = None) -> Iterator[str]:
    """Use a server while the block runs; yields a sentence that says which one. Nothing is left on it afterwards.

    Args:
        url: of a server; REDIS_URL of the environment where it is not given. Without either a private server starts.
    """
    url = url or os.environ.get("REDIS_URL", "").strip()
    if not url:
        from popoto._temporary_server import temporary_embedded

        with temporary_embedded() as private:
            redis_db.configure_url(private)
            yield "A private server that is thrown away at the end (name one with --url or REDIS_URL)."
            redis_db.close()
        return
    redis_db.set_REDIS_DB_settings(NAMESPACE)
    redis_db.configure_url(url)
    try:
        yield f"{url}, in the namespace '{NAMESPACE}', which is emptied at the end."
    finally:
        for model in MODELS:
            model.delete_all()
        redis_db.set_REDIS_DB_settings("")
