"""The platforms that tests look at: the real ones, and small ones with one thing wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from voice_policies import Rate, Ratio

from components.node import Dependency, Gateway, InCluster, Node, Replicas, Service, Sizing
from components.operation import Operation
from stack.model.call_graph import CallGraph
from stack.model.catalogue import Catalogue
from stack.model.environments import Environment, load_environment
from stack.model.flow import Flow
from stack.model.platform import Platform
from stack.model.settings import ROOT, environments
from stack.model.tenant import Tenant
from stack.voiceassistant import TENANT
from stack.voiceassistant.profiles import PROFILES

ENVIRONMENTS = ("dev", "staging", "prod")
"""The environments that are deployed."""
VARIANT_FILES = Path(__file__).with_name("environments")
VARIANTS = environments(VARIANT_FILES)
"""Environments that tests look at alone, each with a file of its own."""


@cache
def platform(name: str) -> Platform:
    """The platform in an environment that has a file."""
    return Platform(TENANT, real_environment(name))


@cache
def real_environment(name: str) -> Environment:
    return load_environment(name, PROFILES, VARIANT_FILES if name in VARIANTS else ROOT)


def with_profile(changed: Environment, **changes: object) -> Environment:
    """The environment with some of its profile's values changed."""
    return changed.model_copy(update={"profile": changed.profile.model_copy(update=changes)})


@cache
def resources(name: str) -> tuple[dict[str, Any], ...]:
    """Everything a real environment renders."""
    return tuple(dict(resource) for component in platform(name).components for resource in component.resources())


def of_kind(name: str, kind: str) -> list[dict[str, Any]]:
    return [resource for resource in resources(name) if resource["kind"] == kind]


def service(name: str, *operations: Operation, **changes: object) -> Service:
    """A small service."""
    values: dict[str, object] = {
        "name": name,
        "namespace": "voice-apps",
        "purpose": "stands in a test",
        "language": "python",
        "tier": "standard",
        "grpc_port": 9000,
        "http_port": 8080,
        "sizing": Sizing.of(cpu=("100m", "200m"), memory=("64Mi", "128Mi")),
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
        addresses=(InCluster(namespace="voice-data", service=name, port=5432),),
        availability=Ratio(availability),
        credentials=("password",),
        database=True,
        operations=operations,
    )


def gateway(*routes: Operation) -> Gateway:
    """A small gateway."""
    return Gateway(name="gateway", namespace="voice-gateway", availability=Ratio("99.99%"), operations=routes)


def tenant_of(*nodes: Node, flows: Iterable[Flow] = (), **rules: Any) -> Tenant:
    """A tenant of these nodes alone."""
    catalogue = Catalogue(source="tests", site=TENANT.catalogue.site, nodes=nodes, flows=tuple(flows), **rules)
    return replace(TENANT, catalogue=catalogue)


def graph_of(*nodes: Node, flows: Iterable[Flow] = (), **rules: Any) -> CallGraph:
    """The graph of these nodes alone."""
    return tenant_of(*nodes, flows=flows, **rules).graph


def small_platform(*nodes: Node, flows: Iterable[Flow] = (), name: str = "prod") -> Platform:
    """A platform of these nodes alone."""
    return Platform(tenant_of(*nodes, flows=flows), real_environment(name))
