"""Import path of Relationship; it lives in popoto.orm.fields.relationship."""

from popoto.orm.fields.relationship import Relationship

__all__ = ["Relationship"]
