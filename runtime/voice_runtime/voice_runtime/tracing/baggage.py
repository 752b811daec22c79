"""Business attributes: allowed baggage travels inside the platform and becomes span attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import baggage, context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from voice_runtime.context_variables import restore
from voice_runtime.runtime import Runtime


@contextmanager
def attributed(attributes: Mapping[str, str]) -> Iterator[None]:
    """Attach attributes such as `tenant.id` to every span that begins inside the block, here and in called services.

    Attributes that `tracing.baggage` does not allow are on no span and stay in this process.
    """
    current = context.get_current()
    for key, value in attributes.items():
        current = baggage.set_baggage(key, _encodable(value), current)
    token = context.attach(current)
    try:
        yield
    finally:
        restore(token)


def _encodable(text: str) -> str:
    """The text with an escape for each lone surrogate, because headers and exporters cannot encode surrogates."""
    return text.encode(errors="backslashreplace").decode()


class AllowedBaggage(TextMapPropagator):
    """Reads and writes W3C baggage, but only the keys in `tracing.baggage`. Calls to external hosts do not use it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._w3c = W3CBaggagePropagator()

    @property
    def fields(self) -> set[str]:
        """Names of the headers that `inject` writes."""
        return self._w3c.fields

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        """Write the allowed baggage."""
        if baggage.get_all(context):
            self._w3c.inject(carrier, self._allowed(context), setter)

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        """Read the allowed baggage."""
        return self._allowed(self._w3c.extract(carrier, context, getter))

    def _allowed(self, carried: Context | None) -> Context:
        allowed, kept = self._runtime.bundle.tracing.baggage, baggage.clear(carried)
        for key, value in baggage.get_all(carried).items():
            if key in allowed:
                kept = baggage.set_baggage(key, value, kept)
        return kept


class BaggageAttributes(SpanProcessor):
    """Copies allowed baggage to each span."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Copy the baggage to a span that starts. The SDK calls this method for each recorded span."""
        carried = baggage.get_all(parent_context)
        for key in self._runtime.bundle.tracing.baggage if carried else ():
            if isinstance(value := carried.get(key), str):
                span.set_attribute(key, value)

    def on_end(self, span: ReadableSpan) -> None:
        """Does nothing."""
