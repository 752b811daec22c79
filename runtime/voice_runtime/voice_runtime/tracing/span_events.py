"""Span events: each decision of a policy, on the span of its request."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.util.types import AttributeValue

from voice_runtime.events import Event, PromptListener


class SpanEvents(PromptListener):
    """A listener that adds each event to the current span. Register it: `Runtime.load(directory, listeners=[…])`."""

    def on_event(self, event: Event) -> None:
        """Add the event to the current span."""
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event(f"voice.{event.kind}", attributes_of(event))


def attributes_of(event: Event) -> dict[str, AttributeValue]:
    """The non-empty fields of an event as attributes. An error's text is left out, because it may name a user."""
    found: dict[str, AttributeValue | None] = {
        "voice.policy": event.policy,
        "voice.target": event.target,
        "voice.attempt": event.attempt or None,
        "voice.delay_seconds": event.delay,
        "voice.before": event.before or None,
        "voice.after": event.after or None,
        "voice.reason": event.reason or None,
        "error.type": type(event.error).__name__ if event.error else None,
    }
    return {key: value for key, value in found.items() if value is not None}
