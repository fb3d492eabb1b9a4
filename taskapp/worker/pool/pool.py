"""The pool of ``celery -A taskapp worker``: coroutines on one event loop, functions on threads and child processes.

========  =====================================  =======================  ===================================
kind      tasks run on                           slots                    stopped by
========  =====================================  =======================  ===================================
async     the worker's event loop                TASKAPP_ASYNC_SLOTS      cancelling the coroutine
thread    threads                                ``-c``                   an exception at the next bytecode
process   child processes (``cpu_bound=True``)   TASKAPP_CHILD_PROCESSES  killing the child
own       whatever their ``Strategy`` uses       TASKAPP_ASYNC_SLOTS      nothing
========  =====================================  =======================  ===================================
"""

from __future__ import annotations

import os
from asyncio import current_task
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from inspect import iscoroutinefunction
from multiprocessing import cpu_count
from signal import SIGKILL
from time import monotonic
from typing import Any

from billiard import active_children
from celery import signals
from celery.concurrency.base import BasePool
from celery.utils.log import get_logger
from kombu.asynchronous import get_event_loop

from taskapp.app.own_strategy import Kept, has_own_strategy
from taskapp.engine.runtime import role
from taskapp.engine.slots import STUCK_SECONDS, PrefetchEstimator
from taskapp.execution import coroutines
from taskapp.execution.failures import as_error
from taskapp.logs.task_lines import task_lines
from taskapp.settings import get_settings
from taskapp.worker.pool.hub import LONGEST_TURN_SECONDS
from taskapp.worker.pool.jobs import Call, FunctionCall, FunctionCallbacks, InChild, OnLoop, OnThread
from taskapp.worker.pool.loop_watchdog import LoopWatchdog
from taskapp.worker.pool.prefork import PreforkPool
from taskapp.worker.pool.threads import Job, Threads

logger = get_logger(__name__)

_BasePool: Any = BasePool  # the stubs are incomplete

ASYNC, THREAD, PROCESS, OWN = "async", "thread", "process", "own"


def kind_of(task: Any) -> str:
    """Return the kind of slot that tasks of a type run on."""
    if has_own_strategy(task):
        return OWN
    if getattr(task, "cpu_bound", False):
        return PROCESS
    return ASYNC if iscoroutinefunction(task.run) else THREAD


STARTED = object()
"""Queued instead of an outcome: a thread has started a kept task on its own."""
CALLS: dict[str, type[Call]] = {ASYNC: OnLoop, THREAD: OnThread, PROCESS: InChild}


