"""Import path of Field; it lives in popoto.orm.fields.base."""

from popoto.orm.fields.base import VALID_FIELD_TYPES, Field

__all__ = ["VALID_FIELD_TYPES", "Field"]
