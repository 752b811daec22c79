"""Shares of bad events: outages of servers, failures of flows and external dependencies, late starts of streams.

For a server, an event is one evaluation of the rule `job:working:max`. The event is bad if no pod of the server works.
Failures of the server's dependencies do not count.

For a flow, an event is one request at the gateway. The gateway does not see the turns of a dialogue over a WebSocket.
So the service counts each turn as an event, and the gateway counts the failed handshakes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from voice_policies import Duration

from components.node import Dependency, Host, Service
from components.observability.rules import Recording, RuleGroup
from components.observability.scrape_jobs import ProbedHosts, ScrapeTarget
from components.operation import Operation
from stack.model.call_graph import CallGraph, Edge
from stack.model.flow import Flow
from stack.voiceassistant import alerts
from stack.voiceassistant.objectives import SLOW_BUDGET, objective

__all__ = ["availability_groups", "availability_objectives"]

_WORKING = "job:working:max"
_STATUS, _REQUESTS = "apisix_http_status", "voice_operation_requests_total"
_FALLBACKS, _ATTEMPTS = "voice_call_fallbacks_total", "voice_call_attempts_total"
_BEGUN, _LATE = "voice_call_first_messages_total", "voice_call_late_first_messages_total"


def availability_objectives(graph: CallGraph) -> Iterator[Recording]:
    """The budgets of flows, external dependencies and streams."""
    for flow in graph.flows:
        if flow.availability:
            service, budget = _entrance(graph, flow).callee, 1 - float(flow.availability)
            severity = alerts.severity_of(service)
            yield objective(alerts.FLOW_FAILURES.budget, budget, service.name, severity, flow=flow.name)
    for dependency in _external(graph):
        labels, budget = {"dependency": dependency.name}, 1 - float(dependency.availability)
        yield objective(alerts.DEPENDENCY_FAILURES.budget, budget, dependency.name, "warning", **labels)
    for edge in _streams(graph):
        severity, name = alerts.severity_of(edge.caller), {"name": edge.call.name}
        yield objective(alerts.FIRST_MESSAGES.budget, float(SLOW_BUDGET), edge.caller.name, severity, **name)


def availability_groups(
    graph: CallGraph, scraped: Iterable[ScrapeTarget], probed: Iterable[ProbedHosts]
) -> Iterator[RuleGroup]:
    """Record the share of bad events in each window. The first group records `job:working:max`."""
    yield RuleGroup(name="servers", rules=(_working(scraped, probed),))
    yield from alerts.SERVER_OUTAGES.groups(
        lambda window: f"count_over_time({_WORKING}[{window}]) / {Duration(window).seconds:g}",
        lambda window: (
            f"(count_over_time({_WORKING}[{window}]) - sum_over_time({_WORKING}[{window}]))"
            f" / {Duration(window).seconds:g}"
        ),
    )
    flows = [flow for flow in graph.flows if flow.availability]
    if flows:
        yield from alerts.FLOW_FAILURES.groups(
            lambda window: " or ".join(_flow_rate(flow, _requests(graph, flow), window) for flow in flows),
            lambda window: " or ".join(_flow_rate(flow, _bad_requests(graph, flow), window) for flow in flows),
        )
    if external := "|".join(dependency.name for dependency in _external(graph)):
        yield from alerts.DEPENDENCY_FAILURES.groups(
            lambda window: _dependency_rate(external, "successful|failed", window),
            lambda window: _dependency_rate(external, "failed", window),
        )
    if any(_streams(graph)):
        yield from alerts.FIRST_MESSAGES.groups(
            lambda window: f"sum by (job, name) (rate({_BEGUN}[{window}]))",
            lambda window: f"sum by (job, name) (rate({_LATE}[{window}]))",
        )


def _working(scraped: Iterable[ScrapeTarget], probed: Iterable[ProbedHosts]) -> Recording:
    """Record 1 while a pod of the job works, and 0 while no pod works or Prometheus finds no pod."""
    own = {target.name: target.scrape.health for target in scraped if target.scrape.health}
    own |= {hosts.name: hosts.health for hosts in probed if hosts.health}
    others = f'up{{probe="",job!~"{"|".join(own)}"}}' if own else 'up{probe=""}'
    works = " or ".join((others, "probe_success", *dict.fromkeys(own.values())))
    return Recording(name=_WORKING, expression=f"max by (job) ({works}) or 0 * max by (job) (target:declared)")


def _entrance(graph: CallGraph, flow: Flow) -> Edge:
    """The call of the gateway to the service that answers the flow."""
    gateway, route = graph.entrance(flow)
    return next(e for e in graph.edges_from(gateway) if e.operation is route and isinstance(e.callee, Service))


def _requests(graph: CallGraph, flow: Flow) -> Iterator[str]:
    """Selectors of the counters of a flow's requests."""
    edge = _entrance(graph, flow)
    if edge.operation.transport == "websocket":
        yield f'{_REQUESTS}{{job="{edge.callee.name}",operation="{edge.target.name}"}}'
        yield f'{_STATUS}{{route="{flow.route}",code=~"5.."}}'
    else:
        yield f'{_STATUS}{{route="{flow.route}"}}'


def _bad_requests(graph: CallGraph, flow: Flow) -> Iterator[str]:
    """Selectors of the counters of a flow's failures, including fallbacks of soft calls that the flow needs."""
    edge = _entrance(graph, flow)
    yield f'{_STATUS}{{route="{flow.route}",code=~"5.."}}'
    if edge.operation.transport == "websocket":
        yield f'{_REQUESTS}{{job="{edge.callee.name}",operation="{edge.target.name}",kind="failed"}}'
    for needed in _needed_soft_calls(graph, edge.callee.name, edge.target):
        yield f'{_FALLBACKS}{{job="{needed.caller.name}",name="{needed.call.name}"}}'


def _needed_soft_calls(graph: CallGraph, service: str, operation: Operation) -> Iterator[Edge]:
    """The soft calls that a flow through this operation needs."""
    for edge in graph.edges_from(graph.nodes[service]):
        if edge.operation is operation and (not edge.call.soft or edge.call.needed_by_flows):
            if edge.call.soft:
                yield edge
            if isinstance(edge.callee, Service):
                yield from _needed_soft_calls(graph, edge.callee.name, edge.target)


def _flow_rate(flow: Flow, selectors: Iterable[str], window: str) -> str:
    rates = " or ".join(f"rate({selector}[{window}])" for selector in selectors)
    return f'label_replace(sum({rates}), "flow", "{flow.name}", "", "")'


def _external(graph: CallGraph) -> Iterator[Dependency]:
    """Dependencies outside the cluster that a service calls through an egress proxy."""
    for node in graph.nodes.values():
        outside = isinstance(node, Dependency) and any(isinstance(address, Host) for address in node.addresses)
        if isinstance(node, Dependency) and outside and graph.edges_to(node):
            yield node


def _dependency_rate(names: str, kinds: str, window: str) -> str:
    attempts = f'rate({_ATTEMPTS}{{kind=~"{kinds}",name=~"({names})[.].+"}}[{window}])'
    return f'sum by (dependency) (label_replace({attempts}, "dependency", "$1", "name", "([^.]+)[.].+"))'


def _streams(graph: CallGraph) -> Iterator[Edge]:
    """The calls whose first message has an objective."""
    named = {each.operation for flow in graph.flows for each in flow.milestones if not each.first_stage}
    return (edge for edge in graph.edges if ".".join(edge.key) in named)
