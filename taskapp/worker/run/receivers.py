"""Guards receivers of signals that are sent while a node works: one that raises ``SystemExit`` affects only itself."""

from __future__ import annotations

from typing import Any

from celery import signals
from celery.utils.dispatch import Signal
from celery.utils.log import get_logger

from taskapp.errors.wording import in_words, shown
from taskapp.execution import forked
from taskapp.execution.failures import as_error, ends_the_run

logger = get_logger(__name__)

_Signal: Any = Signal  # the stubs are incomplete


class GuardedSignal(_Signal):
    """Celery's ``Signal``, guarded so that a receiver can end neither the run it observes nor the node."""

    def send(self, sender: Any, **named: Any) -> list[tuple[Any, Any]]:
        """Call all receivers; return pairs of each receiver and what it returned or raised."""
        responses: list[tuple[Any, Any]] = []
        for receiver in self._live_receivers(sender) if self.receivers else ():
            try:
                response = forked.confined(receiver, signal=self, sender=sender, **named)
                responses.append((receiver, response))
            except BaseException as raised:
                error = as_error(raised)
                if ends_the_run(error):
                    raise
                logger.error("Signal handler %s raised: %s", shown(receiver), in_words(error), exc_info=error)
                responses.append((receiver, error))
        return responses

    send_robust = send


WHILE_IT_WORKS = (
    "heartbeat_sent", "worker_before_create_process", "worker_process_shutdown", "worker_shutting_down",
    "worker_shutdown",
)  # fmt: skip
"""Signals of a node that works or stops, besides those of tasks. At its start, a receiver may end it."""


def guard_receivers() -> None:
    """Guard the receivers of all signals that are sent while this worker works.

    This changes the class of Celery's signal objects: its modules import them by name, so they cannot be replaced.
    """
    for name, signal in vars(signals).items():
        if name.startswith(("task_", *WHILE_IT_WORKS)) and type(signal) is Signal:
            signal.__class__ = GuardedSignal
