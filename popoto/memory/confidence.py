"""ConfidenceField: how far a memory is believed, learnt from evidence.

    c  <-  clamp(c + (signal - c) / sqrt(evidence + 1), 0, 1);    evidence <- evidence + 1

The step shrinks with the square root of the evidence: early signals move the value far (the very first one replaces the
prior), a well-tried belief moves little. Source: the project's API reference, "ConfidenceField.update_confidence".

What is learnt lives beside the record, in a hash a partition: record key -> {confidence, evidence_count,
corroborations, contradictions}. It survives saves, follows the record to another partition or key, and goes with it. An
ordered set of the confidences stands beside it for ranking.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import msgpack

from popoto.exceptions import ModelException, QueryException
from popoto.memory.confidence_migration import PartitionMigration
from popoto.memory.defaults import Defaults
from popoto.memory.events import LoggedScript, packed_event
from popoto.memory.number import is_number
from popoto.orm.commands import Command, hash_of
from popoto.orm.drivers import adrive, arun, drive, run
from popoto.orm.fields.base import Field
from popoto.orm.fields.sorted import partition_names, partition_values, require_fields
from popoto.orm.keys import ModelKeys, index_part, occupancy_key
from popoto.orm.merging import asked, united
from popoto.orm.scripts import Script, register_kind
from popoto.orm.selection import Order, Selection
from popoto.orm.slots import Made, Slot

if TYPE_CHECKING:
    from popoto.orm.builder import QueryBuilder

_KIND = ("popoto.memory", "kind_confidence")
register_kind(*_KIND, "c")
UPDATE = LoggedScript(Script("popoto.memory", "update_confidence", (_KIND,), with_kinds=True))
READ = Script("popoto.memory", "read_confidence", (_KIND,), with_kinds=True, flags="no-writes")

_NAMES = ("confidence", "evidence_count", "corroborations", "contradictions")


class ConfidenceField(PartitionMigration, Field):
    """A belief between 0 and 1 with its evidence.

    Args:
        initial_confidence: what a record without evidence has; None follows `Defaults.INITIAL_CONFIDENCE`.
        partition_by: field name(s): one companion hash for each of their values.
        prior_strength: how many signals the start value counts as: the step is then divided by
            sqrt(prior_strength + evidence + 1), and no first signal replaces it whole. 0 or more.
    Raises: ModelException: a start value outside [0, 1], a wrong partition or strength.
    """

    valid_types: ClassVar[frozenset[type]] = frozenset({float})

    def __init__(
        self,
        *,
        initial_confidence: float | None = None,
        partition_by: str | tuple[str, ...] = (),
        prior_strength: float = 0.0,
        type: type = float,
        **options: Any,
    ) -> None:
        if not is_number(prior_strength) or prior_strength < 0:
            raise ModelException(f"{self._label()}: prior_strength= expected a number >= 0, got {prior_strength!r}.")
        self.prior_strength = float(prior_strength)
        if initial_confidence is not None and not _is_probability(initial_confidence):
            raise ModelException(
                f"{self._label()}: initial_confidence= expected a number from 0 to 1, got {initial_confidence!r}."
            )
        self._initial_confidence = initial_confidence
        self.partition_by = partition_names(self._label(), partition_by)
        options.setdefault("default", self._start)
        super().__init__(type=type, **options)

    def _start(self) -> float:
        return self.initial_confidence

    @property
    def initial_confidence(self) -> float:
        """The confidence of a record without evidence."""
        given = self._initial_confidence
        return float(Defaults.INITIAL_CONFIDENCE if given is None else given)

    def bind(self, model: Any) -> None:
        require_fields(self, model, "partition_by", self.partition_by)

    # -- storage ------------------------------------------------------------------------------------------------------

    def slots(self) -> list[Slot]:
        partition, name = self.partition_by, self.name

        def make(values: Mapping[str, Any]) -> Made | None:
            return [index_part(values[p]) for p in partition], False, packed_start(self._first(values.get(name)))

        # the field is a source of its own: a partial save that names it puts the learnt value back into the hash
        return [Slot(f"{name}#data", "c", self.field_class_key, f"{name}:data", partition, (name,), make)]

    def _first(self, value: Any) -> float:
        """A confidence given to the constructor is where the record starts, as long as it has no evidence."""
        return value if isinstance(value, float) and _is_probability(value) else self.initial_confidence

    def coerce(self, value: Any) -> Any:
        value = super().coerce(value)
        self.is_valid(self, value)
        return value

    @classmethod
    def is_valid(cls, field: Field, value: Any, null_check: bool = True, **kwargs: Any) -> bool:
        """Return True.

        Raises: ModelException: the value is no confidence.
        """
        if value is not None and not _is_probability(value):
            raise ModelException(f"{field._label()}: a confidence is a number from 0 to 1, got {value!r}.")
        return True

    def _data_key(self, keys: ModelKeys, parts: list[str]) -> str:
        return ":".join([keys.base(self.field_class_key, f"{self.name}:data"), *parts])

    def rank_base(self, keys: ModelKeys) -> str:
        """Return the key of the ordered sets of confidences, without the partition."""
        return self._data_key(keys, []) + "::rank"

    def rank_key(self, keys: ModelKeys, given: Mapping[str, Any], fields: Mapping[str, Field]) -> str:
        """Return the ordered set of confidences of the partition that a filter names.

        Raises: QueryException: a partition field has no exact filter.
        """
        values = partition_values(self.name, self.partition_by, given, fields)
        return ":".join([self.rank_base(keys), *map(index_part, values)])

    def get_data_hash_key(self, instance: Any, field_name: str) -> str:
        """Return the companion hash of an instance's current partition."""
        keys = instance._meta.keys_for(instance.__dict__)
        return self._data_key(keys, [index_part(instance.__dict__[p]) for p in self.partition_by])

    def get_old_data_hash_key(self, instance: Any, field_name: str) -> str | None:
        """Return the companion hash in which a stored record's data lies now, whatever its attributes say.

        None for a record that is not stored. It asks the server, for another process may have moved it.
        """
        return run(_place_command(self, instance)) if instance._is_persisted else None

    def get_data_hash_key_from_values(self, model_class: Any, field_name: str, **partition_values: Any) -> str:
        """Return the companion hash of a partition.

        Raises: QueryException: a partition field has no value.
        """
        missing = [p for p in self.partition_by if partition_values.get(p) is None]
        if missing:
            raise QueryException(
                f"'{field_name}' is partitioned by {', '.join(self.partition_by)}: give a value for "
                f"{', '.join(missing)}."
            )
        keys = model_class._meta.keys_for(partition_values)
        return self._data_key(keys, [index_part(partition_values[p]) for p in self.partition_by])

    # -- evidence -----------------------------------------------------------------------------------------------------

    @classmethod
    def update_confidence(cls, instance: Any, field_name: str, signal: float, pipeline: Any = None) -> float:
        """Fold one signal into the confidence, atomically; return the new value and set the attribute.

        Args:
            instance: a stored record.
            signal: 0 to 1; from 0.5 on it corroborates, below it contradicts.
            pipeline: taken for compatibility; the update runs at once, for it returns the new value.
        Raises: TypeError: the record is not stored, or the field is no ConfidenceField. ValueError: a signal out of
            range.
        """
        return run(update_command(instance, field_name, signal))

    @classmethod
    async def async_update_confidence(
        cls, instance: Any, field_name: str, signal: float, pipeline: Any = None
    ) -> float:
        """Await `update_confidence()`."""
        return await arun(update_command(instance, field_name, signal))

    @classmethod
    def get_confidence(cls, instance: Any, field_name: str) -> float:
        """Return the confidence as the server has it; the initial one for a record without data."""
        return float(run(_data_command(instance, field_name))["confidence"])

    @classmethod
    async def async_get_confidence(cls, instance: Any, field_name: str) -> float:
        """Await `get_confidence()`."""
        return float((await arun(_data_command(instance, field_name)))["confidence"])

    @classmethod
    def get_confidence_data(cls, instance: Any, field_name: str) -> dict[str, Any]:
        """Return {"confidence", "evidence_count", "corroborations", "contradictions"}."""
        return run(_data_command(instance, field_name))

    @classmethod
    async def async_get_confidence_data(cls, instance: Any, field_name: str) -> dict[str, Any]:
        """Await `get_confidence_data()`."""
        return await arun(_data_command(instance, field_name))

    @classmethod
    def get_confidence_filtered(
        cls, model_class: Any, field_name: str, pattern: str = "*", **partition: Any
    ) -> dict[str, Any]:
        """Return {record key: data} of the records whose key matches a glob, partition by partition (HSCAN).

        Args:
            partition: values of the partition fields; needed on a partitioned field.
        Raises: TypeError: the field is no ConfidenceField. QueryException: a partition field has no value.
        """
        return drive(_filtered_steps(model_class, field_name, pattern, partition))

    @classmethod
    async def async_get_confidence_filtered(
        cls, model_class: Any, field_name: str, pattern: str = "*", **partition: Any
    ) -> dict[str, Any]:
        """Await `get_confidence_filtered()`."""
        return await adrive(_filtered_steps(model_class, field_name, pattern, partition))


