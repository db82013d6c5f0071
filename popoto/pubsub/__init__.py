"""Publishers and subscribers: messages to whoever listens now, over the server's channels."""

from popoto.pubsub.publisher import Publisher
from popoto.pubsub.subscriber import Subscriber

__all__ = ["Publisher", "Subscriber"]
