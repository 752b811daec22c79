"""Prometheus's rules: the model's objectives as series, and the catalogue's alerts that compare with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from components.node import Service
from components.observability.rules import Recording, RuleGroup, Severity
from components.observability.scrape_jobs import CERTIFICATES, KUBELET, ProbedHosts, ScrapeTarget
from stack.model.call_graph import CallGraph
from stack.voiceassistant import alerts, site

WATCHING = {site.OBSERVABILITY, site.NODE_AGENTS}
"""Namespaces of the monitoring itself. A failed pod there pages nobody."""


def rule_groups(
    graph: CallGraph, scraped: Iterable[ScrapeTarget], probed: Iterable[ProbedHosts]
) -> tuple[RuleGroup, ...]:
    """Recording rules of the objectives first, then rules that compare with them, then alerts."""
    return (
        RuleGroup(name="objectives", rules=(*_targets(graph, scraped, probed), *_services(graph), *_routes(graph))),
        RuleGroup(name="rates", rules=alerts.RATES),
        RuleGroup(name="service-alerts", rules=alerts.OBJECTIVE_ALERTS),
        RuleGroup(name="platform-alerts", rules=alerts.PLATFORM_ALERTS),
    )


def _targets(graph: CallGraph, scraped: Iterable[ScrapeTarget], probed: Iterable[ProbedHosts]) -> Iterator[Recording]:
    tiers = {service.name: service.tier for service in graph.services}
    for target in scraped:
        own: Severity = "warning" if target.namespace in WATCHING else "critical"
        severity = alerts.SEVERITIES[tiers[target.name]] if target.name in tiers else own
        yield _objective("target:declared", 1, target.name, severity)
    yield _objective("target:declared", 1, KUBELET, "warning")
    for hosts in probed:
        yield _objective("target:declared", 1, hosts.name, "warning" if hosts.name == CERTIFICATES else "critical")


def _services(graph: CallGraph) -> Iterator[Recording]:
    for service in graph.services:
        severity = alerts.SEVERITIES[service.tier]
        capacity = service.capacity.per_second
        yield _objective("job:requests_per_replica:capacity", capacity, service.name, severity)
        yield from _operations(service, severity)


def _operations(service: Service, severity: Severity) -> Iterator[Recording]:
    budget = 1 - site.SITE.own_availability[service.tier]
    for operation in service.operations:
        for name, value in (
            ("operation:failures:budget", budget),
            ("operation:slow:budget", float(alerts.SLOW_BUDGET)),
        ):
            yield _objective(name, value, service.name, severity, operation=operation.name)


def _routes(graph: CallGraph) -> Iterator[Recording]:
    """Objectives of routes. Team and severity are those of the route's service.

    A WebSocket route has no latency objective, because APISIX measures the whole session from handshake to end.
    """
    tiers = {service.name: service.tier for service in graph.services}
    for edge in graph.edges_from(graph.gateway) if graph.gateway else ():
        if edge.callee.name in tiers:
            severity = alerts.SEVERITIES[tiers[edge.callee.name]]
            objectives = {"route:failures:budget": float(alerts.ERROR_BUDGET)}
            if edge.operation.transport != "websocket":
                objectives["route:seconds:objective"] = edge.operation.latency.seconds
            for name, value in objectives.items():
                yield _objective(name, value, edge.callee.name, severity, route=edge.operation.name)


def _objective(name: str, value: float, job: str, severity: Severity, **labels: str) -> Recording:
    team = alerts.TEAMS.get(job, alerts.PLATFORM_TEAM)
    return Recording(
        name=name,
        expression=f"vector({value:.10g})",
        labels={"job": job, **labels, "team": team, "severity": severity},
    )
