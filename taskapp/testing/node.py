"""The node of a test: takes one message at a time through the strategy, the request and the tracer of a real one."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import Context, ContextVar
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from celery.exceptions import Ignore, Reject, Retry
from celery.result import denied_join_result

from taskapp.app.own_strategy import has_own_strategy, strategy_of
from taskapp.engine.claims import Claimed
from taskapp.engine.headers import BadHeader, check_headers
from taskapp.errors import TaskExited
from taskapp.errors.tasks import MessageRefused
from taskapp.errors.testing import NoSuchTaskType, NotInKit, UnusableMessage
from taskapp.execution.failures import failure_in
from taskapp.results.chords import FINISH_CHORD
from taskapp.testing.records import Run
from taskapp.testing.transport import MemoryChannel
from taskapp.transport.message import LONG_AGO
from taskapp.worker.consume.admission import Admission
from taskapp.worker.run.execute import use_runner
from taskapp.worker.run.tracer import Runner

HOSTNAME = "testing@localhost"
ENDED = {Retry: "RETRY", Ignore: "IGNORED", Reject: "REJECTED"}


class _Seen:
    """What the pool and the tracer saw of a run."""

    ran = False
    value: Any = None
    error: BaseException | None = None


_seen: ContextVar[_Seen] = ContextVar("taskapp_testing_seen")
"""Follows a run into its coroutines and threads: a run may wait for another, and several threads may wait."""


class _Runner(Runner):
    """The tracer; notes the value and the error themselves, which nobody else has."""

    def _succeeded(self, request: Any, retval: Any, started_at: float) -> Any:
        _seen.get().value = retval
        return (yield from super()._succeeded(request, retval, started_at))

    def _report(self, request: Any, error: BaseException, state: str) -> Any:
        _seen.get().error = error
        return (yield from super()._report(request, error, state))


class _ByTheClock:
    """Mixed into a strategy: the clock of the test decides whether a task has expired; Celery asks the machine's."""

    _consumer: InProcessNode

    def _request(self, message: Any, *rest: Any) -> Any:
        headers = message.headers
        expires = headers.get("expires")
        if expires and expires != LONG_AGO:
            headers["expires"] = LONG_AGO if self._consumer.is_past(expires) else None
        request = super()._request(message, *rest)  # type: ignore[misc]  # defined by the class it is mixed into
        if expires and headers["expires"] is None:
            headers["expires"] = expires
        return request


class _Pool:
    """Runs a request at once, like Celery's pool ``solo``."""

    def apply_async(
        self, target: Callable[..., Any], args: Any, accept_callback: Any, callback: Any, **_: Any
    ) -> None:  # fmt: skip
        _seen.get().ran = True
        accept_callback(os.getpid(), monotonic())
        outcome = target(*args)
        if outcome[0] and _seen.get().error is None:
            _seen.get().error = failure_in(outcome[1])
        callback(outcome)


class InProcessNode:
    """Runs the messages of one engine in memory; also the consumer that strategies see."""

    hostname = HOSTNAME
    event_dispatcher = None
    disable_rate_limits = True
    connection_errors: tuple[type[Exception], ...] = ()

    def __init__(self, app: Any, channel: MemoryChannel) -> None:
        self.app, self._channel, self._pool = app, channel, _Pool()
        self._admission = Admission(app)
        self._strategies: dict[str, Any] = {}

    def is_past(self, moment: str) -> bool:
        """Return whether an ISO time is over."""
        return datetime.fromisoformat(moment).timestamp() < self._channel.engine.clock.now

    def on_task_request(self, request: Any) -> None:
        """Run a request, as its strategy asks."""
        request.execute_using_pool(self._pool)

    def run(self, claimed: Claimed) -> Run | None:
        """Run a claimed message; return the run, or ``None`` for one that belongs to no task of the user's.

        Raises:
            NoSuchTaskType: The app lacks its task type; the message waits.
            UnusableMessage: It is a dead letter now.
        """
        buried = self._channel.process.buried
        before = len(buried)
        message = self._channel.message(claimed)
        if message is None:
            raise UnusableMessage(buried[-1])
        name, task_id = message.headers.get("task"), message.headers.get("id")
        seen = _Seen()
        self._handle(message, seen)
        if len(buried) > before and not seen.ran:
            raise UnusableMessage(buried[-1])
        if name == FINISH_CHORD and seen.error is None:
            return None
        at = datetime.fromtimestamp(self._channel.engine.clock.now, UTC)
        return Run(name, task_id, _state(seen), at, seen.value, seen.error)

    def _handle(self, message: Any, seen: _Seen) -> None:
        """Handle a message like ``worker.consume.consumer``, in a context of its own, as on another machine."""
        try:
            self._admission.check(message)
            check_headers(message.headers)
            if not message.headers.get("task"):
                raise BadHeader("headers: the task is missing")
        except (BadHeader, MessageRefused) as error:
            self._channel.bury(message.delivery_tag, "unreadable", str(error))
            return
        strategy = self._strategy(message)
        context = Context()
        context.run(_seen.set, seen)
        with denied_join_result():
            context.run(strategy, message, None, message.ack_log_error, message.reject_log_error, ())

    def _strategy(self, message: Any) -> Any:
        name = message.headers["task"]
        if name not in self._strategies:
            task = self.app.tasks.get(name)
            if task is None:
                self._channel.give_back(message.delivery_tag)
                raise NoSuchTaskType(name, self.app.tasks)
            if has_own_strategy(task):
                self._channel.give_back(message.delivery_tag)
                raise NotInKit(f"task {name!r}, which has a Strategy of its own,")
            use_runner(name, _Runner(task, self.app, HOSTNAME))
            kind = strategy_of(task)
            self._strategies[name] = type(kind.__name__, (_ByTheClock, kind), {})(task, self.app, self)
        return self._strategies[name]


def _state(seen: _Seen) -> str:
    if not seen.ran:
        return "REVOKED"
    if seen.error is None:
        return "SUCCESS"
    return next((state for kind, state in ENDED.items() if isinstance(seen.error, kind)), "FAILURE")


def original(error: BaseException) -> BaseException:
    """Return the error a task raised: an exit, an interrupt or an outcome of pytest is kept as a cause."""
    return error.__cause__ if isinstance(error, TaskExited) and error.__cause__ is not None else error
