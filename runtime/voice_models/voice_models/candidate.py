"""A candidate of a route: a deployment with its model and provider."""

from __future__ import annotations

from dataclasses import dataclass

from voice_policies import Model, ModelDeployment, ModelProvider, Models


@dataclass(frozen=True, slots=True)
class Candidate:
    """One deployment that may answer a call."""

    name: str
    """The deployment's name in the bundle."""
    deployment: ModelDeployment
    model: Model
    provider: ModelProvider


class CredentialError(Exception):
    """The file with a deployment's API key cannot be read, or holds no key."""


def candidates_of(models: Models, route: str) -> tuple[Candidate, ...]:
    """The candidates of a route, in order of preference. Each has all capabilities that the route requires."""
    policy = models.routes[route]
    required = set(policy.capabilities)
    deployments = zip(policy.candidates, models.candidates(route), strict=True)
    found = (
        Candidate(name, deployment, models.models[deployment.model], models.providers[deployment.provider])
        for name, deployment in deployments
    )
    return tuple(candidate for candidate in found if required <= set(candidate.model.capabilities))
