"""Streams: follow the entries of a Redis stream in groups of consumers, none lost with the consumer that took it."""

from popoto.streams.consumer import StreamConsumer

__all__ = ["StreamConsumer"]
