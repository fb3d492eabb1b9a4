"""``taskapp redis``: the embedded Redis server."""

from __future__ import annotations

import sys

import click
from redis.exceptions import RedisError

from taskapp import devredis
from taskapp.cli.output import say, say_json
from taskapp.engine.snapshot import read_snapshot
from taskapp.redis.link import Link
from taskapp.settings import Settings, get_settings


@click.group()
def redis() -> None:
    """Start, inspect and stop the Redis server that taskapp runs for development.

    It is used while TASKAPP_BROKER_URL is empty; its data is in TASKAPP_DATA_DIR.
    """


@redis.command()
def start() -> None:
    """Start the server unless it is running, and leave it running."""
    settings = get_settings()
    if settings.broker_url:
        raise click.UsageError("TASKAPP_BROKER_URL is set: tasks go there, not to the embedded server")
    devredis.resolve_broker_url(settings, may_start=True, announce=lambda _: None)
    if server := devredis.running(settings.data_dir):
        say(server.describe())


@redis.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(*, as_json: bool) -> None:
    """Show the server's URL, process and version. Exits with 1 if it is not running."""
    settings = get_settings()
    server = devredis.running(settings.data_dir)
    _say_if_unused(settings, server)
    if server is None:
        raise click.ClickException(f"the embedded Redis server does not answer (data dir {str(settings.data_dir)!r})")
    if as_json:
        say_json(
            {
                "url": server.url, "pid": server.pid, "kind": server.kind, "origin": server.origin,
                "version": server.version, "data": str(server.directory),
            }
        )  # fmt: skip
        return
    say(f"url      {server.url}")
    say(f"pid      {server.pid}")
    say(f"kind     {server.kind} ({server.origin})")
    say(f"version  {server.version}")
    say(f"data     {str(server.directory)!r}")


@redis.command()
@click.option("--yes", is_flag=True, help="Stop it even if it is in use, without asking.")
def stop(*, yes: bool) -> None:
    """Stop the server; its data stays on disk for the next start. Does nothing if it is not running.

    Asks first if nodes or other clients use it; without a terminal, refuses while nodes are alive.
    """
    settings = get_settings()
    _say_if_unused(settings)
    if not yes:
        _confirm_if_in_use(settings)
    if devredis.stop(settings.data_dir):
        say(f"stopped the embedded Redis server; its data stays in {str(settings.data_dir)!r}")
    else:
        say(f"the embedded Redis server is not running (data dir {str(settings.data_dir)!r})")


def _confirm_if_in_use(settings: Settings) -> None:
    """Let the user decide whether to stop a server that is in use.

    Raises:
        click.Abort: The user declined.
        click.ClickException: Nodes are alive, and there is no terminal to ask on.
    """
    nodes, connected = _users(settings)
    if not (nodes or connected):
        return
    named = f"{'node' if len(nodes) == 1 else 'nodes'} {', '.join(nodes)}; " if nodes else ""
    connections = f"{connected} {'connection' if connected == 1 else 'connections'}"
    in_use = f"the embedded Redis server is in use: {named}{connections}"
    if sys.stdin.isatty():
        say(in_use, err=True)
        click.confirm("stop it?", abort=True, err=True)
    elif nodes:
        raise click.ClickException(f"{in_use}; stop the nodes first, or use --yes")
    else:
        say(in_use, err=True)


def _users(settings: Settings) -> tuple[list[str], int]:
    """Return the names of nodes with a lease, and the number of connections; nothing if the server does not answer."""
    connect = devredis.connections(settings.data_dir)
    if connect is None:
        return [], 0
    link = Link(connect)
    try:
        listed = link.command("CLIENT", "LIST")
        nodes = read_snapshot(link, settings.key_prefix, settings.queues).nodes
    except RedisError:
        return [], 0
    finally:
        link.close()
    living = sorted({node.name or node.epoch[:8] for node in nodes if node.state != "lost"})
    return living, len(listed.splitlines()) - 1


def _say_if_unused(settings: Settings, server: devredis.Server | None = None) -> None:
    if settings.broker_url:
        say("TASKAPP_BROKER_URL is set: tasks go there, not to the embedded server", err=True)
    elif settings.embedded == "tcp" and server is not None and "socket" in server.url.partition(":")[0]:
        say("TASKAPP_EMBEDDED=tcp takes effect at the next start: run `taskapp redis stop` first", err=True)
