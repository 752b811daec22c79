"""Spans and metrics of sagas by OpenTelemetry. Needs the extra `otel`.

A saga may outlive its process, but a span cannot. So each execution of an action or compensation has a span of its own,
a child of the span that started the saga. If an event caused the execution, the span has a link to the event's span.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import Meter
from opentelemetry.trace import Link, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from voice_runtime.otel import register

from voice_saga.context import Message, StepContext
from voice_saga.metrics import DEAD_LETTER_METRICS, METRICS, OUTBOX_METRICS
from voice_saga.observation import Observation
from voice_saga.transport import DeadLetters, Outbox

__all__ = ["Spans", "observe", "observe_dead_letters", "observe_outbox"]


def observe(observation: Observation, meter: Meter) -> None:
    """Register the metrics of an engine's `observation` with `meter`."""
    register(observation, METRICS, meter)


def observe_outbox(outbox: Outbox, meter: Meter) -> None:
    """Register the metrics of an outbox with `meter`."""
    register(outbox, OUTBOX_METRICS, meter)


def observe_dead_letters(dead_letters: DeadLetters, meter: Meter) -> None:
    """Register the metrics of a transport's consumers: `observe_dead_letters(transport.dead_letters, meter)`."""
    register(dead_letters, DEAD_LETTER_METRICS, meter)


_PROPAGATOR = TraceContextTextMapPropagator()


class Spans:
    """The `Tracing` of an engine: `JournalEngine(journal, definitions, tracing=Spans(tracer))`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def current(self) -> str:
        """The `traceparent` of the current span."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get("traceparent", "")

    @contextmanager
    def step(self, context: StepContext) -> Iterator[None]:
        """The span of one execution. It records the execution's error."""
        cause = trace.get_current_span(_parent(context.caused_by)).get_span_context()
        links = [Link(cause)] if cause.is_valid else []
        attributes = {
            "saga.id": context.saga_id,
            "saga.name": context.saga,
            "saga.step": context.step,
            "saga.branch": context.branch,
        }
        name = f"{context.saga}.{context.step} {context.branch}"
        parent = _parent(context.trace)
        with self._tracer.start_as_current_span(name, parent, attributes=attributes, links=links):
            yield

    @contextmanager
    def message(self, message: Message, consumer: str) -> Iterator[None]:
        """The span of handling a message."""
        attributes = {"messaging.message.id": message.id, "messaging.consumer.group.name": consumer}
        parent = _parent(message.trace)
        with self._tracer.start_as_current_span(f"{message.type} process", parent, attributes=attributes):
            yield


def _parent(traceparent: str) -> Context:
    return _PROPAGATOR.extract({"traceparent": traceparent}, Context()) if traceparent else Context()
