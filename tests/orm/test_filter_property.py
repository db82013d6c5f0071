"""Whatever is stored and asked, a query gives what a list comprehension over a plain dict gives."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from popoto import redis_db
from popoto.exceptions import KeyMutationError, ModelException
from popoto.orm import selection
from popoto.orm.fields.base import Field
from popoto.orm.fields.datetime import DatetimeField
from popoto.orm.fields.indexed import IndexedField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.sorted import SortedField, SortedKeyField
from popoto.orm.fields.typed import IntField, ListField
from popoto.orm.model import Model

from .oracle import indexes_agree

SIZES = {"as shipped": None, "small": {"GATHER": 3, "SLICE": 5, "ROWS": 4}}


@pytest.fixture(params=SIZES, ids=lambda name: name.replace(" ", "-"))
def sizes(request, monkeypatch):
    """The constants of slicing: as they are, and so small that walking and slicing happen all the time."""
    for name, value in (SIZES[request.param] or {}).items():
        monkeypatch.setattr(selection, name, value)


class PropertyItem(Model):
    shelf = KeyField()
    number = SortedKeyField(type=int)
    color = IndexedField()
    on = IndexedField(type=bool)
    ratio = IndexedField(type=float)
    team = Field()
    weight = SortedField(type=float)
    rank = SortedField(type=int, partition_by="team")
    price = SortedField(type=Decimal, partition_by=("color", "on"))
    day = SortedField(type=date)
    at = SortedField(type=datetime, partition_by="shelf")
    note = Field()
    count = IntField()
    seen = DatetimeField()
    tags = ListField()


class PropertyAuto(Model):
    color = IndexedField()
    weight = SortedField(type=float)
    team = Field(default="red")


short = st.sampled_from(["", "a", "ab", "b", "ba", "a:b", "a*", "é", "None", "\0", "a\0", "A"])
colors = st.none() | short
small = st.integers(-2, 3)
floats = st.sampled_from([-1.5, -0.0, 0.0, 0.5, 2.0, float("inf"), float("-inf"), 1e300])
decimals = st.sampled_from([Decimal(text) for text in ("-1.5", "0", "0.0", "0.10", "0.1", "2", "2E+0", "3")])
days = st.dates(date(2024, 1, 1), date(2024, 1, 4)) | st.sampled_from([date.min, date.max])
moments = st.datetimes(datetime(2024, 1, 1), datetime(2024, 1, 1, 0, 0, 2)).map(
    lambda at: at.replace(microsecond=at.microsecond % 3)
) | st.sampled_from([datetime(1950, 1, 1), datetime(2150, 1, 1)])

VALUES: dict[str, Any] = {
    "shelf": short,
    "number": small,
    "color": colors,
    "on": st.none() | st.booleans(),
    "ratio": st.none() | floats,
    "team": st.none() | st.sampled_from(["a", "b", "None"]),
    "weight": floats,
    "rank": small,
    "price": decimals,
    "day": days,
    "at": moments,
    "note": colors,
    "count": st.none() | small,
    "seen": st.none() | moments,
    "tags": st.none() | st.lists(small, max_size=2),
}
rows = st.fixed_dictionaries(VALUES)
tables = st.lists(rows, max_size=14, unique_by=lambda row: (row["number"], row["shelf"]))

TEXT = ("shelf", "color")
RANGES = {"weight": (), "rank": ("team",), "price": ("color", "on"), "day": (), "at": ("shelf",), "number": ()}


# -- the meaning ------------------------------------------------------------------------------------------------------


def holds(stored: Any, lookup: str, wanted: Any) -> bool:
    """Say what `lookup` means."""
    if lookup == "":
        return bool(stored == wanted)
    if lookup == "in":
        return stored in wanted
    if lookup == "isnull":
        return (stored is None) is wanted
    if stored is None:
        return False
    if lookup == "between":
        return bool(wanted[0] <= stored <= wanted[1])
    return {
        "startswith": lambda: stored.startswith(wanted),
        "endswith": lambda: stored.endswith(wanted),
        "contains": lambda: wanted in stored,
        "gt": lambda: stored > wanted,
        "gte": lambda: stored >= wanted,
        "lt": lambda: stored < wanted,
        "lte": lambda: stored <= wanted,
    }[lookup]()


def split(parameter: str) -> tuple[str, str]:
    name, _, lookup = parameter.partition("__")
    return name, lookup


def meant(table: dict[bytes, dict[str, Any]], filters: dict[str, Any], order: str | None) -> list[bytes]:
    """Return the keys of the rows that match, in the order that is promised."""
    found = [
        key
        for key, row in table.items()
        if all(holds(row[split(parameter)[0]], split(parameter)[1], wanted) for parameter, wanted in filters.items())
    ]
    if order is None:
        ranged = [
            n
            for n, lookup in map(split, filters)
            if n in RANGES and lookup in ("", "gt", "gte", "lt", "lte", "between")
        ]
        order = ranged[0] if ranged else None
    if order is None:
        return sorted(found)
    name, descending = order.removeprefix("-"), order.startswith("-")
    found.sort(key=lambda key: _rank(table, key, name))
    return found[::-1] if descending else found


def _rank(table: dict[bytes, dict[str, Any]], key: bytes, name: str) -> tuple[Any, ...]:
    value = table[key][name]
    return (False, 0, key) if value is None else (True, value, key)


# -- random questions -------------------------------------------------------------------------------------------------


@st.composite
def conditions(draw: Any) -> dict[str, Any]:
    name = draw(st.sampled_from([*VALUES, *RANGES, "weight", "day"]))
    values = VALUES[name]
    if name in RANGES:
        lookup = draw(
            st.sampled_from(["", "gt", "gte", "lt", "lte", "between"] + (["in", "isnull"] if name == "number" else []))
        )
        if lookup == "in":
            return {"number__in": draw(st.lists(small, max_size=4))}
        if lookup == "isnull":
            return {"number__isnull": draw(st.booleans())}
        wanted = draw(st.tuples(values, values)) if lookup == "between" else draw(values)
        partition = {p: draw(VALUES[p]) for p in RANGES[name]}
        return {**partition, f"{name}__{lookup}" if lookup else name: wanted}
    if name in TEXT:
        offered = ["", "in", "isnull", "startswith", "endswith"] + (["contains"] if name == "shelf" else [])
    else:
        offered = ["", "in", "isnull"] if name in ("on", "ratio") else [""]
    lookup = draw(st.sampled_from(offered))
    if lookup == "":
        return {name: draw(values)}
    if lookup == "in":
        return {f"{name}__in": draw(st.lists(values, max_size=4))}
    if lookup == "isnull":
        return {f"{name}__isnull": draw(st.booleans())}
    return {f"{name}__{lookup}": draw(st.sampled_from(["", "a", "b", "ab", ":", "*", "\0", "é", "None"]))}


@st.composite
def questions(draw: Any) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    for condition in draw(st.lists(conditions(), max_size=3)):
        filters.update(condition)
    sortable = [name for name in VALUES if name != "tags"] + 3 * ["weight", "day", "number"]
    orders = sortable + ["-" + name for name in sortable]
    return {
        "filters": filters,
        "order": draw(st.none() | st.sampled_from(orders)),
        "limit": draw(st.none() | st.integers(0, 6)),
        "start": draw(st.integers(0, 3)),
        "values": draw(st.none() | st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=3).map(tuple)),
    }


def store(model: type[Model], table: list[dict[str, Any]]) -> dict[bytes, dict[str, Any]]:
    """Save the rows and return them by key."""
    pipeline = redis_db.get_REDIS_DB().pipeline(transaction=False)
    stored = {}
    for row in table:
        record = model(**row)
        record.save(pipeline=pipeline)
        stored[record.pk.encode()] = row
    if table:
        pipeline.execute()
    return stored


def compare(stored: dict[bytes, dict[str, Any]], question: dict[str, Any], model: Any = PropertyItem) -> None:
    """Ask the server and the dict, and compare every form of the answer."""
    filters, limit, values = question["filters"], question["limit"], question["values"]
    builder = model.query.filter(**filters).order_by(question["order"])
    everything = meant(stored, filters, question["order"])
    wanted = everything if limit is None else everything[:limit]
    limited = builder.limit(limit)

    found = limited.all()
    assert [record.pk.encode() for record in found] == wanted
    for record in found:
        assert all(getattr(record, name) == value for name, value in stored[record.pk.encode()].items())
    assert builder.count() == len(everything)
    assert limited.keys() == wanted
    assert [record.pk.encode() for record in limited[question["start"] :]] == wanted[question["start"] :]
    assert (limited.first() is not None) == bool(wanted)
    assert limited.exists() == bool(wanted)
    if values is not None:
        assert limited.values(*values).all() == [{name: stored[key][name] for name in values} for key in wanted]


@settings(
    deadline=None,
    max_examples=70,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(table=tables, asked=st.lists(questions(), min_size=3, max_size=8))
def test_a_query_gives_what_a_list_comprehension_gives(server, sizes, table, asked):
    server.flushall()
    stored = store(PropertyItem, table)
    indexes_agree(PropertyItem)
    for question in asked:
        compare(stored, question)


@settings(
    deadline=None,
    max_examples=25,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    table=st.lists(
        st.fixed_dictionaries(
            {"color": colors, "weight": floats, "team": st.none() | st.sampled_from(["red", "blue"])}
        ),
        max_size=12,
    ),
    data=st.data(),
)
def test_a_query_on_auto_keys_gives_what_a_list_comprehension_gives(server, sizes, table, data):
    server.flushall()
    stored = store(PropertyAuto, table)
    ids = [key.decode().rpartition(":")[2] for key in stored] + ["0" * 32]
    for key in stored:
        stored[key]["_auto_key"] = key.decode().rpartition(":")[2]
    indexes_agree(PropertyAuto)
    for _ in range(4):
        auto = data.draw(
            st.one_of(
                st.just({}),
                st.sampled_from(ids).map(lambda i: {"_auto_key": i}),
                st.lists(st.sampled_from(ids), max_size=4).map(lambda i: {"_auto_key__in": i}),
                st.sampled_from(ids).map(lambda i: {"_auto_key__startswith": i[:1]}),
                st.sampled_from(ids).map(lambda i: {"_auto_key__endswith": i[-1:]}),
                st.sampled_from(ids).map(lambda i: {"_auto_key__contains": i[3:4]}),
                st.booleans().map(lambda b: {"_auto_key__isnull": b}),
            )
        )
        other = data.draw(
            st.one_of(
                st.just({}),
                colors.map(lambda c: {"color": c}),
                floats.map(lambda f: {"weight__gte": f}),
                st.sampled_from(["red", None]).map(lambda t: {"team": t}),
            )
        )
        order = data.draw(st.sampled_from([None, "weight", "-weight", "color", "-team", "_auto_key"]))
        limit = data.draw(st.none() | st.integers(0, 5))
        question = {
            "filters": {**auto, **other},
            "order": order,
            "limit": limit,
            "start": 1,
            "values": ("color", "team"),
        }
        compare(stored, question, PropertyAuto)


def test_each_condition_decides_right_while_another_order_is_walked(server, sizes):
    """Every lookup at every boundary, in the order of a field that it does not name."""
    table = [
        {
            **{
                "shelf": "ab"[n % 2] + "xyz"[n % 3],
                "number": n % 5,
                "color": [None, "a", "ab", "b"][n % 4],
                "on": None,
            },
            **{"ratio": [None, 0.5, 2.0][n % 3], "team": ["a", None][n % 2], "weight": float(n % 4), "rank": n % 4},
            **{
                "price": Decimal(n % 3),
                "day": date(2024, 1, 1) + timedelta(days=(n * 7) % 30),
                "at": datetime(2024, 1, 1),
            },
            **{"note": ["n", None][n % 2], "count": n % 3, "seen": None, "tags": None},
        }
        for n in range(30)
    ]
    stored = store(PropertyItem, table)
    asked: list[dict[str, Any]] = [{}]
    for name, values in {
        "weight": [0.0, 1.0, 3.0],
        "number": [0, 2, 4],
        "day": [date(2024, 1, 1), date(2024, 1, 16)],
    }.items():
        asked += [{f"{name}__{lookup}": v} for lookup in ("gt", "gte", "lt", "lte") for v in values]
        asked += [
            {name: values[1]},
            {f"{name}__between": (values[0], values[1])},
            {f"{name}__gt": values[0], f"{name}__lt": values[-1]},
        ]
    asked += [
        {"team": None, "rank__gt": 1},
        {"team": "a", "rank__lte": 2},
        {"shelf": "ax"},
        {"shelf__in": ["ax", "by"]},
    ]
    asked += [
        {f"{n}__{lookup}": text}
        for n in TEXT
        for lookup in ("startswith", "endswith")
        for text in ("a", "b", "ab", "x", "")
    ]
    asked += [{"shelf__contains": text} for text in ("a", "x", "q")]
    asked += [{f"{name}__isnull": truth} for name in ("color", "ratio", "on", "shelf") for truth in (True, False)]
    asked += [
        {"color": None},
        {"color__in": ["a", None]},
        {"color__in": []},
        {"ratio": 2.0},
        {"note": None},
        {"count": 1},
    ]
    for filters in asked:
        for more in ({}, {"note": "n"}, {"color__isnull": False}, {"weight__gt": 1.0}):
            for order in ("day", "-weight", None):
                question = {"filters": {**filters, **more}, "order": order, "limit": 4, "start": 1, "values": None}
                everything = meant(stored, question["filters"], order)
                builder = PropertyItem.query.filter(**question["filters"]).order_by(order)
                assert builder.keys() == everything, question
                assert builder.count() == len(everything), question
                assert [record.pk.encode() for record in builder.limit(4)] == everything[:4], question


# -- random lives -----------------------------------------------------------------------------------------------------


class PropertyLife(Model):
    shelf = KeyField()
    number = KeyField(type=int)
    color = IndexedField()
    serial = IndexedField(type=int, unique=True)
    team = Field()
    weight = SortedField(type=float, default=0.0)
    rank = SortedField(type=int, partition_by=("team", "color"), default=0)
    at = SortedField(type=datetime, partition_by="shelf", default=datetime(2024, 1, 1))
    note = Field()


LIFE_VALUES: dict[str, Any] = {
    "color": st.sampled_from([None, "a", "a:b", "b"]),
    "serial": st.sampled_from([None, 1, 2, 3]),
    "team": st.sampled_from([None, "x", "y"]),
    "weight": st.sampled_from([-1.0, 0.0, 2.5]),
    "rank": small,
    "at": st.integers(0, 3).map(lambda n: datetime(2024, 1, 1) + timedelta(days=n)),
    "note": st.sampled_from([None, "n", "m"]),
}
NAMES = list(LIFE_VALUES)
keys = st.tuples(st.sampled_from(["s", "t:", ""]), st.integers(0, 1))
handles = st.integers(0, 3)


class Life(RuleBasedStateMachine):
    """Four instances, often of one record and often stale, against a dict of what is stored."""

    def __init__(self) -> None:
        super().__init__()
        redis_db.get_REDIS_DB().flushall()
        self.stored: dict[str, dict[str, Any]] = {}
        self.held: list[PropertyLife] = []

    @initialize(key=keys)
    def begin(self, key: tuple[str, int]) -> None:
        self.held = [PropertyLife(shelf=key[0], number=key[1]) for _ in range(4)]

    def taken(self, serial: int | None, *owners: str) -> bool:
        return serial is not None and any(
            row["serial"] == serial for key, row in self.stored.items() if key not in owners
        )

    @rule(at=handles, key=keys, serial=LIFE_VALUES["serial"])
    def new_instance(self, at: int, key: tuple[str, int], serial: int | None) -> None:
        self.held[at] = PropertyLife(shelf=key[0], number=key[1], serial=serial)

    @precondition(lambda self: self.stored)
    @rule(at=handles, data=st.data(), how=st.sampled_from(["get", "filter", "first"]))
    def load(self, at: int, data: Any, how: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.stored)))
        row = self.stored[key]
        if how == "get":
            self.held[at] = PropertyLife.query.get(key)
        elif how == "filter":
            (self.held[at],) = PropertyLife.query.filter(shelf=row["shelf"], number=row["number"])
        else:
            found = PropertyLife.query.filter(number=row["number"], weight__gte=-9).first()
            self.held[at] = found

    @rule(at=handles, changes=st.fixed_dictionaries({}, optional=LIFE_VALUES))
    def change(self, at: int, changes: dict[str, Any]) -> None:
        for name, value in changes.items():
            setattr(self.held[at], name, value)

    @rule(at=handles, key=keys)
    def change_key(self, at: int, key: tuple[str, int]) -> None:
        self.held[at].shelf, self.held[at].number = key

    @rule(at=handles, names=st.none() | st.lists(st.sampled_from([*NAMES, "shelf"]), max_size=3), migrate=st.booleans())
    def save(self, at: int, names: list[str] | None, migrate: bool) -> None:
        record = self.held[at]
        was = record._saved_key
        target = PropertyLife._meta.record_key(record.__dict__)
        moves = was is not None and was != target
        values = {name: getattr(record, name) for name in ("shelf", "number", *NAMES)}
        try:
            record.save(update_fields=names, migrate_key=migrate)
        except KeyMutationError:
            assert moves and not migrate
        except ModelException as error:
            missing = names is not None and (was if moves else target) not in self.stored
            onto = moves and target in self.stored
            written = names is None or "serial" in names
            taken = written and self.taken(record.serial, target, was or target)
            assert missing or onto or taken, error
            assert "nothing was written" in str(error)
        else:
            if names == []:
                return
            assert not moves or (migrate and target not in self.stored)
            written = set(values) if names is None else {*names, *(("shelf", "number") if moves else ())}
            if "serial" in written:
                assert not self.taken(record.serial, target, was or target)
            old = self.stored.pop(was, None) if moves else self.stored.get(target)
            assert names is None or old is not None, "a partial save made a record"
            self.stored[target] = {**(old or {}), **{name: values[name] for name in written}}

    @rule(at=handles)
    def delete(self, at: int) -> None:
        record = self.held[at]
        existed = self.stored.pop(record.pk, None) is not None
        assert record.delete() is existed

    @invariant()
    def the_database_is_what_the_dict_says(self) -> None:
        found = {
            record.pk: {n: getattr(record, n) for n in ("shelf", "number", *NAMES)}
            for record in PropertyLife.query.all()
        }
        assert found == self.stored
        indexes_agree(PropertyLife)
        for color in (None, "a", "a:b"):
            wanted = sorted(key for key, row in self.stored.items() if row["color"] == color)
            assert [record.pk for record in PropertyLife.query.filter(color=color)] == wanted
        for team in (None, "x"):
            wanted = [
                key
                for key in sorted(self.stored, key=lambda key: (self.stored[key]["rank"], key))
                if (self.stored[key]["team"], self.stored[key]["color"]) == (team, "a") and self.stored[key]["rank"] > 0
            ]
            assert [record.pk for record in PropertyLife.query.filter(team=team, color="a", rank__gt=0)] == wanted
        for serial in (1, 2):
            assert (
                PropertyLife.query.count(serial=serial)
                == sum(row["serial"] == serial for row in self.stored.values())
                <= 1
            )


def test_whatever_stale_instances_do_the_indexes_stay_right(server):
    run_state_machine_as_test(
        Life,
        settings=settings(
            deadline=None,
            max_examples=40,
            stateful_step_count=25,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
