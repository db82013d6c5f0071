"""The one place that spells Redis keys.

A record's key is `Model:part1:part2...`, its key fields in the order of their names. An index key is
`$PrefixF:Model:field[:value or partition...]`. Parts that a user supplies are escaped so that no value can collide with
another key, a separator or a glob:

    /  ->  //        each of ' ? * ^ [ ] - {  ->  the same with / in front        :  ->  {&#58;}

The empty string is an empty part; None is `None`, and the text "None" is `/None`.

On a cluster a hash tag and a colon stand before all of it, before the namespace too: `{Model}:`, or `{Model:shard}:`
for a model with `Meta.shard_by`. All keys of one tag lie in one slot, on one node. Nothing that comes after can be
taken for a tag, since the first braces of a key count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, time, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from typing import Any
from urllib.parse import quote

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


def escape_start(text: str) -> str:
    """Return what each part begins with that stands for a text that begins with this one; but "None" is `/None`."""
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
    """Return the part of an index key that stands for a value; for a Reference, its key without namespace and tag."""
    return "None" if value is None else escape(index_text(getattr(value, "local", value)))


def field_prefix(class_name: str) -> str:
    """Return the prefix of a field class's index keys: `$` + name without outer letters of "Field" + `F`."""
    return "$" + class_name.strip("Field") + "F"


def hash_tag(model: str, shard: str | None = None) -> str:
    """Return what stands before a key on a cluster: the hash tag of a model, or of one of its shards, and a colon.

    Percent-encoded, so that no name or value can end the tag, and different ones have different tags.

    Args:
        shard: the value of the shard field as the part of a record's key (see `key_part`).
    """
    if shard is None:
        return "{" + quote(model, safe="") + "}:"
    value = "!" if shard == "None" else quote(unescape(shard), safe="", errors="surrogatepass")
    return "{" + quote(model, safe="") + ":" + value + "}:"


_shard_parts: dict[str, int] = {}  # model name, escaped -> which part of its records' keys names the shard


def shard_by_part(model: str, position: int | None) -> None:
    """Note which part of a record's key names the shard (the model's name is part 0); None: the model has one shard."""
    _shard_parts.pop(escape(model), None)
    if position is not None:
        _shard_parts[escape(model)] = position


def tag_of_record(local: str) -> str:
    """Return the hash tag (and colon) of the record with this key, given without tag and namespace."""
    parts = local.split(":")
    position = _shard_parts.get(parts[0])
    return hash_tag(unescape(parts[0]), parts[position] if position is not None and position < len(parts) else None)


def local_key(namespace: str, redis_key: str) -> str:
    """Return a record's key without hash tag and namespace: what other records keep of it to refer to it."""
    return redis_key[len(front_of(redis_key)) :].removeprefix(namespace)


def whole_key(namespace: str, local: str, tagged: bool = False) -> str:
    """Return the record's key that `local_key` made shorter; `tagged`: as on a cluster."""
    return (tag_of_record(local) if tagged else "") + namespace + local


def front_of(key: str) -> str:
    """Return the hash tag and the colon that a key begins with, or "" where it has none."""
    return key[: key.index("}:") + 2] if key[:1] == "{" and "}:" in key else ""


class ModelKeys:
    """The keys of one model in one namespace.

    Attributes:
        namespace: what stands before each key: the hash tag (on a cluster) and the namespace.
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

    def parts_of(self, redis_key: str) -> list[str] | None:
        """Return the parts of a record's key, escaped: the model's name and the key fields; None for a foreign key."""
        if not redis_key.startswith(self.record + ":"):
            return None
        return redis_key[len(self.namespace) :].split(":")

    @property
    def front(self) -> str:
        """The hash tag and the colon before each key, or ""."""
        return front_of(self.namespace)

    def local(self, redis_key: str) -> str:
        """Return a record's key without hash tag and namespace: what other records keep of it to refer to it."""
        return redis_key[len(self.namespace) :]

    def whole(self, local: str) -> str:
        """Return the record's key that `local` made shorter."""
        return self.namespace + local

    def index(self, prefix: str, field_name: str, *values: Any) -> str:
        """Return the index key of a field for these values or partition."""
        return ":".join([self.base(prefix, field_name), *map(index_part, values)])

    def stream(self, name: str) -> str:
        """Return the event stream of this name; that of a partition has a colon and the value behind it."""
        return f"{self.namespace}stream:{name}"

    def migration(self, name: str) -> str:
        """Return the hash that says how far a migration of the model is."""
        return f"{self.namespace}$Migration::{self.model}:{escape(name)}"


def composite_name(names: Iterable[str]) -> str:
    """Return what stands in the place of a field in the key of a composite index."""
    return ":".join(names)


def composite_set(base: str, parts: Iterable[str]) -> str:
    """Return the set of records of one combination (see kind_composite.lua)."""
    return f"{base}::{':'.join(parts)}"


def list_key(record_key: str, field_name: str) -> str:
    """Return the list of a record's capped list field (see kind_list.lua)."""
    return f"{record_key}::{field_name}"


def shared_key(sorted_set: str) -> str:
    """Return the set of records whose value is not the one its score stands for (see kind_zset.lua)."""
    return sorted_set + "::shared"


def occupancy_key(record_key: str) -> str:
    """Return the side key that lists what a record occupies, where that is not implied (see lib_occupancy.lua)."""
    return record_key + "::$occ"


def shapes_key(order: str) -> str:
    """Return the string of a model's shapes, beside its order by name (see lib_occupancy.lua)."""
    return order + "::shapes"


def dead_letter_key(stream: str, namespace: str) -> str:
    """Return the stream of the entries of `stream` that could not be handled."""
    front = front_of(stream)
    if stream.startswith(front + namespace):
        front += namespace
    return f"{front}dead:{stream[len(front) :]}"


def stream_errors_key(dead_letters: str, group: str) -> str:
    """Return the hash of what handlers of a group last failed with, beside its dead letters (see fetch.lua)."""
    return f"{dead_letters}::errors:{escape(group)}"


def stream_sentinel_key(dead_letters: str) -> str:
    """Return a key beside a stream's dead letters that is never written; in KEYS of each script on streams."""
    return f"{dead_letters}::$sentinel"


def shards_key(namespace: str, model: str) -> str:
    """Return the set of the hash tags of a model's shards."""
    return f"{namespace}$Shards:{escape(model)}"


def claim_key(namespace: str, model: str, field: str, value: str) -> str:
    """Return the hash that says which record owns a unique value, in a slot of its own; `value`: its part of a key."""
    tag = hash_tag(f"{model}:{field}:{value}")
    return f"{tag}{namespace}$Claim:{escape(model)}:{field}:{value}"


def claim_sentinel_key(claim: str) -> str:
    """Return a key beside a claim that is never written; in KEYS of each script on claims."""
    return f"{claim}::$sentinel"


def token_key(namespace: str, token: str) -> str:
    """Return the key under which the reply of a call is kept for a repeat of it."""
    return f"{namespace}$Token:{token}"


@lru_cache(maxsize=65536)
def model_keys(namespace: str, model: str, tag: str = "") -> ModelKeys:
    """Return the keys of a model in a namespace; behind a hash tag, on a cluster (see `hash_tag`)."""
    return ModelKeys(tag + namespace, model)
