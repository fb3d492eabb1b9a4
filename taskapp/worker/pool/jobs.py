"""A task in the pool: its reports to Celery, its time limits, and how it runs on each kind of slot."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import Context
from signal import SIGKILL
from sys import getrecursionlimit
from time import monotonic
from typing import Any, Protocol

from billiard.einfo import ExceptionInfo
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_logger

from taskapp import recursion
from taskapp.errors.wording import in_words
from taskapp.execution import forked
from taskapp.execution.coroutines import Closed, Interruptible, SoftTimeLimitReached, Stopped, is_current
from taskapp.execution.failures import as_error, as_failure, ends_the_run
from taskapp.worker.pool.threads import Job, Threads
from taskapp.worker.run.execute import run, run_async
from taskapp.worker.run.guard import give_up
from taskapp.worker.run.refused import unreported

NOT_YET: Any = object()
NO_CHILD_SECONDS = 1.0
"""Delay before a message is ready again if no child process could be started for its task."""


logger = get_logger(__name__)


class Pool(Protocol):
    """The parts of the pool that a call uses."""

    loop: Any
    """The loop that runs coroutines, and on which everything is reported to Celery."""
    context: Context
    """Copied for every coroutine."""
    threads: Threads
    children: Any
    """Celery's prefork pool; ``None`` if no task type needs it."""

    after_coroutine: Callable[[], None]
    """Called after each coroutine of a task."""

    def leave(self, call: Call) -> None: ...  # noqa: D102 - see TaskPool

    def start_soon(self, call: OnThread) -> None: ...  # noqa: D102

    def finish_soon(self, call: OnThread, outcome: Any) -> None: ...  # noqa: D102

    def abandon(self, job: Job) -> None: ...  # noqa: D102

    def start_children(self) -> None: ...  # noqa: D102


