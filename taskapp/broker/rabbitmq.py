"""kombu's transport for RabbitMQ, with limits: how much a message becomes when it is unpacked."""

from __future__ import annotations

from functools import partial
from typing import Any

from kombu.transport import pyamqp

from taskapp.broker.received import Unpacking
from taskapp.broker.unpacking import UNPACKED_BYTES_MOST

# The package has no types.
_Message: Any = pyamqp.Message
_Channel: Any = pyamqp.Channel
_Connection: Any = pyamqp.Connection
_Transport: Any = pyamqp.Transport
_SSLTransport: Any = pyamqp.SSLTransport


class Message(Unpacking, _Message):
    """A message of RabbitMQ."""

    def __init__(self, raw: Any, channel: Any = None, **options: Any) -> None:
        read = partial(super().__init__, raw, channel=channel, **options)
        if (raw.properties.get("application_headers") or {}).get("compression"):
            self._read_packed(read, channel.connection.unpacked_bytes_most)
        else:
            read()


class Channel(_Channel):
    """A channel to RabbitMQ."""

    Message = Message


class Connection(_Connection):
    """A connection to RabbitMQ; its options are those of the transport and py-amqp's."""

    Channel = Channel

    def __init__(self, *args: Any, unpacked_bytes_most: int = UNPACKED_BYTES_MOST, **options: Any) -> None:
        self.unpacked_bytes_most = unpacked_bytes_most
        super().__init__(*args, **options)


class Transport(_Transport):
    """``amqp://``."""

    Connection = Connection


class SSLTransport(_SSLTransport):
    """``amqps://``."""

    Connection = Connection
