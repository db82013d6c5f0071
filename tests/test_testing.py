"""What the helpers for users' tests do; the pytest plugin in runs of pytest of its own, on a real server."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import redis

import popoto
from popoto import redis_db, testing
from popoto.memory import clock

ROOT = Path(popoto.__file__).parent.parent
NOBODY = "redis://127.0.0.1:1"  # no server is there


class TestedThing(popoto.Model):
    __test__ = False
    name = popoto.KeyField()


def client_of(server: Any, db: int) -> redis.Redis:
    return redis.Redis(unix_socket_path=server.connection_pool.connection_kwargs["path"], db=db)


# -- popoto.testing ----------------------------------------------------------------------------------------------------


def test_the_test_database_is_another_one_and_the_namespace_stays(server: Any) -> None:
    TestedThing.create(name="real")
    settings = server.connection_pool.connection_kwargs
    redis_db.set_REDIS_DB_settings("staging", unix_socket_path=settings["path"], socket_timeout=3.5)
    try:
        testing.use_test_db()
        kept = redis_db.get_REDIS_DB().connection_pool.connection_kwargs
        assert (kept["db"], kept["path"], kept["socket_timeout"]) == (15, settings["path"], 3.5)
        TestedThing.create(name="test")
        assert redis_db.key_namespace() == "staging:"
        assert {key.startswith(b"staging:") for key in client_of(server, 15).scan_iter()} == {True}
        assert asyncio.run(TestedThing.query.async_count()) == 1
        testing.flush_test_db()
        assert client_of(server, 15).dbsize() == 0
        assert client_of(server, 0).dbsize() > 0, "the database that was in use before is untouched"
    finally:
        redis_db._change(None, "")


@pytest.mark.parametrize("db", [0, -1, "15", 1.0, None, True], ids=repr)
def test_a_number_that_is_no_test_database_is_refused(server: Any, db: Any) -> None:
    with pytest.raises(ValueError, match=r"use_test_db\(\) was given .*; expected .*such as 15"):
        testing.use_test_db(db)
    assert redis_db.get_REDIS_DB() is server


def test_database_0_is_not_flushed(server: Any) -> None:
    server.set("real", 1)
    with pytest.raises(ValueError, match=r"does not flush database 0.*use_test_db\(15\)"):
        testing.flush_test_db()
    assert server.get("real") == b"1"


def test_frozen_time_takes_a_datetime_and_refuses_what_is_no_moment() -> None:
    with testing.frozen_time(datetime(2020, 1, 1, tzinfo=timezone.utc)):
        assert clock.now() == 1_577_836_800
    with pytest.raises(TypeError, match="expected Unix seconds, a datetime or None"):
        testing.frozen_time("2020-01-01")  # type: ignore[arg-type]


def test_frozen_time_stands_still_until_it_is_moved() -> None:
    with testing.frozen_time(1000) as frozen:
        assert clock.now() == 1000
        assert frozen.advance(60) == clock.now() == 1060
        with testing.frozen_time():
            assert clock.now() == 1060
    assert clock.now() > 1e9


def test_round_trips_are_counted_sync_and_async_without_handshakes(server: Any) -> None:
    TestedThing(name="first").save()  # the server gets the script
    with testing.count_round_trips() as trips:
        TestedThing(name="a").save()
    assert trips.count == 1
    redis_db.select_db(15)  # the next connection has to AUTH or SELECT
    with testing.count_round_trips() as trips:
        redis_db.get_REDIS_DB().set("a", 1)
        assert trips.count == 1
        pipe = redis_db.get_REDIS_DB().pipeline()
        pipe.set("a", 2)
        pipe.set("a", 3)
        pipe.execute()
    assert trips.count == 2

    async def twice() -> None:
        await redis_db.get_async_client().set("a", 1)
        await TestedThing(name="b").async_save()

    with testing.count_round_trips() as trips:
        asyncio.run(twice())
    redis_db.get_REDIS_DB().ping()
    assert trips.count == 2, "nothing counts after the block"


# -- the plugin --------------------------------------------------------------------------------------------------------

MODEL = """
import asyncio
import popoto, pytest
from popoto import redis_db

