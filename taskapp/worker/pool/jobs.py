"""One task in the pool: what Celery is told of it, its time limits, and how it runs on each kind of slot."""

from __future__ import annotations

import os
from contextvars import Context
from signal import SIGKILL
from time import monotonic
from typing import Any, Protocol

from billiard.einfo import ExceptionInfo
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_logger

from taskapp.errors.wording import in_words
from taskapp.execution.coroutines import Closed, Interruptible, SoftTimeLimitReached, Stopped, is_current
from taskapp.execution.failures import as_error, as_failure, ends_the_run
from taskapp.worker.pool.threads import Job, Threads
from taskapp.worker.run.execute import run, run_async
from taskapp.worker.run.guard import give_up
from taskapp.worker.run.refused import unreported

NOT_YET: Any = object()
NO_CHILD_SECONDS = 1.0
"""How long a message waits whose task found no child process."""


logger = get_logger(__name__)


class Pool(Protocol):
    """What a call needs of its pool."""

    loop: Any
    """Where coroutines run, and where all is told; see ``soon_on_loop``."""
    context: Context
    """What every coroutine begins with."""
    threads: Threads
    children: Any
    """Celery's prefork pool; ``None`` without task types that need it."""

    def leave(self, call: Call) -> None: ...  # noqa: D102 - see TaskPool

    def finish_soon(self, call: OnThread, outcome: Any) -> None: ...  # noqa: D102

    def abandon(self, job: Job) -> None: ...  # noqa: D102

    def start_children(self) -> None: ...  # noqa: D102


class Call:
    """One task in the pool: what Celery is told of it, and its time limits."""

    __slots__ = (
        "__weakref__", "_limits", "_pool", "_request", "_timers", "arguments", "has_started", "is_stopped", "kind",
    )  # fmt: skip

    def __init__(
        self, pool: Pool, kind: str, request: Any, arguments: Any, soft_seconds: float | None, seconds: float | None
    ) -> None:
        self._pool = pool
        self.kind = kind
        self._request = request
        self.arguments = arguments
        """What ``run`` is called with: the name of the type, the id of the task, and the rest of its message."""
        self._limits = soft_seconds, seconds
        self._timers: tuple[Any, ...] = ()
        self.has_started = False
        self.is_stopped = False
        """Whether it was ended from outside: what it still comes to is of no interest."""

    def begin(self) -> None:
        """Tell Celery that it starts, and start it."""
        self.accept(monotonic())
        if not self.is_stopped:  # it was to be revoked as soon as it began
            self.start()

    def accept(self, started_at: float) -> None:
        """Tell Celery that it starts or has started, and count its time from then on."""
        self.has_started = True
        self._request.on_accepted(os.getpid(), started_at)
        soft_seconds, hard_seconds = self._limits
        if (soft_seconds or hard_seconds) and not self.is_stopped:
            self._set_timers(soft_seconds, hard_seconds, started_at)

    def _set_timers(self, soft_seconds: float | None, hard_seconds: float | None, started_at: float) -> None:
        later, gone = self._pool.loop.call_later, monotonic() - started_at
        timers = []
        if soft_seconds and not (hard_seconds and hard_seconds <= soft_seconds):
            timers.append(later(max(soft_seconds - gone, 0), self._on_soft_limit, soft_seconds))
        if hard_seconds:
            timers.append(later(max(hard_seconds - gone, 0), self._on_hard_limit, hard_seconds))
        self._timers = tuple(timers)

    def _on_soft_limit(self, seconds: float) -> None:
        self._request.on_timeout(soft=True, timeout=seconds)
        self.interrupt()

    def _on_hard_limit(self, seconds: float) -> None:
        if not self.is_stopped:
            self._request.on_timeout(soft=False, timeout=seconds)
            self.stop()

    def finish(self, outcome: Any) -> None:
        """Tell Celery what came of it; on the loop's thread."""
        for timer in self._timers:
            timer.cancel()
        if self.is_stopped:
            return
        self._pool.leave(self)
        if isinstance(outcome, BaseException):
            # Outside the runner's guard: raised too late by a limit, or a defect.
            outcome = unreported(as_failure(outcome))
        self._request.on_success(outcome)

    def terminate(self, signal: Any) -> None:  # noqa: ARG002 - Celery's signature
        """End it if it runs: Celery has told the world that it was revoked, or will as soon as it begins."""
        if self.has_started:
            self.stop()

    def refuse(self, error: Exception) -> None:
        """Let its task fail: it cannot be begun."""
        self.is_stopped = True
        give_up(self._request, error)

    def stop(self) -> None:
        """End it, whatever it does; its slot is free at once. Nobody is told."""
        if self.is_stopped:
            return
        self.is_stopped = True
        for timer in self._timers:
            timer.cancel()
        self.end()
        self._pool.leave(self)

    # --- what differs -----------------------------------------------------------------------------
    # Not abstract: what runs in a child has none of these, its own pool starts it, interrupts it and ends it.

    def start(self) -> None:
        """Let it run."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """Raise ``SoftTimeLimitExceeded`` in it."""
        raise NotImplementedError

    def end(self) -> None:
        """Stop it."""
        raise NotImplementedError


class OnLoop(Call):
    """A task on the event loop."""

    __slots__ = ("_interruptible", "task")

    def start(self) -> None:
        """Let it run on the loop."""
        self._interruptible: Interruptible | None = None
        # Perhaps called in the context of another task, which has just ended.
        self.task = self._pool.loop.create_task(self._run(), context=self._pool.context.copy())

    def is_current(self) -> bool:
        """Return whether the loop runs it now."""
        return is_current(self.task)

    async def _run(self) -> None:
        run, outcome = run_async(self, *self.arguments), NOT_YET
        while outcome is NOT_YET:
            try:
                outcome = await run
            except Closed as closed:
                run = closed.rest()
            except Stopped:
                return
            except BaseException as error:
                if issubclass(type(error), GeneratorExit) and not self.is_current():
                    raise  # the loop is gone
                outcome = error
        self.finish(outcome)

    def awaitable(self, coroutine: Any) -> Any:
        """Make ``coroutine`` interruptible if there is a limit that may interrupt it."""
        if self._limits[0]:
            self._interruptible = Interruptible(coroutine)
            return self._interruptible
        return coroutine

    def interrupt(self) -> None:
        """Raise the limit's exception at its innermost ``await``."""
        if self._interruptible is not None:
            self._interruptible.interrupt(SoftTimeLimitReached(self._limits[0]))

    def end(self) -> None:
        """Cancel it."""
        if (task := getattr(self, "task", None)) is not None:  # none yet if it is revoked as it begins
            task.cancel()


