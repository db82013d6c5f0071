"""`popoto.configure()`: the settings of a program in one call."""

from __future__ import annotations

from typing import Any

from popoto import redis_db
from popoto.exceptions import ModelException


def configure(
    embedding_provider: Any = None,
    content_store: Any = None,
    content_path: str | None = None,
    *,
    url: str | None = None,
) -> None:
    """Set what is given; leave the rest as it is.

    Args:
        url: the server: redis://, rediss://, unix:// or embedded:///path.
        embedding_provider, content_store, content_path: for EmbeddingField and ContentField.
    Raises: ConnectionSettingsError: the URL names no usable server. ModelException: embeddings or content stores,
        which this version does not have yet.
    """
    given = {"embedding_provider": embedding_provider, "content_store": content_store, "content_path": content_path}
    for name, value in given.items():
        if value is not None:
            raise ModelException(f"configure({name}=...): this version has no EmbeddingField or ContentField yet.")
    if url is not None:
        redis_db.configure_url(url)
