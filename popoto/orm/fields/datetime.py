"""DatetimeField: a datetime that may fill itself."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any

from popoto import _clock
from popoto.exceptions import ModelException
from popoto.orm.fields.base import Field


class DatetimeField(Field):
    """A datetime, naive or aware; an aware one keeps its instant and its offset.

    Naive and aware ones may stand side by side in one field; they are never equal, and in ranges and orders a naive
    one counts as UTC.

    Args:
        auto_now_add: set to the current time at the first save, unless given.
        auto_now: set to the current time at each full save, and at a partial one that lists the field.
        tz: the zone of the times that it sets itself, e.g. `datetime.timezone.utc`; None: naive, local time.
    Raises: ModelException: `type=` is another, or `tz` is no time zone.
    """

    def __init__(
        self, *, auto_now_add: bool = False, auto_now: bool = False, tz: tzinfo | None = None, **options: Any
    ) -> None:
        if options.pop("type", datetime) is not datetime:
            raise ModelException(f"{self._label()}: type= is always datetime; leave it out.")
        if tz is not None and not isinstance(tz, tzinfo):
            raise ModelException(
                f"{self._label()}: tz= expected a time zone, such as datetime.timezone.utc or "
                f"ZoneInfo('Europe/Paris'); got {tz!r}."
            )
        self.auto_now_add, self.auto_now, self.tz = auto_now_add, auto_now, tz
        super().__init__(type=datetime, **options)

    def format_value_pre_save(self, value: Any, skip_auto_now: bool = False, **kwargs: Any) -> Any:
        if (self.auto_now and not skip_auto_now) or (self.auto_now_add and value is None):
            return _clock.moment(self.tz)
        return value
