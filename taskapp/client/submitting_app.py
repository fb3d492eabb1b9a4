"""The interface of the app that submitting needs: the only dependency on a higher layer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from taskapp.settings import Settings


class SubmittingApp(Protocol):
    """A Celery app as submitting uses it. Members without a docstring are Celery's."""

    clock: Any
    conf: Any
    signing: Any
    """Signs tasks, see ``client.signing.Signing``; ``None``: tasks are not signed."""

    @property
    def amqp(self) -> Any: ...  # noqa: D102

    @property
    def backend(self) -> Any: ...  # noqa: D102

    @property
    def current_worker_task(self) -> Any: ...  # noqa: D102

    @property
    def loader(self) -> Any: ...  # noqa: D102

    @property
    def settings(self) -> Settings:
        """The app's settings."""

    @property
    def tasks(self) -> Any: ...  # noqa: D102

    @property
    def thread_oid(self) -> str: ...  # noqa: D102

    @property
    def AsyncResult(self) -> Any: ...  # noqa: D102, N802

    def find_broker(self) -> None:
        """Look for a broker if none has been found yet.

        Raises:
            BrokerNotFound: There still is none.
        """

    def known_task(self, name: str) -> Any:
        """Return the task type ``name`` if it is registered already; does not finalize the app."""

    def lend_producer(self, producer: Any = None) -> AbstractContextManager[Any]:
        """Lend kombu's producer for one message."""

    def now(self) -> datetime:
        """Return the current time in the app's time zone."""

    def send_by_kombu(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Send a task through kombu, like Celery; return its result."""

    def writes_json(self, serializer: str) -> bool:
        """Return whether ``serializer`` writes JSON, signed or not."""
