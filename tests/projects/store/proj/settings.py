import os
from datetime import timedelta
from pathlib import Path

from celery.schedules import crontab
from kombu import Queue

BASE_DIR = Path(__file__).parents[1]
SECRET_KEY = "x" * 50
DEBUG = False
USE_TZ = True
TIME_ZONE = "Europe/Lisbon"
ROOT_URLCONF = "proj.urls"
ALLOWED_HOSTS = ["*"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["accounts", "catalog", "orders", "reports"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "db.sqlite3",
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }
}

CELERY_BROKER_URL = os.environ.get("BROKER_URL", "redis://localhost:6379/0")
CELERY_RESULT_BACKEND = os.environ.get("RESULT_URL", "redis://localhost:6379/1")
CELERY_TASK_DEFAULT_QUEUE = "celery"
CELERY_TASK_QUEUES = (Queue("celery"), Queue("emails"), Queue("reports"))
CELERY_TASK_ROUTES = ([("accounts.tasks.send_*", {"queue": "emails"}), ("reports.tasks.*", {"queue": "reports"})],)
CELERY_TASK_TIME_LIMIT = 30 * 60
CELERY_TASK_SOFT_TIME_LIMIT = 25 * 60
CELERY_TASK_ANNOTATIONS = {"catalog.tasks.reindex": {"rate_limit": "100/s"}}
CELERY_WORKER_PREFETCH_MULTIPLIER = 4
CELERY_WORKER_MAX_TASKS_PER_CHILD = 1000
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 3600}
CELERY_RESULT_EXPIRES = timedelta(hours=6)
CELERY_TASK_ALWAYS_EAGER = os.environ.get("EAGER") == "1"
CELERY_TASK_EAGER_PROPAGATES = True
CELERY_BEAT_SCHEDULE = {
    "clean carts": {"task": "orders.tasks.clean_carts", "schedule": timedelta(seconds=1)},
    "nightly report": {
        "task": "reports.tasks.nightly", "schedule": crontab(hour=3, minute=30), "kwargs": {"kind": "sales"},
    },
    "digest": {
        "task": "accounts.tasks.send_digest", "schedule": crontab(minute="*/15", day_of_week="mon-fri"),
        "options": {"expires": 600, "queue": "emails"},
    },
}  # fmt: skip
