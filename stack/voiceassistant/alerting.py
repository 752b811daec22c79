"""Prometheus's rules: the model's objectives and the measured values as series, and the alerts that compare them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from voice_policies import Duration

from components.node import Service
from components.observability.rules import Alert, Recording, RuleGroup, Severity
from components.observability.runtime_metrics import FINISHED
from components.observability.scrape_jobs import CERTIFICATES, KUBELET, MESH_PROXY, ProbedHosts, ScrapeTarget
from stack.model.call_graph import CallGraph, Edge
from stack.model.model_load import model_edges
from stack.voiceassistant import alerts, site
from stack.voiceassistant.attempt_bounds import attempt_bounds
from stack.voiceassistant.availability import availability_groups, availability_objectives
from stack.voiceassistant.burn_rates import Rate
from stack.voiceassistant.model_alerts import EACH_OBJECTIVE, FIRST_OBJECTIVE, MODEL_LABEL, PROVIDER_LABEL, QUOTA
from stack.voiceassistant.objectives import (
    FAILURE_BUDGET,
    RATE_LIMITED_BUDGET,
    SLOW_BUDGET,
    TIMEOUT_BUDGET,
    first_byte_objective,
    objective,
    own_availability,
)
from stack.voiceassistant.platform_alerts import PLATFORM_ALERTS
from stack.voiceassistant.policy_alerts import MESH_ALERTS
from stack.voiceassistant.store_alerts import ALERTS_BY_JOB

WATCHING = {site.OBSERVABILITY, site.NODE_AGENTS}
"""Namespaces of the monitoring itself. A failed pod there pages nobody."""


_REQUESTS, _SLOW = "voice_operation_requests_total", "voice_operation_slow_requests_total"
_STATUS, _LATENCY, _FIRST_BYTE = "apisix_http_status", "apisix_http_latency", "apisix_http_first_byte_latency"
UPSTREAM = 'type="upstream"'
"""Matcher for the time that the service takes. The time of a slow upload or download is not part of it."""


def rule_groups(
    graph: CallGraph,
    scraped: Iterable[ScrapeTarget],
    probed: Iterable[ProbedHosts],
    digests: Mapping[str, str],
    *,
    mesh: bool,
) -> tuple[RuleGroup, ...]:
    """Recording rules of the objectives first, then recording rules of measured values, then alerts.

    `digests` maps each service to the digest of its policy bundle.
    """
    return (
        RuleGroup(
            name="objectives",
            rules=(
                *_targets(graph, _jobs(graph, scraped, probed, mesh=mesh)),
                *_services(graph),
                *_routes(graph),
                *availability_objectives(graph),
                *_models(graph),
            ),
        ),
        # A separate group, so that a changed policy changes no other group.
        RuleGroup(name="policy-bundles", rules=tuple(_bundles(graph, digests))),
        RuleGroup(name="rates", rules=(_requests_per_replica(), *attempt_bounds(graph))),
        *availability_groups(graph, scraped, probed),
        *_operation_groups(),
        *_route_groups(graph),
        RuleGroup(name="service-alerts", rules=(*alerts.OBJECTIVE_ALERTS, *(MESH_ALERTS if mesh else ()))),
        RuleGroup(name="platform-alerts", rules=(*PLATFORM_ALERTS, *_stores(scraped, probed))),
    )


def _stores(scraped: Iterable[ScrapeTarget], probed: Iterable[ProbedHosts]) -> Iterator[Alert]:
    """The alerts of each store that exports metrics. A store that only the prober checks has no such alerts."""
    exporting = [target.name for target in scraped if target.scrape.module is None]
    for job in (*exporting, *(hosts.name for hosts in probed if hosts.exporter)):
        yield from ALERTS_BY_JOB.get(job, ())


def _requests_per_replica() -> Recording:
    rate = _rate(_REQUESTS, "job")("5m")
    return Recording(name="job:requests_per_replica:rate5m", expression=f"{rate} / count by (job) (up == 1)")


def _operation_groups() -> Iterator[RuleGroup]:
    by = alerts.OPERATION_FAILURES.labels
    requests = _rate(_REQUESTS, by)
    yield from alerts.OPERATION_FAILURES.groups(requests, _rate(_REQUESTS, by, 'kind="failed"'))
    yield from alerts.OPERATION_SLOW.groups(_rate(_REQUESTS, by, FINISHED), _rate(_SLOW, by))


def _route_groups(graph: CallGraph) -> Iterator[RuleGroup]:
    by = alerts.ROUTE_FAILURES.labels
    for indicator, codes in (
        (alerts.ROUTE_FAILURES, 'code=~"5.."'),
        (alerts.ROUTE_TIMEOUTS, 'code="504"'),
        (alerts.ROUTE_RATE_LIMITED, 'code="429"'),
    ):
        yield from indicator.groups(_rate(_STATUS, by), _rate(_STATUS, by, codes))
    latencies = {
        edge.operation.name: edge.operation.latency for edge in _route_edges(graph) if _has_single_answer(edge)
    }
    if latencies:
        yield from alerts.ROUTE_SLOW.groups(*_slow_rates(_LATENCY, latencies, UPSTREAM))
    first_bytes = {
        edge.operation.name: first_byte_objective(graph, edge.operation.name) for edge in _route_edges(graph)
    }
    if declared := {route: objective for route, objective in first_bytes.items() if objective}:
        yield from alerts.ROUTE_LATE.groups(*_slow_rates(_FIRST_BYTE, declared))


def _rate(metric: str, by: str, *matchers: str) -> Rate:
    chosen = f"{{{','.join(matchers)}}}" if matchers else ""
    return lambda window: f"sum by ({by}) (rate({metric}{chosen}[{window}]))"


def _slow_rates(histogram: str, objectives: Mapping[str, Duration], *matchers: str) -> tuple[Rate, Rate]:
    """Rates of all requests and of the slow ones. Each route's objective is a bucket boundary of the histogram."""
    routes: dict[int, list[str]] = {}
    for route, latency in objectives.items():
        routes.setdefault(latency.units // 1000, []).append(route)
    within = [
        # Prometheus 3 writes the boundary 200 as 200.0.
        _rate(f"{histogram}_bucket", "route", *matchers, f'route=~"{"|".join(names)}"', rf'le=~"{boundary}(\\.0)?"')
        for boundary, names in sorted(routes.items())
    ]
    requests = _rate(f"{histogram}_count", "route", *matchers, f'route=~"{"|".join(objectives)}"')
    return requests, lambda window: f"{requests(window)} - ({' or '.join(each(window) for each in within)})"


def _route_edges(graph: CallGraph) -> Iterator[Edge]:
    """The routes: calls of the gateway to services."""
    services = {service.name for service in graph.services}
    for edge in graph.edges_from(graph.gateway) if graph.gateway else ():
        if edge.callee.name in services:
            yield edge


def _has_single_answer(edge: Edge) -> bool:
    """True if a request of the route ends with its answer. A WebSocket lasts as long as its client stays."""
    return edge.operation.transport != "websocket"


def _targets(graph: CallGraph, jobs: Iterable[tuple[str, Severity]]) -> Iterator[Recording]:
    for job, severity in jobs:
        yield objective("target:declared", 1, job, severity)
        yield objective(alerts.SERVER_OUTAGES.budget, 1 - float(own_availability(graph, job)), job, severity)


def _jobs(
    graph: CallGraph, scraped: Iterable[ScrapeTarget], probed: Iterable[ProbedHosts], *, mesh: bool
) -> Iterator[tuple[str, Severity]]:
    """Every scrape job, with the severity of its alerts."""
    tiers = {service.name: service.tier for service in graph.services}
    for target in scraped:
        own: Severity = "warning" if target.namespace in WATCHING else "critical"
        yield target.name, alerts.SEVERITIES[tiers[target.name]] if target.name in tiers else own
    yield KUBELET, "warning"
    if mesh:
        yield MESH_PROXY, "warning"
    for hosts in probed:
        yield hosts.name, "warning" if hosts.name == CERTIFICATES else "critical"


def _bundles(graph: CallGraph, digests: Mapping[str, str]) -> Iterator[Recording]:
    """The declared policy bundle of each service."""
    for service in graph.services:
        severity, labels = alerts.SEVERITIES[service.tier], {"digest": digests[service.name]}
        yield objective("policy_bundle:digest:declared", 1, service.name, severity, **labels)


def _models(graph: CallGraph) -> Iterator[Recording]:
    """The objectives of each route for its candidates, and the providers' quotas."""
    for edge, route, models in model_edges(graph):
        job, severity = edge.caller.name, alerts.severity_of(edge.caller)
        for candidate in models.candidates(route):
            named = {PROVIDER_LABEL: candidate.provider, MODEL_LABEL: candidate.model.name}
            if route.objective:
                yield objective(FIRST_OBJECTIVE, route.objective.first_token.seconds, job, severity, **named)
            if route.objective and route.objective.per_token:
                yield objective(EACH_OBJECTIVE, route.objective.per_token.seconds, job, severity, **named)
            if candidate.tokens_per_minute:
                yield objective(QUOTA, candidate.tokens_per_minute, job, severity, candidate=candidate.name)


def _services(graph: CallGraph) -> Iterator[Recording]:
    for service in graph.services:
        severity = alerts.SEVERITIES[service.tier]
        capacity = service.capacity.per_second
        yield objective("job:requests_per_replica:capacity", capacity, service.name, severity)
        yield from _operations(service, severity)


def _operations(service: Service, severity: Severity) -> Iterator[Recording]:
    budget = 1 - site.SITE.own_availability[service.tier]
    for operation in service.operations:
        for indicator, value in (
            (alerts.OPERATION_FAILURES, budget),
            (alerts.OPERATION_SLOW, float(SLOW_BUDGET)),
        ):
            yield objective(indicator.budget, value, service.name, severity, operation=operation.name)


def _routes(graph: CallGraph) -> Iterator[Recording]:
    """Objectives of routes, with the team and the severity of each route's service.

    A WebSocket route has no latency objective, because APISIX measures the whole session from handshake to end.
    """
    tiers = {service.name: service.tier for service in graph.services}
    for edge in _route_edges(graph):
        route = edge.operation.name
        objectives = {
            alerts.ROUTE_FAILURES.budget: float(FAILURE_BUDGET),
            alerts.ROUTE_TIMEOUTS.budget: float(TIMEOUT_BUDGET),
            alerts.ROUTE_RATE_LIMITED.budget: float(RATE_LIMITED_BUDGET),
        }
        if _has_single_answer(edge):
            objectives[alerts.ROUTE_SLOW.budget] = float(SLOW_BUDGET)
            objectives["route:seconds:objective"] = edge.operation.latency.seconds
        if first_byte_objective(graph, route):
            objectives[alerts.ROUTE_LATE.budget] = float(SLOW_BUDGET)
        for name, value in objectives.items():
            yield objective(name, value, edge.callee.name, alerts.SEVERITIES[tiers[edge.callee.name]], route=route)
