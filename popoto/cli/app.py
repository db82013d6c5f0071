"""The entry point `popoto`. It alone works without the `cli` extra, to say that the extra is missing."""

from __future__ import annotations

import sys

_EXTRA = {"typer", "rich", "click"}


def main() -> None:
    """Run the command line; exits 0, 1 on an error, 2 on bad usage, 130 on Ctrl-C."""
    try:
        # Imported here because typer and rich are optional: a library user does not need them.
        from popoto.cli.commands import app
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] not in _EXTRA:
            raise
        print(
            f"popoto: the command line needs {missing.name}, which is not installed. Run: pip install 'popoto[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    app()
