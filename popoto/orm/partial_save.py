"""A partial save of a record that others have changed, where an index entry depends on the record as a whole.

The server refuses it (STALE), for that entry would be made of values that are stored no more. It is then made anew of
what is stored, and of the fields that the save names.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

from popoto.exceptions import RecordGoneError, StaleRecordError
from popoto.orm.commands import Command, hash_of


def save_on_what_is_stored(
    instance: Any, names: Iterable[str], skip_auto_now: bool, migrate_key: bool, kwargs: dict[str, Any]
) -> Generator[Any, Any, Any]:
    """Save these fields of an instance on the stored record; two round trips, more only while others keep changing it.

    Its `pre_save` runs again, on an instance of the stored record. Returns and raises as `Model.save`.
    """
    model, meta = type(instance), instance._meta
    listed = sorted(names)
    copied = {*listed, *(meta.key_field_names if migrate_key else ())}
    settings = {name: instance.__dict__[name] for name in ("_ttl", "_expire_at") if name in instance.__dict__}
    while True:
        raw = yield Command(("HGETALL", instance.pk))
        if not raw:
            raise RecordGoneError(f"{instance.pk} is not stored (deleted or expired); nothing was written.")
        seen = hash_of(raw)
        current = model._hydrated(instance.pk, seen)
        current.__dict__.update({name: instance.__dict__[name] for name in copied} | settings)
        command = current._save_command(False, skip_auto_now, listed, migrate_key, None, kwargs, seen=seen)
        if not isinstance(command, Command):
            return False  # a hook skipped it
        try:
            created = yield command
        except StaleRecordError:
            continue
        values = current.__dict__
        instance.__dict__.update({name: values[name] for name in listed})
        instance.__dict__.update({n: v for n, v in values.items() if n[0] == "_" and n not in meta.fields})
        for name, field in meta.lists.items():
            if name in copied:
                field.was_saved(instance)
        return created
