"""``taskapp.http_request``: call an HTTP API on the allow-list, inside one deadline."""

from __future__ import annotations

import re
import uuid
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from taskapp.celery import app
from taskapp.errors import TransientError
from taskapp.settings import get_settings
from taskapp.tasks.texts import Text

MAX_TIMEOUT_SECONDS = 300
"""The longest deadline of one run; the time limits of the task lie above it."""
MAX_RESPONSE_BYTES = 16 * 1_048_576

FORBIDDEN_HEADERS = frozenset({
    "connection", "content-length", "host", "proxy-authorization", "te", "transfer-encoding", "upgrade",
})  # fmt: skip
"""Headers that frame or route a message; with them a caller could reach past the allow-list."""


def _check_url(url: str) -> str:
    matched = re.fullmatch(r"https?://([^/?#\s\\]+)([/?#][^\s\x00-\x1f\x7f]*)?", url, re.IGNORECASE)
    if matched is None:
        raise ValueError("a URL such as 'https://api.example.com/orders' is needed, with http or https and no spaces")
    if "@" in matched[1]:
        raise ValueError("a URL must not hold a login; send an 'Authorization' header instead")
    return url


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError(f"{name!r} is no header name; use letters, digits and hyphens")
        if name.lower() in FORBIDDEN_HEADERS:
            raise ValueError(f"header {name!r} is set from the URL and the body; leave it out")
        if not re.fullmatch(r"[\t\x20-\x7e]*", value):
            raise ValueError(f"the value of header {name!r} must be one line of ASCII; encode it first")
    return headers


def _upper(method: object) -> object:
    return method.upper() if isinstance(method, str) else method


Method = Annotated[Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"], BeforeValidator(_upper)]
Scalar = str | int | float | bool


class HttpRequest(BaseModel):
    """One HTTP request. Headers, parameters and bodies stay out of ``repr``, for they may hold secrets."""

    model_config = ConfigDict(extra="forbid")

    method: Method = "GET"
    url: Annotated[Text, Field(max_length=8_192), AfterValidator(_check_url)]
    headers: Annotated[dict[str, str], AfterValidator(_check_headers)] = Field(default_factory=dict, repr=False)
    params: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict, repr=False)
    """Added to the query of ``url``; a list gives one pair for each of its values."""
    json_body: JsonValue = Field(default=None, repr=False)
    """Sent as ``application/json``; ``null`` sends nothing."""
    body: Text | None = Field(default=None, repr=False)
    """Sent as UTF-8, by default as ``text/plain``. Not together with ``json_body``."""
    timeout_seconds: float | None = Field(default=None, gt=0, le=MAX_TIMEOUT_SECONDS)
    """Deadline for everything: name lookup, redirects, the whole answer. Empty: TASKAPP_HTTP_TIMEOUT_SECONDS."""
    expected_status: list[Annotated[int, Field(ge=200, le=599)]] | None = Field(default=None, min_length=1)
    """The statuses that are success. Empty: 200 to 299. A redirect named here is returned, not followed."""
    max_response_bytes: int = Field(default=1_048_576, ge=1, le=MAX_RESPONSE_BYTES)
    """The longest answer taken, decompressed; a longer one fails the task for good."""

    @model_validator(mode="after")
    def _one_body(self) -> HttpRequest:
        if self.body is not None and self.json_body is not None:
            raise ValueError("a request has one body; give either 'json_body' or 'body'")
        return self

    def expects(self, status: int) -> bool:
        """Say whether ``status`` is success."""
        return status in self.expected_status if self.expected_status else 200 <= status < 300


class HttpResponse(BaseModel):
    """What a server answered. ``json_body`` is set where the answer is JSON, else ``text``."""

    status: int
    url: str
    """Where the answer came from, after redirects."""
    headers: dict[str, str]
    """A few that help, in lower case: content type, date, etag, link, location and the like; never cookies."""
    text: str | None = None
    json_body: JsonValue = None
    elapsed_seconds: float = 0.0


def idempotency_key(task_id: str | None) -> str:
    """Return the key all runs of the task ``task_id`` share; without an id, a fresh one."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"taskapp:{task_id}") if task_id else uuid.uuid4())


@app.task(
    name="taskapp.http_request",
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
    from taskapp.tasks.http_fetch import fetch
    from taskapp.tasks.http_hosts import AllowedHost

    settings = get_settings()
    timeout_seconds = request.timeout_seconds or min(settings.http_timeout_seconds, MAX_TIMEOUT_SECONDS)
    allowed = [AllowedHost.parse(entry) for entry in settings.http_allowed_hosts]
    key = idempotency_key(http_request.request.id)
    return await fetch(request, allowed, timeout_seconds=timeout_seconds, key=key)
