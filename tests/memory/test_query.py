"""Keyword search under filters that Python decides."""

from __future__ import annotations

from datetime import datetime

from popoto import BM25Field, DatetimeField, KeyField, Model, StringField


class QueryNote(Model):
    name = KeyField()
    text = StringField()
    at = DatetimeField()
    words = BM25Field(source="text")


def test_a_limit_of_the_builder_does_not_choose_who_is_searched(server):
    day = datetime(2024, 1, 1)
    for name, text in (("a", "green tea"), ("b", "black tea, much tea"), ("c", "nothing of the kind")):
        QueryNote.create(name=name, text=text, at=day)
    QueryNote.create(name="d", text="black black", at=datetime(2024, 1, 2))

    found = QueryNote.query.filter(at=day).limit(1).keyword_search("black")

    assert [note.name for note in found] == ["b"]
