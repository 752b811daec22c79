"""M01, M05, M06, M09, M10, M11: the candidates, retries, idempotency keys, budgets and privacy of model routes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

from voice_policies import ModelRoute

from components.models import Deployment, ModelDependency
from components.node import Dependency
from stack.audit.finding import Breach, Rule
from stack.audit.library_defaults import client_retries
from stack.audit.rendered import rendered
from stack.model.call_graph import Edge
from stack.model.model_load import model_demands, model_edges
from stack.model.platform import Platform

KEY = re.compile(r"(?:^|[/=.])(?:sk|key|token)[-_=]|[A-Za-z0-9_-]*(?:[0-9][A-Za-z]|[A-Za-z][0-9])[A-Za-z0-9_-]{18,}")
"""A part of an address that looks like a key: a prefix that providers give to keys, or a long random word."""


def candidates_are_independent(platform: Platform) -> Iterator[Breach | None]:
    """Check that interchangeable candidates share no key, host or proxy, and that calls move between them."""
    for edge in platform.graph.edges:
        if isinstance(edge.callee, Dependency) and len(edge.callee.addresses) > 1 and not edge.route:
            text = "the ledger needs only one address for a call, but all attempts of a request go to the same address"
            yield Breach(edge.path, text, f"{edge.callee.name}: routes, or one address", "", edge.call.location)
    for edge, route, models in model_edges(platform.graph):
        candidates = models.candidates(route)
        for one, other in combinations(candidates, 2):
            path = f"{edge.path}: {one.name}, {other.name}"
            shared = ", ".join(_shared(models, one, other))
            yield (
                Breach(
                    path, f"both candidates need {shared}", f"{edge.callee.name}.deployments", "", edge.call.location
                )
                if shared
                else None
            )
        if len(candidates) > 1 and route.fallback.max_attempts == 1:
            text = f"{len(candidates)} candidates and 1 attempt: no call moves to another candidate"
            yield Breach(edge.path, text, f"{_named(edge)}.fallback.max_attempts", "2", edge.target.location)


def _named(edge: Edge) -> str:
    return ".".join(edge.key)


def _shared(models: ModelDependency, one: Deployment, other: Deployment) -> Iterator[str]:
    first, second = (models.provider(each).host for each in (one, other))
    if one.provider == other.provider:
        yield f"the key of provider {one.provider}"
    if first.host == second.host:
        yield f"host {first.host}"
    if first.egress == second.egress:
        yield f"proxy {first.egress}"


def only_the_route_retries(platform: Platform) -> Iterator[Breach | None]:
    """Check that SDK and mesh make one attempt of each model call. The bundle refuses a retry policy on the call."""
    mesh = {
        host: max(route.get("retries", {}).get("attempts", 0) for route in service["spec"]["http"])
        for service in rendered(platform).of_kind("VirtualService")
        for host in service["spec"]["hosts"]
        if service["spec"].get("http")
    }
    for edge, route, models in model_edges(platform.graph):
        found = {client.library: client.retries for client in client_retries(edge)}
        for candidate in models.candidates(route):
            egress = models.provider(candidate).host.egress
            if retries := mesh.get(platform.site.host(egress, platform.site.egress)):
                found[f"the mesh in front of {egress}"] = retries
        attempts = route.fallback.max_attempts
        for layer, retries in found.items():
            text = (
                f"{layer} makes 1 + {retries} attempts for each of the route's {attempts} attempts:"
                f" {(1 + retries) * attempts} in total"
            )
            yield Breach(
                edge.path, text, f"{edge.callee.name}.clients, or retries of the mesh", "0", edge.call.location
            )
        if not found:
            yield None


def providers_recognize_idempotency_keys(platform: Platform) -> Iterator[Breach | None]:
    """Check that a call with an idempotency key goes to providers that recognize it."""
    for demand in model_demands(platform.graph):
        edge, attempts = demand.edge, demand.route.fallback.max_attempts
        unaware = {each.provider for each in demand.candidates if not demand.models.provider(each).idempotency_keys}
        prices = [each.model.price for each in demand.candidates if each.model.price]
        dearest = max((price.micro_usd(demand.use.input_mean, demand.use.output_mean) for price in prices), default=0)
        text = (
            f"providers that ignore idempotency keys: {', '.join(sorted(unaware))}; {attempts} attempts may cost "
            f"{attempts} × {dearest} = {attempts * dearest} micro-USD"
        )
        found = Breach(demand.path, text, f"{edge.call.name}: idempotency", "idempotent", edge.call.location)
        yield found if edge.call.idempotency == "with_key" and unaware else None


def candidates_can_answer(platform: Platform) -> Iterator[Breach | None]:
    """Check that each candidate has the route's capabilities and a context window for the declared calls."""
    for demand in model_demands(platform.graph):
        needed = demand.use.input_p95 + demand.use.output_max
        for candidate in demand.candidates:
            path, model = f"{demand.path}: {candidate.name}", candidate.model
            if lacking := sorted(set(demand.route.capabilities) - set(model.capabilities)):
                yield Breach(
                    path,
                    f"the model lacks {', '.join(lacking)}",
                    f"{demand.name}: candidates",
                    "",
                    demand.edge.target.location,
                )
            elif model.context_window < needed:
                sizes = f"{demand.use.input_p95:,} tokens in + {demand.use.output_max:,} out"
                text = f"context window {model.context_window:,} < {needed:,} = {sizes}"
                yield Breach(path, text, f"{demand.name}: candidates", "", demand.edge.target.location)
            else:
                yield None


