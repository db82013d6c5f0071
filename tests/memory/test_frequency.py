"""FrequencySketch: estimates are never too low, and close."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis

from popoto import Field, FrequencySketch, KeyField, Model, ModelException
from tests.memory.traces import traces


class Said(Model):
    name = KeyField()
    text = Field(default="", max_length=None)
    often = FrequencySketch(source="text")


often: Any = Said._meta.fields["often"]


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"depth": 0}, {"depth": 101}, {"width": "x"}, {"fingerprint_fn": 1}], ids=str
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ModelException):
        FrequencySketch(**options)


def test_saves_are_counted(server: redis.Redis, way: Callable[..., Any], round_trips: Any) -> None:
    assert way(often.get_frequency, Said, "apple") == 0
    Said.create(name="a", text="apple orange")
    said = Said.create(name="b", text="Apple")
    said.save()
    assert way(often.get_frequency, Said, "apple") == 3
    assert way(often.get_frequency, Said, "apple orange") == 1, "the rarest word counts"
    assert way(often.get_frequency, Said, "apple pear") == 0
    said.delete()
    assert way(often.get_frequency, Said, "apple") == 3
    with round_trips() as trips:
        often.get_frequency(Said, "apple orange pear")
    assert trips.count == 1


def test_a_text_without_words_counts_whole(server: redis.Redis) -> None:
    Said.create(name="a", text="A B")
    assert often.get_frequency(Said, "a b") == 1


def test_a_partial_save_counts_only_with_its_source(server: redis.Redis) -> None:
    said = Said.create(name="a", text="apple")
    said.save(update_fields=["text"])
    assert often.get_frequency(Said, "apple") == 2


def test_estimates_are_never_too_low_and_close(server: redis.Redis) -> None:
    class Crowd(Model):
        name = KeyField()
        text = Field(max_length=None)
        often = FrequencySketch(source="text", width=500, depth=5)

    rng = random.Random(3)
    true: Counter[str] = Counter()
    for number in range(60):
        words = {f"word{int(rng.paretovariate(0.9)) % 2000}" for _ in range(60)}
        true.update(words)
        Crowd.create(name=str(number), text=" ".join(words))
    field: Any = Crowd._meta.fields["often"]
    excess = [field.get_frequency(Crowd, word) - count for word, count in true.items()]
    assert min(excess) == 0
    total = sum(true.values())
    assert max(excess) <= 2.72 / 500 * total
    assert sum(excess) / len(excess) < 1


def test_it_keeps_no_key_and_no_word(server: redis.Redis) -> None:
    Said.create(name="quokka", text="apple").delete()
    assert traces(server, "quokka", "apple") == []
