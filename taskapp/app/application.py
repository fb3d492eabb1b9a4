"""What every submit passes through, by ``delay()`` or by name: known task, known queue, size, deadline."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from celery.app import backends
from celery.app.amqp import AMQP
from kombu.exceptions import OperationalError
from kombu.utils.objects import cached_property
from redis.exceptions import RedisError

from taskapp.app.resources import EngineAccess
from taskapp.client import results
from taskapp.client.async_pusher import pusher
from taskapp.client.control import ControlClock
from taskapp.client.deferred_publish import CollectingProducer
from taskapp.client.option_checks import check_content, check_links, check_priority, times_of
from taskapp.client.patience import patiently, pause_or_raise, unavailable
from taskapp.client.protocol import arguments_as_json, new_id, properties, with_texts_of_ids
from taskapp.client.sender import Sender
from taskapp.client.sent_event import SentEventDispatcher
from taskapp.client.template import TaskTemplate
from taskapp.engine import settlement
from taskapp.engine.batch import collecting, holding
from taskapp.errors import (
    BrokerUnavailable,
    ConfigurationReplaced,
    NotQueued,
    UnknownTask,
)
from taskapp.errors.signing import SigningPackageMissing
from taskapp.queues import TASK_ROUTES
from taskapp.results.literal_dicts import as_literal, writing_literals
from taskapp.settings import get_settings
from taskapp.transport.codec import SENT_AT_HEADER
from taskapp.transport.rabbitmq import left_seconds
from taskapp.transport.transport import Connection, is_over_redis

if TYPE_CHECKING:
    from taskapp.client.signing import Signing

logger = logging.getLogger(__name__)

OWN_PREFIX = "taskapp."
CONFIG_FROM_OBJECT = "app.config_from_object()"
POSITIONAL_OPTIONS = ("countdown", "eta", "task_id", "producer", "connection", "router", "result_cls", "expires")
"""Those of ``Celery.send_task`` that may be given by position, as far as anybody does."""

_backend_by_url: Any = backends.by_url  # the stubs know another answer


class Amqp(AMQP):
    """Celery's AMQP with our connections."""

    Connection = Connection

    def _retry_publish(self, publish: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Send what follows a task: links and the rest of its chain, in the step that finishes it."""
        with settlement.collecting():
            return super()._retry_publish(publish, *args, **kwargs)  # type: ignore[misc]  # missing in the stubs

    @cached_property
    def _event_dispatcher(self) -> SentEventDispatcher:
        return SentEventDispatcher(super()._event_dispatcher)  # type: ignore[misc]  # missing in the stubs

    @cached_property
    def send_task_message(self) -> Any:
        """What sends one task through kombu; to another broker than Redis, what a run collects waits for its end."""
        app: Any = self.app
        send = self._create_task_sender()  # type: ignore[attr-defined]  # missing in the stubs

        def send_or_collect(producer: Any, name: str, message: Any, *args: Any, **options: Any) -> Any:
            check_priority(name, options.get("priority"))
            _forget_itself(message.headers, message.sent_event)
            run = settlement.current()
            if app.writes_json(options.get("serializer") or self.app.conf.task_serializer):
                message = message._replace(body=as_literal(message.body))
            if run is not None and not is_over_redis(self.app.conf.broker_url):
                producer = CollectingProducer(producer, run)
            if (signing := app.signing) is not None:
                producer = signing.producer(producer)
            return send(producer, name, message, *args, **options)

        return send_or_collect


def _forget_itself(*said: dict[str, Any] | None) -> None:
    """Name no task as its own parent, as Celery does in a retry."""
    for each in said:
        if each and each.get("parent_id") == each.get("id", each.get("uuid")):
            each["parent_id"] = None


class Application(EngineAccess):
    """Celery, refusing at the caller what could only fail later; looks for its broker when it needs it."""

    _backend_cache: Any
    _finalize_mutex: threading.RLock
    _local: threading.local
    _unusable_for: Exception | None = None
    finalized: bool

    def __init__(self, *args: Any, **options: Any) -> None:
        self.sender = Sender(self)
        """What brings tasks to the engine."""
        self.signing: Signing | None = None
        """What signs tasks and checks their signatures, once ``setup_security`` was called."""
        super().__init__(*args, **options)
        self.clock = ControlClock()

    def finalize(self, auto: bool = False) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Put the app together, as Celery does; one that cannot be, for a setting or a task type, says why each time.

        Celery says it once and goes on with the task types it had found until then.
        """
        with self._finalize_mutex:
            if self._unusable_for is not None:
                raise self._unusable_for.with_traceback(None)
            is_first = not self.finalized
            try:
                super().finalize(auto)
            except Exception as error:
                if is_first and self.finalized:
                    self._unusable_for = error
                raise

    def setup_security(
        self, allowed_serializers: Any = None, key: str | None = None, key_password: Any = None,
        cert: str | None = None, store: str | None = None, digest: str | None = None,
        serializer: str = "json",
    ) -> Any:  # fmt: skip
        """Sign tasks and take only signed ones, as Celery does; their headers are signed too, see ``client/signing``.

        Raises:
            celery.exceptions.ImproperlyConfigured: A ``security_…`` setting is missing, ``task_serializer`` is not
                ``auth`` or ``accept_content`` not ``["auth"]``.
            SigningPackageMissing: There is no ``cryptography``.
        """
        if find_spec("cryptography") is None:
            raise SigningPackageMissing
        digest = digest or self.conf.security_digest
        super().setup_security(allowed_serializers, key, key_password, cert, store, digest, serializer)
        from taskapp.client.signing import Signing  # only here: it needs ``cryptography``

        conf = self.conf
        self.signing = Signing(
            Path(key or conf.security_key), key_password or conf.security_key_password,
            Path(cert or conf.security_certificate), store or conf.security_cert_store, digest,
            serializer,
        )  # fmt: skip
        self.signing.register()

    def writes_json(self, serializer: str) -> bool:
        """Return whether ``serializer`` writes JSON, signed or not."""
        return serializer in ("json", "application/json") or (
            serializer == "auth" and self.signing is not None and self.signing.writes_json
        )

    def config_from_object(self, obj: Any, *_: Any, **__: Any) -> Any:
        """Refuse to replace the configuration.

        Raises:
            ConfigurationReplaced: Says how to set single values instead.
        """
        raise ConfigurationReplaced(f"app.config_from_object({obj!r})" if isinstance(obj, str) else CONFIG_FROM_OBJECT)

    def config_from_envvar(self, variable_name: str, *_: Any, **__: Any) -> Any:
        """Refuse to replace the configuration, as ``config_from_object`` does."""
        raise ConfigurationReplaced(f"app.config_from_envvar({variable_name!r})")

    def register_task(self, task: Any, **options: Any) -> Any:
        """Register a class-based task, as Celery does; ``options`` become attributes of its class."""
        task = task() if isinstance(task, type) else task
        for name, value in options.items():
            setattr(type(task), name, value)
        return super().register_task(task)

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """Send the task ``name``, as Celery does, after checking what can be checked here.

        Raises:
            UnknownTask: A name under ``taskapp.`` that no task type has.
            UnknownQueue: ``queue`` is none of ``TASKAPP_QUEUES``.
            InvalidPayload: An argument is not JSON.
            PayloadTooLarge: The arguments take more than ``TASKAPP_MAX_PAYLOAD_BYTES``.
            BrokerUnavailable: The broker could not be reached within ``TASKAPP_SUBMIT_DEADLINE_SECONDS``.
            SubmitOutcomeUnknown: It was reached and did not answer; says how to find out.
            BrokerFull: Redis has no memory left.
        """
        if name.startswith(OWN_PREFIX) and name not in TASK_ROUTES and name not in self.tasks:
            raise UnknownTask(name, TASK_ROUTES)
        options.update(zip(POSITIONAL_OPTIONS, rest, strict=False))
        options = with_texts_of_ids(name, options)
        options["task_id"] = options.get("task_id") or new_id()
        return patiently(self, name, options["task_id"], lambda: self._send(name, args, kwargs, options), options)

    def _send(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        args, kwargs = args or (), kwargs or {}
        form = self.sender.form(name, args, kwargs, options)
        if form is not None:
            return form.submit(args, kwargs, options["task_id"])
        arguments_as_json(name, args, kwargs, get_settings().max_payload_bytes)
        check_content(
            name, options.get("serializer") or self.conf.task_serializer,
            options.get("compression") or self.conf.task_compression,
        )  # fmt: skip
        check_links(name, options)
        times_of(name, options, self.now())
        options = {**options, **properties(name, options)}
        headers = {SENT_AT_HEADER: time(), **(options.get("headers") or {})}
        with self.lend_producer(options.get("producer")) as producer:
            return super().send_task(name, args, kwargs, **{**options, "producer": producer, "headers": headers})

    def submit(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Send a task of our ``Task`` for which no options are given; errors as with ``send_task``."""
        task_id = new_id()
        form = self.sender.ready_form(task.name)
        if form is None:
            return patiently(self, task.name, task_id, lambda: self._submit(task, args, kwargs, task_id))
        began_at = monotonic()
        try:
            return form.submit(args, kwargs, task_id)
        except NotQueued as error:
            raise unavailable(task.name, task_id, error) from error
        except (OperationalError, RedisError, OSError) as error:
            deadline = began_at + get_settings().submit_deadline_seconds
            pause_or_raise(self, task.name, task_id, error, began_at, deadline)
            again = partial(self._submit, task, args, kwargs, task_id)
            return patiently(self, task.name, task_id, again, began_at=began_at)

    def submit_member(self, task: Any, args: Any, kwargs: Any, headers: Mapping[str, Any]) -> bool:
        """Send a task of a group, of our ``Task``, with these headers; say whether it could be sent so.

        Inside ``producer_or_acquire`` nothing goes out yet. Errors as with ``send_task``.
        """
        form = self.sender.ready_form(task.name)
        if form is None:
            patiently(self, task.name, headers["id"], lambda: self.sender.usual_form(task, args, kwargs))
            form = self.sender.ready_form(task.name)
        if form is None:
            return False
        try:
            form.send(args, kwargs, headers["id"], headers)
        except NotQueued as error:
            raise unavailable(task.name, headers["id"], error) from error
        return True

    def _submit(self, task: Any, args: Any, kwargs: Any, task_id: str) -> Any:
        form = self.sender.usual_form(task, args, kwargs)
        if form is None:
            return self._send(task.name, args, kwargs, {**task.usual_options(), "task_id": task_id})
        return form.submit(args, kwargs, task_id)

    def form(self, task: Any, options: Mapping[str, Any]) -> TaskTemplate | None:
        """Return what is the same for tasks of our ``Task`` with these options, see ``Sender.form``.

        Raises:
            UnknownQueue: ``queue`` is none of ``TASKAPP_QUEUES``.
            BrokerUnavailable: The broker could not be reached within ``TASKAPP_SUBMIT_DEADLINE_SECONDS``.
        """
        all_options = with_texts_of_ids(task.name, {**task.usual_options(), **options})
        form: TaskTemplate | None = patiently(
            self, task.name, "", lambda: self.sender.form(task.name, (), {}, all_options), options
        )
        return form

    async def awaiting(self, name: str, submit: Callable[[], Any]) -> Any:
        """Return what ``submit`` returns, once the tasks it submits are queued; does not block the event loop.

        Through another broker than Redis each call has a thread. With ``task_always_eager`` the task runs here.

        Raises:
            TaskappError: As with ``send_task``.
        """
        sender = self.sender
        if sender.terms.is_eager:
            return submit()
        if not sender.is_open:
            await asyncio.to_thread(patiently, self, name, "", sender.open)
        if not sender.terms.is_plain:
            return await asyncio.to_thread(submit)
        with holding() as held:
            result = submit()
        deadline_seconds = get_settings().submit_deadline_seconds
        for producer, messages in held.steps():
            try:
                await pusher().push(producer, messages, deadline_seconds)
            except NotQueued as error:
                raise BrokerUnavailable(name, error.task_id, deadline_seconds, error.reason) from error
        for call in held.on_pushed:
            call()
        return result

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - Celery's name
        """The class of workers."""
        return self.subclass_with_self("taskapp.worker.worker:Worker")  # type: ignore[arg-type]  # a name will do

    @cached_property
    def Beat(self) -> Any:  # noqa: N802 - Celery's name
        """The class of beats."""
        return self.subclass_with_self("taskapp.beat.program:Beat")  # type: ignore[arg-type]  # the same

    @cached_property
    def AsyncResult(self) -> Any:  # noqa: N802 - Celery's name
        """The class of a task's result."""
        return self.subclass_with_self(results.AsyncResult)

    @cached_property
    def ResultSet(self) -> Any:  # noqa: N802 - the same
        """The class of a set of results."""
        return self.subclass_with_self(results.ResultSet)

    @cached_property
    def GroupResult(self) -> Any:  # noqa: N802 - the same
        """The class of a group's results."""
        return self.subclass_with_self(results.GroupResult)

    def lend_producer(self, producer: Any = None) -> Any:
        """Lend a producer for one message, without collecting.

        Raises:
            kombu.exceptions.LimitExceeded: All are lent, for as long as the submit around may take.
        """
        if producer is None and (seconds := left_seconds()) is not None:
            return self.producer_pool.acquire(block=True, timeout=seconds)
        return super().producer_or_acquire(producer)

    @contextmanager
    def producer_or_acquire(self, producer: Any = None) -> Iterator[Any]:  # type: ignore[override]  # a class in Celery
        """Lend a producer, as Celery does; tasks submitted through it are pushed by the thousand.

        Celery's groups submit inside one such block.
        """
        with super().producer_or_acquire(producer) as lent, collecting() if producer is None else nullcontext():
            yield lent

    def now(self) -> datetime:
        """Return the time in the app's zone; Celery's own way there, for each result, costs twenty times as much."""
        return datetime.now(self.timezone)

    def forget_backend(self) -> None:
        """Let the next use of results open connections anew."""
        self._backend_cache = None
        self._local.__dict__.pop("backend", None)

    def _connection(self, url: str | None, *args: Any, **options: Any) -> Any:
        self._find_broker()
        return super()._connection(url or self.conf.broker_url, *args, **options)  # type: ignore[misc]  # untyped

    def _get_backend(self) -> Any:
        self._find_broker()
        given, url = _backend_by_url(self.backend_cls or self.conf.result_backend, self.loader)
        return writing_literals(given)(app=self, url=url)
