"""The library of this repository."""

from __future__ import annotations

from collections.abc import Iterable

from popoto.redis_db import get_REDIS_DB

from .. import data
from .popoto_api import PopotoWorker, Record
from .protocol import serve


class Ours(PopotoWorker):
    packages = ("msgpack",)

    def save_batch(self, rows: Iterable[data.RecordRow]) -> None:
        pipe = get_REDIS_DB().pipeline()
        for row in rows:
            Record.create(pipeline=pipe, **row)
        pipe.execute()


if __name__ == "__main__":
    serve(Ours)
