"""Import path of WriteFilterMixin; it lives in popoto.memory.write_filter."""

from popoto.memory.write_filter import WriteFilterMixin

__all__ = ["WriteFilterMixin"]
