"""Celery's request, which finishes a claim in one step and tells the engine why a run ended.

Celery acknowledges, stores a failure and announces it one after the other. Here acknowledging and
rejecting only note what is to become of the message; the outermost of Celery's callbacks carries it
out at its end, together with everything that was collected.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import ref

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback  # type: ignore[attr-defined]  # missing in the stubs
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore, TaskRevokedError
from celery.utils.log import get_logger
from celery.worker import request as stock
from celery.worker.state import task_ready

from taskapp.broker.channel import EngineChannel
from taskapp.broker.settlement import Settlement, collecting, settling
from taskapp.errors import OutOfMemory
from taskapp.worker.run import run

# The stubs lack half of it.
_Stock: Any = stock.Request

logger = get_logger(__name__)


class Fate(NamedTuple):
    """What becomes of a message."""

    back: str = ""
    """Given back as this kind of run, see ``Node.give_back``."""
    reason: str = ""
    """Buried for this reason; else it is settled."""
    detail: str = ""


class Request(_Stock):
    """One task on one node."""

    acknowledged: bool
    _ended_by: BaseException | None = None
    _is_ending = False
    _fate: Fate | None = None

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Hand the task to ``pool``.

        Raises:
            TaskRevokedError: It was revoked, or has expired.
        """
        if self.revoked():
            raise TaskRevokedError(self.id)
        limit_seconds, soft_limit_seconds = self.time_limits
        result = pool.apply_async(
            run,
            args=(self._type, self.id, self._request_dict, self._body, self._content_type, self._content_encoding),
            accept_callback=self.on_accepted,
            timeout_callback=self.on_timeout,
            callback=self.on_success,
            error_callback=self.on_failure,
            soft_timeout=soft_limit_seconds or self._task.soft_time_limit,
            timeout=limit_seconds or self._task.time_limit,
            correlation_id=self.id,
        )
        self._apply_result = ref(result) if result is not None else None
        return result

    # --- the ends of a run ------------------------------------------------------------------------

    def on_success(self, outcome: Any, **_: Any) -> None:
        """Handle what ``run`` brought back, a failure or a success."""
        if isinstance(outcome, ExceptionInfo):  # of a pool without child processes, when a task ends its process
            self.on_failure(outcome)
            return
        failed, value, runtime, settlement = outcome
        if failed:
            with self._ending(settlement):
                super().on_success((failed, value, runtime))
            return
        task_ready(self, successful=True)
        if self._task.acks_late and not self.acknowledged:
            with self._ending(settlement):
                self.acknowledge()
        self.send_event("task-succeeded", result=value, runtime=runtime)

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
        with self._ending(ended_by=error):
            return super().on_failure(exc_info, send_failed_event, return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> Any:  # noqa: FBT001 - Celery's signature
        """Handle a run over its time limit; past the hard one it has failed for good."""
        with self._ending(ended_by=None if soft else TimeLimitExceeded(timeout)):
            return super().on_timeout(soft, timeout)

    def on_retry(self, exc_info: Any) -> Any:
        """Handle a run that asked for another: no failure."""
        self._ended_by = None
        return super().on_retry(exc_info)

    def _announce_revoked(self, *args: Any) -> None:
        with self._ending():
            super()._announce_revoked(*args)

    def _retry_worker_lost(self, *args: Any) -> Any:
        with collecting(keep=True):
            return super()._retry_worker_lost(*args)

    def _success_was_stored(self) -> Any:
        context = self._context
        if context.callbacks or context.chain or context.chord:
            return False  # the result was, what follows it went with the process
        stored = super()._success_was_stored()
        if stored:
            self._ended_by = None
        return stored

    # --- what becomes of the message --------------------------------------------------------------

    @contextmanager
    def _ending(self, settlement: Settlement | None = None, ended_by: BaseException | None = None) -> Iterator[None]:
        """Carry out at the end what was decided inside, together with all that was collected; nested, just go on."""
        outer, self._ended_by = self._ended_by, ended_by or self._ended_by
        if self._is_ending or self.acknowledged or not self._is_claimed():
            try:
                yield
            finally:
                self._ended_by = outer
            return
        self._is_ending, settlement = True, settlement or Settlement()
        try:
            with settling(settlement):
                yield
        except Exception as error:
            # Nobody would hear of it any more: what could not be recorded is kept.
            self._fate = self._fate or Fate(reason="failed", detail=f"{type(error).__name__}: {error}")
            raise
        finally:
            self._is_ending, self._ended_by = False, outer
            fate, self._fate = self._fate, None
            if fate is not None:
                self._carry_out(fate, settlement)

    def _carry_out(self, fate: Fate, settlement: Settlement | None = None) -> None:
        channel, tag = self.message.channel, self.message.delivery_tag
        if fate.back:
            channel.give_back(tag, fate.back)
        elif fate.reason:
            channel.bury(tag, fate.reason, fate.detail, settlement)
        else:
            channel.settle(tag, settlement)

    def _decide(self, fate: Fate) -> None:
        self.acknowledged = True
        if self._is_ending:
            self._fate = fate
        else:
            self._carry_out(fate)

    def _is_claimed(self) -> bool:
        return isinstance(self.message.channel, EngineChannel)

    def acknowledge(self) -> None:
        """Acknowledge; a task that failed for good is kept among the dead letters."""
        if self.acknowledged or not self._is_claimed():
            super().acknowledge()
        elif self._is_dead():
            error = self._ended_by
            self._decide(Fate(reason="failed", detail=f"{type(error).__name__}: {error}"))
        else:
            self._decide(Fate())

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Give back or bury; a run whose process died counts as a crash."""
        if self.acknowledged or not self._is_claimed():
            super().reject(requeue)
            return
        if requeue:
            fate = Fate(back="crashed" if isinstance(self._ended_by, WorkerLostError) else "retry")
        else:
            fate = Fate(reason="rejected", detail="the task, or its message, was rejected")
        self._decide(fate)
        self.send_event("task-rejected", requeue=requeue)

    def _is_dead(self) -> bool:
        error = self._ended_by
        return (
            error is not None
            and not isinstance(error, Ignore | Terminated)
            and bool(getattr(self.task, "keeps_failures", True))
        )
