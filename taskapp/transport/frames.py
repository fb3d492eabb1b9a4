"""Reads frames of RabbitMQ so that bytes that cannot be decoded do not end the connection.

Any publisher sets the properties of a message and its routing key, which py-amqp decodes in the worker's loop.
A message with undecodable properties reaches the worker without them, and is rejected like any other message that is
not a task. Without this it would end every node in turn, because RabbitMQ delivers it to the next one.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from typing import Any

from amqp import method_framing
from amqp.exceptions import FrameSyntaxError

logger = logging.getLogger(__name__)

UNREADABLE = (ValueError, ArithmeticError, IndexError, RecursionError, struct.error, FrameSyntaxError)
CONTENT_HEADER = 2
"""Type of the frame with the properties of a message."""
SIZE_BYTES = 12
"""Length of the fields before the properties, among them the size of the body."""
NO_PROPERTIES = b"\0\0"

Frame = tuple[int, int, Any]


def frame_handler(connection: Any, callback: Callable[..., Any]) -> Callable[[Frame], Any]:
    """Return a handler for the frames of ``connection``, like py-amqp's."""
    take = method_framing.frame_handler(connection, callback)

    def take_readable(frame: Frame) -> Any:
        try:
            return take(frame)
        except UNREADABLE as error:
            kind, channel, payload = frame
            if kind != CONTENT_HEADER:
                raise
            logger.error("the properties of a message cannot be read, it is delivered without them: %s", error)
            return take((kind, channel, bytes(payload[:SIZE_BYTES]) + NO_PROPERTIES))

    return take_readable


def readable_delivery(arguments: Any) -> bytes:
    """Return the ``arguments`` of a delivery with exchange and routing key replaced by ASCII of the same length.

    Layout: four bytes, consumer tag, eight bytes of delivery tag, one byte of flags, exchange, routing key.
    """
    known = bytes(arguments)
    at = 4 + 1 + known[4] + 8 + 1
    parts = [known[:at]]
    for _ in range(2):
        end = at + 1 + known[at]
        parts += known[at : at + 1], known[at + 1 : end].decode("latin-1").encode("ascii", "replace")
        at = end
    return b"".join(parts) + known[at:]
