"""Lua scripts: one operation a file, composed of shared fragments, sent by hash.

NOSCRIPT can come at any time (restart, failover, SCRIPT FLUSH) and means that the command did not run. A single call
then sends the source. In a pipeline a resent command would run out of order, so there the first use of a script travels
as EVAL with its source and the following ones as EVALSHA.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from importlib.resources import files
from typing import Any, ClassVar

from redis.cluster import ClusterPipeline

_FRAGMENT = re.compile(r"^LIB_(\w+)$", re.MULTILINE)
_kinds: dict[tuple[str, str], tuple[str, ...]] = {}


def read_lua(package: str, name: str) -> str:
    """Return the text of `package`/lua/`name`.lua."""
    return files(package).joinpath("lua").joinpath(f"{name}.lua").read_text("utf-8")


class Script:
    """A server script. `source` and `sha` are built at first use, when every entry kind is registered.

    Args:
        package: package whose folder `lua` holds the file.
        name: file name without `.lua`.
        fragments: (package, name) of fragments that go before it (of a kind's too, when the script calls its
            helpers). A line `LIB_X` in the file is replaced by the ORM's fragment `lib_x`.
        with_kinds: True puts lib_record and every registered entry kind before it.
        flags: "no-writes" for a script that only reads: it then also runs on a replica and on a full server.
            "allow-oom" for one that frees memory.
    """

    _all: ClassVar[list[Script]] = []

    def __init__(
        self,
        package: str,
        name: str,
        fragments: tuple[tuple[str, str], ...] = (),
        with_kinds: bool = False,
        flags: str = "",
    ) -> None:
        self.package, self.name = package, name
        self._fragments, self._with_kinds = fragments, with_kinds
        self._first_line = f"#!lua flags={flags}\n" if flags else "#!lua\n"
        Script._all.append(self)

    def variant(self, *fragments: tuple[str, str]) -> Script:
        """Return a script of the same file with further fragments before it."""
        made = Script(self.package, self.name, (*self._fragments, *fragments), self._with_kinds)
        made._first_line = self._first_line
        return made

    @cached_property
    def source(self) -> str:
        pieces = []
        if self._with_kinds:
            pieces.append(_with_fragments(read_lua("popoto.orm", "lib_record")))
            pieces += [_lazy(*kind, letters) for kind, letters in _kinds.items() if kind not in self._fragments]
        pieces += [_with_fragments(read_lua(*fragment)) for fragment in self._fragments]
        pieces.append(_with_fragments(read_lua(self.package, self.name)))
        return self._first_line + _strip("\n".join(pieces))

    @cached_property
    def sha(self) -> str:
        return hashlib.sha1(self.source.encode()).hexdigest()

    @property
    def reads_indexes(self) -> bool:
        """True when what it reads are records and their indexes: no streams."""
        return self.package in ("popoto.orm", "popoto.memory")

    def __repr__(self) -> str:
        return f"<Script {self.package}/{self.name}>"

    def _forget(self) -> None:
        self.__dict__.pop("source", None)
        self.__dict__.pop("sha", None)


def _with_fragments(body: str) -> str:
    """Return the text with each line `LIB_X` replaced by the ORM's fragment `lib_x`, which may hold such lines."""
    return _FRAGMENT.sub(lambda match: _with_fragments(read_lua("popoto.orm", f"lib_{match.group(1).lower()}")), body)


def _strip(source: str) -> str:
    """Drop whole-line comments and blank lines: they cost bytes on the wire and nothing reads them there."""
    kept = (line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("--"))
    return "\n".join(kept) + "\n"


def _lazy(package: str, name: str, letters: tuple[str, ...]) -> str:
    """Return a kind's fragment in a function that lib_record calls when one of its kinds is asked for."""
    first = f"lazy['{letters[0]}']"
    also = "".join(f"lazy['{letter}'] = {first}\n" for letter in letters[1:])
    return f"{first} = function()\n{read_lua(package, name)}\nend\n{also}"


def register_kind(package: str, name: str, *letters: str) -> None:
    """Make entry kinds known to commit and remove.

    Args:
        package, name: the fragment `package`/lua/`name`.lua, which fills `kinds` (see lib_record.lua).
        letters: the kinds that it fills, e.g. "b".
    """
    if _kinds.get((package, name)) != letters:
        _kinds[package, name] = letters
        for script in Script._all:
            script._forget()


register_kind("popoto.orm", "kind_set", "s", "u", "t", "tu")
register_kind("popoto.orm", "kind_zset", "z")
register_kind("popoto.orm", "kind_companion", "h")


def evalsha_or_source(script: Script, pipeline: Any) -> tuple[str, str]:
    """Return ("EVAL", source) at the first use of a script in a pipeline's batch, ("EVALSHA", sha) afterwards.

    Always the source for the pipeline of a cluster, whose commands go to nodes that may change until they are sent.
    """
    stack = getattr(pipeline, "command_stack", None)
    if not isinstance(stack, list) or isinstance(pipeline, ClusterPipeline):
        return "EVAL", script.source
    mark = getattr(pipeline, "_popoto_scripts", None)
    if mark is None or mark[0] is not stack or not stack:
        known: set[str] = set()
        mark = (stack, known)
        pipeline._popoto_scripts = mark
    if script.sha in mark[1]:
        return "EVALSHA", script.sha
    mark[1].add(script.sha)
    return "EVAL", script.source
