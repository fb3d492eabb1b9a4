"""Checks a message before a request is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskapp.engine.headers import BadHeader, check_foreign_headers, check_headers
from taskapp.transport.message import Received


def is_checked_claim(message: Any) -> bool:
    """Check the headers of a message; return whether it was claimed from the engine.

    Raises:
        ValueError: The headers or the body are invalid.
    """
    if not isinstance(message, Received):
        check_foreign_headers(message.headers)
        return False
    if message.is_foreign:
        _check_foreign(message)
    else:
        check_headers(message.headers)
    return True


def _check_foreign(message: Received) -> None:
    """Check a message that another program wrote for what this package guarantees in its own.

    Raises:
        ValueError: The headers or the body are invalid.
    """
    headers = message.headers
    check_foreign_headers(headers)
    if not headers.get("id") or not headers.get("task"):
        raise BadHeader("headers: id or task is missing")
    payload: Any = message.payload
    if isinstance(payload, list | tuple) and len(payload) == 3:
        args, kwargs, embed = payload
        if isinstance(args, list | tuple) and isinstance(kwargs, Mapping) and isinstance(embed, Mapping | None):
            return
    raise ValueError("its body is not [args, kwargs, embed]")
