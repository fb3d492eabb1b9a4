"""Reading results: what is compressed becomes no larger than a result may be, and what is no result is said so."""

from __future__ import annotations

import json
from typing import Any

from celery.backends import base
from celery.result import ResultBase
from kombu.exceptions import DecodeError
from redis.exceptions import ResponseError

from taskapp.errors.tasks import UnreadableResult
from taskapp.settings import get_settings
from taskapp.transport.unpacking import CannotUnpack, unpacked

# Mixed into two backends of Celery; a common base there would be one too many.
_Mixin: Any = object
_PACKED: bytes = base.COMPRESSED_PAYLOAD_MAGIC  # type: ignore[attr-defined]  # missing in the stubs
WHY_MOST = 300
"""Characters of what is wrong with a result."""


class BoundedDecoding(_Mixin):
    """Makes a result backend of Celery unpack results up to a limit, and name what is no result."""

    def get(self, key: Any) -> Any:
        """Return what is stored under ``key``, ``None``: nothing.

        Raises:
            UnreadableResult: A value of another type than results have is stored there.
        """
        try:
            return super().get(key)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            raise UnreadableResult("it is no string of Redis but a value of another type", _text(key)) from error

    def decode(self, payload: Any) -> Any:
        """Return what ``encode`` was given; a compressed result becomes no more than ``TASKAPP_MAX_UNPACKED_BYTES``.

        Raises:
            UnreadableResult: It would become larger, is damaged, or holds what cannot be made here.
            kombu.exceptions.ContentDisallowed: The format is not in ``result_accept_content``.
        """
        try:
            if isinstance(payload, bytes) and payload.startswith(_PACKED):
                settings = get_settings()
                most_bytes = max(settings.max_unpacked_bytes, settings.max_result_bytes)
                method, _, body = payload[len(_PACKED) :].partition(b"\0")
                payload = unpacked(body, method.decode(errors="replace"), most_bytes)
            return super().decode(payload)
        except (CannotUnpack, DecodeError) as error:
            raise UnreadableResult(why_undecodable(error)) from error

    def meta_from_decoded(self, meta: Any) -> Any:
        """Return ``meta``, what was decoded, with the error of a failure made.

        Raises:
            UnreadableResult: It is not what Celery stores of a task.
        """
        if not isinstance(meta, dict) or not isinstance(meta.get("status"), str) or "result" not in meta:
            raise UnreadableResult("it is no object with a status and a result")
        children = meta.get("children")
        if children and not _are_children(children):
            raise UnreadableResult("its children are no list of ids and their groups")
        return super().meta_from_decoded(meta)

    def read_result(self, key: bytes | str, payload: Any) -> Any:
        """Return what the ``payload`` stored under ``key`` says of a task.

        Raises:
            UnreadableResult: It is no result; names ``key``.
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
    """Say in words what is wrong with what could not be decoded, without quoting it."""
    origin = error.args[0] if error.args and isinstance(error.args[0], BaseException) else error
    if isinstance(origin, RecursionError):
        return "it is nested too deeply"
    if isinstance(origin, UnicodeDecodeError):
        return f"it is no text in UTF-8, by its byte {origin.start}"
    if isinstance(origin, json.JSONDecodeError):
        return f"it is no JSON: {origin}"
    if isinstance(origin, CannotUnpack):
        return str(origin)
    said = str(origin.args[0]) if origin.args else ""
    return f"it holds a value that cannot be made: {type(origin).__name__}: {said}".removesuffix(": ")[:WHY_MOST]


def _are_children(children: Any) -> bool:
    """Return whether Celery can make results of ``children``: ``((id, parent), children or None)`` each."""
    # Parents lie as deep in each other as a chain is long.
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
