"""Sends the follow-ups of a successful run: its links, then the next step of its chain."""

from __future__ import annotations

from typing import Any

from celery import group
from celery.canvas import maybe_signature

from taskapp.celery_internals import send_follow_up
from taskapp.engine.headers import check_signature
from taskapp.worker.run.request_context import RunContext

_signature: Any = maybe_signature  # missing in the stubs


def _follow_up(signature: Any, app: Any) -> Any:
    """Return a follow-up as a ``Signature``.

    Raises:
        BadHeader: ``signature`` is not a valid signature.
    """
    check_signature(signature)
    return _signature(signature, app=app)


def send_follow_ups(app: Any, request: RunContext, retval: Any, *, inherits_priority: bool) -> None:
    """Send the links of the run of ``request``, which returned ``retval``, then the next step of the chain.

    Raises:
        BadHeader: A follow-up is not a valid signature.
    """
    callbacks = [_follow_up(callback, app) for callback in request.callbacks or ()]
    groups = [callback for callback in callbacks if isinstance(callback, group)]
    single = [callback for callback in callbacks if not isinstance(callback, group)]
    if len(callbacks) > 1 and single:
        # A group, so that they share one trail.
        single = [group(single, app=app)]
    delivery: Any = request.delivery_info
    priority = delivery.get("priority") if inherits_priority else None
    usual = {"parent_id": request.id, "root_id": request.root_id or request.id, "priority": priority}
    for callback in (*groups, *single):
        send_follow_up(app.amqp, callback.apply_async, (retval,), **usual)
    if request.chain:
        following = _follow_up(request.chain[-1], app)
        send_follow_up(app.amqp, following.apply_async, (retval,), **usual, chain=request.chain[:-1])
