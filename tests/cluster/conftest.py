"""Clusters of three masters, one for the run, which a test may leave in any shape that serves all slots."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from popoto import redis_db
from tests.cluster.nodes import Cluster
from tests.conftest import engine_binary


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    cluster = Cluster(engine_binary())
    yield cluster
    redis_db.close()
    cluster.remove()


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """Three empty masters that popoto uses."""
    shared_cluster.flush()
    redis_db.configure_url(shared_cluster.url)
    yield shared_cluster
    redis_db.close()
