"""The whole platform in one environment: everything that is declared, joined by its calls, as components."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from ipaddress import IPv4Network
from typing import Literal

from voice_policies import Fault, InvalidInputError

from components.component import Component
from components.microservice import Microservice
from components.namespace import NamespaceGuard
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.peers import Link
from stack.model.refusals import Refusals
from stack.model.settings import file_of, path_of
from stack.model.site import Site
from stack.voiceassistant.tenant import CATALOGUE
from stack.voiceassistant.tiers import (
    applications,
    data,
    egress,
    full_text_index,
    gateway,
    mesh,
    observability,
    schemas,
    telemetry_stores,
)

TIERS = (data, full_text_index, schemas, egress, telemetry_stores, observability, mesh, applications, gateway)
"""In the order of their folders: what others stand on comes first."""
LINKED_TIERS = (data, full_text_index, egress, telemetry_stores, observability, mesh, gateway)
"""Those with ways of their own, such as replication."""


def call_graph() -> CallGraph:
    """The graph of VoiceAssistant, refused where the catalogue contradicts itself."""
    return CallGraph(CATALOGUE)


class Platform:
    """Every component of one environment, in an order that an API server accepts."""

    def __init__(self, graph: CallGraph, environment: Environment) -> None:
        """Join a call graph with an environment; raises `InvalidInputError` where the settings do not fit the graph."""
        self.graph = graph
        self.environment = environment
        if faults := [*_stranger_faults(graph, environment), *_backup_faults(graph.site, environment)]:
            raise InvalidInputError(file_of(environment.name), faults)

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """The guards of the namespaces first, then tier by tier; raises `InvalidInputError` with what all refuse."""
        found: list[Component] = [*self._guards()]
        refusals = Refusals(self.environment.settings)
        for tier in TIERS:
            with refusals.collected():
                found += tier.components(self.graph, self.environment)
        refusals.tell()
        return tuple(found)

    def _guards(self) -> Iterator[NamespaceGuard]:
        for namespace, quota in self.environment.quotas.items():
            level: Literal["restricted", "privileged"] = (
                "privileged" if namespace == self.graph.site.node_agents else "restricted"
            )
            yield NamespaceGuard(name=namespace, namespace=namespace, level=level, quota=quota)

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """The ways that the tiers need for themselves, beside the declared calls."""
        return tuple(link for tier in LINKED_TIERS for link in tier.links(self.graph, self.environment))

    @cached_property
    def microservices(self) -> tuple[Microservice, ...]:
        """The application tier, in the catalogue's order."""
        return tuple(component for component in self.components if isinstance(component, Microservice))


def _stranger_faults(graph: CallGraph, environment: Environment) -> Iterator[Fault]:
    known = {service.name for service in graph.services}
    accepted = f"expected one of {', '.join(sorted(known))}"
    for name in sorted(environment.settings.replicas.keys() - known):
        yield Fault(path_of(f"replicas.{name}"), "is no service", accepted)


def _backup_faults(site: Site, environment: Environment) -> Iterator[Fault]:
    """The object store is one host for services and backups alike: it stands where the proxies look for it too."""
    backups = environment.settings.backups
    if backups and not IPv4Network(backups.network).subnet_of(IPv4Network(site.peered_network)):
        accepted = f"expected a block within {site.peered_network}, where {data.backup_store().host} stands"
        yield Fault(path_of("backups.network"), f"is {backups.network!r}", accepted)
