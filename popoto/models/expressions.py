"""Import path of expressions, F and aggregates; they live in popoto.orm.expressions, ordering and aggregates."""

from popoto.orm.aggregates import Avg, Count, Max, Min, Sum
from popoto.orm.expressions import CombinedExpression, Expression
from popoto.orm.ordering import F

__all__ = ["Avg", "CombinedExpression", "Count", "Expression", "F", "Max", "Min", "Sum"]
