"""Runs tasks of eager apps once their transaction has committed."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from taskapp.outbox.capture import Captured

logger = logging.getLogger(__name__)


def run_eagerly(committed: Iterable[Captured]) -> None:
    """Run the tasks of eager apps among ``committed``, in order; an error that they propagate is logged.

    The transaction has committed: raising would tell the caller that it has not.
    """
    for each in committed:
        if each.eager is not None:
            try:
                each.eager()
            except Exception:
                logger.exception("task %s failed; task_eager_propagates is set", each.result.id)
