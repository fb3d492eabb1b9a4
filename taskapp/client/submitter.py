"""The way of every submit: checked, filled in, pushed; again while the broker cannot be reached, up to a deadline.

delay() ─► Submitter ─► TaskTemplate ─► Producer ─► push.lua
└─ what is not for the engine ─► the app's own send_by_kombu
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic, time
from typing import Any

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskapp.client.async_pusher import pusher
from taskapp.client.option_checks import check_content, check_links, times_of
from taskapp.client.patience import patiently, pause_or_raise, unavailable
from taskapp.client.protocol import arguments_as_json, new_id, properties, with_texts_of_ids
from taskapp.client.sender import Sender
from taskapp.client.submitting_app import SubmittingApp
from taskapp.client.template import TaskTemplate
from taskapp.engine.batch import holding
from taskapp.errors import BrokerUnavailable, NotQueued, UnknownTask
from taskapp.queues import TASK_ROUTES
from taskapp.settings import get_settings
from taskapp.transport.codec import SENT_AT_HEADER

OWN_PREFIX = "taskapp."


class Submitter:
    """Submits the tasks of one app.

    Raises (all methods that submit):
        UnknownTask: A name under ``taskapp.`` that no task type has.
        UnknownQueue: ``queue`` is none of ``TASKAPP_QUEUES``.
        InvalidPayload: An argument is not JSON.
        PayloadTooLarge: The arguments take more than ``TASKAPP_MAX_PAYLOAD_BYTES``.
        BrokerUnavailable: The broker could not be reached within ``TASKAPP_SUBMIT_DEADLINE_SECONDS``.
        SubmitOutcomeUnknown: It was reached and did not answer; says how to find out.
        BrokerFull: Redis has no memory left.
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
        """Whether nothing but its name decides where a task goes."""
        return self._sender.routes_by_name

    def open(self) -> None:
        """Do what has to wait for the server before a task can be submitted; errors are kombu's and redis'."""
        self._sender.open()

    def goes_together(self) -> bool:
        """Return whether what a coroutine submits is queued only when all of it is put together."""
        config = self._sender.config
        return config.is_plain and not config.is_eager

    def send_task(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Send the task ``name``; ``options`` as for ``Celery.send_task``, by their names."""
        if name.startswith(OWN_PREFIX) and name not in TASK_ROUTES and name not in self._app.tasks:
            raise UnknownTask(name, TASK_ROUTES)
        options = with_texts_of_ids(name, options)
        options["task_id"] = options.get("task_id") or new_id()
        return patiently(self._app, name, options["task_id"], lambda: self._send(name, args, kwargs, options), options)

    def submit(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Send a task of our ``Task`` for which no options are given."""
        task_id = new_id()
        template = self._sender.known_template(task.name)
        if template is None:
            return patiently(self._app, task.name, task_id, lambda: self._submit(task, args, kwargs, task_id))
        began_at = monotonic()
        try:
            return template.submit(args, kwargs, task_id)
        except NotQueued as error:
            raise unavailable(task.name, task_id, error) from error
        except (OperationalError, RedisError, OSError) as error:
            deadline = began_at + get_settings().submit_deadline_seconds
            pause_or_raise(self._app, task.name, task_id, error, began_at, deadline)
            again = partial(self._submit, task, args, kwargs, task_id)
            return patiently(self._app, task.name, task_id, again, began_at=began_at)

    def submit_member(self, task: Any, args: Any, kwargs: Any, headers: Mapping[str, Any]) -> bool:
        """Send a task of a group, of our ``Task``, with these headers; return whether it could be sent so.

        Inside ``producer_or_acquire`` nothing goes out yet.
        """
        template = self._sender.known_template(task.name)
        if template is None:
            patiently(self._app, task.name, headers["id"], lambda: self._sender.usual_template(task, args, kwargs))
            template = self._sender.known_template(task.name)
        if template is None:
            return False
        try:
            template.send(args, kwargs, headers["id"], headers)
        except NotQueued as error:
            raise unavailable(task.name, headers["id"], error) from error
        return True

    def template(self, task: Any, options: Mapping[str, Any]) -> TaskTemplate | None:
        """Return what is the same for tasks of our ``Task`` with these options, see ``Sender.template``."""
        all_options = with_texts_of_ids(task.name, {**task.usual_options(), **options})
        template: TaskTemplate | None = patiently(
            self._app, task.name, "", lambda: self._sender.template(task.name, (), {}, all_options), options
        )
        return template

    async def awaiting(self, name: str, submit: Callable[[], Any]) -> Any:
        """Return what ``submit`` returns, once the tasks it submits are queued; does not block the event loop.

        Through another broker than Redis each call has a thread. With ``task_always_eager`` the task runs here.
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
        deadline_seconds = get_settings().submit_deadline_seconds
        for producer, messages in held.steps():
            try:
                await pusher().push(producer, messages, deadline_seconds)
            except NotQueued as error:
                raise BrokerUnavailable(name, error.task_id, deadline_seconds, error.reason) from error
        for call in held.on_pushed:
            call()
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
        arguments_as_json(name, args, kwargs, get_settings().max_payload_bytes)
        check_content(
            name, options.get("serializer") or conf.task_serializer, options.get("compression") or conf.task_compression
        )
        check_links(name, options)
        times_of(name, options, self._app.now())
        options = {**options, **properties(name, options)}
        headers = {SENT_AT_HEADER: time(), **(options.get("headers") or {})}
        with self._app.lend_producer(options.get("producer")) as producer:
            return self._app.send_by_kombu(name, args, kwargs, {**options, "producer": producer, "headers": headers})
