"""Payload and result of ``taskapp.http_request``.

Schemas are built at first use (``defer_build``), because a node and a web app import all task types and use some.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from taskapp.tasks.http_request.limits import MAX_RESPONSE_BYTES, MAX_TIMEOUT_SECONDS
from taskapp.tasks.shared.texts import Text

FORBIDDEN_HEADERS = frozenset({
    "connection", "content-length", "host", "proxy-authorization", "te", "transfer-encoding", "upgrade",
})  # fmt: skip
"""Headers that frame or route a message; with them a caller could bypass the allow-list."""


def _check_url(url: str) -> str:
    matched = re.fullmatch(r"https?://([^/?#\s\\]+)([/?#][^\s\x00-\x1f\x7f]*)?", url, re.IGNORECASE)
    if matched is None:
        raise ValueError("give a URL such as 'https://api.example.com/orders', with http or https and no spaces")
    if "@" in matched[1]:
        raise ValueError("a URL must not contain a login; send an 'Authorization' header instead")
    return url


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError(f"{name!r} is not a header name; use letters, digits and hyphens")
        if name.lower() in FORBIDDEN_HEADERS:
            raise ValueError(f"header {name!r} is set from the URL and the body; leave it out")
        if not re.fullmatch(r"[\t\x20-\x7e]*", value):
            raise ValueError(f"the value of header {name!r} must be one line of ASCII; encode it first")
    return headers


def _upper(method: object) -> object:
    return method.upper() if isinstance(method, str) else method


Method = Annotated[Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"], BeforeValidator(_upper)]
Scalar = str | int | float | bool


class HttpRequest(BaseModel, defer_build=True):
    """One HTTP request. ``repr`` omits headers, parameters and bodies, which may contain secrets."""

    model_config = ConfigDict(extra="forbid")

    method: Method = "GET"
    url: Annotated[Text, Field(max_length=8_192), AfterValidator(_check_url)]
    headers: Annotated[dict[str, str], AfterValidator(_check_headers)] = Field(default_factory=dict, repr=False)
    params: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict, repr=False)
    """Added to the query of ``url``; a list adds one pair per value."""
    json_body: JsonValue = Field(default=None, repr=False)
    """Sent as ``application/json``; ``null`` sends nothing."""
    body: Text | None = Field(default=None, repr=False)
    """Sent as UTF-8, by default as ``text/plain``. Not together with ``json_body``."""
    timeout_seconds: float | None = Field(default=None, gt=0, le=MAX_TIMEOUT_SECONDS)
    """Deadline for name lookup, redirects and the whole response. Empty: TASKAPP_HTTP_TIMEOUT_SECONDS."""
    expected_status: list[Annotated[int, Field(ge=200, le=599)]] | None = Field(default=None, min_length=1)
    """Statuses that count as success. Empty: 200 to 299. A redirect listed here is returned, not followed."""
    max_response_bytes: int = Field(default=1_048_576, ge=1, le=MAX_RESPONSE_BYTES)
    """Maximum size of the decompressed response; a larger one fails the task permanently."""

    @model_validator(mode="after")
    def _one_body(self) -> HttpRequest:
        if self.body is not None and self.json_body is not None:
            raise ValueError("a request has only one body; give either 'json_body' or 'body'")
        return self

    def expects(self, status: int) -> bool:
        """Return whether ``status`` counts as success."""
        return status in self.expected_status if self.expected_status else 200 <= status < 300


class HttpResponse(BaseModel, defer_build=True):
    """A server's response. ``json_body`` is set if the response is JSON, else ``text``."""

    status: int
    url: str
    """URL of the response, after redirects."""
    headers: dict[str, str]
    """Useful headers, in lower case: content type, date, etag, link, location and the like; never cookies."""
    text: str | None = None
    json_body: JsonValue = None
    elapsed_seconds: float = 0.0
