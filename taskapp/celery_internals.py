"""Private names of Celery, kombu, billiard and py-amqp that taskapp uses, behind plain names, with the reasons.

``ACCESSED`` lists the names that the functions below use. ``INHERITED`` lists the names that taskapp's subclasses use
or override in the classes they extend. Each name is listed with the class or module that defines
it. Tests compare both tables with the code, and pin the source of every name in them. The names of redis-py are in
``taskapp.redis.internals``, because the engine depends on neither Celery nor kombu.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from celery import _state
from celery.utils import functional

Table = dict[str, dict[str, str]]
"""``module:class`` or ``module``, then names separated by spaces, then the reason."""

ACCESSED: Table = {
    "celery._state": {
        "_task_stack": "the stack of running tasks: its push and pop functions would cost two calls per task",
    },
    "celery.app.task:Context": {"_protected": "distinguishes the call that runs a task from calls in its body"},
    "celery.app.task:Task": {
        "_backend": "the task type's own result backend: .backend would create the app's",
        "_get_exec_options": "the options of each message of a task type, as apply_async reads them",
    },
    "celery.app.amqp:AMQP": {
        "_event_dispatcher": "sends the event of a submit: beat sends prepared messages",
        "_retry_publish": "sends the follow-ups of a task like Celery's tracer",
    },
    "celery.app.trace": {"_signal_internal_error": "reports an error of the tracer itself like Celery's tracer"},
    "celery.app.trace:TraceInfo": {"_log_error": "logs a failure in Celery's words"},
    "celery.apps.worker": {"_shutdown_handler": "adds a signal to those that stop a worker"},
    "celery.backends.base": {"_result_errbacks": "finds the errbacks of the rest of a chain"},
    "celery.backends.rpc:RPCBackend": {"_to_result": "identifies backends that send results as messages"},
    "celery.beat": {
        "_evaluate_entry_args": "computes the lazy arguments of an entry",
        "_evaluate_entry_kwargs": "the same for keyword arguments",
    },
    "celery.result:AsyncResult": {
        "_cache": "the known state of a result: .result and .state would ask the server",
        "_get_task_meta": "reads a result once, without waiting",
        "_maybe_set_cache": "stores an outcome that was read together with others",
    },
    "celery.result:EagerResult": {"_name": "the name of an eager task's type; an EagerResult has no other"},
    "celery.schedules:crontab": {
        "_orig_minute _orig_hour _orig_day_of_week _orig_day_of_month _orig_month_of_year":
            "the fields as they were written",
    },
    "celery.utils.functional": {"_regen": "the class of chord headers that are generated while they are read"},
    "celery.worker.consumer.consumer:Consumer": {
        "_limit_task": "delays a task for its rate limit, like Celery's strategy",
        "_limit_post_eta": "the same, once it is due",
    },
    "celery.worker.pidbox:gPidbox": {"_node_stopped": "set when the listening greenlet has ended"},
    "celery.worker.request:Request": {
        "_apply_result": "set when the pool has accepted the request",
        "_context": "the request in the form that result backends expect",
        "_payload": "decoded content of the message's body",
        "_request_dict": "headers of the message, which its run sees as self.request",
        "_eta_timer_entry": "lets Celery cancel the timer of a revoked task",
    },
    "celery.worker.worker:WorkController": {"_conninfo": "the connection whose hub the worker uses"},
    "kombu.compression": {"_aliases": "the names of compressions, for an error that lists them"},
    "kombu.connection:Connection": {"_info": "the options from which a pool creates further connections"},
    "kombu.serialization:SerializerRegistry": {"_encoders": "the names of serializers that can write"},
    "kombu.utils.eventio:_epoll": {"_epoll": "the poller's descriptor, for a loop that waits on it"},
    "kombu.utils.eventio:_kqueue": {"_kqueue": "the same, on BSD and macOS"},
    "billiard.pool:ApplyResult": {"_write_to": "the child a job was written to"},
    "billiard.pool:Pool": {"_pool": "the child processes"},
    "billiard.util": {"_afterfork_registry": "the hooks of a forked process, to run only those of taskapp's app"},
    "billiard.process:BaseProcess": {"_is_alive": "checks a child; is_alive() raises for a closed one"},
}  # fmt: skip

INHERITED: Table = {
    "celery.app.amqp:AMQP": {
        "_create_task_sender": "messages are checked and perhaps collected before Celery's own sender gets them",
        "_event_dispatcher": "the event of a submit is sent as one command",
        "_retry_publish": "follow-ups are sent in the step that settles their task",
    },
    "celery.app.autoretry": {"_orig_run": "keeps Celery from wrapping a task in its own retry"},
    "celery.app.base:Celery": {
        "_backend": "threads that need the first backend at the same time get the same one",
        "_backend_cache _local": "a forked process drops the backend it inherited",
        "_conf": "a configuration that could not be completed is loaded again",
        "_connection": "looks for the broker when a connection is first needed",
        "_finalize_mutex": "one lock for objects that the app creates once",
        "_get_backend": "chooses and wraps the result backend",
        "_load_config _pending_defaults": "fills in what the project has not set, before anything reads it",
        "_pool": "closed if it exists; .pool would create it",
        "_tasks": "the known task types; .tasks would finalize the app at its first submit",
    },
    "celery.app.log:Logging": {"_detect_handler": "creates the handlers of a log whose lines are written together"},
    "celery.app.task:Task": {
        "_backend": "shows whether a type has its own backend",
        "_dump_pydantic_arguments": "dumps models like Celery's apply_async",
        "_get_exec_options": "the options of each message of a task type",
    },
    "celery.apps.worker:Worker": {"_isatty": "a closed terminal drains"},
    "celery.backends.asynchronous:AsyncBackendMixin": {"_wait_for_pending": "waits for the results of a set"},
    "celery.backends.asynchronous:BaseResultConsumer": {"_wait_for_pending": "waits with one connection for all"},
    "celery.backends.base:Backend": {
        "_call_task_errbacks _errback_arity_greater _fail_chain": "calls errbacks; fails what a failed chord leaves",
        "_ensure_not_eager": "refuses to wait for an eager task",
        "_get_result_meta": "the stored form of a result, built without reading the configuration each time",
    },
    "celery.backends.base:BaseKeyValueStoreBackend": {
        "_get_task_meta_for": "reads within the bounds of a result",
        "_store_result": "stores fenced, and in the step that settles the task",
    },
    "celery.backends.base:DisabledBackend": {"_is_disabled": "raises an error that names the setting"},
    "celery.backends.redis:RedisBackend": {
        "_transport_options": "options given as result_backend_transport_options",
        "_unpack_chord_result": "a part of a chord, as Celery writes it",
        "_chord_part_return_script _chord_cleanup_script _chord_claim_extend_script":
            "bound to a client that a forked process must not use",
    },
    "celery.backends.rpc:RPCBackend": {"_to_result": "the message of a result"},
    "celery.beat:Scheduler": {"_ensure_connected": "a beat that cannot connect reports it to its probes"},
    "celery.canvas:Signature": {"_app _type": "the copy of a group's member keeps them"},
    "celery.concurrency.base:BasePool": {"_get_info": "the pool's part of inspect stats"},
    "celery.concurrency.prefork:TaskPool": {"_pool": "the pool of child processes, once it exists"},
    "celery.events.dispatcher:EventDispatcher": {
        "_group_buffer": "the number of waiting events is bounded",
        "_publish": "events are published without waiting",
    },
    "celery.fixups.django:DjangoWorkerFixup": {
        "_close_database": "closes connections whatever their age: those that a child must not inherit",
    },
    "celery.result:AsyncResult": {
        "_cache _ignored": "set without Celery's constructor, which creates a promise for each result",
        "_maybe_reraise_parent_error": "called while get() waits",
        "_on_fulfilled": "the promise is created when it is first used",
        "_set_cache": "replaces an error that must not be raised",
    },
    "celery.utils.dispatch.signal:Signal": {"_live_receivers": "a receiver that exits affects only itself"},
    "celery.worker.consumer.consumer:Consumer": {
        "_flush_events": "events are flushed at taskapp's own interval",
        "_limit_move_to_pool _limit_post_eta _limit_task": "a task delayed for its rate limit keeps its lease",
    },
    "celery.worker.request:Request": {
        "_announce_revoked": "a revoked task is settled, not only acknowledged",
        "_app _argsrepr _body _content_encoding _content_type _decoded _delivery_info _eta _eventer _expires _hostname "
        "_ignore_result _kwargsrepr _message _parent_id _request_dict _root_id _task _type _utc":
            "set without Celery's constructor, which decodes the body in the loop",
        "_apply_result": "what the pool returned",
        "_args _kwargs": "the arguments in the payload",
        "_connection_errors": "distinguishes a lost connection from an error",
        "_context": "the request in the form that result backends expect",
        "_on_ack _on_reject": "acknowledges a message of another broker",
        "_payload": "the body is decoded where it runs, or on first use",
        "_retry_worker_lost": "a task whose child died is returned as after a crash",
        "_success_was_stored": "a task that has succeeded does not fail afterwards",
        "_terminate_on_ack": "a task revoked before its start ends when it starts",
    },
    "kombu.asynchronous.hub:Hub": {
        "_create_poller _poller": "the poller runs an asyncio loop while it waits",
        "_loop_thread _waker": "another thread wakes the loop",
        "_register_fd _unregister_fd": "descriptors are polled by number",
    },
    "kombu.message:Message": {"_decoded_cache _state": "set without kombu's constructor"},
    "kombu.pidbox:Mailbox": {
        "_collect": "answers are collected until everybody has answered",
        "_publish": "the channel that publishes knows how many received a question",
    },
    "kombu.transport.redis:Channel": {
        "_async_pool _pool": "closed with the channel",
        "_basic_cancel": "claims stop for a queue that is no longer consumed",
        "_brpop_read": "reads only complete answers",
        "_brpop_sent_at _brpop_start": "consumers without acknowledgement wait for lists of both names",
        "_connparams": "connections leave their poller before they close",
        "_delete _purge _put _put_fanout _size": "the engine owns the queues",
        "_fanout_queues": "distinguishes broadcast queues from task queues",
        "_get_pool": "the options of connections",
        "_get_publish_topics": "the topics of broadcasts",
        "_in_poll": "the connection of a pending BRPOP",
        "_queue_bind": "only broadcasts need bindings",
        "_queue_cycle": "consumers without acknowledgement take turns",
        "_receive": "delivers only complete messages",
        "_receive_one": "delivers one message",
        "_refresh_bindings": "only broadcasts need bindings",
    },
    "kombu.transport.redis:MultiChannelPoller": {
        "_channels _fd_to_chan _in_protected_read": "the engine's descriptors are polled next to kombu's",
    },
    "kombu.transport.redis:SentinelChannel": {
        "_get_pool": "the options of connections",
        "_get_publish_topics": "the topics of broadcasts",
    },
    "kombu.transport.virtual.base:Channel": {
        "_consumers": "consumers that are cancelled together",
        "_get_message_priority": "a priority within its bounds",
        "_lookup": "a task that no queue would get is refused",
        "_next_delivery_tag": "tags of messages outside the engine",
        "_tag_to_queue": "the queue of a consumer",
    },
    "kombu.transport.virtual.base:Message": {"_raw": "set without kombu's constructor"},
    "kombu.transport.virtual.base:Transport": {"_deliver": "a message from a list of the engine belongs to its queue"},
    "kombu.transport.virtual.base:QoS": {"_delivered": "what was delivered and not acknowledged"},
    "billiard.pool:Pool": {"_cache": "a job that could not be sent must not occupy an entry"},
    "amqp.channel:Channel": {
        "_basic_publish": "publishes within the deadline of a submit",
        "_confirm_selected": "turns on confirms once",
    },
}  # fmt: skip

current_tasks: Any = _state._task_stack  # type: ignore[attr-defined]  # the stubs lack it
"""Celery's stack of running tasks. One object, which Celery's modules hold by name."""

Regenerated: type = functional._regen  # type: ignore[attr-defined]  # missing in the stubs

# Implemented in C: as fast as the attribute access itself.
own_backend: Callable[[Any], Any] = attrgetter("_backend")
cached_meta: Callable[[Any], Any] = attrgetter("_cache")
context_of: Callable[[Any], Any] = attrgetter("_context")
headers_of: Callable[[Any], Any] = attrgetter("_request_dict")
content_of: Callable[[Any], Any] = attrgetter("_payload")
pool_result: Callable[[Any], Any] = attrgetter("_apply_result")
children_of: Callable[[Any], Any] = attrgetter("_pool")
child_of: Callable[[Any], Any] = attrgetter("_write_to")


def is_current(app: Any) -> bool:
    """Return whether ``app`` is the current app of this thread."""
    state: Any = _state
    return state.get_current_app() is app


def on_app_finalize(call: Callable[[Any], None]) -> None:
    """Call ``call`` with each app that is finalized from now on, of any class."""
    state: Any = _state
    state.connect_on_app_finalize(call)


def default_app() -> Any:
    """Return the app that threads without a current app use; ``None``: there is none yet."""
    state: Any = _state
    return state.default_app


def is_single_result(result: Any) -> bool:
    """Return whether ``result`` belongs to a single task: only those have a cache."""
    return hasattr(result, "_cache")


def note_meta(result: Any, meta: Any) -> None:
    """Store ``meta`` in ``result`` if it is final."""
    result._maybe_set_cache(meta)


def read_meta(result: Any) -> Any:
    """Read ``result`` once and return its meta; blocks."""
    return result._get_task_meta()


def exec_options(task: Any) -> dict[str, Any]:
    """Return the options of each message of ``task``."""
    options: dict[str, Any] = task._get_exec_options()
    return options


def sends_results(backend: type) -> bool:
    """Return whether ``backend`` sends each result as a message, like ``rpc://``."""
    return hasattr(backend, "_to_result")


