"""Models: the providers, deployments and routes of one service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field
from typing_extensions import override

from voice_policies.model import Model
from voice_policies.model_deployment import ModelDeployment
from voice_policies.model_provider import ModelProvider
from voice_policies.model_route import ModelRoute
from voice_policies.names import CallName, DnsLabel, RouteName
from voice_policies.policy import Policy
from voice_policies.token_budget import TokenBudget


class Models(Policy):
    """Everything that the model calls of one service need. The parts refer to each other by name."""

    providers: Mapping[DnsLabel, ModelProvider]
    models: Mapping[DnsLabel, Model]
    deployments: Mapping[DnsLabel, ModelDeployment]
    routes: Annotated[Mapping[RouteName, ModelRoute], Field(min_length=1)]
    """The routes by the name that a call and the service's code use, such as `llm.generate`."""
    budgets: Mapping[DnsLabel, TokenBudget] = Field(default_factory=dict)
    usage: CallName | None = None
    """The outbound call that appends one `model.attempted` event for each attempt. `None`: no call appends events."""

    def candidates(self, route: str) -> tuple[ModelDeployment, ...]:
        """The deployments of a route, in order of preference; raises `KeyError` for an unknown route."""
        return tuple(self.deployments[name] for name in self.routes[route].candidates)

    @override
    def conflicts(self) -> Iterator[str]:
        for name, deployment in self.deployments.items():
            where = f"deployment {name}"
            yield from _unknown(f"{where} names provider", (deployment.provider,), self.providers)
            yield from _unknown(f"{where} names model", (deployment.model,), self.models)
            yield from _unknown(f"{where} names budget", deployment.budgets, self.budgets)
            yield from self._misplaced(where, deployment.budgets, "deployment")
        for name, route in self.routes.items():
            where = f"route {name}"
            yield from _unknown(f"{where} names candidate", route.candidates, self.deployments)
            yield from _unknown(f"{where} names budget", route.budgets, self.budgets)
            yield from self._misplaced(where, route.budgets, "tenant")
            yield from self._too_small(name, route)

    def _misplaced(self, where: str, names: tuple[str, ...], key: str) -> Iterator[str]:
        for name in names:
            if name in self.budgets and self.budgets[name].key != key:
                yield f"{where} names budget {name}, whose key is {self.budgets[name].key}; expected the key {key}"

    def _too_small(self, name: str, route: ModelRoute) -> Iterator[str]:
        """Budgets that could never admit the longest answer of a route."""
        if route.output_limit is None:
            return
        limit = route.output_limit.max_tokens
        candidates = (self.deployments[each] for each in route.candidates if each in self.deployments)
        for budget in dict.fromkeys((*route.budgets, *(each for found in candidates for each in found.budgets))):
            if budget in self.budgets and self.budgets[budget].tokens < limit:
                yield (
                    f"route {name} may ask for {limit} output tokens, and budget {budget} never admits more than "
                    f"{self.budgets[budget].tokens}: raise the budget or lower output_limit.max_tokens"
                )


def _unknown(what: str, names: tuple[str, ...], known: Mapping[str, object]) -> Iterator[str]:
    yield from (f"{what} {name}, which does not exist" for name in names if name not in known)
