"""`python -m popoto_kitchen`: seed the kitchen and ask it questions; `--ops`: look after its indexes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from popoto_kitchen.data import seed
from popoto_kitchen.operations import operations
from popoto_kitchen.screen import Screen
from popoto_kitchen.server import kitchen_server
from popoto_kitchen.tour import tour


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example."""
    parser = argparse.ArgumentParser(prog="python -m popoto_kitchen", description=__doc__)
    parser.add_argument("--ops", action="store_true", help="show check_indexes and clean_indexes instead of the tour")
    parser.add_argument("--url", help="a Redis or Valkey server; REDIS_URL, else a private one that is thrown away")
    options = parser.parse_args(arguments)
    screen = Screen()
    screen.heading("Popoto Kitchen")
    with kitchen_server(options.url) as where:
        screen.say(where)
        screen.table(["model", "records"], seed().items())
        (operations if options.ops else tour)(screen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
