"""The whole platform in one environment: services joined by their declared calls, as components."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property

from components.component import Component
from components.microservice import Microservice, SecretKeys
from components.namespace import NamespaceGuard
from components.network_policy import Peer
from components.node import Dependency, Gateway, Host, InCluster, Service
from components.service_settings import Connection, ServiceSettings
from stack import catalog
from stack.call_graph import CallGraph, Edge
from stack.catalog import targets
from stack.environments import Environment
from stack.policy_bundles import APPS, addresses, policy_bundle


def call_graph() -> CallGraph:
    """The graph of VoiceAssistant, refused where the catalogue contradicts itself."""
    return CallGraph(
        [catalog.GATEWAY, *catalog.SERVICES, *catalog.DEPENDENCIES],
        catalog.FLOWS,
        only_callers=catalog.ONLY_CALLERS,
        forbidden=catalog.FORBIDDEN,
    )


class Platform:
    """Every component of one environment, in an order that an API server accepts."""

    def __init__(self, graph: CallGraph, environment: Environment) -> None:
        """Join a call graph with an environment."""
        self.graph = graph
        self.environment = environment

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """The namespace's guard first, then the services."""
        guard = NamespaceGuard(name="guard", namespace=APPS, quota=self.environment.quota)
        return (guard, *self.microservices)

    @cached_property
    def microservices(self) -> tuple[Microservice, ...]:
        """The application tier, in the catalogue's order."""
        return tuple(self._microservice(service) for service in self.graph.services)

    def _microservice(self, service: Service) -> Microservice:
        environment = self.environment
        return Microservice(
            name=service.name,
            namespace=APPS,
            service=service,
            image=environment.image(service),
            sizing=environment.sizing(service),
            replicas=environment.replicas(service),
            bundle=policy_bundle(self.graph, service, environment),
            settings=self._settings(service),
            secrets=tuple(_secrets(service, self.graph.edges_from(service))),
            ingress=tuple(_ingress(self.graph, service)),
            egress=tuple(_egress(self.graph, service)),
            longest_request=max(operation.deadline for operation in service.operations),
            restart_on_policy_change=environment.settings.restart_on_policy_change,
        )

    def _settings(self, service: Service) -> ServiceSettings:
        return ServiceSettings(
            service=service.name,
            environment=self.environment.name,
            log_level=self.environment.settings.log_level,
            grpc_port=service.grpc_port,
            http_port=service.http_port,
            connections=tuple(_connections(service, self.graph.edges_from(service))),
        )


def secret_name(service: Service, dependency: Dependency) -> str:
    """The secret that one service holds for one dependency: each has its own."""
    return f"{service.name}-{dependency.name}"


def _dependencies(edges: Iterable[Edge]) -> dict[str, list[Edge]]:
    found: dict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        if isinstance(edge.callee, Dependency):
            found[edge.callee.name].append(edge)
    return found


def _secrets(service: Service, edges: Iterable[Edge]) -> Iterator[SecretKeys]:
    for calls in _dependencies(edges).values():
        dependency = calls[0].callee
        if isinstance(dependency, Dependency) and dependency.credentials:
            yield SecretKeys(name=secret_name(service, dependency), keys=dependency.credentials)


def _connections(service: Service, edges: Iterable[Edge]) -> Iterator[Connection]:
    for name, calls in _dependencies(edges).items():
        dependency = calls[0].callee
        if not isinstance(dependency, Dependency):
            continue
        reached = list(addresses(dependency))
        secret = SecretKeys(name=secret_name(service, dependency), keys=dependency.credentials)
        yield Connection(
            name=name,
            protocol=dependency.protocol,
            hosts=tuple(f"{address.host}:{address.port}" for address in reached),
            via=tuple(address.via for address in reached if address.via),
            timeout=max(edge.attempt_timeout for edge in calls),
            database=service.name if dependency.database else None,
            pool=service.connection_pool if dependency.database else None,
            credentials=secret.path if dependency.credentials else None,
        )


class _Peers:
    """Peers merged by component, ports sorted, in the order they were first met."""

    def __init__(self) -> None:
        self._ports: dict[tuple[str, str], set[int]] = defaultdict(set)

    def add(self, namespace: str, name: str, port: int) -> None:
        self._ports[namespace, name].add(port)

    def __iter__(self) -> Iterator[Peer]:
        for (namespace, name), ports in sorted(self._ports.items()):
            yield Peer(namespace=namespace, name=name, ports=tuple(sorted(ports)))


def _ingress(graph: CallGraph, service: Service) -> Iterator[Peer]:
    """Callers on the port of their protocol, and Prometheus on the one that serves `/metrics`."""
    peers = _Peers()
    for edge in graph.edges_to(service):
        if isinstance(edge.caller, Gateway):
            peers.add(edge.caller.namespace, edge.caller.name, service.http_port)
        else:
            peers.add(APPS, edge.caller.name, service.grpc_port)
    peers.add(targets.OBSERVABILITY, targets.PROMETHEUS, service.http_port)
    yield from peers


def _egress(graph: CallGraph, service: Service) -> Iterator[Peer]:
    """Callees on their ports, the egress proxies of external hosts, and the Collector."""
    peers = _Peers()
    for edge in graph.edges_from(service):
        if isinstance(edge.callee, Service):
            peers.add(APPS, edge.callee.name, edge.callee.grpc_port)
        elif isinstance(edge.callee, Dependency):
            for address in edge.callee.addresses:
                _add_address(peers, address)
    peers.add(targets.OBSERVABILITY, targets.COLLECTOR, targets.COLLECTOR_PORT)
    yield from peers


def _add_address(peers: _Peers, address: Host | InCluster) -> None:
    if isinstance(address, Host):
        peers.add(targets.EGRESS, address.egress, targets.EGRESS_PORT)
    else:
        peers.add(address.namespace, address.service, address.port)
