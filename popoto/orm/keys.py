"""The one place that spells Redis keys.

A record's key is `Model:part1:part2...`, its key fields in the order of their names. An index key is
`$PrefixF:Model:field[:value or partition...]`. Parts that a user supplies are escaped so that no value can collide with
another key, a separator or a glob:

    /  ->  //        each of ' ? * ^ [ ] - {  ->  the same with / in front        :  ->  {&#58;}

The empty string is an empty part; None is `None`, and the text "None" is `/None`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, time, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from typing import Any

_SPECIAL = re.compile(r"[/'?*^\[\]\-{:]")
_ESCAPED = re.compile(r"\{&#58;\}|/(.)", re.DOTALL)


def _escape_one(match: re.Match[str]) -> str:
    character = match.group()
    return "{&#58;}" if character == ":" else "/" + character


def escape(text: str) -> str:
    """Return `text` as one part of a key."""
    if text.isalnum() and text != "None":
        return text
    if text == "None":
        return "/None"
    return _SPECIAL.sub(_escape_one, text)


def unescape(part: str) -> str:
    """Return the text that `escape` turned into `part`."""
    return _ESCAPED.sub(lambda match: match.group(1) or ":", part)


def key_part(value: Any) -> str:
    """Return the part of a record's own key that stands for a value."""
    return "None" if value is None else escape(value if type(value) is str else str(value))


def index_text(value: Any) -> str:
    """Return the text under which an index keeps a value: equal values have equal texts.

    Differs from `str` where equal values print differently: Decimal("1.10"), -0.0, aware datetimes and times.
    """
    if type(value) is str:
        return value
    if isinstance(value, Decimal):
        if not value.is_finite():
            return str(value)
        text = format(value, "f")
        if "." in text:
            text = text.rstrip("0").rstrip(".")
        return "0" if text == "-0" else text
    if isinstance(value, float):
        return repr(value + 0.0)
    if isinstance(value, datetime) and value.tzinfo is not None:
        try:
            return str(value.astimezone(timezone.utc))
        except OverflowError:  # in UTC it lies outside the years 1 to 9999
            return f"{value.replace(tzinfo=None)} - {value.utcoffset()}"
    if isinstance(value, time) and value.tzinfo is not None:
        since_midnight = timedelta(0, (value.hour * 60 + value.minute) * 60 + value.second, value.microsecond)
        return f"{(since_midnight - (value.utcoffset() or timedelta(0))) // timedelta(microseconds=1)}us"
    return str(value)


def index_part(value: Any) -> str:
    """Return the part of an index key that stands for a value."""
    return "None" if value is None else escape(index_text(value))


def field_prefix(class_name: str) -> str:
    """Return the prefix of a field class's index keys: `$` + name without outer letters of "Field" + `F`."""
    return "$" + class_name.strip("Field") + "F"


class ModelKeys:
    """The keys of one model in one namespace.

    Attributes:
        model: the model's name, escaped.
        record: what a record's key begins with, without the colon.
        class_set: set of all record keys.
        order: ordered set of the same, all scores 0: the order by name.
        expiry: ordered set, record key -> when it expires (server's clock, ms).
        sentinel: a key that is never written; in KEYS of each script.
    """

    __slots__ = ("_bases", "class_set", "expiry", "home", "model", "namespace", "order", "record", "sentinel")

    def __init__(self, namespace: str, model: str) -> None:
        model = escape(model)
        self.namespace = namespace
        self.model = model
        self.record = namespace + model
        self.class_set = f"{namespace}$Class:{model}"
        self.order = f"{namespace}$Order:{model}"
        self.expiry = f"{namespace}$Expiry:{model}"
        self.sentinel = f"{namespace}$Sentinel:{model}"
        self.home = (self.class_set, self.order, self.expiry, self.sentinel)
        self._bases: dict[tuple[str, str], str] = {}

    def record_key(self, parts: Iterable[Any]) -> str:
        """Return the key of the record whose key fields, by name, hold these values."""
        return ":".join([self.record, *[key_part(part) for part in parts]])

    def base(self, prefix: str, field_name: str) -> str:
        """Return the index key of a field without value or partition."""
        try:
            return self._bases[prefix, field_name]
        except KeyError:
            base = f"{self.namespace}{prefix}:{self.model}:{field_name}"
            return self._bases.setdefault((prefix, field_name), base)

    def index(self, prefix: str, field_name: str, *values: Any) -> str:
        """Return the index key of a field for these values or partition."""
        return ":".join([self.base(prefix, field_name), *map(index_part, values)])


def lex_key(base: str) -> str:
    """Return the ordered set of a field's texts (see kind_set.lua)."""
    return base + "::lex"


def reversed_lex_key(base: str) -> str:
    """Return the ordered set of a field's reversed texts."""
    return base + "::rev"


def shared_key(sorted_set: str) -> str:
    """Return the set of records whose value is not the one its score stands for (see kind_zset.lua)."""
    return sorted_set + "::shared"


def occupancy_key(record_key: str) -> str:
    """Return the side key that names what a record occupies (see lib_record.lua)."""
    return record_key + "::$occ"


def token_key(namespace: str, token: str) -> str:
    """Return the key under which the reply of a call is kept for a repeat of it."""
    return f"{namespace}$Token:{token}"


@lru_cache(maxsize=4096)
def model_keys(namespace: str, model: str) -> ModelKeys:
    """Return the keys of a model in a namespace."""
    return ModelKeys(namespace, model)
