"""The configuration of a site of dashboards, in the shape of Apache Superset's (0031555)."""

import os
from datetime import timedelta
from pathlib import Path

from celery.schedules import crontab

HERE = Path(__file__).parent
DATABASE = f"sqlite:///{HERE / 'dashboards.db'}"
SQLLAB_ASYNC_TIME_LIMIT_SEC = 2
ALERT_REPORTS_WORKING_TIME_OUT_LAG = 10
ALERT_REPORTS_WORKING_SOFT_TIME_OUT_LAG = 1
CELERY_BEAT_SCHEDULER_EXPIRES = timedelta(weeks=1)


class CeleryConfig:
    broker_url = os.environ["DASH_BROKER"]
    imports = (
        "dashboards.sql_lab",
        "dashboards.tasks.scheduler",
        "dashboards.tasks.thumbnails",
        "dashboards.tasks.cache",
        "dashboards.tasks.async_queries",
    )
    result_backend = os.environ["DASH_RESULTS"]
    worker_prefetch_multiplier = 1
    task_acks_late = False
    task_annotations = {
        "sql_lab.get_sql_results": {"rate_limit": "100/s"},
        "email_reports.send": {"rate_limit": "2/s", "time_limit": 150, "soft_time_limit": 120, "ignore_result": True},
    }
    beat_schedule = {
        "reports.scheduler": {
            "task": "reports.scheduler",
            "schedule": timedelta(seconds=2),
            "options": {"expires": int(CELERY_BEAT_SCHEDULER_EXPIRES.total_seconds())},
        },
        "reports.prune_log": {"task": "reports.prune_log", "schedule": crontab(minute=0, hour=0)},
        "cache-warmup-hourly": {
            "task": "cache-warmup",
            "schedule": crontab(minute=1, hour="*"),
            "kwargs": {"strategy_name": "top_n_dashboards", "top_n": 10, "since": "7 days ago"},
        },
    }


CELERY_CONFIG = CeleryConfig
