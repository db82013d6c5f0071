"""Publisher: send any storable value to a channel."""

from __future__ import annotations

from abc import ABC
from typing import Any

from popoto.exceptions import PublisherException
from popoto.orm.commands import Command, queue, require_pipeline
from popoto.orm.drivers import arun, run
from popoto.orm.tagged import CodecError, encode_any

__all__ = ["Publisher", "PublisherException"]


class Publisher(ABC):  # noqa: B024  # a base to name a channel after; there is nothing that a subclass must add
    """Publishes to the channel named like its class, or to `channel_name`.

    A message is msgpack with the tags of the fields, so datetime, Decimal, set and tuple arrive as what they were.
    Channels are the server's own: every database number and every namespace shares them.
    """

    _publish_data: Any = None  # what publish() without data sends: the last published value, or a subclass's own

    def __init__(self, *args: Any, channel_name: str | None = None, **kwargs: Any) -> None:
        """Take the channel's name; other arguments are for subclasses and are not used here."""
        self._channel_name: str | None = type(self).__name__ if channel_name is None else channel_name

    @property
    def channel_name(self) -> str | None:
        """The channel of a publish() that names none; None or "" for no channel."""
        return self._channel_name

    @channel_name.setter
    def channel_name(self, name: str | None) -> None:
        self._channel_name = name

    def publish(self, data: Any = None, channel_name: str | None = None, pipeline: Any = None) -> Any:
        """Publish a value.

        Args:
            data: any value that a field can store. None or something empty ("", {}, [] ...) stands for the value
                that this instance published last; 0 and False are values.
            channel_name: the channel of this call only, also in a pipeline.
            pipeline: a redis-py pipeline; the message is queued on it.

        Returns: the number of subscribers that the server sent it to, the pipeline if one was given, or None if
            there was nothing to publish.

        Raises:
            PublisherException: there is no channel, or the value cannot be stored.
            UnknownOutcomeError: the connection broke; the message may have gone out. It is never sent twice.
        """
        command = self._command(data, channel_name, pipeline)
        if command is None:
            return None
        reply = run(command) if pipeline is None else queue(command, pipeline)
        self._keep(data)
        return reply

    async def async_publish(self, data: Any = None, channel_name: str | None = None, pipeline: Any = None) -> Any:
        """Await `publish` on the running loop's client."""
        command = self._command(data, channel_name, pipeline)
        if command is None:
            return None
        reply = await arun(command) if pipeline is None else queue(command, pipeline)
        self._keep(data)
        return reply

    def _command(self, data: Any, channel_name: str | None, pipeline: Any) -> Command[int] | None:
        if pipeline is not None:
            require_pipeline(pipeline)
        channel = channel_name or self.channel_name
        if not channel or not isinstance(channel, str):
            raise PublisherException(
                f"{type(self).__name__} has no channel to publish to: expected a name, got {channel!r}. "
                "Set channel_name, or give it to publish()."
            )
        value = self._publish_data if _is_nothing(data) else data
        if _is_nothing(value):
            return None
        try:
            payload = encode_any(value)
        except CodecError as error:
            raise PublisherException(f"{type(self).__name__} cannot publish to {channel!r}: {error}") from error
        return Command(("PUBLISH", channel, payload), repeat="never")

    def _keep(self, data: Any) -> None:
        if not _is_nothing(data):
            self._publish_data = data


def _is_nothing(data: Any) -> bool:
    return data is None or (hasattr(data, "__len__") and len(data) == 0)
