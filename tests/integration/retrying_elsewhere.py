"""A task type with a retry policy that any broker can keep."""

from __future__ import annotations

from taskapp import Backoff, Task, shared_task


@shared_task(bind=True, retry_on={TimeoutError: Backoff(first=0)}, max_retries=2)
def recovers(self: Task) -> int:
    if self.request.retries < 2:
        raise TimeoutError("late")
    return len(self.request.get("taskapp_attempts"))
