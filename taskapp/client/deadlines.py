"""Deadlines: after one, neither a task nor anything that follows from it begins.

deadline= of a call ──► header and ``expires`` of the task ──► its steps of chains, chord bodies, retries, and all that
it submits: the same header, an ``expires`` not later
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from taskapp.client.option_checks import moment_of
from taskapp.transport.deadline_header import DEADLINE_HEADER, deadline_in

OPTION = "deadline"


def absolute(name: str, options: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return ``options`` with the deadline as a time, so that all parts of a canvas have the same.

    Raises:
        BadOption: It is not a time.
    """
    if options.get(OPTION) is None:
        return options
    return {**options, OPTION: moment_of(name, OPTION, options[OPTION], now).isoformat()}


def set_deadline(
    name: str, headers: dict[str, Any], options: Mapping[str, Any], parent: Mapping[str, Any], now: datetime,
    ahead_seconds: float,
) -> None:  # fmt: skip
    """Set the deadline of a task in ``headers``, and an ``expires`` that is not later.

    Args:
        name: The task type.
        headers: Headers of the task; ``expires`` is a time of this machine in ISO 8601, or ``None``.
        options: Options of the call.
        parent: Headers of the task that submits it; a deadline among the headers that the call gives counts, too.
        now: The time.
        ahead_seconds: How far the engine's time is ahead of this machine's.

    Raises:
        BadOption: ``deadline`` is not a time.
    """
    given = options.get(OPTION)
    ends = [] if given is None else [moment_of(name, OPTION, given, now).timestamp() + ahead_seconds]
    ends += [end for source in (parent, options.get("headers") or {}) if (end := deadline_in(source)) is not None]
    if not ends:
        return
    headers[DEADLINE_HEADER] = min(ends)
    moment = datetime.fromtimestamp(min(ends) - ahead_seconds, UTC)
    expires = headers.get("expires")
    if not expires or datetime.fromisoformat(expires) > moment:
        headers["expires"] = moment.isoformat()
