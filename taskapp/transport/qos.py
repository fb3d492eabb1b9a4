"""Prefetch limit of a channel, and acknowledgement of the engine's messages."""

from __future__ import annotations

from typing import Any

from kombu.transport import virtual

_VirtualQoS: Any = virtual.QoS  # the package has no types

UNLIMITED = 100
"""Number of messages handed out at once to a consumer without a prefetch limit."""


class QoS(_VirtualQoS):
    """Counts messages that are handed out and not finished; settles them through the channel."""

    restore_at_shutdown = False

    def free(self) -> int:
        """Return how many more messages may be handed out."""
        return max(self.prefetch_count - len(self._delivered), 0) if self.prefetch_count else UNLIMITED

    def append(self, message: Any, delivery_tag: str) -> None:
        """Record a message that is being handed out."""
        self._delivered[delivery_tag] = message

    def forget(self, delivery_tag: str) -> bool:
        """Record that a message is finished; return whether it was still counted. Any thread may call this."""
        return self._delivered.pop(delivery_tag, None) is not None

    def ack(self, delivery_tag: str) -> None:
        """Settle the message."""
        self.channel.settle(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Return the message to its queue, or bury it as rejected."""
        if requeue:
            self.channel.give_back(delivery_tag, "retry")
        else:
            self.channel.bury(delivery_tag, "rejected", "the task or its message was rejected")
