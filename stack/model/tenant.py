"""A tenant: everything that distinguishes one platform from another. The engine reads one tenant."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from voice_policies import InvalidInputError

from components.component import Component
from components.links import Link, Links
from components.node import Dependency, InCluster, Service
from stack.model.alerting import Alerting
from stack.model.call_graph import CallGraph
from stack.model.catalogue import Catalogue
from stack.model.deployment import still_needed
from stack.model.environments import Environment
from stack.model.profile import Profiles
from stack.model.target import Target

__all__ = ["Builder", "Tenant", "Tier"]

Builder = Callable[[], Component]


def no_links(_graph: CallGraph, _environment: Environment) -> Iterator[Link]:
    """No links, for a tier whose pods use only declared calls."""
    return iter(())


@dataclass(frozen=True, slots=True)
class Tier:
    """A part of the platform, such as the datastores: its components and its links."""

    components: Callable[[CallGraph, Environment, Links], Iterable[Builder]]
    """A function for each component. If some functions refuse the settings, one error names the faults of all."""
    links: Callable[[CallGraph, Environment], Iterable[Link]] = no_links
    """Connections in addition to the declared calls, such as replication and scraping."""


@dataclass(frozen=True)
class Tenant:
    """A catalogue and the tiers that deploy it. The entry points pass one tenant to the engine."""

    name: str
    """Name of the platform in documents."""
    catalogue: Catalogue
    tiers: tuple[Tier, ...]
    """The order determines the order of rules in NetworkPolicies. Components are applied in the order of their
    folders."""
    alerting: Alerting
    profiles: Profiles
    """One profile for each kind of environment."""
    targets: tuple[Target, ...] = ()
    """Promises to users. Each has series and alerts that measure it, or a text that says how it is checked."""
    runbook: Path | None = None
    """Folder of the runbook's written parts: a template for each procedure, and `<node>.md` for a node."""
    decided_by: Mapping[str, str] = field(default_factory=dict)
    """Field of a component, such as `Prometheus.retention` → the setting that determines its value."""

    @cached_property
    def services(self) -> frozenset[str]:
        """The names of the services."""
        return frozenset(node.name for node in self.catalogue.nodes if isinstance(node, Service))

    @cached_property
    def degradable(self) -> frozenset[str]:
        """The names of the services that have features to leave out."""
        return frozenset(node.name for node in self.catalogue.nodes if isinstance(node, Service) and node.features)

    @cached_property
    def nodes(self) -> frozenset[str]:
        """The names of all nodes in the catalogue."""
        return frozenset(node.name for node in self.catalogue.nodes)

    @cached_property
    def stores(self) -> frozenset[str]:
        """The names of the stores that the platform deploys by itself."""
        return frozenset(
            node.name
            for node in self.catalogue.nodes
            if isinstance(node, Dependency) and any(isinstance(address, InCluster) for address in node.addresses)
        )

    def still_needed(self, without: Collection[str]) -> Mapping[str, Collection[str]]:
        """Node left out → the calls that need it. Empty if the catalogue itself has faults."""
        try:
            return still_needed(self.graph, without)
        except InvalidInputError:
            return {}

    @cached_property
    def graph(self) -> CallGraph:
        """The call graph of the catalogue. Raises `InvalidInputError` with the faults of the catalogue."""
        return CallGraph(self.catalogue)
