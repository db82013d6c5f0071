"""Numbers of numpy, as weights and similarities usually are, count like Python's own; bools and NaN never do."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import redis

from popoto import (
    BM25Field,
    ConfidenceField,
    CoOccurrenceField,
    CyclicDecayField,
    DecayingSortedField,
    Defaults,
    ExistenceFilter,
    KeyField,
    Model,
    SortedField,
)
from popoto.memory.number import is_number


class Weighed(Model):
    name = KeyField()
    rank = SortedField()
    swing = CyclicDecayField(cycles=[(np.float64(86_400), np.float32(2))], pressure_rate=np.float32(0.5))
    certainty = ConfidenceField(initial_confidence=np.float64(0.25), prior_strength=np.float32(1))
    links = CoOccurrenceField(decay_factor=np.float32(0.5))


@pytest.mark.parametrize("value", [1, -2.5, Fraction(1, 3), np.float32(0.5), np.float64(3), np.int8(4)], ids=repr)
def test_finite_real_numbers_are_numbers(value: Any) -> None:
    assert is_number(value)


@pytest.mark.parametrize(
    "value", [True, np.True_, None, "1", Decimal(1), 1j, math.nan, np.float32("inf"), 10**400, [1]], ids=repr
)
def test_nothing_else_is_one(value: Any) -> None:
    assert not is_number(value)


def test_options_of_fields_may_come_from_numpy() -> None:
    assert DecayingSortedField(decay_rate=np.float32(0.5)).decay_rate == 0.5
    assert CyclicDecayField(cycles=[(np.int64(60), np.float32(0.5))]).cycles == [(60.0, 0.5, 0.0)]
    assert ExistenceFilter(error_rate=np.float64(0.01)).bits == ExistenceFilter(error_rate=0.01).bits
    assert (BM25Field("name", k1=np.float32(1.5), b=np.float32(0.5)).k1, ConfidenceField().prior_strength) == (1.5, 0.0)


def test_a_default_from_numpy_is_kept_as_a_number_of_python() -> None:
    with Defaults.override(DECAY_RATE=np.float32(0.5)):
        assert type(Defaults.DECAY_RATE) is float and Defaults.DECAY_RATE == 0.5


def test_calls_take_numbers_of_numpy(server: redis.Redis) -> None:
    records = [Weighed.create(name=name, rank=i) for i, name in enumerate("abc")]
    assert records[0].strengthen_cycle("swing", factor=np.float32(2)) == [[86_400.0, 4.0, 0.0]]
    assert ConfidenceField.update_confidence(records[0], "certainty", np.float32(0.5)) == pytest.approx(
        0.25 + 0.25 / math.sqrt(2)
    )
    links: Any = Weighed._meta.fields["links"]
    assert links.link(Weighed, records[0], records[1], np.float32(0.5)) == 0.5
    assert links.strengthen(Weighed, records[0], records[1], np.float64(0.25)) == 0.75
    assert links.propagate(Weighed, [records[0]], decay_per_hop=np.float32(0.5)) == {"Weighed:b": 0.375}
    assert links.weaken_all(Weighed, records[0]) == 0
    assert links.get_linked(Weighed, records[0], min_weight=np.float32(0.1)) == [("Weighed:b", 0.375)]


def test_rankings_take_weights_and_similarities_of_numpy(server: redis.Redis) -> None:
    for i, name in enumerate("abc"):
        Weighed.create(name=name, rank=i)
    boost = dict(zip(("Weighed:a", "Weighed:b"), np.array([9, 0.5], dtype=np.float32), strict=True))
    ranked = Weighed.query.composite_score(
        {"rank": np.float32(2)}, similarity_boost=boost, min_score=np.float64(1), temperature=np.float32(2)
    )
    assert [(r.name, r._composite_score) for r in ranked] == [("a", 4.5), ("c", 2.0), ("b", 1.25)]
    decayed = Weighed.query.top_by_decay("swing", decay_rate=np.float32(0.5))
    assert decayed == Weighed.query.top_by_decay("swing", decay_rate=0.5) and len(decayed) == 3
    fused = Weighed.query.fuse(k=np.float32(1), words=["Weighed:b"])
    assert [(r.name, r._rrf_score, type(r._rrf_score)) for r in fused] == [("b", 0.5, float)]
