"""Nodes and small platforms on the toy tenant's site, for tests of single rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from typing import Any

from voice_policies import (
    Duration,
    Model,
    ModelPrice,
    ModelRoute,
    OutputLimit,
    Rate,
    Ratio,
    StreamLatency,
)

from components.models import Deployment, ModelDependency, Provider, route
from components.node import Dependency, Gateway, Host, InCluster, Node, Replicas, Service
from components.operation import ModelUse, Operation
from stack.model import microservices
from stack.model.call_graph import CallGraph
from stack.model.catalogue import Catalogue
from stack.model.environments import Environment
from stack.model.flow import Flow
from stack.model.platform import Platform
from stack.model.tenant import Tenant, Tier
from tests import toy


def service(name: str, *operations: Operation, **changes: object) -> Service:
    values: dict[str, object] = {
        "name": name,
        "namespace": "shop",
        "purpose": "exists for a test",
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
    return Dependency(
        name=name,
        kind="datastore",
        purpose="exists for a test",
        protocol="postgresql",
        addresses=(InCluster(namespace="stores", service=name, port=5432),),
        availability=Ratio(availability),
        credentials=("password",),
        database=True,
        operations=operations,
    )


def gateway(*routes: Operation) -> Gateway:
    return Gateway(name="gateway", namespace="edge", availability=Ratio("99.99%"), operations=routes)


def tenant_of(*nodes: Node, flows: Iterable[Flow] = (), **rules: Any) -> Tenant:
    catalogue = Catalogue(source="tests", site=toy.SITE, nodes=nodes, flows=tuple(flows), **rules)
    return replace(toy.TENANT, catalogue=catalogue, tiers=(Tier(microservices.components),))


def graph_of(*nodes: Node, flows: Iterable[Flow] = (), **rules: Any) -> CallGraph:
    return tenant_of(*nodes, flows=flows, **rules).graph


def small_platform(
    *nodes: Node, flows: Iterable[Flow] = (), environment: Environment = toy.ENVIRONMENT, **profile: Any
) -> Platform:
    """A platform of these nodes. `profile` has values that replace values of the environment's profile."""
    changed = environment.profile.model_copy(update=profile)
    return Platform(tenant_of(*nodes, flows=flows), environment.model_copy(update={"profile": changed}))


def deployment(name: str, provider: str, *, pace: str = "4.3ms", quota: int = 20_000_000, **model: Any) -> Deployment:
    """`pace` is the time per token."""
    facts = {
        "name": name,
        "capabilities": ("text", "streaming"),
        "context_window": 8_000,
        "tokenizer": "words",
        "price": ModelPrice(input=0.15, output=0.6, as_of=date(2026, 11, 1), source="a test"),
    }
    return Deployment(
        name=name,
        provider=provider,
        model=Model.model_validate({**facts, **model}),
        latency=StreamLatency(first_token=Duration("250ms"), per_token=Duration(pace)),
        tokens_per_minute=quota,
    )


def provider(name: str, egress: str, **changes: Any) -> Provider:
    host = Host(host=f"api.{name}.example", port=443, egress=egress)
    return Provider.model_validate({"name": name, "host": host, **changes})


PROVIDERS = (provider("one", "egress-proxy-a"), provider("two", "egress-proxy-b"))
CANDIDATES = (deployment("one-fast", "one"), deployment("two-fast", "two"))
ANSWER = ModelUse(input_p95=3_000, input_mean=1_500, output_max=150, output_mean=100)


def models(
    *deployments: Deployment,
    use: ModelUse = ANSWER,
    providers: tuple[Provider, ...] = PROVIDERS,
    route_policy: dict[str, Any] | None = None,
    **options: Any,
) -> ModelDependency:
    """Models with one route, `llm.generate`, to these deployments. By default each provider has one deployment."""
    candidates = deployments or CANDIDATES
    policy = {
        "candidates": tuple(each.name for each in candidates),
        "capabilities": ("text", "streaming"),
        "output_limit": OutputLimit(max_tokens=150),
    }
    generate = route("generate", ModelRoute.model_validate({**policy, **(route_policy or {})}), use, candidates)
    values = {"purpose": "answers in a test", "availability": Ratio("99.5%"), "deployments": candidates}
    return ModelDependency.of("llm", generate, providers=providers, **{**values, **options})
