"""Import path of Q; it lives in popoto.orm.q."""

from popoto.orm.q import Q

__all__ = ["Q"]
