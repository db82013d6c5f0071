"""The folders are the architecture: who imports whom, how long a module is, where an exception is defined."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import popoto.orm

ROOT = Path(popoto.orm.__file__).resolve().parent.parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if "__pycache__" not in path.parts)

# from the ground up; a module may import its own floor and those below it
FLOORS = [
    {"exceptions", "redis_db", "_cluster_clients", "_connection_settings", "_embedded"}
    | {"_loop_clients", "_temporary_server", "_clock", "_pool"},
    {"orm"},
    {"memory", "embeddings", "stores", "configuration", "pubsub", "streams", "monitoring", "migrations"},
    {"recipes"},
    {"cli", "integrations", "adapters"},
]
# documented import paths that only hand names on, and what is used by tests: nothing of the house may import these
DOORS = {"", "fields", "models", "testing", "pytest_plugin"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> int | None:
    first = module.partition(".")[0]
    return next((number for number, floor in enumerate(FLOORS) if first in floor), None)


def imported(path: Path) -> set[str]:
    """Return what a module imports of the package, inside functions too; names without `popoto.`"""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = ["popoto", *filter(None, package.split("."))]
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            if base == "popoto":
                found |= {f"popoto.{alias.name}" for alias in node.names}
            else:
                found.add(base)
    return {name.removeprefix("popoto").removeprefix(".") for name in found if name.split(".")[0] == "popoto"}


HOUSE = [path for path in MODULES if name_of(path).partition(".")[0] not in DOORS and path.stem != "__main__"]


@pytest.mark.parametrize("path", HOUSE, ids=name_of)
def test_imports_point_one_way(path):
    floor = floor_of(name_of(path))
    assert floor is not None, f"popoto.{name_of(path)} stands on no floor of FLOORS; say where it belongs"
    for name in imported(path):
        below = floor_of(name)
        if floor == len(FLOORS) - 1 and below is None:
            continue  # the top floor uses the package as a user does
        assert below is not None, f"imports popoto.{name}, a door of the house for users"
        assert below <= floor, f"imports popoto.{name}, which stands above it"


def test_the_orm_runs_without_the_memory_on_top():
    orm = {name for path in HOUSE if floor_of(name_of(path)) == 1 for name in imported(path)}
    assert not {name for name in orm if name.split(".")[0] in {"memory", "recipes", "cli", "embeddings", "stores"}}
    memory = {name for path in HOUSE if name_of(path).startswith("memory") for name in imported(path)}
    assert not {name for name in memory if name.split(".")[0] in {"recipes", "cli"}}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: name_of(path) or "popoto")
def test_a_module_is_under_400_lines(path):
    lines = len(path.read_text("utf-8").splitlines())
    assert lines < 400, f"{lines} lines: which second idea has moved in?"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: name_of(path) or "popoto")
def test_a_module_says_what_it_is_about(path):
    text = path.read_text("utf-8")
    if text.strip() and path.name != "__main__.py":
        assert ast.get_docstring(ast.parse(text))


def test_each_exception_is_defined_once():
    places = defaultdict(set)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(name_of(path))
    exceptions = {
        node.name
        for node in ast.parse((ROOT / "exceptions.py").read_text("utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    assert exceptions and {name: places[name] for name in exceptions if places[name] != {"exceptions"}} == {}


def test_every_exception_has_the_one_root():
    from popoto import exceptions

    classes = [value for value in vars(exceptions).values() if isinstance(value, type)]
    assert all(issubclass(value, exceptions.PopotoException) for value in classes)
    assert issubclass(exceptions.KeyMutationError, exceptions.ModelException)


def test_the_documented_import_paths_give_the_same_classes():
    import popoto
    from popoto import exceptions

    for name in ("ModelException", "KeyMutationError", "QueryException", "PublisherException", "SubscriberException"):
        assert getattr(popoto, name) is getattr(exceptions, name)
