"""A small Collector for tests and demonstrations: receives spans over OTLP/gRPC and keeps them in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["Collector", "ReceivedEvent", "ReceivedSpan"]

Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event during a span."""

    name: str
    time: int
    """The time in nanoseconds since the epoch."""
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A received span. Times are in nanoseconds."""

    resource: Attributes
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    begin: int
    end: int
    attributes: Attributes
    events: tuple[ReceivedEvent, ...]
    failed: bool

    @property
    def service(self) -> str:
        """The service that sent the span."""
        return str(self.resource["service.name"])


class Collector(TraceServiceServicer):
    """A Collector that listens inside a `with` block, on a free port of the loopback interface."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self._arrived = Condition()
        self._server = grpc.server(ThreadPoolExecutor(4))
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]  # generated without types
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def Export(self, request: ExportTraceServiceRequest, context: object) -> ExportTraceServiceResponse:  # noqa: ARG002, N802  # the stub's signature
        """Keep the spans of a batch. gRPC calls this method for each batch."""
        with self._arrived:
            self.spans.extend(_decoded(request))
            self._arrived.notify_all()
        return ExportTraceServiceResponse()

    def wait_for(self, enough: Callable[[list[ReceivedSpan]], bool], timeout: float) -> bool:
        """Wait until `enough` is true for the received spans. False if that takes longer than `timeout` seconds."""
        with self._arrived:
            return self._arrived.wait_for(lambda: enough(self.spans), timeout)


def _decoded(request: ExportTraceServiceRequest) -> Iterable[ReceivedSpan]:
    for sender in request.resource_spans:
        resource = _attributes(sender.resource.attributes)
        for scope in sender.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    resource=resource,
                    name=span.name,
                    kind=span.kind,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    begin=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    events=tuple(_received(event) for event in span.events),
                    failed=span.status.code == span.status.STATUS_CODE_ERROR,
                )


def _received(event: Span.Event) -> ReceivedEvent:
    return ReceivedEvent(event.name, event.time_unix_nano, _attributes(event.attributes))


def _attributes(found: Iterable[KeyValue]) -> Attributes:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in found}
