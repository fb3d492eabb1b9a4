"""By which names our web servers may be asked, so that no web page of a stranger can read them.

A page whose name resolves to 127.0.0.1 a moment after it was loaded (DNS rebinding) reads what listens there, as if
it were its own; but its requests still carry its name in ``Host``. An address in ``Host`` is no name that somebody
could bind anew, and what asks by address, as probes and Prometheus do, is answered.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

SETTING = "TASKAPP_WEB_HOSTS"
SHOWN_CHARACTERS = 100


class Hosts:
    """The names under which a server answers: addresses, ``localhost``, where it listens, and those it is given.

    Args:
        names: Names, ``*.example.com`` for all below one, ``*`` for every one.
        listens_on: Its own address, which may be a name.
    """

    def __init__(self, names: Iterable[str], listens_on: str = "") -> None:
        known = [name.lower().rstrip(".") for name in (*names, listens_on, "localhost", "*.localhost") if name]
        self._admits_all = "*" in known
        self._names = frozenset(known)
        self._endings = tuple(name.removeprefix("*") for name in known if name.startswith("*."))

    def admits(self, host: str | None) -> bool:
        """Return whether a request with this ``Host`` is answered; without one, none of a browser, it is."""
        if not host or self._admits_all:
            return True
        name = _name_of(host)
        return name in self._names or (name.endswith(self._endings) and name[:1] != ".") or _is_address(name)


def refusal(host: str) -> str:
    """Return the sentence shown to a client that asks by a name which is not known."""
    shown = host[:SHOWN_CHARACTERS].encode("ascii", "backslashreplace").decode()
    return f"this server does not answer for the host {shown!r}; if it should, add that name to {SETTING}\n"


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
    """Return the WSGI ``application``, answering only for ``hosts``."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST")
        if hosts.admits(host):
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [refusal(str(host)).encode()]

    return answer
