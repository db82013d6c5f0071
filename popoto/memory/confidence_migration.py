"""What is learnt in one companion hash, moved into those of partitions, record by record, while others write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import Any

from popoto.exceptions import ModelException
from popoto.orm.codec import CodecError
from popoto.orm.commands import Command, hash_of
from popoto.orm.drivers import adrive, drive
from popoto.orm.keys import index_part
from popoto.orm.merging import asked
from popoto.orm.plan import pack
from popoto.orm.scripts import Script

MIGRATE = Script("popoto.memory", "migrate_confidence", (("popoto.memory", "kind_confidence"),), with_kinds=True)
PAGE = 500  # members looked at in one call

Steps = Generator[Any, Any, dict[str, Any]]


class PartitionMigration:
    """The part of ConfidenceField that moves data into partitions."""

    @classmethod
    def migrate_to_partitioned(cls, model_class: Any, field_name: str, dry_run: bool = False) -> dict[str, Any]:
        """Move the data of a field that has got a `partition_by` since into the hash of each record's partition.

        What cannot be moved stays where it is. Saves move the data of their record by themselves; this is for all at
        once.

        Args:
            dry_run: move nothing, only report.
        Returns: {"total": members found, "migrated": moved, "errors": [{"member_key", "error"}], "partitions":
            {partition as in the key: members}}.
        Raises: ModelException: no ConfidenceField, or one without partitions.
        """
        return drive(_migrate_steps(model_class, field_name, dry_run))

    @classmethod
    async def async_migrate_to_partitioned(
        cls, model_class: Any, field_name: str, dry_run: bool = False
    ) -> dict[str, Any]:
        """Await `migrate_to_partitioned()`."""
        return await adrive(_migrate_steps(model_class, field_name, dry_run))


def _migrate_steps(model: Any, field_name: str, dry_run: bool) -> Steps:
    meta = model._meta
    field = meta.fields.get(field_name)
    if not isinstance(field, PartitionMigration):
        raise ModelException(f"migrate_to_partitioned(): {model.__name__}.{field_name} is no ConfidenceField.")
    if not field.partition_by:  # type: ignore[attr-defined]
        raise ModelException(
            f"migrate_to_partitioned(): {model.__name__}.{field_name} has no partitions; give it a partition_by first."
        )
    return (yield from asked(meta, lambda: _migrate_here(model, field, dry_run), _one_report))


def _one_report(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what several shards report as one."""
    partitions: Counter[str] = Counter()
    for part in parts:
        partitions.update(part["partitions"])
    return {
        "total": sum(part["total"] for part in parts),
        "migrated": sum(part["migrated"] for part in parts),
        "errors": [error for part in parts for error in part["errors"]],
        "partitions": dict(partitions),
    }


def _migrate_here(model: Any, field: Any, dry_run: bool) -> Steps:
    meta, keys = model._meta, model._meta.keys
    field_name, names = field.name, field.partition_by
    base = keys.base(field.field_class_key, f"{field_name}:data")
    seen: set[str] = set()
    errors: list[dict[str, str]] = []
    partitions: Counter[str] = Counter()
    migrated = 0
    cursor: Any = 0
    while True:
        cursor, pairs = yield Command(("HSCAN", base, cursor, "COUNT", PAGE))
        members = [key for key in map(bytes.decode, hash_of(pairs)) if key not in seen]
        seen.update(members)
        for start in range(0, len(members), PAGE):
            some = members[start : start + PAGE]
            rows = yield [Command(("HMGET", key, meta.key_names[0], *names)) for key in some]
            placed = []
            for key, (mark, *raws) in zip(some, rows, strict=True):
                if mark is None and not any(raws):
                    errors.append({"member_key": key, "error": "the record is not stored"})
                    continue
                try:
                    values = [meta.fields[n].decode(raw) if raw else None for n, raw in zip(names, raws, strict=True)]
                except CodecError as error:
                    errors.append({"member_key": key, "error": str(error)})
                    continue
                parts = [index_part(value) for value in values]
                placed.append((key, [raw or False for raw in raws], parts))
                partitions[":".join(parts)] += 1
            if dry_run or not placed:
                continue
            query = {
                "slot": f"{field_name}#data",
                "base": base,
                "fields": names,
                "records": [(raws, parts) for _, raws, parts in placed],
            }
            args = (*(key for key, _, _ in placed), keys.sentinel, pack(query), "")
            replies = yield Command(args, script=MIGRATE, key_count=len(placed) + 1, repeat="token")
            for (key, _, parts), reply in zip(placed, replies, strict=True):
                if reply == 1:
                    migrated += 1
                else:
                    partitions[":".join(parts)] -= 1
                    errors.append({"member_key": key, "error": reply.decode()})
        if not int(cursor):
            break
    return {"total": len(seen), "migrated": migrated, "errors": errors, "partitions": dict(+partitions)}
