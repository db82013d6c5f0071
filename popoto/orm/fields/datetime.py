"""DatetimeField: a datetime that may fill itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from popoto.exceptions import ModelException
from popoto.orm.fields.base import Field


class DatetimeField(Field):
    """A datetime, naive (local time) or aware; the offset is kept.

    Args:
        auto_now_add: set to the current time at the first save, unless given.
        auto_now: set to the current time at each full save, and at a partial one that lists the field.
    """

    def __init__(self, *, auto_now_add: bool = False, auto_now: bool = False, **options: Any) -> None:
        if options.pop("type", datetime) is not datetime:
            raise ModelException(f"{self._label()}: type= is always datetime; leave it out.")
        self.auto_now_add, self.auto_now = auto_now_add, auto_now
        super().__init__(type=datetime, **options)

    def format_value_pre_save(self, value: Any, skip_auto_now: bool = False, **kwargs: Any) -> Any:
        if (self.auto_now and not skip_auto_now) or (self.auto_now_add and value is None):
            return datetime.now()
        return value
