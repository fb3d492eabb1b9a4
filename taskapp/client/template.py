"""A task without its arguments: everything that is the same for all tasks of a type with the same options."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from celery import signals

from taskapp.client import protocol
from taskapp.client.deadlines import OPTION as DEADLINE
from taskapp.client.deadlines import set_deadline
from taskapp.client.limits.duplicates import UniqueCall
from taskapp.client.limits.limiter import Limiter
from taskapp.client.limits.of_call import KeptLimits
from taskapp.client.option_checks import check_content, check_links, check_priority
from taskapp.client.packed_template import PackedTemplate
from taskapp.client.sent_event import SentEvents, sent_event, usual_part
from taskapp.client.submit_config import SubmitConfig
from taskapp.client.submitting_app import SubmittingApp
from taskapp.engine.producer import Message
from taskapp.engine.runtime import Runtime
from taskapp.results.literal_dicts import as_literal
from taskapp.transport.codec import SENT_AT_HEADER, SIGNATURE_HEADER, pack_task, time_of, with_properties
from taskapp.transport.deadline_header import DEADLINE_HEADER
from taskapp.transport.limits_header import LIMITS_HEADER, as_header, is_limited

NO_MORE: Mapping[str, Any] = MappingProxyType({})
CHECKED = frozenset({
    "headers", "time_limit", "soft_time_limit", "argsrepr", "kwargsrepr", "retries", "group_index",
    "replaced_task_nesting", "stamped_headers", "origin",
})  # fmt: skip
"""Options that may lead to a header that no node can read."""
TIMED = ("countdown", "eta", "expires")
AUTH = "auth"
"""Celery's serializer that signs."""
_before, _after = signals.before_task_publish, signals.after_task_publish


class Sending(NamedTuple):
    """Data common to all tasks that an app sends from this process, until its configuration changes."""

    app: SubmittingApp
    config: SubmitConfig
    process: Runtime
    events: SentEvents | None
    """Publishes events of sent tasks; ``None``: no events."""
    origin: str
    pid: int

    def is_valid(self) -> bool:
        """Return whether it was created in this process, not in its parent."""
        return not self.process.is_inherited