def _filtered_steps(
    model: Any, field_name: str, pattern: str, partition: Mapping[str, Any]
) -> Generator[Any, Any, dict[str, Any]]:
    """Return the data of a partition's members; those that have expired are left out."""
    if not isinstance(pattern, str):
        raise TypeError(f"pattern: expected a glob (str), got {pattern!r}.")
    here = partial(_filtered_here, model, field_name, pattern, partition)
    return (yield from asked(model._meta, here, united, partition))


def _filtered_here(
    model: Any, field_name: str, pattern: str, partition: Mapping[str, Any]
) -> Generator[Any, Any, dict[str, Any]]:
    key = confidence_field(model, field_name).get_data_hash_key_from_values(model, field_name, **partition)
    keys = model._meta.keys_for(partition)
    may_expire: Command[int] = Command(("ZCARD", keys.expiry))
    if not pattern.startswith(("*", keys.front)):  # as one server spells the keys of records
        pattern = keys.front + pattern
    cursor: Any = 0
    found: dict[str, Any] = {}
    while True:
        page: Command[Any] = Command(("HSCAN", key, cursor, "MATCH", pattern, "COUNT", 1000))
        (cursor, pairs), expiring = yield [page, may_expire]
        data = {member.decode(): unpacked(raw) for member, raw in hash_of(pairs).items()}
        if expiring and data:
            data = yield read_command(model, field_name, list(data))
        found.update({member: entry for member, entry in data.items() if entry is not None})
        if not int(cursor):
            return found


