"""How many messages of the engine a channel of kombu may hand out, and what it says of them."""

from __future__ import annotations

from typing import Any

from kombu.transport import virtual

_VirtualQoS: Any = virtual.QoS  # the package has no types

UNLIMITED = 100
"""How many messages a consumer without a prefetch limit is given at once."""


class QoS(_VirtualQoS):
    """Counts what was handed out and not finished; tells the node what became of it."""

    restore_at_shutdown = False

    def free(self) -> int:
        """Return how many more messages may be handed out."""
        return max(self.prefetch_count - len(self._delivered), 0) if self.prefetch_count else UNLIMITED

    def append(self, message: Any, delivery_tag: str) -> None:
        """Take note of a message that is being handed out."""
        self._delivered[delivery_tag] = message

    def forget(self, delivery_tag: str) -> bool:
        """Take note that a message is done with; say whether it was not known yet. Any thread may."""
        return self._delivered.pop(delivery_tag, None) is not None

    def ack(self, delivery_tag: str) -> None:
        """Settle."""
        self.channel.settle(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Give back, or bury as rejected."""
        if requeue:
            self.channel.give_back(delivery_tag, "retry")
        else:
            self.channel.bury(delivery_tag, "rejected", "the task or its message was rejected")
