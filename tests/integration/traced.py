"""A user's tasks and web app whose traces are looked at."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import UTC, datetime
from time import sleep, time
from typing import Any

from celery import chain, chord, shared_task

OF_TRACING = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "taskapp.tracing.")
"""The client of Redis has other parts of OpenTelemetry imported, where they are installed."""
logger = logging.getLogger(__name__)


@shared_task
def double(x: int) -> int:
    return x * 2


@shared_task
async def add_on_loop(x: int, y: int = 1) -> int:
    await asyncio.sleep(0.01)
    return x + y


@shared_task(cpu_bound=True)
def add_in_child(x: int, y: int = 1) -> int:
    return x + y


@shared_task(bind=True, default_retry_delay=0, max_retries=2)
def flaky(self: Any, x: int) -> int:
    if not self.request.retries:
        raise self.retry(exc=ConnectionError("the first time"))
    return x


@shared_task
def total(values: list[int]) -> int:
    return sum(values)


@shared_task
async def spawn() -> None:
    await asyncio.gather(*(add_on_loop.adelay(n) for n in range(3)))


@shared_task
def fail(text: str) -> None:
    logger.warning("about to fail")
    raise ValueError(text)


def deny(card: str) -> None:
    try:
        raise KeyError(card)
    except KeyError as error:
        raise ValueError(f"no such card: {card}") from error


@shared_task(masks=("card",))
def deny_on_thread(card: str) -> None:
    deny(card)


@shared_task(masks=("card",))
async def deny_on_loop(card: str) -> None:
    deny(card)


@shared_task(masks=("card",), cpu_bound=True)
def deny_in_child(card: str) -> None:
    deny(card)


@shared_task(bind=True, masks=("card",), default_retry_delay=0, max_retries=1)
def deny_twice(self: Any, card: str) -> None:
    try:
        deny(card)
    except ValueError as error:
        raise self.retry(exc=error)  # noqa: B904 - as people write it


@shared_task(sensitive=True)
def deny_silently(card: str) -> None:
    deny(card)


DENIED = [deny_on_thread, deny_on_loop, deny_in_child, deny_twice, deny_silently]


@shared_task(time_limit=1)
async def hang() -> None:
    await asyncio.sleep(60)


@shared_task(time_limit=1, cpu_bound=True)
def hang_in_child() -> None:
    sleep(60)


@shared_task(bind=True)
def seen(self: Any, *_: object) -> list[Any]:
    """What of tracing there is in the process that runs it, and the headers that came along."""
    return [parts_of_tracing(), self.request.headers]


def parts_of_tracing() -> list[str]:
    return sorted(name for name in sys.modules if name.startswith(OF_TRACING))


# --- the web app ----------------------------------------------------------------------------------


def say(what: Any) -> None:
    sys.stdout.write(f"{what}\n")


def canvas() -> None:
    """Submit a chain, a chord with a retry in it, and a coroutine that submits more."""
    submitted = [
        chain(double.s(1), add_on_loop.s(), add_in_child.s()).apply_async(),
        chord([flaky.s(2), add_in_child.s(3)])(total.s()),
        spawn.delay(),
    ]
    for result in submitted:
        result.get(timeout=30)


def many() -> None:
    add_on_loop.submit_many([(n,) for n in range(1_000)])


def together() -> None:
    """Submit from many coroutines, each in a span of its own."""
    from opentelemetry import trace

    tracer = trace.get_tracer(__name__)

    async def one(number: int) -> None:
        with tracer.start_as_current_span(f"request {number}"):
            await add_on_loop.adelay(number)
            with tracer.start_as_current_span(f"later {number}"):
                await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(20)))

    asyncio.run(all_of_them())


def by_name() -> None:
    """Submit a type that this process does not know."""
    import taskapp.celery

    taskapp.celery.app.send_task("elsewhere.unknown", [1])


def failing() -> None:
    fail.delay("as asked").get(timeout=30, propagate=False)


def due() -> None:
    """Submit what becomes due at once; as its headers say, it was submitted long before."""
    now = time()
    eta = datetime.fromtimestamp(now, UTC)
    double.apply_async((1,), eta=eta, headers={"taskapp_sent_at": now - 1_200})


def denied() -> None:
    for result in [task.delay("4111-1111-2222") for task in DENIED] + [deny_on_thread.delay(card="4111-1111-2222")]:
        result.get(timeout=30, propagate=False)
    deny_on_thread.apply(("4111-1111-2222",))  # eagerly, in the web process


def limited() -> None:
    for result in [hang.delay(), hang_in_child.delay()]:
        result.get(timeout=30, propagate=False)


def looking() -> None:
    """Print what of tracing is in this process, then in a worker's."""
    result = seen.delay()
    say(parts_of_tracing())
    say(result.get(timeout=30))


def main() -> None:
    """Do what the first argument names, inside a span of the web app's own if there is a second; print its trace."""
    import taskapp.celery  # noqa: F401 - makes it the app of every shared task

    act = globals()[sys.argv[1]]
    if sys.argv[2:] != ["web"]:
        act()
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "web"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    with trace.get_tracer(__name__).start_as_current_span("web") as span:
        act()
        assert trace.get_current_span() is span
    say(trace.format_trace_id(span.get_span_context().trace_id))
