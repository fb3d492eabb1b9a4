"""Remote control of a node whose pool is green: a greenlet of its own listens, over a connection of its own."""

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
    """Lets that greenlet connect again.

    Celery's ends with its connection: it counts on that of the tasks to break as well, after which all is begun anew.
    Ours may be another, and never breaks for good.
    """

    requires = ("celery.worker.consumer.control:Control",)

    def include_if(self, c: Any) -> bool:
        """Change Celery's step, if this pool is green; there is nothing to start."""
        control = c.blueprint.steps.get(Control.name)
        if control is not None and control.is_green:
            control.box.loop = lasting(control.box, c.connection_errors)
        return False


def lasting(box: Any, errors: tuple[type[Exception], ...]) -> Callable[[Any], None]:
    """Return the loop of ``box``, Celery's ``gPidbox``, begun again after ``errors`` until the box is stopped."""
    once: Callable[[Any], None] = box.loop

    def loop(c: Any) -> None:
        trouble = Trouble()
        while True:
            try:
                return once(c)
            except errors as error:
                trouble.begin("the connection for remote control is down: %s", error)
            ended = end_of_listening(box)
            sleep(trouble.pause_seconds())
            if end_of_listening(box) is not ended or ended is None:
                return None  # it was stopped meanwhile, and may have been started again

    return loop
