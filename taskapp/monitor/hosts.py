"""Checks the ``Host`` header of requests to our web servers, so that no foreign web page can read them.

A page whose name resolves to 127.0.0.1 shortly after it was loaded (DNS rebinding) can read servers there as if
they were its own origin, but its requests still carry its name in ``Host``. An IP address in ``Host`` cannot be
rebound, so requests by address, such as those of probes and Prometheus, are answered.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

SETTING = "TASKAPP_WEB_HOSTS"
SHOWN_CHARACTERS = 100


class Hosts:
    """The hosts a server answers for: IP addresses, ``localhost``, its listen address, and configured names.

    Args:
        names: Host names; ``*.example.com`` matches all subdomains, ``*`` every host.
        listens_on: The server's listen address, which may be a name.
    """

    def __init__(self, names: Iterable[str], listens_on: str = "") -> None:
        known = [name.lower().rstrip(".") for name in (*names, listens_on, "localhost", "*.localhost") if name]
        self._admits_all = "*" in known
        self._names = frozenset(known)
        self._endings = tuple(name.removeprefix("*") for name in known if name.startswith("*."))

    def admits(self, host: str | None) -> bool:
        """Return whether to answer a request with this ``Host``; without the header, which browsers send, yes."""
        if not host or self._admits_all:
            return True
        name = _name_of(host)
        return name in self._names or (name.endswith(self._endings) and name[:1] != ".") or _is_address(name)


def refusal(host: str) -> str:
    """Return the error text for a client that used an unknown host name."""
    shown = host[:SHOWN_CHARACTERS].encode("ascii", "backslashreplace").decode()
    return f"this server does not answer for the host {shown!r}; if it should, add it to {SETTING}\n"


def _name_of(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].partition("%")[0].lower()
    return host.rpartition(":")[0].lower().rstrip(".") if ":" in host else host.lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def checked(application: Application, hosts: Hosts) -> Application:
    """Wrap the WSGI ``application`` so that it answers only for ``hosts``; others get status 403."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST")
        if hosts.admits(host):
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [refusal(str(host)).encode()]

    return answer
