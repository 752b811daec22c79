"""How much telemetry the declared load makes: what buffers and disks are held against."""

from __future__ import annotations

from collections.abc import Iterator

from voice_policies import Bytes

from components.node import Service
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.load import calls_per_run, executions
from stack.voiceassistant.site import OBSERVABILITY, PROMETHEUS, PROMETHEUS_PORT, SITE

SPAN_BYTES = 1024
"""Of one span over OTLP: identifiers, names, a dozen attributes and the resource's share."""
LINE_BYTES = 512
"""Of one structured log line over OTLP."""
POINT_BYTES = 128
"""Of one data point over OTLP."""
PUSHED_SERIES = 20_000
"""Series that arrive over OTLP instead of by scraping: as many as ten services expose."""
EXPORT_SECONDS = 60
"""Between two exports of a series: the OpenTelemetry SDKs' default."""


def prometheus_urls(environment: Environment) -> Iterator[str]:
    """The address of each replica of Prometheus."""
    for index in range(environment.server(PROMETHEUS).replicas):
        host = SITE.host(f"{PROMETHEUS}-{index}.{PROMETHEUS}-replicas", OBSERVABILITY)
        yield f"http://{host}:{PROMETHEUS_PORT}"


def spans_per_second(graph: CallGraph, environment: Environment) -> float:
    """Spans that are kept: one for each operation that runs here, and one for each call that it makes."""
    rates = executions(graph)
    made = sum(
        rates[node.name, operation.name] * (1 + sum(each for _, each in calls_per_run(operation)))
        for node in graph.nodes.values()
        for operation in node.operations
        if isinstance(node, Service) or node is graph.gateway
    )
    return made * environment.profile.load_share * float(environment.settings.trace_sample_ratio)


def trace_bytes(graph: CallGraph, environment: Environment) -> Bytes:
    """Of spans, in a second."""
    return Bytes.of_units(round(spans_per_second(graph, environment) * SPAN_BYTES))


def log_bytes(graph: CallGraph, environment: Environment) -> Bytes:
    """Of log lines, in a second: one for each operation that a service runs, and one for each request at the gateway.

    Left out is what a service prints beside its operations, and what the stores and the platform's own parts print.
    """
    printing = {service.name for service in graph.services} | ({graph.gateway.name} if graph.gateway else set())
    lines = sum(rate for (node, _), rate in executions(graph).items() if node in printing)
    return Bytes.of_units(round(lines * environment.profile.load_share * LINE_BYTES))


def metric_bytes() -> Bytes:
    """Of data points that are pushed, in a second."""
    return Bytes.of_units(round(PUSHED_SERIES / EXPORT_SECONDS * POINT_BYTES))
