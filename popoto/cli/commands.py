"""The typer app: options in, an exit code out. What a command does is in the module of its name."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Annotated, NoReturn, Optional

import typer
from redis.exceptions import RedisError

from popoto.cli.demo import MAX_TOKENS, DemoOptions, run_demo
from popoto.cli.migrate import migrate
from popoto.cli.move import model_of, move
from popoto.cli.render import Screen, clean
from popoto.exceptions import PopotoException

app = typer.Typer(
    name="popoto",
    help="Memory for LLM agents on Redis or Valkey.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"popoto {version('popoto')}")
        except PackageNotFoundError:
            typer.echo("popoto (not installed, run from its sources)")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Memory for LLM agents on Redis or Valkey."""


@app.command()
def demo(
    file: Annotated[
        Optional[str],  # noqa: UP045 - typer reads this at run time, also on Python 3.10
        typer.Option(
            "--file",
            metavar="TRANSCRIPT",
            help="Your own conversation: JSON lines of role, content and date, or a LoCoMo file.",
        ),
    ] = None,
    question: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--question", "-q", help="What to ask it; may be given several times."),
    ] = None,
    store: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--store", metavar="URL", help="Use this server and keep the memories there."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="The most that the assembled context may take.")
    ] = MAX_TOKENS,
) -> None:
    """Remember a conversation, recall it, and see how each memory was scored."""
    questions = tuple(text.strip() for text in question or ())
    if not all(questions):
        raise typer.BadParameter("a question is blank; expected some words.", param_hint="--question")
    try:
        with _endings_unwind():
            run_demo(Screen(), DemoOptions(file, questions, store, max_tokens))
    except KeyboardInterrupt:
        _fail("stopped.", code=130)
    except RedisError as error:
        where = "throw-away server" if store is None else "server of --store"
        _fail(f"the {where} cannot be used: {str(error).rstrip('.')}. Check that it runs and may be used.")
    except (PopotoException, OSError) as error:
        _fail(str(error) or type(error).__name__)


@app.command("move")
def move_models(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Import paths: package.module:Class.")],
    source: Annotated[str, typer.Option("--from", metavar="URL", help="The server that has the records.")],
    target: Annotated[str, typer.Option("--to", metavar="URL", help="The cluster (or server) that gets them.")],
    again: Annotated[bool, typer.Option("--again", help="Go on with a move that was interrupted.")] = False,
) -> None:
    """Copy the records of models from one server to a cluster; the source is only read."""
    try:
        with _endings_unwind():
            found = move([model_of(path) for path in models], source, target, again, lambda line: print(clean(line)))
    except KeyboardInterrupt:
        _fail("stopped; --again goes on.", code=130)
    except (RedisError, PopotoException, OSError) as error:
        _fail(str(error) or type(error).__name__)
    for moved in found:
        print(f"{moved.model}: {moved.records} records copied")
        for key in moved.left:
            print(clean(f"  not copied, for it belongs to no one shard: {key}"))
        for key, why in moved.conflicts.items():
            print(clean(f"  {key}: {'; '.join(why)}"))
    if any(moved.conflicts for moved in found):
        raise typer.Exit(1)


@app.command("migrate")
def migrate_model(
    migration: Annotated[str, typer.Argument(metavar="MIGRATION", help="Its import path: package.module:name.")],
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it would do; write nothing.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Only say how far it is.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Walk a finished one once more.")] = False,
    store: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--store", metavar="URL", help="The server; else the one that REDIS_URL and its like name."),
    ] = None,
) -> None:
    """Bring stored records to their model's new definition; go on where an interrupted run ended."""
    if plan + status + again > 1:
        raise typer.BadParameter("give one of them.", param_hint="--plan, --status, --again")
    what = "plan" if plan else "status" if status else "again" if again else "run"
    try:
        with _endings_unwind():
            report = migrate(migration, store, what, lambda line: print(line, file=sys.stderr))
    except KeyboardInterrupt:
        _fail("stopped; run it again to go on.", code=130)
    except (RedisError, PopotoException, OSError) as error:
        _fail(str(error) or type(error).__name__)
    print(clean(str(report)) if report is not None else "It was never run.")
    if report is not None and report.failed:
        raise typer.Exit(1)


def _fail(sentence: str, code: int = 1) -> NoReturn:
    print(f"popoto: {clean(' '.join(sentence.split()))}", file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def _endings_unwind() -> Iterator[None]:
    """Let a kill or a closed terminal unwind like Ctrl-C, so that the throw-away server stops as well."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    previous = {name: signal.signal(getattr(signal, name), leave) for name in names}
    try:
        yield
    finally:
        for name, handler in previous.items():
            signal.signal(getattr(signal, name), handler)
