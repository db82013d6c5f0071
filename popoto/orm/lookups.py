"""From the conditions of `filter()` to what the server answers, and to what is left for Python.

Each part of a filter becomes a condition for the server that lets through too many records at worst, never too few
(`upper`), one that lets through too few at worst (`lower`), and, where the two differ, a test of the decoded values.
Not of a part is not of its `lower`; and, or and not of tests are tests. Where a test needs what only the server can
say, it gets a mark: the server tells for each record whether that condition holds (lua/select.lua). So every tree is
exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from popoto.orm.composite import covering
from popoto.orm.condition_trees import ALL, NOTHING, all_of, any_of, not_of
from popoto.orm.conditions import Condition, indexed_as
from popoto.orm.filter_hooks import hook_condition, is_asked
from popoto.orm.keys import ModelKeys
from popoto.orm.q import Q
from popoto.orm.suggestions import unknown_field, unknown_lookup

if TYPE_CHECKING:
    from popoto.orm.options import ModelOptions

# types whose equal values may print differently in a record's key (see keys.index_text)
_AMBIGUOUS_KEY_TYPES = frozenset({float, Decimal, datetime})

Test = Callable[[Mapping[Any, Any]], bool]
"""Decides on a record's values by field name, and on its marks by their number."""


@dataclass(slots=True)
class Compiled:
    """A filter, ready to run.

    Attributes:
        where: tree of conditions for the server (lua/lib_where.lua), never too few.
        tests: what Python decides; None: the server's answer is exact, as long as the sets `shared` are empty.
        reads: names of the fields that `tests` looks at.
        marks: conditions whose truth `tests` wants of the server, by their place in this list.
        shared: sets of records whose value is not the one its score stands for.
        again: compiles what to run instead when one of them is not empty.
        order, order_field: ordered set of the first sorted field that the filter names, and the field; or None.
        near: the first centre and radius whose distances the results are to carry; or None.
        first: each returns steps that fill in a part of `where`, from an answer that is needed before.
        holds: (field, test) of what indexes answer and values must agree with, where they are read anyway.
    """

    where: list[Any]
    tests: Test | None = None
    reads: tuple[str, ...] = ()
    marks: list[list[Any]] = field(default_factory=list)
    order: str | None = None
    order_field: str | None = None
    shared: list[str] = field(default_factory=list)
    again: Callable[[], Compiled] | None = None
    near: Any = None
    first: list[Callable[[], Any]] = field(default_factory=list)
    holds: list[tuple[str, Test]] = field(default_factory=list)
    _narrowed: list[list[Any]] = field(default_factory=list)

    def narrow(self, condition: list[Any]) -> None:
        """Add a condition that must hold as well."""
        self.where = all_of([condition, self.where])
        self._narrowed.append(condition)

    @property
    def exact(self) -> bool:
        """True when `where` as it stands is the whole answer."""
        return self.tests is None and not self.shared and not self.first

    @property
    def loose(self) -> Compiled | None:
        """What to run instead when one of the sets `shared` is not empty; None where there are none."""
        if self.again is None:
            return None
        instead = self.again()
        for condition in self._narrowed:
            instead.narrow(condition)
        return instead


def split_parameter(meta: ModelOptions, parameter: str) -> tuple[str, str]:
    """Return (field name, lookup) of a filter parameter.

    Raises: QueryException: no such field or lookup; lists those that exist and names the nearest.
    """
    known = meta.filter_parameters.get(parameter)
    if known is not None:
        return known
    name, _, rest = parameter.partition("__")
    while name not in meta.fields and rest:  # a field's name may hold two underscores itself
        more, _, rest = rest.partition("__")
        name = f"{name}__{more}"
    field = meta.fields.get(name)
    if field is None:
        raise unknown_field(meta, parameter)
    lookup = "" if parameter == name else field.lookup_of(parameter)  # a bare name: the field itself says what it lacks
    if lookup is None:
        raise unknown_lookup(field, parameter)
    return name, lookup


def check_tree(meta: ModelOptions, q: Q) -> None:
    """Refuse unknown fields and lookups anywhere in a Q.

    Raises: QueryException: there is one.
    """
    for parameter in q.filters:
        split_parameter(meta, parameter)
    for child in q.children:
        check_tree(meta, child)


