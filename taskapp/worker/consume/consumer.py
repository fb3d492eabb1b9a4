"""Celery's consumer, extended to bury unusable messages instead of losing them and to requeue unstarted tasks."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic, sleep, time
from typing import Any

from celery import signals
from celery.app import trace as stock_trace
from celery.exceptions import (
    CPendingDeprecationWarning,
    InvalidTaskError,
    NotRegistered,
    WorkerShutdown,
    WorkerTerminate,
)
from celery.utils.log import get_logger
from celery.worker import consumer as stock
from celery.worker.consumer import consumer as stock_module
from celery.worker.state import active_requests, maybe_shutdown, reserved_requests, task_ready
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError, ResponseError

from taskapp import recursion
from taskapp.celery_internals import pool_result
from taskapp.engine import runtime
from taskapp.engine.headers import BadHeader
from taskapp.engine.settlement import Settlement
from taskapp.errors.tasks import MessageRefused
from taskapp.errors.wording import in_words, text_of
from taskapp.redis.trouble import broker
from taskapp.transport.channel import EngineChannel
from taskapp.transport.codec import READY_AT_HEADER
from taskapp.transport.message import Received
from taskapp.worker.consume.admission import Admission
from taskapp.worker.consume.message_checks import is_checked_claim
from taskapp.worker.consume.rate_limits import RateLimits
from taskapp.worker.pool.hub import LoopHub
from taskapp.worker.process.running import runs_something
from taskapp.worker.run.tick_dedup import report_end

logger = get_logger(__name__)

EVENTS_AT_ONCE = 150
LONGEST_PROBLEM = 500
TURN_SECONDS = 0.2
FAILED_AGAIN_SECONDS = 1.0
"""Delay before a message is retried that failed for an external reason, such as an unreachable server."""

STABLE_SECONDS = 15.0
"""A connection that lasts this long resets the backoff."""
LONGEST_PAUSE_SECONDS = 5.0
LOOK_SECONDS = 0.1

# The stubs are incomplete.
_Stock: Any = stock.Consumer
_stock_module: Any = stock_module


class Consumer(_Stock):
    """Never lets a single message end the worker: unusable messages go to the dead letters unchanged."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A server that refuses a command now, such as a replica being promoted, may accept it a second later.
        # Celery only handles broken connections and would end the node.
        self.connection_errors: tuple[type[Exception], ...] = (*self.connection_errors, ResponseError)
        # Repeated at each lost connection, although taskapp sets what it asks for.
        warnings.filterwarnings("ignore", r"\s*In Celery 5.1 we introduced", CPendingDeprecationWarning)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Reconnect as Celery does, but with a growing pause if connections keep failing.

        Celery reconnects immediately and without limit. It would make hundreds of attempts per second against a
        server that accepts connections but refuses commands, for lack of a permission for example.
        """
        broker.failed(self, exc)
        with _reported_once(self):
            super().on_connection_error_after_connected(exc)
        lasted_seconds = monotonic() - self.__dict__.get("_lost_at", float("-inf"))
        again = self.__dict__.get("_lost_again", 0) + 1 if lasted_seconds < STABLE_SECONDS else 0
        pause_ends_at = monotonic() + (min(0.5 * 2.0 ** min(again - 1, 10), LONGEST_PAUSE_SECONDS) if again else 0.0)
        while monotonic() < pause_ends_at:
            maybe_shutdown()
            sleep(LOOK_SECONDS)
        self._lost_again, self._lost_at = again, monotonic()

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, again until it succeeds. An outage is reported once, not at each attempt."""
        with _reported_once(self):
            connected = super().ensure_connected(conn)
        broker.works(self)
        return connected

    def update_strategies(self) -> None:
        """Build the strategy and the tracer of each task type.

        Tools that replace ``build_tracer``, such as Sentry, do so when tasks are imported, which is after Celery's
        consumer has imported it by name.
        """
        super().update_strategies()
        if (build := stock_trace.build_tracer) is not _stock_module.build_tracer:
            for name, task in self.app.tasks.items():
                task.__trace__ = build(name, task, self.app.loader, self.hostname, app=self.app)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return the message handler: Celery's own behind a guard."""
        if self.event_dispatcher is not None:
            # Celery publishes after 24 events, which is eight short tasks; each turn sends the buffered ones anyway.
            self.event_dispatcher.buffer_limit = EVENTS_AT_ONCE
        # Follow-ups of coroutines are assembled on the loop, which must not wait for a connection at that point.
        self.app.submitter.open()
        handle = super().create_task_handler(*args, **kwargs)
        strategies, callbacks, admission = self.strategies, self.on_task_message, Admission(self.app)
        taken_at_once = self.connection.default_channel.accepted = admission.taken_at_once

        def on_message(message: Any) -> None:
            try:
                if message.content_type not in taken_at_once:
                    admission.check(message)
                if is_checked_claim(message) and (strategy := strategies.get(message.headers["task"])) is not None:
                    strategy(message, None, message.ack_log_error, message.reject_log_error, callbacks)
                else:
                    handle(message)
            except (BadHeader, MessageRefused) as error:
                # Without a valid signature, the task id in the message cannot be trusted.
                fails_task = self.app.signing is None or not isinstance(error, MessageRefused)
                self._bury(message, str(error), fails_task=fails_task)
            except (RedisError, OSError, OperationalError) as error:
                if not isinstance(message, Received):
                    raise
                self._give_back_failed(message, error)
            except (WorkerShutdown, WorkerTerminate):
                raise
            except BaseException as error:  # noqa: BLE001 - no message may end the worker
                self._bury_or_repeat(message, error)

        return on_message

    def start(self) -> None:
        """Consume as Celery does; an error that ends the consumer counts as a crash for the tasks this node holds."""
        try:
            super().start()
        except (WorkerShutdown, WorkerTerminate):
            raise
        except BaseException:
            runtime.crash()
            raise

    def on_send_event_buffered(self) -> None:
        """Send buffered events soon, in one batch."""
        if isinstance(self.hub, LoopHub):
            self.hub.soon_on_loop(self._flush_events)
        else:
            super().on_send_event_buffered()

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Acknowledge or reject now: the engine allows this on any thread, and the slot is freed at once."""
        if isinstance(self.connection.default_channel, EngineChannel):
            return p(*args, **kwargs)
        return super().call_soon_ack(p, *args, **kwargs)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Bury a message whose body cannot be decoded."""
        self._bury(message, f"its body cannot be decoded: {text_of(exc)}", fails_task=self.app.signing is None)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Bury a message that is not a task."""
        self._bury(message, f"it is not a task: {type(body).__name__} without a task name")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002 - Celery's signature
        """Bury a task with invalid headers."""
        self._bury(message, in_words(exc))

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Park a task of a type that this node lacks; on other brokers, fail the task and reject its message."""
        channel, headers = message.channel, message.headers
        if isinstance(channel, EngineChannel):
            name = headers["task"]
            logger.warning("this node has no task type %r; its messages wait for a node that has it", name)
            channel.park(message.delivery_tag, name)
            return
        named = headers if "task" in headers else body
        name, task_id = named.get("task"), named.get("id")
        logger.error("this node has no task type %r; rejecting its message", name)
        error = self.app.tasks.lacking.get(name) or NotRegistered(name)
        self._drop(message, error)
        if self.event_dispatcher:
            self.event_dispatcher.send("task-failed", uuid=task_id, exception=f"{type(error).__name__}({name!r})")
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=task_id)
        report_end(self.app, headers, "FAILURE", 0)

    def add_task_queue(self, queue: Any, *args: Any, **options: Any) -> None:
        """Start consuming a queue, as requested by remote control; log an error if the request is invalid."""
        try:
            super().add_task_queue(queue, *args, **options)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            logger.error("could not start consuming queue %r: %r", queue, error)

    def cancel_task_queue(self, queue: Any) -> None:
        """Stop consuming a queue, as requested by remote control; log an error if the request is invalid."""
        try:
            super().cancel_task_queue(queue)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            logger.error("could not stop consuming queue %r: %r", queue, error)

    def _limit_task(self, request: Any, bucket: Any, tokens: int) -> None:
        """Run a rate-limited task when its turn comes; until then it holds no slot, see ``rate_limits``."""
        if not isinstance(request.message.channel, EngineChannel):
            super()._limit_task(request, bucket, tokens)
            _note_held(request, bucket)
            return
        limits = self.__dict__.get("_rate_limits")
        if limits is None:
            call_later = self.hub.call_later if self.hub is not None else self.timer.call_after
            limits = self._rate_limits = RateLimits(self._limit_move_to_pool, call_later)
        limits.take(request, bucket.fill_rate / tokens)

    def _limit_post_eta(self, request: Any, bucket: Any, tokens: int) -> None:
        """Do the same for a delayed task of another broker that has become due."""
        super()._limit_post_eta(request, bucket, tokens)
        _note_held(request, bucket)

    def _limit_move_to_pool(self, request: Any) -> None:
        """Run a task whose turn has come; its waiting time counts from now, as it could not run before."""
        if READY_AT_HEADER in request.request_dict and not isinstance(request.message.channel, EngineChannel):
            request.request_dict[READY_AT_HEADER] = time()
        super()._limit_move_to_pool(request)

    # --- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Drain: stop claiming, requeue unstarted tasks, and keep the loop running until the others have ended.

        Celery calls this first when it stops. ``Drain`` enforces the deadline and ends the process.
        """
        self.controller.drain.begin(self.controller.exitcode or 0)
        if self.connection is None or self.task_consumer is None:
            return
        try:
            self.task_consumer.cancel()
            self._give_back_what_waits(also_foreign=True)
            self._turn_while(runs_something)
        except (RedisError, OSError, OperationalError) as error:
            logger.warning("the connection broke while draining: %s", error)

    def _turn_while(self, condition: Callable[[], bool]) -> None:
        loop = None
        while condition():
            if self.hub is None:
                self.perform_pending_operations()
                with suppress(TimeoutError):
                    self.connection.drain_events(timeout=TURN_SECONDS)
                continue
            loop = loop or self.hub.create_loop()
            try:
                next(loop)
            except StopIteration:
                loop = None

    def loop_args(self) -> tuple[Any, ...]:
        """Return the arguments of Celery's loop; shorten the waits of the one without a hub, two seconds by default."""
        consumer, connection, *rest = super().loop_args()
        return consumer, connection if self.hub is not None else _ShortWaits(connection), *rest

    def perform_pending_operations(self) -> None:
        """Run the operations that other threads left for the loop's thread; without a hub, a turn begins here."""
        super().perform_pending_operations()
        if self.hub is None:
            self.controller.turn()

    def _give_back_what_waits(self, *, also_foreign: bool = False) -> None:
        """Requeue tasks that were received but have not started; those of other brokers only if ``also_foreign``."""
        if self.controller.semaphore is not None:
            self.controller.semaphore.clear()
        for request in tuple(reserved_requests):
            # A task in the pool will run, even if its start has not been reported yet.
            if request in active_requests or pool_result(request) is not None or request.acknowledged:
                continue
            if isinstance(request.message.channel, EngineChannel):
                request.message.channel.give_back(request.message.delivery_tag)
            elif also_foreign:
                request.message.requeue()
            else:
                continue
            task_ready(request)

    def on_close(self) -> None:
        """Requeue unstarted tasks: Celery would forget them and rely on the broker to redeliver."""
        self._give_back_what_waits()
        super().on_close()

    def _bury(self, message: Any, problem: str, *, fails_task: bool = True) -> None:
        """Move a message to the dead letters; if ``fails_task``, fail the task that it names."""
        problem = problem[:LONGEST_PROBLEM]
        if _is_command(message):
            logger.error("dropping an unusable remote-control command: %s", problem)
            return
        logger.error("moving an unusable message to the dead letters: %s", problem)
        if isinstance(message.channel, EngineChannel):
            settlement = None if fails_task else Settlement()
            message.channel.bury(message.delivery_tag, "unreadable", problem, settlement)
        elif not message.acknowledged:
            self._drop(message, InvalidTaskError(problem) if fails_task else None)
        signals.task_rejected.send(sender=self, message=message, exc=None)

    def _drop(self, message: Any, error: Exception | None) -> None:
        """Reject a message of another broker; if ``error`` is given, fail its task with that first."""
        reject = partial(message.reject_log_error, logger, self.connection_errors)
        if error is None:
            reject()
            return
        self.controller.failer.fail(message, error, lambda: self.call_soon(reject))

    def _bury_or_repeat(self, message: Any, error: BaseException) -> None:
        """Bury a message that cannot be handled; requeue it if that is the doing of a task."""
        if isinstance(error, RecursionError) and recursion.restore() and isinstance(message, Received):
            message.channel.give_back(message.delivery_tag, "unstarted")
        else:
            self._bury(message, in_words(error))

    def _give_back_failed(self, message: Received, error: Exception) -> None:
        """Requeue a message that this node could not handle, as a crash, so that retries of it are limited."""
        logger.error("could not handle a message: %r; retrying it in %g s", error, FAILED_AGAIN_SECONDS)
        message.channel.give_back(message.delivery_tag, "crashed", delay_seconds=FAILED_AGAIN_SECONDS)


