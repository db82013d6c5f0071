"""Import path of ConfidenceField; it lives in popoto.memory.confidence."""

from popoto.memory.confidence import ConfidenceField

__all__ = ["ConfidenceField"]
