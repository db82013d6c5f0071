"""Q: conditions that combine with and, or and not."""

from __future__ import annotations

from typing import Any, ClassVar


class Filter:
    """What may stand in `filter()` without a keyword: Q and expressions. They combine with & | ~."""

    __slots__ = ()

    def to_q(self) -> Q:
        """Return the same condition as a Q."""
        raise NotImplementedError

    def __and__(self, other: object) -> Any:
        return self._joined(Q.AND, other)

    def __or__(self, other: object) -> Any:
        return self._joined(Q.OR, other)

    def __invert__(self) -> Q:
        return ~self.to_q()

    def _joined(self, connector: str, other: object) -> Q:
        if not isinstance(other, Filter):
            sign = "&" if connector == Q.AND else "|"
            raise TypeError(
                f"{self!r} {sign} {other!r}: expected a Q or an expression such as Model.field > 1. "
                "Put comparisons in parentheses: & and | bind more tightly than they do."
            )
        return Q.combined(connector, (self.to_q(), other.to_q()))

    def __bool__(self) -> bool:
        raise TypeError(
            f"{self!r} has no truth value. Combine conditions with & | ~ instead of and, or, not; "
            "for a range write Model.field.between(low, high)."
        )


class Q(Filter):
    """Conditions of a filter, which combine: `Q(a=1) & (Q(b=2) | ~Q(c__gt=3))`.

    The keywords are those of `filter()`, and all of them must hold; `Q()` holds for every record. `~` is the exact
    complement: `~Q(a=1)` holds where `a` is None as well. A Q never changes; combining makes a new one.

    Attributes:
        filters: what a leaf asks, parameter -> value.
        connector: Q.AND or Q.OR: how the children are combined.
        children: the parts of a combination; () for a leaf.
        negated: True: holds where the rest does not.
    """

    AND: ClassVar[str] = "AND"
    OR: ClassVar[str] = "OR"
    __slots__ = ("children", "connector", "filters", "negated")

    def __init__(self, **filters: Any) -> None:
        self.filters: dict[str, Any] = filters
        self.connector = Q.AND
        self.children: tuple[Q, ...] = ()
        self.negated = False

    def is_leaf(self) -> bool:
        """Return True for what is no combination."""
        return not self.children

    def is_empty(self) -> bool:
        """Return True for `Q()`, which asks nothing."""
        return not self.children and not self.filters

    def to_q(self) -> Q:
        """Return itself."""
        return self

    def __invert__(self) -> Q:
        made = Q(**self.filters)
        made.connector, made.children, made.negated = self.connector, self.children, not self.negated
        return made

    @classmethod
    def combined(cls, connector: str, parts: tuple[Q, ...]) -> Q:
        """Return the combination of several; parts of the same kind are taken up into it."""
        children: list[Q] = []
        for part in parts:
            flat = part.children and not part.negated and part.connector == connector
            children += part.children if flat else (part,)
        made = Q()
        made.connector, made.children = connector, tuple(children)
        return made

    def __repr__(self) -> str:
        if self.children:
            text = "(" + f" {self.connector} ".join(map(repr, self.children)) + ")"
        else:
            text = "Q(" + ", ".join(f"{name}={value!r}" for name, value in self.filters.items()) + ")"
        return "~" + text if self.negated else text
