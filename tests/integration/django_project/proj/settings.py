import os

SECRET_KEY = "x" * 50
DEBUG = False
USE_TZ = True
TIME_ZONE = os.environ.get("PROJ_TIME_ZONE", "Europe/Berlin")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["shop", "django_tasks", "taskapp.django"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "taskapp",
        "PASSWORD": os.environ.get("PROJ_DB_PASSWORD"),
        "HOST": "127.0.0.1",
        "PORT": os.environ["PROJ_DB_PORT"],
        "CONN_MAX_AGE": eval(os.environ.get("PROJ_CONN_MAX_AGE", "0")),
        "OPTIONS": {"application_name": "shop"},
    }
} if "PROJ_DB_PORT" in os.environ else {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("PROJ_DB_FILE", ":memory:")}
}  # fmt: skip
CELERY_BROKER_URL = os.environ.get("PROJ_BROKER", "redis://")
TASKS = {
    "default": {"BACKEND": "taskapp.django.TaskBackend", "OPTIONS": {"app": "proj.celery:app"}},
    "others": {"BACKEND": "taskapp.django.TaskBackend", "QUEUES": ["default", "emails"]},
}
CELERY_TASKAPP_ASYNC_SLOTS = 500
for line in os.environ.get("PROJ_MORE", "").split():
    exec(line)
