"""Popoto: memory for LLM agents, made of fields on ordinary models, on a fast ORM over Redis/Valkey."""

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from popoto.configuration import configure
from popoto.exceptions import (
    AlreadyExistsError,
    ConnectionSettingsError,
    KeyMutationError,
    ModelException,
    PopotoException,
    PublisherException,
    QueryException,
    RecordGoneError,
    SkipSaveException,
    StaleRecordError,
    SubscriberException,
    UnknownOutcomeError,
)
from popoto.memory.access import AccessTrackerMixin
from popoto.memory.bm25 import BM25Field
from popoto.memory.co_occurrence import CoOccurrenceField
from popoto.memory.confidence import ConfidenceField
from popoto.memory.cyclic import CyclicDecayField
from popoto.memory.decay import DecayingSortedField
from popoto.memory.defaults import Defaults, InteractionWeight, TemporalPeriod
from popoto.memory.existence import ExistenceFilter
from popoto.memory.frequency import FrequencySketch
from popoto.memory.model import Model
from popoto.memory.observation import ObservationProtocol
from popoto.memory.prediction import PredictionLedgerMixin
from popoto.memory.proposals import RecallProposal
from popoto.memory.write_filter import WriteFilterMixin
from popoto.monitoring import enable_error_reporting
from popoto.orm.aggregates import Avg, Count, Max, Min, Sum
from popoto.orm.event_stream import EventStreamMixin
from popoto.orm.expressions import CombinedExpression, Expression
from popoto.orm.fields.base import Field
from popoto.orm.fields.datetime import DatetimeField
from popoto.orm.fields.geo import GeoField
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import AutoKeyField, KeyField, UniqueKeyField
from popoto.orm.fields.relationship import Relationship
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
from popoto.orm.ordering import F
from popoto.orm.q import Q
from popoto.pubsub.publisher import Publisher
from popoto.pubsub.subscriber import Subscriber
from popoto.recipes.context_assembler import AssemblyResult, ContextAssembler
from popoto.redis_db import POPOTO_REDIS_DB, get_async_redis_db, get_redis
from popoto.streams.consumer import StreamConsumer

try:
    __version__ = _version("popoto")
except _PackageNotFoundError:  # an uninstalled source tree
    __version__ = "0.0.0+unknown"

__all__ = [
    "POPOTO_REDIS_DB",
    "AccessTrackerMixin",
    "AlreadyExistsError",
    "AssemblyResult",
    "AutoKeyField",
    "Avg",
    "BM25Field",
    "BooleanField",
    "BytesField",
    "CoOccurrenceField",
    "CombinedExpression",
    "ConfidenceField",
    "ConnectionSettingsError",
    "ContextAssembler",
    "Count",
    "CyclicDecayField",
    "DateField",
    "DatetimeField",
    "DecayingSortedField",
    "DecimalField",
    "Defaults",
    "DictField",
    "EventStreamMixin",
    "ExistenceFilter",
    "Expression",
    "F",
    "Field",
    "FloatField",
    "FrequencySketch",
    "GeoField",
    "IndexedField",
    "IntField",
    "InteractionWeight",
    "KeyField",
    "KeyMutationError",
    "ListField",
    "Max",
    "Min",
    "Model",
    "ModelBase",
    "ModelException",
    "ObservationProtocol",
    "PopotoException",
    "PredictionLedgerMixin",
    "Publisher",
    "PublisherException",
    "Q",
    "QueryException",
    "RecallProposal",
    "RecordGoneError",
    "Relationship",
    "SetField",
    "SkipSaveException",
    "SortedField",
    "SortedKeyField",
    "StaleRecordError",
    "StreamConsumer",
    "StringField",
    "Subscriber",
    "SubscriberException",
    "Sum",
    "TemporalPeriod",
    "TimeField",
    "TupleField",
    "UniqueField",
    "UniqueKeyField",
    "UnknownOutcomeError",
    "WriteFilterMixin",
    "configure",
    "enable_error_reporting",
    "get_async_redis_db",
    "get_redis",
]
