"""Import path of DatetimeField; it lives in popoto.orm.fields.datetime."""

from popoto.orm.fields.datetime import DatetimeField

__all__ = ["DatetimeField"]