class OnThread(Call):
    """A task on a thread."""

    __slots__ = ("job", "kept_at")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.job = Job(self._run, self._done)
        self.kept_at = 0.0
        """Since when it waits for a thread (monotonic)."""

    def start(self) -> None:
        """Let a thread run it."""
        self._pool.threads.submit(self.job)

    def _run(self) -> Any:
        return run(*self.arguments)

    def _done(self, outcome: Any) -> None:
        self._pool.finish_soon(self, outcome)

    def interrupt(self) -> None:
        """Raise ``SoftTimeLimitExceeded`` at its next bytecode."""
        self.job.interrupt(SoftTimeLimitExceeded)

    def end(self) -> None:
        """End it at its next bytecode; one that hangs in C never gets there, and keeps only its thread."""
        if not self.job.withdraw() and self.job.interrupt(Stopped):
            self._pool.abandon(self.job)

    @property
    def can_wait(self) -> bool:
        """Whether it may be kept for a thread, to be begun by that or given back."""
        return bool(self._request.can_go_back)

    def give_back(self) -> None:
        """Put its message back: it has not begun."""
        self.is_stopped = True
        self._request.give_back()


class Told:
    """In the place of a request: who gave the pool a function to run is told by the callbacks of Celery's pools.

    What one of these raises is logged: it is called on the loop, which others need.
    """

    can_go_back = False

    def __init__(self, callback: Any, accept_callback: Any, error_callback: Any, timeout_callback: Any) -> None:
        self.on_accepted = _logged(accept_callback or _ignore)
        self.on_timeout = _logged(timeout_callback or _ignore)
        self._callback, self._error_callback = _logged(callback or _ignore), _logged(error_callback or _log_error)

    def on_success(self, outcome: Any) -> None:
        """Pass on what the function returned or raised."""
        failed, value, *_ = outcome
        (self._error_callback if failed else self._callback)(value)


def _ignore(*_: Any, **__: Any) -> None:
    pass


def _logged(callback: Any) -> Any:
    def call(*args: Any, **options: Any) -> None:
        try:
            callback(*args, **options)
        except BaseException as raised:
            error = as_error(raised)
            if ends_the_run(error):
                raise
            what = "a callback of a function that was given to the pool raised: %s"
            logger.error(what, in_words(error), exc_info=error)

    return call


def _log_error(seen: ExceptionInfo) -> None:
    error: Any = getattr(seen.exception, "exc", seen.exception)
    logger.error("a function that was given to the pool raised: %s", in_words(error), exc_info=error)


class OfOthers(OnThread):
    """A function that a task type's own strategy gave the pool."""

    __slots__ = ()

    def _run(self) -> Any:
        target, args, kwargs = self.arguments
        return 0, target(*args, **kwargs), None, None

    def refuse(self, error: Exception) -> None:
        """Tell who gave the function that it cannot be begun."""
        self.is_stopped = True
        self._request.on_success((1, ExceptionInfo((type(error), error, error.__traceback__))))


class InChild(Call):
    """A task in a child process; its limits and its end are the business of the children's own pool."""

    __slots__ = ("_job",)

    def begin(self) -> None:
        """Hand it to the children, who tell Celery when it starts."""
        told = self._request
        try:
            self._pool.start_children()
        except OSError as error:
            if not told.can_go_back:
                raise
            self._give_back(error)
            return
        self.has_started = True
        self._job = self._pool.children.apply_async(
            run, self.arguments, callback=self._done, error_callback=self._failed,
            accept_callback=told.on_accepted, timeout_callback=told.on_timeout,
            soft_timeout=self._limits[0], timeout=self._limits[1], correlation_id=told.id,
        )  # fmt: skip

    def _give_back(self, error: OSError) -> None:
        """Put its message back: descriptors, memory or processes are short here, and may not be elsewhere or later."""
        told = self._request
        logger.error(
            "no child process can be started: %s; task %s[%s] goes back to its queue", error, told.name, told.id
        )
        self.is_stopped = True
        self._pool.leave(self)
        told.give_back(NO_CHILD_SECONDS)

    def _done(self, outcome: Any) -> None:
        self._pool.leave(self)
        self._request.on_success(outcome)

    def _failed(self, seen: Any) -> None:
        self._pool.leave(self)
        self._request.on_failure(seen)

    def terminate(self, signal: Any) -> None:
        """Kill its child as soon as it has one; if it has, Celery asked for that before."""
        if self.has_started:
            self._job.terminate(signal)

    def end(self) -> None:
        """Kill its child."""
        if not self.has_started:
            return
        if (pid := self._job.worker_pids()) and pid[0]:
            self._pool.children.terminate_job(pid[0], SIGKILL)
