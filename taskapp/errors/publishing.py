"""Errors of submitting to a full queue or through a broker other than Redis, and of publishing written messages."""

from __future__ import annotations

from collections.abc import Sequence

from taskapp.errors import PushError, SubmitOutcomeUnknown, TaskappError


class PublishOutcomeUnknown(SubmitOutcomeUnknown):
    """A broker other than Redis did not confirm a message; submitting it again may run the task twice."""

    def __init__(self, task_id: str, deadline_seconds: float, reason: object) -> None:
        why = str(reason).rstrip(".")
        PushError.__init__(
            self, [task_id], f"the broker did not confirm it within {deadline_seconds:g} s: {why}; it may or may not "
            "be queued: look for its result or its message before you submit it again, or it may run twice",
        )  # fmt: skip
        self.not_queued, self.deadline_seconds, self.reason = [], deadline_seconds, reason

    def about(self, task_ids: Sequence[str]) -> PushError | None:
        """Return this error if it concerns one of ``task_ids``, else ``None``."""
        return self if set(task_ids) & set(self.task_ids) else None


class QueueFull(PushError):
    """As many messages wait in a queue as its limit allows; none of ``task_ids`` was queued."""

    def __init__(
        self, task_ids: Sequence[str], queue: str, limit: int, waiting: int, retry_after_seconds: float
    ) -> None:
        self.queue, self.limit, self.waiting = queue, limit, waiting
        self.retry_after_seconds = retry_after_seconds
        """When there will be room, if nodes take as many tasks as in the last minute."""
        super().__init__(
            task_ids,
            f"queue {queue!r} has no room: {waiting:,} of at most {limit:,} tasks wait; not queued: submit again in "
            f"{retry_after_seconds:.0f} s, add nodes, or raise the limit (taskapp limits set {queue} NUMBER)",
        )

    def _of(self, task_ids: Sequence[str]) -> PushError:
        return QueueFull(task_ids, self.queue, self.limit, self.waiting, self.retry_after_seconds)


class Unroutable(TaskappError):
    """No queue gets the messages of an exchange with this routing key; nothing was queued."""

    def __init__(self, exchange: str, routing_key: str) -> None:
        super().__init__(
            f"no queue is bound to the exchange {exchange!r} with the routing key {routing_key!r}: the task would be "
            "lost; correct them, or declare such a queue in task_queues"
        )


class BrokerAway(TaskappError):
    """Messages cannot be published now: the broker is unreachable, or accepts none."""

    def __init__(self, reason: object) -> None:
        super().__init__(f"{type(reason).__name__}: {reason}")


class RefusedByBroker(TaskappError):
    """The broker refuses a message every time it is published."""

    def __init__(self, reason: object) -> None:
        super().__init__(f"the broker refused it: {reason}")
