"""What the mixins of the memory layer share."""

from __future__ import annotations

from popoto.exceptions import ModelException
from popoto.orm.record import Record


def require_before_model(model: type, mixin: type) -> None:
    """Refuse a mixin behind Model: Model's own methods would hide those of the mixin.

    Raises: ModelException: it stands there.
    """
    order = model.__mro__
    if Record in order and order.index(mixin) > order.index(Record):
        bases = ", ".join([mixin.__name__, *(base.__name__ for base in model.__bases__ if base is not mixin)])
        raise ModelException(
            f"{model.__name__}: {mixin.__name__} stands behind Model, whose methods hide those of the mixin. "
            f"Write class {model.__name__}({bases})."
        )
