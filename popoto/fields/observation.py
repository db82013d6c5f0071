"""Import path of ObservationProtocol and RecallProposal; they live in popoto.memory.observation and .proposals."""

from popoto.memory.observation import VALID_OUTCOMES, ObservationProtocol
from popoto.memory.proposals import RecallProposal

__all__ = ["VALID_OUTCOMES", "ObservationProtocol", "RecallProposal"]