class Thing(popoto.Model):
    name = popoto.KeyField()

def db_in_use():
    return redis_db.get_REDIS_DB().connection_pool.connection_kwargs["db"]
"""
ONE_TEST = "def test_uses_it():\n    Thing.create(name='a')\n"
Run = Callable[..., str]


@pytest.fixture
def run_pytest(tmp_path: Path, shared_server: Any) -> Run:
    """Run pytest on a file of tests and return its output; the plugin is loaded by name."""

    def run(tests: str, *options: str, ini: str = "", url: str = shared_server.url, **environment: str) -> str:
        (tmp_path / "pytest.ini").write_text(f"[pytest]\n{ini}\n", "utf-8")
        (tmp_path / "test_it.py").write_text(MODEL + textwrap.dedent(tests), "utf-8")
        known = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "POPOTO_TEST"))}
        paths = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "REDIS_URL": url}
        plugins = ["-p", "popoto.pytest_plugin"]
        if environment.pop("AUTOLOAD", ""):
            plugins = []
        else:
            environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugins, *options],
            cwd=tmp_path,
            env={**known, **paths, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    return run


def test_each_test_finds_an_empty_test_database_sync_and_async(run_pytest: Run, server: Any) -> None:
    server.set("real", 1)
    client_of(server, 15).set("of an earlier run", 1)
    output = run_pytest(
        """
        seen = []

        @pytest.fixture
        def thing():
            return Thing.create(name="fixture")

        @pytest.mark.parametrize("n", range(2))
        def test_sync(n, thing):
            assert redis_db.get_REDIS_DB().get("of an earlier run") is None
            assert db_in_use() == 15 and Thing.query.count() == 1
            Thing.create(name="left")

        @pytest.mark.parametrize("n", range(2))
        def test_async(n):
            async def use():
                assert await Thing.query.async_count() == 0
                await Thing.async_create(name="left")
                seen.append(redis_db.get_async_client())
            asyncio.run(use())

        loop = asyncio.new_event_loop()

        @pytest.mark.parametrize("n", range(2))
        def test_async_on_a_loop_that_lives_on(n):
            async def use():
                client = await popoto.get_async_redis_db()
                assert client not in seen and await Thing.query.async_count() == 0
                seen.append(client)
                await Thing.async_create(name="left")
            loop.run_until_complete(use())
        """
    )
    assert "6 passed" in output, output
    assert server.keys() == [b"real"]
    assert client_of(server, 15).dbsize() == 0, "nothing is left behind"


def test_settings_changed_by_a_test_do_not_lead_out_of_the_test_database(
    run_pytest: Run, server: Any, shared_server: Any
) -> None:
    server.set("real", 1)
    output = run_pytest(
        f"""
        def test_changes():
            Thing.create(name="a")
            redis_db.configure_url("{shared_server.url}?db=0")
            assert db_in_use() == 15 and Thing.query.count() == 1
            redis_db.select_db(0)
            redis_db.close()
            assert db_in_use() == 15 and Thing.query.count() == 1

        def test_after_it():
            assert db_in_use() == 15 and Thing.query.count() == 0
        """
    )
    assert "2 passed" in output, output
    assert server.keys() == [b"real"]


def test_the_flush_before_a_test_is_none_of_its_round_trips(run_pytest: Run, server: Any) -> None:
    output = run_pytest(
        """
        from popoto.testing import count_round_trips

        @pytest.mark.parametrize("n", range(2))
        def test_one(n):
            with count_round_trips() as trips:
                redis_db.get_REDIS_DB().set("a", 1)
            assert trips.count == 1
        """
    )
    assert "2 passed" in output, output


def test_popoto_used_at_import_is_in_the_test_database_too(run_pytest: Run, server: Any) -> None:
    output = run_pytest("Thing.create(name='import')\ndef test_empty():\n    assert Thing.query.count() == 0\n")
    assert "1 passed" in output, output
    assert server.dbsize() == 0


def test_a_test_that_does_not_use_popoto_needs_no_server(run_pytest: Run) -> None:
    output = run_pytest("def test_alone():\n    pass\n\n" + ONE_TEST, url=NOBODY)
    assert "1 failed, 1 passed" in output, output
    assert "ConnectionError" in output


def test_the_environment_wins_over_the_ini_option_and_that_over_15(run_pytest: Run, server: Any) -> None:
    tests = "def test_db():\n    assert db_in_use() == {}\n"
    ini = "popoto_test_db = 14"
    for number, environment in ((13, {"POPOTO_TEST_DB": " 13 "}), (14, {"POPOTO_TEST_DB": " "}), (14, {})):
        output = run_pytest(tests.format(number), ini=ini, **environment)
        assert "1 passed" in output, output


@pytest.mark.parametrize(
    ("ini", "environment", "expected"),
    [
        ("popoto_test_db = 0", {}, "The ini option popoto_test_db is 0; expected 1 or greater"),
        ("", {"POPOTO_TEST_DB": "-3"}, "The environment variable POPOTO_TEST_DB is -3; expected 1 or greater"),
        ("", {"POPOTO_TEST_DB": "x1"}, "POPOTO_TEST_DB is 'x1'; expected the number of a database"),
    ],
)
def test_a_wrong_number_fails_each_test_that_uses_popoto_and_no_other(
    run_pytest: Run, server: Any, ini: str, environment: dict[str, str], expected: str
) -> None:
    server.set("real", 1)
    tests = (
        ONE_TEST + "\ndef test_async():\n    asyncio.run(Thing.query.async_count())\n\ndef test_alone():\n    pass\n"
    )
    output = run_pytest(tests, ini=ini, **environment)
    assert "2 failed, 1 passed" in output, output
    errors = [line for line in output.splitlines() if line.startswith("E  ")]
    assert len(errors) == 2 and all("ValueError: " in line and expected in line for line in errors), output
    assert server.keys() == [b"real"]


@pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="pytest-xdist is not installed")
def test_each_worker_has_a_database_of_its_own_and_one_too_many_says_so(run_pytest: Run, server: Any) -> None:
    tests = """
        import os

        @pytest.mark.parametrize("n", range(6))
        def test_own(n):
            assert db_in_use() == 2 - int(os.environ["PYTEST_XDIST_WORKER"][2:])
            for name in "abc":
                Thing.create(name=name)
            assert Thing.query.count() == 3
        """
    two = run_pytest(tests, "-p", "xdist.plugin", "-n", "2", POPOTO_TEST_DB="2")
    assert "6 passed" in two, two
    three = run_pytest(tests, "-p", "xdist.plugin", "-n", "3", "--dist", "each", POPOTO_TEST_DB="2")
    assert "6 failed, 12 passed" in three, three
    assert "The test worker gw2 has no database" in three
    assert "Run at most 2 workers (pytest -n 2)" in three


def test_it_loads_by_its_entry_point_and_is_turned_off_by_its_name(
    run_pytest: Run, server: Any, tmp_path: Path
) -> None:
    entry = '[project.entry-points.pytest11]\npopoto = "popoto.pytest_plugin"\n'
    assert entry in (ROOT / "pyproject.toml").read_text("utf-8")
    metadata = tmp_path / "as_installed-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: as-installed\nVersion: 1\n", "utf-8")
    (metadata / "entry_points.txt").write_text("[pytest11]\npopoto = popoto.pytest_plugin\n", "utf-8")
    tests = "def test_db():\n    assert db_in_use() == {}\n"
    on = run_pytest(tests.format(15), AUTOLOAD="1")
    assert "1 passed" in on, on
    off = run_pytest(tests.format(0), "-p", "no:popoto", AUTOLOAD="1")
    assert "1 passed" in off, off
