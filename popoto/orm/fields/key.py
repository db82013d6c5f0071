"""Key fields: together they are the record's identity and its Redis key."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

from popoto.exceptions import ModelException
from popoto.orm.fields.base import Condition
from popoto.orm.fields.indexed import SetIndex
from popoto.orm.keys import ModelKeys
from popoto.orm.slots import Slot


class KeyField(SetIndex):
    """Part of the record's key. All key fields together are unique.

    Lookups: exact, __in, __isnull, __contains, __startswith, __endswith.

    Args:
        type: int, float, Decimal, str, bool, date, datetime or time.
        unique: besides, one record a value of this field alone.
        max_length: longest text in characters, 128 unless given; None lifts it.
    """

    is_key = True
    default_max_length: ClassVar[int | None] = 128
    lookups: ClassVar[tuple[str, ...]] = ("", "in", "isnull", "contains", "startswith", "endswith")

    def bind(self, model: Any) -> None:
        self.leads_key = model._meta.key_names[0] == self.name


class UniqueKeyField(KeyField):
    """A KeyField with one record a value, never None.

    Raises: ModelException: `unique=False` or `null=True` is given.
    """

    def __init__(self, **options: Any) -> None:
        if options.pop("unique", True) is not True or options.pop("null", False) is not False:
            raise ModelException(f"{self._label()}: always unique and never null; leave unique= and null= out.")
        super().__init__(unique=True, null=False, **options)


class AutoKeyField(KeyField):
    """A key that each new instance makes for itself: hex digits of a random UUID (version 4, from the OS).

    A text of your own may be given instead.

    It keeps no index set: an exact filter computes the key. A save of a new instance never overwrites a record.

    Args:
        auto_uuid_length: digits, 1 to 32.
        strategy: how a key is made: "uuid4".
    Raises: ModelException: another length or strategy, or `unique=False`, or `null=True`.
    """

    is_auto = True

    def __init__(self, *, auto_uuid_length: int = 32, strategy: str = "uuid4", **options: Any) -> None:
        if options.pop("unique", True) is not True or options.pop("null", False) is not False:
            raise ModelException(f"{self._label()}: always unique and never null; leave unique= and null= out.")
        if not isinstance(auto_uuid_length, int) or not 1 <= auto_uuid_length <= 32:
            raise ModelException(f"{self._label()}: auto_uuid_length= expected 1 to 32, got {auto_uuid_length!r}.")
        if strategy != "uuid4":
            raise ModelException(
                f"{self._label()}: strategy= offers 'uuid4' only, got {strategy!r}. For keys of another kind use "
                "KeyField(default=function) with a function that makes them."
            )
        self.auto_uuid_length = auto_uuid_length
        super().__init__(unique=True, null=False, **options)

    def get_new_auto_key_value(self) -> str:
        """Return a fresh value."""
        return uuid.uuid4().hex[: self.auto_uuid_length]

    def default_value(self) -> Any:
        return self.get_new_auto_key_value()

    def slots(self) -> list[Slot]:
        return []

    def condition(self, keys: ModelKeys, lookup: str, value: Any, given: Mapping[str, Any]) -> Condition:
        if lookup in ("", "in"):
            values = self.many_values(value) if lookup else [self.filter_value(value)]
            known = list(dict.fromkeys(v for v in values if v is not None))
            return Condition(["raw", self.name, *map(self.encode, known)])
        if lookup == "isnull":
            return Condition(["not", ["all"]] if self.truth(value) else ["all"])
        return self.text_condition(keys, lookup, value)
