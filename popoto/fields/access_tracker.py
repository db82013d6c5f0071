"""Import path of AccessTrackerMixin; it lives in popoto.memory.access."""

from popoto.memory.access import AccessTrackerMixin

__all__ = ["AccessTrackerMixin"]
