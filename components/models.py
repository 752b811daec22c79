"""Models behind routes: the providers, deployments and budgets that a catalogue declares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import override
from voice_policies import CallName, ClosedModel, Model, ModelRoute, StreamLatency, TokenBudget

from components.node import Dependency, Host
from components.operation import ModelUse, Name, Operation, operation

__all__ = ["Deployment", "ModelDependency", "Provider", "route"]


class Provider(ClosedModel):
    """A provider of models: its host, and the form of its API. It issues one key for each environment."""

    name: Name
    host: Host
    base_path: str = "/v1"
    """Path before the API's endpoints."""
    idempotency_keys: bool = False
    """True if the provider recognizes a repeated request by its idempotency key."""


class Deployment(ClosedModel):
    """A model at a provider, with its speed and its quota."""

    name: Name
    provider: Name
    model: Model
    latency: StreamLatency
    """P95 of the deployment's latency."""
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    """The provider's quota of tokens. `None` if it does not count tokens."""
    streams: Annotated[int, Field(ge=1)] | None = None
    """The provider's quota of parallel streams. `None` if it does not count streams."""


class ModelDependency(Dependency):
    """Models of several providers. Each operation is a route, and the route's candidates are deployments."""

    providers: tuple[Provider, ...]
    deployments: tuple[Deployment, ...]
    budgets: dict[Name, TokenBudget] = Field(default_factory=dict)
    """Budgets of tenants, by the names that routes use."""
    quota_store: CallName | None = None
    """Name of the call through which each caller counts the providers' quotas. `None`: quotas are not counted."""
    usage: CallName | None = None
    """Name of the call through which each caller appends an event for each attempt. `None`: no event is appended."""

    @classmethod
    def of(cls, name: str, *routes: Operation, providers: tuple[Provider, ...], **options: Any) -> ModelDependency:
        """Models with the addresses and keys of the providers; `options` are the other fields."""
        values: dict[str, Any] = {
            "kind": "provider",
            "protocol": "https",
            **options,
            "name": name,
            "operations": routes,
            "providers": providers,
            "addresses": tuple(provider.host for provider in providers),
            "credentials": tuple(provider.name for provider in providers),
        }
        return cls(**values)

    def candidates(self, route: ModelRoute) -> tuple[Deployment, ...]:
        """The deployments of a route, in order of preference."""
        named = {deployment.name: deployment for deployment in self.deployments}
        return tuple(named[name] for name in route.candidates)

    def provider(self, deployment: Deployment) -> Provider:
        """The provider of a deployment."""
        return next(provider for provider in self.providers if provider.name == deployment.provider)

    @override
    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        named = {deployment.name: deployment for deployment in self.deployments}
        providers = {provider.name for provider in self.providers}
        used: set[str] = set()
        for each in self.operations:
            if each.route is None:
                yield f"operation {each.name} has no route: declare it with route()"
                continue
            yield from (
                f"{each.name}: candidate {name} is not a declared deployment"
                for name in each.route.candidates
                if name not in named
            )
            yield from (
                f"{each.name}: budget {name} is not declared" for name in each.route.budgets if name not in self.budgets
            )
            used |= {named[name].provider for name in each.route.candidates if name in named}
        yield from (
            f"deployment {each.name} names provider {each.provider}, which is not declared"
            for each in self.deployments
            if each.provider not in providers
        )
        yield from (
            f"provider {name} serves no route: leave it out, or make its deployment a candidate"
            for name in sorted(providers - used)
        )


def route(
    name: str, policy: ModelRoute, use: ModelUse, deployments: tuple[Deployment, ...], **options: object
) -> Operation:
    """A route as an operation. Its P95 is the time that the slowest candidate needs for `use.output_max` tokens."""
    named: Mapping[str, Deployment] = {deployment.name: deployment for deployment in deployments}
    slowest = max(named[each].latency.whole(use.output_max) for each in policy.candidates if each in named)
    return operation(name, p95=str(slowest), deadline=str(policy.timeout.total), route=policy, model_use=use, **options)