def compile_filters(
    meta: ModelOptions,
    keys: ModelKeys,
    filters: Mapping[str, Any],
    trees: tuple[Q, ...] = (),
    answered: Iterable[str] = (),
    by_value: bool = False,
    beside: bool = False,
) -> Compiled:
    """Return the conditions of a filter; all of them must hold.

    Args:
        filters: keywords.
        trees: Q objects besides.
        answered: fields whose exact filter needs no condition, for what is searched holds no other value of them.
        by_value: decide by values where they may share scores.
        beside: related records that must be asked for are looked for beside these, not before: Python joins the two.
    Raises: QueryException: an unknown parameter, or a value that does not fit.
    """
    compiler = _Compiler(meta, keys, by_value, beside, frozenset(answered))
    leaves: list[Mapping[str, Any]] = [filters] if filters else []
    others: list[Q] = []
    for tree in trees:
        _flatten(tree, leaves, others)
    upper, _, test = compiler.conjunction(leaves, others, {}, top=True)
    compiled = compiler.compiled
    compiled.where, compiled.tests, compiled.reads = upper, test, tuple(compiler.reads)
    if compiled.shared and compiled.first:  # something is asked for before: the answer must not take two calls more
        return compile_filters(meta, keys, filters, trees, answered, by_value=True, beside=beside)
    if compiled.shared:
        compiled.again = lambda: compile_filters(meta, keys, filters, trees, answered, by_value=True, beside=beside)
    return compiled


def exact_filters(filters: Mapping[str, Any], trees: Iterable[Q], meta: ModelOptions) -> dict[str, Any]:
    """Return field -> value of what a filter says of each of its records: the exact conditions that must hold."""
    leaves: list[Mapping[str, Any]] = [filters]
    for tree in trees:
        _flatten(tree, leaves, [])
    return dict(_merged(leaves, meta))


def _merged(leaves: list[Mapping[str, Any]], meta: ModelOptions) -> Mapping[str, Any]:
    """Return what leaves that hold together say exactly, field -> value; the first one counts. (With one leaf its
    lookups are in it too.)"""
    if len(leaves) < 2:
        return leaves[0] if leaves else {}
    return {name: value for leaf in reversed(leaves) for name, value in leaf.items() if name in meta.fields}


def _flatten(q: Q, leaves: list[Mapping[str, Any]], others: list[Q]) -> None:
    """Sort what must hold together into leaves and the rest."""
    if q.negated or (q.children and q.connector == Q.OR):
        others.append(q)
    elif q.children:
        for child in q.children:
            _flatten(child, leaves, others)
    elif q.filters:
        leaves.append(q.filters)


_Part = tuple[list[Any], list[Any], "Test | None"]
"""(upper, lower, test); without a test the two are the same condition."""


