"""Fills in what a project's Celery configuration leaves open: from the settings, and with safe defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import click

from taskapp import tracing
from taskapp.app.configuration import configuration
from taskapp.app.masks import seen_error
from taskapp.devredis import resolve_broker_url
from taskapp.errors import BrokerNotFound, InvalidSetting, TaskappError
from taskapp.errors.django import NoDjangoStore
from taskapp.private_files import make_private_directory
from taskapp.sanitize import sanitize
from taskapp.schemes import check_schemes
from taskapp.settings import PREFIX, Given, Settings, settings_with
from taskapp.transport.transport import is_over_redis
from taskapp.urls import SCHEME

OF_BROKER = "broker_transport_options"
MERGED = (OF_BROKER, "result_backend_transport_options")
"""Celery's settings that are read key by key, so that a project's own dict leaves ours in place."""

FIXED = ("priority_steps", "sep")
"""Options that are the engine's alone."""

URLS = ("broker_url", "broker_read_url", "broker_write_url", "result_backend")


class Filled:
    """The settings of one app, and the values that taskapp fills in."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.given: dict[str, Given] = {}
        """Values that the project's configuration gives settings, by field."""
        self.broker_url: str | None = None
        """The broker that the values are for."""
        self._values: dict[str, Any] = {}
        self._used: dict[str, Any] = {}
        """Those of ``_values`` that the project has not set; Celery's configuration refers to it."""
        self.given_options: tuple[str, ...] = ()
        """Keys of ``broker_transport_options`` that the project has set."""

    def fill(self, app: Any) -> dict[str, Any]:
        """Return values for what the project has not set in ``app.conf``. A ``celery`` command may start the server.

        In other processes a missing server is not an error yet: a task may be called as a function, and
        ``find_broker`` looks again when a connection is needed.

        Raises:
            TaskappError: A setting is unknown or invalid; inside a ``celery`` command, a ``ClickException``.
        """
        commanded = inside_celery_command()
        try:
            self.settings = None
            _read_urls(app.conf)
            self.given = given = given_by(app.conf)
            settings = settings_with(given)
            _check_django_store(app.conf)
            check_schemes(settings, {field: one.name for field, one in given.items()})
            tracing.install(settings, seen_error)
            try:
                broker_url = resolve_broker_url(settings, may_start=commanded, announce=announce)
            except BrokerNotFound:
                if commanded:
                    raise
                broker_url = None
            self._values = configuration(settings, broker_url, ships_task_types=app.ships_task_types)
        except TaskappError as error:
            if commanded:
                raise click.ClickException(str(error)) from error
            raise
        if commanded:
            make_private_directory(settings.data_dir)
        self.settings = settings
        self.broker_url = broker_url
        self._used = {name: value for name, value in self._values.items() if not _is_set(app.conf, name)}
        self._follow_project(app.conf)
        self._order_queues(app.conf)
        self.given_options = () if OF_BROKER in self._used else tuple(app.conf.get(OF_BROKER) or ())
        for name in MERGED:
            if name not in self._used:
                app.conf[name] = self.merged(name, app.conf)
        return self._used

    def _follow_project(self, conf: Any) -> None:
        """Fill in what the project leaves open as its other settings suggest."""
        if conf.value_set_for("accept_content") and "result_accept_content" in self._used:
            self._used["result_accept_content"] = [*conf.accept_content, "json"]
        if conf.value_set_for("enable_utc"):
            self._used.pop("timezone", None)  # without UTC, Celery takes the local one
        result_url = self._used.get("result_backend") or conf.result_backend
        if conf.value_set_for("task_serializer") and not is_over_redis(_as_url(result_url)):
            # Other stores encode the arguments of a task with the result, which its format may not represent.
            self._used.pop("result_extended", None)

    def find_broker(self, app: Any) -> None:
        """Complete the configuration of a process that was set up before there was a server.

        Raises:
            BrokerNotFound: There still is none; the error lists the remedies.
        """
        _ = app.settings  # so that the configuration is loaded
        self.settings = settings = settings_with(self.given)
        broker_url = resolve_broker_url(settings, may_start=False, announce=announce)
        self._values = configuration(settings, broker_url, ships_task_types=app.ships_task_types)
        self.broker_url = broker_url
        self._order_queues(app.conf)
        # Set as changes, which tells those who remember the configuration. Periodic tasks may have been added since.
        kept = self._used.keys() - {"beat_schedule"}
        app.conf.update({name: value for name, value in self._values.items() if name in kept})

    def merged(self, name: str, conf: Any) -> dict[str, Any]:
        """Return one of ``MERGED``: our options, and over them the project's."""
        ours = self._values.get(name) or {}
        fixed = {option: ours[option] for option in FIXED if option in ours}
        return {**ours, **(conf.get(name) or {}), **fixed}

    def fills(self, name: str) -> bool:
        """Return whether the value of a setting is taskapp's."""
        return name in self._used

    def _order_queues(self, conf: Any) -> None:
        """Serve the queues that the project declares in the order in which it does."""
        options = self._values.get(OF_BROKER, {})
        if "task_queues" not in self._used and "queue_order" in options:
            declared = conf.task_queues or ()
            options["queue_order"] = tuple(getattr(queue, "name", queue) for queue in declared)


