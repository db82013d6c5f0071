"""Draws the plots of these pages: `python docs/plots.py [folder]` (the docs extra brings matplotlib).

Curves come from the package's own formulas, the measured ones from a throw-away embedded server. The same code gives
the same pictures: nothing random, no dates.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from popoto import (
    ConfidenceField,
    CoOccurrenceField,
    DecayingSortedField,
    ExistenceFilter,
    Field,
    KeyField,
    Model,
    redis_db,
    testing,
)
from popoto._temporary_server import temporary_embedded
from popoto.memory.composite import composite_of, composite_steps
from popoto.memory.cyclic import cyclic_decay_score
from popoto.memory.decay import decay_score
from popoto.orm.drivers import drive

DAY = 86_400.0
NOW = 1_800_000_000.0
CAPACITY = 1000
SIZES = (300, 1000, 3000, 10_000)
STYLE = {
    "svg.hashsalt": "popoto",  # else the ids in the file differ from run to run
    "svg.fonttype": "none",  # text stays text
    "figure.figsize": (7.0, 3.4),
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 10,
}


class Remembered(Model):
    name = KeyField()
    text = Field(default="")
    importance = Field(type=float, default=1.0)
    relevance = DecayingSortedField(base_score_field="importance")
    certainty = ConfidenceField()


class Known(Model):
    name = KeyField()
    known = ExistenceFilter(fingerprint_fn=lambda record: record.name, capacity=CAPACITY)


class Linked(Model):
    name = KeyField()
    links = CoOccurrenceField()


def decay(axes: Any) -> None:
    days = [0.01 * 1.05**step for step in range(190)]
    for rate in (0.05, 0.1, 0.3, 0.5):
        axes.plot(days, [decay_score(1.0, NOW - day * DAY, NOW, rate) for day in days], label=f"decay_rate {rate}")
    axes.set(xscale="log", xlabel="days since last touched", ylabel="score of a base of 1")
    axes.legend()


def cycles(axes: Any) -> None:
    hours = range(0, 24 * 14, 2)
    daily, weekly = (DAY, 0.3, 0.0), (7 * DAY, 0.5, 0.0)
    monday = math.floor(NOW / (7 * DAY)) * 7 * DAY
    for label, shapes, rate in (
        ("decay alone", (), 0.0),
        ("+ daily and weekly cycle", (daily, weekly), 0.0),
        ("+ pressure 0.1 a day", (daily, weekly), 0.1),
    ):
        scores = [cyclic_decay_score(1.0, monday, monday + h * 3600, 0.1, shapes, (rate, monday)) for h in hours]
        axes.plot([hour / 24 for hour in hours], scores, label=label)
    axes.set(xlabel="days since last touched and resolved", ylabel="score")
    axes.legend()


def confidence(axes: Any) -> None:
    for label, signals in (
        ("always 0.9", [0.9] * 30),
        ("0.9, every third 0.1", [0.1 if i % 3 == 2 else 0.9 for i in range(30)]),
        ("0.9, from the 15th on 0.1", [0.9 if i < 14 else 0.1 for i in range(30)]),
    ):
        values = [0.5]
        for evidence, signal in enumerate(signals):
            values.append(values[-1] + (signal - values[-1]) / math.sqrt(evidence + 1))
        axes.plot(range(len(values)), values, marker=".", label=label)
    axes.set(xlabel="signals", ylabel="confidence", ylim=(0, 1))
    axes.legend()


def existence(axes: Any) -> None:
    """Measured: how many of 4,000 words that were never saved might exist, by how many were."""
    loads, wrong, filled = [0], [0.0], 0
    unknown = [f"never{number}" for number in range(4000)]
    for load in range(200, 2001, 200):
        Known.bulk_create([Known(name=f"saved{number}") for number in range(filled, load)])
        filled = load
        loads.append(load)
        wrong.append(100 * Known._meta.fields["known"].might_exist_count(Known, unknown) / len(unknown))
    axes.plot([100 * load / CAPACITY for load in loads], wrong, marker=".", label="measured")
    axes.axhline(1.0, linestyle="--", color="grey", label="error_rate of the field")
    axes.axvline(100, linestyle=":", color="grey")
    axes.set(xlabel="words kept, % of the capacity", ylabel="wrong 'might exist', %", ylim=(0, None))
    axes.legend()


def co_occurrence(axes: Any) -> None:
    """A chain of records, each linked to the next with weight 0.9: what arrives after so many hops."""
    links = Linked._meta.fields["links"]
    chain = [Linked.create(name=f"n{hop}").pk for hop in range(7)]
    for one, next_one in itertools.pairwise(chain):
        links.link(Linked, one, next_one, initial_weight=0.9)
    for per_hop in (0.9, 0.7, 0.5, 0.3):
        found = links.propagate(Linked, [chain[0]], depth=6, decay_per_hop=per_hop, threshold=0.0001)
        axes.plot(range(1, 7), [found.get(key, 0.0) for key in chain[1:]], marker="o", label=f"decay_per_hop {per_hop}")
    axes.axhline(0.01, linestyle="--", color="grey", label="default threshold")
    axes.set(xlabel="hops from the seed", ylabel="activation", yscale="log")
    axes.legend(fontsize=8)


def composite(axes: Any) -> None:
    """Measured: members that a ranking of the best 10 looks at, by how many there are."""
    mixes: dict[str, dict[str, float]] = {
        "decay": {"relevance": 1.0},
        "decay and confidence": {"relevance": 0.1, "certainty": 1.0},
    }
    visited: dict[str, list[int]] = {label: [] for label in mixes}
    stored = 0
    for size in SIZES:
        pipeline = redis_db.get_redis().pipeline()
        for i in range(stored, size):
            age_days = 1 + i * 7919 % 8999 / 100
            record = Remembered(name=f"{i:06}", importance=1 + i * 104_729 % 900 / 100, relevance=NOW - age_days * DAY)
            record.save(pipeline=pipeline, skip_auto_now=True)
        pipeline.execute()
        for i in range(-(-stored // 20) * 20, size, 20):  # few are rated
            record = Remembered.load(name=f"{i:06}")
            if record is not None:
                ConfidenceField.update_confidence(record, "certainty", 0.5 + i * 31 % 500 / 1000)
        stored = size
        for label, mix in mixes.items():
            counted: dict[str, int] = {}
            drive(composite_steps(composite_of(Remembered.query.filter(), mix), 10, stats=counted))
            visited[label].append(counted["visited"])
    axes.plot(SIZES, SIZES, linestyle="--", color="grey", label="scoring everything")
    for label, counts in visited.items():
        axes.plot(SIZES, counts, marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="records", ylabel="members visited")
    axes.legend()


PLOTS: dict[str, Callable[[Any], None]] = {
    "decay": decay,
    "cycles": cycles,
    "confidence": confidence,
    "existence": existence,
    "co-occurrence": co_occurrence,
    "composite": composite,
}


def draw(folder: Path) -> list[Path]:
    """Draw all plots as SVG files; return them."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with temporary_embedded() as url, plt.rc_context(STYLE), testing.frozen_time(NOW):
        redis_db.configure_url(url)
        for name, plot in PLOTS.items():
            figure, axes = plt.subplots(layout="constrained")
            plot(axes)
            drawn.append(folder / f"{name}.svg")
            figure.savefig(drawn[-1], metadata={"Date": None})
            plt.close(figure)
        redis_db.close()
    return drawn


if __name__ == "__main__":
    for path in draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "img"):
        print(path)
