"""Trace context and baggage in headers, by OpenTelemetry's propagators.

Without an SDK the propagators take almost no time. A span stands for one call or one request. Event listeners add the
decisions of policies to the span.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager

from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import ProxyTracer, ProxyTracerProvider, Span, SpanKind, Status, StatusCode

from voice_runtime.caller import Caller

TENANT, USER = "tenant.id", "user.id"
"""Baggage keys of tenant and user. The tracing policy allows both by default."""
_tracer = trace.get_tracer("voice_runtime")


def is_recorded() -> bool:
    """True if an SDK records spans. Do not call this function for each call: it takes as long as a span."""
    return not (isinstance(_tracer, ProxyTracer) and isinstance(trace.get_tracer_provider(), ProxyTracerProvider))


def begin_client_span(name: str, attributes: Mapping[str, str]) -> Span:
    """Begin a span for an outgoing call, as a child of the current span. End it with `end_span`."""
    return _tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)


def begin_server_span(name: str, attributes: Mapping[str, str], context: Context) -> Span:
    """Begin a span for a request that arrived with `context`. End it with `end_span`."""
    return _tracer.start_span(name, context, kind=SpanKind.SERVER, attributes=attributes)


def within(span: Span) -> AbstractContextManager[Span]:
    """Make `span` the current span inside the block. The end of the block does not end the span."""
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)


def end_span(span: Span, error: BaseException | None, *, failed: bool) -> None:
    """End the span. If `failed` and there is an `error`, the span is an error and records `error`."""
    if failed and error is not None and span.is_recording():
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
    span.end()


def headers(span: Span | None = None) -> dict[str, str]:
    """Headers for the next hop: the baggage, and the trace of `span`. The default is the current span."""
    carrier: dict[str, str] = {}
    if span is not None:
        propagate.inject(carrier, trace.set_span_in_context(span))
    elif get_current():
        propagate.inject(carrier)
    return carrier


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by name. Values of a repeated header, such as baggage, are joined by commas (RFC 9110, 5.3)."""
    headers: dict[str, str] = {}
    for key, value in pairs:
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


def context_of(carrier: Mapping[str, str]) -> Context:
    """The context that the previous hop sent. Keys are lower case."""
    return propagate.extract(carrier)


def caller_of(context: Context, api_key: str = "") -> Caller:
    """The caller, from the baggage of the request."""
    tenant, user = (str(baggage.get_baggage(key, context) or "") for key in (TENANT, USER))
    return Caller(tenant=tenant, user=user, api_key=api_key)
