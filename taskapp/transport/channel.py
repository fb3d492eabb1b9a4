"""The kombu channels of taskapp: tasks are pushed, claimed and settled through the engine.

Messages without a delivery guarantee (remote control, its replies, events) stay with kombu: pub/sub, and
plain lists consumed without acknowledgement.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from types import MappingProxyType
from typing import Any

from kombu.transport import redis
from redis.connection import Connection
from redis.exceptions import RedisError, ResponseError

from taskapp.engine.claims import Claimed
from taskapp.engine.fetcher import Fetcher
from taskapp.engine.options import Options
from taskapp.engine.producer import Message
from taskapp.engine.runtime import Runtime, role, runtime_for
from taskapp.engine.settlement import Event, Settlement
from taskapp.engine.settlement import current as current_settlement
from taskapp.engine.slots import SingleKindSlots
from taskapp.engine.snapshot import asks_for_ready, ready_in
from taskapp.errors.publishing import Unroutable
from taskapp.redis.keys import Keys
from taskapp.redis.link import NotSent, OutcomeUnknown, over_resp2
from taskapp.redis.trouble import broker
from taskapp.transport.codec import pack, shifted, time_of, to_json
from taskapp.transport.limits_header import is_limited
from taskapp.transport.message import BoundedMessage, Received
from taskapp.transport.own_server import OwnServerChannel
from taskapp.transport.polled import PolledChannel
from taskapp.transport.qos import QoS
from taskapp.transport.unpacking import UNPACKED_BYTES_MOST

# The stubs describe neither well.
_RedisChannel: Any = redis.Channel
_SentinelChannel: Any = redis.SentinelChannel

Command = tuple[Any, ...]

logger = logging.getLogger(__name__)

REPORT_SECONDS = 2.0
"""How often a long purge logs its progress."""


DELIVERY = (
    "lease_seconds", "starvation_guard", "crash_limit", "dead_letters_limit", "parked_seconds", "queue_limits",
    "waits_for_room",
)  # fmt: skip
"""Transport options that are fields of ``Options``."""


class EngineChannel(PolledChannel):
    """Makes kombu's Redis channel push, claim and settle through the engine."""

    QoS = QoS
    Message = BoundedMessage
    body_encoding = None
    _in_poll: Any  # kombu's: the connection that waits in a BRPOP

    queue_order: tuple[str, ...] = ()
    """Queues in the order they are served; others follow in the order they are consumed."""
    lease_seconds = Options.lease_seconds
    starvation_guard = Options.starvation_guard
    crash_limit = Options.crash_limit
    dead_letters_limit = Options.dead_letters_limit
    parked_seconds = Options.parked_seconds
    submit_deadline_seconds = 4.0
    unpacked_bytes_most = UNPACKED_BYTES_MOST
    accepted: frozenset[str] = frozenset()
    """Content types that the node which consumes here accepts, as far as it has said."""
    queue_limits: Mapping[str, int] = MappingProxyType({})
    waits_for_room = Options.waits_for_room
    listeners: int | None = None
    """How many connections received the last broadcast of this channel; ``None`` if the server did not say."""
    OPTIONS = ("queue_order", *DELIVERY, "submit_deadline_seconds", "unpacked_bytes_most")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._claiming: dict[str, Callable[[Any], None]] = {}  # queue -> who takes its messages
        self._consumer: Fetcher | None = None
        self._events_lost_until = 0.0
        self._process: Runtime | None = None
        super().__init__(*args, **kwargs)
        self._rest()

    # --- the process this channel belongs to ----------------------------------------------------

    @property
    def process(self) -> Runtime:
        """This process's runtime for this channel's server."""
        if self._process is None or self._process.is_inherited:
            server = f"{self.connection.client.as_uri(include_password=True)} {self.global_keyprefix}"
            self._process = runtime_for(server, self._make_process)
        return self._process

    def _make_process(self) -> Runtime:
        return Runtime(self._connector(), self._options(), self.submit_deadline_seconds)

    def _options(self) -> Options:
        given: dict[str, Any] = {name: getattr(self, name) for name in DELIVERY}
        return Options(prefix=self.global_keyprefix, **given)

    def _connector(self) -> Callable[[], Connection]:
        pool = self._get_pool()
        options = over_resp2(pool.connection_kwargs)
        # Outside the pool, whose limit applies to connections it lends.
        return lambda: pool.connection_class(**options)

    def _rest(self) -> None:
        """Close idle connections: a process that only submits keeps one, the producer's."""
        for pool in (self._pool, self._async_pool):
            if pool is not None:
                pool.disconnect(inuse_connections=False)

    # --- publishing -------------------------------------------------------------------------------

    def basic_publish(self, message: dict[str, Any], exchange: str, routing_key: str, **options: Any) -> Any:
        """Publish, like kombu, but never a task that no queue would get.

        Raises:
            Unroutable: No queue is bound to ``exchange`` with ``routing_key``.
        """
        is_routed = exchange and "task" in message["headers"] and self.typeof(exchange).type != "fanout"
        if is_routed and not self._lookup(exchange, routing_key):
            raise Unroutable(exchange, routing_key)
        return super().basic_publish(message, exchange, routing_key, **options)

    def encode_body(self, body: Any, encoding: str | None = None) -> tuple[Any, str | None]:
        """Leave the body as it is: only messages sent as JSON need an encoding, see ``_put``."""
        return body, encoding

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        headers = message["headers"]
        if "ticket" in headers:
            self._put_reply(queue, message)
            return
        process = self.process
        priority = self._get_message_priority(message)
        due_ms = time_of(headers, self._ahead_seconds)
        message_id, blob = pack(self._as_json(message), priority)
        message_id = message_id or self._next_delivery_tag()
        process.post(Message(queue, priority, due_ms, message_id, blob, is_limited=is_limited(headers)))

    def _ahead_seconds(self) -> float:
        return self.process.producer.known_clock().ahead_of_here_seconds()

    def _as_json(self, message: dict[str, Any]) -> dict[str, Any]:
        """Encode a body of bytes for JSON, unless the message is a task, which has a binary format."""
        if "task" not in message["headers"] and isinstance(message["body"], bytes):
            message["body"], message["properties"]["body_encoding"] = super().encode_body(message["body"], "base64")
        return message

    def in_engine_time(self, moment: str) -> str:
        """Convert an ISO time of this machine to the engine's clock; may ask the server for the time."""
        return shifted(moment, self._ahead_seconds())

    def event_topic(self, exchange: str, routing_key: str) -> str:
        """Return the Redis channel for events of ``exchange``."""
        return str(self.global_keyprefix + self._get_publish_topics(exchange, routing_key)[0])

    def _put_reply(self, queue: str, message: dict[str, Any]) -> None:
        """Queue a reply to a remote-control command; drop it if the server is away, since nobody waits that long."""
        body = to_json(self._as_json(message))
        try:
            self.process.producer.link.command("LPUSH", Keys(self.global_keyprefix).kombu(queue), body)
        except RedisError as error:
            logger.warning("a reply to a remote-control command was lost: %s", error)

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str, **_: Any) -> None:
        """Publish an event or a command."""
        body = to_json(self._as_json(message))
        if exchange.startswith("celeryev"):
            self.publish_event(exchange, routing_key, body)
        else:
            answers = self._publish([("PUBLISH", topic, body) for topic in self._topics(exchange, routing_key)])
            self.listeners = sum(answers) if all(isinstance(answer, int) for answer in answers) else None

    def publish_event(self, exchange: str, routing_key: str, body: bytes) -> None:
        """Publish an event, given as kombu's message; it is dropped while the server is away."""
        if monotonic() < self._events_lost_until:
            return
        topics = self._topics(exchange, routing_key)
        if run := current_settlement():
            run.events += [Event(topic, body) for topic in topics]
        else:
            self._publish_events([("PUBLISH", topic, body) for topic in topics])

    def _topics(self, exchange: str, routing_key: str) -> list[str]:
        return [self.global_keyprefix + topic for topic in self._get_publish_topics(exchange, routing_key)]

    def _publish(self, commands: list[Command]) -> list[Any]:
        return self.process.producer.link.pipeline(commands)

    def _publish_events(self, commands: list[Command]) -> None:
        # A node does not wait for the number of listeners.
        if self.process.node.publish(commands):
            return
        try:
            self._publish(commands)
        except RedisError as error:
            broker.failed(self, error)
            self._events_lost_until = monotonic() + 1.0
        else:
            broker.works(self)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        if self.typeof(exchange).type == "fanout":
            # Published messages reach all listeners. kombu also keeps a table of them, which nobody reads and in which
            # every killed node would stay.
            self._fanout_queues[queue] = exchange, routing_key.replace("#", "*")
            return
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        except ResponseError as error:
            # A full Redis: only remote control needs the entry, and tasks must run anyway.
            logger.warning("remote control may not reach queue %r: %s", queue, error)
        self._rest()

    def _refresh_bindings(self, queues: Sequence[str]) -> None:
        super()._refresh_bindings([queue for queue in queues if queue not in self._fanout_queues])

    # --- consuming --------------------------------------------------------------------------------

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> Any:  # noqa: FBT001 - kombu's signature
        """Consume ``queue``: through the engine, or through kombu if messages are not acknowledged."""
        if no_ack or queue in self._fanout_queues:
            return super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)
        self._tag_to_queue[consumer_tag] = queue
        self._consumers.add(consumer_tag)
        self._claiming[queue] = callback
        if self._consumer is None:
            process = self.process
            slots = role.slots or SingleKindSlots(self.qos.free)
            keys = Keys(self.global_keyprefix)
            self._consumer = Fetcher(process.node, process.connect, keys, slots, self._hand_out, lambda: role.isolates)
            self.connection.cycle.add_consumer(self._consumer)
        self._consumer.consume(self._in_order())
        self.process.producer.note_queues([queue])
        return None

    def _in_order(self) -> list[str]:
        rank = {queue: position for position, queue in enumerate(self.queue_order)}
        return sorted(self._claiming, key=lambda queue: rank.get(queue, len(rank)))

    def _basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._tag_to_queue.get(consumer_tag)
        if queue not in self._claiming:
            done = super()._basic_cancel(consumer_tag)
            client = self.__dict__.get("client")
            if not self.active_queues and client is not None and client.connection is not None:
                # kombu leaves its BRPOP, or an idle connection, to its poller: the next caller that asks nodes would
                # read the end of a connection that a restart of Redis has closed.
                client.connection.disconnect()
                self._in_poll = None
            return done
        del self._tag_to_queue[consumer_tag]
        self._consumers.discard(consumer_tag)
        del self._claiming[queue]
        if self._consumer is not None:
            self._consumer.consume(self._in_order())
        return None

    def _hand_out(self, claimed: Claimed) -> None:
        callback = self._claiming.get(claimed.queue)
        if callback is None:
            self.process.node.give_back([claimed.tag])
            return
        message = self._message(claimed)
        if message is not None:
            self.qos.append(message, claimed.tag)
            callback(message)

    def _message(self, claimed: Claimed) -> Any:
        """Return kombu's message, or ``None`` if it must not be handed out now."""
        node = self.process.node
        try:
            message = Received(claimed, self)
            if message.is_foreign and (early_seconds := message.early_seconds(node.clock)) > 0:
                node.give_back([claimed.tag], delay_seconds=early_seconds)
                return None
            message.take_times(node.clock)
        except Exception as error:  # noqa: BLE001 - a message may contain anything
            logger.error("a message in %s cannot be read and goes to the dead letters: %s", claimed.queue, error)
            node.bury(claimed.tag, "unreadable", f"{type(error).__name__}: {error}")
            return None
        return message

    def basic_get(self, queue: str, no_ack: bool = False, **_: Any) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        """Return one message of ``queue``, or ``None`` if none is ready."""
        answers: list[Any] = []
        node = self.process.node
        if not node.ready():
            return None
        node.adopt_at = 0.0
        node.claim([queue], 1, answers.append)
        node.flush(monotonic() + self.submit_deadline_seconds)
        claim = answers[0] if answers else None
        if claim is None or not claim.messages:
            return None
        message = self._message(claim.messages[0])
        if message is not None:
            if no_ack:
                node.settle(message.delivery_tag)
            else:
                self.qos.append(message, message.delivery_tag)
        return message

    # --- ending a message -------------------------------------------------------------------------

    def ended(self, tag: str) -> None:
        """Free the slot of a message whose run has ended, even if it is not settled yet."""
        if self.qos.forget(tag):
            self._note_run(tag)

    def settle(self, tag: str, settlement: Settlement | None = None) -> None:
        """Settle a claim together with its run's settlement. Any thread may call this."""
        self.ended(tag)
        self.process.node.settle(tag, settlement)

    def give_back(self, tag: str, kind: str = "unstarted", delay_seconds: float = 0.0, pauses: Any = ()) -> None:
        """Return a message, see ``Node.give_back``."""
        self.qos.forget(tag)
        self.process.node.give_back([tag], kind, delay_seconds, pauses)

    def bury(self, tag: str, reason: str, detail: str, settlement: Settlement | None = None) -> None:
        """Move a message to the dead letters, see ``Node.bury``."""
        self.ended(tag)
        self.process.node.bury(tag, reason, detail, settlement)

    def park(self, tag: str, task: str) -> None:
        """Park a message until a node has its task type."""
        self.qos.forget(tag)
        self.process.node.park(tag, task)

    def _note_run(self, tag: str) -> None:
        if self._consumer is not None and self._consumer.pace is not None:
            since = self.process.node.held.get(tag)
            if since is not None:
                self._consumer.pace.ran(monotonic() - since)

    # --- queues -----------------------------------------------------------------------------------

    def _size(self, queue: str) -> int:
        return ready_in(self.process.producer.link.pipeline(asks_for_ready(Keys(self.global_keyprefix), queue)))

    def _purge(self, queue: str) -> int:
        gone, at, reported_at = 0, b"", monotonic()
        while at != b"0":
            some, at = self.process.producer.link.run("empty", self.global_keyprefix, 0, queue, at or b"0")
            gone += int(some)
            if (now := monotonic()) >= reported_at + REPORT_SECONDS:
                reported_at = now
                # A warning, because `celery purge` shows nothing below that level.
                logger.warning("purging queue %s: %s messages deleted so far", queue, f"{gone:,}")
        return gone

    def _delete(self, queue: str, exchange: str, routing_key: str, pattern: str, *_: Any, **__: Any) -> None:
        self.auto_delete_queues.discard(queue)
        keys = Keys(self.global_keyprefix)
        member = self.sep.join([routing_key or "", pattern or "", queue or ""])
        bindings = [self.keyprefix_queue % (exchange,), self.keyprefix_binding_permanent % (exchange,)]
        # One by one: in a transaction a full Redis also refuses commands that free memory.
        commands: list[Command] = [("SREM", self.global_keyprefix + key, member) for key in bindings]
        commands += [("UNLINK", key) for key in keys.waiting(queue)]
        try:
            self.process.producer.link.pipeline(commands)
        except (NotSent, OutcomeUnknown) as error:
            broker.failed(self, error)
        except RedisError as error:
            logger.warning("queue %r could not be deleted: %s", queue, error)
        if queue in self._claiming or queue in self.queue_order:
            self._purge(queue)

    def close(self) -> None:
        """Close and return messages not handed out; those handed out stay under the process's lease."""
        if self._consumer is not None and not self.closed:
            self._consumer.stop()
            self.connection.cycle.discard_consumer(self._consumer)
        try:
            super().close()
        except (RedisError, OSError) as error:
            logger.debug("closing a channel of a broken connection: %s", error)


class Channel(EngineChannel, OwnServerChannel, _RedisChannel):
    """A channel to one Redis."""

    from_transport_options = (*_RedisChannel.from_transport_options, *EngineChannel.OPTIONS, "own_server")


class SentinelChannel(EngineChannel, _SentinelChannel):
    """A channel to the Redis master that Sentinel names."""

    from_transport_options = (*_SentinelChannel.from_transport_options, *EngineChannel.OPTIONS)
