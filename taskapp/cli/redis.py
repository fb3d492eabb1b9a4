"""``taskapp redis``: the development Redis server."""

from __future__ import annotations

import sys

import click

from taskapp import devredis
from taskapp.cli.output import say
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
        raise click.UsageError("TASKAPP_BROKER_URL is set: tasks go there, not to the development server")
    devredis.resolve_broker_url(settings, may_start=True, announce=lambda _: None)
    if server := devredis.running(settings.data_dir):
        say(server.describe())


@redis.command()
def status() -> None:
    """Show the server's URL, process and version. Exits with 1 if it is not running."""
    settings = get_settings()
    server = devredis.running(settings.data_dir)
    _say_if_unused(settings, server)
    if server is None:
        say(f"the development Redis server does not answer (data dir {str(settings.data_dir)!r})", err=True)
        sys.exit(1)
    say(f"url      {server.url}")
    say(f"pid      {server.pid}")
    say(f"kind     {server.kind} ({server.origin})")
    say(f"version  {server.version}")
    say(f"data     {str(server.directory)!r}")


@redis.command()
def stop() -> None:
    """Stop the server; its data stays on disk for the next start. Does nothing if it is not running."""
    settings = get_settings()
    _say_if_unused(settings)
    if devredis.stop(settings.data_dir):
        say(f"stopped the development Redis server; its data stays in {str(settings.data_dir)!r}")
    else:
        say(f"the development Redis server is not running (data dir {str(settings.data_dir)!r})")


def _say_if_unused(settings: Settings, server: devredis.Server | None = None) -> None:
    if settings.broker_url:
        say("TASKAPP_BROKER_URL is set: tasks go there, not to the development server", err=True)
    elif settings.embedded == "tcp" and server is not None and "socket" in server.url.partition(":")[0]:
        say("TASKAPP_EMBEDDED=tcp takes effect at the next start: run `taskapp redis stop` first", err=True)
