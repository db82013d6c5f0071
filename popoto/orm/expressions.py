"""Expressions: conditions written with operators on a model's fields, `Dish.price > 4`.

    filter((Dish.price > 4) & ~(Dish.cuisine == "thai") | Q(name="taco"))

`==`, `!=`, `<`, `<=`, `>`, `>=` and `between()` of a field make an Expression; `&`, `|` and `~` combine expressions
with one another and with Q. An expression has no truth value, so `and`, `or`, `not` and `1 < Dish.price < 5` raise
instead of meaning something else.
"""

from __future__ import annotations

from typing import Any

from popoto.exceptions import QueryException
from popoto.orm.q import Filter, Q

_LOOKUPS = {"eq": "", "ne": "", "gt": "gt", "gte": "gte", "lt": "lt", "lte": "lte", "between": "between"}


class _Compares(Filter):
    """Of two expressions joined, a CombinedExpression; with a Q, a Q."""

    __slots__ = ()

    def __and__(self, other: object) -> Any:
        return CombinedExpression(self, other, "AND") if isinstance(other, _Compares) else super().__and__(other)

    def __or__(self, other: object) -> Any:
        return CombinedExpression(self, other, "OR") if isinstance(other, _Compares) else super().__or__(other)

    def get_all_expressions(self) -> list[Expression]:
        """Return the single comparisons, from left to right."""
        raise NotImplementedError


class Expression(_Compares):
    """One comparison of a field with a value.

    Attributes:
        field_name: the field.
        operator: "eq", "ne", "gt", "gte", "lt", "lte" or "between".
        value: what it is compared with; (low, high) for "between".
    """

    __slots__ = ("field_name", "operator", "value")

    def __init__(self, field_name: str, operator: str, value: Any) -> None:
        operator = operator or "eq"
        if operator not in _LOOKUPS:
            raise QueryException(f"Expression operator {operator!r}: expected one of {', '.join(_LOOKUPS)}.")
        self.field_name, self.operator, self.value = field_name, operator, value

    def _parameter(self) -> str:
        lookup = _LOOKUPS[self.operator]
        return f"{self.field_name}__{lookup}" if lookup else self.field_name

    def to_kwargs(self) -> dict[str, Any]:
        """Return the keywords of `filter()` that ask the same.

        Raises: QueryException: for `!=`, which no keyword says; use `to_q()` or `exclude()`.
        """
        if self.operator == "ne":
            raise QueryException(f"{self!r}: no keyword of filter() says 'not equal'. Use to_q(), or exclude().")
        return {self._parameter(): self.value}

    def to_q(self) -> Q:
        leaf = Q(**{self._parameter(): self.value})
        return ~leaf if self.operator == "ne" else leaf

    def get_all_expressions(self) -> list[Expression]:
        return [self]

    def __repr__(self) -> str:
        shown = self._parameter() if self.operator != "ne" else f"{self.field_name}__ne"
        return f"Expression({shown}={self.value!r})"


class CombinedExpression(_Compares):
    """Two expressions joined by and or or.

    Attributes:
        left, right: the parts.
        connector: "AND" or "OR".
    """

    __slots__ = ("connector", "left", "right")

    def __init__(self, left: _Compares, right: _Compares, connector: str = "AND") -> None:
        if connector not in ("AND", "OR"):
            raise QueryException(f"CombinedExpression connector {connector!r}: expected 'AND' or 'OR'.")
        self.left, self.right, self.connector = left, right, connector

    def get_all_expressions(self) -> list[Expression]:
        return self.left.get_all_expressions() + self.right.get_all_expressions()

    def to_q(self) -> Q:
        return Q.combined(self.connector, (self.left.to_q(), self.right.to_q()))

    def __repr__(self) -> str:
        return f"({self.left!r} {self.connector} {self.right!r})"


class Comparing:
    """Operators of a Field, which build expressions. Two Field objects compare by identity, and hash by it."""

    name: str

    def _expression(self, operator: str, value: Any) -> Expression:
        return Expression(self.name, operator, value)

    def __eq__(self, other: object) -> Any:
        return self is other if isinstance(other, Comparing) else self._expression("eq", other)

    def __ne__(self, other: object) -> Any:
        return self is not other if isinstance(other, Comparing) else self._expression("ne", other)

    __hash__ = object.__hash__

    def __lt__(self, other: object) -> Expression:
        return self._ordered("lt", other)

    def __le__(self, other: object) -> Expression:
        return self._ordered("lte", other)

    def __gt__(self, other: object) -> Expression:
        return self._ordered("gt", other)

    def __ge__(self, other: object) -> Expression:
        return self._ordered("gte", other)

    def _ordered(self, operator: str, other: object) -> Expression:
        if isinstance(other, Comparing):
            raise TypeError(f"{self!r} and {other!r}: a field is compared with a value, not with another field.")
        return self._expression(operator, other)

    def between(self, low: Any, high: Any) -> Expression:
        """Return the condition that the value lies between two others, both included."""
        return self._expression("between", (low, high))
