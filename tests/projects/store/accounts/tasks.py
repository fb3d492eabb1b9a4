"""Eight task types."""

import time

from celery import Task, shared_task
from celery.utils.log import get_task_logger

from accounts import signals  # noqa: F401 - connects receivers
from accounts.models import Entry, enter

logger = get_task_logger(__name__)


class MailError(Exception):
    def __init__(self, code, address):
        super().__init__(code, address)
        self.code, self.address = code, address


class Recorded(Task):
    """Keeps an entry for each end of a task."""

    abstract = True

    def on_success(self, retval, task_id, args, kwargs):
        Entry.objects.create(task_id=task_id, name=self.name, text="on_success")

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        Entry.objects.create(task_id=task_id, name=self.name, text=f"on_failure {type(exc).__name__}")


@shared_task(bind=True)
def send_welcome(self, user):
    return enter(self, f"welcome {user}")


@shared_task(bind=True, autoretry_for=(MailError,), retry_backoff=False, default_retry_delay=0, max_retries=3)
def send_receipt(self, user, failures=1):
    if self.request.retries < failures:
        raise MailError(421, user)
    return enter(self, f"receipt {user} after {self.request.retries}")


@shared_task(bind=True, max_retries=2)
def send_invoice(self, user):
    try:
        if self.request.retries < 1:
            raise MailError(450, user)
    except MailError as error:
        raise self.retry(exc=error, countdown=0.1) from error
    return enter(self, f"invoice {user}")


@shared_task(base=Recorded)
def send_broken(user):
    raise MailError(550, user)


@shared_task(base=Recorded, bind=True, rate_limit="50/s")
def send_limited(self, user):
    return f"limited {user}"


@shared_task(bind=True, ignore_result=True)
def send_digest(self):
    enter(self, "digest")


@shared_task(bind=True, name="accounts.delete-user")
def delete_user(self, user, *, reason="asked"):
    logger.info("deleting %s", user)
    return enter(self, f"deleted {user}: {reason}")


@shared_task(bind=True, acks_late=True, reject_on_worker_lost=True)
def export(self, user, seconds=0):
    time.sleep(seconds)
    return enter(self, f"export {user}")
