"""Reads results: limits the size of unpacked ones, and reports values that are not results."""

from __future__ import annotations

import json
from typing import Any

from celery.backends import base
from celery.result import ResultBase
from kombu.exceptions import DecodeError
from redis.exceptions import ResponseError

from taskapp.errors.tasks import UnreadableResult
from taskapp.transport.unpacking import CannotUnpack, unpacked

# Mixed into two backends of Celery, which have no useful common base.
_Mixin: Any = object
_PACKED: bytes = base.COMPRESSED_PAYLOAD_MAGIC  # type: ignore[attr-defined]  # missing in the stubs
WHY_MOST = 300
"""Maximum length of the description of a problem, in characters."""


class BoundedDecoding(_Mixin):
    """Makes Celery's result backend unpack results up to a limit, and report values that are not results."""

    def get(self, key: Any) -> Any:
        """Return the value stored under ``key``; ``None`` if there is none.

        Raises:
            UnreadableResult: The value has a type that results do not have.
        """
        try:
            return super().get(key)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            raise UnreadableResult("it is not a Redis string but a value of another type", _text(key)) from error

    def decode(self, payload: Any) -> Any:
        """Return the value that was passed to ``encode``; unpack up to the limit for messages and results.

        Raises:
            UnreadableResult: It would become larger, is damaged, or contains a value that cannot be created here.
            kombu.exceptions.ContentDisallowed: The format is not in ``result_accept_content``.
        """
        try:
            if isinstance(payload, bytes) and payload.startswith(_PACKED):
                settings = self.app.settings
                most_bytes = max(settings.max_unpacked_bytes, settings.max_result_bytes)
                method, _, body = payload[len(_PACKED) :].partition(b"\0")
                payload = unpacked(body, method.decode(errors="replace"), most_bytes)
            return super().decode(payload)
        except (CannotUnpack, DecodeError) as error:
            raise UnreadableResult(why_undecodable(error)) from error

    def meta_from_decoded(self, meta: Any) -> Any:
        """Return the decoded ``meta`` with the error of a failure as an exception.

        Raises:
            UnreadableResult: It is not a result as Celery stores it.
        """
        if not isinstance(meta, dict) or not isinstance(meta.get("status"), str) or "result" not in meta:
            raise UnreadableResult("it is not an object with a status and a result")
        children = meta.get("children")
        if children and not _are_children(children):
            raise UnreadableResult("its children are not a list of ids and their groups")
        return super().meta_from_decoded(meta)

    def read_result(self, key: bytes | str, payload: Any) -> Any:
        """Decode the ``payload`` stored under ``key``.

        Raises:
            UnreadableResult: It is not a result; the error names ``key``.
        """
        try:
            return self.decode_result(payload)
        except UnreadableResult as error:
            raise UnreadableResult(error.why, _text(key)) from error.__cause__

    def _get_task_meta_for(self, task_id: str) -> Any:
        try:
            return super()._get_task_meta_for(task_id)
        except UnreadableResult as error:
            raise UnreadableResult(error.why, _text(self.get_key_for_task(task_id))) from error.__cause__


def why_undecodable(error: BaseException) -> str:
    """Return a description of a decoding error that does not quote the value."""
    origin = error.args[0] if error.args and isinstance(error.args[0], BaseException) else error
    if isinstance(origin, RecursionError):
        return "it is nested too deeply"
    if isinstance(origin, UnicodeDecodeError):
        return f"it is not valid UTF-8, see byte {origin.start}"
    if isinstance(origin, json.JSONDecodeError):
        return f"it is not JSON: {origin}"
    if isinstance(origin, CannotUnpack):
        return str(origin)
    detail = str(origin.args[0]) if origin.args else ""
    kind = type(origin).__name__
    return f"it contains a value that cannot be created: {kind}: {detail}".removesuffix(": ")[:WHY_MOST]


def _are_children(children: Any) -> bool:
    """Return whether Celery can create results from ``children``: ``((id, parent), children or None)`` each."""
    # Not recursive: parents are nested as deeply as a chain is long.
    waiting = [children]
    while waiting:
        nodes = waiting.pop()
        if not isinstance(nodes, list | tuple):
            return False
        for node in nodes:
            if isinstance(node, ResultBase):
                continue
            if not _is_pair(node):
                return False
            named, below = node
            name, parent = named if _is_pair(named) else (named, None)
            if not isinstance(name, str | int):
                return False
            waiting += ([] if below is None else [below]) + ([[parent]] if parent else [])
    return True


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def _text(key: Any) -> str:
    return key.decode(errors="replace") if isinstance(key, bytes) else str(key)
