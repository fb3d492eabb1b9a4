"""kombu's transport for RabbitMQ with limits: on the duration of a submit, and on the size of unpacked messages.

py-amqp waits for answers without a limit, and takes any confirmation for that of the last message. During a
memory or disk alarm RabbitMQ stops reading from connections that publish, so neither works.

    publish ──► blocked? wait for its end ──► completely written ──► confirmed
                      │                         │                       └──► no answer: ``Unconfirmed``, outcome unknown
                      │                         └──► not: the broker cannot have it
                      └──► still blocked: ``Blocked``, it was not sent

Events and replies of remote control are published without waiting, and dropped while the connection is blocked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from math import isfinite
from time import monotonic
from typing import Any

from amqp import spec
from amqp.exceptions import MessageNacked, NotFound, RecoverableConnectionError
from kombu.exceptions import OperationalError
from kombu.transport import pyamqp

from taskapp.errors.publishing import Unroutable
from taskapp.transport.frames import frame_handler, readable_delivery
from taskapp.transport.message import Unpacking
from taskapp.transport.unpacking import UNPACKED_BYTES_MOST

# The packages have no types.
_Message: Any = pyamqp.Message
_Channel: Any = pyamqp.Channel
_Connection: Any = pyamqp.Connection
_Transport: Any = pyamqp.Transport
_SSLTransport: Any = pyamqp.SSLTransport

CLOSE_SECONDS = 1.0
"""How long closing waits for the broker's answer."""
LEAST_SECONDS = 0.01
ALARM = "it accepts no messages because of a memory or disk alarm"
UNCONFIRMED = ("celeryev", "reply.")
"""Prefixes of exchanges whose messages may be lost."""


class Unconfirmed(OperationalError):
    """A message was sent, but the broker did not confirm it in time: it may have it."""


class Blocked(OperationalError):
    """The broker accepts no messages now; nothing was sent."""


