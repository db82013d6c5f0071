"""The documented import paths of models and queries; each module here only hands names on."""

from popoto.orm.expressions import CombinedExpression, Expression
from popoto.orm.q import Q

__all__ = ["CombinedExpression", "Expression", "Q"]
