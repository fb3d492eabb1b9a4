"""An app that submits tasks; the work is done by ``client.submitter``, which is imported on first use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kombu.utils.objects import cached_property

from taskapp.app.results_access import ResultsAccess

if TYPE_CHECKING:
    from taskapp.client.signing import Signing
    from taskapp.client.submitter import Submitter

POSITIONAL_OPTIONS = ("countdown", "eta", "task_id", "producer", "connection", "router", "result_cls", "expires")
"""Options of ``Celery.send_task`` that are accepted by position."""


class _EagerProducer:
    """What Celery asks for a serializer when it runs a task where it is submitted."""

    serializer = None


class Submitting(ResultsAccess):
    """A Celery app whose tasks are checked where they are submitted."""

    signing: Signing | None
    """Signs tasks and checks their signatures; ``None`` before ``setup_security``."""
    clock: Any
    _tasks: Any

    @cached_property
    def submitter(self) -> Submitter:
        """Submits the app's tasks."""
        from taskapp.client.submitter import Submitter

        return Submitter(self)

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """Send the task ``name``, like Celery, after checking its options and arguments; see ``Submitter``."""
        options.update(zip(POSITIONAL_OPTIONS, rest, strict=False))
        return self.submitter.send_task(name, args, kwargs, options)

    def send_by_kombu(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Send a task through kombu, like Celery."""
        return super().send_task(name, args, kwargs, **options)

    def writes_json(self, serializer: str) -> bool:
        """Return whether ``serializer`` writes JSON, signed or not."""
        return serializer in ("json", "application/json") or (
            serializer == "auth" and self.signing is not None and self.signing.writes_json
        )

    def lend_producer(self, producer: Any = None) -> Any:
        """Lend a producer for one message, without collecting.

        Raises:
            kombu.exceptions.LimitExceeded: All are lent until the deadline of the current submit.
        """
        from taskapp.transport.rabbitmq import left_seconds

        if producer is None and (seconds := left_seconds()) is not None:
            return self.producer_pool.acquire(block=True, timeout=seconds)
        return super().producer_or_acquire(producer)

    @contextmanager
    def producer_or_acquire(self, producer: Any = None) -> Iterator[Any]:  # type: ignore[override]  # a class in Celery
        """Lend a producer, like Celery; tasks submitted inside are pushed in batches.

        Celery's groups submit inside such a block.

        Raises:
            DuplicateTask: Tasks are refused because others have their unique keys.
        """
        from taskapp.client.limits.duplicates import raise_refused
        from taskapp.engine.batch import collecting, is_held

        if self.conf.task_always_eager:  # needs no broker
            yield producer or _EagerProducer()
            return
        if producer is None and is_held():
            yield None  # the tasks need none, and acquiring one may wait for the server
            return
        with super().producer_or_acquire(producer) as lent:
            if producer is not None:
                yield lent
                return
            with collecting() as bulk:
                yield lent
        raise_refused(bulk)

    def signature(self, *args: Any, **options: Any) -> Any:
        """Create a signature of this app, like Celery, which coroutines can submit."""
        from taskapp.client.async_canvas import signature

        return signature(*args, **{**options, "app": self})

    def known_tasks(self) -> tuple[Any, ...]:
        """Return the task types registered so far, without finalizing the app."""
        return tuple(self._tasks.values())

    def known_task(self, name: str) -> Any:
        """Return the task type ``name`` if it is registered already, without finalizing the app."""
        return self._tasks.get(name)

    def now(self) -> datetime:
        """Return the current time in the app's time zone; twenty times as fast as Celery's own."""
        return datetime.now(self.timezone)
