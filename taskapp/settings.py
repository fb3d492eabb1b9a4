"""Read ``TASKAPP_*`` variables and ``.env`` into one validated, frozen ``Settings``.

Precedence: the process environment, then the ``.env`` file, then the defaults here. An unknown
name or an invalid value raises an error that names the setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

from taskapp.env_file import ENV_FILE_VARIABLE, find_env_file
from taskapp.errors import InvalidSetting, TaskappError, UnknownSetting
from taskapp.queues import DEFAULT_QUEUE, DEFAULT_QUEUES
from taskapp.setting_values import setting, value_of
from taskapp.urls import SecretText, SecretUrl, are_several_redis, check_url, revealed

PREFIX = "TASKAPP_"
_KUBERNETES_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)$")
"""Matches variables that Kubernetes injects for a service named ``taskapp-…``; they are not settings."""

CommaSeparated = tuple[str, ...]


def _default_data_dir() -> Path:
    from platformdirs import user_data_path  # not needed where the setting is given

    return user_data_path("taskapp", appauthor=False).expanduser().resolve()


def _check_broker(value: SecretUrl) -> None:
    check_url(value.get_secret_value())


def _check_results(value: SecretUrl) -> None:
    check_url(value.get_secret_value())
    if value.get_secret_value().startswith("rpc:"):
        raise ValueError("rpc:// sends results to one client and stores none; use a Redis or database URL")


def _check_database(value: SecretUrl) -> None:
    if "://" not in value.get_secret_value():
        raise ValueError("use an SQLAlchemy URL, such as postgresql://user:password@host/taskapp")


def _check_queues(value: CommaSeparated) -> None:
    if DEFAULT_QUEUE not in value:
        raise ValueError(f"it must include {DEFAULT_QUEUE!r}, the queue of tasks without a route")
    if len(set(value)) != len(value):
        raise ValueError("it names a queue twice")


def _check_routes(value: CommaSeparated) -> None:
    for route in value:
        if not re.fullmatch(r"[^=]+=[^=]+", route):
            raise ValueError(f"{route!r} does not have the form task=queue")


def _check_queue_limits(value: CommaSeparated) -> None:
    for limit in value:
        if not re.fullmatch(r"[^=]+=\s*[1-9]\d{0,14}", limit):
            raise ValueError(f"{limit!r} does not have the form queue=number, with a number above 0")


def _check_hosts(value: CommaSeparated) -> None:
    for name in value:
        if not re.fullmatch(r"\*|(\*\.)?[\w.-]+", name):
            raise ValueError(f"{name!r} is not a host name; write it without scheme, port and path")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Configuration of a deployment: ``app.settings`` of an app, ``get_settings()`` of a program without one."""

    broker_url: SecretUrl | None = setting(None, check=_check_broker)
    """URL of the broker: ``redis://``, ``rediss://``, ``amqp://`` … Empty: the embedded Redis server."""
    result_url: SecretUrl | None = setting(None, check=_check_results)
    """URL of the result backend. Empty: the broker, if it is Redis."""
    embedded: Literal["auto", "tcp", "never"] = "auto"
    """Whether to start the embedded Redis server when ``broker_url`` is empty: ``auto`` starts it on a Unix socket
    that only you can reach, ``tcp`` on a loopback port; ``never`` starts none. Container images set ``never``."""
    data_dir: Path = setting(factory=_default_data_dir)
    """Directory for the data of the embedded Redis server and, by default, for the files of tasks. One per user."""
    key_prefix: str = ""
    """Prefix of every key in Redis, so that two environments can share one server."""
    include: CommaSeparated = ()
    """Comma-separated modules with your tasks; every node imports them: ``shop.tasks,billing.tasks``."""
    queues: CommaSeparated = setting(DEFAULT_QUEUES, check=_check_queues)
    """Comma-separated queues, served in this order. Must include ``default``."""
    routes: CommaSeparated = setting((), check=_check_routes)
    """Queues for your task types, by name or pattern: ``shop.pay=critical,shop.*=low``."""
    result_expires_seconds: int = setting(86_400, ge=1)
    """How long results are kept."""
    max_result_bytes: int = setting(16 << 20, ge=1_024, le=512 << 20)
    """Maximum size of a result; a task that returns more fails without a retry."""
    sentinel_master: str = "mymaster"
    """Name of the master behind a ``sentinel://`` URL."""
    lease_seconds: float = setting(15.0, ge=1, le=600)
    """How long a node may be silent before others take over its tasks; it renews its lease three times per period."""
    starvation_guard: int = setting(16, ge=0)
    """Every Nth claim starts at the lowest queue and priority; 0: none does, and those may wait forever."""
    crash_limit: int = setting(3, ge=1)
    """Number of process deaths after which the task that caused them fails; with RabbitMQ each node counts its own."""
    dead_letters_limit: int = setting(10_000, ge=1)
    """Maximum number of dead letters per queue and reason; the oldest are deleted first."""
    parked_seconds: float = setting(3_600.0, gt=0)
    """How long a task waits for a node that knows its type before it becomes a dead letter."""
    queue_limits: CommaSeparated = setting((), check=_check_queue_limits)
    """How many tasks may wait in a queue: ``default=100000,low=5000``; other queues have no limit. See
    docs/backpressure.md."""
    queue_full: Literal["raise", "wait"] = "raise"
    """What a submit to a full queue does: ``raise`` QueueFull at once, or ``wait`` for room until its deadline."""
    async_slots: int = setting(1_000, ge=1)
    """Maximum number of ``async def`` tasks a node runs at once; ``-c`` sets the number of threads for functions."""
    child_processes: int = setting(0, ge=0)
    """Maximum number of ``cpu_bound`` tasks a node runs at once, each in a child process; 0: one per core."""
    event_loop: Literal["uvloop", "asyncio"] = "uvloop"
    """Event loop for ``async def`` tasks; ``asyncio``, the standard library's, is also the fallback without uvloop."""
    submit_deadline_seconds: float = setting(4.0, gt=0, le=60)
    """How long ``delay()`` keeps trying a broker that does not answer before it raises."""
    drain_seconds: float = setting(25.0, ge=0, le=86_400)
    """How long a stopping node lets its tasks finish before others get them. Kubernetes kills it after 30 seconds."""
    max_tasks_per_node: int = setting(0, ge=0)
    """Number of tasks after which a node drains and exits with code 75, to be restarted; 0: never."""
    max_memory_mb: int = setting(0, ge=0)
    """Memory use in MiB at which a node drains and exits with code 75, to be restarted; 0: never."""
    history: bool = False
    """Whether to keep every finished task in SQL, see docs/history.md; setting ``history_url`` turns it on, too."""
    history_url: SecretUrl | None = setting(None, check=_check_database)
    """SQL database of the history, for writer and readers: ``postgresql://…``. Empty: SQLite in ``data_dir``."""
    history_days: float = setting(90.0, ge=0)
    """Number of days after which finished tasks are deleted from the history; 0: never."""
    history_backlog: int = setting(100_000, ge=1_000)
    """Maximum number of finished tasks waiting in Redis for the history, about 0.5 KB each; the oldest are dropped."""
    outbox_url: SecretUrl | None = setting(None, check=_check_database)
    """SQL database whose outbox nodes relay and the exporter measures, see docs/outbox.md: ``postgresql://…``, or
    ``django://default`` for a database of a Django project. Empty: ``taskapp outbox run --url …`` relays."""
    canary_seconds: float = setting(60.0, ge=0)
    """How often beat sends ``taskapp.canary``, the timed job that shows that the whole path works; 0: never."""
    max_payload_bytes: int = setting(1_048_576, ge=1_024)
    """Maximum size of the arguments of one task."""
    max_unpacked_bytes: int = setting(33_554_432, ge=1_024)
    """Maximum size of a message or result after decompression; a larger message becomes a dead letter."""
    accept_body_signatures: bool = False
    """Whether nodes of a signing app also accept tasks with only the body signed, as stock Celery sends them."""
    task_log_lines: int = setting(200, ge=0, le=10_000)
    """Number of log lines kept per task for ``taskapp task logs``, the last ones; 0: none."""
    log_format: Literal["text", "json"] = "text"
    """Format of the logs: ``text`` for people, ``json`` for one JSON object per line."""
    tracing: bool = False
    """Whether submits and runs are traced as OpenTelemetry spans; ``OTEL_…`` variables name the collector:
    docs/tracing.md."""
    file_dirs: CommaSeparated = ()
    """Comma-separated directories whose files tasks may read and write. Empty: ``<data_dir>/files``."""
    web_hosts: CommaSeparated = setting((), check=_check_hosts)
    """Host names that Flower and the exporter answer to, besides IP addresses, ``localhost`` and the host they listen
    on: ``flower.example.com``, ``*.example.com``; ``*``: every name, which lets any web page in (DNS rebinding)."""
    http_allowed_hosts: CommaSeparated = ()
    """Hosts that ``http_request`` may call: ``api.example.com`` (its standard port), ``*.example.com``,
    ``127.0.0.1:8080``, ``host:*`` for every port, ``[::1]:8080``. Empty: none."""
    http_timeout_seconds: float = setting(30.0, gt=0, le=300)
    """How long one HTTP request may take."""
    smtp_host: str = "localhost"
    """Host name of the mail server."""
    smtp_port: int = setting(25, ge=1, le=65_535)
    """Port of the mail server: usually 25, 587 with ``starttls`` or 465 with ``tls``."""
    smtp_security: Literal["none", "starttls", "tls"] = "none"
    """Encryption of the connection to the mail server. With ``none``, a login is refused."""
    smtp_username: str = ""
    """User name for the mail server. Empty: no login."""
    smtp_password: SecretText = SecretText("")
    """Password for ``smtp_username``."""
    smtp_ca_file: Path | None = None
    """Certificate authorities to trust for the mail server. Empty: the system's."""
    smtp_timeout_seconds: float = setting(30.0, gt=0)
    """How long the mail server may be silent."""
    mail_from: str = "taskapp@localhost"
    """Sender of mails that do not name one."""

    @property
    def chosen(self) -> frozenset[str]:
        """Names of the settings that are given; the others have their defaults."""
        names: frozenset[str] = self.__dict__.get("_chosen", frozenset())
        return names

    @property
    def keeps_history(self) -> bool:
        """Whether nodes report every finished task for the history."""
        return self.history or self.history_url is not None

    @property
    def allowed_roots(self) -> tuple[Path, ...]:
        """Absolute paths of the directories that tasks may use."""
        if not self.file_dirs:
            return (self.data_dir / "files",)
        return tuple(Path(directory).expanduser().resolve() for directory in self.file_dirs)

    @property
    def queue_limit_table(self) -> dict[str, int]:
        """Limits of queues: queue to maximum number of waiting tasks."""
        parts = (limit.partition("=") for limit in self.queue_limits)
        return {queue.strip(): int(number) for queue, _, number in parts}

    @property
    def route_table(self) -> dict[str, str]:
        """User routes: task name or pattern to queue."""
        return {name.strip(): queue.strip() for name, _, queue in (route.partition("=") for route in self.routes)}


