"""``taskapp exporter``: Prometheus metrics over HTTP."""

from __future__ import annotations

import signal

import click

from taskapp.processes import stop_on_signals


@click.command()
@click.option(
    "--port",
    default=9540,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
def exporter(*, port: int, address: str) -> None:
    """Serve Prometheus metrics of tasks, queues and nodes at /metrics until stopped.

    Goes on while the broker is away. Starts no server of its own.
    """
    from taskapp.celery import app
    from taskapp.monitor.exporter import Exporter
    from taskapp.settings import get_settings

    stop_on_signals()
    serving = Exporter(app, get_settings())
    try:
        port = serving.start(address, port)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {address}:{port}: {error.strerror}; choose another --port"
        ) from error
    click.echo(f"metrics at http://{address}:{port}/metrics")
    try:
        signal.pause()
    except KeyboardInterrupt:
        serving.stop()
