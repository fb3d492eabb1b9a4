"""The pool ``celery -A taskapp worker`` runs: coroutines on one event loop, functions on threads beside it.

========  =====================================  =======================  ===================================
kind      its tasks run on                       slots                    are ended from outside by
========  =====================================  =======================  ===================================
async     the worker's own event loop            TASKAPP_ASYNC_SLOTS      cancelling the coroutine
thread    threads                                ``-c``                   an exception at the next bytecode
process   child processes (``cpu_bound=True``)   TASKAPP_CHILD_PROCESSES  killing the child
own       what their own ``Strategy`` says       TASKAPP_ASYNC_SLOTS      nothing
========  =====================================  =======================  ===================================
"""

from __future__ import annotations

import os
from asyncio import current_task
from collections import deque
from contextvars import copy_context
from inspect import iscoroutinefunction
from multiprocessing import cpu_count
from signal import SIGKILL
from time import monotonic
from typing import Any

from billiard import active_children
from celery.concurrency.base import BasePool
from celery.utils.log import get_logger
from kombu.asynchronous import get_event_loop

from taskapp.app.own_strategy import Kept, has_own_strategy
from taskapp.engine.runtime import role
from taskapp.engine.slots import STUCK_SECONDS, PrefetchEstimator
from taskapp.execution import coroutines
from taskapp.settings import get_settings
from taskapp.worker.pool.hub import LONGEST_TURN_SECONDS
from taskapp.worker.pool.jobs import Call, InChild, OfOthers, OnLoop, OnThread, Told
from taskapp.worker.pool.loop_watchdog import LoopWatchdog
from taskapp.worker.pool.prefork import PreforkPool
from taskapp.worker.pool.threads import Job, Threads

logger = get_logger(__name__)

_BasePool: Any = BasePool  # the stubs lack half of it

ASYNC, THREAD, PROCESS, OWN = "async", "thread", "process", "own"


def kind_of(task: Any) -> str:
    """Return on what kind of slot the tasks of a type run."""
    if has_own_strategy(task):
        return OWN
    if getattr(task, "cpu_bound", False):
        return PROCESS
    return ASYNC if iscoroutinefunction(task.run) else THREAD


STARTED = object()
"""In the place of an outcome: a thread has begun a task by itself."""
CALLS: dict[str, type[Call]] = {ASYNC: OnLoop, THREAD: OnThread, PROCESS: InChild}


