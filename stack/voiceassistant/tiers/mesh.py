"""The mesh tier, in environments with a mesh: permitted callers, and the policies that the mesh enforces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial

from pydantic import ValidationError
from voice_policies import Fault, InvalidInputError, OutboundCall, faults_of, grpc_method, grpc_service

from components.links import Link, Links
from components.mesh.policy import (
    AttemptTimeout,
    ExternalHost,
    MeshCaller,
    MeshDefaults,
    MeshDestination,
    MeshPolicy,
    MeshServer,
)
from components.mesh.proxy import STATS_PORT
from components.network_policy import Peer
from components.node import Dependency, External, Gateway, Node, Service
from stack.model.call_graph import CallGraph, Edge
from stack.model.environments import Environment
from stack.model.links import external_stores
from stack.model.policy_bundles import mesh_hosts, outbound_call
from stack.model.tenant import Builder
from stack.voiceassistant.site import APPS, PROMETHEUS_PODS

CONTROL_PLANE = Peer(namespace="istio-system", name="istiod", ports=(15012,), label="app")
"""Pods from which proxies get configuration and certificates."""


def components(graph: CallGraph, environment: Environment, _: Links) -> Iterator[Builder]:
    """The defaults of the services' namespace, then each member of the mesh."""
    if not environment.settings.mesh:
        return
    external = tuple(
        ExternalHost(name=dependency.name, host=address.host, port=address.port, network=address.network)
        for dependency, address in external_stores(graph)
    )
    yield partial(MeshDefaults, name="mesh", namespace=APPS, external=external)
    yield from (partial(_service, graph, service) for service in graph.services)
    if gateway := graph.gateway:
        yield partial(_entrance, graph, gateway)


def links(graph: CallGraph, environment: Environment) -> Iterator[Link]:
    """The mesh's proxy in each member's pods connects to the control plane, and Prometheus to the proxy."""
    if not environment.settings.mesh:
        return
    members: list[Service | Gateway] = [*graph.services, *([graph.gateway] if graph.gateway else [])]
    for member in members:
        pods = Peer(namespace=member.namespace, name=member.name, ports=())
        yield Link(source=pods, target=CONTROL_PLANE)
        yield Link(source=PROMETHEUS_PODS, target=pods.model_copy(update={"ports": (STATS_PORT,)}))


def _entrance(graph: CallGraph, gateway: Gateway) -> MeshPolicy:
    return MeshPolicy(
        name=gateway.name,
        namespace=gateway.namespace,
        server=None,
        destinations=tuple(_destinations(graph, gateway)),
    )


def _service(graph: CallGraph, service: Service) -> MeshPolicy:
    callers = {_caller(edge, service) for edge in graph.edges_to(service)}
    return MeshPolicy(
        name=service.name,
        namespace=service.namespace,
        server=MeshServer(
            hosts=(graph.site.http_host(service), graph.site.grpc_host(service)),
            callers=tuple(sorted(callers, key=lambda caller: (caller.namespace, caller.name))),
            attempt_timeouts=tuple(dict.fromkeys(_attempt_timeouts(graph, service))),
            metrics_port=service.http_port,
        ),
        destinations=tuple(_destinations(graph, service)),
    )


def _attempt_timeouts(graph: CallGraph, service: Service) -> Iterator[AttemptTimeout]:
    """Timeouts for calls whose retrying layer cannot set an attempt timeout."""
    for edge in graph.edges_to(service):
        call = outbound_call(edge, graph.site, mesh=True)
        if call.enforced_by.attempt_timeout == "mesh":
            yield AttemptTimeout(
                host=graph.site.grpc_host(service),
                caller=edge.caller.name,
                path=f"/{grpc_service(call.callee)}/{grpc_method(call.operation)}",
                timeout=call.timeout.attempt,
            )


def _caller(edge: Edge, service: Service) -> MeshCaller:
    port = service.http_port if isinstance(edge.caller, Gateway) else service.grpc_port
    return MeshCaller(namespace=edge.caller.namespace, name=edge.caller.name, port=port)


def _destinations(graph: CallGraph, caller: Service | Gateway) -> Iterator[MeshDestination]:
    """Every called host, and the Collector.

    Raises `InvalidInputError` if the calls to a host differ in a policy that the mesh enforces. It also raises the
    error if the mesh cannot express the policy.
    """
    calls: dict[str, list[tuple[Edge, OutboundCall]]] = defaultdict(list)
    for edge in graph.edges_from(caller):
        call = outbound_call(edge, graph.site, mesh=True)
        for host in mesh_hosts(edge, graph.site):
            calls[host].append((edge, call))
    faults: list[Fault] = []
    for host, found in sorted(calls.items()):
        try:
            yield _destination(host, found, faults)
        except ValidationError as error:
            faults += faults_of(error, MeshDestination, f"{caller.name} → {host}")
    collector = graph.site.collector
    yield MeshDestination(host=graph.site.host(collector.name, collector.namespace), http=True)
    if faults:
        raise InvalidInputError(str(caller.location), faults)


def _is_external(callee: Node) -> bool:
    return isinstance(callee, Dependency) and any(isinstance(address, External) for address in callee.addresses)


def _destination(host: str, found: list[tuple[Edge, OutboundCall]], faults: list[Fault]) -> MeshDestination:
    by_mesh = [
        (edge, call) for edge, call in found if "mesh" in (call.enforced_by.circuit_breaker, call.enforced_by.bulkhead)
    ]
    breakers = {call.circuit_breaker for _, call in by_mesh if call.enforced_by.circuit_breaker == "mesh"}
    bulkheads = {call.bulkhead for _, call in by_mesh if call.enforced_by.bulkhead == "mesh"}
    if len(breakers) > 1 or len(bulkheads) > 1:
        paths = ", ".join(edge.path for edge, _ in by_mesh)
        lines = " and ".join(dict.fromkeys(edge.source for edge, _ in by_mesh))
        value = f"disagree on the policy of {host}"
        accepted = (
            "the mesh has one policy for a host: give the callees different hosts, or give all calls the same policy"
        )
        faults.append(Fault(paths, value, accepted, lines))
    return MeshDestination(
        host=host,
        http=all(call.protocol in {"grpc", "http"} and not call.addresses[0].tls for _, call in found),
        external=next((edge.callee.name for edge, _ in found if _is_external(edge.callee)), None),
        circuit_breaker=next(iter(breakers), None),
        bulkhead=next(iter(bulkheads), None),
    )
