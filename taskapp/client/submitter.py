"""The path of every submit: check, fill in the template, push; retry until a deadline if the broker is unreachable.

delay() ─► Submitter ─► TaskTemplate ─► Producer ─► push.lua
└─ tasks for other brokers ─► the app's send_by_kombu
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskapp.client.async_pusher import pusher
from taskapp.client.deadlines import OPTION as DEADLINE
from taskapp.client.deadlines import set_deadline
from taskapp.client.limits.duplicates import raise_refused
from taskapp.client.limits.of_call import check_broker, limiter_for
from taskapp.client.option_checks import check_content, check_links, times_of
from taskapp.client.option_names import check_names
from taskapp.client.patience import patiently, pause_or_raise, unavailable
from taskapp.client.protocol import arguments_as_json, check_size, dumped, new_id, properties, with_texts_of_ids
from taskapp.client.sender import Sender
from taskapp.client.submitting_app import SubmittingApp
from taskapp.client.template import TaskTemplate
from taskapp.client.written_messages import current_recorder
from taskapp.engine.batch import holding
from taskapp.errors import BrokerUnavailable, NotQueued, UnknownTask
from taskapp.errors.tasks import NoNameOfTask
from taskapp.queues import TASK_ROUTES
from taskapp.transport.codec import SENT_AT_HEADER
from taskapp.transport.deadline_header import DEADLINE_HEADER
from taskapp.transport.limits_header import LIMITS_HEADER, as_header
from taskapp.transport.transport import is_over_redis

OWN_PREFIX = "taskapp."


class Submitter:
    """Submits the tasks of one app.

    Raises (all methods that submit):
        UnknownTask: No task type has this name, which begins with ``taskapp.``.
        UnknownQueue: ``queue`` is not in ``TASKAPP_QUEUES``.
        UnknownOption: An option is misspelt.
        InvalidPayload: The serializer, JSON by default, cannot write an argument.
        PayloadTooLarge: The arguments take more than ``TASKAPP_MAX_PAYLOAD_BYTES``.
        BrokerUnavailable: The broker could not be reached within ``TASKAPP_SUBMIT_DEADLINE_SECONDS``.
        SubmitOutcomeUnknown: It was reached and did not answer; the error says what to do.
        BrokerFull: Redis has no memory left.
        BadLimit, BadLimitKey: An option that limits tasks is invalid, or the arguments make no key for it.
        DuplicateTask: Another task has its unique key, and it is declared with ``on_duplicate="raise"``.
        LimitNeedsRedis: The task has limits that the broker cannot keep.
    """

    def __init__(self, app: SubmittingApp) -> None:
        self._app = app
        self._sender = Sender(app)

    @property
    def is_eager(self) -> bool:
        """Whether tasks run where they are submitted."""
        return self._sender.config.is_eager

    @property
    def routes_by_name(self) -> bool:
        """Whether only the name of a task decides its queue."""
        return self._sender.routes_by_name

    def open(self) -> None:
        """Do all preparations that wait for the server; errors are those of kombu and redis-py."""
        self._sender.open()

    def goes_together(self) -> bool:
        """Return whether tasks submitted by a coroutine are queued only once all of them are prepared."""
        config = self._sender.config
        return config.is_plain and not config.is_eager

    def send_task(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Send the task ``name``; ``options`` are keyword arguments of ``Celery.send_task``.

        Raises:
            NoNameOfTask: ``name`` is no text.
        """
        if not isinstance(name, str):
            raise NoNameOfTask(name)
        if name.startswith(OWN_PREFIX) and name not in TASK_ROUTES and name not in self._app.tasks:
            raise UnknownTask(name, TASK_ROUTES)
        if options.get("parent_id") is None:  # what follows a task has the options of its message
            check_names(name, options, self._app)
        options = with_texts_of_ids(name, options)
        options["task_id"] = options.get("task_id") or new_id()
        return patiently(self._app, name, options["task_id"], lambda: self._send(name, args, kwargs, options), options)

    def submit(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Send a task of taskapp's ``Task`` without options."""
        task_id = new_id()
        template = self._sender.known_template(task.name)
        if template is None:
            return patiently(self._app, task.name, task_id, lambda: self._submit(task, args, kwargs, task_id))
        began_at = monotonic()
        try:
            return template.submit(args, kwargs, task_id)
        except NotQueued as error:
            raise unavailable(self._app, task.name, task_id, error) from error
        except (OperationalError, RedisError, OSError) as error:
            deadline = began_at + self._app.settings.submit_deadline_seconds
            pause_or_raise(self._app, task.name, task_id, error, began_at, deadline)
            again = partial(self._submit, task, args, kwargs, task_id)
            return patiently(self._app, task.name, task_id, again, began_at=began_at)

    def submit_member(self, task: Any, args: Any, kwargs: Any, headers: Mapping[str, Any]) -> bool:
        """Send a task of taskapp's ``Task`` as a group member with these headers; return whether that was possible.

        Inside ``producer_or_acquire`` the message is only collected.
        """
        template = self._sender.known_template(task.name)
        if template is None:
            patiently(self._app, task.name, headers["id"], lambda: self._sender.usual_template(task, args, kwargs))
            template = self._sender.known_template(task.name)
        if template is None:
            return False
        try:
            template.send_member(args, kwargs, headers)
        except NotQueued as error:
            raise unavailable(self._app, task.name, headers["id"], error) from error
        return True

    def template(self, task: Any, options: Mapping[str, Any]) -> TaskTemplate | None:
        """Return the template for tasks of taskapp's ``Task`` with these options, see ``Sender.template``."""
        check_names(task.name, options, self._app)
        all_options = with_texts_of_ids(task.name, {**task.usual_options(), **options})
        template: TaskTemplate | None = patiently(
            self._app, task.name, "", lambda: self._sender.template(task.name, (), {}, all_options), options
        )
        return template

    async def awaiting(self, name: str, submit: Callable[[], Any]) -> Any:
        """Call ``submit`` and return its result once its tasks are queued; does not block the event loop.

        With a broker other than Redis, each call uses a thread. With ``task_always_eager`` the task runs here.
        """
        sender = self._sender
        if sender.config.is_eager:
            return submit()
        if not sender.is_open:
            await asyncio.to_thread(patiently, self._app, name, "", sender.open)
        if not sender.config.is_plain:
            return await asyncio.to_thread(submit)
        with holding() as held:
            result = submit()
        if held.writes:
            await asyncio.to_thread(_call_each, held.writes)
        deadline_seconds = self._app.settings.submit_deadline_seconds
        for producer, messages in held.steps():
            try:
                await pusher().push(producer, messages, deadline_seconds)
            except NotQueued as error:
                raise BrokerUnavailable(name, error.task_id, deadline_seconds, error.reason) from error
        for call in held.on_pushed:
            call()
        raise_refused(held)
        return result

    def _submit(self, task: Any, args: Any, kwargs: Any, task_id: str) -> Any:
        template = self._sender.usual_template(task, args, kwargs)
        if template is None:
            return self._send(task.name, args, kwargs, {**task.usual_options(), "task_id": task_id})
        return template.submit(args, kwargs, task_id)

    def _send(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        args, kwargs = args or (), kwargs or {}
        template = self._sender.template(name, args, kwargs, options)
        if template is not None:
            return template.submit(args, kwargs, options["task_id"])
        conf = self._app.conf
        serializer = options.get("serializer") or conf.task_serializer
        check_content(name, serializer, options.get("compression") or conf.task_compression)
        self._check_arguments(name, args, kwargs, serializer)
        check_links(name, options)
        times_of(name, options, self._app.now())
        headers = {SENT_AT_HEADER: self._app.now().timestamp(), **(options.get("headers") or {})}
        options = self._with_deadline(name, options, headers)
        if limits := self._limits(name, args, kwargs, options):
            headers[LIMITS_HEADER] = as_header(limits)
        options = {**options, **properties(name, options)}
        with self._app.lend_producer(current_recorder() or options.get("producer")) as producer:
            return self._app.send_by_kombu(name, args, kwargs, {**options, "producer": producer, "headers": headers})

    def _with_deadline(self, name: str, options: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
        """Set the deadline of a task that kombu's producer sends in ``headers``; return its options."""
        parent = self._app.current_worker_task
        inherited = {} if parent is None else vars(parent.request)
        if options.get(DEADLINE) is None and DEADLINE_HEADER not in inherited and DEADLINE_HEADER not in headers:
            return options
        now = self._app.now()
        end = times_of(name, options, now)[1]
        times: dict[str, Any] = {"expires": end and end.isoformat()}
        set_deadline(name, times, options, inherited, now, 0.0)
        headers |= {name: value for name, value in times.items() if name == DEADLINE_HEADER}
        return {key: value for key, value in options.items() if key != DEADLINE} | {"expires": times["expires"]}

    def _limits(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> bytes:
        """Return the packed limits of a task that kombu's producer sends."""
        task_type = options.get("task_type") or self._app.known_task(name)
        limiter = limiter_for(name, task_type, options)
        if is_over_redis(self._app.conf.broker_write_url):
            return b"" if limiter is None else limiter.packed(args, kwargs)
        if limiter is not None:
            check_broker(name, task_type, options)
        return b""

    def _check_arguments(self, name: str, args: Any, kwargs: Any, serializer: str) -> None:
        limit_bytes = self._app.settings.max_payload_bytes
        if self._app.writes_json(serializer):
            arguments_as_json(name, args, kwargs, limit_bytes)
        else:
            check_size(name, dumped(name, (args, kwargs), serializer)[2], limit_bytes)


def _call_each(calls: list[Callable[[], Any]]) -> None:
    for call in calls:
        call()
