"""Small nodes and platforms of a few of them, on the site of the toy tenant, for tests of single rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from voice_policies import Rate, Ratio

from components.node import Dependency, Gateway, InCluster, Node, Replicas, Service
from components.operation import Operation
from stack.model import microservices
from stack.model.call_graph import CallGraph
from stack.model.catalogue import Catalogue
from stack.model.environments import Environment
from stack.model.flow import Flow
from stack.model.platform import Platform
from stack.model.tenant import Tenant, Tier
from tests import toy


def service(name: str, *operations: Operation, **changes: object) -> Service:
    """A small service."""
    values: dict[str, object] = {
        "name": name,
        "namespace": "shop",
        "purpose": "stands in a test",
        "language": "python",
        "tier": "standard",
        "grpc_port": 9000,
        "http_port": 8080,
        "sizing": toy.SIZING,
        "replicas": Replicas(min=2, max=4),
        "capacity": Rate("100/s"),
        "operations": operations,
    }
    return Service.model_validate({**values, **changes})


def datastore(name: str, *operations: Operation, availability: str = "99.99%") -> Dependency:
    """A small datastore in the cluster."""
    return Dependency(
        name=name,
        kind="datastore",
        purpose="stands in a test",
        protocol="postgresql",
        addresses=(InCluster(namespace="stores", service=name, port=5432),),
        availability=Ratio(availability),
        credentials=("password",),
        database=True,
        operations=operations,
    )


def gateway(*routes: Operation) -> Gateway:
    """A small gateway."""
    return Gateway(name="gateway", namespace="edge", availability=Ratio("99.99%"), operations=routes)


def tenant_of(*nodes: Node, flows: Iterable[Flow] = (), **rules: Any) -> Tenant:
    """A tenant of these nodes alone, of which the services are deployed."""
    catalogue = Catalogue(source="tests", site=toy.SITE, nodes=nodes, flows=tuple(flows), **rules)
    return replace(toy.TENANT, catalogue=catalogue, tiers=(Tier(microservices.components),))


def graph_of(*nodes: Node, flows: Iterable[Flow] = (), **rules: Any) -> CallGraph:
    """The graph of these nodes alone."""
    return tenant_of(*nodes, flows=flows, **rules).graph


def small_platform(
    *nodes: Node, flows: Iterable[Flow] = (), environment: Environment = toy.ENVIRONMENT, **profile: Any
) -> Platform:
    """A platform of these nodes alone; `profile` changes values of the environment's profile."""
    changed = environment.profile.model_copy(update=profile)
    return Platform(tenant_of(*nodes, flows=flows), environment.model_copy(update={"profile": changed}))
