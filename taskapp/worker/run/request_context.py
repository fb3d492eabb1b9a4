"""``self.request`` of a running task: a view of its message's headers."""

from __future__ import annotations

from itertools import islice
from typing import Any

from celery.app.task import Context

from taskapp.engine.headers import sound_headers
from taskapp.transport.attempts_header import ATTEMPTS_HEADER
from taskapp.transport.codec import PROPERTIES_HEADER, READY_AT_HEADER, SENT_AT_HEADER, SIGNATURE_HEADER
from taskapp.transport.limits_header import LIMITS_HEADER

KNOWN_HEADERS = frozenset({
    *vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression",
    SENT_AT_HEADER, READY_AT_HEADER, SIGNATURE_HEADER, PROPERTIES_HEADER, LIMITS_HEADER, ATTEMPTS_HEADER,
})  # fmt: skip


class RunContext(Context):
    """``self.request``: uses the message's headers without copying them, as 100,000 may exist at a time."""

    __slots__ = ("_given",)

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = len(given)  # fields that the run adds come after these
        self.__dict__ = given
        limits = given.get("timelimit")
        if isinstance(limits, list | tuple) and len(limits) >= 2:
            self.time_limit, self.soft_time_limit = limits[0], limits[1]

    def as_given(self) -> dict[str, Any]:
        """Return the message's headers without the fields added by the run."""
        return dict(islice(tuple(self.__dict__.items()), self._given))

    @property
    def headers(self) -> dict[str, Any] | None:  # an attribute in Celery
        """Headers that are not Celery's own, or ``None``."""
        known = self.__dict__
        if known.get("headers") is None:
            known["headers"] = {
                key: value for key, value in self.as_given().items() if key not in KNOWN_HEADERS
            } or None
        return known["headers"]  # type: ignore[no-any-return]  # whatever was given

    @headers.setter
    def headers(self, value: Any) -> None:
        self.__dict__["headers"] = value


def restored(given: dict[str, Any], task_id: str) -> dict[str, Any]:
    """Return the headers of task ``task_id`` without those that it has overwritten with a value of a wrong type."""
    kept = {**sound_headers(given), "id": task_id}
    for name in ("properties", "delivery_info"):
        if not isinstance(kept.get(name), dict):
            kept[name] = {}
    return kept