class TaskTemplate:
    """A template that is filled in with arguments and sent."""

    def __init__(
        self,
        sending: Sending,
        name: str,
        queue: str,
        options: protocol.Options,
        limiter: Limiter | KeptLimits | None = None,
    ) -> None:
        self._sending, self._name, self._queue, self._options = sending, name, queue, options
        self._limiter = limiter
        self._is_unique = limiter is not None and limiter.is_unique
        check_links(name, options)
        self._embed = protocol.embedded(options)
        self._headers = protocol.headers(name, options, sending.origin)
        headers = options.get("headers") or {}
        if not CHECKED.isdisjoint(options):
            protocol.check(name, {**self._headers, **headers})
        self._has_deadline = DEADLINE in options or DEADLINE_HEADER in headers
        self._is_timed = any(key in options for key in TIMED)
        self._serializer = options.get("serializer") or sending.config.serializer
        self._compression = options.get("compression") or sending.config.compression
        check_content(name, self._serializer, self._compression)
        self._signing = sending.app.signing if self._serializer == AUTH else None
        self._is_json = self._serializer == "json" and not self._compression
        self._writes_json = sending.app.writes_json(self._serializer)
        self._result = options.get("result_cls") or sending.app.AsyncResult
        self._properties = protocol.properties(name, options)
        check_priority(name, options.get("priority"))
        is_plain = self._is_json and not self._properties and not headers.keys() - {LIMITS_HEADER}
        self._packed = PackedTemplate(name, queue, self._headers, is_limited=limiter is not None) if is_plain else None
        self._event = usual_part(sending.origin, sending.pid, name, queue)
        settings = sending.app.settings
        self._limit_bytes, self._limit_packed_bytes = settings.max_payload_bytes, settings.max_unpacked_bytes

    @property
    def sending(self) -> Sending:
        """The common data it was created with."""
        return self._sending

    def submit(self, args: Any, kwargs: Any, task_id: str) -> Any:
        """Send a task with these arguments; return its result.

        Raises:
            DuplicateTask: It is refused because another task has its unique key.
            Other errors: See ``send``.
        """
        options = self._options
        result, call = self._result(task_id), None
        if self._is_unique:
            call = UniqueCall(self._name, result)
        parent = self.send(args, kwargs, task_id, call=call)
        if call is not None:
            call.check()
        result.ignored = options.get("ignore_result")
        if parent is not None and options.get("add_to_parent", True):
            parent.add_trail(result)
        return result

    def send_member(self, args: Any, kwargs: Any, headers: Mapping[str, Any]) -> None:
        """Send a task of a group, which knows its result; errors are those of ``submit``."""
        if not self._is_unique:
            self.send(args, kwargs, headers["id"], headers)
            return
        call = UniqueCall(self._name)
        self.send(args, kwargs, headers["id"], headers, call)
        call.check()

    def send(
        self, args: Any, kwargs: Any, task_id: str, headers: Mapping[str, Any] = NO_MORE, call: UniqueCall | None = None
    ) -> Any:
        """Send a task with these arguments; return the task from which it is sent, or ``None`` outside a task.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.
            task_id: Its id.
            headers: Further headers that differ from task to task, see ``packed_template.OWN_HEADERS``.
            call: Called if another task has its unique key.

        Raises:
            InvalidPayload: The serializer cannot write the arguments.
            PayloadTooLarge: They take too many bytes.
            BadLimitKey: They make no key, or no cost, for a limit of the task.
            PushError: See ``Producer.push``.
        """
        app, options = self._sending.app, self._options
        protocol.check_arguments(args, kwargs)
        arguments = self._as_json(args, kwargs)
        own = self._own_headers(args, kwargs, arguments, task_id)
        properties = {
            "correlation_id": options.get("correlation_id") or task_id,
            "reply_to": options.get("reply_to") or app.thread_oid,
            "priority": options.get("priority"),
        }
        parent = app.current_worker_task
        if parent is not None:
            self._inherit(parent.request, own, properties)
        if headers:
            own.update(headers)
        if self._has_deadline or (parent is not None and DEADLINE_HEADER in vars(parent.request)):
            self._set_deadline(own, {} if parent is None else vars(parent.request))
        if self._properties:
            properties.update(self._properties)
        limits = b""
        if self._limiter is not None:
            limits = self._limiter.packed(args, kwargs)
            own[LIMITS_HEADER] = as_header(limits)
        is_plain = not _before.receivers and not _after.receivers and DEADLINE_HEADER not in own
        if self._packed is not None and is_plain:
            self._post_plain(self._packed, arguments, own, properties, limits, call)
        else:
            self._post(args, kwargs, arguments, own, properties, call)
        return parent

    def _own_headers(self, args: Any, kwargs: Any, arguments: str, task_id: str) -> dict[str, Any]:
        """Return the headers that differ from task to task, see ``packed_template.OWN_HEADERS``."""
        options = self._options
        argsrepr, kwargsrepr = protocol.shown(args, kwargs, arguments, options)
        own = {
            "id": task_id, "root_id": options.get("root_id") or task_id, "parent_id": options.get("parent_id"),
            "argsrepr": argsrepr, "kwargsrepr": kwargsrepr, "eta": None, "expires": None,
            "group": options.get("group_id"), "group_index": options.get("group_index"),
            SENT_AT_HEADER: self._sending.process.producer.clock.now_ms() / 1_000,
        }  # fmt: skip
        if self._is_timed:
            protocol.set_times(self._name, own, options, self._sending.app.now())
        return own

    def _inherit(self, request: Any, own: dict[str, Any], properties: dict[str, Any]) -> None:
        """Make the task a descendant of the one running here."""
        if "root_id" not in self._options:
            own["root_id"] = request.root_id or request.id
        if "parent_id" not in self._options and own["id"] != request.id:  # a retry has the parent of its first run
            own["parent_id"] = request.id
        if properties["priority"] is None and self._sending.config.inherits_priority:
            properties["priority"] = request.delivery_info.get("priority")

    def _set_deadline(self, own: dict[str, Any], parent: Mapping[str, Any]) -> None:
        ahead_seconds = self._sending.process.producer.known_clock().ahead_of_here_seconds()
        set_deadline(self._name, own, self._options, parent, self._sending.app.now(), ahead_seconds)

    def _post_plain(
        self, packed: PackedTemplate, arguments: str, own: dict[str, Any], properties: dict[str, Any], limits: bytes,
        call: UniqueCall | None,
    ) -> None:  # fmt: skip
        """Send a task that no signal handler may inspect or change."""
        sending, queue = self._sending, self._queue
        body = protocol.body(self._name, arguments, self._embed)
        event = self._event_of(own) if sending.events is not None else b""
        due_ms = self._due_ms(own) if self._is_timed else 0
        priority = protocol.priority_of(properties["priority"])
        blob = packed.fill(body, own, priority, properties["correlation_id"], properties["reply_to"], limits)
        self._note_call(own["id"])
        message = Message(queue, priority, due_ms, own["id"], blob, event, sending.events)
        sending.process.post(message._replace(is_limited=True, on_taken=call) if limits else message)

    def _post(
        self, args: Any, kwargs: Any, arguments: str, own: dict[str, Any], properties: dict[str, Any],
        call: UniqueCall | None,
    ) -> None:  # fmt: skip
        sending, queue, embed = self._sending, self._queue, self._embed
        headers = {**self._headers, **own, **(self._options.get("headers") or {})}
        if DEADLINE_HEADER in own:
            headers[DEADLINE_HEADER] = own[DEADLINE_HEADER]  # not that of a task whose headers are passed on
        # Copies, because signal handlers may change them.
        headers["timelimit"], headers["stamps"] = [*headers["timelimit"]], {**headers["stamps"]}
        if _before.receivers:
            embed, arguments = self._announce(args, kwargs, headers, properties)
        headers.pop(SIGNATURE_HEADER, None)  # inherited from the task that sends this one
        headers = with_properties(headers, protocol.as_sent(properties))
        # Events show times by this machine's clock, before they are converted to the engine's.
        event = self._event_of(headers) if sending.events is not None else b""
        due_ms = self._due_ms(headers)
        content, headers = self._content(args, kwargs, arguments, embed, headers, properties)
        priority = protocol.priority_of(properties["priority"])
        blob = pack_task(content, headers, priority, properties["correlation_id"], properties["reply_to"], "", queue)
        self._note_call(headers["id"])
        done = self._announcement(args, kwargs, embed, headers) if _after.receivers else None
        message = Message(queue, priority, due_ms, headers["id"], blob, event, sending.events)
        is_marked = is_limited(headers)
        sending.process.post(message._replace(is_limited=True, on_taken=call) if is_marked else message, done)

    def _due_ms(self, headers: dict[str, Any]) -> int:
        producer = self._sending.process.producer
        return time_of(headers, lambda: producer.known_clock().ahead_of_here_seconds())

    def _event_of(self, headers: dict[str, Any]) -> bytes:
        clock = self._sending.app.clock.forward()
        return sent_event(self._event, clock, headers.get("retries", self._headers["retries"]), headers)

    def _note_call(self, task_id: str) -> None:
        if not self._headers["ignore_result"]:
            self._sending.app.backend.on_task_call(None, task_id)

    def _content(
        self, args: Any, kwargs: Any, arguments: str, embed: dict[str, Any] | None, headers: dict[str, Any],
        properties: dict[str, Any],
    ) -> tuple[tuple[Any, str, str], dict[str, Any]]:  # fmt: skip
        """Return the body, its type and its encoding, and the headers that describe them."""
        if self._is_json:
            return (protocol.body(self._name, arguments, embed), "application/json", "utf-8"), headers
        whole = args, kwargs, protocol.linked(embed)
        if self._writes_json:
            whole = as_literal(whole)
        content_type, encoding, body = self._dumped(whole)
        packed = protocol.compressed(body, self._compression, headers, self._limit_packed_bytes)
        if self._signing is not None:
            headers = self._signing.signed(headers, properties, content_type, body)
        return (packed, content_type, encoding), headers

    def _dumped(self, whole: Any) -> tuple[str, str, Any]:
        """Return the content type, the encoding and the body of a message that is not plain JSON."""
        content = protocol.dumped(self._name, whole, self._serializer)
        if not self._writes_json:
            protocol.check_size(self._name, content[2], self._limit_bytes)
        return content

    def _announce(
        self, args: Any, kwargs: Any, headers: dict[str, Any], properties: dict[str, Any]
    ) -> tuple[dict[str, Any], str]:
        """Send ``before_task_publish``; return follow-ups and arguments, which its handlers may have changed."""
        embed = protocol.linked(self._embed)
        _before.send(
            sender=self._name, body=(args, kwargs, embed), exchange="", routing_key=self._queue,
            declare=[], headers=headers, properties=properties, retry_policy={},
        )  # fmt: skip
        return embed, self._as_json(args, kwargs)

    def _as_json(self, args: Any, kwargs: Any) -> str:
        """Return the arguments as JSON; nothing if they are sent in another format."""
        return protocol.arguments_as_json(self._name, args, kwargs, self._limit_bytes) if self._writes_json else ""

    def _announcement(self, args: Any, kwargs: Any, embed: dict[str, Any] | None, headers: dict[str, Any]) -> Any:
        """Return a function that sends ``after_task_publish``."""
        return lambda: _after.send(
            sender=self._name, body=(args, kwargs, protocol.linked(embed)), headers=headers,
            exchange="", routing_key=self._queue,
        )  # fmt: skip
