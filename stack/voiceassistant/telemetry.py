"""The amount of telemetry at the declared load. Buffers and disks are sized for it."""

from __future__ import annotations

from collections.abc import Iterator

from voice_policies import Bytes

from components.node import Service
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.load import calls_per_run, executions
from stack.voiceassistant.site import OBSERVABILITY, PROMETHEUS, PROMETHEUS_PORT, SITE

SPAN_BYTES = 1024
"""Bytes of one span over OTLP: identifiers, names and a dozen attributes. The spans of one export share the
attributes of the resource."""
LINE_BYTES = 512
"""Bytes of one structured log line over OTLP."""
POINT_BYTES = 128
"""Bytes of one data point over OTLP."""
PUSHED_SERIES = 20_000
"""Assumed series that arrive over OTLP instead of by scraping: 10 pods × 2,000, the default of `Scrape.series`."""
EXPORT_SECONDS = 60
"""Seconds between two exports of a series: the OpenTelemetry SDKs' default."""


def prometheus_urls(environment: Environment) -> Iterator[str]:
    """The address of each replica of Prometheus."""
    for index in range(environment.server(PROMETHEUS).replicas):
        host = SITE.host(f"{PROMETHEUS}-{index}.{PROMETHEUS}-replicas", OBSERVABILITY)
        yield f"http://{host}:{PROMETHEUS_PORT}"


def spans_per_second(graph: CallGraph, environment: Environment) -> float:
    """Sampled spans per second: one for each execution of an operation, and one for each of its calls."""
    rates = executions(graph)
    made = sum(
        rates[node.name, operation.name] * (1 + sum(each for _, each in calls_per_run(operation)))
        for node in graph.nodes.values()
        for operation in node.operations
        if isinstance(node, Service) or node is graph.gateway
    )
    return made * environment.profile.load_share * float(environment.settings.trace_sample_ratio)


def trace_bytes(graph: CallGraph, environment: Environment) -> Bytes:
    """Bytes of spans per second."""
    return Bytes.of_units(round(spans_per_second(graph, environment) * SPAN_BYTES))


def log_bytes(graph: CallGraph, environment: Environment) -> Bytes:
    """Bytes of log lines per second: one line for each execution of an operation and for each request at the gateway.

    The estimate leaves out other lines of services, and all lines of stores and of the platform's own servers.
    """
    printing = {service.name for service in graph.services} | ({graph.gateway.name} if graph.gateway else set())
    lines = sum(rate for (node, _), rate in executions(graph).items() if node in printing)
    return Bytes.of_units(round(lines * environment.profile.load_share * LINE_BYTES))


def metric_bytes() -> Bytes:
    """Bytes of pushed data points per second."""
    return Bytes.of_units(round(PUSHED_SERIES / EXPORT_SECONDS * POINT_BYTES))
