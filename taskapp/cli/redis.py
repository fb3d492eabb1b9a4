"""``taskapp redis``: the Redis server of our own."""

from __future__ import annotations

import sys

import click

from taskapp import devredis
from taskapp.cli.output import say
from taskapp.settings import Settings, get_settings


@click.group()
def redis() -> None:
    """Start, look at and stop the Redis server that taskapp runs for development.

    It is in use while TASKAPP_BROKER_URL is empty; its data are in TASKAPP_DATA_DIR.
    """


@redis.command()
def start() -> None:
    """Start the server, unless it runs, and leave it running."""
    settings = get_settings()
    if settings.broker_url:
        raise click.UsageError("TASKAPP_BROKER_URL is set: tasks go there, not to a server of ours")
    devredis.resolve_broker_url(settings, may_start=True, announce=lambda _: None)
    if server := devredis.running(settings.data_dir):
        say(server.describe())


@redis.command()
def status() -> None:
    """Show where the server is and what it runs on. Exit code 1 when there is none."""
    settings = get_settings()
    server = devredis.running(settings.data_dir)
    _say_if_unused(settings, server)
    if server is None:
        say(f"no Redis server of ours answers (data dir {str(settings.data_dir)!r})", err=True)
        sys.exit(1)
    say(f"url      {server.url}")
    say(f"pid      {server.pid}")
    say(f"kind     {server.kind} ({server.origin})")
    say(f"version  {server.version}")
    say(f"data     {str(server.directory)!r}")


@redis.command()
def stop() -> None:
    """Stop the server, its data on disk. Stopping none is fine; the next start finds the data again."""
    settings = get_settings()
    _say_if_unused(settings)
    if devredis.stop(settings.data_dir):
        say(f"stopped the Redis server of ours; its data stay in {str(settings.data_dir)!r}")
    else:
        say(f"no Redis server of ours runs (data dir {str(settings.data_dir)!r})")


def _say_if_unused(settings: Settings, server: devredis.Server | None = None) -> None:
    if settings.broker_url:
        say("TASKAPP_BROKER_URL is set: tasks go there, not to a server of ours", err=True)
    elif settings.embedded == "tcp" and server is not None and "socket" in server.url.partition(":")[0]:
        say("TASKAPP_EMBEDDED=tcp holds from its next start on: `taskapp redis stop` first", err=True)
