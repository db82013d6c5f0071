"""popoto migrate: plan, run, look, with exit codes."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from popoto.cli.commands import app
from tests.conftest import Server
from tests.migrations.models import fill, migration, new_order, old_order

orders = migration(new_order(), batch_size=10)
no_migration = 3
PATH = "tests.cli.test_migrate:orders"


def popoto(*args: str) -> Any:
    return CliRunner().invoke(app, args)


def test_a_migration_is_planned_run_and_looked_at(server: Any, shared_server: Server) -> None:
    fill(old_order(), 25)
    store = ["--store", shared_server.url]

    planned = popoto("migrate", PATH, "--plan", *store)
    assert planned.exit_code == 0 and "25 of 25 records seen, 25 to change" in planned.stdout
    assert popoto("migrate", PATH, "--status", *store).stdout == "It was never run.\n"

    done = popoto("migrate", PATH, *store)
    assert done.exit_code == 0 and "finished; 25 of 25 records seen, 25 changed" in done.stdout
    assert done.stderr.splitlines() == ["10 of 25", "20 of 25", "25 of 25"]
    assert "finished" in popoto("migrate", PATH, "--status", *store).stdout
    assert popoto("migrate", PATH, "--again", *store).exit_code == 0
    assert server.scard("$Class:Order") == 25


def test_records_that_cannot_be_converted_make_it_exit_with_1(server: Any, shared_server: Server) -> None:
    fill(old_order(), 3)
    server.hset("Order:1", "total", b"\xa4much")
    done = popoto("migrate", PATH, "--store", shared_server.url)
    assert done.exit_code == 1 and "Order:1: RetypeField(amount)" in done.stdout


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nosuch.module:x", "names no migration"),
        ("tests.cli.test_migrate", "names no migration"),
        ("tests.cli.test_migrate:nothing", "names no migration"),
        ("tests.cli.test_migrate:no_migration", "is a int"),
    ],
)
def test_a_wrong_path_is_one_sentence(path: str, words: str) -> None:
    result = popoto("migrate", path)
    assert result.exit_code == 1 and words in result.stderr and "Traceback" not in result.output


def test_two_modes_at_once_are_bad_usage() -> None:
    assert popoto("migrate", PATH, "--plan", "--again").exit_code == 2
