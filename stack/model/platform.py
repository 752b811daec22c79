"""The whole platform in one environment: the components of every declaration, and the links between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator
from functools import cached_property
from ipaddress import ip_network
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, TypeVar

from voice_policies import Fault, InvalidInputError, one_of

from components.component import Component
from components.links import Links
from components.microservice import Microservice
from components.namespace import NamespaceGuard
from components.priority import PriorityClasses
from components.secret_keys import SecretKeys, merged
from stack.model.call_graph import CallGraph
from stack.model.deployment import deployed
from stack.model.environments import Environment, load_environment
from stack.model.links import call_links, telemetry_links
from stack.model.prices import Prices
from stack.model.refusals import ComponentRefusals
from stack.model.settings import file_of, path_of
from stack.model.site import Site
from stack.model.tenant import Tenant

if TYPE_CHECKING:
    from components.component import Resource

__all__ = ["Platform", "beside_catalogue", "load_platform"]

CLUSTER = "cluster"
"""`Component.namespace` of components whose resources are cluster-scoped."""
Read = TypeVar("Read")


class Platform:
    """Every component of one environment, in an order that an API server accepts."""

    def __init__(self, tenant: Tenant, environment: Environment) -> None:
        """Join a tenant with an environment. Raises `InvalidInputError` with the faults of the catalogue."""
        self.tenant = tenant
        self.site = tenant.catalogue.site
        self.environment = environment
        settings = environment.settings
        changed = settings.without or settings.external
        self.graph = CallGraph(deployed(tenant.catalogue, settings)) if changed else tenant.graph

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """The components, ordered by their folders. Raises `InvalidInputError` with the faults of all components."""
        found: list[Component] = []
        tenant, environment = self.tenant, self.environment
        refusals = ComponentRefusals(tenant.catalogue.source, environment.settings, tenant.decided_by)
        with refusals.collected():
            if faults := list(_backup_faults(self.site, environment)):
                raise InvalidInputError(file_of(environment.name), faults)
        for tier in tenant.tiers:
            with refusals.collected():
                for build in tier.components(self.graph, environment, self.links):
                    with refusals.collected():
                        found.append(build())
        with refusals.collected():
            if faults := list(_namespace_faults(found, environment)):
                raise InvalidInputError(tenant.catalogue.source, faults)
        refusals.raise_collected()
        guards = self._guards({component.namespace for component in found})
        classes = PriorityClasses(name="priority-classes", namespace=CLUSTER)
        return tuple(sorted((classes, *guards, *found), key=attrgetter("folder")))

    @cached_property
    def resources(self) -> tuple[tuple[Component, tuple[Resource, ...]], ...]:
        """Each component with its resources. Raises `InvalidInputError` if two components render the same resource."""
        found = tuple((component, tuple(component.resources())) for component in self.components)
        owners: dict[str, list[str]] = defaultdict(list)
        for component, resources in found:
            for each in resources:
                metadata = each["metadata"]
                owners[f"{each['kind']} {metadata.get('namespace', '')}/{metadata['name']}"].append(component.name)
        if faults := [
            Fault(resource, f"is rendered by {' and by '.join(names)}", "expected one: rename a component")
            for resource, names in owners.items()
            if len(names) > 1
        ]:
            raise InvalidInputError(self.tenant.catalogue.source, faults)
        return found

    def _guards(self, namespaces: Container[str]) -> Iterator[NamespaceGuard]:
        """The guards of the namespaces that have components."""
        quotas, settings = self.environment.profile.quotas, self.environment.settings
        for namespace, quota in ((name, quota) for name, quota in quotas.items() if name in namespaces):
            level: Literal["restricted", "privileged"] = (
                "privileged" if namespace == self.site.node_agents else "restricted"
            )
            yield NamespaceGuard(
                name=namespace,
                namespace=namespace,
                level=level,
                quota=quota,
                dns=settings.cluster_dns,
                pull_secret=settings.image_pull_secret,
            )

    @cached_property
    def links(self) -> Links:
        """The links of declared calls, of the services' telemetry, and of the tiers."""
        own = (tier.links(self.graph, self.environment) for tier in self.tenant.tiers)
        return Links(chain(call_links(self.graph), telemetry_links(self.graph), *own))

    @property
    def prices(self) -> Prices | None:
        """The price table of the environment's settings, or else of the site."""
        return self.environment.settings.prices or self.site.prices

    @cached_property
    def secrets(self) -> tuple[SecretKeys, ...]:
        """Every secret that a component reads, with all its keys."""
        return merged(secret for component in self.components for secret in component.secrets)

    @cached_property
    def microservices(self) -> tuple[Microservice, ...]:
        """The components of the services, in the catalogue's order."""
        return tuple(component for component in self.components if isinstance(component, Microservice))


def _backup_faults(site: Site, environment: Environment) -> Iterator[Fault]:
    """The fault of a `backups.network` outside the peered network.

    Backups use the services' object store, which the egress proxies reach in the peered network.
    """
    backups = environment.settings.backups
    if backups and not _is_within(backups.network, site.peered_network):
        accepted = f"expected a block within {site.peered_network}, the network of the object store"
        yield Fault(path_of("backups.network"), f"is {backups.network!r}", accepted)


def _namespace_faults(components: Iterable[Component], environment: Environment) -> Iterator[Fault]:
    """The components in a namespace without a quota. Only namespaces with a quota are created."""
    quotas = environment.profile.quotas
    for component in components:
        if component.namespace not in quotas:
            accepted = (
                f"{one_of(component.namespace, quotas)}, for which profile {environment.profile.name} has a quota"
            )
            yield Fault(f"{component.kind} {component.name}.namespace", f"is {component.namespace!r}", accepted)


def _is_within(inner: str, outer: str) -> bool:
    """True if block `inner` is part of block `outer`. False for blocks of different IP versions."""
    block, whole = ip_network(inner), ip_network(outer)
    return block.network_address in whole and block.broadcast_address in whole


def load_platform(tenant: Tenant, environment: str) -> Platform:
    """The platform of an environment's file; raises `InvalidInputError` with the faults of file and catalogue."""
    return Platform(tenant, beside_catalogue(tenant, lambda: load_environment(environment, tenant)))


def beside_catalogue(tenant: Tenant, read: Callable[[], Read]) -> Read:
    """The result of `read`. If `read` raises `InvalidInputError`, the error also has the faults of the catalogue."""
    try:
        return read()
    except InvalidInputError as of_settings:
        try:
            CallGraph(tenant.catalogue)
        except InvalidInputError as of_catalogue:
            raise InvalidInputError.joined([of_settings, of_catalogue]) from None
        raise
