"""``taskapp exporter``: Prometheus metrics over HTTP."""

from __future__ import annotations

import logging
import signal

import click

from taskapp.cli.output import say
from taskapp.cli.target import chosen_app

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@click.command()
@click.option(
    "--port",
    default=9540,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port to listen on; 0 picks a free one.",
)
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 means all.")
def exporter(*, port: int, address: str) -> None:
    """Serve Prometheus metrics of tasks, queues and nodes at /metrics until stopped.

    Keeps running while the broker is unreachable. Does not start a broker.
    """
    app = chosen_app()
    from taskapp.logs.formatters import formatter
    from taskapp.monitor.exporter import Exporter
    from taskapp.schemes import check_schemes
    from taskapp.settings import get_settings

    settings = get_settings()
    check_schemes(settings)
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings.log_format))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # Block the signals before the threads start, which inherit the mask: this thread alone then receives
    # them, even as process 1 of a container.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    serving = Exporter(app, settings)
    try:
        port = serving.start(address, port)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {address}:{port}: {error.strerror}; choose another --port or --address"
        ) from error
    say(f"metrics at http://{address}:{port}/metrics")
    signal.sigwait(STOPPING)
    serving.stop()
