"""The ``TracerProvider`` that creates and exports spans: the program's own, or ours if it has none."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

from celery import signals
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from taskapp.background import PerProcess, start_thread
from taskapp.version import __version__

DEFAULT_SERVICE_NAME = "taskapp"
FINISH_SECONDS = 1.0
"""How long a stopping node waits for the last spans to be exported; less than an idle node may take to stop."""

_lock = PerProcess(threading.Lock)
_ours: TracerProvider | None = None
_known: tuple[Any, trace.Tracer] | None = None


class ExporterOfProcess(SpanExporter):
    """Exports by OTLP/HTTP as configured by ``OTEL_EXPORTER_OTLP_…``, with separate connections in each process.

    Parent and child would both read from a connection inherited by a fork.
    """

    def __init__(self) -> None:
        self._exporter = PerProcess(OTLPSpanExporter)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export ``spans``; blocks the caller, which is the processor's thread."""
        return self._exporter().export(spans)

    def shutdown(self) -> None:
        """Stop retrying failed exports."""
        if (exporter := self._exporter.value) is not None:
            exporter.shutdown()


def tracer(*, of_node: bool = False) -> trace.Tracer:
    """Return the tracer of this process.

    Args:
        of_node: Whether this process runs tasks; then our provider also becomes the global one, for the tasks' code.
    """
    global _known
    provider: Any = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        provider = _our_provider(of_node=of_node)
    if _known is None or _known[0] is not provider:
        _known = provider, provider.get_tracer("taskapp", __version__)
    return _known[1]


def _our_provider(*, of_node: bool) -> TracerProvider:
    global _ours
    with _lock():
        if _ours is None:
            _ours = TracerProvider(resource=_resource())
            _ours.add_span_processor(BatchSpanProcessor(ExporterOfProcess()))
        if of_node and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(_ours)
        return _ours


def _resource() -> Resource:
    found = Resource.create()
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        return found.merge(Resource({SERVICE_NAME: DEFAULT_SERVICE_NAME}))
    return found


def finish_with_worker() -> None:
    """Export the last spans when a node or one of its child processes ends."""
    node_pid = os.getpid()

    def finish_child(pid: int, **_: Any) -> None:
        if pid != node_pid:
            _finish()

    signals.worker_shutdown.connect(_finish, weak=False)
    signals.worker_process_shutdown.connect(finish_child, weak=False)


def _finish(**_: Any) -> None:
    provider: Any = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        provider = _ours
    end = getattr(provider, "shutdown", None)
    if end is not None:
        # On a thread: the provider would wait for an unreachable collector longer than a node may take to stop.
        start_thread(end, name="tracing-end").join(FINISH_SECONDS)
