"""Random models, random lives of their records, against plain dicts: queries agree and no index is ever wrong.

A model is put together from a pool of keys and fields. Several instances are held at a time, often of one record and
often stale. After each step every index of the model is asked for every value it may hold, and `check_indexes()` must
find nothing. POPOTO_STATE_EXAMPLES=500 makes a long run of it.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
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
from popoto.memory.bm25 import BM25Field
from popoto.memory.confidence import ConfidenceField
from popoto.memory.decay import DecayingSortedField
from popoto.memory.model import Model
from popoto.orm.fields.base import Field
from popoto.orm.fields.datetime import DatetimeField
from popoto.orm.fields.geo import GeoField
from popoto.orm.fields.indexed import IndexedField
from popoto.orm.fields.key import KeyField, UniqueKeyField
from popoto.orm.fields.relationship import Relationship
from popoto.orm.fields.sorted import SortedField, SortedKeyField
from popoto.orm.fields.typed import IntField, ListField

from .oracle import indexes_agree

EXAMPLES = int(os.environ.get("POPOTO_STATE_EXAMPLES", "30"))
HELD = 5  # instances at a time

# -- the pool ---------------------------------------------------------------------------------------------------------

NAMES = ["a", "b:", "None", ""]
KEYS: dict[str, dict[str, Any]] = {
    "key": {"name": lambda: KeyField()},
    "two keys": {"name": lambda: KeyField(), "number": lambda: KeyField(type=int)},
    "sorted key": {"name": lambda: KeyField(), "number": lambda: SortedKeyField(type=int)},
    "unique key": {"name": lambda: UniqueKeyField()},
    "auto key": {},
}
FIELDS: dict[str, Any] = {
    "color": lambda: IndexedField(),
    "on": lambda: IndexedField(type=bool),
    "handle": lambda: IndexedField(unique=True),
    "serial": lambda: IndexedField(type=int, unique=True),
    "size": lambda: IndexedField(type=int),
    "weight": lambda: SortedField(type=float, default=0.0),
    "rank": lambda: SortedField(type=int, partition_by="team", default=0),
    "price": lambda: SortedField(type=Decimal, partition_by=("team", "note"), default=Decimal(0)),
    "at": lambda: SortedField(type=datetime, default=datetime(2024, 1, 1)),
    "friend": lambda: Relationship(model="self"),
    "spot": lambda: GeoField(),
    "count": lambda: IntField(),
    "seen": lambda: DatetimeField(),
    "heat": lambda: DecayingSortedField(partition_by="team", base_score_field="count"),
    "sure": lambda: ConfidenceField(partition_by="note"),
    "words": lambda: BM25Field(source="note"),
    "tags": lambda: ListField(max_length=2),
}
ALWAYS: dict[str, Any] = {"team": lambda: Field(default="red"), "note": lambda: Field(), "count": FIELDS["count"]}
LEARNT = {"heat", "sure", "words", "tags"}  # what the server or the clock decides
INDEXES = [
    (("team", "note"), False),
    (("team", "note"), True),
    (("color", "size"), True),
    (("size", "team"), False),
    (("friend", "color"), True),
]
VALUES: dict[str, list[Any]] = {
    "name": NAMES,
    "number": [0, 1],
    "team": ["red", "blue"],
    "note": [None, "tea", "green tea"],
    "color": [None, "x", "xy:z"],
    "on": [None, True, False],
    "handle": [None, "h", "None"],
    "serial": [None, 1, 2],
    "size": [None, 1, 2],
    "weight": [-1.0, 0.0, 2.5],
    "rank": [0, 1, 2**53 + 1],
    "price": [Decimal("0"), Decimal("1.10"), Decimal("0.12345678901234567891")],
    "at": [datetime(2024, 1, 1), datetime(2024, 1, 2)],
    "spot": [None, (0.0, 0.0), (52.5, 13.4)],
    "count": [None, 0, 7],
    "seen": [None, datetime(2024, 5, 1)],
}
ASKED = ["name", "color", "on", "handle", "serial", "size", "count", "team", "note"]
ORDERED = ["weight", "at"]
PARTITIONED = {"rank": ("team",), "price": ("team", "note")}

_models: dict[Any, Any] = {}


def model_of(key: str, fields: frozenset[str], indexes: frozenset[Any], ttl: bool) -> Any:
    """Return the model of these parts; one class for each combination."""
    parts = (key, fields, indexes, ttl)
    if parts not in _models:
        body: dict[str, Any] = {"__qualname__": "model_of.<locals>.Life", "__module__": __name__}
        body.update({name: make() for name, make in {**KEYS[key], **ALWAYS}.items()})
        body.update({name: FIELDS[name]() for name in sorted(fields)})
        meta = {"indexes": tuple(sorted(indexes)), **({"ttl": 1000} if ttl else {})}
        body["Meta"] = type("Meta", (), meta)
        _models[parts] = type("Life", (Model,), body)
    return _models[parts]


@st.composite
def models(draw: Any) -> Any:
    fields = draw(st.frozensets(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=7))
    there = {*fields, *ALWAYS}
    offered = [index for index in INDEXES if set(index[0]) <= there]
    indexes = draw(st.frozensets(st.sampled_from(offered), max_size=2)) if offered else frozenset()
    if len({names for names, _ in indexes}) < len(indexes):
        indexes = frozenset(sorted(indexes)[:1])
    return model_of(draw(st.sampled_from(sorted(KEYS))), fields, indexes, draw(st.booleans()))


def keys_of(builder: Any) -> list[str]:
    found: list[bytes] = builder.keys()
    return [key.decode() for key in found]


def save_until_soon(instance: Any) -> None:
    """Save with an expiry that is near; on a busy machine it may be over before the save begins."""
    while True:
        instance._expire_at = datetime.now() + timedelta(milliseconds=2)
        try:
            instance.save()
            return
        except ModelException as error:
            if "is past" not in str(error):
                raise


class Lives(RuleBasedStateMachine):
    """One model, some instances of it, and a dict: record key -> the values that are stored.

    The records are drawn in the order in which they were stored. In the order of their keys, which an auto key makes at
    random, the same draw would choose another record when hypothesis goes the same way again, and what can be drawn
    after it would differ.
    """

    def __init__(self) -> None:
        super().__init__()
        redis_db.get_REDIS_DB().flushall()
        self.model: Any = None
        self.stored: dict[str, dict[str, Any]] = {}
        self.held: list[Any] = []

    @initialize(model=models())
    def begin(self, model: Any) -> None:
        self.model = model
        self.meta = model._meta
        self.names = [name for name in self.meta.fields if name in VALUES]
        self.free = [name for name in self.names if name not in self.meta.key_field_names]
        self.uniques = [(name,) for name, field in self.meta.fields.items() if field.unique and name != "_auto_key"]
        self.uniques += [names for names, unique in self.meta.indexes if unique]
        self.numbers = [name for name in ("count", "size", "serial", "rank", "weight") if name in self.free]

    # -- what should happen -------------------------------------------------------------------------------------------

    def values_of(self, instance: Any) -> dict[str, Any]:
        values = {name: instance.__dict__[name] for name in self.meta.fields if name not in LEARNT}
        if "friend" in values:
            friend = values["friend"]
            values["friend"] = None if friend is None else str(friend)
        if "spot" in values:
            values["spot"] = tuple(values["spot"] or (None, None))
        return values

    def taken(self, values: dict[str, Any], *owners: str) -> bool:
        """Say whether another record has one of the unique values."""
        for names in self.uniques:
            wanted = [values[name] for name in names]
            if None not in wanted and any(
                [row[name] for name in names] == wanted for key, row in self.stored.items() if key not in owners
            ):
                return True
        return False

    def drawn(self, data: Any, names: list[str]) -> dict[str, Any]:
        chosen = data.draw(st.lists(st.sampled_from(names), max_size=4, unique=True)) if names else []
        values = {name: data.draw(st.sampled_from(VALUES[name])) for name in chosen}
        if "friend" in self.meta.fields and data.draw(st.booleans()):
            gone = ":".join(["Life", "gone", "7"][: self.meta.db_key_length])
            values["friend"] = data.draw(st.sampled_from([None, gone, *list(self.stored)[:2]]))
        return values

    def assign(self, instance: Any, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(instance, name, value)

    def instance(self, data: Any) -> Any:
        return self.held[data.draw(st.integers(0, len(self.held) - 1))]

    def hold(self, instance: Any) -> None:
        self.held.append(instance)
        del self.held[:-HELD]

    def attempt(self, save: Any, allowed: bool) -> bool:
        """Run a save, which must be refused or not; return True when it was done."""
        if allowed:
            save()
        else:
            with pytest.raises(ModelException):
                save()
        return allowed

    # -- what happens -------------------------------------------------------------------------------------------------

    @rule(data=st.data(), pair=st.booleans())
    def create(self, data: Any, pair: bool) -> None:
        given = {name: data.draw(st.sampled_from(VALUES[name])) for name in self.meta.key_names if name in VALUES}
        instance = self.model(**given, **self.drawn(data, self.free))
        values, key = self.values_of(instance), instance.pk
        allowed = not self.taken(values, key) and not (self.meta.insert_only and key in self.stored)
        if self.attempt(instance.save, allowed):
            self.stored[key] = self.values_of(instance)
            self.hold(instance)
            if pair:
                self.hold(self.model.query.get(key))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def save(self, data: Any) -> None:
        instance = self.instance(data)
        self.assign(instance, self.drawn(data, self.free))
        values, key = self.values_of(instance), instance.pk
        fresh = instance._saved_key is None
        allowed = not self.taken(values, key) and not (fresh and self.meta.insert_only and key in self.stored)
        if self.attempt(instance.save, allowed):
            self.stored[key] = self.values_of(instance)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def save_some(self, data: Any) -> None:
        instance = self.instance(data)
        changes = self.drawn(data, self.free)
        self.assign(instance, changes)
        extra = data.draw(st.lists(st.sampled_from([n for n in self.free if n not in LEARNT]), max_size=2))
        names = sorted({*changes, *extra})
        if not names:
            return
        values, key = self.values_of(instance), instance.pk
        written = {name: values[name] for name in names}
        there = key in self.stored
        after = {**self.stored.get(key, {}), **written}
        touched = [unique for unique in self.uniques if set(unique) & set(names)]
        allowed = there and not any(self._taken_by(unique, after, key) for unique in touched)
        if self.attempt(lambda: instance.save(update_fields=names), allowed):
            self.stored[key].update(written)

    def _taken_by(self, names: tuple[str, ...], values: dict[str, Any], own: str) -> bool:
        wanted = [values[name] for name in names]
        return None not in wanted and any(
            [row[name] for name in names] == wanted for key, row in self.stored.items() if key != own
        )

    @precondition(lambda self: self.held and "name" in self.meta.fields)
    @rule(data=st.data(), leave=st.booleans())
    def change_key(self, data: Any, leave: bool) -> None:
        instance = self.instance(data)
        old = instance._saved_key
        before = {name: getattr(instance, name) for name in self.meta.key_names}
        self.assign(instance, {name: data.draw(st.sampled_from(VALUES[name])) for name in self.meta.key_names})
        values = self.values_of(instance)
        new = self.meta.record_key(values)
        if old is None or new == old:
            self.assign(instance, before)
            return
        if not leave:
            with pytest.raises(KeyMutationError):
                instance.save()
            self.assign(instance, before)
            return
        allowed = new not in self.stored and not self.taken(values, old, new)
        if self.attempt(lambda: instance.save(migrate_key=True), allowed):
            self.stored.pop(old, None)
            self.stored[new] = self.values_of(instance)
        else:
            self.assign(instance, before)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        instance = self.instance(data)
        assert instance.delete() is (self.stored.pop(instance.pk, None) is not None) or instance._saved_key is None

    @precondition(lambda self: self.stored)
    @rule(data=st.data())
    def load(self, data: Any) -> None:
        key = data.draw(st.sampled_from(list(self.stored)))
        instance = self.model.query.get(key)
        assert self.values_of(instance) == self.stored[key]
        self.hold(instance)

    @precondition(lambda self: self.stored)
    @rule(data=st.data(), by_date=st.booleans())
    def expire(self, data: Any, by_date: bool) -> None:
        key = data.draw(st.sampled_from(list(self.stored)))
        instance = self.model.query.get(key)
        if by_date and self.meta.ttl is None:
            save_until_soon(instance)
        else:
            instance._ttl = timedelta(milliseconds=1)
            instance.save()
        client = redis_db.get_REDIS_DB()
        while client.exists(key):
            pass
        del self.stored[key]

    @precondition(lambda self: self.held)
    @rule(data=st.data(), ttl=st.sampled_from([None, 1000]))
    def set_ttl(self, data: Any, ttl: int | None) -> None:
        self.instance(data)._ttl = ttl

    @precondition(lambda self: self.held and self.numbers)
    @rule(data=st.data(), delta=st.integers(-2, 2))
    def increment(self, data: Any, delta: int) -> None:
        instance = self.instance(data)
        name = data.draw(st.sampled_from(self.numbers))
        key = instance.pk
        if instance._saved_key is None or key not in self.stored:
            with pytest.raises(TypeError):
                instance.atomic_increment(name, delta)
            return
        after = {**self.stored[key], name: (self.stored[key][name] or 0) + delta}
        touched = [unique for unique in self.uniques if name in unique]
        allowed = not any(self._taken_by(unique, after, key) for unique in touched)
        if self.attempt(lambda: instance.atomic_increment(name, delta), allowed):
            assert getattr(instance, name) == after[name]
            self.stored[key] = after

    @precondition(lambda self: self.held and {"heat", "sure", "tags"} & set(self.meta.fields))
    @rule(data=st.data(), signal=st.sampled_from([0.0, 0.7, 1.0]))
    def learn(self, data: Any, signal: float) -> None:
        instance = self.instance(data)
        alive = instance._saved_key is not None and instance.pk in self.stored
        calls = []
        if "heat" in self.meta.fields:
            calls.append(lambda: instance.touch("heat"))
        if "sure" in self.meta.fields:
            calls.append(lambda: ConfidenceField.update_confidence(instance, "sure", signal))
        if "tags" in self.meta.fields:
            calls.append(lambda: instance.tags.push("x"))
        for call in calls:
            if alive:
                call()
            else:
                with pytest.raises((TypeError, ModelException)):
                    call()

    @rule(data=st.data())
    def bulk_create(self, data: Any) -> None:
        made: dict[str, Any] = {}
        for _ in range(data.draw(st.integers(1, 3))):
            given = {name: data.draw(st.sampled_from(VALUES[name])) for name in self.meta.key_names if name in VALUES}
            instance = self.model(**given, **self.drawn(data, self.free))
            made.setdefault(instance.pk, instance)
        before = dict(self.stored)
        allowed = True
        for key, instance in made.items():
            values = self.values_of(instance)
            allowed = allowed and not self.taken(values, key) and not (self.meta.insert_only and key in self.stored)
            self.stored[key] = values
        if not self.attempt(lambda: self.model.bulk_create(list(made.values())), allowed):
            self.stored = before

    @rule(data=st.data(), team=st.sampled_from(VALUES["team"]), batch_size=st.sampled_from([1, 2, 1000]))
    def bulk_update(self, data: Any, team: str, batch_size: int) -> None:
        inside = {name for unique in self.uniques for name in unique}
        name = data.draw(st.sampled_from([name for name in self.free if name not in inside] or ["team"]))
        if name in inside:
            return
        value = data.draw(st.sampled_from(VALUES[name]))
        chosen = [key for key, row in self.stored.items() if row["team"] == team]
        done = self.model.bulk_update(self.model.query.filter(team=team), batch_size=batch_size, **{name: value})
        assert done == len(chosen)
        for key in chosen:
            self.stored[key] = {**self.stored[key], name: (value or (None, None)) if name == "spot" else value}

    @rule(team=st.sampled_from(VALUES["team"]), whole=st.booleans())
    def bulk_delete(self, team: str, whole: bool) -> None:
        chosen = [key for key, row in self.stored.items() if row["team"] == team]
        if whole and len(self.stored) > 3:
            assert self.model.delete_all() == len(self.stored)
            self.stored = {}
        else:
            assert self.model.bulk_delete(self.model.query.filter(team=team)) == len(chosen)
            self.stored = {key: row for key, row in self.stored.items() if key not in chosen}

    @rule(batch_size=st.sampled_from([1, 3, 1000]))
    def maintain(self, batch_size: int) -> None:
        assert self.model.clean_indexes(batch_size) == 0
        rebuilt = self.model.rebuild_indexes(batch_size)
        assert (rebuilt, rebuilt.skipped, rebuilt.conflicts) == (len(self.stored), {}, {})

    # -- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def queries_agree(self) -> None:
        if self.model is None:
            return
        query, stored = self.model.query, self.stored
        assert sorted(keys_of(query.filter())) == sorted(stored)
        assert query.count() == len(stored)
        for name in ASKED:
            if name in self.meta.fields:
                for value in VALUES[name]:
                    self.same({name: value}, {key for key, row in stored.items() if row[name] == value})
        for names, _ in self.meta.indexes:
            rows = {tuple(row[name] for name in names) for row in stored.values()}
            for values in sorted(rows, key=repr):
                filters = dict(zip(names, values, strict=True))
                self.same(filters, {key for key, row in stored.items() if [row[n] for n in names] == [*values]})
        for name in ORDERED:
            if name in self.meta.fields:
                self.ordered(name, {}, stored)
        for name, partition in PARTITIONED.items():
            if name in self.meta.fields:
                for values in {tuple(row[part] for part in partition) for row in stored.values()}:
                    filters = dict(zip(partition, values, strict=True))
                    inside = {k: row for k, row in stored.items() if all(row[p] == v for p, v in filters.items())}
                    self.ordered(name, filters, inside)
        if "friend" in self.meta.fields:
            for friend in {row["friend"] for row in stored.values()}:
                self.same({"friend": friend}, {key for key, row in stored.items() if row["friend"] == friend})
        if "spot" in self.meta.fields:
            there = {key for key, row in stored.items() if row["spot"] == (52.5, 13.4)}
            self.same({"spot": (52.5, 13.4), "spot_radius": 10}, there)

    def same(self, filters: dict[str, Any], wanted: set[str]) -> None:
        builder = self.model.query.filter(**filters)
        assert set(keys_of(builder)) == wanted, filters
        assert self.model.query.count(**filters) == len(wanted), filters

    def ordered(self, name: str, filters: dict[str, Any], rows: dict[str, dict[str, Any]]) -> None:
        wanted = sorted(rows, key=lambda key: (rows[key][name], key.encode()))
        builder = self.model.query.filter(**filters)
        assert keys_of(builder.order_by(name)) == wanted, (name, filters)
        assert keys_of(builder.order_by("-" + name).limit(2)) == wanted[::-1][:2], name
        for value in {row[name] for row in rows.values()}:
            found = set(keys_of(builder.filter(**{f"{name}__gte": value})))
            assert found == {key for key in rows if rows[key][name] >= value}, (name, filters, value)

    @invariant()
    def nothing_is_wrong(self) -> None:
        if self.model is not None:
            found = self.model.check_indexes()
            assert found["total"] == 0, found

    def teardown(self) -> None:
        if self.model is not None and not LEARNT & set(self.meta.fields):
            indexes_agree(self.model)


def test_whatever_happens_queries_agree_and_no_index_is_wrong(server):
    settings_of_run = settings(
        max_examples=EXAMPLES,
        stateful_step_count=25,
        deadline=None,
        report_multiple_bugs=False,
        phases=[phase for phase in Phase if phase is not Phase.explain],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Lives, settings=settings_of_run)
