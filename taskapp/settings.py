"""``TASKAPP_*`` variables and ``.env`` to one validated, frozen ``Settings``.

Precedence: the process environment, then the ``.env`` file, then the defaults here. A name that
no setting has, or a value of the wrong type, is refused with a sentence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from dotenv import dotenv_values
from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from taskapp.env_file import ENV_FILE_VARIABLE, find_env_file
from taskapp.errors import InvalidSetting, TaskappError, UnknownSetting
from taskapp.queues import DEFAULT_QUEUE, DEFAULT_QUEUES
from taskapp.urls import SecretUrl, are_several_redis, check_url, revealed

PREFIX = "TASKAPP_"
_KUBERNETES_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)$")
"""Variables Kubernetes injects for a service named ``taskapp-…``; they are not settings."""

CommaSeparated = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """Everything about a deployment that is not code. One instance a process: ``get_settings()``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    broker_url: SecretUrl | None = None
    """Where messages are: ``redis://``, ``rediss://``, ``amqp://`` … Empty: a Redis server of our own."""
    result_url: SecretUrl | None = None
    """Where results are. Empty: the broker, when that is a Redis."""
    embedded: Literal["auto", "tcp", "never"] = "auto"
    """Whether a Redis server of our own may be started when ``broker_url`` is empty: ``auto`` on a Unix socket that
    only you can reach, ``tcp`` on a port of loopback, ``never`` not at all. Container images say never."""
    data_dir: Path = Field(default_factory=lambda: user_data_path("taskapp", appauthor=False))
    """Where a server of our own keeps its data, and files of tasks by default. One per user."""
    key_prefix: str = ""
    """Put before every key in Redis, so that two environments can share one server."""
    include: CommaSeparated = ()
    """Modules of your tasks, imported by every node, separated by commas: ``shop.tasks,billing.tasks``."""
    queues: CommaSeparated = DEFAULT_QUEUES
    """The queues in the order they are taken, separated by commas. Must hold ``default``."""
    routes: CommaSeparated = ()
    """Queues of your task types, by name or pattern: ``shop.pay=critical,shop.*=low``."""
    result_expires_seconds: int = Field(default=86_400, ge=1)
    """How long results are kept."""
    max_result_bytes: int = Field(default=16 << 20, ge=1_024, le=512 << 20)
    """How many bytes a result may take; a task that returns more fails and is not retried for it."""
    sentinel_master: str = "mymaster"
    """The name of the master behind a ``sentinel://`` URL."""
    lease_seconds: float = Field(default=15.0, ge=1, le=600)
    """How long a node may be silent before others take over its tasks. It says it lives three times as often."""
    starvation_guard: int = Field(default=16, ge=0)
    """One claim in so many looks from the lowest queue and priority up; 0: never, low ones may wait for ever."""
    crash_limit: int = Field(default=3, ge=1)
    """After how many dead processes the task that killed them fails; over RabbitMQ each node counts dead children."""
    dead_letters_limit: int = Field(default=10_000, ge=1)
    """How many dead letters are kept, for each queue and reason; the oldest go first."""
    parked_seconds: float = Field(default=3_600.0, gt=0)
    """How long a task waits for a node that has its type before it goes to the dead letters."""
    async_slots: int = Field(default=1_000, ge=1)
    """How many ``async def`` tasks a node runs at once; functions have as many threads as ``-c`` says."""
    child_processes: int = Field(default=0, ge=0)
    """How many ``cpu_bound`` tasks a node runs at once, each in a child process; 0: one for each core."""
    event_loop: Literal["uvloop", "asyncio"] = "uvloop"
    """Which loop ``async def`` tasks run on; ``asyncio``, the standard library's, also where there is no uvloop."""
    submit_deadline_seconds: float = Field(default=4.0, gt=0, le=60)
    """How long ``delay()`` tries a broker that does not answer before it raises."""
    drain_seconds: float = Field(default=25.0, ge=0, le=86_400)
    """How long a node that was told to stop lets its tasks run on; then others get them. Kubernetes kills after 30."""
    max_tasks_per_node: int = Field(default=0, ge=0)
    """After how many tasks a node drains and ends with exit code 75, to be started anew; 0: never."""
    max_memory_mb: int = Field(default=0, ge=0)
    """At how many MiB of its own a node drains and ends with exit code 75, to be started anew; 0: never."""
    history: bool = False
    """Whether every finished task is kept in SQL, see docs/history.md; a ``history_url`` says so, too."""
    history_url: SecretUrl | None = None
    """The SQL database of it, for who writes and reads it: ``postgresql://…``. Empty: SQLite below ``data_dir``."""
    history_days: float = Field(default=90.0, ge=0)
    """After how many days finished tasks are deleted there; 0: never."""
    history_backlog: int = Field(default=100_000, ge=1_000)
    """How many finished tasks wait in Redis to be written there, about 0.5 KB each; the oldest fall off."""
    canary_seconds: float = Field(default=60.0, ge=0)
    """How often beat sends ``taskapp.canary``, the timed job that shows the whole path works; 0 for never."""
    max_payload_bytes: int = Field(default=1_048_576, ge=1_024)
    """The most bytes the arguments of one task may take."""
    max_unpacked_bytes: int = Field(default=33_554_432, ge=1_024)
    """The most bytes a compressed message or result may become; a larger message goes to the dead letters."""
    accept_body_signatures: bool = False
    """Whether nodes of an app that signs also take tasks whose body alone is signed, as stock Celery sends them."""
    task_log_lines: int = Field(default=200, ge=0, le=10_000)
    """How many of the last log lines of each task are kept for ``taskapp task logs``; 0: none."""
    log_format: Literal["text", "json"] = "text"
    """``text`` for people, ``json`` for one JSON object a line."""
    tracing: bool = False
    """Whether submits and runs are spans of OpenTelemetry, sent where ``OTEL_…`` variables say: docs/tracing.md."""
    file_dirs: CommaSeparated = ()
    """Directories whose files tasks may read and write, separated by commas. Empty: ``<data_dir>/files``."""
    web_hosts: CommaSeparated = ()
    """Names for which Flower and the exporter answer, beside addresses, ``localhost`` and where they listen:
    ``flower.example.com``, ``*.example.com``; ``*``: every name, also one that a web page bound to this machine."""
    http_allowed_hosts: CommaSeparated = ()
    """Hosts ``http_request`` may call: ``api.example.com`` (its standard port), ``*.example.com``,
    ``127.0.0.1:8080``, ``host:*`` for every port, ``[::1]:8080``. Empty: none."""
    http_timeout_seconds: float = Field(default=30.0, gt=0, le=300)
    """How long one HTTP request may take."""
    smtp_host: str = "localhost"
    """The mail server."""
    smtp_port: int = Field(default=25, ge=1, le=65_535)
    """Its port: 25, 587 with ``starttls``, 465 with ``tls``."""
    smtp_security: Literal["none", "starttls", "tls"] = "none"
    """How the connection to the mail server is protected. A login is refused without protection."""
    smtp_username: str = ""
    """Login at the mail server; empty for none."""
    smtp_password: SecretStr = SecretStr("")
    """Password for ``smtp_username``."""
    smtp_ca_file: Path | None = None
    """Certificate authorities to trust for the mail server. Empty: the system's."""
    smtp_timeout_seconds: float = Field(default=30.0, gt=0)
    """How long the mail server may be silent."""
    mail_from: str = "taskapp@localhost"
    """Sender of mails that name none."""

    @field_validator("include", "queues", "routes", "file_dirs", "web_hosts", "http_allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("broker_url", "result_url", "history_url", "smtp_ca_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("broker_url", "result_url")
    @classmethod
    def _is_url(cls, value: SecretUrl | None) -> SecretUrl | None:
        if value is not None:
            check_url(value.get_secret_value())
        return value

    @field_validator("result_url")
    @classmethod
    def _keeps_results(cls, value: SecretUrl | None) -> SecretUrl | None:
        if value is not None and value.get_secret_value().startswith("rpc:"):
            raise ValueError("rpc:// sends results to one client and keeps none; give a Redis or a database")
        return value

    @field_validator("history_url")
    @classmethod
    def _is_database(cls, value: SecretUrl | None) -> SecretUrl | None:
        if value is not None and "://" not in value.get_secret_value():
            raise ValueError("a URL of SQLAlchemy is needed, such as postgresql://user:password@host/taskapp")
        return value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @field_validator("queues")
    @classmethod
    def _has_default(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if DEFAULT_QUEUE not in value:
            raise ValueError(f"it must hold {DEFAULT_QUEUE!r}, where tasks go that no route names")
        if len(set(value)) != len(value):
            raise ValueError("a queue is named twice")
        return value

    @field_validator("web_hosts")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(r"\*|(\*\.)?[\w.-]+", name):
                raise ValueError(f"{name!r} is no name of a host; write it without scheme, port and path")
        return value

    @field_validator("routes")
    @classmethod
    def _are_routes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for route in value:
            if not re.fullmatch(r"[^=]+=[^=]+", route):
                raise ValueError(f"{route!r} is not of the form task=queue")
        return value

    @model_validator(mode="after")
    def _routes_lead_to_queues(self) -> Settings:
        for route in self.routes:
            queue = route.partition("=")[2].strip()
            if queue not in self.queues:
                raise ValueError(f"routes: {route!r} leads to no queue (queues: {', '.join(self.queues)})")
        return self

    @model_validator(mode="after")
    def _packed_arguments_can_be_unpacked(self) -> Settings:
        if self.max_unpacked_bytes < self.max_payload_bytes:
            raise ValueError(
                f"max_unpacked_bytes: it must not be less than TASKAPP_MAX_PAYLOAD_BYTES, {self.max_payload_bytes}"
            )
        return self

    @model_validator(mode="after")
    def _results_are_in_one_place(self) -> Settings:
        result_url, broker_url = revealed(self.result_url), revealed(self.broker_url)
        if are_several_redis(result_url):
            raise ValueError("result_url: it names several Redis; results are kept on one")
        if result_url is None and are_several_redis(broker_url):
            raise ValueError(
                "broker_url: it names several Redis, and results are kept on one: set TASKAPP_RESULT_URL to that one"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values only from ``load_settings``, which has merged environment and ``.env``."""
        return (init_settings,)

    @property
    def keeps_history(self) -> bool:
        """Whether nodes tell of every task that has ended."""
        return self.history or self.history_url is not None

    @property
    def allowed_roots(self) -> tuple[Path, ...]:
        """The directories tasks may touch, absolute."""
        if not self.file_dirs:
            return (self.data_dir / "files",)
        return tuple(Path(directory).expanduser().resolve() for directory in self.file_dirs)

    @property
    def route_table(self) -> dict[str, str]:
        """User routes as a mapping of task name or pattern to queue."""
        return {name.strip(): queue.strip() for name, _, queue in (route.partition("=") for route in self.routes)}


def _is_secret(annotation: Any) -> bool:
    kinds = (annotation, *get_args(annotation))
    return any(isinstance(kind, type) and issubclass(kind, SecretStr) for kind in kinds)


SECRET_FIELDS = frozenset(name for name, field in Settings.model_fields.items() if _is_secret(field.annotation))
"""Fields whose values are shown nowhere."""

SETTING_NAMES = tuple(PREFIX + name.upper() for name in Settings.model_fields)
"""Every variable there is, in the order of the class."""


def load_settings(environ: Mapping[str, str], env_file: Path | None = None) -> Settings:
    """Build ``Settings`` from ``environ`` and, below it, ``env_file``.

    Raises:
        UnknownSetting: A ``TASKAPP_`` variable is no setting.
        InvalidSetting: A value has the wrong type or is out of range.
    """
    merged: dict[str, str] = {}
    if env_file is not None:
        merged.update({name: value or "" for name, value in dotenv_values(env_file).items()})
    merged.update(environ)
    values: dict[str, str] = {}
    for name, value in merged.items():
        if not name.startswith(PREFIX) or name == ENV_FILE_VARIABLE:
            continue
        if name in SETTING_NAMES:
            values[name.removeprefix(PREFIX).lower()] = value
        elif not _KUBERNETES_SERVICE.search(name):
            raise UnknownSetting(name, SETTING_NAMES)
    try:
        return Settings(**values)  # type: ignore[arg-type]  # pydantic turns the text into each field's type
    except ValidationError as error:
        raise _first_problem(error, values) from None  # of all values, pydantic's own error names some


def _first_problem(error: ValidationError, values: Mapping[str, str]) -> TaskappError:
    problem = error.errors()[0]
    message = problem["msg"].removeprefix("Value error, ")
    field = str(problem["loc"][0]) if problem["loc"] else message.partition(":")[0]
    shown = "***" if field in SECRET_FIELDS else values.get(field, "")
    return InvalidSetting(PREFIX + field.upper(), shown, message[:1].lower() + message[1:])


@cache
def get_settings() -> Settings:
    """Return this process's settings, read once at first use."""
    return load_settings(os.environ, find_env_file(Path.cwd(), os.environ))
