"""Import path of ExistenceFilter, FrequencySketch and their tokenizer; they live in popoto.memory."""

from popoto.memory.existence import ExistenceFilter
from popoto.memory.frequency import FrequencySketch
from popoto.memory.tokenizer import tokenize

__all__ = ["ExistenceFilter", "FrequencySketch", "tokenize"]
