import logging

from celery import bootsteps, signals

log = logging.getLogger(__name__)


class LogContext(bootsteps.Step):
    """Connects receivers when a worker starts, as django-structlog's step does."""

    def __init__(self, parent, **kwargs):
        super().__init__(parent, **kwargs)
        signals.before_task_publish.connect(self.at_publish)
        signals.task_prerun.connect(self.before)
        signals.task_retry.connect(self.at_retry)
        signals.task_success.connect(self.at_success)
        signals.task_failure.connect(self.at_failure)
        signals.task_rejected.connect(self.at_rejection)
        signals.task_revoked.connect(self.at_revocation)
        log.info("log context for %s", parent.hostname.partition("@")[0])

    def at_publish(self, sender=None, headers=None, **_):
        headers["__log_context__"] = {"parent": headers.get("parent_id")}

    def before(self, task_id, task, **_):
        context = getattr(task.request, "__log_context__", None)
        log.info("prerun %s %s %s", task.name, task_id, context)

    def at_retry(self, request=None, reason=None, **_):
        log.info("retry %s %s", request.id, type(reason).__name__)

    def at_success(self, sender=None, result=None, **_):
        log.info("success %s %s", sender.name, sender.request.id)

    def at_failure(self, task_id=None, exception=None, sender=None, **_):
        expected = isinstance(exception, sender.throws)
        log.info("failure %s %s %s expected=%s", sender.name, task_id, type(exception).__name__, expected)

    def at_rejection(self, message=None, **_):
        log.info("rejected %s", message.properties)

    def at_revocation(self, request=None, terminated=None, signum=None, **_):
        log.info("revoked %s terminated=%s", request.id, terminated)
