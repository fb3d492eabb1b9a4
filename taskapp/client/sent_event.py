"""Celery's event ``task-sent``, as kombu publishes it; it travels with the message it speaks of."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Any

import msgspec
from celery.utils.time import utcoffset

if TYPE_CHECKING:
    from taskapp.client.form import Sending

_to_json = msgspec.json.Encoder(enc_hook=str).encode


def sent_event(sending: Sending, headers: dict[str, Any], queue: str) -> bytes:
    """Return the event of the task with these headers."""
    event = {
        "hostname": sending.origin,
        "utcoffset": utcoffset(),
        "pid": sending.pid,
        "clock": sending.app.clock.forward(),
        "uuid": headers["id"],
        "root_id": headers["root_id"],
        "parent_id": headers["parent_id"],
        "name": headers["task"],
        "args": headers["argsrepr"],
        "kwargs": headers["kwargsrepr"],
        "retries": headers["retries"],
        "eta": headers["eta"],
        "expires": headers["expires"],
        "queue": queue,
        "exchange": "",
        "routing_key": queue,
        "timestamp": time(),
        "type": "task-sent",
    }
    return _to_json(
        {
            "body": _to_json(event).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"hostname": sending.origin},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": sending.event_exchange, "routing_key": "task.sent"},
                "priority": 0,
                "body_encoding": None,
                # Nobody acknowledges it.
                "delivery_tag": headers["id"],
            },
        }
    )
