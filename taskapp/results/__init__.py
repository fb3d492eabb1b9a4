"""Result backends: Celery's keys and JSON on Redis, fenced writes, waiting without a subscription per task.

``backend`` is the interface to Celery; ``store`` writes, ``started_delay`` delays records that may not be
needed, ``waiting`` and ``async_waiter`` wait.
"""
