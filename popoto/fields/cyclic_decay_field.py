"""Import path of CyclicDecayField; it lives in popoto.memory.cyclic."""

from popoto.memory.cyclic import CyclicDecayField

__all__ = ["CyclicDecayField"]
