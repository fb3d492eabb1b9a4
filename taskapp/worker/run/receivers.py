"""Receivers of Celery's signals of tasks: one that raises ``SystemExit`` costs itself alone, as one that fails does."""

from __future__ import annotations

from typing import Any

from celery import signals
from celery.utils.dispatch import Signal
from celery.utils.log import get_logger

from taskapp.errors.wording import in_words, shown
from taskapp.execution.failures import as_error, ends_the_run

logger = get_logger(__name__)

_Signal: Any = Signal  # the stubs lack half of it


class GuardedSignal(_Signal):
    """Celery's ``Signal``, whose receivers end neither the run they are told of nor the node it runs on."""

    def send(self, sender: Any, **named: Any) -> list[tuple[Any, Any]]:
        """Tell all receivers; return what each of them returned or raised."""
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
    """Guard the receivers of all signals about tasks, in this worker.

    For want of a seam: Celery's modules hold these objects by name, so they cannot be replaced.
    """
    for name, signal in vars(signals).items():
        if name.startswith("task_") and type(signal) is Signal:
            signal.__class__ = GuardedSignal
