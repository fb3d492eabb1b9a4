"""A bounded pool of threads whose runs can be given up: interrupted at the next bytecode, or left behind.

Python cannot kill a thread. A run over its soft limit gets an exception raised in it; one over its hard
limit is settled by its owner and its thread abandoned: another takes its place, and the old one ends
when what it hangs in returns.
"""

from __future__ import annotations

import ctypes
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

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
        """When it began (monotonic), and how long it took."""
        self._lock = threading.Lock()
        self._interrupted = False
        self._is_withdrawn = False

    def withdraw(self) -> bool:
        """See to it that the job does not begin; say whether it had not."""
        with self._lock:
            self._is_withdrawn = not self.started_at
            return self._is_withdrawn

    def interrupt(self, error: type[BaseException]) -> bool:
        """Raise ``error`` in the job at its next bytecode, if it runs; say whether it does."""
        with self._lock:
            if self.thread_id is None:
                return False
            self._interrupted = True
            _raise_in_thread(ctypes.c_ulong(self.thread_id), ctypes.py_object(error))
            return True

    def run(self) -> None:
        """Run it on this thread, unless it was withdrawn."""
        with self._lock:
            if self._is_withdrawn:
                return
            self.started_at = monotonic()
            self.thread_id = threading.get_ident()
        try:
            outcome = self.call()
        except BaseException as error:  # noqa: BLE001 - handed to the owner, whatever it is
            outcome = error
        self._leave()
        self.seconds = monotonic() - self.started_at
        self.done(outcome)

    def _leave(self) -> None:
        """Let nobody interrupt this thread for this job any more."""
        while True:
            try:
                with self._lock:
                    if self.thread_id is not None and self._interrupted:
                        # An exception that was not raised yet belongs to this job, not to the next.
                        _raise_in_thread(ctypes.c_ulong(self.thread_id), None)
                    self.thread_id = None
                return
            except BaseException:  # noqa: BLE001, S112 - the interruption itself, between two bytecodes
                continue


class Threads:
    """Runs jobs on up to ``limit`` threads, started when first needed. Any thread may submit."""

    def __init__(self, limit: int, name: str = "taskapp-task") -> None:
        self.limit = limit
        self._name = name
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._number = 0
        self._alive = 0
        self._busy = 0
        self._given_up: set[int] = set()
        self.following: Callable[[], Job | None] = lambda: None
        """Asked by a thread that has ended a job for another to go on with, before it waits for one."""

    def submit(self, job: Job) -> None:
        """Run ``job`` when a thread is free."""
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
        """Leave the thread that runs ``job`` to itself and put another in its place; say whether it ran."""
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
        """How many threads hang in runs that were given up."""
        return len(self._given_up)

    def close(self) -> None:
        """End the threads that are free, the others after their job. Waits for none."""
        with self._lock:
            alive = self._alive
        for _ in range(alive):
            self._jobs.put(None)

    def _start(self) -> None:
        self._alive += 1
        self._number += 1
        # Daemons: a run that never ends must not keep the process from ending.
        threading.Thread(target=self._work, name=f"{self._name}-{self._number}", daemon=True).start()

    def _work(self) -> None:
        taken: list[Job | None] = []
        # One step for the interpreter: a job that was taken is in the list, whatever is raised as the step returns.
        taking = map(taken.append, iter(self._jobs.get, self))
        while True:
            try:
                self._serve(taken, taking)
            except BaseException as error:  # noqa: BLE001 - for nobody
                # Raised by others, such as a time limit of their own that comes too late, for a job that has ended.
                logger.warning("%s was raised in a thread that ran no task; it goes on", shown(error))
            else:
                return

    def _serve(self, taken: list[Job | None], taking: Iterator[None]) -> None:
        """Run jobs until this thread is to end. What is ``taken`` when an exception comes is run the next time."""
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
