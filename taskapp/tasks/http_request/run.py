"""The request loop of ``taskapp.http_request``. Imported only when the task runs: importing httpx is slow.

Follows redirects from the first hop to the response, and checks every hop against the allow-list.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
import zlib
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache

import httpx
from pydantic import JsonValue
from pydantic_core import from_json

from taskapp.errors import PermanentError, TransientError
from taskapp.tasks.http_request.gzip import Gunzip
from taskapp.tasks.http_request.hosts import DEFAULT_PORTS, AllowedHost, canonical_host
from taskapp.tasks.http_request.model import HttpRequest, HttpResponse
from taskapp.tasks.http_request.target import target_of, with_params

MAX_REDIRECTS = 5
MAX_RETRY_AFTER_SECONDS = 3_600.0
"""Maximum wait a server can ask for."""
ERROR_EXCERPT_BYTES = 500
"""How much of a refusal to quote in the error."""

RESULT_HEADERS = (
    "content-type", "date", "etag", "last-modified", "link", "location", "retry-after", "x-request-id",
)  # fmt: skip
"""Response headers to keep; cookies do not belong in a result."""
HEADERS_FOR_ANY_ORIGIN = frozenset({
    "accept", "accept-encoding", "accept-language", "content-type", "idempotency-key", "user-agent",
})  # fmt: skip
"""Headers sent on a redirect to another origin; the others may contain secrets of the first."""
HEADERS_OF_A_BODY = frozenset({"content-type", "idempotency-key"})
RETRIED_STATUSES = frozenset({408, 429})
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
TEXT_ENCODINGS = frozenset({
    "ascii", "big5", "euc-jp", "euc-kr", "gb18030", "iso-8859-1", "iso-8859-15", "shift_jis", "us-ascii", "utf-16",
    "utf-8", "windows-1251", "windows-1252",
})  # fmt: skip
"""Charsets accepted from servers. Python supports more, but some take quadratic time."""


async def fetch(
    request: HttpRequest, allowed: Sequence[AllowedHost], *, timeout_seconds: float, key: str
) -> HttpResponse:
    """Send ``request`` and return the response, all within ``timeout_seconds``.

    ``key`` is sent as ``Idempotency-Key`` with methods that could do harm if repeated.

    Raises:
        TransientError: No connection, no response in time, or a response that asks to retry later.
        PermanentError: The host is not allowed or not trusted, or the response is a refusal or too large.
    """
    started_at = time.monotonic()
    shown = f"{request.method} {request.url.partition('?')[0]}"
    try:
        async with asyncio.timeout(timeout_seconds):
            response = await _follow(Hop.first(request, key), request, allowed, timeout_seconds)
    except (TimeoutError, httpx.TimeoutException) as error:
        raise TransientError(f"{shown} got no complete response within {timeout_seconds:g} s") from error
    except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        raise PermanentError(f"{shown} cannot be sent: {error}") from error
    except httpx.TransportError as error:
        if _is_untrusted(error):
            raise PermanentError(f"{shown}: the server's certificate is not trusted: {error}") from error
        raise TransientError(f"{shown} failed: {error or type(error).__name__}") from error
    return response.model_copy(update={"elapsed_seconds": round(time.monotonic() - started_at, 3)})


async def _follow(
    hop: Hop, request: HttpRequest, allowed: Sequence[AllowedHost], timeout_seconds: float
) -> HttpResponse:
    # Proxies from the environment would bypass the allow-list, so trust_env is off.
    async with httpx.AsyncClient(verify=_trust(), trust_env=False, timeout=timeout_seconds) as client:
        for _ in range(MAX_REDIRECTS + 1):
            check_allowed(hop.url, allowed)
            async with client.stream(
                hop.method, hop.url, headers=hop.headers, content=hop.content, extensions={"target": hop.target}
            ) as response:
                location = response.headers.get("location")
                is_redirect = response.status_code in REDIRECT_STATUSES and location is not None
                if request.expects(response.status_code) or not is_redirect:
                    return await _answer(response, request)
                hop = hop.redirected(response.status_code, location)
    start = request.url.partition("?")[0]
    raise PermanentError(f"{start!r} redirects more than {MAX_REDIRECTS} times; call its target instead")


def check_allowed(url: httpx.URL, allowed: Sequence[AllowedHost]) -> None:
    """Check that ``url`` may be called; pass the same object that is then requested.

    The allow-list trusts names, and so whatever addresses DNS gives for them.

    Raises:
        PermanentError: The scheme or host is not allowed, or the URL contains a login.
    """
    if url.scheme not in DEFAULT_PORTS:
        raise PermanentError(f"scheme {url.scheme!r} is not allowed; use 'https' or 'http'")
    if url.userinfo:
        raise PermanentError(f"the URL of host {url.host!r} contains a login; send an 'Authorization' header instead")
    port = url.port or DEFAULT_PORTS[url.scheme]
    host = canonical_host(url.raw_host.decode("ascii", "replace"))
    if host is None or not any(entry.matches(url.scheme, host, port) for entry in allowed):
        shown = f"[{host}]" if host and ":" in host else host or url.host
        wanted = shown if port == DEFAULT_PORTS[url.scheme] else f"{shown}:{port}"
        raise PermanentError(f"host {wanted!r} is not allowed; add it to TASKAPP_HTTP_ALLOWED_HOSTS")


@cache
def _trust() -> ssl.SSLContext:
    # The system's certificate authorities, so that a company's own CA counts. Loaded once per process: it takes 20 ms.
    return ssl.create_default_context()


def _is_untrusted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


# --- hops ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hop:
    """One request in a chain of redirects."""

    method: str
    url: httpx.URL
    """Determines the host."""
    target: bytes
    """Path and query exactly as given."""
    headers: httpx.Headers
    content: bytes | None

    @classmethod
    def first(cls, request: HttpRequest, key: str) -> Hop:
        """Return the caller's request as the first hop.

        Raises:
            PermanentError: The URL is malformed.
        """
        content, media_type = _body(request)
        headers = httpx.Headers({"Content-Type": media_type} if content is not None else {})
        if request.method in ("POST", "PATCH"):
            headers["Idempotency-Key"] = key
        headers.update(request.headers)
        headers["Accept-Encoding"] = "gzip"
        try:
            url = httpx.URL(request.url)
            target = with_params(target_of(request.url, url), httpx.QueryParams(request.params))
        except (httpx.InvalidURL, UnicodeError) as error:
            raise PermanentError(f"{request.url!r} with its parameters is not a valid URL: {error}") from error
        return cls(request.method, url, target, headers, content)

    def redirected(self, status: int, location: str) -> Hop:
        """Return the request that follows a redirect, as browsers and RFC 9110 section 15.4 define it.

        Raises:
            PermanentError: ``location`` is not a URL, or leads from https to http.
        """
        try:
            url = self.url.join(location)
        except httpx.InvalidURL as error:
            raise PermanentError(f"{self.url.host!r} redirects to {location!r}, which is not a URL: {error}") from error
        if (self.url.scheme, url.scheme) == ("https", "http"):
            raise PermanentError(f"{self.url.host!r} redirects from https to http, which is not allowed")
        hop = self if _origin(url) == _origin(self.url) else self._with_headers(HEADERS_FOR_ANY_ORIGIN)
        becomes_get = self.method != "HEAD" and (status == 303 or (status in (301, 302) and self.method == "POST"))
        if becomes_get:
            hop = replace(hop._with_headers(set(hop.headers) - HEADERS_OF_A_BODY), method="GET", content=None)
        return replace(hop, url=url, target=target_of(location, url, self.target))

    def _with_headers(self, names: Set[str]) -> Hop:
        return replace(self, headers=httpx.Headers([item for item in self.headers.items() if item[0] in names]))


def _origin(url: httpx.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port


def _body(request: HttpRequest) -> tuple[bytes | None, str]:
    if request.json_body is not None:
        return json.dumps(request.json_body).encode(), "application/json"
    content = None if request.body is None else request.body.encode()
    return content, "text/plain; charset=utf-8"


# --- responses -------------------------------------------------------------------------------


async def _answer(response: httpx.Response, request: HttpRequest) -> HttpResponse:
    if not request.expects(response.status_code):
        excerpt, _ = await _read(response, ERROR_EXCERPT_BYTES)
        raise _refused(response, excerpt.decode(errors="replace"))
    content, is_all = await _read(response, request.max_response_bytes)
    if not is_all:
        limit_bytes = request.max_response_bytes
        raise PermanentError(f"{_shown(response)} returned more than {limit_bytes} bytes; raise max_response_bytes")
    text, json_body = _decoded(response, content)
    headers = {name: response.headers[name] for name in RESULT_HEADERS if name in response.headers}
    target = response.request.extensions["target"].decode("ascii")
    url = f"{response.url.scheme}://{response.url.netloc.decode('ascii')}{target}"
    return HttpResponse(status=response.status_code, url=url, headers=headers, text=text, json_body=json_body)


async def _read(response: httpx.Response, limit_bytes: int) -> tuple[bytes, bool]:
    """Return at most ``limit_bytes`` of the response, and whether that is all of it."""
    encoding = response.headers.get("content-encoding", "").lower()
    if encoding not in ("", "identity", "gzip"):
        raise PermanentError(f"{_shown(response)} used the encoding {encoding!r}; only gzip was offered")
    # Decompress here, with a limit: httpx would expand a decompression bomb before anyone could measure it.
    unpacked = Gunzip() if encoding == "gzip" else None
    content = bytearray()
    try:
        async for chunk in response.aiter_raw():
            content += unpacked.read(chunk, limit_bytes + 1 - len(content)) if unpacked else chunk
            if len(content) > limit_bytes:
                return bytes(content[:limit_bytes]), False
            if unpacked and unpacked.is_over:
                break
    except zlib.error as error:
        raise PermanentError(f"{_shown(response)} returned corrupt gzip: {error}") from error
    if unpacked and unpacked.is_within_a_member:
        raise TransientError(f"{_shown(response)} returned truncated gzip")
    return bytes(content), True


def _refused(response: httpx.Response, excerpt: str) -> PermanentError | TransientError:
    status = response.status_code
    sentence = f"{_shown(response)} returned {status}: {excerpt!r}"
    if status in RETRIED_STATUSES or status >= 500:
        return TransientError(sentence, retry_after_seconds(response.headers.get("retry-after"), datetime.now(UTC)))
    return PermanentError(f"{sentence}; correct the request, or add {status} to expected_status")


def _shown(response: httpx.Response) -> str:
    # Queries often contain keys and names, which do not belong in errors and logs.
    return f"{response.request.method} {response.url.copy_with(query=None, fragment=None)}"


def _decoded(response: httpx.Response, content: bytes) -> tuple[str | None, JsonValue]:
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        try:
            value: JsonValue = from_json(content, allow_inf_nan=False)
            # A number too large for a float is read as infinity, which JSON cannot represent.
            json.dumps(value, allow_nan=False)
        except ValueError:
            pass  # invalid JSON is returned as text
        else:
            return None, value
    charset = (response.charset_encoding or "").lower()
    return content.decode(charset if charset in TEXT_ENCODINGS else "utf-8", errors="replace"), None


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Return the delay in seconds that a ``Retry-After`` header asks for; ``None`` if it is unusable.

    Accepts seconds or an HTTP date; a date in the past gives 0, and ``MAX_RETRY_AFTER_SECONDS`` is the maximum.

    Source:
        RFC 9110, section 10.2.3.
    """
    value = (value or "").strip()
    if re.fullmatch(r"[0-9]+", value):
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    try:
        due_at = parsedate_to_datetime(value)
        # A date that ends in "-0000" has no zone; HTTP uses only GMT.
        due_at = due_at if due_at.tzinfo else due_at.replace(tzinfo=UTC)
        seconds = (due_at - now).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
