"""How clients log in at the server of ours: with the password of its present run, to a process of their own user.

Each start of the server has a new password. It is in no URL, so that it is in no list of processes, log
or error, and so that clients reconnect to the next server: they read it from ``server.json`` at each connect.
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
    """The password of the server of ``home``."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def get_credentials(self) -> tuple[str]:
        """Return the password, read anew.

        Raises:
            redis.ConnectionError: No server has been started there.
        """
        record = read_record(self._home)
        if record is None:
            raise RedisConnectionError(f"there is no readable server.json in {str(self._home)!r}")
        return (record.password,)


class _PeerChecked(_Mixin):
    """Mixed into a connection over a Unix socket: says nothing to a process of another user."""

    def _connect(self) -> socket.socket:
        connected: socket.socket = super()._connect()
        try:
            check_peer(connected)
        except OSError:
            connected.close()
            raise
        return connected


class CheckedConnection(_PeerChecked, UnixDomainSocketConnection):
    """A connection over a Unix socket to a process of our own user."""


def guarded(options: dict[str, Any], home: Path) -> dict[str, Any]:
    """Return ``options`` of connections, as redis-py has them, for the server of ``home``: its login, its peer checked.

    ``connection_class`` among them is the class of the connection.
    """
    kept = {name: value for name, value in options.items() if name not in ("username", "password")}
    kind = kept.get("connection_class")
    if kind is not None and issubclass(kind, UnixDomainSocketConnection):
        kept["connection_class"] = type(kind.__name__, (_PeerChecked, kind), {})
    return {**kept, "credential_provider": Login(home)}
