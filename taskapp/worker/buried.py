"""Tasks that were buried without a run's end: they fail, and so do the chords and chains they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from celery.app.task import Context
from celery.exceptions import InvalidTaskError, NotRegistered
from celery.utils.log import get_logger
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskapp.broker.dead_letters import DeadLetter
from taskapp.broker.envelope import unseal
from taskapp.broker.message_format import Unreadable, read_headers
from taskapp.broker.options import Buried
from taskapp.broker.settlement import Settlement, settling
from taskapp.errors import CrashedTooOften, TaskappError
from taskapp.results.chords import Chords

logger = get_logger(__name__)


def fail_buried(app: Any, buried: Iterable[Buried]) -> None:
    """Give tasks the engine buried by itself a result, count them in their chords, run their errbacks."""
    for each in buried:
        try:
            with app.engine() as engine:
                letter = engine.dead_letters.get(each.queue, each.number)
            headers, embed = _read(letter)
            known = {"id": each.id, "task": each.task, **headers}
            if known["id"]:
                _fail(app, known, embed, each.queue, _error(each.reason, known))
        except (RedisError, OSError, OperationalError, TaskappError) as unreachable:
            logger.warning("the failure of %s[%s] could not be stored: %s", each.task, each.id, unreachable)


def settle_unreadable(app: Any, message: Any, problem: str) -> Settlement:
    """Return what is to be done with the end of a message no worker can use: as far as it can be read, it fails."""
    settlement = Settlement()
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    if isinstance(headers.get("id"), str) and isinstance(headers.get("task"), str):
        queue = (message.delivery_info or {}).get("routing_key", "")
        try:
            with settling(settlement):
                _fail(app, headers, None, queue, InvalidTaskError(problem))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a message, the worker goes on
            logger.warning("the failure of %s could not be stored: %s", headers["id"], error)
            settlement.drop()
    return settlement


def _read(letter: DeadLetter | None) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    if letter is None:
        return {}, None
    try:
        return read_headers(unseal(letter.raw))
    except Unreadable:
        return {}, None


def _error(reason: str, known: Mapping[str, Any]) -> Exception:
    if reason == "unknown task":
        return NotRegistered(known["task"])
    return CrashedTooOften(known["task"], known["id"])


def _fail(app: Any, headers: Mapping[str, Any], embed: Mapping[str, Any] | None, queue: str, error: Exception) -> None:
    """Mark a task as failed; ``embed`` is ``None`` where what it belongs to cannot be read."""
    request = Context({**headers, **(embed or {})}, delivery_info={"routing_key": queue})
    task = app.tasks.get(headers["task"])
    backend = task.backend if task is not None else app.backend
    if embed is None and isinstance(backend, Chords):
        # Which chord it is says the group; one that is none counts nothing.
        request.chord = request.group
    backend.mark_as_failure(headers["id"], error, request=request)
