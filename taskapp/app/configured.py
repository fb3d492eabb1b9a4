"""An app whose configuration is completed: by the settings, and with safe defaults."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from kombu.utils.objects import cached_property

from taskapp.app.engine_access import EngineAccess
from taskapp.errors import UnknownQueue

if TYPE_CHECKING:
    from taskapp.app.filling import Filled
    from taskapp.settings import Settings


UNDECLARED = "declare it in task_queues, or set task_create_missing_queues"
UNUSED = "it is not declared, and nothing has used it"


class Configured(EngineAccess):
    """A Celery app with taskapp's settings; what its project has not set is filled in when it is first read."""

    ships_task_types = False
    """Whether this is the app of ``celery -A taskapp``, with the task types, queues and canary that ship."""

    _pending_defaults: deque[Any]

    @property
    def argument(self) -> str:
        """What `celery -A` is usually given for this app, for advice."""
        return "taskapp" if self.ships_task_types else str(self.main or "proj")

    @property
    def command(self) -> str:
        """How to call ``taskapp`` for this app, for advice."""
        return "taskapp" if self.ships_task_types else f"taskapp -A {self.argument}"

    @cached_property
    def filled(self) -> Filled:
        """The settings, and what taskapp fills in."""
        from taskapp.app.filling import Filled

        return Filled()

    def _load_config(self) -> Any:
        """Load the configuration, like Celery, and fill in what the project has not set.

        Celery inserts lazy defaults above the project's settings, so only those it has not set are among them. They
        come after those of the project, which ``add_defaults`` has collected.
        """
        self._pending_defaults.append(lambda: self.filled.fill(self))
        try:
            return super()._load_config()  # type: ignore[misc]  # missing in the stubs
        except BaseException:
            # Celery would go on with half of a configuration.
            self._conf, self.configured = None, False
            raise

    @property
    def settings(self) -> Settings:
        """The settings of this app: ``taskapp_…`` values of its configuration, then ``TASKAPP_…`` variables, ``.env``.

        Raises:
            TaskappError: A setting is unknown or invalid.
        """
        if self.filled.settings is None:
            self.conf.finalize()
        return self.filled.settings  # type: ignore[return-value]  # set by now

    def sets(self, name: str) -> bool:
        """Return whether the project, not taskapp or Celery, has set the setting ``name`` of Celery."""
        return bool(self.conf.value_set_for(name)) and not self.filled.fills(name)

    def _connection(self, url: str | None, *args: Any, transport_options: Any = None, **options: Any) -> Any:
        self.find_broker()
        url = url or self.conf.broker_url
        merged = {**self.transport_options, **(transport_options or {})}
        if url != self.filled.broker_url:
            merged.pop("own_server", None)  # another server must not be sent the password of ours
        return super()._connection(  # type: ignore[misc]  # untyped
            url, *args, transport_options=merged, **options
        )

    @property
    def transport_options(self) -> dict[str, Any]:
        """Options of connections to the broker: the engine's, and ``broker_transport_options`` over them."""
        return self.filled.merged("broker_transport_options", self.conf)

    def check_queue(self, name: str) -> None:
        """Check that tasks can be sent to, and taken from, the queue ``name``.

        Raises:
            UnknownQueue: It is not declared, and ``task_create_missing_queues`` is off.
        """
        if name not in self.amqp.queues and not self.conf.task_create_missing_queues:
            raise self.unknown_queue(name)

    def unknown_queue(self, name: str) -> UnknownQueue:
        """Return the error for a queue that is not declared; its remedy is the setting that declares queues here."""
        if self.filled.fills("task_queues"):
            return UnknownQueue(name, self.amqp.queues)
        return UnknownQueue(name, self.amqp.queues, UNUSED if self.conf.task_create_missing_queues else UNDECLARED)

    def queue_names(self) -> tuple[str, ...]:
        """Return the declared queues, in the order in which they are served."""
        return tuple(self.amqp.queues)

    @property
    def has_results(self) -> bool:
        """Whether a result backend is known, or a broker that can be one."""
        return self.conf.result_backend is not None or self.conf.broker_url is not None

    def find_broker(self) -> None:
        """Look for a broker if none has been found yet.

        Raises:
            BrokerNotFound: There still is none; the error lists the remedies.
        """
        if self.conf.broker_url is None:
            self.filled.find_broker(self)
