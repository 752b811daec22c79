"""The application tier: a Microservice for each of the tenant's services."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from voice_policies import Connection, ServiceSettings

from components.links import Links
from components.microservice import Microservice
from components.models import ModelDependency
from components.node import Dependency, Service
from components.secret_keys import SecretKeys
from stack.model.call_graph import CallGraph, Edge
from stack.model.caller_secrets import caller_secret
from stack.model.environments import Environment
from stack.model.policy_bundles import addresses, policy_bundle

__all__ = ["components"]


def components(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Callable[[], Microservice]]:
    """For each service, in the catalogue's order, a function that builds its Microservice."""
    return (partial(_microservice, graph, environment, links, service) for service in graph.services)


def _microservice(graph: CallGraph, environment: Environment, links: Links, service: Service) -> Microservice:
    return Microservice(
        name=service.name,
        namespace=service.namespace,
        service=service,
        image=environment.image(service),
        sizing=environment.sizing(service),
        replicas=environment.replicas(service),
        bundle=policy_bundle(graph, service, environment),
        settings=_settings(graph, environment, service),
        credentials=tuple(_secrets(service, graph.edges_from(service))),
        links=links,
        mesh_proxy=environment.mesh_proxy,
        longest_request=max(operation.deadline for operation in service.operations),
        restart_on_policy_change=environment.settings.restart_on_policy_change,
    )


def _settings(graph: CallGraph, environment: Environment, service: Service) -> ServiceSettings:
    return ServiceSettings(
        service=service.name,
        environment=environment.name,
        log_level=environment.settings.log_level,
        grpc_port=service.grpc_port,
        http_port=service.http_port,
        connections=tuple(_connections(service, graph)),
    )


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
            yield caller_secret(service, dependency)


def _connections(service: Service, graph: CallGraph) -> Iterator[Connection]:
    for name, calls in _dependencies(graph.edges_from(service)).items():
        dependency = calls[0].callee
        # A model needs no `Connection`: the bundle has providers, paths of keys, and the timeouts of each route.
        if not isinstance(dependency, Dependency) or isinstance(dependency, ModelDependency):
            continue
        reached = list(addresses(calls[0], graph.site))
        hosts = tuple(f"{address.host}:{address.port}" for address in reached)
        is_proxied = any(address.via for address in reached)
        yield Connection(
            name=name,
            protocol=dependency.protocol,
            hosts=hosts,
            via=tuple(address.via or host for address, host in zip(reached, hosts, strict=True)) if is_proxied else (),
            tls=any(address.tls for address in reached) or None,
            timeout=max(edge.attempt_timeout for edge in calls),
            database=service.name if dependency.database else None,
            pool=service.connection_pool if dependency.database else None,
            credentials=caller_secret(service, dependency).path if dependency.credentials else None,
        )
