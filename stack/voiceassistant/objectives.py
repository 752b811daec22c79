"""The error budgets of routes, and the objectives with which recording rules and alerts compare measurements."""

from __future__ import annotations

from collections.abc import Iterable

from voice_policies import Duration, Ratio

from components.node import Dependency, InCluster, Service
from components.observability.rules import Recording, Severity
from stack.model.call_graph import CallGraph
from stack.voiceassistant import alerts, site
from stack.voiceassistant.catalog.dependencies import FOUR_NINES, INFRASTRUCTURE
from stack.voiceassistant.platform_team import PLATFORM_TEAM

__all__ = [
    "FAILURE_BUDGET",
    "RATE_LIMITED_BUDGET",
    "SLOW_BUDGET",
    "TIMEOUT_BUDGET",
    "first_byte_objective",
    "objective",
    "own_availability",
]

ENTRANCES = (site.CLUSTER_DNS, site.PUBLIC_NAME, site.PUBLIC_ENTRANCE)
"""Scrape jobs of the cluster's DNS, and of the gateway's public name and address. Their availability target is the
gateway's target."""
FAILURE_BUDGET = Ratio("1%")
"""Largest share of a route's answers with a 5xx status (the platform's targets)."""
TIMEOUT_BUDGET = Ratio("2%")
"""Largest share of a route's answers with status 504 (the platform's targets)."""
RATE_LIMITED_BUDGET = Ratio("0.5%")
"""Largest share of a route's answers with status 429 (the platform's targets)."""
SLOW_BUDGET = Ratio("5%")
"""Largest share of requests that may take longer than the P95 objective: 100 % - 95 % = 5 %."""


def objective(name: str, value: float, job: str, severity: Severity, /, **labels: str) -> Recording:
    """A series with a constant value from the model. Its labels name the job's team and the severity of a miss."""
    team = alerts.TEAMS.get(job, PLATFORM_TEAM)
    return Recording(
        name=name,
        expression=f"vector({value:.10g})",
        labels={"job": job, **labels, "team": team, "severity": severity},
    )


def own_availability(graph: CallGraph, job: str) -> Ratio:
    """Availability target of a scrape job. Failures of its dependencies do not count. The default is 99.9 %."""
    if (graph.gateway and job == graph.gateway.name) or job in ENTRANCES:
        return FOUR_NINES
    for node in graph.nodes.values():
        if isinstance(node, Service) and node.name == job:
            return site.SITE.own_availability[node.tier]
        if isinstance(node, Dependency) and job in {node.name, *_services(node)}:
            return node.availability
    return INFRASTRUCTURE


def _services(dependency: Dependency) -> Iterable[str]:
    return (address.service for address in dependency.addresses if isinstance(address, InCluster))


def first_byte_objective(graph: CallGraph, route: str) -> Duration | None:
    """P95 objective of the first byte of a route's streamed answer. `None` if no flow declares one."""
    milestones = (each for flow in graph.flows if flow.route == route for each in flow.milestones)
    return min((each.target for each in milestones if each.first_stage), default=None)
