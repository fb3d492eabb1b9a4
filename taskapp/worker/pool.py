"""The pool ``celery -A taskapp worker`` runs: coroutines on one event loop, functions on threads beside it.

========  =====================================  =======================  ===================================
kind      its tasks run on                       slots                    are ended from outside by
========  =====================================  =======================  ===================================
async     the worker's own event loop            TASKAPP_ASYNC_SLOTS      cancelling the coroutine
thread    threads                                ``-c``                   an exception at the next bytecode
process   child processes (``cpu_bound=True``)   TASKAPP_CHILD_PROCESSES  killing the child
========  =====================================  =======================  ===================================
"""

from __future__ import annotations

import os
from collections import deque
from inspect import iscoroutinefunction
from multiprocessing import cpu_count
from signal import SIGKILL
from time import monotonic
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_logger
from kombu.asynchronous import get_event_loop

from taskapp.broker.process import role
from taskapp.settings import get_settings
from taskapp.worker import coroutines
from taskapp.worker.blocked_loop import BlockedLoop
from taskapp.worker.coroutines import Interruptible, SoftTimeLimitReached, Stopped
from taskapp.worker.hub import LONGEST_TURN_SECONDS
from taskapp.worker.prefork import TaskPool as PreforkPool
from taskapp.worker.run import run_async
from taskapp.worker.threads import Job, Threads

logger = get_logger(__name__)

_BasePool: Any = BasePool  # the stubs lack half of it

ASYNC, THREAD, PROCESS = "async", "thread", "process"


def kind_of(task: Any) -> str:
    """Return on what kind of slot the tasks of a type run."""
    if getattr(task, "cpu_bound", False):
        return PROCESS
    return ASYNC if iscoroutinefunction(task.run) else THREAD


class _Call:
    """One task in the pool: what Celery is told of it, and its time limits."""

    __slots__ = (
        "__weakref__", "_callbacks", "_limits", "_pool", "_timers", "arguments", "has_started", "is_stopped", "kind",
        "target",
    )  # fmt: skip

    def __init__(self, pool: TaskPool, kind: str, target: Any, arguments: Any, callbacks: dict[str, Any]) -> None:
        self._pool = pool
        self.kind = kind
        self.target = target
        self.arguments = arguments
        self._callbacks = callbacks
        self._limits = callbacks.get("soft_timeout"), callbacks.get("timeout")
        self._timers: tuple[Any, ...] = ()
        self.has_started = False
        self.is_stopped = False
        """Whether it was ended from outside: what it still comes to is of no interest."""

    def begin(self) -> None:
        """Tell Celery that it starts, and start it."""
        self._callbacks["accept_callback"](os.getpid(), monotonic())
        if self.is_stopped:  # it was to be revoked as soon as it began
            return
        soft_seconds, hard_seconds = self._limits
        if soft_seconds or hard_seconds:
            self._set_timers(soft_seconds, hard_seconds)
        self.has_started = True
        self.start()

    def _set_timers(self, soft_seconds: float | None, hard_seconds: float | None) -> None:
        later = self._pool.loop.call_later
        timers = []
        if soft_seconds and not (hard_seconds and hard_seconds <= soft_seconds):
            timers.append(later(soft_seconds, self._on_soft_limit, soft_seconds))
        if hard_seconds:
            timers.append(later(hard_seconds, self._on_hard_limit, hard_seconds))
        self._timers = tuple(timers)

    def _on_soft_limit(self, seconds: float) -> None:
        self._callbacks["timeout_callback"](soft=True, timeout=seconds)
        self.interrupt()

    def _on_hard_limit(self, seconds: float) -> None:
        if not self.is_stopped:
            self._callbacks["timeout_callback"](soft=False, timeout=seconds)
            self.stop()

    def finish(self, outcome: Any) -> None:
        """Tell Celery what came of it; on the loop's thread."""
        for timer in self._timers:
            timer.cancel()
        if self.is_stopped:
            return
        self._pool.leave(self)
        if isinstance(outcome, BaseException):
            # Outside the runner's guard: a Reject from a hook, or a defect.
            outcome = 1, ExceptionInfo((type(outcome), outcome, outcome.__traceback__)), None, None
        self._callbacks["callback"](outcome)

    def terminate(self, signal: Any) -> None:  # noqa: ARG002 - Celery's signature
        """End it: Celery has told the world that it was revoked."""
        self.stop()

    def stop(self) -> None:
        """End it, whatever it does; its slot is free at once. Nobody is told."""
        if self.is_stopped:
            return
        self.is_stopped = True
        for timer in self._timers:
            timer.cancel()
        if self.has_started:
            self.end()
        self._pool.leave(self)

    # --- what differs -----------------------------------------------------------------------------

    def start(self) -> None:
        """Let it run."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """Raise ``SoftTimeLimitExceeded`` in it."""
        raise NotImplementedError

    def end(self) -> None:
        """Stop it."""
        raise NotImplementedError


class _Coroutine(_Call):
    """A task on the event loop."""

    __slots__ = ("_interruptible", "task")

    def start(self) -> None:
        self._interruptible: Interruptible | None = None
        self.task = self._pool.loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            outcome: Any = await run_async(self, *self.arguments)
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - told apart in finish
            outcome = error
        self.finish(outcome)

    def awaitable(self, coroutine: Any) -> Any:
        """Make ``coroutine`` interruptible if there is a limit that may interrupt it."""
        if self._limits[0]:
            self._interruptible = Interruptible(coroutine)
            return self._interruptible
        return coroutine

    def interrupt(self) -> None:
        if self._interruptible is not None:
            self._interruptible.interrupt(SoftTimeLimitReached(self._limits[0]))

    def end(self) -> None:
        self.task.cancel()


class _OnThread(_Call):
    """A task on a thread."""

    __slots__ = ("job",)

    def start(self) -> None:
        self.job = Job(self._run, self._done)
        self._pool.threads.submit(self.job)

    def _run(self) -> Any:
        return self.target(*self.arguments)

    def _done(self, outcome: Any) -> None:
        self._pool.finish_soon(self, outcome)

    def interrupt(self) -> None:
        self.job.interrupt(SoftTimeLimitExceeded)

    def end(self) -> None:
        # At its next bytecode; one that hangs in C never gets there, and keeps only its thread.
        if self.job.interrupt(Stopped):
            self._pool.abandon(self.job)


class _InChild(_Call):
    """A task in a child process; its limits and its end are the business of the children's own pool."""

    __slots__ = ("_job",)

    def begin(self) -> None:
        told = self._callbacks
        self.has_started = True
        self._job = self._pool.children.apply_async(
            self.target, self.arguments, callback=self._done, error_callback=self._failed,
            accept_callback=told["accept_callback"], timeout_callback=told["timeout_callback"],
            soft_timeout=self._limits[0], timeout=self._limits[1], correlation_id=told.get("correlation_id"),
        )  # fmt: skip

    def _done(self, outcome: Any) -> None:
        self._pool.leave(self)
        self._callbacks["callback"](outcome)

    def _failed(self, seen: Any) -> None:
        self._pool.leave(self)
        self._callbacks["error_callback"](seen)

    def terminate(self, signal: Any) -> None:
        """Kill its child as soon as it has one; if it has, Celery asked for that before."""
        self._job.terminate(signal)

    def end(self) -> None:
        if (pid := self._job.worker_pids()) and pid[0]:
            self._pool.children.terminate_job(pid[0], SIGKILL)