def budgets_are_durable(platform: Platform) -> Iterator[Breach | None]:
    """Check that no store of a budget evicts, each budget declares a rule for outages, and each answer has a limit."""
    for edge, route, models in model_edges(platform.graph):
        if "text" in route.capabilities and route.output_limit is None:
            text = "no max_tokens: neither the cost nor the duration of an answer has a bound"
            yield Breach(edge.path, text, f"{_named(edge)}.output_limit", "", edge.target.location)
        else:
            yield None
        for name in route.budgets:
            budget = models.budgets[name]
            store = platform.graph.dependency(budget.store.partition(".")[0])
            if store and store.evicts:
                text = f"{store.name} drops entries when its memory is full, and a dropped counter starts again at zero"
                yield Breach(f"{edge.path}: {name}", text, f"budgets.{name}.store", "", edge.callee.location)
            elif budget.when_store_unavailable is None:
                text = f"the budget does not declare what happens while {budget.store} is down"
                yield Breach(
                    f"{edge.path}: {name}",
                    text,
                    f"budgets.{name}.when_store_unavailable",
                    "local_share",
                    edge.callee.location,
                )
            else:
                yield None


def prompts_stay_private(platform: Platform) -> Iterator[Breach | None]:
    """Find caches, captures and addresses that disclose prompts, answers or keys."""
    for edge, route, models in model_edges(platform.graph):
        found: list[Breach | None] = [*_disclosures(platform, edge, route, models)]
        yield from found or [None]


def _disclosures(platform: Platform, edge: Edge, route: ModelRoute, models: ModelDependency) -> Iterator[Breach]:
    where = edge.target.location
    if route.cache and "tenant" not in route.cache.scope:
        text = f"the cache distinguishes only {', '.join(route.cache.scope)}: one tenant gets the answers of another"
        yield Breach(edge.path, text, f"{_named(edge)}.cache.scope", "add tenant", where)
    if route.privacy.capture and platform.environment.profile.strict:
        text = f"spans hold prompts and answers in profile {platform.environment.profile.name}"
        yield Breach(edge.path, text, f"{_named(edge)}.privacy.capture", "False", where)
    for provider in dict.fromkeys(models.provider(each) for each in models.candidates(route)):
        if KEY.search(f"{provider.host.host}{provider.base_path}"):
            text = "the provider's address contains a word that looks like a key, and logs contain addresses"
            yield Breach(f"{edge.path}: {provider.name}", text, f"{provider.name}: host or base_path", "", where)


RULES = (
    Rule(
        id="M01",
        title="candidates of a route fail independently, and calls move between them",
        severity="error",
        rationale="the ledger needs only one candidate for a call, but a shared host or proxy takes both down",
        source="measured: the second attempt went to the same host",
        violates="a route over two deployments behind one egress proxy",
        holds="the same deployments behind two egress proxies, with 2 attempts",
        check=candidates_are_independent,
    ),
    Rule(
        id="M05",
        title="only the route repeats a model call",
        severity="error",
        rationale="an SDK with 2 retries makes 3 attempts at each candidate, and each may be billed",
        source="R09; code_puppy#317",
        violates='Client(library="openai-python"), whose default makes 3 × 2 = 6 attempts of a call with 2 candidates',
        holds='Client(library="openai-python", retries=0)',
        check=only_the_route_retries,
    ),
    Rule(
        id="M06",
        title="idempotency keys go only to providers that recognize them",
        severity="warning",
        rationale="a provider that ignores the key bills each attempt, although the call looks free to repeat",
        source="llm-exe#797",
        violates='hard("llm.generate", "with_key") to a provider without idempotency_keys',
        holds='hard("llm.generate", "idempotent") to the same provider',
        check=providers_recognize_idempotency_keys,
    ),
    Rule(
        id="M09",
        title="every candidate can answer the route's calls",
        severity="error",
        rationale="a fallback without a capability or with too small a window fails exactly when it is needed",
        source="dsh-llm-fallbacks#106",
        violates="3,000 tokens in and 150 out, and a candidate with a context window of 3,149 tokens",
        holds="the same calls, and a candidate with a window of 3,150 tokens",
        check=candidates_can_answer,
    ),
    Rule(
        id="M10",
        title="budgets are durable, and answers have a limit",
        severity="error",
        rationale="an evicted counter gives a tenant its whole budget again; an answer without limit may cost anything",
        source="ai-gateway#680",
        violates="a budget whose counters are in a cache that evicts",
        holds="the same budget in a store that keeps its entries, with a local share while the store is down",
        check=budgets_are_durable,
    ),
    Rule(
        id="M11",
        title="prompts, answers and keys stay private",
        severity="error",
        rationale="a cache without the tenant in its key hands one customer's answer to another",
        source="semantic-router#2134, litellm#39964",
        violates="ResponseCache(scope=(model, prompt_version))",
        holds="ResponseCache(scope=(tenant, user, model, prompt_version))",
        check=prompts_stay_private,
    ),
)
