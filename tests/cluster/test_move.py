"""`popoto move`: a store of one server is the same store on a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import popoto
from popoto import redis_db
from tests.cluster.models import Account, Badge, Note, Owner, Pet
from tests.cluster.nodes import Cluster
from tests.conftest import Server

MODELS = [f"tests.cluster.models:{name}" for name in ("Account", "Note", "Badge", "Owner", "Pet")]


@pytest.fixture
def one_server() -> Iterator[str]:
    server = Server()
    server.start()
    yield server.url
    redis_db.close()
    server.remove()


def run_move(source: str, target: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "popoto.cli", "move", *MODELS, "--from", source, "--to", target, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": "."})


def filled() -> None:
    for number in range(20):
        Account.create(name=f"n:{number}", email=f"e{number}", balance=number, city="Ulm" if number % 2 else "{B}onn")
        Note.create(agent=f"a-{number % 3}", number=number, hits=number, text=f"red fox {number}", topic="tea")
        Badge.create(agent=f"a-{number % 3}", name=f"n{number}", code=f"c{number}")
    Account(name="short", email="short", _ttl=500).save()
    for note in Note.query.filter(agent="a-1"):
        popoto.ConfidenceField.update_confidence(note, "certainty", 0.9)
    ann = Owner.create(name="ann", town="Ulm")
    Pet.create(agent="g", name="rex", owner=ann)


def seen() -> dict[str, Any]:
    """Return what a user sees of the store."""
    rex = Pet.query.get(agent="g", name="rex")
    return {
        "accounts": [(a.name, a.email, a.balance, a.city) for a in Account.query.order_by("balance").all()],
        "ulm": Account.query.filter(city="Ulm").count(),
        "ends": [a.name for a in Account.query.filter(email__endswith="5")],
        "notes": [(n.agent, n.number, n.hits, n.text, n.relevance) for n in Note.query.all()],
        "evidence": [
            popoto.ConfidenceField.get_confidence_data(note, "certainty") for note in Note.query.filter(agent="a-1")
        ],
        "words": sorted(n.number for n in Note.query.filter(agent="a-2").keyword_search("fox", limit=99)),
        "badges": [(b.agent, b.name, b.code) for b in Badge.query.filter(code__in=["c3", "c4"])],
        "pets": [p.name for p in Pet.query.filter(owner__town="Ulm")],
        "owner": rex.owner.name,
    }


def test_everything_is_there_afterwards(cluster: Cluster, one_server: str) -> None:
    redis_db.configure_url(one_server)
    filled()
    before = seen()
    redis_db.close()

    ran = run_move(one_server, cluster.url)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Account: 21 records copied" in ran.stdout and "Note: 20 records copied" in ran.stdout

    redis_db.configure_url(cluster.url)
    assert seen() == before
    for model in (Account, Note, Badge, Owner, Pet):
        assert model.check_indexes()["total"] == 0
    assert 0 < redis_db.get_REDIS_DB().ttl("{Account}:Account:short") <= 500
    with pytest.raises(popoto.ModelException, match="already exists"):
        Badge.create(agent="another", name="x", code="c3")

    ran = run_move(one_server, cluster.url)
    assert ran.returncode == 1 and "--again" in ran.stderr
    ran = run_move(one_server, cluster.url, "--again")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert seen() == before

    redis_db.configure_url(one_server)
    assert seen() == before
