"""What submitting needs of the app it submits for: the only way up from here, and a narrow one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol


class SubmittingApp(Protocol):
    """A Celery app, as far as submitting sees it. What has no words here is Celery's."""

    clock: Any
    conf: Any
    signing: Any
    """What signs tasks, see ``client.signing.Signing``; ``None``: nothing does."""

    @property
    def amqp(self) -> Any: ...  # noqa: D102

    @property
    def backend(self) -> Any: ...  # noqa: D102

    @property
    def current_worker_task(self) -> Any: ...  # noqa: D102

    @property
    def loader(self) -> Any: ...  # noqa: D102

    @property
    def tasks(self) -> Any: ...  # noqa: D102

    @property
    def thread_oid(self) -> str: ...  # noqa: D102

    @property
    def AsyncResult(self) -> Any: ...  # noqa: D102, N802

    def known_task(self, name: str) -> Any:
        """Return the task type ``name`` if it is known by now; the app is not put together for that."""

    def lend_producer(self, producer: Any = None) -> AbstractContextManager[Any]:
        """Lend a producer of kombu for one message."""

    def now(self) -> datetime:
        """Return the time in the app's zone."""

    def send_by_kombu(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Send a task as Celery does, through kombu; return its result."""
