"""What holds for every answer of Flower: only for names that are known, and never inside a frame.

Each handler, Flower's and ours, is replaced by a subclass that looks at ``Host`` before anything is done; tornado
passes every answer, those of errors and of files too, through a transform.
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
    """Return the names Flower answers for; asked when its options are known."""
    return Hosts(get_settings().web_hosts, options.address)


class _HostChecked(_Mixin):
    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        """Make a handler; Flower's for logins makes one of the class that ``--auth_provider`` names."""
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
    """Return ``handler``, answering only for ``known_hosts``."""
    return type(handler.__name__, (_HostChecked, handler), {"__module__": handler.__module__})


class NoFrames(OutputTransform):
    """Adds to each answer that no page may show it in a frame."""

    def __init__(self, request: HTTPServerRequest) -> None:
        """Make one for ``request``, of which nothing is needed."""

    def transform_first_chunk(
        self,
        status_code: int,
        headers: HTTPHeaders,
        chunk: bytes,
        finishing: bool,  # noqa: ARG002, FBT001 - tornado's
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Return what is answered, with the headers."""
        headers["X-Frame-Options"] = "DENY"
        policy = headers.get("Content-Security-Policy", "")
        if "frame-ancestors" not in policy:
            headers["Content-Security-Policy"] = f"{policy}; {FRAMES}" if policy else FRAMES
        return status_code, headers, chunk


def guard(handlers: list[Any], settings: dict[str, Any]) -> None:
    """Replace ``handlers``, Flower's list, and add to ``settings``, those of its application."""
    # As url() all of them: of others Flower forgets the arguments where it puts a prefix before its addresses.
    handlers[:] = [_guarded(each if isinstance(each, url) else url(*each)) for each in handlers]
    settings["transforms"] = [NoFrames]
    settings["static_handler_class"] = host_checked(StaticFileHandler)


def _guarded(handler: Any) -> Any:
    return url(handler.regex.pattern, host_checked(handler.handler_class), handler.kwargs, name=handler.name)
