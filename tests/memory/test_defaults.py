"""Defaults: read when used, overridden for a while, and never what they cannot be."""

from __future__ import annotations

import math
from typing import Any

import pytest
import redis

from popoto import (
    CoOccurrenceField,
    CyclicDecayField,
    Defaults,
    InteractionWeight,
    KeyField,
    Model,
    TemporalPeriod,
)
from popoto.memory import clock

REFERENCE = {
    "DECAY_RATE": 0.1,
    "INITIAL_CONFIDENCE": 0.5,
    "ACTED_CONFIDENCE_SIGNAL": 0.9,
    "CONTRADICTED_CONFIDENCE_SIGNAL": 0.1,
    "ACTED_CYCLE_STRENGTHEN_FACTOR": 1.2,
    "DISMISSED_CYCLE_WEAKEN_FACTOR": 0.8,
    "CONTRADICTED_CYCLE_WEAKEN_FACTOR": 0.5,
    "AUTO_DISCHARGE_CONFIDENCE_THRESHOLD": 0.1,
    "WF_MIN_THRESHOLD": 0.2,
    "WF_PRIORITY_THRESHOLD": 0.7,
    "CO_OCCURRENCE_DECAY_FACTOR": 0.95,
    "CO_OCCURRENCE_INITIAL_WEIGHT": 1.0,
    "CO_OCCURRENCE_DECAY_PER_HOP": 0.5,
    "PL_CONFIDENCE_ERROR_THRESHOLD": 0.7,
    "PL_CONFIDENCE_LOW_SIGNAL": 0.2,
    "PL_AUTO_RESOLVE_ACTED": 0.1,
    "PL_AUTO_RESOLVE_DISMISSED": 0.5,
    "PL_AUTO_RESOLVE_CONTRADICTED": 0.9,
    "PL_AUTO_RESOLVE_USED": 0.3,
    "ADAPTIVE_QUALITY_WINDOW_SIZE": 20,
    "MIN_EVENTS_FOR_CRYSTALLIZATION": 3,
    "WILSON_CI_THRESHOLD": 0.6,
    "TD_ALPHA": 0.1,
    "TD_GAMMA": 0.95,
    "CHI_SQUARED_P_THRESHOLD": 0.05,
    "INITIAL_CYCLE_AMPLITUDE": 0.5,
    "COMPETITIVE_SUPPRESSION_SIGNAL": 0.3,
    "DEFAULT_SURFACING_THRESHOLD": 0.5,
    "TRAJECTORY_CLUSTER_THRESHOLD": 3,
}


def constants() -> dict[str, Any]:
    return {name: value for name, value in vars(Defaults).items() if name.isupper()}


def test_the_values_are_those_of_the_reference() -> None:
    assert constants() == REFERENCE


def test_periods_and_weights() -> None:
    assert (TemporalPeriod.DAILY, TemporalPeriod.WEEKLY, TemporalPeriod.MONTHLY) == (86400, 604800, 2592000)
    assert (TemporalPeriod.QUARTERLY, TemporalPeriod.YEARLY) == (7776000, 31536000)
    assert InteractionWeight.combine(InteractionWeight.HUMAN, InteractionWeight.EXECUTIVE) == 50.0
    assert InteractionWeight.combine(InteractionWeight.AGENT, InteractionWeight.PEER) == 7.0


def test_an_override_acts_inside_its_block_and_blocks_nest() -> None:
    before = constants()
    with Defaults.override(DECAY_RATE=0.7, INITIAL_CONFIDENCE=0.4):
        assert (Defaults.DECAY_RATE, Defaults.INITIAL_CONFIDENCE) == (0.7, 0.4)
        with Defaults.override(DECAY_RATE=0.8):
            assert (Defaults.DECAY_RATE, Defaults.INITIAL_CONFIDENCE) == (0.8, 0.4)
        assert Defaults.DECAY_RATE == 0.7
    assert constants() == before


def test_an_error_inside_the_block_puts_the_values_back() -> None:
    before = constants()
    with pytest.raises(ZeroDivisionError), Defaults.override(DECAY_RATE=0.7):
        raise ZeroDivisionError
    assert constants() == before


def test_an_override_acts_on_what_exists_already(server: redis.Redis) -> None:
    class Overridden(Model):
        name = KeyField()
        due = CyclicDecayField()
        own = CyclicDecayField(decay_rate=0.1)
        links = CoOccurrenceField()

    with clock.frozen(1_700_000_000.0) as still:
        Overridden.create(name="a")
        still.advance(4 * 86400)
        with Defaults.override(DECAY_RATE=0.5, CO_OCCURRENCE_INITIAL_WEIGHT=0.25):
            assert Overridden.query.top_by_decay("due")[0]._decay_score == pytest.approx(0.5)
            assert Overridden.query.top_by_decay("own")[0]._decay_score == pytest.approx(4**-0.1)
            assert Overridden._meta.fields["links"].link(Overridden, "x", "y") == 0.25  # type: ignore[attr-defined]
        assert Overridden.query.top_by_decay("due")[0]._decay_score == pytest.approx(4**-0.1)


WRONG: list[tuple[str, list[Any]]] = [
    *((name, [-0.1, 1.1, math.nan, "0.5", None, True]) for name in ("INITIAL_CONFIDENCE", "TD_GAMMA")),
    *((name, [0, -1, math.inf, "x"]) for name in ("DECAY_RATE", "CO_OCCURRENCE_DECAY_PER_HOP")),
    ("ADAPTIVE_QUALITY_WINDOW_SIZE", [0, 1.5, True, "3"]),
    ("ACTED_CYCLE_STRENGTHEN_FACTOR", [-0.1, math.nan]),
    ("CO_OCCURRENCE_DECAY_FACTOR", [1, -0.1]),
    ("INITIAL_CYCLE_AMPLITUDE", [-1, 101]),
    ("WF_MIN_THRESHOLD", [math.nan, "x", None]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values"), WRONG, ids=[name for name, _ in WRONG])
def test_what_a_constant_cannot_be_is_refused(name: str, values: list[Any]) -> None:
    before = constants()
    for value in values:
        with pytest.raises(ValueError, match=f"Defaults.{name}: expected"):
            setattr(Defaults, name, value)
        with (
            pytest.raises(ValueError, match=f"Defaults.{name}: expected"),
            Defaults.override(TD_ALPHA=0.2, **{name: value}),
        ):
            raise AssertionError("the block must not run")
    assert constants() == before


def test_every_value_of_the_reference_may_be_assigned() -> None:
    with Defaults.override(**REFERENCE):
        assert constants() == REFERENCE


def test_a_misspelt_constant_is_refused() -> None:
    wrong: Any = Defaults
    with pytest.raises(AttributeError, match="no constant 'DECAY_RATES'"):
        wrong.DECAY_RATES = 0.5
    with pytest.raises(AttributeError, match="no constant 'decay_rate'"), Defaults.override(decay_rate=0.5):
        raise AssertionError("the block must not run")
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del wrong.DECAY_RATE
