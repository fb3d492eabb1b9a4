"""A collector of OpenTelemetry: takes spans by OTLP over HTTP, as a real one does."""

from __future__ import annotations

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status


class Span(NamedTuple):
    """What a collector receives about a span."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    attributes: dict[str, Any]
    is_error: bool
    description: str
    events: list[tuple[str, dict[str, Any]]]
    service: str
    seconds: float


class Collector:
    """Keeps every span it is sent; listens on a port of its own."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    collector.spans.extend(spans_of(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # five by default: a busy machine turns away the sixth process that connects

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process that sends its spans here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def named(self, name: str) -> list[Span]:
        return [span for span in list(self.spans) if span.name == name]

    def edges(self, trace_id: str) -> Counter[tuple[str, str]]:
        """Each span of a trace by its parent's name and its own; a parent nobody has sent is "?"."""
        spans = [span for span in list(self.spans) if span.trace_id == trace_id]
        names = {span.span_id: span.name for span in spans} | {"": ""}
        return Counter((names.get(span.parent_id, "?"), span.name) for span in spans)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def spans_of(body: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        _span(span, _attributes(resource.resource.attributes).get("service.name", ""))
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _span(span: ProtoSpan, service: str) -> Span:
    return Span(
        span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
        ProtoSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"), _attributes(span.attributes),
        span.status.code == Status.STATUS_CODE_ERROR, span.status.message,
        [(event.name, _attributes(event.attributes)) for event in span.events], service,
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )  # fmt: skip


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
