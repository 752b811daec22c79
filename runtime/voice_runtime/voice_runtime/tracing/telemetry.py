"""Tracing of one process, from its bundle's policy."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Self

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from voice_runtime.runtime import Runtime
from voice_runtime.tracing.baggage import AllowedBaggage, BaggageAttributes
from voice_runtime.tracing.export import SpanQueue

LIMITS = SpanLimits(max_span_attribute_length=1024)
"""Longest value of a span attribute, in characters. Without a bound, a caller's text could fill the queue's memory."""


class PolicySampler(Sampler):
    """Samples with `tracing.sample_ratio` of the current bundle."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._sampler = TraceIdRatioBased(runtime.bundle.tracing.sample_ratio)

    def should_sample(  # noqa: PLR0913, PLR0917  # the SDK's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide for a trace that begins in this process."""
        ratio = self._runtime.bundle.tracing.sample_ratio
        if ratio != self._sampler.rate:
            self._sampler = TraceIdRatioBased(ratio)
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """The description for the SDK."""
        return f"PolicySampler({self._runtime.bundle.tracing.sample_ratio})"


class Telemetry:
    """Sets up spans and propagation for this process, by the bundle.

    The end of the `with` block stops the export. The global provider stays set, because OpenTelemetry accepts only one
    provider in a process.

    A reload changes the sample ratio and the baggage keys, but not the endpoint or the queue. `endpoint` replaces the
    endpoint of the policy. If the process forks, the object works in each child, because the exporter
    connects at the first export.
    """

    def __init__(self, runtime: Runtime, *, endpoint: str | None = None) -> None:
        self._runtime = runtime
        policy = runtime.bundle.tracing
        self._queue = SpanQueue(endpoint or policy.endpoint, policy.max_queue, runtime.spans)
        self.provider = TracerProvider(
            sampler=ParentBased(PolicySampler(runtime)),
            resource=resource_of(runtime),
            span_limits=LIMITS,
            shutdown_on_exit=False,
        )
        self.provider.add_span_processor(BaggageAttributes(runtime))
        self.provider.add_span_processor(self._queue)
        self.propagator = CompositePropagator([TraceContextTextMapPropagator(), AllowedBaggage(runtime)])

    def __enter__(self) -> Self:
        trace.set_tracer_provider(self.provider)
        propagate.set_global_textmap(self.propagator)
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def shutdown(self) -> None:
        """Send queued spans, for at most `tracing.shutdown_timeout`. Spans that then remain in the queue are lost."""
        self._queue.end(self._runtime.bundle.tracing.shutdown_timeout.seconds)


def resource_of(runtime: Runtime) -> Resource:
    """The OpenTelemetry resource of this process, by the semantic conventions."""
    metadata = runtime.bundle.metadata
    pod = os.environ.get("POD_NAME")
    attributes: dict[str, str] = {
        "service.name": metadata.service,
        "service.namespace": "voiceassistant",
        "service.instance.id": pod or f"{socket.gethostname()}-{os.getpid()}",
        "deployment.environment.name": metadata.environment,
    }
    return Resource.create(attributes | ({"k8s.pod.name": pod} if pod else {}))
