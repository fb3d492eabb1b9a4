"""Celery's request, extended to finish a claim in one step and to report to the engine why a run ended.

Celery acknowledges, stores a failure and announces it in separate steps. Here, acknowledging and
rejecting only record the disposition of the message; when the outermost of Celery's callbacks returns,
the disposition is carried out together with everything collected so far.
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
from taskapp.worker.consume.stopped import ends_first
from taskapp.worker.consume.timestamps import moment_of
from taskapp.worker.pool.pool import TaskPool
from taskapp.worker.run.circuits import settlement_of_lost
from taskapp.worker.run.execute import decode, run
from taskapp.worker.run.guard import UNREPORTED, fail_unreported, give_up, guarded
from taskapp.worker.run.tick_dedup import Repeat, report_end

# The stubs are incomplete.
_Stock: Any = stock.Request
state: Any = worker_state

logger = get_logger(__name__)


class Request(_Stock):
    """A task on this node, from its message to its settlement."""

    acknowledged: bool
    _ended_by: BaseException | None = None
    _is_ending = _is_retried = _is_counted = False
    _decided: Disposition | None = None
    is_given_up = False
    seen = NOTHING
    """Outcome of the run so far."""

    @classmethod
    def of_claim(cls, message: Received, task: Any, app: Any, hostname: str, eventer: Any) -> Self:
        """Return the request for a claimed message; the body is decoded where the task runs, or on first access."""
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
        except Exception:  # noqa: BLE001 - the run will fail with this error; here, return what is readable
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
        """Return the fields that remote control shows, see Celery."""
        self._args, self._kwargs = self.args, self.kwargs
        return super().info(safe)  # type: ignore[no-any-return]  # a dict

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Hand the task to ``pool``; raise ``TaskRevokedError`` if it was revoked, has expired or is not accepted."""
        if (self._expires or self.id in state.revoked or self.stamped_headers) and self.revoked():
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
                raise TaskRevokedError(self.id) from error  # makes Celery free the slot
        self._apply_result = ref(result) if result is not None else None
        return result

    @guarded
    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Record that the task started at ``time_accepted`` (monotonic) in process ``pid``."""
        self.worker_pid = pid
        self.time_start = time() - (monotonic() - time_accepted)
        state.active_requests.add(self)
        # As ``task_accepted`` does, without the cost of ``Counter.update``.
        state.total_count[self.name] += 1
        state.all_total_count[0] += 1
        if not self._task.acks_late:
            self.acknowledge()
        self.send_event("task-started")
        if self._terminate_on_ack is not None:
            self.terminate(*self._terminate_on_ack)

    @property
    def can_go_back(self) -> bool:
        """Whether the message may be requeued while the task has not started."""
        return bool(self._task.acks_late) and self._is_claimed()

    def give_back(self, back_seconds: float = 0.0) -> None:
        """Requeue the message of a task that will not start soon; it is ready again in ``back_seconds``."""
        task_ready(self)
        self._decide(Disposition(back="unstarted", back_seconds=back_seconds))

    # --- the ends of a run ------------------------------------------------------------------------

    @guarded
    def on_success(self, outcome: Any, **_: Any) -> None:
        """Handle the outcome that ``run`` returned, a success or a failure."""
        if isinstance(outcome, ExceptionInfo):  # from a pool without child processes, when a task exits the process
            self.on_failure(outcome)
            return
        failed, value, runtime, settlement = outcome
        if failed == UNREPORTED:
            fail_unreported(self, failure_in(value))
            return
        if failed:
            with self._ending(settlement):
                super().on_success((failed, value, runtime))
            return
        self.seen = Seen(value, runtime)
        # Celery's list of successes serves only ``worker_deduplicate_successful_tasks`` and costs more than a run.
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
        """Handle a run that ended with an error; a task that runs out of memory fails without ending the worker."""
        error = failure_in(exc_info)
        if isinstance(error, TimeLimitExceeded) and not return_ok:
            return  # a pool of child processes calls on_timeout next: report the failure once
        self.seen = Seen(error=error, traceback=exc_info.traceback)
        with self._ending(ended_by=error):
            super().on_failure(exc_info, send_failed_event, return_ok)
            if isinstance(self._ended_by, CrashedTooOften):
                fail_for_crashes(self, self._ended_by, super().on_failure)

    @guarded
    def on_timeout(self, soft: bool, timeout: float) -> Any:  # noqa: FBT001 - Celery's signature
        """Handle a run that exceeded a time limit; after the hard limit, the task has failed permanently."""
        if soft:
            return super().on_timeout(soft, timeout)  # the run continues
        limit = TimeLimitExceeded(timeout)
        self.seen = Seen(error=limit)
        # Failure handlers find the request on the stack, as they do after a lost process.
        self._task.request_stack.push(self._context)
        try:
            with self._ending(ended_by=limit):
                return super().on_timeout(soft, timeout)
        finally:
            self._task.request_stack.pop()

    def on_retry(self, exc_info: Any) -> Any:
        """Handle a run that asked for a retry, which is not a failure."""
        self._ended_by, self._is_retried = None, True
        if isinstance(exc_info.exception, ExceptionWithTraceback):
            # Only errors from a child process are unwrapped on the way.
            exc_info.exception = exc_info.exception.exc
        return super().on_retry(exc_info)

    def _announce_revoked(self, reason: str, *args: Any) -> None:
        if ends_first(self._request_dict, self._apply_result, partial(self._announce_revoked, reason, *args)):
            return
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
            return False  # only this process stores the result of a run
        if context.callbacks or context.chain or context.chord:
            return False  # the result was stored, but its follow-ups were lost with the process
        stored = super()._success_was_stored()
        if stored:
            self._ended_by = None
        return stored

    # --- disposition of the message ---------------------------------------------------------------

    @contextmanager
    def _ending(self, settlement: Settlement | None = None, ended_by: BaseException | None = None) -> Iterator[None]:
        """On exit, carry out what was decided inside with everything collected; nested, leave it to the outer call."""
        outer, self._ended_by = self._ended_by, ended_by or self._ended_by
        if self._is_ending or self.acknowledged or not self._is_claimed():
            try:
                yield
            finally:
                self._count_acknowledged()
                self._ended_by = outer
            return
        self._is_ending, settlement = True, settlement or settlement_of_lost(self._task, ended_by)
        try:
            with settling(settlement):
                yield
        except BaseException as error:
            # Nothing else reports this error, so keep the message as a dead letter.
            self._decided = self._decided or Disposition(reason="failed", detail=in_words(error), state="FAILURE")
            raise
        finally:
            self._is_ending, self._ended_by = False, outer
            decided, self._decided = self._decided, None
            if decided is not None:
                self._carry_out(decided, settlement)

    def _carry_out(self, decided: Disposition, settlement: Settlement | None = None) -> None:
        channel, tag = self.message.channel, self.message.delivery_tag
        if decided.back:
            channel.give_back(tag, decided.back, decided.back_seconds, settlement.pauses if settlement else ())
            return
        settlement = settlement or Settlement()
        settlement.run = settlement.run or self._counted(decided)
        self._note_ends(decided, settlement)
        if settlement.external_writes:
            # Frees the slot, so that a slow result server delays no other task.
            channel.ended(tag)
            self._task.backend.later.put(
                Ended(settlement, partial(self._carry_out, decided, settlement), partial(self._refused, decided))
            )
        elif decided.reason:
            channel.bury(tag, decided.reason, decided.detail, settlement)
        else:
            channel.settle(tag, settlement)

    def _counted(self, decided: Disposition) -> CountedRun | None:
        """Return the counter entry for the end of the run; ``None`` if it has not ended."""
        if decided.state == "STARTED":
            return None
        ahead_seconds = self._message.channel.process.node.clock.ahead_seconds if self._is_claimed() else 0.0
        return counted(self, "RETRY" if self._is_retried else decided.state, ahead_seconds)

    def _count_acknowledged(self) -> None:
        """Count the end of a run that settles no claim: acknowledged at its start, or from another broker."""
        if self._is_counted or (self._is_claimed() and self._task.acks_late):
            return
        self._is_counted = True
        state = "SUCCESS" if self._ended_by is None else self._state()
        if (run := self._counted(Disposition(state=state))) is not None:
            note_writer().count(self._delivery_info.get("routing_key") or "", run)
        is_over = not self._is_retried and not isinstance(self._ended_by, Repeat)
        if is_over and (end := end_of_request(self, state)) is not None:
            note_writer().end(end)

    def _note_ends(self, decided: Disposition, settlement: Settlement) -> None:
        """Add tick end and history record to ``settlement``, unless the task continues as a retry or replacement."""
        if settlement.messages and any(message.id == self.id for message in settlement.messages):
            return
        if SCHEDULE_HEADER in self._request_dict and (tick := tick_of(self._request_dict)) is not None:
            settlement.tick = EndOfTick(*tick, decided.state, self._took_ms())
        if decided.state != "STARTED":
            settlement.end = settlement.end or end_of_request(self, decided.state)

    def _took_ms(self) -> int:
        return int((time() - self.time_start) * 1_000) if self.time_start else 0

    def _refused(self, decided: Disposition, error: Exception) -> None:
        """Bury a message whose outcome could not be recorded."""
        detail = decided.detail or f"the result backend refused its result: {in_words(error)}"
        self._carry_out(Disposition(reason=decided.reason or "failed", detail=detail, state="FAILURE"))

    def _decide(self, decided: Disposition) -> None:
        self.acknowledged = True
        if self._is_ending:
            self._decided = decided
        else:
            self._carry_out(decided)

    def _is_claimed(self) -> bool:
        return isinstance(self._message, Received)

    def acknowledge(self) -> None:
        """Acknowledge the message; bury it if the task has failed permanently."""
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
        """Report the end of a tick from another broker to its schedule, then ``finish`` the message."""
        self.acknowledged = True
        if state != "STARTED":
            crashes.forget(self.id)
        is_end = state != "STARTED" and not self._is_retried and not isinstance(self._ended_by, Repeat)
        report_end(self._app, self._request_dict if is_end else {}, state, self._took_ms(), finish)

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Requeue or bury the message; a run whose process died counts as a crash."""
        if self.acknowledged:
            return
        if not self._is_claimed():
            if requeue and (error := crashed_too_often(self, self._ended_by)) is not None:
                self._ended_by = error  # ``on_failure``, which called this, handles it
                return
            self.drop("STARTED" if requeue else "REJECTED")
            self.send_event("task-rejected", requeue=requeue)
            return
        if requeue:
            decided = Disposition(back="crashed" if isinstance(self._ended_by, WorkerLostError) else "retry")
        else:
            decided = Disposition(reason="rejected", detail="the task or its message was rejected", state="REJECTED")
        self._decide(decided)
        self.send_event("task-rejected", requeue=requeue)

    def drop(self, state: str) -> None:
        """Reject the message of another broker; in state ``STARTED`` it is requeued, because its task runs again."""
        requeue = state == "STARTED"
        self._is_counted = self._is_counted or requeue  # a requeued task has not ended
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
