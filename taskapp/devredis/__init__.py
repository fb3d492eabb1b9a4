"""The embedded Redis server for development, the demo and tests, and the choice of the broker.

``resolve_broker_url`` chooses the broker: the setting, else a running embedded server, else a new one started from
a ``valkey-server`` or ``redis-server`` on PATH or in a wheel, else an error that lists the options. The server outlives
the process that started it, listens on a Unix socket that only its user can reach (with ``TASKAPP_EMBEDDED=tcp``, on a
loopback port) and keeps its data in ``<data_dir>/redis``:

- ``server.json``: address and identity of the last server. Kept after a stop, so that the next server takes the same
  address and clients reconnect with its new password. Never trusted without verification.
- ``server.conf``: its configuration; ``server.log``: its log; ``lock``: locked while a server is started or stopped.

Functions take the setting ``data_dir`` and derive that directory from it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from taskapp.devredis.home import home_of
from taskapp.devredis.programs import ways_out
from taskapp.devredis.server import Server, connections, ensure, running, stop
from taskapp.errors import BrokerNotFound

if TYPE_CHECKING:
    from taskapp.settings import Settings

__all__ = ["Server", "connections", "ensure", "own_server", "resolve_broker_url", "running", "stop"]


def own_server(settings: Settings) -> Path | None:
    """Return the directory of the embedded server if that is the broker, else None; see ``taskapp.devredis.login``."""
    return None if settings.broker_url else home_of(settings.data_dir)


def resolve_broker_url(settings: Settings, *, may_start: bool, announce: Callable[[str], None]) -> str:
    """Return the URL of the broker to use; start the embedded server if necessary.

    Args:
        settings: Uses ``broker_url``, ``data_dir`` and ``embedded``.
        may_start: False in processes that only submit: they use a running server but do not leave one behind.
        announce: Called with one line if a server was started.

    Raises:
        BrokerNotFound: No broker is configured, and the embedded server must not or cannot be started.
        EmbeddedServerFailed: The embedded server did not come up, or is not compatible with its data.
    """
    if settings.broker_url:
        return settings.broker_url.get_secret_value()
    if server := running(settings.data_dir):
        return server.url
    if settings.embedded == "never":
        raise BrokerNotFound(
            "no broker is configured, and TASKAPP_EMBEDDED=never forbids starting the embedded Redis server; "
            "set TASKAPP_BROKER_URL, for example to redis://redis:6379/0"
        )
    if not may_start:
        raise BrokerNotFound(f"{ways_out()}\n  or run `taskapp up`, which starts one")
    server = ensure(settings.data_dir, over="tcp" if settings.embedded == "tcp" else "socket")
    if server.started_here:
        announce(server.describe())
    return server.url
