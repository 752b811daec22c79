"""The models of a policy bundle: the routes that a service calls, with their deployments, providers and budgets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from voice_policies import (
    Address,
    Duration,
    InvalidInputError,
    ModelDeployment,
    ModelProvider,
    Models,
    Ratio,
    TokenBudget,
    faults_of,
)

from components.models import Deployment, ModelDependency, Provider
from components.node import Caller
from stack.model.call_graph import Edge
from stack.model.caller_secrets import caller_secret
from stack.model.egress import proxy_address
from stack.model.site import Site

QUOTA_WINDOW = Duration("1m")
"""Providers state their quotas in tokens per minute."""


def models_of(edges: Iterable[Edge], site: Site, local_share: Ratio) -> Models | None:
    """The models that a service calls; `None` if it calls none.

    `local_share` is the part of each budget that a replica enforces while the budget's store is down. Raises
    `InvalidInputError` if the routes and budgets contradict each other.
    """
    called = [edge for edge in edges if edge.route]
    if not called:
        return None
    callers = {edge.callee.name: edge for edge in called}
    values: dict[str, Any] = defaultdict(dict)
    for edge in callers.values():
        if isinstance(edge.callee, ModelDependency):
            _add(values, edge.caller, edge.callee, site)
    values["routes"] = {".".join(edge.key): edge.route for edge in called}
    values["budgets"] = {
        name: budget.model_copy(update={"local_share": local_share}) for name, budget in values["budgets"].items()
    }
    try:
        return Models.model_validate(values)
    except ValidationError as error:
        raise InvalidInputError(called[0].source, faults_of(error, Models, f"{called[0].caller.name}.models")) from None


def _add(values: dict[str, Any], caller: Caller, models: ModelDependency, site: Site) -> None:
    secret = caller_secret(caller, models)
    values["usage"] = models.usage
    values["providers"] |= {each.name: _provider(each, caller, site) for each in models.providers}
    values["budgets"] |= models.budgets
    for deployment in models.deployments:
        quota = _quota(models, deployment)
        values["models"][deployment.name] = deployment.model
        values["budgets"] |= quota
        values["deployments"][deployment.name] = ModelDeployment(
            provider=deployment.provider,
            model=deployment.name,
            credential=f"{secret.path}/{deployment.provider}",
            latency=deployment.latency,
            budgets=tuple(quota),
            streams=deployment.streams,
        )


def _provider(provider: Provider, caller: Caller, site: Site) -> ModelProvider:
    host = provider.host
    return ModelProvider(
        address=Address(host=host.host, port=host.port, via=proxy_address(site, host, caller)),
        base_path=provider.base_path,
        idempotency_keys=provider.idempotency_keys,
    )


def _quota(models: ModelDependency, deployment: Deployment) -> dict[str, TokenBudget]:
    """Name of a budget → the provider's quota for a deployment. Empty without a quota or a store."""
    tokens, store = deployment.tokens_per_minute, models.quota_store
    if tokens is None or store is None:
        return {}
    return {f"{deployment.name}-quota": TokenBudget(key="deployment", tokens=tokens, window=QUOTA_WINDOW, store=store)}
