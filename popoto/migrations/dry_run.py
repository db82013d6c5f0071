"""What a dry run adds to a conversion: examples, fields that nobody knows, and clashes between records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from popoto.migrations.conversion import Conversion
from popoto.migrations.report import EXAMPLES, Example, Report
from popoto.orm.model import Model


def note_change(report: Report, conversion: Conversion, model: type[Model]) -> None:
    """Count what would happen to a record, and keep the first few as examples."""
    for name in conversion.read:
        if name not in model._meta.fields and name not in conversion.removed:
            report.unknown_fields[name] = report.unknown_fields.get(name, 0) + 1
    if not conversion.needed:
        return
    report.migrated += 1
    report.moved += conversion.new_key != conversion.key
    for step in conversion.steps:
        report.steps[str(step)] += 1
    if len(report.examples) < EXAMPLES:
        written = {name: conversion.values.get(name) for name in conversion.written}
        report.examples.append(Example(conversion.key, conversion.new_key, written, conversion.removed))


class Clashes:
    """Keys and unique values that two records would have after the migration.

    Takes memory for each record that moves, and for each one where the model has unique fields.
    """

    def __init__(self, model: type[Model]) -> None:
        self._has_unique = any(slot.kind in ("u", "tu") for slot in model._meta.slots)
        self._moving: dict[str, str] = {}  # key -> its new key
        self._taken: dict[str, str] = {}  # new key -> who gets it first
        self._places: dict[str, str] = {}
        self._existing: set[str] = set()
        self._found: list[tuple[str, str]] = []

    def take(self, conversion: Conversion) -> None:
        """Note what a record will have."""
        key, new_key = conversion.key, conversion.new_key
        if new_key != key:
            self._moving[key] = new_key
            first = self._taken.setdefault(new_key, key)
            if first != key:
                self._found.append((key, f"it would get the key {new_key}, as {first} would"))
        if self._has_unique:
            for place in conversion.unique_places():
                first = self._places.setdefault(place, key)
                if first != key:
                    self._found.append((key, f"it would have a unique value that {first} has: {place}"))

    def exist(self, keys: Iterable[str]) -> None:
        """Note new keys under which something lies already."""
        self._existing.update(keys)

    def found(self) -> Iterator[tuple[str, str]]:
        """Yield (key, reason) of the records that could not be converted."""
        yield from self._found
        for key, new_key in self._moving.items():
            if new_key in self._existing and new_key not in self._moving:
                yield key, f"it would get the key {new_key}, which exists"
