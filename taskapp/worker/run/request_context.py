"""What ``self.request`` is in a run: the headers of its message."""

from __future__ import annotations

from itertools import islice
from typing import Any

from celery.app.task import Context

from taskapp.transport.codec import PROPERTIES_HEADER, READY_AT_HEADER, SENT_AT_HEADER, SIGNATURE_HEADER

KNOWN_HEADERS = frozenset({
    *vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression",
    SENT_AT_HEADER, READY_AT_HEADER, SIGNATURE_HEADER, PROPERTIES_HEADER,
})  # fmt: skip


class RunContext(Context):
    """What ``self.request`` is: the message's headers themselves, not a copy; there may be 100,000 at a time."""

    __slots__ = ("_given",)

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = len(given)  # what the run adds comes behind
        self.__dict__ = given
        limits = given.get("timelimit")
        if isinstance(limits, list | tuple) and len(limits) >= 2:
            self.time_limit, self.soft_time_limit = limits[0], limits[1]

    def as_given(self) -> dict[str, Any]:
        """Return what the message said, without what the run added."""
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
