"""A Redis server of our own for development, the demo and tests, and where the broker is.

``resolve_broker_url`` makes the whole decision: the setting, else a server of ours that runs,
else one started from a ``valkey-server`` or ``redis-server`` on PATH, else from a wheel, else an
error that lists the ways out. The server outlives whoever started it, listens on a Unix socket that
only its user can reach (``TASKAPP_EMBEDDED=tcp``: on a port of loopback) and keeps its data in ``<data_dir>/redis``:

- ``server.json`` where and as whom the last server ran; kept after a stop, so that the next one
  takes the same address and clients reconnect, with its new password. Never believed, always verified.
- ``server.conf`` what it was started with, ``server.log`` what it said, ``lock`` held while one
  is started or stopped.

Every function takes ``data_dir``, the setting, and finds that folder itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from taskapp.devredis.home import home_of
from taskapp.devredis.programs import ways_out
from taskapp.devredis.server import Server, ensure, running, stop
from taskapp.errors import BrokerNotFound

if TYPE_CHECKING:
    from taskapp.settings import Settings

__all__ = ["Server", "ensure", "own_server", "resolve_broker_url", "running", "stop"]


def own_server(settings: Settings) -> Path | None:
    """Return the directory of the server of ours if that is the broker, else None; see ``taskapp.devredis.login``."""
    return None if settings.broker_url else home_of(settings.data_dir)


def resolve_broker_url(settings: Settings, *, may_start: bool, announce: Callable[[str], None]) -> str:
    """Return the URL of the broker to use; start a server of our own if that is what it takes.

    Args:
        settings: ``broker_url``, ``data_dir`` and ``embedded`` decide.
        may_start: False in processes that only submit: they use a server, they do not leave one behind.
        announce: Called with one line if, and only if, a server was started.

    Raises:
        BrokerNotFound: There is none, and none may or can be started.
        EmbeddedServerFailed: One was started and did not come up, or does not fit its data.
    """
    if settings.broker_url:
        return settings.broker_url.get_secret_value()
    if server := running(settings.data_dir):
        return server.url
    if settings.embedded == "never":
        raise BrokerNotFound(
            "no broker is configured and TASKAPP_EMBEDDED=never forbids to start a Redis server of our own; "
            "set TASKAPP_BROKER_URL, such as redis://redis:6379/0"
        )
    if not may_start:
        raise BrokerNotFound(f"{ways_out()}\n  or run `taskapp up`, which starts one")
    server = ensure(settings.data_dir, over="tcp" if settings.embedded == "tcp" else "socket")
    if server.started_here:
        announce(server.describe())
    return server.url
