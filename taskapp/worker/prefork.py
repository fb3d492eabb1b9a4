"""Celery's prefork pool, which hears a dead child out before it gives its task to another."""

from __future__ import annotations

from typing import Any

from celery.concurrency import asynpool, prefork

# The stubs know neither.
_AsynPool: Any = asynpool.AsynPool
_TaskPool: Any = prefork.TaskPool


class Pool(_AsynPool):
    """Celery's pool of child processes."""

    def on_job_process_down(self, job: Any, pid_gone: int) -> None:
        """Find another child for a job whose child is gone, unless the job had begun there.

        Celery looks through all jobs when one child has ended. Another may be dead by then whose
        last words were not read yet: its task has run, and would run again without being counted.
        """
        child = job._write_to
        if child and not job._accepted and not child._is_alive():
            self.process_flush_queues(child)
            if job._accepted:
                return  # it is found lost when its own child's turn comes
        super().on_job_process_down(job, pid_gone)


class TaskPool(_TaskPool):
    """What ``-P prefork`` starts."""

    Pool = Pool
