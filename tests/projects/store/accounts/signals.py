import logging

from celery import signals

log = logging.getLogger(__name__)


@signals.task_failure.connect
def on_failure(sender=None, task_id=None, exception=None, **_):
    log.error("FAILED %s %s", task_id, type(exception).__name__)


@signals.task_postrun.connect
def on_end(task_id=None, state=None, **_):
    log.info("ENDED %s %s", task_id, state)