def confidence_field(model: Any, field_name: str) -> ConfidenceField:
    """Return a model's ConfidenceField.

    Raises: TypeError: there is none of that name.
    """
    field = model._meta.fields.get(field_name)
    if not isinstance(field, ConfidenceField):
        have = [n for n, f in model._meta.fields.items() if isinstance(f, ConfidenceField)]
        raise TypeError(
            f"{model.__name__}.{field_name} is no ConfidenceField. ConfidenceFields: {', '.join(have) or 'none'}."
        )
    return field


def most_believed_steps(builder: QueryBuilder[Any], field_name: str, n: int) -> Generator[Any, Any, list[str]]:
    """Return the keys of the n records that are believed most, best first, equal ones by descending key; exact.

    Args:
        builder: its filters decide who takes part; exact ones for the field's partition are required.
    Raises: TypeError: no such field. QueryException: a partition without a filter.
    """
    model = builder.model_class
    field, meta = confidence_field(model, field_name), model._meta
    ranked = field.rank_key(meta.keys, builder.exact(), meta.fields)
    selection = Selection(model, meta.keys, builder.compiled(), Order(ranked, descending=True), 0, n)
    return (yield from selection.record_keys())


def update_command(instance: Any, field_name: str, signal: Any) -> Command[float]:
    """Return the update of one confidence as a command.

    Raises: ValueError, TypeError: as `update_confidence`.
    """
    if signal is None:
        raise TypeError("signal: expected a number from 0 to 1, got None.")
    try:
        value = float(signal)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"signal: expected a number from 0 to 1, got {signal!r}.") from None
    if not _is_probability(value):
        raise ValueError(f"signal: expected a number from 0 to 1, got {signal!r}.")
    field = confidence_field(type(instance), field_name)
    if not instance._is_persisted:
        raise TypeError(f"{instance!r} is not stored; save() it before its confidence is updated.")
    values = instance.__dict__

    def parse(reply: bytes) -> float:
        values[field_name] = float(reply)
        return values[field_name]  # type: ignore[no-any-return]

    keys = instance._meta.keys_at(instance.pk)
    args = (
        instance.pk,
        keys.sentinel,
        field_name,
        f"{field_name}#data",
        repr(value),
        packed_start(field.initial_confidence, field.prior_strength),
        packed_event(type(instance), keys),
        "",
    )
    return Command(args, parse, UPDATE.of(type(instance)), key_count=2, repeat="token")


