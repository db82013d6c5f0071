"""`python -m popoto.cli`, the same as `popoto`."""

from __future__ import annotations

from popoto.cli.app import main

main()
