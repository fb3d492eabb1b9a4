"""The end of a run on a broker that is not the engine's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery.exceptions import Reject
from kombu.exceptions import EncodeError, OperationalError
from redis import ResponseError

from taskapp.client.deferred_publish import CollectingProducer
from taskapp.engine.settlement import Settlement, collecting, settling
from taskapp.errors import TaskappError
from taskapp.redis.outage import ResultServerGone
from taskapp.worker.run.other_brokers import carry_out

SUCCESS = (0, "3", 0.1)


class Broker:
    """A runner, its app, its backend and its producer: notes what is done in which order."""

    name, result_retry_seconds, connection = "shop.pay", 1.0, None

    def __init__(self) -> None:
        self.task = self.app = self.backend = self
        self.done: list[Any] = []
        self.error: Exception | None = None

    def store_elsewhere(self, settlement: Settlement, *, retry_seconds: float) -> None:
        if isinstance(self.error, TaskappError | ResponseError):
            raise self.error
        self.done += settlement.external_writes

    @contextmanager
    def lend_producer(self) -> Iterator[Broker]:
        yield self

    def publish(self, body: Any, **options: Any) -> None:
        if self.error is not None:
            raise self.error
        self.done.append((body, options["content_type"], options["routing_key"]))


@pytest.fixture
def broker() -> Broker:
    return Broker()


def settlement_of(broker: Broker) -> Settlement:
    settlement = Settlement()
    CollectingProducer(broker, settlement).publish({"x": 1}, serializer="json", routing_key="default")
    settlement.external_writes.append("result")
    return settlement


def test_the_result_is_stored_before_what_follows_is_published(broker: Broker) -> None:
    assert carry_out(broker, SUCCESS, settlement_of(broker)) is SUCCESS
    assert broker.done == ["result", ('{"x": 1}', "application/json", "default")]


@pytest.mark.parametrize(
    ("error", "goes_back"),
    [
        (OperationalError("gone"), True),
        (ResultServerGone("storing", 300.0, "refused"), True),
        (ResponseError("WRONGTYPE"), False),
        (ValueError("no such exchange"), False),
    ],
)
def test_a_message_goes_back_only_when_another_run_may_fare_better(
    broker: Broker, error: Exception, goes_back: bool
) -> None:
    broker.error = error

    failed, seen, seconds = carry_out(broker, SUCCESS, settlement_of(broker))

    assert (failed, seconds) == (1, None)
    assert isinstance(seen.exception.exc, Reject)
    assert seen.exception.exc.requeue is goes_back


def test_what_cannot_be_encoded_is_refused_while_the_run_can_still_fail(broker: Broker) -> None:
    settlement = Settlement()
    with pytest.raises(EncodeError):
        CollectingProducer(broker, settlement).publish({"x": object()}, serializer="json", routing_key="default")
    assert settlement.postings == []


def test_a_retry_is_posted_though_its_run_fails_yet() -> None:
    settlement = Settlement()
    with settling(settlement):
        with collecting(keep=True):
            settlement.post("retry")
        with collecting():
            settlement.post("link")
        with collecting(drop=True):
            settlement.post("errback")
    assert settlement.postings == ["retry", "errback"]
