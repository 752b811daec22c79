"""C06, C08, E02: tiers and fallbacks of dependencies, limits between callers and callees, services without callers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from voice_policies import Adaptive, RateLimit, TokenBucket

from components.node import Service, Tier
from stack.audit.finding import Breach, Rule
from stack.model.call_graph import CallGraph, Edge, OperationKey
from stack.model.load import executions
from stack.model.platform import Platform

RANK: dict[Tier, int] = {"core": 0, "standard": 1, "batch": 2}


def _needed(edge: Edge) -> bool:
    return not edge.call.soft or edge.call.needed_by_flows


def _critical(graph: CallGraph) -> set[OperationKey]:
    """The operations that must succeed in flows with an availability target."""
    found = {
        (node.name, operation.name)
        for node, operation in (graph.entrance(flow) for flow in graph.flows if flow.availability is not None)
    }
    for run in reversed(graph.bottom_up):
        if run.key in found:
            found.update(edge.key for edge in run.edges if _needed(edge))
    return found


def no_call_to_a_lower_tier(platform: Platform) -> Iterator[Breach | None]:
    """Check, on flows with an availability target, that no service needs a service of a lower tier."""
    critical = _critical(platform.graph)
    for edge in platform.graph.edges:
        if not isinstance(edge.caller, Service) or not isinstance(edge.callee, Service) or not _needed(edge):
            continue
        if (edge.caller.name, edge.operation.name) in critical:
            text = f"a {edge.caller.tier} service cannot work without {edge.callee.name}, a {edge.callee.tier} service"
            field = f"{edge.callee.name}.tier, or a fallback of the call"
            found = Breach(edge.path, text, field, edge.caller.tier, edge.call.location)
            yield found if RANK[edge.callee.tier] > RANK[edge.caller.tier] else None


def fallbacks_avoid_the_failed_callee(platform: Platform) -> Iterator[Breach | None]:
    """Check that no fallback needs the failed callee, directly or through the nodes that it uses."""
    needs = _needs(platform.graph)
    for edge in platform.graph.edges:
        for name in edge.call.fallback_uses:
            failed = edge.callee.name
            through = "" if name == failed else f" through {name}"
            text = f"the fallback ({edge.call.fallback}) runs when {failed} has failed, but it needs {failed}{through}"
            found = Breach(edge.path, text, f"{edge.path}: fallback", "", edge.call.location, "error")
            yield found if name == failed or failed in needs[name] else None


def _needs(graph: CallGraph) -> dict[str, set[str]]:
    """Node → the direct and indirect hard dependencies of all its operations."""
    of_operation: dict[OperationKey, set[str]] = {}
    of_node: dict[str, set[str]] = defaultdict(set)
    for run in graph.bottom_up:
        needed = {edge.callee.name for edge in run.edges if not edge.call.soft}
        needed.update(*(of_operation[edge.key] for edge in run.edges if not edge.call.soft))
        of_operation[run.key] = needed
        of_node[run.node.name] |= needed
    return of_node


def limits_admit_declared_calls(platform: Platform) -> Iterator[Breach | None]:
    """Compare callers' bulkheads with the callee's slots, and the declared load with rate limits that have no key."""
    environment, graph = platform.environment, platform.graph
    slots_of = _inbound_slots(platform)
    for edge in graph.edges:
        inbound = slots_of.get(edge.key)
        if edge.call.bulkhead and inbound and isinstance(edge.caller, Service) and isinstance(edge.callee, Service):
            callers, callees = environment.replicas(edge.caller).max, environment.replicas(edge.callee).max
            wanted, slots = edge.call.bulkhead.max_concurrent * callers, inbound * callees
            text = f"{edge.call.bulkhead.max_concurrent} × {callers} replicas = {wanted} concurrent calls"
            fitting = str(slots // callers)
            field = f"{edge.path}: bulkhead.max_concurrent"
            text = f"{text} > {inbound} × {callees} replicas = {slots} slots of the callee"
            yield Breach(edge.path, text, field, fitting, edge.call.location) if wanted > slots else None
    rates = executions(graph)
    for service in graph.services:
        for operation in service.operations:
            load = rates[service.name, operation.name] * environment.profile.load_share
            for limit in operation.rate_limits if load else ():
                if limit.key == "none":
                    most = environment.replicas(service).max if limit.scope == "local" else 1
                    path = f"{service.name}.{operation.name}"
                    shares = f"× {most} replicas" if limit.scope == "local" else "for all replicas together"
                    text = f"declared load {load:.4g}/s > limit {_rate(limit):g}/s {shares}"
                    field, fitting = f"{path}.rate_limits", f"{load / most:.4g}/s"
                    found = Breach(path, text, field, fitting, operation.location)
                    yield found if load > _rate(limit) * most else None


def _inbound_slots(platform: Platform) -> dict[OperationKey, int]:
    """Operation → the bulkhead slots of one replica."""
    return {
        (found.name, inbound.operation): inbound.bulkhead.max_concurrent
        for found in platform.microservices
        for inbound in found.bundle.inbound
        if inbound.bulkhead
    }


def _rate(limit: RateLimit) -> float:
    if isinstance(limit.limit, TokenBucket):
        return limit.limit.rate.per_second
    if isinstance(limit.limit, Adaptive):
        return limit.limit.max_rate.per_second
    return limit.limit.limit / limit.limit.window.seconds


def services_have_callers(platform: Platform) -> Iterator[Breach | None]:
    """Check that each service has a caller, an event, a background operation or a load from outside."""
    # An environment may leave the gateway out, so the callers come from the tenant's whole graph.
    called = {edge.callee.name for edge in platform.tenant.graph.edges}
    for service in platform.graph.services:
        started = any(each.load or each.background or each.consumes for each in service.operations)
        text = (
            "nothing calls the service, and none of its operations consumes an event, runs in the background or has a"
            " load from outside"
        )
        found = Breach(service.name, text, f"a call of {service.name}, or its load", "", service.location)
        yield None if started or service.name in called else found


RULES = (
    Rule(
        id="C06",
        title="on flows with an availability target no service needs a lower tier; no fallback needs the failed callee",
        severity="warning",
        rationale="a batch service is repaired in working hours, and the core service that needs it is down until then",
        source="Google CRE, dependency tiers",
        violates="a core service with a hard call to a standard service, on a flow with an availability target",
        holds="the same call with a fallback",
        check=lambda platform: (*no_call_to_a_lower_tier(platform), *fallbacks_avoid_the_failed_callee(platform)),
    ),
    Rule(
        id="C08",
        title="the limits of a callee admit the declared calls of its callers",
        severity="error",
        rationale="a limit below the declared load refuses requests on an ordinary day",
        source="the declared loads, limits and bulkheads",
        violates="callers with bulkheads of 50 × 4 replicas, and a callee with 40 slots × 4 replicas",
        holds="callers with bulkheads of 40 × 4 replicas, and the same callee",
        check=limits_admit_declared_calls,
    ),
    Rule(
        id="E02",
        title="every service has a caller, an event, background work or a load from outside",
        severity="warning",
        rationale="either the service costs money and nothing needs it, or a call to the service is not declared",
        source="the declared calls",
        violates="a new service that no operation calls",
        holds="the same service with one declared call of one of its operations",
        check=services_have_callers,
    ),
)
