"""The suite on a cluster: `make test-cluster`.

The tests look at keys as one server has them ("User:alice"). So the hash tag is put before the keys that a test gives,
to the client or to a call of the package, and taken off what a test gets: replies, results, keys of records, texts of
errors. The package itself sees the keys of a cluster; whether a test asks is told by the module of the calling frame.
What is by nature of one server is skipped, with its reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import logging
import re
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from popoto import redis_db
from popoto.memory.access import AccessTrackerMixin
from popoto.memory.bm25 import BM25Field
from popoto.memory.co_occurrence import CoOccurrenceField
from popoto.memory.confidence import ConfidenceField
from popoto.memory.confidence_migration import PartitionMigration
from popoto.memory.cyclic import CyclicDecayField
from popoto.memory.existence import ExistenceFilter
from popoto.memory.frequency import FrequencySketch
from popoto.memory.observation import ObservationProtocol
from popoto.memory.prediction import PredictionLedgerMixin
from popoto.memory.proposals import RecallProposal
from popoto.memory.rankings import Rankings
from popoto.memory.why_not import WhyNot
from popoto.orm import query, shards
from popoto.orm.builder import QueryBuilder
from popoto.orm.bulk import BulkOperations
from popoto.orm.bulk_created import CreatedRecords
from popoto.orm.commands import Command
from popoto.orm.db_key import DB_key
from popoto.orm.event_stream import EventStreamMixin
from popoto.orm.keys import ModelKeys, unescape
from popoto.orm.maintenance import IndexMaintenance
from popoto.orm.maintenance_rebuild import Rebuilt
from popoto.orm.model import Model
from popoto.orm.options import ModelOptions
from popoto.orm.record import Record
from popoto.orm.shortcuts import Shortcuts
from popoto.orm.upsert import Upsert
from popoto.recipes.context_assembler import AssemblyResult, ContextAssembler
from tests.cluster.nodes import Cluster
from tests.cluster.tags import PACKED, from_nodes, repacked, shown_dump, tagged, to_nodes
from tests.conftest import Server, engine_binary

_OF_ONE_SERVER = {"info", "monitor", "config_get", "client_list", "memory_usage", "select", "connection_pool"}
_ELSEWHERE = "its hook writes a key of its own, which lies in another slot; docs/cluster.md says how to name it"
SKIPPED = {  # tests, or files of tests
    "test_filter_hooks.py": _ELSEWHERE,
    "test_a_relationship_is_an_instance_a_key_or_none": "dicts have keys as they are; tests/orm looks at those too",
    "test_the_test_helpers_switch_to_a_test_database": "a cluster has one database",
    "test_hooks_run_as_in_save_and_a_skipped_record_is_left_out": _ELSEWHERE,
    "test_an_update_runs_the_hooks_of_the_fields_it_names": _ELSEWHERE,
    "test_deletes_run_the_hooks": _ELSEWHERE,
    "test_a_save_and_delete_of_the_models_own_are_called_for_each_record": _ELSEWHERE,
    "test_hooks_run_with_the_save_and_the_delete": _ELSEWHERE,
    "test_hooks_of_a_refused_save_run_nothing": _ELSEWHERE,
    "test_hooks_run_in_a_callers_pipeline_too": _ELSEWHERE,
    "test_a_hook_may_queue_any_value_a_client_takes": _ELSEWHERE,
    "test_a_walk_goes_on_at_its_place_whatever_came_or_went_meanwhile": "it runs Lua that names no key",
    "test_a_foreign_key_in_place_of_the_stream_refuses_the_change_whole": "the name of a stream tells of no model",
    "test_exact_filters_on_all_fields_are_answered_by_the_index": "it looks at the statistics of one server",
    "test_touch_does_not_revive_a_record_that_is_gone": "it counts all keys, those that are kept for repeats too",
}


class UntaggedClient:
    """The cluster's client, for tests that spell keys as one server has them."""

    def __init__(self, client: Any) -> None:
        self.plain = client
        self._listed: dict[bytes, bytes] = {}  # what keys() gave -> the keys themselves

    def keys(self, pattern: Any = "*") -> Any:
        text = pattern if isinstance(pattern, str) else pattern.decode()
        found = []
        for one in {text, f"{{*}}:{text}"}:
            found += self.plain.keys(one, target_nodes=redis.RedisCluster.PRIMARIES)
        self._listed.update((from_nodes(key), key) for key in found)
        return sorted({from_nodes(key) for key in found})

    def _placed(self, key: Any) -> Any:
        """Return the key that a call is about; one whose name tells of no model as it was, or is, listed."""
        name = key.encode() if isinstance(key, str) else key
        if isinstance(name, bytes) and name.startswith((b"stream:", b"dead:")):
            self.keys(name.decode())
        return self._listed.get(name, key) if isinstance(name, bytes) else key

    def scan_iter(self, match: Any = "*", **options: Any) -> Any:
        return iter(self.keys(match))

    def pipeline(self, *args: Any, **options: Any) -> Any:
        pipeline = self.plain.pipeline()
        pipeline.__class__ = UntaggedPipeline
        return pipeline

    def mset(self, values: Any) -> Any:
        for key, value in values.items():  # it may be several slots
            self.plain.set(to_nodes(key), value)
        return True

    def __getattr__(self, name: str) -> Any:
        if name in _OF_ONE_SERVER:
            pytest.skip(f"the test looks at {name} of one server, and a cluster has several")
        method = getattr(self.plain, name)
        if not callable(method):
            return method

        def called(*args: Any, **options: Any) -> Any:
            args = (*map(self._placed, args[:1]), *args[1:])
            if name in ("get", "set") and str(args[0]).endswith(PACKED):
                return repacked(
                    method(to_nodes(args[0]), *(repacked(value, to_nodes) for value in args[1:])), from_nodes
                )
            reply = method(*to_nodes(args), **{name: to_nodes(value) for name, value in options.items()})
            return from_nodes(reply)

        return called


