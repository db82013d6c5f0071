"""Error reporting: popoto's own errors that nobody handled, to a Sentry server that the user names.

What is reported: an exception of this package that ends the process or a thread, that an asyncio task or a future ends
with while nobody asks for its result, or that a running StreamConsumer logs because it goes on. An exception that the
program catches is not reported, whatever it does with it; `report_error()` is there for a web framework's error page.

What is sent: the classes of the exception and of its causes, the lines of popoto's own code that it passed, the
versions of popoto and Python. Never its text, which holds keys and values; no variables, no code of the program, no
arguments, host, user or breadcrumbs. The client and its scope are our own: `sentry_sdk.init()` of the program is
neither needed nor touched, and what it collects is not read.
"""

from __future__ import annotations

import atexit
import logging
import os
import platform
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any, Final

from popoto.exceptions import SkipSaveException

__all__ = ["enable_error_reporting", "report_error"]

ENVIRONMENT_VARIABLE: Final = "POPOTO_SENTRY_DSN"
FLUSH_S: Final = 2.0  # how long the end of the process waits for reports that are under way
_LOGGERS: Final = ("asyncio", "concurrent.futures", "popoto.streams.consumer")  # they log what nobody handled
_KNOWN_PACKAGES: Final = frozenset({"popoto", "redis", "builtins", "asyncio", "msgpack"})
_SENT: Final = ("event_id", "timestamp", "level", "platform", "release", "sdk", "exception", "contexts")
_MARK: Final = "_popoto_reported"

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_client: Any = None
_dsn: str | None = None
_hooked = False


def enable_error_reporting(dsn: str | None = None) -> None:
    """Report popoto's unhandled errors to a Sentry server from now on.

    Does nothing, silently, where sentry-sdk is not installed (`pip install popoto[monitoring]`) or no address is
    given; none is built in. Calling it again changes nothing, or the address. Never raises.

    Args:
        dsn: the address, as Sentry gives it; falls back to the environment variable POPOTO_SENTRY_DSN.
    """
    global _client, _dsn
    address = (dsn if isinstance(dsn, str) else os.environ.get(ENVIRONMENT_VARIABLE) or "").strip()
    if not address:
        return
    try:
        import sentry_sdk
    except ImportError:
        return
    with _lock:
        if address == _dsn:
            return
        try:
            client = sentry_sdk.Client(
                dsn=address,
                release=_release(),
                default_integrations=False,
                auto_enabling_integrations=False,
                send_default_pii=False,
                include_local_variables=False,
                include_source_context=False,
                max_breadcrumbs=0,
                auto_session_tracking=False,
                send_client_reports=False,
                spotlight=False,
                server_name="",
                before_send=_only_what_is_sent,
            )
        except Exception as error:  # a boundary: monitoring must not be what breaks a program
            logger.warning("error reporting stays off: the address cannot be used (%s)", type(error).__name__)
            return
        previous, _client, _dsn = _client, client, address
        _hook()
    if previous is not None:
        previous.close(timeout=0)


def report_error(error: BaseException) -> bool:
    """Report an exception that something else has caught, such as the error page of a web framework.

    Returns: True if it was handed over: reporting is on, the exception is popoto's own and was not reported before.
        What is inside an exception group counts.
    """
    if not _is_ours(error):
        reported = [report_error(inner) for inner in getattr(error, "exceptions", ())]
        return any(reported)
    client = _client
    if client is None or isinstance(error, SkipSaveException) or error.__dict__.get(_MARK):
        return False
    try:
        import sentry_sdk

        error.__dict__[_MARK] = True
        client.capture_event(_event(error), scope=sentry_sdk.Scope())
    except Exception as failure:  # a boundary, as above
        logger.debug("an error could not be reported: %s", type(failure).__name__)
        return False
    return True


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "popoto"


def _release() -> str:
    try:
        return f"popoto@{version('popoto')}"
    except PackageNotFoundError:
        return "popoto@0.0.0+unknown"


# What is sent -----------------------------------------------------------------------------------------


def _event(error: BaseException) -> dict[str, Any]:
    chain = [_described(one) for one in _chain(error) if type(one).__module__.partition(".")[0] in _KNOWN_PACKAGES]
    return {
        "level": "error",
        "exception": {"values": chain[::-1]},  # the oldest one first
        "contexts": {"runtime": {"name": platform.python_implementation(), "version": platform.python_version()}},
    }


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _described(error: BaseException) -> dict[str, Any]:
    kind = type(error)
    about = (kind.__doc__ or "").strip().partition("\n")[0] if _is_ours(error) else ""
    frames = list(_frames(error.__traceback__))
    return {
        "type": kind.__name__,
        "module": kind.__module__,
        "value": about,  # what the class stands for, never the text of this one
        **({"stacktrace": {"frames": frames}} if frames else {}),
    }


def _frames(trace: TracebackType | None) -> Iterator[dict[str, Any]]:
    while trace is not None:
        code = trace.tb_frame.f_code
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] == "popoto":
            yield {
                "module": module,
                "function": code.co_name,
                "lineno": trace.tb_lineno,
                "filename": "/".join(module.split(".")) + ".py",
                "in_app": True,
            }
        trace = trace.tb_next


def _only_what_is_sent(event: Any, hint: Any) -> Any:
    kept = {name: event[name] for name in _SENT if name in event}
    kept["contexts"] = {name: held for name, held in kept.get("contexts", {}).items() if name in ("runtime", "trace")}
    return kept


# Where unhandled errors come by -----------------------------------------------------------------------


def _hook() -> None:
    """Look at what nobody handled, on its way to whoever looked at it before; once a process."""
    global _hooked
    if _hooked:
        return
    _hooked = True
    of_process, of_thread = sys.excepthook, threading.excepthook

    def process_ends(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        report_error(error)
        of_process(kind, error, trace)

    def thread_ends(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            report_error(args.exc_value)
        of_thread(args)

    sys.excepthook, threading.excepthook = process_ends, thread_ends
    for name in _LOGGERS:
        # a filter, not a handler: a logger with a handler of its own would no longer print to stderr by itself
        logging.getLogger(name).addFilter(_logged)
    atexit.register(_flush)


def _logged(record: logging.LogRecord) -> bool:
    if record.levelno >= logging.ERROR and isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
        report_error(record.exc_info[1])
    return True


def _flush() -> None:
    if _client is not None:
        _client.close(timeout=FLUSH_S)
