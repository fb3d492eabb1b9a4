"""``taskapp.http_request``: calls an HTTP API on the allow-list, within one deadline."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from taskapp.errors import TransientError
from taskapp.settings import get_settings
from taskapp.tasks.http_request.limits import MAX_TIMEOUT_SECONDS
from taskapp.tasks.shared.first_use import models_of
from taskapp.tasks.shared.shipped import shipped

if TYPE_CHECKING:
    from taskapp.tasks.http_request.model import HttpRequest, HttpResponse

__all__ = ["HttpRequest", "HttpResponse", "http_request"]

if not TYPE_CHECKING:
    __getattr__ = models_of(__name__, __all__, "taskapp.tasks.http_request.model")


def idempotency_key(task_id: str | None) -> str:
    """Return the key that all runs of the task ``task_id`` share; without an id, a new one."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"taskapp:{task_id}") if task_id else uuid.uuid4())


@shipped(
    name="taskapp.http_request",
    needs_extra="http",
    autoretry_for=(TransientError,),
    retry_backoff=1,
    retry_backoff_max=600,
    max_retries=8,
    soft_time_limit=MAX_TIMEOUT_SECONDS + 30,
    time_limit=MAX_TIMEOUT_SECONDS + 60,
)
async def http_request(request: HttpRequest) -> HttpResponse:
    """Call a host in ``TASKAPP_HTTP_ALLOWED_HOSTS`` and return its response.

    Running it again sends the request again: after a lost worker or a lost response it is repeated
    even though the server may already have acted. POST and PATCH therefore carry an
    ``Idempotency-Key`` header, the same in every run of one task unless you set your own; servers that
    honor it act once. With other servers, request only what may happen twice.

    Retries if there is no connection or no response in time, and for the statuses 408, 429 and 5xx,
    after at least the server's ``Retry-After`` (up to an hour).

    Raises:
        TransientError: One of these persists after the last retry.
        PermanentError: The host is not allowed, the server refused (another 4xx, or a status not
            in ``expected_status``), its certificate is not trusted, or its response is too large.
    """
    # Importing httpx takes 100 ms; a web application that only submits need not pay for it.
    from taskapp.tasks.http_request.hosts import AllowedHost
    from taskapp.tasks.http_request.run import fetch

    settings = get_settings()
    timeout_seconds = request.timeout_seconds or min(settings.http_timeout_seconds, MAX_TIMEOUT_SECONDS)
    allowed = [AllowedHost.parse(entry) for entry in settings.http_allowed_hosts]
    key = idempotency_key(http_request.request.id)
    return await fetch(request, allowed, timeout_seconds=timeout_seconds, key=key)
