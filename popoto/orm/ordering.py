"""Order that Python makes: by several fields, by expressions of fields (`F`), None first, equal ones by key.

order_by("-rating", "name")        order_by(F("price") * F("quantity"))        order_by(-F("price"))
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from popoto.exceptions import QueryException
from popoto.orm.conditions import comparable

Values = Mapping[Any, Any]


class F:
    """A field's value in a sort, and what is computed from it: + - * / // % ** with numbers and other F.

    Where a part is None, the whole is None. `-F(...)` sorts descending. What cannot be computed (a division by zero, a
    text times a text) raises QueryException when the query runs.
    """

    __slots__ = ("names", "negated", "text", "value")

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"F({name!r}): expected the name of a field.")
        self._become((name,), repr(name), lambda values: values[name])

    def _become(self, names: tuple[str, ...], text: str, value: Callable[[Values], Any], negated: F | None = None) -> F:
        self.names, self.text, self.value, self.negated = names, text, value, negated
        return self

    def _with(self, sign: str, apply: Callable[[Any, Any], Any], left: Any, right: Any) -> F:
        one, other = _part(left), _part(right)
        if one is None or other is None:
            return NotImplemented  # type: ignore[no-any-return]

        def value(values: Values) -> Any:
            a, b = one.value(values), other.value(values)
            return None if a is None or b is None else apply(a, b)

        names = tuple(dict.fromkeys(one.names + other.names))
        return F.__new__(F)._become(names, f"({one} {sign} {other})", value)

    def __add__(self, other: Any) -> F:
        return self._with("+", operator.add, self, other)

    def __radd__(self, other: Any) -> F:
        return self._with("+", operator.add, other, self)

    def __sub__(self, other: Any) -> F:
        return self._with("-", operator.sub, self, other)

    def __rsub__(self, other: Any) -> F:
        return self._with("-", operator.sub, other, self)

    def __mul__(self, other: Any) -> F:
        return self._with("*", operator.mul, self, other)

    def __rmul__(self, other: Any) -> F:
        return self._with("*", operator.mul, other, self)

    def __truediv__(self, other: Any) -> F:
        return self._with("/", operator.truediv, self, other)

    def __rtruediv__(self, other: Any) -> F:
        return self._with("/", operator.truediv, other, self)

    def __floordiv__(self, other: Any) -> F:
        return self._with("//", operator.floordiv, self, other)

    def __mod__(self, other: Any) -> F:
        return self._with("%", operator.mod, self, other)

    def __pow__(self, other: Any) -> F:
        return self._with("**", operator.pow, self, other)

    def __neg__(self) -> F:
        inner = self

        def value(values: Values) -> Any:
            found = inner.value(values)
            return None if found is None else -found

        return F.__new__(F)._become(self.names, f"-{self}", value, negated=self)

    def __str__(self) -> str:
        return f"F({self.text})" if self.text.startswith(("'", '"')) else self.text

    __repr__ = __str__


def _part(operand: Any) -> Any:
    if isinstance(operand, F):
        return operand
    if isinstance(operand, (str, bytes, list, dict)) or operand is None:
        return None
    return F.__new__(F)._become((), repr(operand), lambda _: operand)


@dataclass(frozen=True, slots=True)
class Term:
    """One thing to sort by.

    Attributes:
        text: how the user wrote it, without the sign.
        names: fields it reads.
        value: computes it from a record's values.
        descending: exact reversal.
        field: the field's name where it is one field and nothing computed.
    """

    text: str
    names: tuple[str, ...]
    value: Callable[[Values], Any]
    descending: bool = False
    field: str | None = None

    def key(self, values: Values) -> tuple[bool, Any]:
        """Return what the record sorts by: None first."""
        try:
            found = self.value(values)
        except (TypeError, ArithmeticError, ValueError) as error:
            raise QueryException(f"order_by({self.text}): cannot be computed ({error}).") from None
        return (False, 0) if found is None else (True, comparable(found))


def term(given: Any) -> Term:
    """Return the Term of what `order_by()` was given: "name", "-name" or an F."""
    if isinstance(given, F):
        descending = given.negated is not None
        inner = given.negated or given
        return Term(str(inner), inner.names, inner.value, descending)
    name = given.removeprefix("-")
    return Term(repr(name), (name,), lambda values: values[name], given.startswith("-"), name)


Found = tuple[str, tuple[Any, ...]]
"""(record key, what it sorts by)."""


def sort_found(found: list[Found], terms: tuple[Term, ...]) -> None:
    """Sort in place; equal ones by key, in the direction of the last term."""
    found.sort(key=lambda item: item[0].encode(), reverse=terms[-1].descending)
    for place in range(len(terms) - 1, -1, -1):
        try:
            found.sort(key=lambda item: item[1][place], reverse=terms[place].descending)
        except TypeError as error:
            raise QueryException(f"order_by({terms[place].text}): the values cannot be compared ({error}).") from None


def is_behind(item: Found, place: Found, terms: tuple[Term, ...]) -> bool:
    """Return True when an item comes after a place in the order of `sort_found`.

    Raises: QueryException: the values cannot be compared.
    """
    for wanted, mine, other in zip(terms, item[1], place[1], strict=True):
        try:
            if mine != other:
                return bool(mine < other if wanted.descending else mine > other)
        except TypeError as error:
            raise QueryException(f"order_by({wanted.text}): the values cannot be compared ({error}).") from None
    mine_key, other_key = item[0].encode(), place[0].encode()
    return mine_key < other_key if terms[-1].descending else mine_key > other_key


def reversed_terms(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """Return the terms of the exact reversal."""
    return tuple(Term(t.text, t.names, t.value, not t.descending, t.field) for t in terms)
