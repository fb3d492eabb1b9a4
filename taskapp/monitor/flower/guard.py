"""Guards every response of Flower: it answers only for known hosts and never inside a frame.

Each handler, Flower's and ours, is replaced by a subclass that checks ``Host`` first. tornado passes every response,
including errors and files, through a transform.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.options import options
from tornado.web import OutputTransform, RequestHandler, StaticFileHandler, url

from taskapp.monitor.hosts import Hosts, refusal
from taskapp.settings import get_settings

_Mixin: Any = object
FRAMES = "frame-ancestors 'none'"


@cache
def known_hosts() -> Hosts:
    """Return the hosts Flower answers for. Call it after its options are parsed."""
    return Hosts(get_settings().web_hosts, options.address)


class _HostChecked(_Mixin):
    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        """Create a handler. Flower's login handler creates one of the class that ``--auth_provider`` names."""
        make = super().__new__
        made = make(cls) if make is object.__new__ else make(cls, *arguments, **options)
        if not isinstance(made, _HostChecked):
            kind: Any = type(made)
            made.__class__ = host_checked(kind)
        return made

    def prepare(self) -> Any:
        host = self.request.headers.get("Host")
        if known_hosts().admits(host):
            return super().prepare()
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish(refusal(host))
        return None


@cache
def host_checked(handler: type[RequestHandler]) -> type[RequestHandler]:
    """Return a subclass of ``handler`` that answers only for ``known_hosts``."""
    return type(handler.__name__, (_HostChecked, handler), {"__module__": handler.__module__})


class NoFrames(OutputTransform):
    """Adds headers to each response that forbid showing it in a frame."""

    def __init__(self, request: HTTPServerRequest) -> None:
        """Ignore ``request``; tornado passes it."""

    def transform_first_chunk(
        self,
        status_code: int,
        headers: HTTPHeaders,
        chunk: bytes,
        finishing: bool,  # noqa: ARG002, FBT001 - tornado's
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Return the response with the headers added."""
        headers["X-Frame-Options"] = "DENY"
        policy = headers.get("Content-Security-Policy", "")
        if "frame-ancestors" not in policy:
            headers["Content-Security-Policy"] = f"{policy}; {FRAMES}" if policy else FRAMES
        return status_code, headers, chunk


def guard(handlers: list[Any], settings: dict[str, Any]) -> None:
    """Replace the handlers in Flower's list ``handlers`` and add to ``settings``, those of its application."""
    # Convert all to url(): with a URL prefix, Flower drops the arguments of plain tuples.
    handlers[:] = [_guarded(each if isinstance(each, url) else url(*each)) for each in handlers]
    settings["transforms"] = [NoFrames]
    settings["static_handler_class"] = host_checked(StaticFileHandler)


def _guarded(handler: Any) -> Any:
    return url(handler.regex.pattern, host_checked(handler.handler_class), handler.kwargs, name=handler.name)