def eager_name(result: Any) -> Any:
    """Return the name of the type of an eager task."""
    return result._name


def begin_call(request: Any) -> bool:
    """Return whether this is the call that runs the task of ``request``, not a further call in its body."""
    if request._protected:
        return False
    request._protected = True
    return True


def serializers() -> Any:
    """Return the names of serializers that can write."""
    from kombu import serialization

    return serialization.registry._encoders.keys()  # type: ignore[attr-defined]  # missing in the stubs


def compressions() -> Any:
    """Return the names of compressions."""
    from kombu import compression

    return compression._aliases.keys()  # type: ignore[attr-defined]  # the same


def announcer(amqp: Any) -> Any:
    """Return the dispatcher of ``task-sent`` events."""
    return amqp._event_dispatcher


def send_follow_up(amqp: Any, publish: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call ``publish``, with retries like Celery's tracer."""
    return amqp._retry_publish(publish, *args, **options)


def errbacks_of(signature: Any, app: Any) -> Any:
    """Return ``(task id, errbacks)`` of one task of a group."""
    from celery.backends.base import _result_errbacks  # type: ignore[attr-defined]  # missing in the stubs

    return _result_errbacks(signature, app)


def signal_internal_error(*args: Any, **options: Any) -> None:
    """Send the signal of an error of the tracer itself."""
    from celery.app import trace

    trace._signal_internal_error(*args, **options)  # type: ignore[attr-defined]  # missing in the stubs


def log_failure(info: Any, task: Any, request: Any, einfo: Any) -> None:
    """Log the failure in ``info``, Celery's ``TraceInfo``."""
    info._log_error(task, request, einfo)


def drain_on(worker: Any, signal: str) -> None:
    """Make ``signal`` stop ``worker`` like SIGTERM."""
    from celery.apps import worker as program

    program._shutdown_handler(worker, sig=signal)  # type: ignore[attr-defined]  # missing in the stubs


def entry_call(entry: Any) -> tuple[Any, Any]:
    """Return args and kwargs of an entry of ``beat_schedule``, with lazy ones computed."""
    from celery import beat

    args: Any = beat._evaluate_entry_args(entry.args)  # type: ignore[attr-defined]  # missing in the stubs
    return args, beat._evaluate_entry_kwargs(entry.kwargs)  # type: ignore[attr-defined]  # the same


def crontab_fields(schedule: Any) -> dict[str, Any]:
    """Return the fields of a ``crontab`` as they were written."""
    return {
        "minute": schedule._orig_minute, "hour": schedule._orig_hour, "day_of_month": schedule._orig_day_of_month,
        "month_of_year": schedule._orig_month_of_year, "day_of_week": schedule._orig_day_of_week,
    }  # fmt: skip


def hold_for_rate(consumer: Any, request: Any, bucket: Any) -> None:
    """Delay ``request`` until its type's rate limit permits it."""
    consumer._limit_task(request, bucket, 1)


def holds_due_for_rate(consumer: Any) -> Any:
    """Return the function that delays a due request until its type's rate limit permits it."""
    return consumer._limit_post_eta


def note_timer(request: Any, timer: Any) -> None:
    """Store the timer of ``request``, so that a revocation cancels it."""
    request._eta_timer_entry = timer


def end_of_listening(box: Any) -> Any:
    """Return the event of the greenlet that currently listens for ``box``; ``None``: there is none."""
    return box._node_stopped


def broker_connection(worker: Any) -> Any:
    """Return the connection whose hub ``worker`` uses."""
    return worker._conninfo


def connection_options(connection: Any) -> dict[str, Any]:
    """Return the options for another connection like ``connection``."""
    return dict(connection._info(resolve=False))


def poller_descriptor(poller: Any) -> int:
    """Return the descriptor that is readable when a descriptor of kombu's ``poller`` is."""
    descriptor: int = (poller._epoll if hasattr(poller, "_epoll") else poller._kqueue).fileno()
    return descriptor


def after_forkers() -> list[tuple[Callable[[Any], Any], Any]]:
    """Return the hooks of forked processes with their arguments, in the order of registration."""
    from billiard import util

    registered: Any = util._afterfork_registry  # type: ignore[attr-defined]  # missing in the stubs
    ordered = sorted(registered.items(), key=lambda item: item[0][0])
    return [(function, thing) for (_, _, function), thing in ordered]


def is_child_alive(child: Any) -> bool:
    """Return whether ``child`` runs."""
    return bool(child._is_alive())
