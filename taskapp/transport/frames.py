"""Reading what RabbitMQ sends: bytes that are no text end no connection.

Whoever can publish sets the properties of a message and its routing key, which py-amqp decodes where the worker's loop
reads. What cannot be decoded reaches the worker without its properties, and is rejected there like any message that is
no task. Left alone it would end every node in turn, since RabbitMQ gives it to the next.
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
"""The type of the frame with the properties of a message."""
SIZE_BYTES = 12
"""What stands in it before the properties: the size of the body, among other things."""
NO_PROPERTIES = b"\0\0"

Frame = tuple[int, int, Any]


def frame_handler(connection: Any, callback: Callable[..., Any]) -> Callable[[Frame], Any]:
    """Return what takes the frames of ``connection``, as py-amqp's does."""
    take = method_framing.frame_handler(connection, callback)

    def take_readable(frame: Frame) -> Any:
        try:
            return take(frame)
        except UNREADABLE as error:
            kind, channel, payload = frame
            if kind != CONTENT_HEADER:
                raise
            logger.error("the properties of a message cannot be read, it is taken without them: %s", error)
            return take((kind, channel, bytes(payload[:SIZE_BYTES]) + NO_PROPERTIES))

    return take_readable


def readable_delivery(arguments: Any) -> bytes:
    """Return the ``arguments`` of a delivery with names of exchange and key that are text, of the same lengths.

    They are: four bytes, consumer tag, eight bytes of the delivery tag, one of flags, exchange, routing key.
    """
    known = bytes(arguments)
    at = 4 + 1 + known[4] + 8 + 1
    parts = [known[:at]]
    for _ in range(2):
        end = at + 1 + known[at]
        parts += known[at : at + 1], known[at + 1 : end].decode("latin-1").encode("ascii", "replace")
        at = end
    return b"".join(parts) + known[at:]
