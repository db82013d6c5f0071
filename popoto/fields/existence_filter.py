"""Import path of ExistenceFilter and FrequencySketch; they live in popoto.memory.existence and .frequency."""

from popoto.memory.existence import ExistenceFilter
from popoto.memory.frequency import FrequencySketch

__all__ = ["ExistenceFilter", "FrequencySketch"]
