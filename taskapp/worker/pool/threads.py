"""A bounded pool of threads whose jobs can be interrupted at the next bytecode, or abandoned.

Python cannot kill a thread. A run over its soft limit gets an exception raised in it. A run over its hard
limit is settled by its owner and its thread is abandoned: another thread takes its place, and the old one
ends when the call it hangs in returns.
"""

from __future__ import annotations

import ctypes
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from taskapp.background import start_thread
from taskapp.errors.wording import shown

logger = logging.getLogger(__name__)

_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc


class Job:
    """One call on a thread of the pool."""

    __slots__ = (
        "__weakref__",
        "_interrupted",
        "_is_withdrawn",
        "_lock",
        "call",
        "done",
        "seconds",
        "started_at",
        "thread_id",
    )

    def __init__(self, call: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.call = call
        self.done = done
        """Called on the job's thread with what ``call`` returned or, as an exception, what it raised."""
        self.thread_id: int | None = None
        self.started_at = self.seconds = 0.0
        """When it started (monotonic), and how many seconds it took."""
        self._lock = threading.Lock()
        self._interrupted = False
        self._is_withdrawn = False

    def withdraw(self) -> bool:
        """Keep the job from starting; return whether it had not started."""
        with self._lock:
            self._is_withdrawn = not self.started_at
            return self._is_withdrawn

    def interrupt(self, error: type[BaseException]) -> bool:
        """Raise ``error`` in the job at its next bytecode if it is running; return whether it is."""
        with self._lock:
            if self.thread_id is None:
                return False
            self._interrupted = True
            _raise_in_thread(ctypes.c_ulong(self.thread_id), ctypes.py_object(error))
            return True

    def run(self) -> None:
        """Run the job on this thread, unless it was withdrawn."""
        with self._lock:
            if self._is_withdrawn:
                return
            self.started_at = monotonic()
            self.thread_id = threading.get_ident()
        try:
            outcome = self.call()
        except BaseException as error:  # noqa: BLE001 - the owner handles any error
            outcome = error
        self._leave()
        self.seconds = monotonic() - self.started_at
        self.done(outcome)

    def _leave(self) -> None:
        """Detach the job from this thread, so that it can no longer be interrupted."""
        while True:
            try:
                with self._lock:
                    if self.thread_id is not None and self._interrupted:
                        # Clear an exception not raised yet: it belongs to this job, not to the next.
                        _raise_in_thread(ctypes.c_ulong(self.thread_id), None)
                    self.thread_id = None
                return
            except BaseException:  # noqa: BLE001, S112 - the interruption itself, between two bytecodes
                continue


class Threads:
    """Runs jobs on up to ``limit`` threads, started when first needed. Any thread may submit."""

    def __init__(self, limit: int, name: str = "task") -> None:
        self.limit = limit
        self._name = name
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._number = 0
        self._alive = 0
        self._busy = 0
        self._given_up: set[int] = set()
        self.following: Callable[[], Job | None] = lambda: None
        """Called by a thread that has finished a job; returns its next job, or ``None`` to wait for a submitted one."""

    def submit(self, job: Job) -> None:
        """Run ``job`` as soon as a thread is free."""
        with self._lock:
            self._busy += 1
            needed = min(self._busy, self.limit) - self._alive
            if needed > 0:
                self._start()
        self._jobs.put(job)

    def resize(self, limit: int) -> None:
        """Let ``limit`` jobs run at once from now on; surplus threads end when they are free."""
        with self._lock:
            surplus = self._alive - limit
            self.limit = limit
        for _ in range(max(surplus, 0)):
            self._jobs.put(None)

    def abandon(self, job: Job) -> bool:
        """Abandon the thread that runs ``job`` and start another in its place; return whether ``job`` was running."""
        with self._lock:
            if job.thread_id is None:
                return False
            self._given_up.add(job.thread_id)
            self._alive -= 1
            self._busy -= 1
            if self._busy > self._alive:
                self._start()
        return True

    @property
    def abandoned(self) -> int:
        """Number of abandoned threads that are still running."""
        return len(self._given_up)

    def close(self) -> None:
        """End free threads now and the others after their job, without waiting for them."""
        with self._lock:
            alive = self._alive
        for _ in range(alive):
            self._jobs.put(None)

    def _start(self) -> None:
        self._alive += 1
        self._number += 1
        # Daemon threads: a run that never ends must not keep the process from exiting.
        start_thread(self._work, name=f"{self._name}-{self._number}")

    def _work(self) -> None:
        taken: list[Job | None] = []
        # A single step for the interpreter: a job taken from the queue is in the list, whatever is raised afterwards.
        taking = map(taken.append, iter(self._jobs.get, self))
        while True:
            try:
                self._serve(taken, taking)
            except BaseException as error:  # noqa: BLE001 - the thread must survive
                # Raised from outside for a job that has ended, for example by a library's own time limit.
                logger.warning("%s was raised in a thread that ran no task; the thread continues", shown(error))
            else:
                return

    def _serve(self, taken: list[Job | None], taking: Iterator[None]) -> None:
        """Run jobs until this thread has to end. A job still in ``taken`` after an exception runs on the next call."""
        while True:
            if not taken:
                next(taking)
            job = taken.pop()
            if job is None:
                break
            while job is not None:
                job.run()
                job = None
                if self._is_given_up():
                    return
                job = self.following()
            with self._lock:
                self._busy -= 1
        with self._lock:
            self._alive -= 1

    def _is_given_up(self) -> bool:
        with self._lock:
            given_up = threading.get_ident() in self._given_up
            self._given_up.discard(threading.get_ident())
        return given_up
