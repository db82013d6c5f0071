"""Import path of PredictionLedgerMixin; it lives in popoto.memory.prediction."""

from popoto.memory.prediction import PredictionLedgerMixin

__all__ = ["PredictionLedgerMixin"]
