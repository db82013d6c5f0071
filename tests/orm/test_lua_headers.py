"""Each server script keeps to its header, compiles as it is composed, and searches no key space."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import popoto.orm
from popoto.orm import scripts

PACKAGE = Path(popoto.orm.__file__).resolve().parent.parent
FILES = sorted(PACKAGE.rglob("lua/*.lua"))
FRAGMENTS = [path for path in FILES if path.stem.startswith(("lib_", "kind_"))]
OPERATIONS = [path for path in FILES if path not in FRAGMENTS]

# keys that a script declares so that a cluster sends it to the right node, and may leave to what derives from them
DECLARED_ONLY = re.compile(r"sentinel|all records of the model|the same, all scores 0|records with a TTL")
INDEX = re.compile(r"\b(KEYS|ARGV)\[(\d+)\]")
COMPUTED_INDEX = re.compile(r"\b(KEYS|ARGV)\[[^\d\]][^\]]*\]")


def header_and_body(path: Path) -> tuple[str, str]:
    """Return the comment lines at the top, and what follows them without comments."""
    lines = path.read_text("utf-8").splitlines()
    end = next((at for at, line in enumerate(lines) if not line.startswith("--")), len(lines))
    body = "\n".join(line.partition("--")[0] for line in lines[end:])
    return "\n".join(lines[:end]), body


def every_script() -> list[scripts.Script]:
    """Return the scripts of all modules of the package, as they are composed when everything is imported."""
    import popoto as whole

    for module in pkgutil.walk_packages(whole.__path__, "popoto."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return scripts.Script._all


def name_of(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_header_begins_with_the_name_of_the_file_and_what_it_does(path):
    assert re.match(rf"-- {path.stem}: \S", path.read_text("utf-8"))


@pytest.mark.parametrize("path", OPERATIONS, ids=name_of)
def test_the_header_names_exactly_the_keys_and_arguments_that_the_body_reads(path):
    header, body = header_and_body(path)
    for kind in ("KEYS", "ARGV"):
        described = {int(n): line for line in header.splitlines() for n in re.findall(rf"^-- {kind}\[(\d+)\]", line)}
        open_ended = re.search(rf"^-- {kind}\[(\d+)\.\.\]", header, re.M)
        read = {int(n) for found, n in INDEX.findall(body) if found == kind}
        computed = any(match.group(1) == kind for match in COMPUTED_INDEX.finditer(body)) or f"#{kind}" in body
        if computed:
            assert open_ended or "follow" in header, f"{kind} are read by a computed place: say so, {kind}[n..]"
        if open_ended:
            described[int(open_ended.group(1))] = open_ended.group()
        assert sorted(described) == list(range(1, len(described) + 1)), f"{kind} are described from 1 on, none left out"
        assert read <= set(described), f"{kind} that the body reads and the header does not name"
        for place in set(described) - read:
            assert computed or (kind == "KEYS" and DECLARED_ONLY.search(described[place])), (
                f"{kind}[{place}] is not read"
            )


@pytest.mark.parametrize("path", OPERATIONS, ids=name_of)
def test_the_header_says_what_comes_back_what_can_go_wrong_and_what_it_costs(path):
    header, body = header_and_body(path)
    assert {"returns", "errors", "cost"} <= set(re.findall(r"^-- (\w+)  ", header, re.M))
    for code in re.findall(r"error_reply\('([A-Z]+) ", body):
        assert re.search(rf"\b{code}\b", header), f"the header does not name the error {code}"


@pytest.mark.parametrize("path", OPERATIONS, ids=name_of)
def test_the_keys_end_with_the_sentinel(path):
    header, _ = header_and_body(path)
    keys = re.findall(r"^-- KEYS\[.*(?:\n--\s{10,}.*)*", header, re.M)
    assert keys and "sentinel" in keys[-1]


@pytest.mark.parametrize("path", FRAGMENTS, ids=name_of)
def test_a_fragment_reads_no_key_or_argument_of_its_own(path):
    _, body = header_and_body(path)
    assert not INDEX.search(body) and not COMPUTED_INDEX.search(body)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_script_walks_the_key_space_or_asks_for_chance(path):
    _, body = header_and_body(path)
    called = {name.upper() for name in re.findall(r"p?call\(\s*['\"](\w+)['\"]", body)}
    assert not called & {"KEYS", "SCAN", "SSCAN", "HSCAN", "ZSCAN", "RANDOMKEY", "SRANDMEMBER", "FLUSHDB", "FLUSHALL"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_numbers_that_go_back_as_text_keep_every_digit(path):
    _, body = header_and_body(path)
    assert not re.search(r"%\.\d?[0-6]?g", body.replace("%.17g", "")), "%.17g keeps every digit of a double"


def test_every_operation_file_is_a_script_and_every_kind_is_registered():
    made = {(script.package, script.name) for script in every_script()}
    packages = {path: f"popoto.{path.parent.parent.name}" for path in FILES}
    assert {(packages[path], path.stem) for path in OPERATIONS} <= made
    kinds = {(packages[path], path.stem) for path in FRAGMENTS if path.stem.startswith("kind_")}
    assert kinds == set(scripts._kinds)


def test_every_composed_script_begins_with_lua_and_loads(server):
    for script in every_script():
        assert re.match(r"#!lua( flags=[a-z,-]+)?\n", script.source), script
        assert "LIB_" not in script.source, script
        assert server.script_load(script.source) == script.sha == hashlib.sha1(script.source.encode()).hexdigest()


def test_every_composed_script_stays_well_under_the_200_locals_of_a_lua_chunk():
    for script in every_script():
        names = 0
        for line in script.source.splitlines():
            if line.startswith("local function"):
                names += 1
            elif line.startswith("local "):
                names += line.partition("=")[0].count(",") + 1
        assert names < 150, f"{script} has {names}; the limit of Lua is 200"


def test_a_script_is_composed_anew_when_a_kind_is_registered(monkeypatch):
    script = scripts.Script("popoto.orm", "remove", with_kinds=True)
    try:
        first = dict([next(iter(scripts._kinds.items()))])
        monkeypatch.setattr(scripts, "_kinds", first)
        script._forget()
        before = script.sha
        scripts.register_kind("popoto.orm", "kind_zset", "z")
        assert script.sha != before and "kinds.z" in script.source
        again = script.sha
        scripts.register_kind("popoto.orm", "kind_zset", "z")
        assert script.sha == again
    finally:
        scripts.Script._all.remove(script)
        monkeypatch.undo()
        for other in scripts.Script._all:
            other._forget()
