"""``taskapp.http_request``: call an HTTP API on the allow-list, inside one deadline."""

from __future__ import annotations

import uuid

from taskapp.celery import app
from taskapp.errors import TransientError
from taskapp.settings import get_settings
from taskapp.tasks.http_request.model import MAX_TIMEOUT_SECONDS, HttpRequest, HttpResponse

__all__ = ["HttpRequest", "HttpResponse", "http_request"]


def idempotency_key(task_id: str | None) -> str:
    """Return the key all runs of the task ``task_id`` share; without an id, a fresh one."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"taskapp:{task_id}") if task_id else uuid.uuid4())


@app.task(
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
    """Call a host of ``TASKAPP_HTTP_ALLOWED_HOSTS`` and return its answer.

    Running it again sends the request again: a lost worker, or an answer lost on the way, repeats
    it although the server may have acted already. POST and PATCH therefore carry an
    ``Idempotency-Key`` header, the same in every run of one task unless you set one; servers that
    honour it act once. Of others, ask only what may happen twice.

    Retried: no connection, no answer in time, and the statuses 408, 429 and 5xx, after at least
    the ``Retry-After`` the server asks for (an hour at most).

    Raises:
        TransientError: Still one of these after the last retry.
        PermanentError: The host is not allowed, the server refused (another 4xx, or a status not
            in ``expected_status``), its certificate is not trusted, or its answer is too large.
    """
    # httpx takes 100 ms to import, which a web application that only submits need not pay.
    from taskapp.tasks.http_request.hosts import AllowedHost
    from taskapp.tasks.http_request.run import fetch

    settings = get_settings()
    timeout_seconds = request.timeout_seconds or min(settings.http_timeout_seconds, MAX_TIMEOUT_SECONDS)
    allowed = [AllowedHost.parse(entry) for entry in settings.http_allowed_hosts]
    key = idempotency_key(http_request.request.id)
    return await fetch(request, allowed, timeout_seconds=timeout_seconds, key=key)
