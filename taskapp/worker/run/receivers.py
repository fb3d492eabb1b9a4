"""Guards receivers of Celery's task signals: one that raises ``SystemExit`` affects only itself."""

from __future__ import annotations

from typing import Any

from celery import signals
from celery.utils.dispatch import Signal
from celery.utils.log import get_logger

from taskapp.errors.wording import in_words, shown
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
                responses.append((receiver, receiver(signal=self, sender=sender, **named)))
            except BaseException as raised:
                error = as_error(raised)
                if ends_the_run(error):
                    raise
                logger.error("Signal handler %s raised: %s", shown(receiver), in_words(error), exc_info=error)
                responses.append((receiver, error))
        return responses

    send_robust = send


def guard_receivers() -> None:
    """Guard the receivers of all task signals in this worker.

    This changes the class of Celery's signal objects: its modules import them by name, so they cannot be replaced.
    """
    for name, signal in vars(signals).items():
        if name.startswith("task_") and type(signal) is Signal:
            signal.__class__ = GuardedSignal
