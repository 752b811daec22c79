"""The policy bundle of a service: its operations and outbound calls, from the call graph and the environment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache

from pydantic import ValidationError
from voice_policies import (
    Address,
    Bulkhead,
    BundleMetadata,
    Degradation,
    Duration,
    EnforcedBy,
    Enforcer,
    Fault,
    Health,
    HealthCheck,
    InboundOperation,
    InvalidInputError,
    OutboundCall,
    PolicyBundle,
    RateLimit,
    Ratio,
    ServiceLevel,
    Timeout,
    Tracing,
    faults_of,
)

from components.node import Dependency, External, Gateway, Host, Service
from components.operation import Operation
from stack.model.call_graph import CallGraph, Edge
from stack.model.egress import proxy_address
from stack.model.enforcement import attempt_timeout_enforcer, enforcer, in_force, timeout_enforcer, unenforced
from stack.model.environments import Environment
from stack.model.model_routes import models_of
from stack.model.site import Site

__all__ = ["bundle_digests", "mesh_hosts", "outbound_call"]

BULKHEAD_HEADROOM = 4
"""An inbound bulkhead has 4 × capacity × P95 slots. At capacity, about capacity × P95 requests run at once (Little's
law). The factor leaves room for bursts."""
CHECK_TIMEOUT: Duration = HealthCheck.model_fields["timeout"].default
"""Timeout of a health check. A slower check fails. So `max_latency` has an effect only below this timeout."""


def policy_bundle(graph: CallGraph, service: Service, environment: Environment) -> PolicyBundle:
    """The sealed bundle of one service.

    Raises `InvalidInputError` if no layer can enforce a policy of a call, or if the policies of two calls
    conflict (see `_conflicting_calls`).
    """
    edges, site = list(graph.edges_from(service)), graph.site
    replicas = environment.replicas(service).min
    collector = f"http://{site.host(site.collector.name, site.collector.namespace)}:{site.collector.ports[0]}"
    return PolicyBundle(
        metadata=BundleMetadata(service=service.name, environment=environment.name, language=service.language),
        inbound=tuple(
            _inbound(service, operation, edges, replicas, site.own_availability[service.tier])
            for operation in service.operations
        ),
        outbound=tuple(
            call.model_copy(update={"first_message": _first_message(graph, call)})
            for call in _outbound(edges, site, mesh=environment.settings.mesh)
        ),
        degradation=_degradation(service, environment),
        health=Health(checks=tuple(_health_checks(edges))),
        sagas=tuple(saga for operation in service.operations for saga in operation.sagas),
        tracing=Tracing(endpoint=collector, sample_ratio=environment.settings.trace_sample_ratio),
        models=models_of(edges, site, Ratio(f"{1 / replicas:.11f}")),
    ).sealed()


def _degradation(service: Service, environment: Environment) -> Degradation | None:
    level = environment.settings.degraded.get(service.name)
    return Degradation(features=service.features, override=level) if service.features else None


def bundle_digests(graph: CallGraph, environment: Environment) -> dict[str, str]:
    """Service → the digest of its bundle."""
    return {
        service.name: policy_bundle(graph, service, environment).metadata.digest or "" for service in graph.services
    }


def _inbound(
    service: Service, operation: Operation, edges: list[Edge], replicas: int, availability: Ratio
) -> InboundOperation:
    concurrent = service.capacity.per_second * operation.latency.seconds * BULKHEAD_HEADROOM
    # A Go service has no layer that limits incoming requests. Its callers and the gateway limit them.
    bulkhead = Bulkhead(max_concurrent=max(8, math.ceil(concurrent))) if service.language == "python" else None
    return InboundOperation(
        operation=operation.name,
        deadline=operation.deadline,
        service_level=ServiceLevel(availability=availability, latency=operation.latency),
        streamed=operation.transport == "streamed" or None,
        calls=tuple(dict.fromkeys(edge.call.name for edge in edges if edge.operation is operation)),
        rate_limits=tuple(_shared_by(replicas, limit) for limit in operation.rate_limits),
        bulkhead=bulkhead,
        saga=operation.saga.name if operation.saga else None,
    )


def _shared_by(replicas: int, limit: RateLimit) -> RateLimit:
    """The limit with the local share: while the store is down, each replica admits limit ÷ minimum replicas.

    If more replicas run, their total exceeds the limit.
    """
    if limit.scope == "local":
        return limit
    return limit.model_copy(update={"local_share": Ratio(f"{1 / replicas:.11f}")})


def _outbound(edges: Iterable[Edge], site: Site, *, mesh: bool) -> Iterator[OutboundCall]:
    """One policy for each call name. Calls with the same name share a breaker, so their policies must be equal."""
    found: dict[str, OutboundCall] = {}
    methods: dict[tuple[str, str], OutboundCall] = {}
    refusals: list[InvalidInputError] = []
    for edge in edges:
        try:
            call = outbound_call(edge, site, mesh=mesh)
        except InvalidInputError as error:
            refusals.append(error)
            continue
        known = found.setdefault(call.name, call)
        method = methods.setdefault((call.callee, call.operation), call)
        if faults := list(_conflicting_calls(edge.path, call, known, method)):
            refusals.append(InvalidInputError(edge.source, faults))
    if refusals:
        raise InvalidInputError.joined(refusals)
    yield from found.values()


def _first_message(graph: CallGraph, call: OutboundCall) -> Duration | None:
    """The shortest target of the milestones that the called operation yields. `None` if it yields no milestone.

    A milestone of the first stage does not count, because the gateway measures it.
    """
    milestones = (each for flow in graph.flows for each in flow.milestones if not each.first_stage)
    named = f"{call.callee}.{call.operation}"
    return min((each.target for each in milestones if each.operation == named), default=None)


def _conflicting_calls(path: str, call: OutboundCall, known: OutboundCall, method: OutboundCall) -> Iterator[Fault]:
    """Conflicts between calls of one name, or of one gRPC method.

    Calls of one name must have equal policies. If gRPC enforces the timeout, calls of one method must have equal
    timeouts and retries.
    """
    if known != call:
        accepted = "give both calls one policy, or set `purpose` on one call to rename it"
        yield Fault(path, f"differs from another call named {call.name}", accepted)
    elif call.enforced_by.timeout == "grpc" and (method.timeout, method.retry) != (call.timeout, call.retry):
        accepted = f"give both the same timeout and retry: gRPC distinguishes calls to {call.callee} only by method"
        yield Fault(path, f"differs from {method.name}", accepted)


def outbound_call(edge: Edge, site: Site, *, mesh: bool) -> OutboundCall:
    """The policy of one edge, with the layer that enforces each part.

    Raises `InvalidInputError` if no layer can enforce a part.
    """
    if faults := [Fault(edge.path, f"{kind} is declared", why) for kind, why in unenforced(edge)]:
        raise InvalidInputError(edge.source, faults)
    try:
        return _outbound_call(edge, site, mesh=mesh)
    except ValidationError as error:
        raise InvalidInputError(edge.source, faults_of(error, OutboundCall, edge.path)) from None


def _outbound_call(edge: Edge, site: Site, *, mesh: bool) -> OutboundCall:
    call = edge.call
    breaker_layer = in_force(edge, "circuit_breaker", mesh=mesh) if edge.circuit_breaker else None
    bulkhead_layer = in_force(edge, "bulkhead", mesh=mesh) if call.bulkhead else None
    return OutboundCall(
        name=call.name,
        callee=call.callee,
        operation=call.operation,
        protocol=edge.callee.protocol if isinstance(edge.callee, Dependency) else "grpc",
        addresses=() if edge.route else tuple(addresses(edge, site)),
        route=".".join(edge.key) if edge.route else None,
        idempotency=call.idempotency,
        necessity="soft" if call.soft else "hard",
        fallback=call.fallback,
        streamed=edge.target.transport == "streamed" or None,
        timeout=_timeout(edge.attempt_timeout, edge.overall_timeout),
        retry=call.retry,
        circuit_breaker=edge.circuit_breaker if breaker_layer else None,
        bulkhead=call.bulkhead if bulkhead_layer else None,
        enforced_by=_enforced_by(
            timeout=timeout_enforcer(edge),
            attempt_timeout=attempt_timeout_enforcer(edge, mesh=mesh),
            retry=enforcer(edge, "retry") if call.retry else None,
            circuit_breaker=breaker_layer,
            bulkhead=bulkhead_layer,
        ),
    )


@cache
def _timeout(attempt: Duration, overall: Duration) -> Timeout:
    """The timeouts of one call. Cached, because thousands of calls have only a few dozen timeouts."""
    return Timeout(attempt=attempt, overall=overall)


@cache
def _enforced_by(**layers: Enforcer | None) -> EnforcedBy:
    """The layers of one call. Cached, because there are only a few combinations."""
    return EnforcedBy.model_validate(layers)


def addresses(edge: Edge, site: Site) -> Iterator[Address]:
    """The addresses at which the caller of an edge reaches its callee, in order of preference."""
    callee = edge.callee
    if isinstance(callee, Service):
        yield Address(host=site.grpc_host(callee), port=callee.grpc_port)
    elif isinstance(callee, Dependency):
        for address in callee.addresses:
            if isinstance(address, Host):
                yield Address(host=address.host, port=address.port, via=proxy_address(site, address, edge.caller))
            elif isinstance(address, External):
                yield Address(host=address.host, port=address.port, tls=address.tls or None)
            else:
                yield Address(host=site.host(address.service, address.namespace), port=address.port)


def mesh_hosts(edge: Edge, site: Site) -> Iterator[str]:
    """The host of each address of a call: the callee or its egress proxy. The gateway calls the HTTP Service."""
    if isinstance(edge.caller, Gateway) and isinstance(edge.callee, Service):
        yield site.http_host(edge.callee)
        return
    for address in addresses(edge, site):
        yield (address.via or address.host).partition(":")[0]


def _health_checks(edges: Iterable[Edge]) -> Iterator[HealthCheck]:
    """A check for each store and provider, and for each service behind a hard call.

    A check of PostgreSQL or Redis behind a hard call is critical, because the process cannot serve without this store.
    No other check is critical. Otherwise one callee that is down would take all its callers out of rotation, then their
    callers, and so on. A gRPC callee is degraded if its answer takes longer than the objective of the called
    operation.
    """
    looked_at = [edge for edge in edges if not edge.call.soft or isinstance(edge.callee, Dependency)]
    # If a service makes several calls to one callee, the last one counts. Hard calls come last.
    callees = {edge.call.callee: edge for edge in sorted(looked_at, key=lambda edge: not edge.call.soft)}
    for name, edge in callees.items():
        protocol = edge.callee.protocol if isinstance(edge.callee, Dependency) else "grpc"
        promised = edge.target.latency
        yield HealthCheck.model_validate(
            {
                "name": name,
                "kind": protocol if protocol in {"grpc", "postgresql", "redis"} else "tcp",
                "target": edge.call.name,
                "critical": protocol in {"postgresql", "redis"} and not edge.call.soft,
                "max_latency": promised if protocol == "grpc" and promised < CHECK_TIMEOUT else None,
            }
        )
