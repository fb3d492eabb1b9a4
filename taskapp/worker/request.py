"""Celery's request, which tells the engine why a run ended: failed for good, or its process died."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]  # missing in the stubs
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore
from celery.utils.log import get_logger
from celery.worker import request as stock

from taskapp.broker.channel import EngineChannel
from taskapp.errors import OutOfMemory

# The stubs lack half of it.
_Stock: Any = stock.Request

logger = get_logger(__name__)


class Request(_Stock):
    """One task on one node."""

    acknowledged: bool
    _ended_by: BaseException | None = None

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """Handle a run that ended with an error; a task out of memory fails and the worker stays."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, MemoryError):
            # Celery would end the whole worker here.
            error = exc_info.exception = OutOfMemory(str(error))
        if isinstance(error, SystemExit | KeyboardInterrupt):
            error = WorkerLostError(str(error))
        self._ended_by = error
        try:
            return super().on_failure(exc_info, send_failed_event, return_ok)
        finally:
            self._ended_by = None

    def on_timeout(self, soft: bool, timeout: float) -> Any:  # noqa: FBT001 - Celery's signature
        """Handle a run over its time limit; past the hard one it has failed for good."""
        self._ended_by = None if soft else TimeLimitExceeded(timeout)
        return super().on_timeout(soft, timeout)

    def _success_was_stored(self) -> Any:
        stored = super()._success_was_stored()
        if stored:
            self._ended_by = None
        return stored

    def on_retry(self, exc_info: Any) -> Any:
        """Handle a run that asked for another: no failure."""
        self._ended_by = None
        return super().on_retry(exc_info)

    def acknowledge(self) -> None:
        """Acknowledge; a task that failed for good is kept among the dead letters."""
        channel = self.message.channel
        if self.acknowledged or not self._is_dead() or not isinstance(channel, EngineChannel):
            super().acknowledge()
            return
        error = self._ended_by
        channel.bury(self.message.delivery_tag, "failed", f"{type(error).__name__}: {error}")
        self.acknowledged = True

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Give back or bury; a run whose process died counts as a crash."""
        channel = self.message.channel
        crashed = isinstance(self._ended_by, WorkerLostError)
        if self.acknowledged or not crashed or not requeue or not isinstance(channel, EngineChannel):
            super().reject(requeue)
            return
        channel.give_back(self.message.delivery_tag, "crashed")
        self.acknowledged = True
        self.send_event("task-rejected", requeue=requeue)

    def _is_dead(self) -> bool:
        error = self._ended_by
        return (
            error is not None
            and not isinstance(error, Ignore | Terminated)
            and bool(getattr(self.task, "keeps_failures", True))
        )
