"""Pushes rows of an outbox to the broker of one app."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from kombu.exceptions import OperationalError
from kombu.utils.json import loads
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from taskapp.client import protocol
from taskapp.client.sender import Sender
from taskapp.client.sent_event import sent_event, usual_part
from taskapp.client.template import Sending
from taskapp.client.written_messages import Publisher, Written, body_of
from taskapp.engine.producer import Message
from taskapp.errors import BrokerNotFound, NotQueued, PushError, SubmitOutcomeUnknown
from taskapp.errors.publishing import BrokerAway, QueueFull
from taskapp.errors.wording import in_words
from taskapp.outbox.rows import ERROR_MOST, OutboxRow, PushOutcome
from taskapp.redis.link import REFUSALS
from taskapp.transport.codec import SENT_AT_HEADER, pack_task, time_of, with_properties
from taskapp.transport.limits_header import is_limited
from taskapp.transport.transport import is_over_redis

PUBLISHING_SECONDS = 10.0
"""How long one push publishes through kombu, message by message; well below ``CLAIM_SECONDS``."""
AWAY = (OperationalError, RedisError, OSError, BrokerNotFound, BrokerAway)


class RowPusher:
    """Pushes rows to the broker of ``app``. Any thread may use it.

    On Redis, a row pushed a second time within a day is ignored. Other brokers queue its message again.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._sender = Sender(app)
        self._publisher = Publisher(app)

    def push(self, rows: Sequence[OutboxRow]) -> PushOutcome:
        """Push ``rows`` in their order; return which are queued, and which never can be."""
        try:
            self._app.find_broker()
            if is_over_redis(self._app.conf.broker_write_url):
                return self._push_to_engine(rows)
        except AWAY as error:
            return PushOutcome(away=error)
        return self._publish(rows)

    # --- Redis ------------------------------------------------------------------------------------

    def _push_to_engine(self, rows: Sequence[OutboxRow]) -> PushOutcome:
        sending = self._sender.sending()
        messages: list[Message] = []
        refused: list[tuple[str, str]] = []
        for row in rows:
            try:
                messages.append(self._message(sending, row))
            except AWAY:
                raise
            except Exception as error:  # noqa: BLE001 - a row may contain anything
                refused.append((row.id, _problem(error)))
        return self._push_messages(sending, messages, refused)

    def _push_messages(self, sending: Sending, messages: list[Message], refused: list[tuple[str, str]]) -> PushOutcome:
        ids = [message.id for message in messages]
        try:
            if messages:
                sending.process.producer.push(messages)
        except NotQueued as error:
            if not is_about_the_message(error.reason):
                return PushOutcome(_others(ids, error), refused, error)
            if len(messages) == 1:
                return PushOutcome((), [*refused, (ids[0], _problem(error.reason))])
            return self._push_one_by_one(sending, messages, refused)
        except QueueFull as error:
            if len(messages) == 1:
                return PushOutcome((), refused, error)
            return self._push_one_by_one(sending, messages, refused)
        except PushError as error:
            return PushOutcome(_others(ids, error), refused, error)
        return PushOutcome(ids, refused)

    def _push_one_by_one(
        self, sending: Sending, messages: list[Message], refused: list[tuple[str, str]]
    ) -> PushOutcome:
        """Find the message that Redis refuses, or queues without room; those pushed already are ignored."""
        pushed: list[str] = []
        full: dict[str, Exception] = {}
        for message in messages:
            if message.queue in full:
                continue
            outcome = self._push_messages(sending, [message], [])
            pushed += outcome.pushed
            refused = [*refused, *outcome.refused]
            if isinstance(outcome.away, QueueFull):
                full[message.queue] = outcome.away
            elif outcome.away is not None:
                return PushOutcome(pushed, refused, outcome.away)
        return PushOutcome(pushed, refused, next(iter(full.values()), None))

    def _message(self, sending: Sending, row: OutboxRow) -> Message:
        content = loads(row.message)
        written: Written = content["task"]
        options = written["options"]
        if options["exchange"]:
            raise ValueError(f"exchange {options['exchange']!r}: on Redis an outbox serves plain queues only")
        queue, headers = options["routing_key"], dict(options["headers"])
        self._check_queue(queue)
        producer = sending.process.producer
        headers[SENT_AT_HEADER] = producer.clock.now_ms() / 1_000
        event = b""
        if content["announces"] and sending.events is not None and sending.config.is_plain:
            # Before times are converted to the engine's: events show those of this machine.
            usual = usual_part(sending.origin, sending.pid, headers["task"], queue)
            event = sent_event(usual, self._app.clock.forward(), headers["retries"], headers)
        due_ms = time_of(headers, lambda: producer.known_clock().ahead_of_here_seconds())
        priority = protocol.priority_of(options.get("priority"))
        blob = pack_task(
            (body_of(written), options["content_type"], options["content_encoding"]),
            with_properties(headers, protocol.as_sent(options)), priority,
            options.get("correlation_id"), options.get("reply_to"), "", queue,
        )  # fmt: skip
        return Message(
            queue, priority, due_ms, row.id, blob, event, sending.events if event else None, is_relayed=True,
            is_limited=is_limited(headers),
        )  # fmt: skip

    def _check_queue(self, name: str) -> None:
        try:
            self._app.amqp.queues[name]  # creates it if the app lets unknown queues be created
        except KeyError:
            raise self._app.unknown_queue(name) from None

    # --- other brokers ----------------------------------------------------------------------------

    def _publish(self, rows: Sequence[OutboxRow]) -> PushOutcome:
        pushed: list[str] = []
        refused: list[tuple[str, str]] = []
        ends_at = monotonic() + PUBLISHING_SECONDS
        for row in rows:
            if monotonic() > ends_at:
                break  # their claim may end while others wait for confirmations; the next turn takes them
            try:
                content = loads(row.message)
                written: Written = content["task"]
                for queue in written["queues"]:
                    self._check_queue(queue)
                self._publisher.publish(written, _event_of(written) if content["announces"] else None)
            except AWAY as error:
                return PushOutcome(pushed, refused, error)
            except Exception as error:  # noqa: BLE001 - refused by the broker, or a row that contains anything
                refused.append((row.id, _problem(error)))
            else:
                pushed.append(row.id)
        return PushOutcome(pushed, refused)


def is_about_the_message(reason: object) -> bool:
    """Return whether Redis refused what was sent, rather than everything (full, read-only, in a failover)."""
    if not isinstance(reason, ResponseError) or isinstance(reason, OutOfMemoryError):
        return False
    return not any(word in str(reason) for word in (*REFUSALS, "LOADING", "NOAUTH", "NOPERM", "CLOSED"))


def _others(ids: Sequence[str], error: PushError) -> list[str]:
    """Return the ids that ``error`` is not about, which are queued."""
    failed = {*error.task_ids, *(error.not_queued if isinstance(error, SubmitOutcomeUnknown) else ())}
    return [identity for identity in ids if identity not in failed]


def _event_of(written: Written) -> Mapping[str, Any]:
    headers, options = written["options"]["headers"], written["options"]
    fields = {key: headers.get(key) for key in ("root_id", "parent_id", "retries", "eta", "expires")}
    return {
        **fields, "uuid": headers["id"], "name": headers["task"], "args": headers["argsrepr"],
        "kwargs": headers["kwargsrepr"], "queue": next(iter(written["queues"]), None),
        "exchange": options["exchange"], "routing_key": options["routing_key"],
    }  # fmt: skip


def _problem(error: object) -> str:
    return in_words(error)[:ERROR_MOST]