def given_by(conf: Any) -> dict[str, Given]:
    """Return the values that ``conf`` gives settings of taskapp: ``taskapp_…`` keys, broker and result backend.

    Args:
        conf: An app's configuration, in which only Celery's own defaults are filled in.
    """
    given = dict(_own_keys(conf))
    # ``conf.broker_url`` also reads ``CELERY_BROKER_URL``, the result backend ``CELERY_RESULT_BACKEND``.
    if broker_url := _as_url(conf.broker_url or conf.broker_write_url):
        given["broker_url"] = Given(_spelling(conf, "broker_url"), broker_url)
    result_url = _as_url(conf.result_backend)
    if "://" in result_url:
        given["result_url"] = Given(_spelling(conf, "result_backend"), result_url)
    return given


def _own_keys(conf: Any) -> Iterator[tuple[str, Given]]:
    namespace = (conf.prefix or "").lower()
    for mapping in reversed(conf.maps[:-1]):  # what comes first in ``conf`` wins
        for key in mapping:
            name = str(key).lower().removeprefix(namespace)
            if name.startswith(PREFIX.lower()):
                yield name.removeprefix(PREFIX.lower()), Given(str(key), mapping[key])


def _is_set(conf: Any, name: str) -> bool:
    # In a Django project, Celery takes ``TIME_ZONE``.
    return bool(conf.value_set_for(name)) or (name == "timezone" and conf.timezone is not None)


DJANGO_STORES = ("django-db", "django-cache")


def _check_django_store(conf: Any) -> None:
    """Refuse a store of ``django-celery-results`` where that cannot be imported: Celery names a missing module."""
    if (name := conf.result_backend) not in DJANGO_STORES:
        return
    setting, package = _spelling(conf, "result_backend"), "django_celery_results"
    if find_spec(package) is None:
        raise NoDjangoStore(setting, name, "that is not installed", "pip install django-celery-results")
    from django.conf import settings

    if not any(app.partition(".")[0] == package for app in settings.INSTALLED_APPS):
        raise NoDjangoStore(setting, name, "INSTALLED_APPS lacks it", f"add {package!r} to INSTALLED_APPS")


def _read_urls(conf: Any) -> None:
    """Turn URLs that are lists, or objects such as those of pydantic, into text, which is what all others expect.

    Raises:
        InvalidSetting: A value is neither, nor makes a result backend.
    """
    for name in URLS:
        value = conf.get(name)
        if value is None or isinstance(value, str):
            continue
        if text := _as_url(value):
            conf[name] = text
        elif name != "result_backend" or not callable(value):
            problem = f"it is of the type {type(value).__name__}; use a URL as text, such as redis://localhost:6379/0"
            raise InvalidSetting(_spelling(conf, name), "***", problem)


def _as_url(value: Any) -> str:
    """Return a URL, or a list of URLs, as text; empty for anything else, such as a class."""
    if isinstance(value, list | tuple):
        return ";".join(filter(None, map(_as_url, value)))
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    text = str(value)
    return text if isinstance(value, str) or re.match(f"{SCHEME}://", text) else ""


def _spelling(conf: Any, name: str) -> str:
    prefix = conf.prefix or ""
    return f"{prefix}{name}".upper() if prefix.isupper() else f"{prefix}{name}"


def inside_celery_command() -> bool:
    """Return whether this process is a ``celery`` command: only those may start the embedded server."""
    context = click.get_current_context(silent=True)
    return context is not None and context.find_root().command.name == "celery"


def announce(line: str) -> None:
    """Print ``line`` to stderr, where the user sees it and a pipe does not."""
    click.secho(sanitize(line), fg="yellow", err=True)
