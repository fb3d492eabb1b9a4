"""Celery's consumer, which loses no message it cannot use and gives back what it has not begun."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from time import monotonic, sleep, time
from typing import Any

from celery import signals
from celery.app import trace as stock_trace
from celery.exceptions import InvalidTaskError, NotRegistered, WorkerShutdown, WorkerTerminate
from celery.utils.log import get_logger
from celery.worker import consumer as stock
from celery.worker.consumer import consumer as stock_module
from celery.worker.state import active_requests, maybe_shutdown, reserved_requests, task_ready
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError, ResponseError

from taskapp.celery_internals import pool_result
from taskapp.engine import runtime
from taskapp.engine.headers import BadHeader, check_foreign_headers, check_headers
from taskapp.engine.settlement import Settlement
from taskapp.errors.tasks import MessageRefused
from taskapp.errors.wording import in_words, text_of
from taskapp.transport.channel import EngineChannel
from taskapp.transport.codec import READY_AT_HEADER
from taskapp.transport.message import Received
from taskapp.worker.consume.admission import Admission
from taskapp.worker.consume.rate_limits import RateLimits
from taskapp.worker.pool.hub import LoopHub
from taskapp.worker.process.running import runs_something
from taskapp.worker.run.tick_dedup import tell_end

logger = get_logger(__name__)

EVENTS_AT_ONCE = 150
LONGEST_PROBLEM = 500
TURN_SECONDS = 0.2
FAILED_AGAIN_SECONDS = 1.0
"""How long a message waits that failed at something outside of it, such as a server."""

STABLE_SECONDS = 15.0
"""A connection that lasted so long did not fail again."""
LONGEST_PAUSE_SECONDS = 5.0
LOOK_SECONDS = 0.1

# The stubs lack half of them.
_Stock: Any = stock.Consumer
_stock_module: Any = stock_module


class Consumer(_Stock):
    """One message never ends the worker: what cannot be used goes to the dead letters, as it came."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A server that refuses what others do at the same moment, such as a replica that is being promoted, may take
        # it a second later; Celery knows only of connections that break, and would end the node.
        self.connection_errors: tuple[type[Exception], ...] = (*self.connection_errors, ResponseError)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Connect again, as Celery does; when that keeps failing, with a pause before it that grows.

        Celery connects without end, and at once: a server that takes connections and refuses what is asked
        over them, for want of a permission for example, would be asked hundreds of times a second.
        """
        super().on_connection_error_after_connected(exc)
        lasted_seconds = monotonic() - self.__dict__.get("_lost_at", float("-inf"))
        again = self.__dict__.get("_lost_again", 0) + 1 if lasted_seconds < STABLE_SECONDS else 0
        pause_ends_at = monotonic() + (min(0.5 * 2.0 ** min(again - 1, 10), LONGEST_PAUSE_SECONDS) if again else 0.0)
        while monotonic() < pause_ends_at:
            maybe_shutdown()
            sleep(LOOK_SECONDS)
        self._lost_again, self._lost_at = again, monotonic()

    def update_strategies(self) -> None:
        """Make what takes and traces the messages of each task type.

        Who replaces ``build_tracer``, as Sentry does, does so where tasks are imported: later than Celery's consumer
        takes it by name.
        """
        super().update_strategies()
        if (build := stock_trace.build_tracer) is not _stock_module.build_tracer:
            for name, task in self.app.tasks.items():
                task.__trace__ = build(name, task, self.app.loader, self.hostname, app=self.app)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return what takes a message: Celery's handler behind a guard."""
        if self.event_dispatcher is not None:
            # Celery publishes every 24 events, the news of eight short tasks; waiting ones go out once a turn anyway.
            self.event_dispatcher.buffer_limit = EVENTS_AT_ONCE
        # What follows a run of a coroutine is put together on the loop, which must not wait for a connection then.
        self.app.submitter.open()
        handle = super().create_task_handler(*args, **kwargs)
        strategies, callbacks, admission = self.strategies, self.on_task_message, Admission(self.app)
        taken_at_once = admission.taken_at_once

        def on_message(message: Any) -> None:
            try:
                if message.content_type not in taken_at_once:
                    admission.check(message)
                if _is_ours(message) and (strategy := strategies.get(message.headers["task"])) is not None:
                    strategy(message, None, message.ack_log_error, message.reject_log_error, callbacks)
                else:
                    handle(message)
            except (BadHeader, MessageRefused) as error:
                # Whose id a message bears that nobody vouches for is not known.
                is_told = self.app.signing is None or not isinstance(error, MessageRefused)
                self._bury(message, str(error), is_told=is_told)
            except (RedisError, OSError, OperationalError) as error:
                if not isinstance(message, Received):
                    raise
                self._give_back_failed(message, error)
            except (WorkerShutdown, WorkerTerminate):
                raise
            except BaseException as error:  # noqa: BLE001 - whatever is wrong with a message, the worker goes on
                self._bury(message, in_words(error))

        return on_message

    def start(self) -> None:
        """Consume, as Celery does; an error that ends this counts as a crash for what this node holds."""
        try:
            super().start()
        except (WorkerShutdown, WorkerTerminate):
            raise
        except BaseException:
            runtime.crash()
            raise

    def on_send_event_buffered(self) -> None:
        """Let events go out soon, all of this moment at once."""
        if isinstance(self.hub, LoopHub):
            self.hub.soon_on_loop(self._flush_events)
        else:
            super().on_send_event_buffered()

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Acknowledge or reject now: the engine takes it from any thread, and the slot is free at once."""
        if isinstance(self.connection.default_channel, EngineChannel):
            return p(*args, **kwargs)
        return super().call_soon_ack(p, *args, **kwargs)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Bury a message whose body cannot be decoded."""
        self._bury(message, f"its body cannot be decoded: {text_of(exc)}", is_told=self.app.signing is None)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Bury what is no task."""
        self._bury(message, f"it is not a task: {type(body).__name__} without a task's name")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002 - Celery's signature
        """Bury a task whose headers are wrong."""
        self._bury(message, in_words(exc))

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Set a task of a type this node lacks aside, for a node that has it; other brokers drop it."""
        channel, headers = message.channel, message.headers
        if isinstance(channel, EngineChannel):
            name = headers["task"]
            logger.warning("no task type %r here; its messages wait for a node that has it", name)
            channel.park(message.delivery_tag, name)
            return
        named = headers if "task" in headers else body
        name, task_id = named.get("task"), named.get("id")
        logger.error("no task type %r here; its message is rejected", name)
        self._drop(message, NotRegistered(name))
        if self.event_dispatcher:
            self.event_dispatcher.send("task-failed", uuid=task_id, exception=f"NotRegistered({name!r})")
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=task_id)
        tell_end(self.app, headers, "FAILURE", 0)

    def add_task_queue(self, queue: Any, *args: Any, **options: Any) -> None:
        """Consume one queue more, as remote control asks for; what it asks for that is none is logged."""
        try:
            super().add_task_queue(queue, *args, **options)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            logger.error("queue %r cannot be consumed: %r", queue, error)

    def cancel_task_queue(self, queue: Any) -> None:
        """Consume one queue less, in the same way."""
        try:
            super().cancel_task_queue(queue)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            logger.error("queue %r cannot be left: %r", queue, error)

    def _limit_task(self, request: Any, bucket: Any, tokens: int) -> None:
        """Run a task at its turn; until then it holds no slot, see ``rate_limits``."""
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
        """Do the same with a task of another broker that has become due."""
        super()._limit_post_eta(request, bucket, tokens)
        _note_held(request, bucket)

    def _limit_move_to_pool(self, request: Any) -> None:
        """Run a task whose turn has come; one that was held for it could not run before."""
        if READY_AT_HEADER in request.request_dict and not isinstance(request.message.channel, EngineChannel):
            request.request_dict[READY_AT_HEADER] = time()
        super()._limit_move_to_pool(request)

    # --- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Drain: claim no more, give back what has not begun, and turn on until what runs has ended.

        Celery calls it first when it is told to stop. The deadline is ``Drain``'s: it ends the process.
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
        """Return what Celery's loop is called with; the one without a hub waits two seconds before it looks up."""
        consumer, connection, *rest = super().loop_args()
        return consumer, connection if self.hub is not None else _ShortWaits(connection), *rest

    def perform_pending_operations(self) -> None:
        """Do what others left for the loop's thread; without a hub, this is where a turn begins."""
        super().perform_pending_operations()
        if self.hub is None:
            self.controller.turn()

    def _give_back_what_waits(self, *, also_foreign: bool = False) -> None:
        """Give back what was received and not begun; what came from another broker only while that is connected."""
        if self.controller.semaphore is not None:
            self.controller.semaphore.clear()
        for request in tuple(reserved_requests):
            # What the pool has will run, even if its start was not reported yet.
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
        """Give back what was received and not begun: Celery forgets it and trusts the broker to notice."""
        self._give_back_what_waits()
        super().on_close()

    def _bury(self, message: Any, problem: str, *, is_told: bool = True) -> None:
        """Move a message to the dead letters; the task it says it is fails, if that ``is_told``."""
        problem = problem[:LONGEST_PROBLEM]
        if _is_command(message):
            logger.error("a remote-control command cannot be used and is dropped: %s", problem)
            return
        logger.error("a message cannot be used and goes to the dead letters: %s", problem)
        if isinstance(message.channel, EngineChannel):
            told_already = None if is_told else Settlement()
            message.channel.bury(message.delivery_tag, "unreadable", problem, told_already)
        elif not message.acknowledged:
            self._drop(message, InvalidTaskError(problem) if is_told else None)
        signals.task_rejected.send(sender=self, message=message, exc=None)

    def _drop(self, message: Any, error: Exception | None) -> None:
        """Reject a message of another broker, once its task has failed with ``error``, if with any."""
        reject = partial(message.reject_log_error, logger, self.connection_errors)
        if error is None:
            reject()
            return
        self.controller.teller.fail(message, error, lambda: self.call_soon(reject))

    def _give_back_failed(self, message: Received, error: Exception) -> None:
        """Give back a message at which this node failed; at one that brings this about again and again, as a crash."""
        logger.error("a message cannot be taken now: %r; it is tried again", error)
        message.channel.give_back(message.delivery_tag, "crashed", delay_seconds=FAILED_AGAIN_SECONDS)


