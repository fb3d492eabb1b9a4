"""The target of a request: path and query, byte for byte as given, because signatures cover them.

httpx rewrites URLs (``..``, percent-encoding), queries most of all. Its parsed URL is used for the host; the target
comes from here.
"""

from __future__ import annotations

import re

import httpx

_WHOLE = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//[^/?#]*(?P<rest>[^#]*)", re.IGNORECASE)


def target_of(given: str, url: httpx.URL, base: bytes = b"") -> bytes:
    """Return path and query of ``given``, unchanged.

    Args:
        given: A URL, or a reference relative to another. Characters a request line cannot carry (spaces, controls,
            non-ASCII) are percent-encoded as UTF-8; the fragment is dropped.
        url: ``given`` as httpx parses it; if relative, joined with its base.
        base: Target of the base that ``given`` is relative to.
    """
    if whole := _WHOLE.match(given):
        rest = whole["rest"]
        return _encoded(rest if rest.startswith("/") else f"/{rest}")
    reference = given.partition("#")[0]
    if reference.startswith("/"):
        return _encoded(reference)
    if not reference:
        return base
    name, mark, query = reference.partition("?")
    path = (url.raw_path if name else base).partition(b"?")[0]
    return path + _encoded(mark + query)


def with_params(target: bytes, params: httpx.QueryParams) -> bytes:
    """Append ``params`` to the query of ``target``, which stays as it is."""
    if not params:
        return target
    joint = b"?" if b"?" not in target else b"" if target.endswith((b"?", b"&")) else b"&"
    return target + joint + str(params).encode("ascii")


def _encoded(text: str) -> bytes:
    raw = text.encode(errors="replace")
    return re.sub(rb"[^\x21-\x7e]", lambda byte: b"%%%02X" % byte[0][0], raw)
