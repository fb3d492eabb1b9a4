"""The allow-list of ``taskapp.http_request``: which hosts may be called. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

import idna

from taskapp.errors import InvalidSetting

DEFAULT_PORTS = {"http": 80, "https": 443}
EVERY_PORT = 0

_ENTRY = re.compile(r"(?P<star>\*\.)?(?P<host>\[[^\[\]]+\]|[^:\[\]/@*]+)(?::(?P<port>\*|[0-9]{1,5}))?")
_LABEL = r"(?!-)[a-z0-9_-]{1,63}"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label for which resolvers read the whole name as an IPv4 address."""


@dataclass(frozen=True)
class AllowedHost:
    """One entry of ``TASKAPP_HTTP_ALLOWED_HOSTS``.

    ``example.com`` allows that host on the scheme's standard port, ``example.com:8080`` on that
    port, ``example.com:*`` on every port; ``*.example.com`` allows every subdomain of ``example.com``
    but not ``example.com`` itself. IPv6 addresses are in brackets: ``[::1]:8080``.
    """

    host: str
    """Canonical; for a wildcard, the part after the star: ``.example.com``."""
    port: int | None
    """``None``: the scheme's standard port; ``EVERY_PORT``: any."""

    @classmethod
    def parse(cls, entry: str) -> AllowedHost:
        """Parse one entry.

        Raises:
            InvalidSetting: It is not a host, or its star does not replace the first labels of a name.
        """
        matched = _ENTRY.fullmatch(entry)
        host = canonical_host(matched["host"]) if matched else None
        if matched is None or host is None or (matched["star"] and _is_address(host)):
            problem = "it is not a host; write 'api.example.com', '*.example.com', '127.0.0.1:8080' or '[::1]:8080'"
            raise InvalidSetting("TASKAPP_HTTP_ALLOWED_HOSTS", entry, problem)
        return cls(f".{host}" if matched["star"] else host, _port(matched["port"], entry))

    def matches(self, scheme: str, host: str, port: int) -> bool:
        """Return whether this entry allows the canonical ``host`` on ``port``."""
        wanted_port = DEFAULT_PORTS.get(scheme) if self.port is None else self.port
        same_host = host.endswith(self.host) if self.host.startswith(".") else host == self.host
        return same_host and wanted_port in (EVERY_PORT, port)


def _port(text: str | None, entry: str) -> int | None:
    if text is None:
        return None
    if text == "*":
        return EVERY_PORT
    if not 1 <= int(text) <= 65_535:
        raise InvalidSetting("TASKAPP_HTTP_ALLOWED_HOSTS", entry, "a port must be a number from 1 to 65535")
    return int(text)


def canonical_host(host: str) -> str | None:
    """Return ``host`` in canonical form, in which hosts are compared; ``None`` if it is not a host.

    Lower case, punycode, no trailing dot, IPv6 in its shortest form without brackets. Numbers that a
    resolver would read as an address (``2130706433``, ``0x7f.1``) are not hosts.
    """
    if address := _address(host):
        return address
    name = host.lower().removesuffix(".")
    try:
        name = name if name.isascii() else idna.encode(name).decode("ascii")
    except idna.IDNAError:
        return None
    if len(name) > 253 or not _NAME.fullmatch(name) or _NUMBER.fullmatch(name.rpartition(".")[2]):
        return None
    return name


def _address(host: str) -> str | None:
    # A zone ("fe80::1%eth0") names a network interface of one machine; it does not belong in a list of hosts.
    if "%" in host:
        return None
    try:
        return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        return None


def _is_address(canonical: str) -> bool:
    return _address(canonical) is not None
