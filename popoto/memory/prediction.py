"""PredictionLedgerMixin: what was expected of a record, what came of it, and how far off that was.

A prediction is a dict. When the outcome is known, `resolve_prediction()` compares it key by key:

    both numbers      |predicted - actual| / max(|predicted|, |actual|, 1), at most 1
    anything else     0 if equal, 1 if not; a key that only one side has: 1
    error             the mean over all keys

or `auto_resolve()` takes the error that stands for an outcome ("acted" 0.1 ... "contradicted" 0.9). Errors stand in an
ordered set a partition; one above the threshold also lowers the record's confidence. Recording and resolving are one
atomic step each; what another process records meanwhile is noticed, not overwritten (lua/resolve_prediction.lua).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from datetime import timezone, tzinfo
from typing import Any

from popoto.memory import clock
from popoto.memory.confidence import ConfidenceField, packed_start
from popoto.memory.defaults import Defaults
from popoto.memory.events import LoggedScript, event_of
from popoto.memory.ledger_reading import PREFIX, entry_of, highest_steps, meta_key, summary_steps
from popoto.memory.ledger_summary import prediction_error
from popoto.memory.mixins import require_before_model
from popoto.memory.number import is_number
from popoto.memory.stored import require_stored, stored_keys
from popoto.orm.codec import CodecError, encoder_for
from popoto.orm.commands import Command, queue
from popoto.orm.drivers import adrive, arun, drive, run
from popoto.orm.keys import index_part
from popoto.orm.maintenance_walk import register_bases
from popoto.orm.plan import pack
from popoto.orm.scripts import Script, register_kind
from popoto.orm.slots import Made, Slot

_KIND = ("popoto.memory", "kind_prediction")
register_kind(*_KIND, "p")
register_bases("p", lambda base: [base.removesuffix("meta") + "errors"])
RECORD = Script("popoto.memory", "record_prediction", (("popoto.memory", "lib_claim"), _KIND), with_kinds=True)
RESOLVE = LoggedScript(
    Script("popoto.memory", "resolve_prediction", (("popoto.memory", "kind_confidence"), _KIND), with_kinds=True)
)

SLOT = "@prediction"
TRIES = 20  # how often an error is computed anew because somebody recorded another prediction meanwhile

_encode = encoder_for(dict)
Steps = Generator[Any, Any, Any]


class PredictionLedgerMixin:
    """Keeps predictions and their errors: `class Memory(PredictionLedgerMixin, Model)`.

    Its calls take the instance: `PredictionLedgerMixin.record_prediction(memory, {...})`, or on the model.

    Attributes:
        _pl_partition: which ordered set of errors a record belongs to.
        _pl_confidence_error_threshold: an error above it lowers the confidence.
        _pl_confidence_low_signal: the signal that each ConfidenceField then gets; it never raises one.
        _pl_auto_resolve_errors: outcome -> error. Unless the model sets them, these three follow `Defaults`.
    """

    _pl_partition: str = "default"

    @property
    def _pl_confidence_error_threshold(self) -> float:
        return Defaults.PL_CONFIDENCE_ERROR_THRESHOLD

    @property
    def _pl_confidence_low_signal(self) -> float:
        return Defaults.PL_CONFIDENCE_LOW_SIGNAL

    @property
    def _pl_auto_resolve_errors(self) -> Mapping[str, float]:
        return {
            "acted": Defaults.PL_AUTO_RESOLVE_ACTED,
            "used": Defaults.PL_AUTO_RESOLVE_USED,
            "dismissed": Defaults.PL_AUTO_RESOLVE_DISMISSED,
            "contradicted": Defaults.PL_AUTO_RESOLVE_CONTRADICTED,
        }

    @classmethod
    def record_slots(cls) -> list[Slot]:
        """Return the index entry that each record has beside those of its fields.

        Raises: ModelException: the mixin stands behind Model among the bases.
        """
        require_before_model(cls, PredictionLedgerMixin)

        def make(_: Mapping[str, Any]) -> Made | None:
            return [], False, None

        return [Slot(SLOT, "p", PREFIX, "meta", (), (), make)]

    # -- one record ---------------------------------------------------------------------------------------------------

    @classmethod
    def record_prediction(cls, instance: Any, predicted: dict[str, Any], pipeline: Any = None) -> Any:
        """Store what is expected of a record, in place of an earlier prediction.

        Returns: None, or the pipeline.
        Raises: ValueError: `predicted` is None. TypeError: it is no dict or cannot be stored; the record is not stored.
        """
        command = record_command(instance, predicted)
        return run(command) if pipeline is None else queue(command, pipeline)

    @classmethod
    async def async_record_prediction(cls, instance: Any, predicted: dict[str, Any], pipeline: Any = None) -> Any:
        """Await `record_prediction()`."""
        command = record_command(instance, predicted)
        return await arun(command) if pipeline is None else queue(command, pipeline)

    @classmethod
    def resolve_prediction(cls, instance: Any, actual: dict[str, Any], pipeline: Any = None) -> float | None:
        """Compare an open prediction with what came; return its error, None where there is no open one.

        The metric is `compute_prediction_error` of the instance's own class. Two round trips: read, resolve.

        Args:
            pipeline: taken for compatibility; it runs at once, for it returns the error.
        Raises: ValueError: `actual` is None, or the error is no finite number. TypeError: `actual` is no dict; the
            record is not stored.
        """
        error: float | None = drive(resolve_steps(instance, actual))
        return error

    @classmethod
    async def async_resolve_prediction(
        cls, instance: Any, actual: dict[str, Any], pipeline: Any = None
    ) -> float | None:
        """Await `resolve_prediction()`."""
        return await adrive(resolve_steps(instance, actual))

    @classmethod
    def auto_resolve(cls, instance: Any, outcome: str, pipeline: Any = None) -> float | None:
        """Resolve an open prediction with the error that stands for an outcome; return it, None if none is open.

        Args:
            outcome: "acted", "used", "dismissed" or "contradicted" (a key of `_pl_auto_resolve_errors`).
            pipeline: taken for compatibility; it runs at once, for it returns the error.
        Raises: ValueError: another outcome.
        """
        command = auto_command(instance, outcome)
        return None if command is None else run(command)

    @classmethod
    async def async_auto_resolve(cls, instance: Any, outcome: str, pipeline: Any = None) -> float | None:
        """Await `auto_resolve()`."""
        command = auto_command(instance, outcome)
        return None if command is None else await arun(command)

    @classmethod
    def get_prediction_data(cls, instance: Any) -> dict[str, Any] | None:
        """Return the prediction and what is known of its outcome, or None.

        Keys: predicted, resolved, resolution_mode, prediction_error, resolved_at, recorded_at. Times in Unix seconds;
        `resolution_mode` is "explicit", "observed" (by an outcome) or None.
        """
        return run(_read_command(instance))

    @classmethod
    async def async_get_prediction_data(cls, instance: Any) -> dict[str, Any] | None:
        """Await `get_prediction_data()`."""
        return await arun(_read_command(instance))

    @staticmethod
    def compute_prediction_error(predicted: dict[str, Any], actual: dict[str, Any]) -> float:
        """Return how far a prediction was off, 0 to 1; a model may have a metric of its own under this name.

        Raises: ValueError: a number is NaN.
        """
        return prediction_error(predicted, actual)

    # -- a partition --------------------------------------------------------------------------------------------------

    @classmethod
    def get_highest_errors(
        cls, model_class: Any, partition: str = "default", limit: int = 10
    ) -> list[tuple[str, float]]:
        """Return (record key, error) of the largest errors, largest first; 0 or less: []."""
        return drive(highest_steps(model_class, partition, limit))

    @classmethod
    async def async_get_highest_errors(
        cls, model_class: Any, partition: str = "default", limit: int = 10
    ) -> list[tuple[str, float]]:
        """Await `get_highest_errors()`."""
        return await adrive(highest_steps(model_class, partition, limit))

    @classmethod
    def error_summary(
        cls,
        model_class: Any,
        partition: str = "default",
        group_by: str | Callable[[str, float], Any] | None = None,
        limit: int = 100,
        tz: tzinfo = timezone.utc,
    ) -> dict[Any, dict[str, Any]]:
        """Return statistics of the `limit` largest errors: label -> {count, mean, stddev, p50, p90, p99, max}.

        Args:
            group_by: None: one label "__all__". "hour" (0 to 23), "weekday" (Monday 0) or "day" (YYYY-MM-DD) of when it
                was resolved. A function (record key, error) -> label.
            tz: for the hours and days.
        Raises: ValueError: another text. TypeError: neither text nor function.
        """
        return drive(summary_steps(model_class, partition, group_by, limit, tz))

    @classmethod
    async def async_error_summary(
        cls,
        model_class: Any,
        partition: str = "default",
        group_by: str | Callable[[str, float], Any] | None = None,
        limit: int = 100,
        tz: tzinfo = timezone.utc,
    ) -> dict[Any, dict[str, Any]]:
        """Await `error_summary()`."""
        return await adrive(summary_steps(model_class, partition, group_by, limit, tz))


# -- commands ----------------------------------------------------------------------------------------------------------


def record_command(instance: Any, predicted: Any) -> Command[None]:
    """Return the recording of one prediction; for its errors see `record_prediction`."""
    if predicted is None:
        raise ValueError("record_prediction(): predicted= expected a dict, got None. {} predicts nothing.")
    if type(predicted) is not dict:
        raise TypeError(f"record_prediction(): predicted= expected a dict, got {predicted!r}.")
    try:
        packed = _encode(predicted)
    except CodecError as error:
        raise TypeError(f"record_prediction(): predicted= cannot be stored: {error}.") from None
    model = _ledger_of(instance, "record_prediction")
    keys = model._meta.keys_at(instance.pk)
    args = (instance.pk, keys.sentinel, meta_key(keys), packed, repr(clock.now()), "")
    return Command(args, lambda _: None, RECORD, key_count=2, repeat="token")


def resolve_steps(instance: Any, actual: Any) -> Steps:
    """Read an open prediction, compute its error, resolve it; anew where somebody else was faster."""
    if actual is None:
        raise ValueError("resolve_prediction(): actual= expected a dict, got None.")
    if not isinstance(actual, dict):
        raise TypeError(f"resolve_prediction(): actual= expected a dict, got {actual!r}.")
    model = _ledger_of(instance, "resolve_prediction")
    raw = yield Command(("HGET", meta_key(model._meta.keys_at(instance.pk)), instance.pk))
    for _ in range(TRIES):
        entry = None if raw is None else entry_of(raw)
        error = 0.0
        if entry is not None and not entry["resolved"]:
            error = float(type(instance).compute_prediction_error(entry["predicted"], actual))
            if not math.isfinite(error):
                raise ValueError(f"{model.__name__}.compute_prediction_error() returned {error!r}; expected 0 to 1.")
        # asked even where nothing is open: only the server can say that the record is gone
        state, found = yield resolve_command(instance, error, "explicit", expected=raw or b"")
        if state != "open":
            return found
        raw = found
    raise RuntimeError(f"{instance.pk}: predictions are recorded faster than one can be resolved. Try again later.")


def auto_command(instance: Any, outcome: str) -> Command[float | None] | None:
    """Return the resolution by an outcome; None for an instance that was never saved.

    Raises: ValueError: no error stands for the outcome.
    """
    if not isinstance(instance, PredictionLedgerMixin):
        raise _no_ledger(type(instance), "auto_resolve")
    errors = outcome_errors(instance)
    if not isinstance(outcome, str) or outcome not in errors:
        raise ValueError(f"auto_resolve(): outcome= expected one of {', '.join(errors)}, got {outcome!r}.")
    if not stored_keys(instance):
        return None
    command = resolve_command(instance, float(errors[outcome]), "observed")

    def parse(reply: Any) -> float | None:
        error: float | None = command.parse(reply)[1]
        return error

    return Command(command.args, parse, command.script, key_count=2, repeat="token")


def outcome_errors(instance: Any) -> Mapping[str, float]:
    """Return outcome -> error for a record.

    Raises: ValueError: an error of the model is no finite number.
    """
    errors: Mapping[str, float] = instance._pl_auto_resolve_errors
    for outcome, error in errors.items():
        if not is_number(error):
            raise ValueError(
                f"{type(instance).__name__}._pl_auto_resolve_errors[{outcome!r}]: expected a number, 0 to 1, got "
                f"{error!r}."
            )
    return errors


def resolve_command(instance: Any, error: float, mode: str, expected: bytes | None = None) -> Command[tuple[str, Any]]:
    """Return the resolution of one prediction, and with a large error what it does to the confidence.

    Args:
        expected: the stored entry that the error was computed from, b"" where there was none. None for any, also
            where the record is gone.
    Returns: a Command of ("done", error), ("none", None) or ("open", the entry that is there instead). Parsing sets the
        confidence attributes of the instance.
    """
    keys = instance._meta.keys_at(instance.pk)
    fields = confidence_fields(type(instance))
    low = error > instance._pl_confidence_error_threshold
    query = {
        "key": meta_key(keys),
        "expected": False if expected is None else expected,
        "error": error,
        "mode": mode,
        "lenient": expected is None,
        "now": clock.now(),
        "partition": index_part(str(instance._pl_partition)),
        "signal": float(instance._pl_confidence_low_signal) if low else False,
        "event": event_of(type(instance), keys) or False,
        "fields": fields,
    }

    def parse(reply: list[Any]) -> tuple[str, Any]:
        state = reply[0].decode()
        for (name, _, _), confidence in zip(fields, reply[1:] if state == "done" else (), strict=False):
            if confidence is not None:
                instance.__dict__[name] = float(confidence)
        return state, error if state == "done" else reply[1] if state == "open" else None

    args = (instance.pk, keys.sentinel, pack(query), "")
    return Command(args, parse, RESOLVE.of(type(instance)), key_count=2, repeat="token")


def confidence_fields(model: Any) -> list[tuple[str, str, bytes]]:
    """Return (name, slot, data of a record without any) of a model's ConfidenceFields."""
    fields = model._meta.fields.values()
    believed = [f for f in fields if isinstance(f, ConfidenceField)]
    return [(f.name, f"{f.name}#data", packed_start(f.initial_confidence, f.prior_strength)) for f in believed]


def _ledger_of(instance: Any, call: str) -> Any:
    model = type(instance)
    if not isinstance(instance, PredictionLedgerMixin):
        raise _no_ledger(model, call)
    require_stored(instance, f"{call}()")
    return model


def _no_ledger(model: type, call: str) -> TypeError:
    return TypeError(f"{call}(): {model.__name__} is no PredictionLedgerMixin. Add it before Model among its bases.")


def _read_command(instance: Any) -> Command[dict[str, Any] | None]:
    key = meta_key(instance._meta.keys_at(instance.pk))
    return Command(("HGET", key, instance.pk), lambda raw: None if raw is None else entry_of(raw))
