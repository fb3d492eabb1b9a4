"""Client login to the embedded server: with the current password, and only to a process of the same user.

The server has a new password at each start. It is not part of the URL, so that it appears in no process list, log or
error. Clients read it from ``server.json`` at each connect, so that they can reconnect to the next server.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from redis import CredentialProvider
from redis.connection import UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from taskapp.devredis.address import check_peer
from taskapp.devredis.home import read_record

_Mixin: Any = object


class Login(CredentialProvider):
    """Provides the password of the server of ``home``."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def get_credentials(self) -> tuple[str]:
        """Return the password, read again at each call.

        Raises:
            redis.ConnectionError: ``server.json`` is missing or unreadable.
        """
        record = read_record(self._home)
        if record is None:
            raise RedisConnectionError(f"there is no readable server.json in {str(self._home)!r}")
        return (record.password,)


class _PeerChecked(_Mixin):
    """Mixin for connections over a Unix socket: closes the connection to a process of another user before sending."""

    def _connect(self) -> socket.socket:
        connected: socket.socket = super()._connect()
        try:
            check_peer(connected)
        except OSError:
            connected.close()
            raise
        return connected


class CheckedConnection(_PeerChecked, UnixDomainSocketConnection):
    """A connection over a Unix socket, only to processes of the same user."""


def guarded(options: dict[str, Any], home: Path) -> dict[str, Any]:
    """Return redis-py's connection ``options`` with login and peer check for the server of ``home``.

    The peer check applies if ``options`` has a ``connection_class`` for Unix sockets.
    """
    kept = {name: value for name, value in options.items() if name not in ("username", "password")}
    kind = kept.get("connection_class")
    if kind is not None and issubclass(kind, UnixDomainSocketConnection):
        kept["connection_class"] = type(kind.__name__, (_PeerChecked, kind), {})
    return {**kept, "credential_provider": Login(home)}