def _note_held(request: Any, bucket: Any) -> None:
    """Note whether Celery holds ``request``, which was added to ``bucket`` last, for its turn."""
    if bucket.contents and bucket.contents[-1][0] is request:
        request.request_dict[READY_AT_HEADER] = None


class _ShortWaits:
    """A connection on which a loop soon sees that it is to stop."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def drain_events(self, timeout: float) -> Any:
        return self._connection.drain_events(timeout=min(timeout, TURN_SECONDS))


def _is_ours(message: Any) -> bool:
    """Check the headers of a message; return whether it was claimed from the engine.

    Raises:
        ValueError: Something is wrong.
    """
    if not isinstance(message, Received):
        check_foreign_headers(message.headers)
        return False
    if message.is_foreign:
        _check_foreign(message)
    else:
        check_headers(message.headers)
    return True


def _check_foreign(message: Received) -> None:
    """Check what this package makes sure of in the messages it writes.

    Raises:
        ValueError: Something is wrong.
    """
    headers = message.headers
    check_foreign_headers(headers)
    if not headers.get("id") or not headers.get("task"):
        raise BadHeader("headers: no id, or no task")
    payload: Any = message.payload
    if isinstance(payload, list | tuple) and len(payload) == 3:
        args, kwargs, embed = payload
        if isinstance(args, list | tuple) and isinstance(kwargs, Mapping) and isinstance(embed, Mapping | None):
            return
    raise ValueError("its body is not [args, kwargs, embed]")


def _is_command(message: Any) -> bool:
    """Return whether nobody acknowledges ``message``, nor can reject it: it is no task, but remote control."""
    if isinstance(message.channel, EngineChannel):
        return not isinstance(message, Received)
    tag = (message.delivery_info or {}).get("consumer_tag")
    return tag in (getattr(message.channel, "no_ack_consumers", None) or ())
