"""Passes tasks to the engine: the common path of ``delay()``, canvas, retries and ``send_task``.

For each message, Celery reads its configuration, routes, and gets a producer and a channel from kombu.
Here everything that is the same for all messages is done once. Messages that need more than a plain queue of the
engine (another broker, an exchange, the caller's own connection) do not go through this sender.
"""

from __future__ import annotations

import os
from typing import Any

from celery.utils.nodenames import anon_nodename

from taskapp.celery_internals import exec_options
from taskapp.client.limits.of_call import limiter_for, may_be_limited
from taskapp.client.option_names import check_names
from taskapp.client.protocol import Options, without_none
from taskapp.client.sent_event import SentEvents
from taskapp.client.submit_config import SubmitConfig, read_submit_config
from taskapp.client.submitting_app import SubmittingApp
from taskapp.client.template import Sending, TaskTemplate
from taskapp.client.written_messages import current_recorder
from taskapp.engine.runtime import Runtime
from taskapp.transport.channel import EngineChannel

NEEDS_KOMBU = ("exchange", "routing_key", "connection", "router")
"""Options that only kombu's producer supports."""


class Sender:
    """Sends the tasks of one app."""

    def __init__(self, app: SubmittingApp) -> None:
        self._app = app
        self._known: tuple[Any, dict[str, Any], SubmitConfig] | None = None
        self._sending: Sending | None = None
        self._router: Any = None
        self._queues: dict[tuple[str, str | None], str] = {}
        self._usual: dict[str, TaskTemplate] = {}

    @property
    def config(self) -> SubmitConfig:
        """The current configuration."""
        conf = self._app.conf
        known = self._known
        # ``changes`` contains all values set on a configuration; comparing them starts with their identity.
        if known is None or known[0] is not conf or known[1] != conf.changes:
            self._known = known = (conf, dict(conf.changes), read_submit_config(conf))
            self._sending, self._router = None, None
        return known[2]

    @property
    def is_open(self) -> bool:
        """Whether sending waits only for the push itself."""
        config, sending = self.config, self._sending
        if not config.is_plain:
            return config.has_broker
        return sending is not None and sending.is_valid() and bool(sending.process.producer.clock.predicted_ms())

    def open(self) -> None:
        """Do all preparations that wait for the server; errors are those of kombu and redis-py."""
        self._find_broker()
        if self.config.is_plain:
            self.sending().process.producer.known_clock()

    def sending(self) -> Sending:
        """Return the data common to all tasks sent now."""
        config, sending = self.config, self._sending
        if sending is None or not sending.is_valid():
            sending = self._sending = self._begin(config)
        return sending

    def _begin(self, config: SubmitConfig) -> Sending:
        with self._app.lend_producer() as producer:
            channel, exchange, origin = producer.channel, self._app.conf.event_exchange, anon_nodename()
            one, many = (channel.event_topic(exchange, key) for key in ("task.sent", "task.multi"))
            events = SentEvents(one, many, exchange, origin) if config.sends_event else None
            process: Runtime = channel.process
        return Sending(self._app, config, process, events, origin, os.getpid())

    def known_template(self, name: str) -> TaskTemplate | None:
        """Return the template for tasks of taskapp's ``Task`` without options, if it exists and is still valid."""
        template = self._usual.get(name)
        if template is None or current_recorder() is not None:
            return None
        # ``config`` comes first, because it notices changes.
        is_valid = self.config and template.sending is self._sending and template.sending.is_valid()
        return template if is_valid else None

    def usual_template(self, task: Any, args: Any, kwargs: Any) -> TaskTemplate | None:
        """Return the template for tasks of taskapp's ``Task`` submitted without options, see ``template``."""
        template = self.template(task.name, args, kwargs, task.usual_options())
        if template is not None and self.routes_by_name:
            self._usual[task.name] = template
        return template

    @property
    def routes_by_name(self) -> bool:
        """Whether only the name of a task decides its queue."""
        return all(getattr(one, "looks_at_name_only", False) for one in self._app.amqp.routes)

    def template(self, name: str, args: Any, kwargs: Any, options: Options) -> TaskTemplate | None:
        """Return the template for all tasks of type ``name`` with these options.

        ``None`` if this sender does not support such a task.

        Args:
            name: The task type, which need not be registered here.
            args: Arguments to send, for routes that depend on them.
            kwargs: The same.
            options: Keyword arguments of ``Celery.send_task``.

        Raises:
            celery.exceptions.QueueNotFound: The queue does not exist.
            BadLimit, BadLimitKey: An option that limits tasks is invalid.
            UnknownOption: An option of a route is misspelt.
        """
        self._find_broker()
        if not self.config.is_plain or current_recorder() is not None:
            return None
        task_type: Any = options.get("task_type")
        if task_type is None:
            task_type = self._app.known_task(name)
            options = {**(exec_options(task_type) if task_type else {}), **without_none(options)}
        options = without_none(options)
        limiter = None
        if may_be_limited(task_type, options):
            limiter = limiter_for(name, task_type, options)
        if any(key in options for key in NEEDS_KOMBU) or not self._is_for_engine(options.get("producer")):
            return None
        wanted = options.pop("queue", None)
        queue = self._known_queue(name, wanted)
        if queue is None:
            queue, options = self._route(name, args, kwargs, wanted, options, task_type)
        return TaskTemplate(self.sending(), name, queue, options, limiter) if queue else None

    def _find_broker(self) -> None:
        if not self.config.has_broker:
            self._app.find_broker()

    def _is_for_engine(self, producer: Any) -> bool:
        if producer is None:
            return True
        channel = producer.channel
        return isinstance(channel, EngineChannel) and channel.process is self.sending().process

    def _known_queue(self, name: str, wanted: Any) -> str | None:
        amqp = self._app.amqp
        if amqp.router is not self._router:
            self._router, self._queues = amqp.router, {}
        return self._queues.get((name, wanted)) if wanted is None or isinstance(wanted, str) else None

    def _route(
        self, name: str, args: Any, kwargs: Any, wanted: Any, options: Options, task_type: Any
    ) -> tuple[str | None, Options]:
        """Return the queue (``None`` if it is not a plain one) and the options with those that the route adds."""
        amqp = self._app.amqp
        route = self._router.route({} if wanted is None else {"queue": wanted}, name, args, kwargs, task_type)
        declared = route.pop("queue", None)
        check_names(name, route, self._app)
        if declared is None or amqp.queues.get(declared.name) is not declared or declared.exchange.type != "direct":
            return None, options
        options = {**without_none(route), **options}
        if any(key in options for key in NEEDS_KOMBU):
            return None, options
        if self.routes_by_name and (wanted is None or isinstance(wanted, str)):
            self._queues[name, wanted] = declared.name
        return declared.name, options
