"""Celery's prefork pool, extended to read a dead child's last messages before giving its task to another child."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

from celery.concurrency import asynpool, prefork

from taskapp.celery_internals import child_of, children_of, is_child_alive
from taskapp.worker.pool.inherited_sockets import detach_inherited_sockets
from taskapp.worker.process.stop_signals import obey_only

# Missing in the stubs.
_AsynPool: Any = asynpool.AsynPool
_TaskPool: Any = prefork.TaskPool
_Worker: Any = asynpool.Worker

LOOK_AFTER_CHILDREN_SECONDS = 0.5
KILLING_SECONDS = 1.0
KILLING_LOOK_SECONDS = 0.005


class ChildWorker(_Worker):
    """A child process that starts without its parent's sockets and ends with its parent."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parent_pid = os.getpid()

    def after_fork(self) -> None:
        """Detach the parent's sockets before any user code runs, and accept stop signals only from the parent."""
        detach_inherited_sockets()
        super().after_fork()
        obey_only(self.parent_pid)
        # Celery has just asked the kernel to kill this process when its parent ends, which comes too late if the parent
        # has already ended.
        if os.getppid() != self.parent_pid:
            os._exit(0)


class ChildPool(_AsynPool):
    """Celery's pool of child processes."""

    Worker = ChildWorker

    @property
    def timers(self) -> dict[Any, float]:
        """Timers with their intervals in seconds; Celery looks for dead children, often unnoticed so far, every 5 s."""
        return {self.maintain_pool: LOOK_AFTER_CHILDREN_SECONDS}

    def apply_async(
        self, *args: Any, soft_timeout: float | None = None, timeout: float | None = None, **options: Any
    ) -> Any:
        """Start a job; drop a soft limit at or above the hard one, because billiard enforces the soft limit first.

        Raises:
            Exception: The job cannot be pickled; it takes no slot then.
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
        """Find another child for a job whose child is gone, unless the job had started there.

        When one child has ended, Celery checks all jobs. By then, another child may have died with messages
        still unread: its task has run, and would run again without being counted.
        """
        child = child_of(job)
        if child and not job.accepted() and not is_child_alive(child):
            self.process_flush_queues(child)
            if job.accepted():
                return  # Celery reports it as lost when it handles the end of this child
        super().on_job_process_down(job, pid_gone)


class PreforkPool(_TaskPool):
    """The pool of ``-P prefork``."""

    Pool = ChildPool

    def problem(self) -> str:
        """Return a description of the pool's problem, or an empty string. Only for the loop's thread."""
        pool = self._pool
        if pool is None or any(map(is_child_alive, children_of(pool))):
            return ""
        return "none of its child processes is alive"

    def child_pids(self) -> tuple[int, ...]:
        """Return the process ids of the children. Thread-safe."""
        return tuple(child.pid for child in children_of(self._pool)) if self._pool is not None else ()

    def kill_children(self) -> None:
        """Kill all children and wait until none runs, for up to ``KILLING_SECONDS``. Thread-safe."""
        children = self.child_pids()
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = monotonic() + KILLING_SECONDS
        while any(_runs(pid) for pid in children) and monotonic() < deadline:
            sleep(KILLING_LOOK_SECONDS)


def _runs(pid: int) -> bool:
    """Return whether a child runs, without consuming its exit status."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
    except ChildProcessError:
        return False
