"""Loads Celery's configuration, and decides which processes may start the embedded Redis server."""

from __future__ import annotations

from typing import Any

import click
from celery.loaders.app import AppLoader

from taskapp import tracing
from taskapp.app.configuration import configuration
from taskapp.app.masks import seen_error
from taskapp.app.task_modules import not_imported
from taskapp.devredis import resolve_broker_url
from taskapp.errors import BrokerNotFound, ConfigurationReplaced, TaskappError
from taskapp.private_files import make_private_directory
from taskapp.sanitize import sanitize
from taskapp.schemes import check_schemes
from taskapp.settings import get_settings


class Loader(AppLoader):
    """Builds Celery's configuration from the settings when it is first needed."""

    override_backends = {  # noqa: RUF012 - Celery's attribute
        "redis": "taskapp.results.backend:RedisBackend",
        "rediss": "taskapp.results.backend:RedisBackend",
        "sentinel": "taskapp.results.backend:SentinelBackend",
        "disabled": "taskapp.results.absent:NoResults",
    }

    def read_configuration(self, env: str = "") -> dict[str, Any]:  # noqa: ARG002 - the signature is Celery's
        """Return Celery's configuration; a ``celery`` command may start the embedded server for it.

        In other processes a missing server is not an error yet: a task may be called as a function, and
        ``find_broker`` looks again when a connection is needed.
        """
        commanded = inside_celery_command()
        if commanded and _was_given("config"):
            raise click.ClickException(str(ConfigurationReplaced("--config")))
        try:
            settings = get_settings()
            check_schemes(settings)
            tracing.install(settings, seen_error)
            broker_url = resolve_broker_url(settings, may_start=commanded, announce=announce)
        except BrokerNotFound as error:
            if commanded:
                raise click.ClickException(str(error)) from error
            return configuration(settings, None)
        except TaskappError as error:
            if commanded:
                raise click.ClickException(str(error)) from error
            raise
        if commanded:
            make_private_directory(settings.data_dir)
        return configuration(settings, broker_url)

    def import_task_module(self, module: str) -> Any:
        """Import a module of task types.

        Raises:
            ModuleNotImported: It cannot be imported; names the cause and its place.
            TaskappError: The module raised one itself, such as ``SigningPackageMissing``.
        """
        try:
            return super().import_task_module(module)
        except (TaskappError, click.ClickException):
            raise
        except Exception as error:
            setting = "TASKAPP_INCLUDE" if module in get_settings().include else "imports or include"
            raise not_imported(module, setting, error) from error

    def find_broker(self) -> None:
        """Complete the configuration of a process that was set up before there was a server.

        Raises:
            BrokerNotFound: There still is none; the error lists the remedies.
        """
        settings = get_settings()
        broker_url = resolve_broker_url(settings, may_start=False, announce=announce)
        self.app.conf.update(configuration(settings, broker_url))


def inside_celery_command() -> bool:
    """Return whether this process is a ``celery`` command: only those may start the embedded server."""
    context = click.get_current_context(silent=True)
    return context is not None and context.find_root().command.name == "celery"


def _was_given(option: str) -> bool:
    """Return whether ``option`` of the ``celery`` command was given on the command line."""
    source = click.get_current_context().find_root().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def announce(line: str) -> None:
    """Print ``line`` to stderr, where the user sees it and a pipe does not."""
    click.secho(sanitize(line), fg="yellow", err=True)
