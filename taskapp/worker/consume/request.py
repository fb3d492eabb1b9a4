"""Celery's request, which finishes a claim in one step and tells the engine why a run ended.

Celery acknowledges, stores a failure and announces it one after the other. Here acknowledging and
rejecting only note what is to become of the message; the outermost of Celery's callbacks carries it
out at its end, together with everything that was collected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic, time
from typing import Any, Self
from weakref import ref

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback  # type: ignore[attr-defined]  # missing in the stubs
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore, Reject, TaskRevokedError
from celery.utils.log import get_logger
from celery.worker import request as stock
from celery.worker import state as worker_state
from celery.worker.state import task_ready
from kombu.utils.objects import cached_property

from taskapp.engine.counters import CountedRun
from taskapp.engine.settlement import SCHEDULE_HEADER, EndOfTick, Settlement, collecting, settling, tick_of
from taskapp.errors import CrashedTooOften
from taskapp.errors.wording import in_words
from taskapp.execution.failures import failure_in
from taskapp.execution.note_writer import note_writer
from taskapp.results.backend import Results
from taskapp.results.deferred_store import Ended
from taskapp.transport.codec import read_follow_ups
from taskapp.transport.message import Received
from taskapp.worker.consume.completion import NOTHING, Seen, end_of_request
from taskapp.worker.consume.counted import counted, keeps_successes
from taskapp.worker.consume.crashes import crashed_too_often, crashes, fail_for_crashes
from taskapp.worker.consume.disposition import FINISHED, Disposition
from taskapp.worker.consume.events import after_retries
from taskapp.worker.consume.timestamps import moment_of
from taskapp.worker.pool.pool import TaskPool
from taskapp.worker.run.execute import decode, run
from taskapp.worker.run.guard import UNTOLD, fail_unreported, give_up, guarded
from taskapp.worker.run.tick_dedup import Repeat, tell_end

# The stubs lack half of both.
_Stock: Any = stock.Request
state: Any = worker_state
revoked_tasks: Any = worker_state.revoked

logger = get_logger(__name__)


class Request(_Stock):
    """One task on one node."""

    acknowledged: bool
    _ended_by: BaseException | None = None
    _is_ending = False
    _is_retried = False
    _is_counted = False
    _fate: Disposition | None = None
    seen = NOTHING
    """What the run has shown of its end."""

    @classmethod
    def of_claim(cls, message: Received, task: Any, app: Any, hostname: str, eventer: Any) -> Self:
        """Return the request for a claimed message; its body is decoded where it runs, or when somebody asks."""
        request = cls.__new__(cls)
        given = request._request_dict = message.headers
        properties, delivery_info = message.properties, message.delivery_info
        request._message, request._task, request._app = message, task, app
        request._hostname, request._eventer = hostname, eventer
        request._body, request._decoded, request._utc = message.body, False, True
        request._content_type, request._content_encoding = message.content_type, message.content_encoding
        request.id = given["id"]
        request._type = given["task"]
        request.name = given.get("shadow") or request._type
        request._root_id, request._parent_id = given.get("root_id"), given.get("parent_id")
        request._argsrepr, request._kwargsrepr = given.get("argsrepr", ""), given.get("kwargsrepr", "")
        if timelimit := given.get("timelimit"):
            request.time_limits = timelimit
        ignores = given.get("ignore_result")
        request._ignore_result = task.ignore_result if ignores is None else ignores
        request._eta = None
        request._expires = moment_of(given.get("expires"), app)
        delivery_info["priority"] = properties.get("priority")
        request._delivery_info = delivery_info
        given["properties"], given["delivery_info"], given["hostname"] = properties, request._delivery_info, hostname
        given["reply_to"], given["correlation_id"] = properties.get("reply_to"), properties.get("correlation_id")
        return request

    @cached_property
    def _payload(self) -> Any:
        if not isinstance(self._message, Received):
            return super()._payload
        try:
            args, kwargs, embed = decode(self._app, self._body, self._content_type, self._content_encoding)
        except Exception:  # noqa: BLE001 - it fails where it runs; who asks here wants what there is
            args, kwargs, embed = (), {}, read_follow_ups(self._body, self._content_type) or {}
        self._request_dict["args"], self._request_dict["kwargs"] = args, kwargs
        return args, kwargs, embed

    @property
    def args(self) -> Any:
        """The positional arguments."""
        return self._payload[0]

    @property
    def kwargs(self) -> Any:
        """The named arguments."""
        return self._payload[1]

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - Celery's signature
        """Return what remote control shows of it."""
        self._args, self._kwargs = self.args, self.kwargs
        return super().info(safe)  # type: ignore[no-any-return]  # a dict

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Hand the task to ``pool``; one that was revoked, has expired or cannot be taken: ``TaskRevokedError``."""
        if (self._expires or self.id in revoked_tasks or self.stamped_headers) and self.revoked():
            raise TaskRevokedError(self.id)
        seconds, soft_seconds = self.time_limits
        seconds, soft_seconds = seconds or self._task.time_limit, soft_seconds or self._task.soft_time_limit
        arguments = (self._type, self.id, self._request_dict, self._body, self._content_type, self._content_encoding)
        if isinstance(pool, TaskPool):
            result = pool.run_request(self, arguments, soft_seconds, seconds)
        else:
            try:
                result = pool.apply_async(
                    run, arguments, accept_callback=self.on_accepted, timeout_callback=self.on_timeout,
                    callback=self.on_success, error_callback=self.on_failure, soft_timeout=soft_seconds,
                    timeout=seconds, correlation_id=self.id,
                )  # fmt: skip
            except Exception as error:
                give_up(self, error)
                raise TaskRevokedError(self.id) from error  # Celery gives its place to another
        self._apply_result = ref(result) if result is not None else None
        return result

    @guarded
    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Take note that it starts, ``time_accepted`` on the monotonic clock, in the process ``pid``."""
        self.worker_pid = pid
        self.time_start = time() - (monotonic() - time_accepted)
        state.active_requests.add(self)
        # What ``task_accepted`` does, without a Counter's update for each.
        state.total_count[self.name] += 1
        state.all_total_count[0] += 1
        if not self._task.acks_late:
            self.acknowledge()
        self.send_event("task-started")
        if self._terminate_on_ack is not None:
            self.terminate(*self._terminate_on_ack)

    @property
    def can_go_back(self) -> bool:
        """Whether the message may be put back as long as the task has not begun."""
        return bool(self._task.acks_late) and self._is_claimed()

    def give_back(self, back_seconds: float = 0.0) -> None:
        """Put the message back, ready again in ``back_seconds``: the task has not begun, and would not soon."""
        task_ready(self)
        self._decide(Disposition(back="unstarted", back_seconds=back_seconds))

    # --- the ends of a run ------------------------------------------------------------------------

    @guarded
    def on_success(self, outcome: Any, **_: Any) -> None:
        """Handle what ``run`` brought back, a failure or a success."""
        if isinstance(outcome, ExceptionInfo):  # of a pool without child processes, when a task ends its process
            self.on_failure(outcome)
            return
        failed, value, runtime, settlement = outcome
        if failed == UNTOLD:
            fail_unreported(self, failure_in(value))
            return
        if failed:
            with self._ending(settlement):
                super().on_success((failed, value, runtime))
            return
        self.seen = Seen(value, runtime)
        # Celery's list of successes is for ``worker_deduplicate_successful_tasks`` alone, and costs more than a run.
        task_ready(self, successful=keeps_successes(self._app))
        is_due = self._task.acks_late and not self.acknowledged
        if is_due and self._is_claimed():
            self.acknowledged = True
            self._carry_out(FINISHED, settlement)
        else:
            if is_due:
                self.acknowledge()
            self._count_acknowledged()
        self.send_event("task-succeeded", result=value, runtime=runtime, **after_retries(self._request_dict))

    @guarded
    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Handle a run that ended with an error; a task out of memory fails and the worker stays."""
        error = failure_in(exc_info)
        if isinstance(error, TimeLimitExceeded) and not return_ok:
            return  # of a pool of child processes, which calls on_timeout next: one failure, heard of once
        self.seen = Seen(error=error, traceback=exc_info.traceback)
        with self._ending(ended_by=error):
            super().on_failure(exc_info, send_failed_event, return_ok)
            if isinstance(self._ended_by, CrashedTooOften):
                fail_for_crashes(self, self._ended_by, super().on_failure)

    @guarded
    def on_timeout(self, soft: bool, timeout: float) -> Any:  # noqa: FBT001 - Celery's signature
        """Handle a run over its time limit; past the hard one it has failed for good."""
        if soft:
            return super().on_timeout(soft, timeout)  # the run goes on
        limit = TimeLimitExceeded(timeout)
        self.seen = Seen(error=limit)
        # Who listens to the failure finds the request, as when a process is lost.
        self._task.request_stack.push(self._context)
        try:
            with self._ending(ended_by=limit):
                return super().on_timeout(soft, timeout)
        finally:
            self._task.request_stack.pop()

    def on_retry(self, exc_info: Any) -> Any:
        """Handle a run that asked for another: no failure."""
        self._ended_by, self._is_retried = None, True
        if isinstance(exc_info.exception, ExceptionWithTraceback):
            # Only on its way out of a child process it is unwrapped.
            exc_info.exception = exc_info.exception.exc
        return super().on_retry(exc_info)

    def _announce_revoked(self, reason: str, *args: Any) -> None:
        self.seen = Seen(reason=reason)
        with self._ending(ended_by=Terminated("revoked")):
            super()._announce_revoked(reason, *args)

    def _retry_worker_lost(self, *args: Any) -> Any:
        self._is_retried = True
        with collecting(keep=True):
            self._is_retried = super()._retry_worker_lost(*args)
        return self._is_retried

    def _success_was_stored(self) -> Any:
        context = self._context
        if self._is_claimed() and self._task.acks_late and isinstance(self._task.backend, Results):
            return False  # what a run leaves is stored by this process alone
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
                self._count_acknowledged()
                self._ended_by = outer
            return
        self._is_ending, settlement = True, settlement or Settlement()
        try:
            with settling(settlement):
                yield
        except BaseException as error:
            # Nobody would hear of it any more: what could not be recorded is kept.
            self._fate = self._fate or Disposition(reason="failed", detail=in_words(error), state="FAILURE")
            raise
        finally:
            self._is_ending, self._ended_by = False, outer
            fate, self._fate = self._fate, None
            if fate is not None:
                self._carry_out(fate, settlement)

    def _carry_out(self, fate: Disposition, settlement: Settlement | None = None) -> None:
        channel, tag = self.message.channel, self.message.delivery_tag
        if fate.back:
            channel.give_back(tag, fate.back, fate.back_seconds)
            return
        settlement = settlement or Settlement()
        settlement.run = settlement.run or self._counted(fate)
        self._note_ends(fate, settlement)
        if settlement.external_writes:
            # Its slot is free: what the result server takes its time for holds up nobody.
            channel.ended(tag)
            self._task.backend.later.put(
                Ended(settlement, partial(self._carry_out, fate, settlement), partial(self._refused, fate))
            )
        elif fate.reason:
            channel.bury(tag, fate.reason, fate.detail, settlement)
        else:
            channel.settle(tag, settlement)

    def _counted(self, fate: Disposition) -> CountedRun | None:
        """Return what is counted of its end; ``None``: it is still to come."""
        if fate.state == "STARTED":
            return None
        ahead_seconds = self._message.channel.process.node.clock.ahead_seconds if self._is_claimed() else 0.0
        return counted(self, "RETRY" if self._is_retried else fate.state, ahead_seconds)

    def _count_acknowledged(self) -> None:
        """Count the end of a run that settles no claim: acknowledged as it began, or of another broker."""
        if self._is_counted or (self._is_claimed() and self._task.acks_late):
            return
        self._is_counted = True
        state = "SUCCESS" if self._ended_by is None else self._state()
        run = self._counted(Disposition(state=state))
        if run is not None:
            note_writer().count(self._delivery_info.get("routing_key") or "", run)
        is_over = not self._is_retried and not isinstance(self._ended_by, Repeat)
        if is_over and (end := end_of_request(self, state)) is not None:
            note_writer().end(end)

    def _note_ends(self, fate: Disposition, settlement: Settlement) -> None:
        """Note what others are to hear of the task's end, unless it goes on, as a retry or a replacement."""
        if settlement.messages and any(message.id == self.id for message in settlement.messages):
            return
        if SCHEDULE_HEADER in self._request_dict and (tick := tick_of(self._request_dict)) is not None:
            settlement.tick = EndOfTick(*tick, fate.state, self._took_ms())
        if fate.state != "STARTED":
            settlement.end = settlement.end or end_of_request(self, fate.state)

    def _took_ms(self) -> int:
        return int((time() - self.time_start) * 1_000) if self.time_start else 0

    def _refused(self, fate: Disposition, error: Exception) -> None:
        """Keep a message whose end could not be recorded."""
        detail = fate.detail or f"its result was refused: {in_words(error)}"
        self._carry_out(Disposition(reason=fate.reason or "failed", detail=detail, state="FAILURE"))

    def _decide(self, fate: Disposition) -> None:
        self.acknowledged = True
        if self._is_ending:
            self._fate = fate
        else:
            self._carry_out(fate)

    def _is_claimed(self) -> bool:
        return isinstance(self._message, Received)

    def acknowledge(self) -> None:
        """Acknowledge; a task that failed for good is kept among the dead letters."""
        if self.acknowledged:
            return
        if not self._is_claimed():
            self._end_unclaimed(self._state(), partial(self._on_ack, logger, self._connection_errors))
        elif self._is_dead():
            error = self._ended_by
            self._decide(Disposition(reason="failed", detail=in_words(error), state="FAILURE"))
        else:
            self._decide(Disposition(state=self._state()))

    def _end_unclaimed(self, state: str, finish: Callable[[], Any]) -> None:
        """Let the schedule hear of the end of a tick that came by another broker, then ``finish`` its message."""
        self.acknowledged = True
        if state != "STARTED":
            crashes.forget(self.id)
        is_end = state != "STARTED" and not self._is_retried and not isinstance(self._ended_by, Repeat)
        tell_end(self._app, self._request_dict if is_end else {}, state, self._took_ms(), finish)

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Give back or bury; a run whose process died counts as a crash."""
        if self.acknowledged:
            return
        if not self._is_claimed():
            if requeue and (error := crashed_too_often(self, self._ended_by)) is not None:
                self._ended_by = error  # ``on_failure``, which called this, goes on with it
                return
            self.drop("STARTED" if requeue else "REJECTED")
            self.send_event("task-rejected", requeue=requeue)
            return
        if requeue:
            fate = Disposition(back="crashed" if isinstance(self._ended_by, WorkerLostError) else "retry")
        else:
            fate = Disposition(reason="rejected", detail="the task, or its message, was rejected", state="REJECTED")
        self._decide(fate)
        self.send_event("task-rejected", requeue=requeue)

    def drop(self, state: str) -> None:
        """Reject the message of another broker; one whose task is to run again, ``STARTED``, returns to its queue."""
        requeue = state == "STARTED"
        self._is_counted = self._is_counted or requeue  # it did not end, it goes back
        self._end_unclaimed(state, partial(self._on_reject, logger, self._connection_errors, requeue))

    def _state(self) -> str:
        error = self._ended_by
        if error is None:
            return "SUCCESS" if self._task.acks_late else "STARTED"
        if isinstance(error, Ignore | Reject):
            return "IGNORED" if isinstance(error, Ignore) else "REJECTED"
        return "REVOKED" if isinstance(error, Terminated) else "FAILURE"

    def _is_dead(self) -> bool:
        return self._state() == "FAILURE" and bool(getattr(self.task, "keeps_failures", True))
