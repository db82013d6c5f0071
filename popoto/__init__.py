"""Popoto: memory for LLM agents, made of fields on ordinary models, on a fast ORM over Redis/Valkey."""

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from popoto.configuration import configure
from popoto.exceptions import (
    ConnectionSettingsError,
    KeyMutationError,
    ModelException,
    PopotoException,
    PublisherException,
    QueryException,
    SkipSaveException,
    SubscriberException,
    UnknownOutcomeError,
)
from popoto.memory.bm25 import BM25Field
from popoto.memory.confidence import ConfidenceField
from popoto.memory.decay import DecayingSortedField
from popoto.memory.defaults import Defaults, InteractionWeight, TemporalPeriod
from popoto.memory.model import Model
from popoto.orm.fields.base import Field
from popoto.orm.fields.datetime import DatetimeField
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import AutoKeyField, KeyField, UniqueKeyField
from popoto.orm.fields.sorted import SortedField, SortedKeyField
from popoto.orm.fields.typed import (
    BooleanField,
    BytesField,
    DateField,
    DecimalField,
    DictField,
    FloatField,
    IntField,
    ListField,
    SetField,
    StringField,
    TimeField,
    TupleField,
)
from popoto.orm.metaclass import ModelBase
from popoto.pubsub.publisher import Publisher
from popoto.pubsub.subscriber import Subscriber
from popoto.recipes.context_assembler import AssemblyResult, ContextAssembler
from popoto.redis_db import POPOTO_REDIS_DB, get_async_redis_db, get_redis

try:
    __version__ = _version("popoto")
except _PackageNotFoundError:  # an uninstalled source tree
    __version__ = "0.0.0+unknown"

__all__ = [
    "POPOTO_REDIS_DB",
    "AssemblyResult",
    "AutoKeyField",
    "BM25Field",
    "BooleanField",
    "BytesField",
    "ConfidenceField",
    "ConnectionSettingsError",
    "ContextAssembler",
    "DateField",
    "DatetimeField",
    "DecayingSortedField",
    "DecimalField",
    "Defaults",
    "DictField",
    "Field",
    "FloatField",
    "IndexedField",
    "IntField",
    "InteractionWeight",
    "KeyField",
    "KeyMutationError",
    "ListField",
    "Model",
    "ModelBase",
    "ModelException",
    "PopotoException",
    "Publisher",
    "PublisherException",
    "QueryException",
    "SetField",
    "SkipSaveException",
    "SortedField",
    "SortedKeyField",
    "StringField",
    "Subscriber",
    "SubscriberException",
    "TemporalPeriod",
    "TimeField",
    "TupleField",
    "UniqueField",
    "UniqueKeyField",
    "UnknownOutcomeError",
    "configure",
    "get_async_redis_db",
    "get_redis",
]
