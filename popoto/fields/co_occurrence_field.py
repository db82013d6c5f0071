"""Import path of CoOccurrenceField; it lives in popoto.memory.co_occurrence."""

from popoto.memory.co_occurrence import CoOccurrenceField

__all__ = ["CoOccurrenceField"]
