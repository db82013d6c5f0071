"""Every exception of the package, each defined once, under one root."""

from __future__ import annotations


class PopotoException(Exception):
    """Root of all errors that this package raises on its own account.

    Errors of the connection itself (a server that cannot be reached, a timeout) stay redis-py's.
    """

    @property
    def message(self) -> str:
        """The sentence, without the class name."""
        return str(self)


class ModelException(PopotoException):
    """A model, a field or a record is wrong: definition, value, unique constraint, save, delete, load."""


class AlreadyExistsError(ModelException):
    """A record of this key exists, or another record has this unique value; nothing was written."""


class RecordGoneError(ModelException):
    """The record is not stored: never saved, deleted or expired."""


class StaleRecordError(ModelException):
    """The record was changed since this instance was read, in a way that matters to the call; nothing was written."""


class KeyMutationError(ModelException):
    """A key field changed after the record was stored, and `migrate_key=True` was not given."""


class SkipSaveException(ModelException):
    """Raised by a `pre_save` hook or a write filter to skip a save; never leaves `save()`."""


class QueryException(PopotoException):
    """A query is malformed, or `get()` found more than one record."""


class PublisherException(PopotoException):
    """A message could not be published."""


class SubscriberException(PopotoException):
    """A subscriber's handler failed."""


class ConnectionSettingsError(PopotoException):
    """The settings name no server that can be used; the text lists every remedy."""


class UnknownOutcomeError(PopotoException):
    """The connection broke during a write that could not be repeated safely: it may or may not have happened."""