class Submission:
    """One submit: its deadline, and whether the broker may have the message."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        """By the monotonic clock; infinite: no deadline."""
        self.in_doubt = False

    @property
    def left_seconds(self) -> float | None:
        """Seconds until the deadline, at least a moment; ``None``: no deadline."""
        return max(self.deadline - monotonic(), LEAST_SECONDS) if isfinite(self.deadline) else None


_submission: ContextVar[Submission | None] = ContextVar("taskapp_submission", default=None)


@contextmanager
def submitting(deadline: float) -> Iterator[Submission]:
    """Limit all calls to RabbitMQ inside to ``deadline``, by the monotonic clock."""
    submission = Submission(deadline)
    token = _submission.set(submission)
    try:
        yield submission
    finally:
        _submission.reset(token)


def left_seconds() -> float | None:
    """Return the seconds left to the current submit; ``None``: it has no deadline, or there is no submit."""
    submission = _submission.get()
    return submission.left_seconds if submission is not None else None


class AmqpMessage(Unpacking, _Message):
    """A message of RabbitMQ."""

    def __init__(self, raw: Any, channel: Any = None, **options: Any) -> None:
        read = partial(super().__init__, raw, channel=channel, **options)
        if (raw.properties.get("application_headers") or {}).get("compression"):
            self._read_packed(read, channel.connection.unpacked_bytes_most)
        else:
            read()


class AmqpChannel(_Channel):
    """A channel to RabbitMQ."""

    Message = AmqpMessage
    _returned: tuple[str, str] | None = None
    """Exchange and routing key of the awaited message, if the broker returned it."""

    def dispatch_method(self, method: Any, arguments: Any, content: Any) -> Any:
        """Handle a method of the broker; see ``frames`` for names that cannot be decoded."""
        try:
            return super().dispatch_method(method, arguments, content)
        except UnicodeDecodeError:
            if method != spec.Basic.Deliver:
                raise
        return super().dispatch_method(method, readable_delivery(arguments), content)

    def wait(self, method: Any, callback: Any = None, timeout: float | None = None, returns_tuple: bool = False) -> Any:  # noqa: FBT001, FBT002 - py-amqp's signature
        """Wait for an answer of the broker, within the deadline of the current submit or the limit for closing.

        Raises:
            TimeoutError: There was no answer.
        """
        return super().wait(method, callback, _bounded(method, timeout), returns_tuple)

    def basic_publish_confirm(
        self, msg: Any, exchange: str = "", routing_key: str = "", timeout: float | None = None,
        confirm_timeout: float | None = None, **options: Any,
    ) -> None:  # fmt: skip
        """Publish a message and wait until the broker confirms it.

        Args:
            msg: The message.
            exchange: Its exchange.
            routing_key: Its routing key.
            timeout: How many seconds to wait; ``None``: until the deadline of the current submit, if there is one.
            confirm_timeout: The same; it takes precedence.
            options: ``mandatory``, ``immediate``.

        Raises:
            Blocked: An alarm of the broker did not end in time; nothing was sent.
            Unconfirmed: It did not answer; the connection is dropped.
            Unroutable: There is no such exchange, or no queue gets the message and it is ``mandatory``.
            amqp.exceptions.MessageNacked: It refused the message.
            OSError, amqp.exceptions.AMQPError: The connection broke, or the broker closed the channel.
        """
        if self.connection is None:
            raise RecoverableConnectionError("the channel was closed with its connection")
        seconds = confirm_timeout or timeout or left_seconds()
        deadline = monotonic() + seconds if seconds else None
        if not self._confirm_selected:
            self._select()
        is_awaited = not exchange.startswith(UNCONFIRMED)
        connection = self.connection
        if is_awaited:
            connection.wait_while_blocked(deadline)
        elif connection.is_blocked:
            return
        self._sent += 1
        tag = self._sent
        self._returned = None
        if is_awaited:
            self._awaited.add(tag)
        try:
            self._basic_publish(msg, exchange, routing_key, timeout=_left(deadline), **options)
        except BaseException:
            # A half-written message would make everything after it unreadable.
            connection.collect()
            raise
        if is_awaited:
            self._await_routed(connection, tag, deadline, (exchange, routing_key))

    def _select(self) -> None:
        self._sent = 0
        self._awaited: set[int] = set()
        self._refused: set[int] = set()
        self.confirm_select()
        self._confirm_selected = True
        self.events["basic_ack"].add(self._on_ack)
        self.events["basic_nack"].add(self._on_nack)
        self.events["basic_return"].add(self._on_return)

    def _on_ack(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - py-amqp's signature
        self._awaited -= {each for each in self._awaited if each <= tag} if multiple else {tag}

    def _on_nack(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - the same
        self._refused |= {each for each in self._awaited if each <= tag} if multiple else {tag} & self._awaited
        self._on_ack(tag, multiple)

    def _on_return(self, _error: Any, exchange: str, routing_key: str, _message: Any) -> None:
        # The broker returns a message before it confirms it, and only one at a time is awaited.
        self._returned = exchange, routing_key

    def _await_routed(self, connection: Any, tag: int, deadline: float | None, sent_to: tuple[str, str]) -> None:
        try:
            self._await(connection, tag, deadline)
        except NotFound as error:  # the broker closed the channel, because it has no such exchange
            raise Unroutable(*sent_to) from error
        if self._returned is not None:
            raise Unroutable(*self._returned)

    def _await(self, connection: Any, tag: int, deadline: float | None) -> None:
        try:
            while tag in self._awaited:
                if self.connection is None:
                    raise RecoverableConnectionError("the connection was closed before the broker confirmed")
                connection.drain_events(timeout=_left(deadline))
        except TimeoutError as error:
            reason = ALARM if connection.is_blocked else "it does not answer"
            connection.collect()
            raise Unconfirmed(reason) from error
        except (OSError, RecoverableConnectionError):
            if (submission := _submission.get()) is not None:
                submission.in_doubt = True
            raise
        if tag in self._refused:
            self._refused.discard(tag)
            raise MessageNacked


class AmqpConnection(_Connection):
    """A connection to RabbitMQ; its options are those of the transport and of py-amqp."""

    Channel = AmqpChannel

    def __init__(self, *args: Any, unpacked_bytes_most: int = UNPACKED_BYTES_MOST, **options: Any) -> None:
        self.unpacked_bytes_most = unpacked_bytes_most
        self.is_blocked = False
        """Whether the broker has announced that it does not read from this connection."""
        super().__init__(*args, **{"frame_handler": frame_handler, **options})
        self.on_blocked, self.on_unblocked = self._note_blocked, self._note_unblocked

    def _note_blocked(self, _reason: str) -> None:
        self.is_blocked = True

    def _note_unblocked(self) -> None:
        self.is_blocked = False

    def wait(self, method: Any, callback: Any = None, timeout: float | None = None, returns_tuple: bool = False) -> Any:  # noqa: FBT001, FBT002 - py-amqp's signature
        """Wait for an answer of the broker, like ``AmqpChannel.wait``."""
        return super().wait(method, callback, _bounded(method, timeout), returns_tuple)

    def wait_while_blocked(self, deadline: float | None) -> None:
        """Wait until the broker reads from this connection again.

        Raises:
            Blocked: It did not until ``deadline``.
        """
        self._read_what_came()
        while self.is_blocked:
            try:
                self.drain_events(timeout=_left(deadline))
            except TimeoutError as error:
                raise Blocked(ALARM) from error

    def _read_what_came(self) -> None:
        try:
            while True:
                self.drain_events(timeout=0)
        except TimeoutError:
            return


class _Bounded:
    """Mixed into a transport, connects within the deadline of the current submit."""

    client: Any

    def establish_connection(self) -> Any:
        """Connect, within the deadline of the current submit."""
        client, left = self.client, left_seconds()
        usual = client.connect_timeout
        if left is not None:
            client.connect_timeout = min(usual or left, left)
        try:
            return super().establish_connection()  # type: ignore[misc]  # defined by the class it is mixed into
        finally:
            client.connect_timeout = usual


class AmqpTransport(_Bounded, _Transport):
    """``amqp://``."""

    Connection = AmqpConnection


class SSLTransport(_Bounded, _SSLTransport):
    """``amqps://``."""

    Connection = AmqpConnection


def _bounded(method: Any, timeout: float | None) -> float | None:
    if timeout is not None:
        return timeout
    left = left_seconds()
    if method in (spec.Channel.CloseOk, spec.Connection.CloseOk):
        return CLOSE_SECONDS if left is None else min(left, CLOSE_SECONDS)
    return left


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - monotonic(), LEAST_SECONDS)
