"""Where results are kept: Celery's keys and JSON on Redis, stored fenced, waited for without a subscription per task.

``backend`` is what Celery talks to; ``store`` writes, ``started`` holds back what may not be worth
writing, ``waiting`` and ``subscriptions`` wait.
"""

from taskapp.results.backend import RedisBackend, SentinelBackend

__all__ = ["RedisBackend", "SentinelBackend"]
