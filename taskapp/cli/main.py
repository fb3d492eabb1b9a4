"""The ``taskapp`` command: finds its subcommands by name and imports only the one that runs."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click
from click.exceptions import Exit

from taskapp.cli.output import say_lines
from taskapp.errors import TaskappError, did_you_mean
from taskapp.errors.apps import ModuleNotImported
from taskapp.sanitize import sanitize_lines
from taskapp.version import __version__

COMMANDS = {
    "demo": ("taskapp.cli.demo:demo", "Run the main job on real flights, to a report and an e-mail"),
    "up": ("taskapp.cli.up:up", "Run everything for development, until Ctrl-C"),
    "top": ("taskapp.cli.top:top", "Show queues, nodes, rates and failing task types, live"),
    "exporter": ("taskapp.cli.exporter:exporter", "Serve Prometheus metrics, until stopped"),
    "task": ("taskapp.cli.task:task", "Show the state and the log lines of one task, by its id"),
    "dead": ("taskapp.cli.dead:dead", "List, show, replay and purge dead letters"),
    "delayed": ("taskapp.cli.delayed:delayed", "List, cancel and reschedule delayed tasks"),
    "limits": ("taskapp.cli.limits:limits", "Show and change limits of queues and of tasks while nodes run"),
    "circuits": ("taskapp.cli.circuits:circuits", "Show and close circuit breakers of task types"),
    "schedules": ("taskapp.cli.schedules.group:schedules", "Show and change timed jobs while beats run"),
    "outbox": ("taskapp.cli.outbox:outbox", "Queue tasks that transactions of your database have left behind"),
    "history": ("taskapp.cli.history:history", "Search finished tasks in SQL, and write them there"),
    "redis": ("taskapp.cli.redis:redis", "Start, inspect and stop the embedded Redis server"),
    "doctor": ("taskapp.cli.doctor:doctor", "Check the server, queues and nodes; report what to fix"),
    "health": ("taskapp.cli.health:health", "Answer probes of containers: live or ready"),
}
"""Every command: its import path, and its line in ``taskapp --help``, which imports none of them."""

CELERY_COMMANDS = frozenset(
    {
        "amqp", "beat", "call", "control", "events", "flower", "graph", "inspect", "list", "logtool", "migrate",
        "multi", "purge", "report", "result", "shell", "status", "upgrade", "worker",
    }
)  # fmt: skip
"""Commands of ``celery -A taskapp``."""

UNTIL_STOPPED = ("up", "top", "exporter")
"""Commands that run until stopped; stopping them is a success, even while they start."""

RUN = "taskapp.command"
"""Key in Click's context for the name of the running command."""

WITHOUT_APP = ("demo",)
"""Commands that always use the app that ships."""

WITHOUT_SERVER = ("demo", "up", "redis", "health")
"""Commands that only start other processes, or contact no server of the deployment."""


def read_own_configuration() -> None:
    """Import the user's modules if the app needs them to reach its server.

    Celery has no settings for Sentinel's own options, such as a password; such modules set them in ``app.conf``.
    """
    from taskapp.settings import get_settings

    try:
        settings = get_settings()
        urls = [url.get_secret_value() for url in (settings.broker_url, settings.result_url) if url is not None]
        if any(url.startswith("sentinel") for url in urls):
            from taskapp.celery import app

            for module in settings.include:
                app.loader.import_task_module(module)
    except ModuleNotImported as error:  # the command may work without it
        say_lines(f"Warning: {error}", err=True)


def use_app(name: str, command: str | None) -> None:
    """Make the app ``name`` the one that ``command`` works on.

    Raises:
        click.ClickException: It cannot be imported, or ``command`` has nothing to do with an app.
    """
    from taskapp.cli.target import choose, chosen_app

    if command in WITHOUT_APP:
        raise click.UsageError(f"`taskapp {command}` works without an app; leave out -A")
    choose(name)
    chosen_app()


class LazyGroup(click.Group):
    """A group that imports each command only when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is Click's
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        """List the commands; each one's own text would take longer to import than all else."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; sanitize its error, which may quote messages and servers."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            if isinstance(error, click.NoSuchOption) and error.option_name in {"-A", "--app"}:
                place = "Give it before the command: taskapp -A proj …"
                raise click.UsageError(f"No such option {error.option_name!r}. {place}", error.ctx) from None
            error.message = sanitize_lines(error.message)  # type: ignore[misc]  # to keep its class and exit code
            raise
        except KeyboardInterrupt:
            if ctx.meta.get(RUN) not in UNTIL_STOPPED:
                raise
            raise Exit(0) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the requested command, and read the user's configuration if the command needs it."""
        name, command, rest = super().resolve_command(ctx, args)
        ctx.meta[RUN] = name
        if given := ctx.params.get("app"):
            use_app(given, name)
        elif name not in WITHOUT_SERVER:
            read_own_configuration()
        return name, command, rest

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command; fail with a suggestion if it does not exist."""
        if cmd_name not in COMMANDS:
            app = ctx.params.get("app") or "taskapp"
            if cmd_name in CELERY_COMMANDS and app != "taskapp":
                use_app(app, None)  # Celery's own command would show a traceback for what is no app
            hint = f"; run: celery -A {app} {cmd_name}" if cmd_name in CELERY_COMMANDS else ""
            ctx.fail(f"no command {cmd_name!r}{hint or did_you_mean(cmd_name, COMMANDS)}")
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-A", "--app", metavar="APP", envvar="APP", help="Your own app, as for `celery -A`. Default: taskapp's.")
@click.version_option(__version__)
def taskapp(app: str | None) -> None:
    """A distributed task scheduler for Python teams, built on Celery.

    Nodes run `celery -A taskapp worker`, timed jobs `celery -A taskapp beat`, the dashboard
    `celery -A taskapp flower`; with an app of your own, `celery -A proj worker` and so on.
    """


def main() -> None:
    """Run the command line; for our own errors, print ``Error: …`` on stderr and exit with 1."""
    try:
        taskapp()
    except TaskappError as error:
        say_lines(f"Error: {error}", err=True)
        sys.exit(1)