class Call:
    """A task in the pool: its reports to Celery and its time limits."""

    __slots__ = (
        "__weakref__", "_limits", "_pool", "_request", "_timers", "arguments", "has_started", "is_stopped", "kind",
        "report",
    )  # fmt: skip

    def __init__(
        self, pool: Pool, kind: str, request: Any, arguments: Any, soft_seconds: float | None, seconds: float | None
    ) -> None:
        self._pool = pool
        self.kind = kind
        self._request = request
        self.arguments = arguments
        """Arguments of ``run``: the task type's name, the task id, and the rest of the message."""
        self._limits = soft_seconds, seconds
        self._timers: tuple[Any, ...] = ()
        self.has_started = False
        self.is_stopped = False
        """Whether it was stopped from outside, so that its outcome is ignored."""

    def begin(self) -> None:
        """Report the start to Celery, and start the task."""
        self.accept(monotonic())
        if not self.is_stopped:  # Celery revokes some tasks as soon as they start
            self.start()

    def accept(self, started_at: float) -> None:
        """Report to Celery that the task started at ``started_at`` (monotonic), and start its time limits."""
        self.has_started = True
        self._request.on_accepted(os.getpid(), started_at)
        if self._request.is_given_up:
            self.stop()
            return
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
        """Report the outcome to Celery; on the loop's thread."""
        for timer in self._timers:
            timer.cancel()
        if self.is_stopped:
            self._has_ended()
            return
        self._pool.leave(self)
        if isinstance(outcome, BaseException):
            # Raised outside the runner's guard: by a time limit that came too late, or through a defect.
            outcome = unreported(as_failure(outcome))
        self._request.on_success(outcome)

    def terminate(self, signal: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Stop the task if it runs: Celery has announced that it was revoked, or will do so once it starts."""
        if self.has_started:
            self.stop()

    def stop_then(self, report: Callable[[], Any]) -> bool:
        """Stop the task if it runs; return whether it takes time to end: ``report`` is called on the loop then."""
        if self.has_started and not self.is_stopped:
            self.stop()
            if self.watch_end():
                self.report = report
        return getattr(self, "report", None) is not None

    def _has_ended(self) -> None:
        if (report := getattr(self, "report", None)) is not None:
            del self.report
            report()

    def refuse(self, error: Exception) -> None:
        """Fail the task with ``error``, because it cannot be started."""
        self.is_stopped = True
        give_up(self._request, error)

    def stop(self) -> None:
        """Stop the task and free its slot at once, without reporting an outcome."""
        if self.is_stopped:
            return
        self.is_stopped = True
        for timer in self._timers:
            timer.cancel()
        self.end()
        self._pool.leave(self)

    # --- differs by kind --------------------------------------------------------------------------
    # Not abstract: ``InChild`` leaves starting and interrupting to the pool of child processes.

    def start(self) -> None:
        """Start the task on its slot."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """Raise ``SoftTimeLimitExceeded`` in the task."""
        raise NotImplementedError

    def end(self) -> None:
        """End the run of the task, if it has started."""
        raise NotImplementedError

    def watch_end(self) -> bool:
        """Call ``_has_ended`` once a run that was stopped has ended; return whether that is yet to come."""
        return False


class OnLoop(Call):
    """A task on the event loop."""

    __slots__ = ("_interruptible", "task")

    def start(self) -> None:
        """Run the task on the loop."""
        self._interruptible: Interruptible | None = None
        # May be called in the context of another task, one that has just ended.
        self.task = self._pool.loop.create_task(self._run(), context=self._pool.context.copy())

    def is_current(self) -> bool:
        """Return whether the loop is running it now."""
        return is_current(self.task)

    async def _run(self) -> None:
        run, outcome, forks = run_async(self, *self.arguments), NOT_YET, forked.forks
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
        if forked.forks != forks:
            forked.leave()
        if getrecursionlimit() < recursion.limit:
            recursion.restore()
        self._pool.after_coroutine()
        self.finish(outcome)

    def awaitable(self, coroutine: Any) -> Any:
        """Return ``coroutine``, made interruptible if the task has a soft time limit."""
        if self._limits[0]:
            self._interruptible = Interruptible(coroutine)
            return self._interruptible
        return coroutine

    def interrupt(self) -> None:
        """Raise the soft limit's exception at the task's innermost ``await``."""
        if self._interruptible is not None:
            self._interruptible.interrupt(SoftTimeLimitReached(self._limits[0]))

    def end(self) -> None:
        """Cancel the coroutine."""
        if (task := getattr(self, "task", None)) is not None:  # not set yet if it is revoked as it starts
            task.cancel()

    def watch_end(self) -> bool:
        """Watch the coroutine, which may take time to clean up."""
        if (task := getattr(self, "task", None)) is None or task.done():
            return False
        task.add_done_callback(lambda _: self._has_ended())  # it may have been cancelled before its first step
        return True


class OnThread(Call):
    """A task on a thread."""

    __slots__ = ("job", "kept_at")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.job = Job(self._run, self._done)
        self.kept_at = 0.0
        """When it started to wait for a thread (monotonic)."""

    def start(self) -> None:
        """Let a thread run it, soon."""
        self._pool.start_soon(self)

    def _run(self) -> Any:
        return run(*self.arguments)

    def _done(self, outcome: Any) -> None:
        self._pool.finish_soon(self, outcome)

    def interrupt(self) -> None:
        """Raise ``SoftTimeLimitExceeded`` at the task's next bytecode."""
        self.job.interrupt(SoftTimeLimitExceeded)

    def end(self) -> None:
        """Stop the task at its next bytecode; a task that hangs in C code keeps its thread, but not its slot."""
        if not self.job.withdraw() and self.job.interrupt(Stopped):
            self._pool.abandon(self.job)

    def watch_end(self) -> bool:
        """Watch the thread: the task runs until its next bytecode, or for longer in C code."""
        return not self.job.withdraw()

    @property
    def can_wait(self) -> bool:
        """Whether it may be kept for a thread, which starts it, or be requeued later."""
        return bool(self._request.can_go_back)

    def give_back(self) -> None:
        """Requeue the message of a task that has not started."""
        self.is_stopped = True
        self._request.give_back()


class FunctionCallbacks:
    """Stands in for a request and calls the callbacks that were given to the pool with a function.

    Their exceptions are logged and not raised, because they run on the loop, which serves all tasks.
    """

    can_go_back = is_given_up = False

    def __init__(self, callback: Any, accept_callback: Any, error_callback: Any, timeout_callback: Any) -> None:
        self.on_accepted = _logged(accept_callback or _ignore)
        self.on_timeout = _logged(timeout_callback or _ignore)
        self._callback, self._error_callback = _logged(callback or _ignore), _logged(error_callback or _log_error)

    def on_success(self, outcome: Any) -> None:
        """Call the callback for the value that the function returned, or for the error it raised."""
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
            logger.error("a callback of a function run by the pool raised: %s", in_words(error), exc_info=error)

    return call


def _log_error(info: ExceptionInfo) -> None:
    error: Any = getattr(info.exception, "exc", info.exception)
    logger.error("a function run by the pool raised: %s", in_words(error), exc_info=error)


class FunctionCall(OnThread):
    """A function that a task type's own strategy gave to the pool."""

    __slots__ = ()

    def _run(self) -> Any:
        target, args, kwargs = self.arguments
        return 0, target(*args, **kwargs), None, None

    def refuse(self, error: Exception) -> None:
        """Report to the error callback that the function cannot be started."""
        self.is_stopped = True
        self._request.on_success((1, ExceptionInfo((type(error), error, error.__traceback__))))


class InChild(Call):
    """A task in a child process; the pool of child processes enforces its limits and handles its end."""

    __slots__ = ("_job",)

    def begin(self) -> None:
        """Hand the task to the child processes, whose pool reports its start to Celery."""
        request = self._request
        try:
            self._pool.start_children()
        except OSError as error:
            if not request.can_go_back:
                raise
            self._give_back(error)
            return
        self.has_started = True
        self._job = self._pool.children.apply_async(
            run, self.arguments, callback=self._done, error_callback=self._failed,
            accept_callback=request.on_accepted, timeout_callback=request.on_timeout,
            soft_timeout=self._limits[0], timeout=self._limits[1], correlation_id=request.id,
        )  # fmt: skip

    def _give_back(self, error: OSError) -> None:
        """Requeue the message: another node, or this one later, may have the descriptors, memory or processes."""
        request = self._request
        logger.error(
            "could not start a child process: %s; returning task %s[%s] to its queue", error, request.name, request.id
        )
        self.is_stopped = True
        self._pool.leave(self)
        request.give_back(NO_CHILD_SECONDS)

    def _done(self, outcome: Any) -> None:
        self._pool.leave(self)
        self._request.on_success(outcome)

    def _failed(self, info: ExceptionInfo) -> None:
        self._pool.leave(self)
        self._request.on_failure(info)

    def terminate(self, signal: Any) -> None:
        """Kill the task's child process, as soon as it has one."""
        if self.has_started:
            self._job.terminate(signal)

    def end(self) -> None:
        """Kill the task's child process."""
        if not self.has_started:
            return
        if (pid := self._job.worker_pids()) and pid[0]:
            self._pool.children.terminate_job(pid[0], SIGKILL)
