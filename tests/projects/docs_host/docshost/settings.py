"""The settings of a host of documentation, in the shape of readthedocs.org's (2026.08.18, 793719612)."""

import os
from datetime import timedelta
from pathlib import Path

from celery.schedules import crontab

HERE = Path(__file__).parents[1]
SECRET_KEY = "x" * 50
USE_TZ = True
TIME_ZONE = "America/Chicago"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django_celery_beat", "builds", "oauth", "search"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": HERE / "db.sqlite3",
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }
}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": HERE / "cache"}}

CELERY_APP_NAME = "docshost"
CELERY_BROKER_URL = os.environ["DOCS_BROKER"]
CELERY_RESULT_BACKEND = os.environ["DOCS_RESULTS"]
CELERY_TASK_ALWAYS_EAGER = False
CELERY_TASK_TIME_LIMIT = 60 * 60
CELERY_TASK_SEND_ERROR_EMAILS = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_CREATE_MISSING_QUEUES = True
if CELERY_BROKER_URL.startswith("redis"):
    CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 18000}
CELERY_TASK_DEFAULT_QUEUE = "celery"
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_SCHEDULE = {
    "often-finish-unhealthy-builds": {
        "task": "builds.tasks.finish_unhealthy_builds",
        "schedule": timedelta(seconds=2),
        "options": {"queue": "web"},
    },
    "every-day-delete-old-queries": {
        "task": "search.tasks.delete_old_queries",
        "schedule": crontab(minute=0, hour=0),
        "options": {"queue": "web"},
    },
    "quarter-archive-builds": {
        "task": "builds.tasks.archive_builds",
        "schedule": crontab(minute="*/15"),
        "options": {"queue": "web"},
        "kwargs": {"days": 1, "limit": 500},
    },
    "weekly-resync": {
        "task": "oauth.tasks.sync_all_repositories",
        "schedule": crontab(day_of_week="wed", minute=0, hour=7),
        "options": {"queue": "web"},
    },
}
RETRY_DELAY = 1
MAX_RETRIES = 25

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "docshost %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
