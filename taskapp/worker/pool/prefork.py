"""Celery's prefork pool, which hears a dead child out before it gives its task to another."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

from celery.concurrency import asynpool, prefork

from taskapp.celery_internals import child_of, children_of, is_child_alive
from taskapp.worker.pool.inherited_sockets import let_go_of_sockets
from taskapp.worker.process.stop_signals import leave_the_end_to

# The stubs know neither.
_AsynPool: Any = asynpool.AsynPool
_TaskPool: Any = prefork.TaskPool
_Worker: Any = asynpool.Worker

LOOK_AFTER_CHILDREN_SECONDS = 0.5
KILLING_SECONDS = 1.0
KILLING_LOOK_SECONDS = 0.005


class ChildWorker(_Worker):
    """One child process, which begins without the sockets of its parent and ends with it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parent_pid = os.getpid()

    def after_fork(self) -> None:
        """Let go of the parent's sockets, before anything of the user's runs here, and hear only the parent."""
        let_go_of_sockets()
        super().after_fork()
        leave_the_end_to(self.parent_pid)
        # The kernel kills it when its parent ends, as Celery has just asked; not if the parent has ended before that.
        if os.getppid() != self.parent_pid:
            os._exit(0)


class ChildPool(_AsynPool):
    """Celery's pool of child processes."""

    Worker = ChildWorker

    @property
    def timers(self) -> dict[Any, float]:
        """What is done how often; Celery looks for dead children every 5 s, and often hears of one only then."""
        return {self.maintain_pool: LOOK_AFTER_CHILDREN_SECONDS}

    def apply_async(
        self, *args: Any, soft_timeout: float | None = None, timeout: float | None = None, **options: Any
    ) -> Any:
        """Start a job; a hard limit that comes before the soft one is kept, which billiard waits for first.

        Raises:
            Exception: It cannot be pickled; then it takes no place.
        """
        if soft_timeout and timeout and timeout <= soft_timeout:
            soft_timeout = None
        known = len(self._cache)
        try:
            return super().apply_async(*args, soft_timeout=soft_timeout, timeout=timeout, **options)
        except Exception:
            if len(self._cache) > known:
                self._cache.popitem()
            raise

    def on_job_process_down(self, job: Any, pid_gone: int) -> None:
        """Find another child for a job whose child is gone, unless the job had begun there.

        Celery looks through all jobs when one child has ended. Another may be dead by then whose
        last words were not read yet: its task has run, and would run again without being counted.
        """
        child = child_of(job)
        if child and not job.accepted() and not is_child_alive(child):
            self.process_flush_queues(child)
            if job.accepted():
                return  # it is found lost when its own child's turn comes
        super().on_job_process_down(job, pid_gone)


class PreforkPool(_TaskPool):
    """What ``-P prefork`` starts."""

    Pool = ChildPool

    def problem(self) -> str:
        """Return what is wrong with the pool, or the empty string; for the loop's own thread."""
        pool = self._pool
        if pool is None or any(map(is_child_alive, children_of(pool))):
            return ""
        return "none of its child processes lives"

    def child_pids(self) -> tuple[int, ...]:
        """Return the process ids of the children. Any thread may ask."""
        return tuple(child.pid for child in children_of(self._pool)) if self._pool is not None else ()

    def kill_children(self) -> None:
        """Kill every child and return when none runs, or after a second. Any thread may call it."""
        children = self.child_pids()
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = monotonic() + KILLING_SECONDS
        while any(_runs(pid) for pid in children) and monotonic() < deadline:
            sleep(KILLING_LOOK_SECONDS)


def _runs(pid: int) -> bool:
    """Say whether a child runs, leaving its exit status to who waits for it."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
    except ChildProcessError:
        return False
