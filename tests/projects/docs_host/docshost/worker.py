import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "docshost.settings")

from celery import Celery
from django.conf import settings

from docshost.steps import LogContext


def create_application():
    application = Celery(settings.CELERY_APP_NAME)
    application.config_from_object("django.conf:settings", namespace="CELERY")
    application.autodiscover_tasks(None)
    application.steps["worker"].add(LogContext)
    return application


def register_renamed_tasks(application, renamed):
    """Messages of the release before name tasks as they were called then."""
    for old, new in renamed.items():
        application.tasks[old] = application.tasks[new]
    return application


app = create_application()
