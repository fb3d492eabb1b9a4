import logging

from celery.worker.request import Request

log = logging.getLogger(__name__)


class BuildRequest(Request):
    """Says in the log which limit a build has reached."""

    def on_timeout(self, soft, timeout):
        super().on_timeout(soft, timeout)
        log.warning("build limit %s of %s: %s s", "soft" if soft else "hard", self.id, timeout)
