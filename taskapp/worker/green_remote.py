"""Remote control of a node with a green pool: a separate greenlet listens on a separate connection."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker.consumer.control import Control

from taskapp.celery_internals import end_of_listening
from taskapp.redis.trouble import Trouble

logger = get_logger(__name__)


class KeepRemoteControl(bootsteps.StartStopStep):
    """Lets that greenlet reconnect.

    Celery's greenlet ends when its connection breaks, on the assumption that the connection for tasks breaks as well
    and everything is restarted. With taskapp, the two may be independent, and the one for tasks survives outages.
    """

    requires = ("celery.worker.consumer.control:Control",)

    def include_if(self, c: Any) -> bool:
        """Adapt Celery's step if the pool is green; return ``False``, as there is nothing to start."""
        control = c.blueprint.steps.get(Control.name)
        if control is not None and control.is_green:
            control.box.loop = lasting(control.box, c.connection_errors)
        return False


def lasting(box: Any, errors: tuple[type[Exception], ...]) -> Callable[[Any], None]:
    """Return the loop of ``box``, Celery's ``gPidbox``, which restarts after ``errors`` until the box is stopped."""
    once: Callable[[Any], None] = box.loop

    def loop(c: Any) -> None:
        trouble = Trouble()
        while True:
            try:
                return once(c)
            except errors as error:
                trouble.away(error)
            ended = end_of_listening(box)
            sleep(trouble.pause_seconds())
            if end_of_listening(box) is not ended or ended is None:
                return None  # the box was stopped during the pause, and may have been started again

    return loop
