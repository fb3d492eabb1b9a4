"""``taskapp``: finds its commands by name and imports only the one that is run."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click
from click.exceptions import Exit

from taskapp import __version__
from taskapp.cli.output import say_lines
from taskapp.errors import ModuleNotImported, TaskappError, did_you_mean
from taskapp.sanitize import sanitize_lines

COMMANDS = {
    "demo": "taskapp.cli.demo:demo",
    "up": "taskapp.cli.up:up",
    "top": "taskapp.cli.top:top",
    "exporter": "taskapp.cli.exporter:exporter",
    "task": "taskapp.cli.task:task",
    "dead": "taskapp.cli.dead:dead",
    "delayed": "taskapp.cli.delayed:delayed",
    "schedules": "taskapp.cli.schedules.group:schedules",
    "history": "taskapp.cli.history:history",
    "redis": "taskapp.cli.redis:redis",
    "doctor": "taskapp.cli.doctor:doctor",
    "health": "taskapp.cli.health:health",
}
"""Every command and where it is."""

CELERY_COMMANDS = frozenset(
    {
        "amqp", "beat", "call", "control", "events", "flower", "graph", "inspect", "list", "logtool", "migrate",
        "multi", "purge", "report", "result", "shell", "status", "upgrade", "worker",
    }
)  # fmt: skip
"""Those of ``celery -A taskapp``."""

UNTIL_STOPPED = ("up", "top", "exporter")
"""Those that run until they are told to stop, which is a success also while they start."""

RUN = "taskapp.command"
"""Where Click's context has the name of the command that runs."""

WITHOUT_SERVER = ("demo", "up", "redis", "health")
"""Those that only start other processes, or ask no server of the deployment."""


def read_own_configuration() -> None:
    """Import the user's modules where the app needs them to reach its server.

    Celery has no setting for what Sentinels want of their own, such as a password: such modules put it
    into ``app.conf``.
    """
    from taskapp.settings import get_settings

    try:
        settings = get_settings()
        urls = [url.get_secret_value() for url in (settings.broker_url, settings.result_url) if url is not None]
        if any(url.startswith("sentinel") for url in urls):
            from taskapp.celery import app

            for module in settings.include:
                app.loader.import_task_module(module)
    except ModuleNotImported as error:  # the command may do without
        say_lines(f"Warning: {error}", err=True)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is Click's
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; its error, which quotes messages and servers, is sanitized."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.message = sanitize_lines(error.message)  # type: ignore[misc]  # to keep its class and exit code
            raise
        except KeyboardInterrupt:
            if ctx.meta.get(RUN) not in UNTIL_STOPPED:
                raise
            raise Exit(0) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed, and read the user's own configuration if it needs that."""
        name, command, rest = super().resolve_command(ctx, args)
        ctx.meta[RUN] = name
        if name not in WITHOUT_SERVER:
            read_own_configuration()
        return name, command, rest

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, or say which one was probably meant."""
        if cmd_name not in COMMANDS:
            hint = f"; run: celery -A taskapp {cmd_name}" if cmd_name in CELERY_COMMANDS else ""
            ctx.fail(f"no command {cmd_name!r}{hint or did_you_mean(cmd_name, COMMANDS)}")
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def taskapp() -> None:
    """A distributed task scheduler for Python teams, built on Celery.

    Nodes run `celery -A taskapp worker`, timed jobs `celery -A taskapp beat`, the dashboard
    `celery -A taskapp flower`.
    """


def main() -> None:
    """Run the command line; ``Error: …`` on stderr and exit code 1 for an error of ours."""
    try:
        taskapp()
    except TaskappError as error:
        say_lines(f"Error: {error}", err=True)
        sys.exit(1)
