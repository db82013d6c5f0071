"""ValuelessField: a field that keeps something beside the record and holds no value itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from popoto.exceptions import ModelException, QueryException
from popoto.orm.fields.base import Condition, Field
from popoto.orm.keys import ModelKeys


class ValuelessField(Field):
    """Base of the fields whose attribute is always None.

    Attributes:
        advice: what to do instead of giving it a value or filtering by it.
    Raises: ModelException: an option that only makes sense for a value.
    """

    advice: ClassVar[str] = ""
    lookups = ()

    def __init__(self, **options: Any) -> None:
        if any(options.get(name) for name in ("default", "indexed", "unique")) or not options.get("null", True):
            raise ModelException(
                f"{type(self).__name__} holds no value of its own: leave default, null, indexed and unique out."
            )
        super().__init__(**options)

    def coerce(self, value: Any) -> Any:
        """Return None.

        Raises: ModelException: a value was given.
        """
        if value is not None:
            raise ModelException(f"{self._label()} takes no value, got {value!r}. {self.advice}")
        return None

    def condition(self, keys: ModelKeys, lookup: str, value: Any, given: Mapping[str, Any]) -> Condition:
        raise QueryException(
            f"filter({self.name}=...): a {type(self).__name__} has no value to filter by. {self.advice}"
        )


def text_of_key(pk: Any) -> str:
    """Return a primary key as text: an instance's key, bytes decoded, anything else by str().

    Raises: ValueError: None or an empty text, which name nothing.
    """
    text = pk.decode() if isinstance(pk, bytes) else str(pk.pk) if hasattr(pk, "_saved_key") else str(pk)
    if pk is None or not text:
        raise ValueError(f"expected an instance, a Redis key or another text that is not empty, got {pk!r}.")
    return text