class TaskPool(_BasePool):
    """Runs each task on a slot of its type's kind. Everything but the runs happens on the loop's thread."""

    # Wide, because it answers to three: Celery's pool (`on_…`, `terminate_job`, `grow`, `shrink`), the engine's slots
    # (`kinds` to `wanted`) and its own calls, which share the state of both.
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
        """Short tasks that wait for a thread; one that has ended its task takes the next from here by itself."""
        self._pace = PrefetchEstimator()
        self._finished: deque[tuple[OnThread, Any]] = deque()
        self._is_collecting = False
        self._kinds: dict[str, str] = {}

    # --- what Celery calls ------------------------------------------------------------------------

    def on_start(self) -> None:
        """Take over the worker's loop; a thread is started when there is work for it."""
        hub: Any = get_event_loop()
        self._hub, self.loop = hub, hub.loop_of_tasks
        coroutines.loop_of_tasks = self.loop
        self.context = copy_context()
        """What every coroutine begins with; none sees what another has set."""
        role.slots = self
        self._watch = LoopWatchdog(self.loop, lambda: hub.poller.turned_at, LONGEST_TURN_SECONDS, self._name_of)
        self._watch.start()

    def on_close(self) -> None:
        """Let the children take no more."""
        if self.children is not None:
            self.children.close()

    def run_request(
        self, request: Any, arguments: tuple[Any, ...], soft_seconds: float | None, seconds: float | None
    ) -> Call:
        """Begin a request's task, or keep it until a slot is free; the request is told of its start and its end."""
        kind = self.kind(arguments[0])
        return self._admit(CALLS[kind](self, kind, request, arguments, soft_seconds, seconds))

    def on_apply(
        self, target: Any, args: Any, kwargs: Any, callback: Any = None, accept_callback: Any = None,
        error_callback: Any = None, timeout_callback: Any = None, soft_timeout: float | None = None,
        timeout: float | None = None, **_: Any,
    ) -> Call:  # fmt: skip
        """Run a function on a thread, as Celery's other pools do: what strategies of their own ask for."""
        told = Told(callback, accept_callback, error_callback, timeout_callback)
        return self._admit(OfOthers(self, THREAD, told, (target, args, kwargs), soft_timeout, timeout))

    def _admit(self, call: Call) -> Call:
        kind = call.kind
        if len(self.calls[kind]) < self.limits[kind]:
            self._begin(call)
        elif isinstance(call, OnThread) and call.can_wait:
            self._keep(call)
        else:
            # Claims fit the slots; other brokers send as many as they like.
            self._waiting[kind].append(call)
        return call

    def start_children(self) -> None:
        """Start the child processes, with the first task that needs one.

        Raises:
            OSError: The system lacks what they take; those it started have been killed.
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
        """Let what runs end; the loop goes on turning meanwhile."""
        while any(self.calls.values()) or any(self._waiting.values()) or self._kept:
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

    def is_in_task(self) -> bool:
        """Return whether the loop is in a task's code at this moment. Any thread may call it."""
        loop = getattr(self, "loop", None)
        return loop is not None and current_task(loop) is not None

    def child_pids(self) -> tuple[int, ...]:
        """Return the process ids of the children. Any thread may ask."""
        return self.children.child_pids() if self.children is not None else ()

    def kill_children(self) -> None:
        """Kill every child process and return when none runs. Any thread may call it."""
        if self.children is not None:
            self.children.kill_children()

    def stop_all(self) -> None:
        """End all that runs or waits here; nobody is told what comes of it."""
        self._kept.clear()
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

    measured = None

    def free(self, kind: str) -> int:
        """Return how many more tasks of ``kind`` may be handed over now; of short ones for threads, some to keep."""
        free = self.limits[kind] - len(self.calls[kind])
        if kind == OWN:
            free -= self.kept.count()
        elif kind == THREAD:
            free += self._pace.ahead() - len(self._kept)
        return free

    def wanted(self, kind: str, held: int) -> int:
        """Return how many to claim: as many as there is room for; none while half of what may be kept is."""
        if kind == THREAD and len(self.calls[kind]) >= self.limits[kind] and len(self._kept) * 2 > self._pace.ahead():
            return 0
        return max(self.free(kind) - held, 0)

    def _begin(self, call: Call) -> None:
        self.calls[call.kind].add(call)
        try:
            call.begin()
        except Exception as error:  # noqa: BLE001 - told of by the call
            # Of a message that cannot be handed to a child, for example: it takes no slot.
            self.leave(call)
            call.refuse(error)

    def leave(self, call: Call) -> None:
        """Free the slot of ``call``."""
        self.calls[call.kind].discard(call)
        waiting = self._waiting[call.kind]
        while (waiting or (call.kind == THREAD and self._kept)) and len(self.calls[call.kind]) < self.limits[call.kind]:
            try:
                following = waiting.popleft() if waiting else self._kept.popleft()
            except IndexError:  # a thread was quicker
                break
            if not following.is_stopped:
                self._begin(following)
        self._hub.free_slot()

    # --- threads ----------------------------------------------------------------------------------

    def _keep(self, call: OnThread) -> None:
        """Keep ``call`` for the next thread that is free."""
        call.kept_at = monotonic()
        if not self._kept:
            self.loop.call_later(STUCK_SECONDS, self._give_back_stuck)
        self._kept.append(call)

    def _next_job(self) -> Job | None:
        """Return what a thread that has ended its job shall do next; called on that thread."""
        while True:
            try:
                call = self._kept.popleft()
            except IndexError:
                return None
            if not call.is_stopped:
                self.calls[THREAD].add(call)
                # Before its end, and told together with the end of the one before, whose news is on its way.
                self._finished.append((call, STARTED))
                return call.job

    def _give_back_stuck(self) -> None:
        """Give back what has waited too long: what runs is longer than thought."""
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
        """Finish ``call`` on the loop's thread, with all others that come in the meantime."""
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
        """Leave the thread of ``job`` to itself."""
        if self.threads.abandon(job):
            logger.warning("a thread was left behind in a task that was ended; %d hang now", self.threads.abandoned)