_KINDS = get_type_hints(Settings)


def _is_secret(kind: Any) -> bool:
    kinds = (kind, *get_args(kind))
    return any(isinstance(each, type) and issubclass(each, SecretText) for each in kinds)


SECRET_FIELDS = frozenset(name for name, kind in _KINDS.items() if _is_secret(kind))
"""Fields whose values are never shown."""

SETTING_NAMES = tuple(PREFIX + field.name.upper() for field in fields(Settings))
"""All variables, in the order of the class."""


class Given(NamedTuple):
    """A value that an app's own configuration gives a setting."""

    name: str
    """The name as written there, for messages."""
    value: Any


NOTHING_GIVEN: Mapping[str, Given] = MappingProxyType({})


def load_settings(
    environ: Mapping[str, str], env_file: Path | None = None, given: Mapping[str, Given] = NOTHING_GIVEN
) -> Settings:
    """Build ``Settings`` from ``given``, ``environ`` and ``env_file``; each takes precedence over the next.

    Args:
        environ: The environment.
        env_file: Path of the ``.env`` file, if there is one.
        given: Values from an app's own configuration, by field.

    Raises:
        UnknownSetting: A ``TASKAPP_`` variable or a name in ``given`` is not a setting.
        InvalidSetting: A value has the wrong type or is out of range.
    """
    merged: dict[str, str] = {}
    if env_file is not None:
        from dotenv import dotenv_values  # not needed without a file

        merged.update({name: value or "" for name, value in dotenv_values(env_file).items()})
    merged.update(environ)
    values: dict[str, Any] = {}
    for name, value in merged.items():
        if not name.startswith(PREFIX) or name == ENV_FILE_VARIABLE:
            continue
        if name in SETTING_NAMES:
            values[name.removeprefix(PREFIX).lower()] = value
        elif not _KUBERNETES_SERVICE.search(name):
            raise UnknownSetting(name, SETTING_NAMES)
    for field, one in given.items():
        if field not in _KINDS:
            raise UnknownSetting(one.name, [_spelt_like(one.name, field, known) for known in _KINDS])
        values[field] = one.value
    read = {
        field.name: _read(field.name, values[field.name], field.metadata, given)
        for field in fields(Settings)
        if field.name in values
    }
    settings = Settings(**read)
    vars(settings)["_chosen"] = frozenset(read)
    for name, problem in _contradictions(settings):
        raise _invalid(name, values.get(name, ""), f"{name}: {problem}", given)
    return settings


