"""What an instance gives out together with the records it points to."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Sequence
from typing import Any

from popoto.exceptions import ModelException
from popoto.orm.drivers import adrive, drive
from popoto.orm.record import Record
from popoto.orm.related import Reference, follow, read_related, related_path

logger = logging.getLogger("popoto.model")


class RelatedRecords(Record):
    """Related records ahead of attribute access, and as dicts."""

    class Meta:
        abstract = True

    async def async_related(self, path: str) -> Any:
        """Return the related instance, or the one at the end of a path such as `customer__city`; None where there is
        none.

        Like reading the attribute, without blocking the event loop; afterwards the attribute is there. It is read for
        all instances that came out of the same query, in one round trip a step.

        Raises: QueryException: the path names no relationship. ModelException: a record on the way is corrupt.
        """
        return await adrive(follow(self, related_path(self._meta, path)))

    def to_dict(
        self,
        include: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        relationships: bool = False,
        max_depth: int | None = None,
    ) -> dict[str, Any]:
        """Return the public fields' values by name, in the order of their definition.

        Args:
            include: only these; names that are no fields are ignored.
            exclude: not these.
            relationships: related records as dicts, instead of their keys; read in one round trip a level. A record
                within itself, and one that does not exist, stays its key.
            max_depth: how many levels of dicts there may be within this one; 0: keys only; None: all.
        """
        return drive(_as_dict(self, include, exclude, relationships, max_depth))

    async def async_to_dict(
        self,
        include: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        relationships: bool = False,
        max_depth: int | None = None,
    ) -> dict[str, Any]:
        """Await `to_dict()`."""
        return await adrive(_as_dict(self, include, exclude, relationships, max_depth))


def _as_dict(
    instance: Any,
    include: Iterable[str] | None,
    exclude: Iterable[str] | None,
    relationships: bool,
    max_depth: int | None,
) -> Generator[Any, Any, dict[str, Any]]:
    if max_depth is not None and (isinstance(max_depth, bool) or not isinstance(max_depth, int) or max_depth < 0):
        raise ModelException(
            f"to_dict(max_depth=...): expected a number of levels, 0 or more, or None; got {max_depth!r}."
        )
    wanted = None if include is None else set(include)
    unwanted = set(exclude or ())
    names = [n for n in instance._meta.explicit_fields if (wanted is None or n in wanted) and n not in unwanted]
    for name, field in instance._meta.lists.items():
        if name in names:
            yield from field.read_steps(instance)
    if not relationships or max_depth == 0:
        return _plain_dict(instance, names)
    known = yield from _read_levels(instance, names, max_depth)
    return _nested(instance, names, known, max_depth, (instance.pk,))


def _read_levels(instance: Any, names: Sequence[str], max_depth: int | None) -> Generator[Any, Any, dict[str, Any]]:
    """Return key -> instance of all records that are reached, level by level."""
    known = {instance.pk: instance}
    level = [(instance, [name for name in names if name in instance._meta.relationships])]
    depth = 0
    while level and (max_depth is None or depth < max_depth):
        places = [(member, name) for member, relations in level for name in relations]
        unread = [(member, name) for member, name in places if str(member.__dict__.get(name)) not in known]
        for error in (yield from read_related(unread)).values():
            logger.error("%s; its key is given instead", error)
        found = {}
        for member, name in places:
            record = getattr(member.__dict__.get(name), "record", None)
            if record and record.pk not in known:
                found[record.pk] = record
        known.update(found)
        for record in found.values():
            for field in record._meta.lists.values():
                yield from field.read_steps(record)
        level = [
            (record, [name for name in record._meta.relationships if not name.startswith("_")])
            for record in found.values()
        ]
        depth += 1
    return known


def _nested(
    instance: Any, names: Iterable[str], known: dict[str, Any], depth: int | None, path: tuple[str, ...]
) -> dict[str, Any]:
    out = _plain_dict(instance, names)
    if depth == 0:
        return out
    deeper = None if depth is None else depth - 1
    for name in out:
        reference = instance.__dict__.get(name)
        if isinstance(reference, Reference):
            record = reference.record or known.get(str(reference))
            if record and record.pk not in path:
                out[name] = _nested(record, record._meta.explicit_fields, known, deeper, (*path, record.pk))
    return out


def _plain_dict(instance: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: _plain(instance.__dict__.get(name)) for name in names}


def _plain(value: Any) -> Any:
    """Return a value without what only its field knows of it."""
    if isinstance(value, Reference):
        return value.record.pk if value.record else str(value)
    return list(value) if isinstance(value, list) else value