CALLS = {ASYNC: _Coroutine, THREAD: _OnThread, PROCESS: _InChild}


class TaskPool(_BasePool):
    """Runs each task on a slot of its type's kind. Everything but the runs happens on the loop's thread."""

    signal_safe = False
    body_can_be_buffer = True

    limit: int
    app: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.limits: dict[str, int] = {ASYNC: get_settings().async_slots, THREAD: self.limit}
        self.threads: Threads = Threads(self.limit)
        self.children: Any = None
        if any(kind_of(task) == PROCESS for task in self.app.tasks.values()):
            self.limits[PROCESS] = get_settings().child_processes or cpu_count()
            options = {**self.options, "semaphore": None}
            self.children = PreforkPool(self.limits[PROCESS], putlocks=False, app=self.app, **options)
        self.calls: dict[str, set[_Call]] = {kind: set() for kind in self.limits}
        self._waiting: dict[str, deque[_Call]] = {kind: deque() for kind in self.limits}
        self._finished: deque[tuple[_Call, Any]] = deque()
        self._is_collecting = False
        self._kinds: dict[str, str] = {}

    # --- what Celery calls ------------------------------------------------------------------------

    def on_start(self) -> None:
        """Take over the worker's loop; a thread is started when there is work for it."""
        hub: Any = get_event_loop()
        self._hub, self.loop = hub, hub.loop_of_tasks
        coroutines.loop_of_tasks = self.loop
        role.slots = self
        self._watch = BlockedLoop(self.loop, lambda: hub.poller.turned_at, LONGEST_TURN_SECONDS, self._name_of)
        self._watch.start()
        if self.children is not None:
            self.children.start()

    def register_with_event_loop(self, loop: Any) -> None:
        """Let the hub watch the children."""
        if self.children is not None:
            self.children.register_with_event_loop(loop)

    def did_start_ok(self) -> bool:
        """Say whether the children could be started."""
        return self.children is None or bool(self.children.did_start_ok())

    def on_close(self) -> None:
        """Let the children take no more."""
        if self.children is not None:
            self.children.close()

    def apply_async(self, target: Any, args: Any = None, kwargs: Any = None, **callbacks: Any) -> _Call:  # noqa: ARG002
        """Begin a task, or keep it until a slot is free."""
        kind = self.kind(args[0])
        call = CALLS[kind](self, kind, target, args, callbacks)
        if self.free(kind):
            self._begin(call)
        else:
            # Claims fit the slots; other brokers send as many as they like.
            self._waiting[kind].append(call)
        return call

    def on_stop(self) -> None:
        """Let what runs end; the loop goes on turning meanwhile."""
        while any(self.calls.values()) or any(self._waiting.values()):
            self._hub.run_once()
        if self.children is not None:
            self.children.stop()
        self._leave_loop()

    def on_terminate(self) -> None:
        """End whatever runs."""
        self.stop_all()
        if self.children is not None:
            self.children.terminate()
        self._leave_loop()

    def problem(self) -> str:
        """Return what is wrong with the pool, or the empty string; threads are started when they are needed."""
        return self.children.problem() if self.children is not None else ""

    def kill_children(self) -> None:
        """Kill every child process and return when none runs. Any thread may call it."""
        if self.children is not None:
            self.children.kill_children()

    def stop_all(self) -> None:
        """End all that runs or waits here; nobody is told what comes of it."""
        for waiting in self._waiting.values():
            waiting.clear()
        for calls in self.calls.values():
            for call in tuple(calls):
                call.stop()

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Kill a child; for a task in this process do nothing: Celery asks the call itself next."""
        if pid != os.getpid() and self.children is not None:
            self.children.terminate_job(pid, signal)

    def grow(self, n: int = 1) -> None:
        """Run ``n`` more functions at once."""
        self._resize(self.limit + n)

    def shrink(self, n: int = 1) -> None:
        """Run ``n`` fewer functions at once; what runs goes on."""
        self._resize(max(self.limit - n, 0))

    def _resize(self, limit: int) -> None:
        self.limit = self.limits[THREAD] = limit
        self.threads.resize(limit)

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),
            "async-slots": self.limits[ASYNC],
            "running": {kind: len(calls) for kind, calls in self.calls.items()},
            "abandoned-threads": self.threads.abandoned,
        }

    def _name_of(self, running: object) -> str:
        for call in tuple(self.calls[ASYNC]):
            if getattr(call, "task", None) is running:
                return f"task {call.arguments[0]}[{call.arguments[1]}]"
        return "no task, but what tasks have left on the loop" if running is not None else "the worker itself"

    def _leave_loop(self) -> None:
        self._watch.stop()
        self.threads.close()
        coroutines.loop_of_tasks = None

    # --- slots ------------------------------------------------------------------------------------

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of slots this pool has."""
        return tuple(self.calls)

    def kind(self, task: str) -> str:
        """Return the kind of slot tasks of this type take; any for a type there is none of."""
        kind = self._kinds.get(task)
        if kind is None:
            if task not in self.app.tasks:
                return THREAD
            kind = self._kinds[task] = kind_of(self.app.tasks[task])
        return kind

    def claims_ahead(self, kind: str) -> bool:
        """Say whether more may be claimed than there are free slots: of slots on the loop there are many."""
        return kind != ASYNC

    def free(self, kind: str) -> int:
        """Return how many more tasks of ``kind`` could begin now."""
        return self.limits[kind] - len(self.calls[kind])

    def _begin(self, call: _Call) -> None:
        self.calls[call.kind].add(call)
        call.begin()

    def leave(self, call: _Call) -> None:
        """Free the slot of ``call``."""
        self.calls[call.kind].discard(call)
        waiting = self._waiting[call.kind]
        while waiting and self.free(call.kind) > 0:
            following = waiting.popleft()
            if not following.is_stopped:
                self._begin(following)
        self._hub.take_turn()

    def finish_soon(self, call: _Call, outcome: Any) -> None:
        """Finish ``call`` on the loop's thread, with all others that come in the meantime."""
        self._finished.append((call, outcome))
        if not self._is_collecting:
            self._is_collecting = True
            self.loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._is_collecting = False
        while self._finished:
            call, outcome = self._finished.popleft()
            call.finish(outcome)

    def abandon(self, job: Job) -> None:
        """Leave the thread of ``job`` to itself."""
        if self.threads.abandon(job):
            logger.warning("a thread was left behind in a task that was ended; %d hang now", self.threads.abandoned)
