"""Flower's Broker page and queue lengths, read over our app's connections if the broker is Redis.

Flower's own connection supports neither TLS options in the URL, databases on Unix sockets, several URLs, nor the
login of the embedded server.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from flower.api.tasks import GetQueueLengths
from flower.views.broker import BrokerView

from taskapp.app.application import Celery
from taskapp.engine.snapshot import asks_for_ready, ready_in
from taskapp.monitor.flower.source import TabSource
from taskapp.redis.keys import Keys
from taskapp.redis.link import all_answered
from taskapp.transport.transport import is_over_redis

_Mixin: Any = object


def lengths(app: Celery, queues: Iterable[str]) -> list[dict[str, Any]]:
    """Return ``{"name": …, "messages": …}`` with the number of ready messages for each queue, in one round trip.

    Raises:
        The errors of ``app.engine()``.
    """
    names = list(queues)
    with app.engine() as engine:
        asked = [asks_for_ready(Keys(engine.prefix), name) for name in names]
        answers = iter(all_answered(engine.link.pipeline([command for each in asked for command in each])))
    return [
        {"name": name, "messages": ready_in([next(answers) for _ in each])}
        for name, each in zip(names, asked, strict=True)
    ]


class _RedisBroker:
    """The part of Flower's broker interface that its pages use."""

    def __init__(self, app: Celery, source: TabSource) -> None:
        self._app, self._source = app, source

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        return await self._source.call(partial(lengths, self._app, names))


class _AsksOurApp(_Mixin):
    def initialize(self, source: TabSource) -> None:
        self.source = source

    def get_broker(self) -> Any:
        if is_over_redis(self.capp.conf.broker_url):
            return _RedisBroker(self.capp, self.source)
        return super().get_broker()


class BrokerPage(_AsksOurApp, BrokerView):
    """Flower's Broker page."""


class QueueLengths(_AsksOurApp, GetQueueLengths):
    """Queue lengths as JSON."""


REPLACED = {BrokerView: BrokerPage, GetQueueLengths: QueueLengths}
"""Flower's handlers and their replacements."""