class _Compiler:
    def __init__(
        self, meta: ModelOptions, keys: ModelKeys, by_value: bool, beside: bool, answered: frozenset[str]
    ) -> None:
        self.meta, self.keys, self.answered = meta, keys, answered
        self.by_value, self.beside = by_value, beside
        self.compiled = Compiled(ALL)
        self.reads: dict[str, None] = {}

    def conjunction(
        self, leaves: list[Mapping[str, Any]], others: list[Q], given: Mapping[str, Any], top: bool = False
    ) -> _Part:
        """Compile what must hold together. `given`: exact values of partition fields that hold around it."""
        meta = self.meta
        own = _merged(leaves, meta)
        if meta.partition_fields:
            given = {**given, **{name: own[name] for name in meta.partition_fields if name in own}}
        covered: dict[str, Any] = {name: own[name] for name in self.answered if name in own} if top else {}
        parts: list[_Part] = []
        by_key = whole_key(meta, own)
        if by_key is not None:
            covered.update((name, own[name]) for name in meta.key_names)
            parts.append((["keys", by_key], ["keys", by_key], None))
        parsed = [
            (leaf, [(*split_parameter(meta, parameter), value) for parameter, value in leaf.items()]) for leaf in leaves
        ]
        if by_key is None:
            for _, conditions in parsed:
                for name, lookup, _ in conditions:
                    sorted_field = meta.fields[name]
                    partition = getattr(sorted_field, "partition_by", ())
                    if partition and lookup in getattr(sorted_field, "range_lookups", ()):
                        covered.update((p, own[p]) for p in partition if p in own)
            if meta.composites:
                parts += self._composite(own, covered)
        for leaf, conditions in parsed:
            around = leaf if not given else {**leaf, **{n: v for n, v in given.items() if n not in leaf}}
            for name, lookup, value in conditions:
                if lookup == "" and name in covered and covered[name] is value:
                    exact = meta.fields[name].filter_value(value)
                    if top and by_key is None:
                        self.compiled.holds.append((name, indexed_as(exact)))
                    continue
                if name in meta.answering and is_asked(meta.answering[name], name):
                    own_answer = self._own_answer(name, lookup, leaf, conditions)
                    parts += [] if own_answer is None else [self._leaf(own_answer, top)]
                    continue
                condition = meta.fields[name].condition(self.keys, lookup, value, around)
                parts.append(self._leaf(condition, top))
                if top and condition.holds is not None:
                    self.compiled.holds.append((name, condition.holds))
                if top and self.compiled.order is None and condition.server[0] == "range":
                    if meta.fields[name].is_sorted:
                        self.compiled.order, self.compiled.order_field = condition.server[1], name
        parts += [self._node(q, given) for q in others]
        return self._and(parts, top)

    def _own_answer(
        self, name: str, lookup: str, leaf: Mapping[str, Any], conditions: list[tuple[str, str, Any]]
    ) -> Condition | None:
        """Return what a field of the user's own answers to all its parameters; None but for the first of them."""
        asked = [place for place, (field_name, _, _) in enumerate(conditions) if field_name == name]
        if conditions[asked[0]][1] != lookup:
            return None
        given = list(leaf.items())
        return hook_condition(self.meta.answering[name], self.meta.fields[name], dict(given[at] for at in asked))

    def _composite(self, own: Mapping[str, Any], covered: dict[str, Any]) -> list[_Part]:
        """Answer exact filters on all fields of a composite index by it; add what is then said to `covered`."""
        fields = self.meta.fields
        names = {name for index in self.meta.composites for name in index.names if name in own and name not in covered}
        exact = {name: fields[name].filter_value(own[name]) for name in names}
        parts: list[_Part] = []
        for index in covering(self.meta, exact):
            condition = index.condition(self.keys, [exact[name] for name in index.names])
            parts.append((condition, condition, None))
            if not index.unique:  # a digest stands for its values but for a collision: the fields still decide
                covered.update((name, own[name]) for name in index.names)
        return parts

    def _leaf(self, condition: Condition, top: bool) -> _Part:
        compiled = self.compiled
        if compiled.near is None and condition.near is not None and condition.near.with_distances:
            compiled.near = condition.near
        if self.beside and condition.joined is not None:
            steps, joined = condition.joined()
            compiled.first.append(steps)
            condition = replace(condition, server=ALL, test=joined, first=None)
        by_score = condition.shared is not None or condition.shared_elsewhere != ()
        if by_score and not self.by_value:
            own = () if condition.shared is None else (condition.shared,)
            compiled.shared += (*own, *condition.shared_elsewhere)
            return condition.server, condition.server, None
        if condition.first is not None:
            compiled.first.append(condition.first)
        upper = (condition.loose or condition.server) if by_score else condition.server
        if condition.test is None:
            return upper, upper, None
        name, test = condition.field, condition.test
        self.reads[name] = None
        if top or upper[0] in ("all", "raw", "value"):
            return upper, NOTHING, lambda values: test(values[name])
        # the index says more than the value does (the partition), and only at the top `upper` is sure to hold
        mark = self._mark(upper)
        return upper, NOTHING, lambda values: mark(values) and test(values[name])

    def _node(self, q: Q, given: Mapping[str, Any]) -> _Part:
        if q.children and q.connector == Q.OR:
            part = self._or([self._node(child, given) for child in q.children])
        else:
            leaves: list[Mapping[str, Any]] = [q.filters] if q.filters else []
            others: list[Q] = []
            for child in q.children:
                _flatten(child, leaves, others)
            part = self.conjunction(leaves, others, given)
        return self._not(part) if q.negated else part

    def _not(self, part: _Part) -> _Part:
        upper, lower, test = part
        if test is None:
            none = not_of(upper)
            return none, none, None
        return not_of(lower), not_of(upper), lambda values: not test(values)

    def _and(self, parts: list[_Part], top: bool) -> _Part:
        upper = all_of([part[0] for part in parts])
        tests = [test for _, _, test in parts if test is not None]
        if not tests:
            return upper, upper, None
        exact = [part[0] for part in parts if part[2] is None]
        if exact and not top:  # at the top `upper` has seen to those already
            tests.insert(0, self._mark(all_of(exact)))
        return upper, all_of([part[1] for part in parts]), _every(tests)

    def _or(self, parts: list[_Part]) -> _Part:
        upper = any_of([part[0] for part in parts])
        tests = [test for _, _, test in parts if test is not None]
        if not tests:
            return upper, upper, None
        exact = [part[0] for part in parts if part[2] is None]
        if exact:
            tests.insert(0, self._mark(any_of(exact)))
        return upper, any_of([part[1] for part in parts]), lambda values: any(test(values) for test in tests)

    def _mark(self, condition: list[Any]) -> Test:
        marks = self.compiled.marks
        marks.append(condition)
        number = len(marks) - 1
        return lambda values: bool(values[number])


def _every(tests: list[Test]) -> Test:
    return tests[0] if len(tests) == 1 else lambda values: all(test(values) for test in tests)


def whole_key(meta: ModelOptions, filters: Mapping[str, Any]) -> str | None:
    """Return the record key when the filter gives every key field exactly, else None."""
    values = {}
    for name in meta.key_names:
        key_field = meta.fields[name]
        if name not in filters or key_field.type in _AMBIGUOUS_KEY_TYPES or key_field.is_sorted:
            return None
        values[name] = key_field.filter_value(filters[name])
    return meta.record_key(values)
