"""Traces and logs, set up from the bundle's tracing policy. Needs the extra `tracing`.

runtime = Runtime.load("/etc/voice/policy", listeners=[SpanEvents()])
with Telemetry(runtime):
    with span("rerank", attributes={"documents": 20}):
        ...
"""

from voice_runtime.tracing.baggage import attributed
from voice_runtime.tracing.logs import JsonFormatter, log_as_json
from voice_runtime.tracing.span_events import SpanEvents
from voice_runtime.tracing.spans import record_error, span, traced
from voice_runtime.tracing.telemetry import Telemetry

__all__ = [
    "JsonFormatter",
    "SpanEvents",
    "Telemetry",
    "attributed",
    "log_as_json",
    "record_error",
    "span",
    "traced",
]