@contextmanager
def _reported_once(part: object) -> Iterator[None]:
    """Report once for an outage what Celery logs when it loses a connection, and at each attempt to connect."""

    def is_other(record: logging.LogRecord) -> bool:
        args = record.args if isinstance(record.args, tuple) else ()
        if record.msg == _stock_module.CONNECTION_ERROR and len(args) > 1:
            broker.failed(part, f"{args[0]}: {args[1]}")
            return False
        return _stock_module.CONNECTION_RETRY not in args

    _stock_module.logger.addFilter(is_other)
    try:
        yield
    finally:
        _stock_module.logger.removeFilter(is_other)


def _note_held(request: Any, bucket: Any) -> None:
    """Mark ``request`` as not ready yet if Celery has just put it into ``bucket`` to wait for its turn."""
    if bucket.contents and bucket.contents[-1][0] is request:
        request.request_dict[READY_AT_HEADER] = None


class _ShortWaits:
    """A connection with waits short enough for a loop to notice a stop request soon."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def drain_events(self, timeout: float) -> Any:
        return self._connection.drain_events(timeout=min(timeout, TURN_SECONDS))


def _is_command(message: Any) -> bool:
    """Return whether ``message`` is a remote-control command, which is neither acknowledged nor rejected."""
    if isinstance(message.channel, EngineChannel):
        return not isinstance(message, Received)
    tag = (message.delivery_info or {}).get("consumer_tag")
    return tag in (getattr(message.channel, "no_ack_consumers", None) or ())
