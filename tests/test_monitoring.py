"""enable_error_reporting against a local server that speaks Sentry's wire format; each program is its own process."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from popoto import enable_error_reporting, monitoring

HERE = Path(__file__).resolve().parent.parent
needs_sdk = pytest.mark.skipif(
    importlib.util.find_spec("sentry_sdk") is None, reason="sentry-sdk is missing (pip install popoto[monitoring])"
)


class SentryServer:
    """Takes envelopes (a line of JSON a header or a body) as a Sentry server does, and keeps the events."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.bodies: list[str] = []
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.paths.append(self.path)
                outer.bodies.append(body.decode())
                lines = body.decode().splitlines()
                for header, item in zip(lines[1::2], lines[2::2], strict=True):
                    if json.loads(header)["type"] == "event":
                        outer.events.append(json.loads(item))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.dsn = f"http://key@127.0.0.1:{self._server.server_port}/7"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def sentry() -> Iterator[SentryServer]:
    server = SentryServer()
    yield server
    server.close()


PREAMBLE = """
import asyncio, sys, threading, os
import popoto
class Secret(popoto.Model):
    name = popoto.KeyField()
    age = popoto.IntField()
def broken():
    Secret(name="alice", age="hunter2")
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(HERE), "REDIS_URL": "redis://127.0.0.1:1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@needs_sdk
def test_an_error_that_ends_the_process_is_reported_and_still_printed(sentry):
    done = run(f"popoto.enable_error_reporting({sentry.dsn!r})\nbroken()")

    assert done.returncode == 1
    assert "hunter2" in done.stderr and "Traceback" in done.stderr
    (event,) = sentry.events
    (found,) = [one for one in event["exception"]["values"] if one["type"] == "ModelException"][-1:]
    assert found["module"] == "popoto.exceptions"
    frames = found["stacktrace"]["frames"]
    assert frames and all(frame["module"].startswith("popoto.") for frame in frames)
    assert frames[-1]["filename"].startswith("popoto/orm/")
    assert event["release"] == f"popoto@{__import__('popoto').__version__}"
    assert sentry.paths == ["/api/7/envelope/"]


@needs_sdk
def test_nothing_of_the_program_its_data_or_its_machine_is_sent(sentry):
    code = f"""
    import sentry_sdk
    sentry_sdk.set_user({{"email": "alice@example.org"}})
    sentry_sdk.set_tag("customer", "alice-tag")
    sentry_sdk.add_breadcrumb(message="alice-crumb")
    popoto.enable_error_reporting({sentry.dsn!r})
    try:
        raise ValueError("alice-cause")
    except ValueError:
        broken()
    """
    run(code, SENTRY_ENVIRONMENT="alice-environment", SENTRY_RELEASE="alice-release")
    (body,) = sentry.bodies
    host = os.uname().nodename
    for word in ("alice", "hunter2", "Secret", str(Path.home()), str(HERE), host, "argv", "<string>", '"vars"'):
        assert word not in body, word
    (event,) = sentry.events
    assert set(event) <= {"event_id", "timestamp", "level", "platform", "release", "sdk", "exception", "contexts"}
    assert [one["type"] for one in event["exception"]["values"]] == ["ModelException"]


@needs_sdk
def test_the_causes_of_an_error_are_sent_with_it_the_oldest_one_first(sentry):
    run(f"popoto.enable_error_reporting({sentry.dsn!r})\npopoto.Publisher(channel_name='c').publish(object())")
    (event,) = sentry.events
    assert [one["type"] for one in event["exception"]["values"]] == ["CodecError", "PublisherException"]


@needs_sdk
def test_errors_that_nobody_handled_elsewhere_are_reported_once_each(sentry):
    code = f"""
    from concurrent.futures import ThreadPoolExecutor
    from popoto.monitoring import report_error
    popoto.enable_error_reporting({sentry.dsn!r})

    thread = threading.Thread(target=broken)
    thread.start()
    thread.join()

    async def main():
        async def task(): broken()
        held = asyncio.ensure_future(task())
        await asyncio.sleep(0.01)
    asyncio.run(main())

    with ThreadPoolExecutor() as pool:
        pool.submit(int).add_done_callback(lambda _: broken())

    try:
        broken()
    except popoto.ModelException as error:
        assert report_error(error) is True and report_error(error) is False
    """
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert [event["exception"]["values"][-1]["type"] for event in sentry.events] == ["ModelException"] * 4


@needs_sdk
def test_an_error_that_a_running_consumer_only_logs_is_reported(sentry, server, shared_server):
    server.xadd("stream:x", {"a": "1"})
    code = f"""
    popoto.enable_error_reporting({sentry.dsn!r})
    def handler(entries):
        consumer.stop()
        broken()
    consumer = popoto.StreamConsumer("stream:x", "group", "one", handler)
    consumer.run_sync()
    """
    done = run(code, REDIS_URL=shared_server.url)
    assert done.returncode == 0, done.stderr
    assert [event["exception"]["values"][-1]["type"] for event in sentry.events] == ["ModelException"]


@needs_sdk
@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_what_is_inside_an_exception_group_is_reported(sentry):
    code = """
    async def main():
        async def task(): broken()
        async with asyncio.TaskGroup() as group:
            group.create_task(task())
            group.create_task(task())
    asyncio.run(main())
    """
    assert run(f"popoto.enable_error_reporting({sentry.dsn!r})\n" + textwrap.dedent(code)).returncode == 1
    assert {event["exception"]["values"][-1]["type"] for event in sentry.events} == {"ModelException"}


@needs_sdk
def test_what_the_program_handles_or_raises_itself_is_not_reported(sentry):
    code = f"""
    popoto.enable_error_reporting({sentry.dsn!r})

    def caught():
        try:
            broken()
        except popoto.ModelException:
            pass

    def turned_into_another():
        try:
            broken()
        except popoto.ModelException as error:
            raise KeyError("mine") from error

    def not_popotos():
        raise ValueError("mine")

    def a_subclass_of_the_programs():
        raise type("Mine", (popoto.ModelException,), {{}})("mine")

    def control_flow():
        raise popoto.SkipSaveException("skip")

    for part in (caught, turned_into_another, not_popotos, a_subclass_of_the_programs, control_flow):
        thread = threading.Thread(target=part)
        thread.start()
        thread.join()
    """
    assert "control_flow" in run(code).stderr
    assert sentry.events == []


@needs_sdk
def test_calling_it_again_reports_nothing_twice(sentry):
    run(f"for _ in range(3): popoto.enable_error_reporting({sentry.dsn!r})\nbroken()")
    assert len(sentry.events) == 1


@needs_sdk
def test_the_address_may_come_from_the_environment_and_the_argument_wins(sentry):
    elsewhere = SentryServer()
    try:
        run("popoto.enable_error_reporting()\nbroken()", POPOTO_SENTRY_DSN=sentry.dsn)
        assert len(sentry.events) == 1
        run(f"popoto.enable_error_reporting({elsewhere.dsn!r})\nbroken()", POPOTO_SENTRY_DSN=sentry.dsn)
        assert (len(sentry.events), len(elsewhere.events)) == (1, 1)
    finally:
        elsewhere.close()


@needs_sdk
def test_the_programs_own_sentry_is_left_alone(sentry):
    own = SentryServer()
    try:
        code = f"""
        import sentry_sdk
        sentry_sdk.init({own.dsn!r}, before_send=lambda event, hint: {{**event, "tags": {{"own": "yes"}}}})
        before = sentry_sdk.get_client()
        popoto.enable_error_reporting({sentry.dsn!r})
        assert sentry_sdk.get_client() is before and before.dsn == {own.dsn!r}
        broken()
        """
        run(code)
        assert len(sentry.events) == 1 and "tags" not in sentry.events[0]
        assert len(own.events) == 1 and own.events[0]["tags"] == {"own": "yes"}
    finally:
        own.close()


@needs_sdk
def test_a_process_without_its_own_sentry_gets_none(sentry):
    code = f"""
    import sentry_sdk
    popoto.enable_error_reporting({sentry.dsn!r})
    sentry_sdk.capture_message("from the program")
    print(sentry_sdk.get_client().is_active())
    """
    assert run(code).stdout.strip() == "False"
    assert sentry.events == []


@needs_sdk
def test_output_of_loggers_stays_as_it_was(sentry):
    code = """
    async def main():
        async def task(): broken()
        held = asyncio.ensure_future(task())
        await asyncio.sleep(0.01)
    asyncio.run(main())
    """
    plain = run("\n" + textwrap.dedent(code)).stderr
    watched = run(f"popoto.enable_error_reporting({sentry.dsn!r})\n" + textwrap.dedent(code)).stderr
    assert "Task exception was never retrieved" in plain
    assert [line.partition("0x")[0] for line in plain.splitlines() if "File" not in line] == [
        line.partition("0x")[0] for line in watched.splitlines() if "File" not in line
    ]


@needs_sdk
@pytest.mark.parametrize("dsn", ["nonsense", "http://", "ftp://key@host/1"])
def test_an_address_that_cannot_be_used_is_a_warning(dsn):
    done = run(f"popoto.enable_error_reporting({dsn!r})\nprint('on')")
    assert done.stdout.strip() == "on"
    assert "error reporting stays off" in done.stderr and dsn not in done.stderr


@needs_sdk
def test_a_server_that_does_not_answer_delays_the_end_and_nothing_else():
    done = run("popoto.enable_error_reporting('http://key@127.0.0.1:1/7')\nbroken()")
    assert done.returncode == 1 and "hunter2" in done.stderr


def test_without_an_address_nothing_happens():
    done = run("popoto.enable_error_reporting()\nprint('sentry_sdk' in sys.modules)", POPOTO_SENTRY_DSN=" ")
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_without_the_package_nothing_happens():
    code = "sys.modules['sentry_sdk'] = None\npopoto.enable_error_reporting('http://key@127.0.0.1:1/7')\nprint('on')"
    done = run(code)
    assert (done.stdout.strip(), done.stderr) == ("on", "")


def test_there_is_one_function_of_that_name():
    assert enable_error_reporting is monitoring.enable_error_reporting
    assert enable_error_reporting() is None
