"""The published package popoto, a fixed version from PyPI."""

from __future__ import annotations

from collections.abc import Iterable

import popoto

from .. import data
from ..peer_requirements import PEER_VERSION
from .popoto_api import PopotoWorker, Record
from .protocol import serve


class Peer(PopotoWorker):
    def save_batch(self, rows: Iterable[data.RecordRow]) -> None:
        Record.bulk_create([Record(**row) for row in rows], batch_size=data.BATCH)


if __name__ == "__main__":
    if popoto.__version__ != PEER_VERSION:
        raise SystemExit(f"the peer must be popoto {PEER_VERSION}, found {popoto.__version__} at {popoto.__file__}")
    serve(Peer)
