"""Records the spans of the runtime in a test, without changing the tracer provider of the process."""

from __future__ import annotations

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from voice_runtime import trace_context


class Spans(InMemorySpanExporter):
    def __init__(self) -> None:
        super().__init__()
        self.open = 0


class _Counting(SimpleSpanProcessor):
    def __init__(self, spans: Spans) -> None:
        super().__init__(spans)
        self._spans = spans

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        super().on_start(span, parent_context)
        self._spans.open += 1

    def on_end(self, span: ReadableSpan) -> None:
        super().on_end(span)
        self._spans.open -= 1


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    provider, recorded = TracerProvider(), Spans()
    provider.add_span_processor(_Counting(recorded))
    monkeypatch.setattr(trace_context, "_tracer", provider.get_tracer("test"))
    return recorded