class UntaggedPipeline(redis.cluster.ClusterPipeline):
    """The cluster's pipeline; what a test itself queues has no tags."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or not callable(found) or not _asked_by_a_test():
            return found
        return _both_ways(found, always=True, given=to_nodes)


class ClusterAsServer(Server):
    """Three masters in the place of the one server of a test."""

    def __init__(self) -> None:
        self.cluster = Cluster(engine_binary())
        self.url = self.cluster.url

    def emptied(self) -> UntaggedClient:
        settings = redis_db._chosen
        if settings is None or {port for _, port in settings.nodes} != {node.port for node in self.cluster.nodes}:
            redis_db.configure_url(self.url)  # a new client asks every node for its table of commands
        redis_db._namespace = ""
        shards._entered.clear()
        self.cluster.flush()
        return UntaggedClient(redis_db.get_REDIS_DB())

    def __getattr__(self, name: str) -> Any:
        pytest.skip(f"the test asks for the {name} of one server, and a cluster has several")


# -- the package, as the tests see it ----------------------------------------------------------------------------------

_TESTS = ("tests.orm.", "tests.memory.", "tests.recipes.", "tests.reference.")
_CALLS = (  # classes whose public calls take keys or give them
    AccessTrackerMixin,
    BM25Field,
    CoOccurrenceField,
    ConfidenceField,
    ContextAssembler,
    CyclicDecayField,
    EventStreamMixin,
    ExistenceFilter,
    FrequencySketch,
    ObservationProtocol,
    PartitionMigration,
    PredictionLedgerMixin,
    Rankings,
    RecallProposal,
)
_ATTRIBUTES = (
    (Record, "pk"),
    (Record, "_redis_key"),
    (Record, "obsolete_redis_key"),
    (DB_key, "redis_key"),
    (ModelOptions, "keys"),
    (ModelOptions, "db_class_set_key"),
)
_OF_KEYS = re.compile("(async_)?(bulk_|raw_update|check_|clean_|rebuild_|load)")  # calls of models: keys both ways
_OF_VALUES = re.compile("(async_)?(save|create|delete|atomic_|update_or_|get_or_)")  # only their errors name keys
_ORACLE = "tests.orm.oracle"  # it compares what lies in the database, all of it spelled as on a cluster
_OF_THE_DATABASE = {"content", "dump", "nothing_left", "stored_records"}  # of the oracle: what tests ask
_IMPORTED = ("popoto.memory", "popoto.orm.fetching", "popoto.recipes", "popoto.redis_db")  # of what tests import
_MADE_OF_KEYS = (WhyNot, AssemblyResult)
_RECORD = re.compile(r"(?:\$\w+:)?[^:]+:")


def _asked_by_a_test() -> bool:
    name = sys._getframe(2).f_globals.get("__name__", "")
    return name.startswith(_TESTS) and name != _ORACLE


def _given(value: Any) -> Any:
    """Return an argument of a test with the keys of records as a cluster has them."""
    kind = type(value)
    if kind is UntaggedClient:
        return value.plain
    if kind is str:
        return tagged(value) if _RECORD.match(value) else value
    if kind is bytes:
        with contextlib.suppress(UnicodeDecodeError):
            return _given(value.decode()).encode()
        return value
    if kind in (list, tuple, set, frozenset):
        made = kind(map(_given, value))
        return value if made == value else made  # a call may fill what it was given
    if kind is dict:
        made = {_given(name): _given(item) for name, item in value.items()}
        return value if made == value else made
    if kind is types.FunctionType and (value.__module__ or "").startswith(_TESTS):
        return lambda *args: value(*map(_shown, args))  # called by the package
    return value


def _shown(value: Any) -> Any:
    """Return a result for a test with keys as one server has them."""
    if isinstance(value, ModelKeys):
        return ModelKeys(value.namespace[len(value.front) :], unescape(value.model))
    if isinstance(value, Command):
        return dataclasses.replace(value, parse=lambda reply: _shown(value.parse(reply)))
    if isinstance(value, _MADE_OF_KEYS):
        return dataclasses.replace(value, **{f.name: _shown(getattr(value, f.name)) for f in dataclasses.fields(value)})
    if isinstance(value, Rebuilt):
        return Rebuilt.of(int(value), from_nodes(value.skipped), from_nodes(value.conflicts))
    if type(value) in (str, bytes, list, tuple, set, dict):
        return from_nodes(value)
    return value


@contextlib.contextmanager
def _errors_shown() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.args = tuple(map(_shown, error.args))
        raise


async def _awaited(coroutine: Any) -> Any:
    with _errors_shown():
        return _shown(await coroutine)


def _stepped(steps: Any) -> Any:
    with _errors_shown():
        return _shown((yield from steps))


def _both_ways(
    call: Callable[..., Any],
    always: bool = False,
    given: Callable[[Any], Any] = _given,
    shown: Callable[[Any], Any] = _shown,
) -> Any:
    """Return a call that, asked by a test, takes and gives keys as one server has them."""

    @functools.wraps(call)
    def called(*args: Any, **options: Any) -> Any:
        if not always and not _asked_by_a_test():
            return call(*args, **options)
        with _errors_shown():
            result = call(*map(given, args), **{name: given(value) for name, value in options.items()})
        if inspect.iscoroutine(result):
            return _awaited(result)
        return _stepped(result) if inspect.isgenerator(result) else shown(result)

    return called


def _wrapped(member: Any, **options: Any) -> Any:
    if isinstance(member, (classmethod, staticmethod)):
        return type(member)(_both_ways(member.__func__, **options))
    return _both_ways(member, **options)


class _Kept:
    """An attribute of instances that holds keys, which a test sees as one server has them."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        kept = None if instance is None else instance.__dict__.get(self._name)
        return _shown(kept) if kept is not None and _asked_by_a_test() else kept

    def __set__(self, instance: Any, kept: Any) -> None:
        instance.__dict__[self._name] = kept


