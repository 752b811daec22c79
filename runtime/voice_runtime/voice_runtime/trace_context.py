"""Trace context and baggage on the wire, by OpenTelemetry's propagators. Without an SDK it costs next to nothing.

A span stands for one call or one request; what the policies decide inside of it is for listeners to add.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager

from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import ProxyTracer, ProxyTracerProvider, Span, SpanKind, Status, StatusCode

from voice_runtime.caller import Caller

TENANT, USER = "tenant.id", "user.id"
"""The baggage that names who asks, as the tracing policy names it."""
_tracer = trace.get_tracer("voice_runtime")


def is_recorded() -> bool:
    """True if an SDK records spans. Do not ask for every call: the answer costs as much as a span."""
    return not (isinstance(_tracer, ProxyTracer) and isinstance(trace.get_tracer_provider(), ProxyTracerProvider))


def begin_client_span(name: str, attributes: Mapping[str, str]) -> Span:
    """A span for a call that leaves this process, as a child of the current one. Whoever begins it ends it."""
    return _tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)


def begin_server_span(name: str, attributes: Mapping[str, str], context: Context) -> Span:
    """A span for a request that came in with `context`."""
    return _tracer.start_span(name, context, kind=SpanKind.SERVER, attributes=attributes)


def within(span: Span) -> AbstractContextManager[Span]:
    """Make it the current one for a while; whoever began it still ends it."""
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)


def end_span(span: Span, error: BaseException | None, *, failed: bool) -> None:
    """End it; a failed one carries the error."""
    if failed and error is not None and span.is_recording():
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
    span.end()


def headers(span: Span | None = None) -> dict[str, str]:
    """Headers that continue the trace of `span`, or of the current span, at the next hop, with the baggage."""
    carrier: dict[str, str] = {}
    if span is not None:
        propagate.inject(carrier, trace.set_span_in_context(span))
    elif get_current():
        propagate.inject(carrier)
    return carrier


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by name. The values of a repeated one, such as baggage, are joined by a comma (RFC 9110, 5.3)."""
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
