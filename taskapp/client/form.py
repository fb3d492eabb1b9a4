"""A task before it has arguments: all that is the same for many of one type and its options."""

from __future__ import annotations

from typing import Any, NamedTuple

from celery import signals

from taskapp.broker.delivery import Message
from taskapp.broker.message_format import pack_task, time_of
from taskapp.broker.process import Process
from taskapp.client import message
from taskapp.client.sent_event import sent_event
from taskapp.client.terms import Terms
from taskapp.settings import get_settings

TIMED = ("countdown", "eta", "expires")


class Sending(NamedTuple):
    """What is the same for all tasks an app sends from this process, until its configuration changes."""

    app: Any
    terms: Terms
    process: Process
    topic: str
    """Where events of tasks that were sent are published; empty: nowhere."""
    event_exchange: str
    origin: str
    pid: int

    def is_valid(self) -> bool:
        """Say whether this process still is the one it was made for."""
        return not self.process.is_inherited


class Form:
    """Filled in with arguments, it is a task on its way."""

    def __init__(self, sending: Sending, name: str, queue: str, options: message.Options) -> None:
        self._sending, self._name, self._queue, self._options = sending, name, queue, options
        self._embed = message.embedded(options)
        self._headers = message.headers(name, options, sending.origin)
        self._is_timed = any(key in options for key in TIMED)
        self._descends = "root_id" not in options or "parent_id" not in options
        self._serializer = options.get("serializer") or sending.terms.serializer
        self._compression = options.get("compression") or sending.terms.compression
        self._is_json = self._serializer == "json" and not self._compression
        self._result = options.get("result_cls") or sending.app.AsyncResult

    @property
    def sending(self) -> Sending:
        """What it was made with."""
        return self._sending

    def submit(self, args: Any, kwargs: Any, task_id: str) -> Any:
        """Send a task with these arguments; return its result.

        Raises:
            InvalidPayload: They are not JSON.
            PayloadTooLarge: They take too much.
            PushError: See ``Producer.push``.
        """
        app, options = self._sending.app, self._options
        message.check_arguments(args, kwargs)
        arguments = message.arguments_as_json(self._name, args, kwargs, get_settings().max_payload_bytes)
        headers = self._filled_in(args, kwargs, arguments, task_id)
        properties = {
            "correlation_id": options.get("correlation_id") or task_id,
            "reply_to": options.get("reply_to") or app.thread_oid,
            "priority": options.get("priority"),
        }
        parent = app.current_worker_task
        if parent is not None and self._descends:
            self._inherit(parent.request, headers, properties)
        self._post(args, kwargs, arguments, headers, properties)
        result = self._result(task_id)
        result.ignored = options.get("ignore_result")
        if parent is not None and options.get("add_to_parent", True):
            parent.add_trail(result)
        return result

    def _filled_in(self, args: Any, kwargs: Any, arguments: str, task_id: str) -> dict[str, Any]:
        options = self._options
        headers = self._headers.copy()
        headers["id"] = task_id
        headers["root_id"] = headers["root_id"] or task_id
        # Others may change what they find in there.
        headers["timelimit"], headers["stamps"] = [*headers["timelimit"]], {**headers["stamps"]}
        headers["argsrepr"], headers["kwargsrepr"] = message.shown(args, kwargs, arguments, options)
        if self._is_timed:
            message.set_times(headers, options, self._sending.app.now())
        if more := options.get("headers"):
            headers.update(more)
        return headers

    def _inherit(self, request: Any, headers: dict[str, Any], properties: dict[str, Any]) -> None:
        """Let the task descend from the one that is running here."""
        if "root_id" not in self._options:
            headers["root_id"] = request.root_id or request.id
        if "parent_id" not in self._options:
            headers["parent_id"] = request.id
        if properties["priority"] is None and self._sending.terms.inherits_priority:
            properties["priority"] = request.delivery_info.get("priority")

    def _post(
        self, args: Any, kwargs: Any, arguments: str, headers: dict[str, Any], properties: dict[str, Any]
    ) -> None:
        sending, queue = self._sending, self._queue
        embed = self._embed
        if signals.before_task_publish.receivers:
            embed, arguments = self._announce(args, kwargs, headers, properties)
        content = self._content(args, kwargs, arguments, embed, headers)
        # Of the times as they were asked for: by this machine's clock, not yet by the engine's.
        event = sent_event(sending, headers, queue) if sending.topic else b""
        process = sending.process
        due_ms = time_of(headers, lambda: process.producer.known_clock().ahead_of_here_seconds())
        priority = message.priority_of(properties["priority"])
        blob = pack_task(content, headers, priority, properties["correlation_id"], properties["reply_to"], "", queue)
        if not headers["ignore_result"]:
            sending.app.backend.on_task_call(None, headers["id"])
        done = self._announcement(args, kwargs, embed, headers) if signals.after_task_publish.receivers else None
        process.post(Message(queue, priority, due_ms, headers["id"], blob, sending.topic, event), done)

    def _content(
        self, args: Any, kwargs: Any, arguments: str, embed: dict[str, Any] | None, headers: dict[str, Any]
    ) -> tuple[Any, str, str]:
        """Return the body, its type and its encoding."""
        if self._is_json:
            return message.body(self._name, arguments, embed), "application/json", "utf-8"
        whole = args, kwargs, message.linked(embed)
        return message.serialized(whole, self._serializer, self._compression, headers)

    def _announce(
        self, args: Any, kwargs: Any, headers: dict[str, Any], properties: dict[str, Any]
    ) -> tuple[dict[str, Any], str]:
        """Show the task to who listens before it is sent; return what follows it and its arguments, as changed."""
        embed = message.linked(self._embed)
        signals.before_task_publish.send(
            sender=self._name, body=(args, kwargs, embed), exchange="", routing_key=self._queue,
            declare=[], headers=headers, properties=properties, retry_policy={},
        )  # fmt: skip
        return embed, message.arguments_as_json(self._name, args, kwargs, get_settings().max_payload_bytes)

    def _announcement(self, args: Any, kwargs: Any, embed: dict[str, Any] | None, headers: dict[str, Any]) -> Any:
        """Return what tells who listens after a task was sent."""
        return lambda: signals.after_task_publish.send(
            sender=self._name, body=(args, kwargs, message.linked(embed)), headers=headers,
            exchange="", routing_key=self._queue,
        )  # fmt: skip