class TaskPool(_BasePool):
    """Runs each task on a slot of its type's kind. Everything except the runs happens on the loop's thread."""

    # A wide interface, because three callers share its state: Celery (`on_…`, `terminate_job`, `grow`, `shrink`), the
    # engine (`kinds` to `wanted`) and its own calls.
    signal_safe = False
    body_can_be_buffer = True
    limit: int
    app: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.limits: dict[str, int] = {ASYNC: get_settings().async_slots, THREAD: self.limit}
        self.threads: Threads = Threads(self.limit)
        self.threads.following = self._next_job
        self.children: Any = None
        self.kept = Kept()
        kinds = {kind_of(task) for task in self.app.tasks.values()}
        if OWN in kinds:
            self.limits[OWN] = get_settings().async_slots
        if PROCESS in kinds:
            self.limits[PROCESS] = get_settings().child_processes or cpu_count()
            options = {**self.options, "semaphore": None}
            self.children = PreforkPool(self.limits[PROCESS], putlocks=False, app=self.app, **options)
        self.calls: dict[str, set[Call]] = {kind: set() for kind in self.limits}
        self._waiting: dict[str, deque[Call]] = {kind: deque() for kind in self.limits}
        self._kept: deque[OnThread] = deque()
        """Short tasks waiting for a thread; a thread that has finished its task takes the next one from here."""
        self._starting: list[OnThread] = []
        self._pace = PrefetchEstimator()
        self.after_coroutine: Callable[[], None] = lambda: None
        """Called after each coroutine of a task, on the loop's thread."""
        self._finished: deque[tuple[OnThread, Any]] = deque()
        self._is_collecting = False
        self._kinds: dict[str, str] = {}

    # --- called by Celery -------------------------------------------------------------------------

    def on_start(self) -> None:
        """Take over the worker's loop; threads start when there is work for them."""
        hub: Any = get_event_loop()
        self._hub, self.loop = hub, hub.loop_of_tasks
        coroutines.loop_of_tasks = self.loop
        self.context = copy_context()
        """Copied for every coroutine, so that none sees the context variables set by another."""
        role.slots = self
        self._watch = LoopWatchdog(self.loop, lambda: hub.poller.turned_at, LONGEST_TURN_SECONDS, self._name_of)
        self._watch.start()
        # Tasks run in this process, too: what a project sets up for each of its processes is needed here.
        signals.worker_process_init.send(sender=(self.options.get("initargs") or (None, None))[1])

    def on_close(self) -> None:
        """Stop handing jobs to the child processes."""
        if self.children is not None:
            self.children.close()

    def run_request(
        self, request: Any, arguments: tuple[Any, ...], soft_seconds: float | None, seconds: float | None
    ) -> Call:
        """Start a request's task, or keep it until a slot is free; call the request's ``on_…`` methods as it runs."""
        kind = self.kind(arguments[0])
        return self._admit(CALLS[kind](self, kind, request, arguments, soft_seconds, seconds))

    def on_apply(
        self, target: Any, args: Any, kwargs: Any, callback: Any = None, accept_callback: Any = None,
        error_callback: Any = None, timeout_callback: Any = None, soft_timeout: float | None = None,
        timeout: float | None = None, **_: Any,
    ) -> Call:  # fmt: skip
        """Run a function for a task type's own strategy on a thread, with the callbacks of Celery's pools."""
        callbacks = FunctionCallbacks(callback, accept_callback, error_callback, timeout_callback)
        return self._admit(FunctionCall(self, THREAD, callbacks, (target, args, kwargs), soft_timeout, timeout))

    def _admit(self, call: Call) -> Call:
        kind = call.kind
        if len(self.calls[kind]) < self.limits[kind]:
            self._begin(call)
        elif isinstance(call, OnThread) and call.can_wait:
            self._keep(call)
        else:
            # The engine claims no more than fits; other brokers may deliver more.
            self._waiting[kind].append(call)
        return call

    def start_children(self) -> None:
        """Start the child processes, if they do not run; called for the first task that needs one.

        Raises:
            OSError: The system lacks the resources; children that had started have been killed.
        """
        if self.children.active:
            return
        before = active_children()
        try:
            self.children.start()
        except OSError:
            for child in set(active_children()).difference(before):
                os.kill(int(child.pid or 0), SIGKILL)
            raise
        self.children.register_with_event_loop(self._hub)

    def on_stop(self) -> None:
        """Keep the loop running until all tasks have ended, then stop."""
        while any(self.calls.values()) or any(self._waiting.values()) or self._kept:
            self._hub.run_once()
        if self.children is not None:
            self.children.stop()
        self._leave_loop()

    def on_terminate(self) -> None:
        """Stop all tasks and terminate the child processes."""
        self.stop_all()
        if self.children is not None:
            self.children.terminate()
        self._leave_loop()

    def problem(self) -> str:
        """Return a description of the pool's problem, or an empty string; threads start on demand and have none."""
        return self.children.problem() if self.children is not None else ""

    def is_in_task(self) -> bool:
        """Return whether the loop is running a task's code right now. Thread-safe."""
        loop = getattr(self, "loop", None)
        return loop is not None and current_task(loop) is not None

    def child_pids(self) -> tuple[int, ...]:
        """Return the process ids of the children. Thread-safe."""
        return self.children.child_pids() if self.children is not None else ()

    def kill_children(self) -> None:
        """Kill all child processes and wait until they have ended, see ``PreforkPool``. Thread-safe."""
        if self.children is not None:
            self.children.kill_children()

    def stop_all(self) -> None:
        """Stop all running and waiting tasks, without reporting their outcome."""
        self._kept.clear()
        for waiting in self._waiting.values():
            waiting.clear()
        for calls in self.calls.values():
            for call in tuple(calls):
                call.stop()

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Kill a child; do nothing for a task in this process, because Celery calls ``Call.terminate`` next."""
        if pid != os.getpid() and self.children is not None:
            self.children.terminate_job(pid, signal)

    def grow(self, n: int = 1) -> None:
        """Run up to ``n`` more functions at once."""
        self._resize(self.limit + n)

    def shrink(self, n: int = 1) -> None:
        """Run ``n`` fewer functions at once; running ones continue."""
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
            "processes": [os.getpid(), *self.child_pids()],
        }

    def _name_of(self, running: object) -> str:
        for call in tuple(self.calls[ASYNC]):
            if getattr(call, "task", None) is running:
                return f"task {call.arguments[0]}[{call.arguments[1]}]"
        return "code that a task left behind on the loop" if running is not None else "the worker itself"

    def _leave_loop(self) -> None:
        signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
        self._watch.stop()
        self.threads.close()
        coroutines.loop_of_tasks = None

    # --- slots ------------------------------------------------------------------------------------

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of slots in this pool."""
        return tuple(self.calls)

    def kind(self, task: str) -> str:
        """Return the kind of slot that tasks of this type take; ``THREAD`` for an unknown type."""
        kind = self._kinds.get(task)
        if kind is None:
            if task not in self.app.tasks:
                return THREAD
            kind = self._kinds[task] = kind_of(self.app.tasks[task])
        return kind

    measured = None

    def free(self, kind: str) -> int:
        """Return how many more tasks of ``kind`` the pool accepts now, including short ones to keep for a thread."""
        free = self.limits[kind] - len(self.calls[kind])
        if kind == OWN:
            free -= self.kept.count()
        elif kind == THREAD:
            free += self._pace.ahead() - len(self._kept)
        return free

    def wanted(self, kind: str, held: int) -> int:
        """Return how many tasks to claim: as many as fit, but none while over half of the room to keep them is used."""
        if kind == THREAD and len(self.calls[kind]) >= self.limits[kind] and len(self._kept) * 2 > self._pace.ahead():
            return 0
        return max(self.free(kind) - held, 0)

    def _begin(self, call: Call) -> None:
        self.calls[call.kind].add(call)
        try:
            call.begin()
        except BaseException as raised:
            error = as_error(raised)
            if not isinstance(error, Exception):
                raise
            # For example a message that cannot be pickled for a child; it takes no slot.
            self.leave(call)
            call.refuse(error)

    def leave(self, call: Call) -> None:
        """Free the slot of ``call``."""
        self.calls[call.kind].discard(call)
        waiting = self._waiting[call.kind]
        while (waiting or (call.kind == THREAD and self._kept)) and len(self.calls[call.kind]) < self.limits[call.kind]:
            try:
                following = waiting.popleft() if waiting else self._kept.popleft()
            except IndexError:  # a thread took the last one
                break
            if not following.is_stopped:
                self._begin(following)
        self._hub.free_slot()

    # --- threads ----------------------------------------------------------------------------------

    def start_soon(self, call: OnThread) -> None:
        """Pass ``call`` to a thread, together with all others that begin in this turn of the loop.

        Their log lines are written first, in one call, and no thread competes with the loop for the interpreter while
        it still handles messages.
        """
        self._starting.append(call)
        self._hub.soon_on_loop(self._start)

    def _start(self) -> None:
        starting, self._starting = self._starting, []
        task_lines.write()
        for call in starting:
            try:
                self.threads.submit(call.job)
            except Exception as error:  # noqa: BLE001 - for example, no thread can be started
                self.leave(call)
                call.refuse(error)

    def _keep(self, call: OnThread) -> None:
        """Keep ``call`` for the next free thread."""
        call.kept_at = monotonic()
        if not self._kept:
            self.loop.call_later(STUCK_SECONDS, self._give_back_stuck)
        self._kept.append(call)

    def _next_job(self) -> Job | None:
        """Return the next job for a thread that has finished one, if any; called on that thread."""
        while True:
            try:
                call = self._kept.popleft()
            except IndexError:
                return None
            if not call.is_stopped:
                self.calls[THREAD].add(call)
                # Queued ahead of its own outcome, and collected together with the previous job's, which is on its way.
                self._finished.append((call, STARTED))
                return call.job

    def _give_back_stuck(self) -> None:
        """Requeue tasks that have waited too long, because the running ones take longer than estimated."""
        stuck = []
        while self._kept and self._kept[0].kept_at + STUCK_SECONDS <= monotonic():
            try:
                stuck.append(self._kept.popleft())
            except IndexError:
                break
        if stuck:
            self._pace.was_too_fast()
        for call in reversed(stuck):
            if not call.is_stopped:
                call.give_back()
        if self._kept:
            self.loop.call_later(STUCK_SECONDS, self._give_back_stuck)

    def finish_soon(self, call: OnThread, outcome: Any) -> None:
        """Finish ``call`` on the loop's thread, together with all calls that end until then."""
        self._finished.append((call, outcome))
        if not self._is_collecting:
            self._is_collecting = True
            self.loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._is_collecting = False
        while self._finished:
            call, outcome = self._finished.popleft()
            if outcome is STARTED:
                call.accept(call.job.started_at)
            else:
                self._pace.ran(call.job.seconds)
                call.finish(outcome)

    def abandon(self, job: Job) -> None:
        """Replace the thread that runs ``job`` and leave it behind."""
        if self.threads.abandon(job):
            logger.warning(
                "left a thread behind in a task that was stopped but does not end; %d such threads hang",
                self.threads.abandoned,
            )
