"""Reading the records that others point to: when an attribute is looked at, or ahead of it; a whole list in one round
trip.

What stands in an instance for a relationship is a `Reference`: the related record's key, and the record once it is
read. Instances that came out of one query know each other by their `Cohort`, so that the first one whose relationship
is looked at reads it for all of them.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import redis.exceptions

from popoto.exceptions import ModelException, QueryException
from popoto.orm.commands import Command, hash_of

if TYPE_CHECKING:
    from popoto.orm.model import Model
    from popoto.orm.options import ModelOptions

logger = logging.getLogger("popoto.model")

Steps = Generator[Any, Any, Any]
Place = tuple[Any, str]
"""(instance, name of the relationship)."""


class Reference(str):
    """The key of a related record.

    Attributes:
        local: the key without namespace and hash tag: what is stored.
        record: the related instance; None when it was not read yet, False when it was looked for and is not there.
    """

    __slots__ = ("local", "record")
    local: str
    record: Any

    @classmethod
    def to(cls, redis_key: str, local: str, record: Any = None) -> Reference:
        """Return a reference to a key."""
        made = cls(redis_key)
        made.local, made.record = local, record
        return made


class Cohort:
    """Instances that came out of one query. It keeps none of them alive."""

    __slots__ = ("_kept", "_members")

    def __init__(self, members: Iterable[Any] = ()) -> None:
        self._members: list[weakref.ref[Any]] = []
        self._kept = 1000
        self.add(members)

    def add(self, members: Iterable[Any]) -> None:
        """Take in instances, and leave out those that are gone once they may be the most."""
        for member in members:
            member.__dict__["_cohort"] = self
            self._members.append(weakref.ref(member))
        if len(self._members) > 2 * self._kept:
            self._members = [ref for ref in self._members if ref() is not None]
            self._kept = max(1000, len(self._members))

    def living(self) -> list[Any]:
        """Return the instances that somebody still holds."""
        return [member for member in (ref() for ref in self._members) if member is not None]


def together(model: type[Model], instances: Iterable[Any]) -> None:
    """Let instances of one list know each other, where their model has relationships or capped lists."""
    if model._meta.relationships or model._meta.lists:
        Cohort(instance for instance in instances if instance is not None)


def related_path(meta: ModelOptions, path: str) -> list[str]:
    """Return the relationships that a path such as `customer__city` goes along.

    Raises: QueryException: one of them is none; lists those that exist.
    """
    steps: list[str] = []
    rest = path
    while rest:
        name, _, rest = rest.partition("__")
        while name not in meta.relationships and rest:  # a field's name may hold two underscores itself
            more, _, rest = rest.partition("__")
            name = f"{name}__{more}"
        field = meta.relationships.get(name)
        if field is None:
            have = ", ".join(meta.relationships) or "none"
            raise QueryException(f"'{path}': {meta.model_name} has no relationship '{name}'. It has: {have}.")
        steps.append(name)
        meta = field.model._meta
    if not steps:
        raise QueryException("expected the name of a relationship, got ''.")
    return steps


# -- steps (generators that yield commands; see popoto.orm.drivers) ----------------------------------------------------


def read_related(places: Iterable[Place]) -> Steps:
    """Read what these relationships point to, each record once, in one round trip.

    Returns: key -> ModelException of the records that are stored but cannot be read.
    """
    wanted: dict[tuple[Any, str], list[tuple[Any, str, Reference]]] = {}
    for instance, name in places:
        reference = instance.__dict__.get(name)
        if reference is None or reference.record is not None:
            continue
        model = instance._meta.relationships[name].model
        wanted.setdefault((model, str(reference)), []).append((instance, name, reference))
    if not wanted:
        return {}
    # a key that is none of the related model's records points to nothing
    known = [(model, key) for model, key in wanted if model._meta.holds(key)]
    rows = yield from read_hashes([key for _, key in known])
    cohorts: dict[Any, list[Any]] = {}
    failed: dict[str, ModelException] = {}
    for (model, key), places_of_key in wanted.items():
        record: Any = False
        if rows.get(key):
            try:
                record = model._hydrated(key, rows[key])
            except ModelException as error:
                failed[key] = error
                continue
            cohorts.setdefault(model, []).append(record)
        for instance, name, reference in places_of_key:
            if instance.__dict__.get(name) is reference:  # nobody has assigned another meanwhile
                instance.__dict__[name] = Reference.to(key, reference.local, record)
    for model, records in cohorts.items():
        together(model, records)
    return failed


def read_hashes(keys: Sequence[str]) -> Generator[Any, Any, dict[str, dict[bytes, bytes]]]:
    """Return the hashes of these keys in one round trip; what is no hash is left out and logged."""
    if not keys:
        return {}
    try:
        replies = yield [Command(("HGETALL", key)) for key in keys]
    except redis.exceptions.ResponseError:  # one of them is something else
        kinds = yield [Command(("TYPE", key)) for key in keys]
        for key, kind in zip(keys, kinds, strict=True):
            if kind not in (b"hash", b"none", "hash", "none"):
                logger.error("%s cannot be read (not a hash); left out", key)
        keys = [key for key, kind in zip(keys, kinds, strict=True) if kind in (b"hash", "hash")]
        replies = (yield [Command(("HGETALL", key)) for key in keys]) if keys else []
    return {key: hash_of(row) for key, row in zip(keys, replies, strict=True)}


def prefetch(instances: Sequence[Any], paths: Iterable[Sequence[str]]) -> Steps:
    """Read the records along these paths: one round trip for each step away from the instances."""
    tree: dict[str, Any] = {}
    for path in paths:
        branch = tree
        for name in path:
            branch = branch.setdefault(name, {})
    level = [(list(instances), tree)]
    while level:
        places = [(instance, name) for members, branch in level for name in branch for instance in members]
        for key, error in (yield from read_related(places)).items():
            logger.error("%s; %s is left unread", error, key)
        level = [
            (_records(members, name), deeper) for members, branch in level for name, deeper in branch.items() if deeper
        ]


def _records(instances: Iterable[Any], name: str) -> list[Any]:
    """Return the records that a relationship of these instances points to, each once."""
    references = (instance.__dict__.get(name) for instance in instances)
    return list({id(ref.record): ref.record for ref in references if ref is not None and ref.record}.values())


def follow(instance: Any, path: Sequence[str]) -> Steps:
    """Return the record at the end of a path, or None; read for all instances of the list that this one came in.

    Raises: ModelException: a record on the way is stored and cannot be read.
    """
    for name in path:
        reference = instance.__dict__.get(name)
        if reference is None:
            return None
        if reference.record is None:
            cohort = instance.__dict__.get("_cohort")
            members = cohort.living() if cohort is not None else []
            places = [(member, name) for member in members if member is not instance]
            failed = yield from read_related([(instance, name), *places])
            if str(reference) in failed:
                raise failed[str(reference)]
            reference = instance.__dict__.get(name)
        if not reference or not reference.record:
            return None
        instance = reference.record
    return instance
