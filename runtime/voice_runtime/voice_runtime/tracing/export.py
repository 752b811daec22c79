"""The export of spans: a bounded queue, a separate thread, and OTLP/gRPC to the Collector."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Thread

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from voice_runtime.statistics import SpanStatistics


class Exporter(SpanExporter):
    """Sends spans to the Collector. It connects at the first export, so each forked worker has its own connection."""

    def __init__(self, endpoint: str, statistics: SpanStatistics) -> None:
        self._endpoint = endpoint
        self._statistics = statistics
        self._made: OTLPSpanExporter | None = None
        self.taken = 0
        """Number of spans that the exporter took from the queue."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch. While the Collector is down, retry for up to ten seconds, then drop the batch.

        The dropped spans count as failed.
        """
        self.taken += len(spans)
        result = self._connected().export(spans)
        if result is SpanExportResult.SUCCESS:
            self._statistics.exported += len(spans)
        else:
            self._statistics.failed += len(spans)
        return result

    def shutdown(self) -> None:
        """Stop the current export."""
        if self._made is not None:
            self._made.shutdown(timeout_millis=0)

    def _connected(self) -> OTLPSpanExporter:
        if self._made is None:
            insecure = self._endpoint.startswith("http://")
            self._made = OTLPSpanExporter(endpoint=self._endpoint, insecure=insecure)
        return self._made


class SpanQueue(BatchSpanProcessor):
    """The SDK's queue, which also counts dropped spans, and ends within a given time."""

    def __init__(self, endpoint: str, max_queue: int, statistics: SpanStatistics) -> None:
        self._exporter = Exporter(endpoint, statistics)
        self._max_queue = max_queue
        self._statistics = statistics
        # The SDK refuses a batch that is larger than the queue.
        super().__init__(self._exporter, max_queue_size=max_queue, max_export_batch_size=min(512, max_queue))

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span. If the queue is full, drop the span that has waited longest."""
        if span.context is not None and span.context.trace_flags.sampled:
            statistics = self._statistics
            statistics.ended += 1
            if statistics.ended - statistics.dropped - self._exporter.taken > self._max_queue:
                statistics.dropped += 1
        super().on_end(span)

    def end(self, timeout: float) -> None:
        """Send the queued spans, for at most `timeout` seconds."""
        flush = Thread(target=self.shutdown, name="voice-tracing-shutdown", daemon=True)
        flush.start()
        flush.join(timeout)
        if flush.is_alive():
            self._exporter.shutdown()