def read_command(model: Any, field_name: str, record_keys: list[str]) -> Command[dict[str, dict[str, Any] | None]]:
    """Return the reading of many records' data in one call: record key -> data, None where there is none."""

    def parse(reply: list[bytes | None]) -> dict[str, dict[str, Any] | None]:
        return {key: None if raw is None else unpacked(raw) for key, raw in zip(record_keys, reply, strict=True)}

    sentinel = model._meta.keys_at(record_keys[0]).sentinel
    args = (sentinel, f"{field_name}#data", *record_keys)
    return Command(args, parse, READ, key_count=1)


def _data_command(instance: Any, field_name: str) -> Command[dict[str, Any]]:
    """Return the reading of one record's data; that of a record without evidence where there is none."""
    model = type(instance)
    start = _start_data(confidence_field(model, field_name).initial_confidence)
    command = read_command(model, field_name, [instance.pk])

    def parse(reply: list[bytes | None]) -> dict[str, Any]:
        return command.parse(reply)[instance.pk] or start

    return Command(command.args, parse, READ, key_count=1)


def _place_command(field: ConfidenceField, instance: Any) -> Command[str | None]:
    """Return the reading of where a record's data lies: its occupancy says so (lib_record.lua)."""
    slot = f"{field.name}#data".encode()

    def parse(blob: bytes | None) -> str | None:
        entries = [] if blob is None else msgpack.unpackb(blob, raw=True, strict_map_key=False)
        return next((b":".join([e[2], *e[3]]).decode() for e in entries if e[0] == slot), None)

    return Command(("GET", occupancy_key(instance.pk)), parse)


def unpacked(raw: bytes) -> dict[str, Any] | None:
    """Return the data of a companion entry; None where it is corrupt."""
    try:
        data = msgpack.unpackb(raw)
        return {
            "confidence": float(data["confidence"]),
            "evidence_count": int(data["evidence_count"]),
            "corroborations": int(data["corroborations"]),
            "contradictions": int(data["contradictions"]),
        }
    except (ValueError, TypeError, KeyError, msgpack.UnpackException):
        return None


def _start_data(confidence: float) -> dict[str, Any]:
    return dict(zip(_NAMES, (confidence, 0, 0, 0), strict=True))


def packed_start(confidence: float, prior_strength: float = 0.0) -> bytes:
    """Return the data of a record without evidence, and beside it what the server adds to the evidence."""
    prior = {"prior_strength": prior_strength} if prior_strength else {}
    packed: bytes = msgpack.packb({**_start_data(confidence), **prior}, use_bin_type=False)
    return packed


def _is_probability(value: Any) -> bool:
    return (isinstance(value, bool) or is_number(value)) and 0 <= value <= 1
