"""Keys as one server has them <-> keys as a cluster has them: the hash tag put before them, and taken off."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from typing import Any

import msgpack  # type: ignore[import-untyped]

from popoto.orm.keys import escape, hash_tag
from popoto.orm.metaclass import _models

_ANY_TAG = re.compile(rb"\{[\w.%:!~-]+\}:")
_OF_LOCAL_KEYS = ("$KeyF", "$RelationshipF")  # indexes whose values are not tagged
PACKED = ("::$occ", "::shapes")  # the ends of keys whose values are packed and name indexes
_seen: dict[str, str] = {}
_KEY = re.compile(r"(?:\$\w+:)?([^:]+)(?::|$)")


def _names() -> dict[str, str]:
    """Return the names of models as keys have them -> as they are; of those too that a test let go."""
    _seen.update((escape(name), name) for name in list(_models) if name not in _seen)
    return _seen


def tagged(key: str) -> str:
    """Return a key of one server as a cluster has it; what is no model's key stays."""
    found = _KEY.match(key)
    names = _names()
    if not found or found[1] not in names or _ANY_TAG.match(key.encode("utf-8", "surrogateescape")):
        return key
    front = hash_tag(names[found[1]])
    inner = key.rfind(f":{found[1]}:", found.end(1)) if key.startswith("$") else -1
    if inner > 0 and key[inner - 1] != "}" and not key.startswith(_OF_LOCAL_KEYS):  # a record's key stands in it
        key = f"{key[: inner + 1]}{front}{key[inner + 1 :]}"
    return front + key


def to_nodes(value: Any) -> Any:
    if isinstance(value, str):
        return tagged(value)
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return tagged(value.decode()).encode()
        return value
    if isinstance(value, (list, tuple, set)):
        return type(value)(map(to_nodes, value))
    if isinstance(value, dict):
        return {to_nodes(name): item for name, item in value.items()}
    return value


@functools.lru_cache(maxsize=4)
def _tags_of(names: tuple[str, ...]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(re.escape(hash_tag(name).encode()) for name in names))


def without_tag(text: bytes) -> bytes:
    """Return the text without the tags of models; what a value has in braces stays."""
    return _tags_of(tuple(_names().values())).sub(b"", text) if b"}:" in text else text


def from_nodes(value: Any) -> Any:
    if isinstance(value, bytes):
        return without_tag(value)
    if isinstance(value, str):
        return without_tag(value.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
    if isinstance(value, (list, tuple, set)):
        return type(value)(map(from_nodes, value))
    if isinstance(value, dict):
        return {from_nodes(name): from_nodes(item) for name, item in value.items()}
    return value


def repacked(value: Any, translated: Callable[[Any], Any]) -> Any:
    """Return packed lists with the keys in them translated, which are of another length then; other values too."""
    if isinstance(value, bytes):
        unpacker = msgpack.Unpacker(unicode_errors="surrogateescape")
        unpacker.feed(value)
        with contextlib.suppress(ValueError, msgpack.UnpackException):
            lists = list(unpacker)
            if all(isinstance(one, list) for one in lists):
                return b"".join(msgpack.packb(translated(one), unicode_errors="surrogateescape") for one in lists)
    return translated(value)


def shown_dump(stored: Any) -> Any:
    """Return what `oracle.dump` gave of a cluster as it would be of one server."""
    return {
        from_nodes(key): (
            kind,
            repacked(held, from_nodes) if key.decode(errors="replace").endswith(PACKED) else from_nodes(held),
            at,
        )
        for key, (kind, held, at) in stored.items()
    }
