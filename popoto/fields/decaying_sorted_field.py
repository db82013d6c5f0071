"""Import path of DecayingSortedField; it lives in popoto.memory.decay."""

from popoto.memory.decay import DecayingSortedField

__all__ = ["DecayingSortedField"]
