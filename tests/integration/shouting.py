"""Tasks that hand on whatever they get: to their log, to their error."""

from __future__ import annotations

import logging
from typing import Any

from celery import shared_task
from celery.utils.log import get_task_logger

plain, of_celery = logging.getLogger("shop"), get_task_logger(__name__)


@shared_task
def shout(what: str) -> str:
    plain.warning("plain %s", what)
    of_celery.warning("celery's %s", what)
    print(what)  # noqa: T201 - a node writes it into its log
    try:
        raise ValueError(what)
    except ValueError:
        plain.exception(what)
    plain.warning("the end")
    return what


@shared_task
def fail_loudly(what: str) -> None:
    plain.warning("the end")
    raise ValueError(what)


@shared_task(bind=True, max_retries=1, default_retry_delay=0)
def retry_loudly(self: Any, what: str) -> None:
    plain.warning("the end")
    raise self.retry(exc=ValueError(what), countdown=0)