def _spelt_like(name: str, field: str, other: str) -> str:
    """Return ``name``, which ends with ``field``, with ``other`` in its place."""
    return name[: -len(field)] + (other.upper() if name.isupper() else other)


def _read(name: str, value: Any, limits: Mapping[str, Any], given: Mapping[str, Given]) -> Any:
    try:
        read = value_of(value, _KINDS[name], limits)
        return read.expanduser().resolve() if name == "data_dir" else read
    except ValueError as error:
        raise _invalid(name, value, str(error), given) from None  # the cause may show a secret


def _contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    for route in settings.routes:
        queue = route.partition("=")[2].strip()
        if queue not in settings.queues:
            yield "routes", f"{route!r} names an unknown queue (queues: {', '.join(settings.queues)})"
    if settings.max_unpacked_bytes < settings.max_payload_bytes:
        most = settings.max_payload_bytes
        yield "max_unpacked_bytes", f"it must be at least TASKAPP_MAX_PAYLOAD_BYTES, {most}"
    if are_several_redis(revealed(settings.result_url)):
        yield "result_url", "it names several Redis servers; results need a single one"
    if settings.result_url is None and are_several_redis(revealed(settings.broker_url)):
        yield "broker_url", "it names several Redis servers, and results need a single one: set TASKAPP_RESULT_URL"


def _invalid(field: str, value: Any, problem: str, given: Mapping[str, Given]) -> TaskappError:
    name = given[field].name if field in given else PREFIX + field.upper()
    return InvalidSetting(name, "***" if field in SECRET_FIELDS else value, problem)


_of_program: list[Settings] = []


def get_settings() -> Settings:
    """Return the settings of this program: those of the app that it runs, or else of the environment, read once.

    Code that submits tasks uses ``app.settings``: one process may contain several apps.
    """
    return _of_program[0] if _of_program else get_settings_of_environment()


def use_settings(settings: Settings) -> None:
    """Make ``settings`` those of this program: a worker, a beat, Flower or a command, each of which runs one app."""
    _of_program[:] = [settings]


def forget_settings() -> None:
    """Read the environment again when settings are next needed."""
    _of_program.clear()
    get_settings_of_environment.cache_clear()


@cache
def get_settings_of_environment() -> Settings:
    """Return the settings that the environment and ``.env`` make, read once."""
    return settings_with(NOTHING_GIVEN)


def settings_with(given: Mapping[str, Given]) -> Settings:
    """Return the settings of this process with values ``given`` by an app; errors are those of ``load_settings``."""
    return load_settings(os.environ, find_env_file(Path.cwd(), os.environ), given)
