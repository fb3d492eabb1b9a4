"""``taskapp redis``: the Redis server of our own."""

from __future__ import annotations

import sys

import click

from taskapp import devredis
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
        click.echo(server.describe())


@redis.command()
def status() -> None:
    """Show where the server is and what it runs on. Exit code 1 when there is none."""
    settings = get_settings()
    server = devredis.running(settings.data_dir)
    _say_if_unused(settings, server)
    if server is None:
        click.echo(f"no Redis server of ours answers (data dir {str(settings.data_dir)!r})", err=True)
        sys.exit(1)
    click.echo(f"url      {server.url}")
    click.echo(f"pid      {server.pid}")
    click.echo(f"kind     {server.kind} ({server.origin})")
    click.echo(f"version  {server.version}")
    click.echo(f"data     {str(server.directory)!r}")


@redis.command()
def stop() -> None:
    """Stop the server, its data on disk. Stopping none is fine; the next start finds the data again."""
    settings = get_settings()
    _say_if_unused(settings)
    if devredis.stop(settings.data_dir):
        click.echo(f"stopped the Redis server of ours; its data stay in {str(settings.data_dir)!r}")
    else:
        click.echo(f"no Redis server of ours runs (data dir {str(settings.data_dir)!r})")


def _say_if_unused(settings: Settings, server: devredis.Server | None = None) -> None:
    if settings.broker_url:
        click.echo("TASKAPP_BROKER_URL is set: tasks go there, not to a server of ours", err=True)
    elif settings.embedded == "tcp" and server is not None and "socket" in server.url.partition(":")[0]:
        click.echo("TASKAPP_EMBEDDED=tcp holds from its next start on: `taskapp redis stop` first", err=True)
