"""Import path of the tuning constants; they live in popoto.memory.defaults."""

from popoto.memory.defaults import Defaults, InteractionWeight, TemporalPeriod

__all__ = ["Defaults", "InteractionWeight", "TemporalPeriod"]