def _attribute(getter: Any) -> Any:
    def read(self: Any) -> Any:
        value = getter.fget(self)
        return _shown(value) if value is not None and _asked_by_a_test() else value

    return property(read)


class _LogShown(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = from_nodes(record.getMessage()), ()
        return True


def _show_keys_as_one_server(patch: pytest.MonkeyPatch) -> None:
    """Let tests give and get keys without a tag."""
    for owner in _CALLS:
        for name, member in list(vars(owner).items()):
            if not name.startswith("_") and isinstance(member, (types.FunctionType, classmethod, staticmethod)):
                patch.setattr(owner, name, _wrapped(member))
    for owner, name in _ATTRIBUTES:
        patch.setattr(owner, name, _attribute(vars(owner)[name]))
    patch.setattr(Record, "_saved_key", _Kept("_saved_key"))
    patch.setattr(CreatedRecords, "keys", _Kept("keys"), raising=False)
    for owner in (Record, Model, BulkOperations, IndexMaintenance, Upsert):
        for name, member in list(vars(owner).items()):
            if isinstance(member, (types.FunctionType, classmethod)) and _OF_KEYS.match(name):
                patch.setattr(owner, name, _wrapped(member))
            elif isinstance(member, (types.FunctionType, classmethod)) and _OF_VALUES.match(name):
                patch.setattr(owner, name, _wrapped(member, given=lambda value: value))
    for name in ("get_index_key", "keys_at", "keys_for", "record_key"):
        patch.setattr(ModelOptions, name, _both_ways(vars(ModelOptions)[name]))
    for name in ("maintenance", "memory", "model", "orm", "query", "recipes"):
        logging.getLogger(f"popoto.{name}").addFilter(_LogShown())
    for name in ("__str__", "__repr__"):
        patch.setattr(Record, name, _both_ways(vars(Record)[name]))
    patch.setattr(DB_key, "__str__", _both_ways(vars(DB_key)["__str__"]))
    for owner in (QueryBuilder, Shortcuts):
        for name in ("keys", "async_keys", "filter_for_keys_set", "async_filter_for_keys_set"):
            if name in vars(owner):
                patch.setattr(owner, name, _both_ways(vars(owner)[name], given=lambda value: value))
    client = redis_db.get_REDIS_DB

    def untagged() -> Any:
        return UntaggedClient(client()) if _asked_by_a_test() else client()

    patch.setattr(redis_db, "get_REDIS_DB", untagged)
    for module in [module for name, module in sys.modules.items() if name.startswith(_TESTS) and name != _ORACLE]:
        for name, member in list(vars(module).items()):
            if not isinstance(member, types.FunctionType):
                continue
            if member is client:
                patch.setattr(module, name, untagged)
            elif member.__module__.startswith(_IMPORTED) or (member.__module__ == _ORACLE and name in _OF_THE_DATABASE):
                patch.setattr(
                    module, name, _both_ways(member, always=True, shown=shown_dump if name == "dump" else _shown)
                )
    key_text = query._key_text
    patch.setattr(query, "_key_text", lambda key: tagged(key_text(key)))


@contextlib.contextmanager
def cluster_as_one_server() -> Iterator[ClusterAsServer]:
    """Start three masters; tests see keys without a tag meanwhile."""
    server = ClusterAsServer()
    try:
        with pytest.MonkeyPatch.context() as patch:
            _show_keys_as_one_server(patch)
            yield server
    finally:
        redis_db.close()
        server.cluster.remove()
