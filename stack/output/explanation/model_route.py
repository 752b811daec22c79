"""Rows for the route of a model call: candidates, attempts, time limits, budgets, and the layers that enforce these."""

from __future__ import annotations

from collections.abc import Iterator

from voice_policies import Duration, ModelRoute, TokenBudget

from components.models import Deployment, ModelDependency
from stack.model.call_graph import Edge

Row = tuple[str, str]
RUNTIME = "by runtime"


def route_rows(edge: Edge) -> Iterator[Row]:
    """The route of a call to a model. Empty for other calls."""
    route, models = edge.route, edge.callee
    if route is None or not isinstance(models, ModelDependency):
        return
    yield "route", f"{'.'.join(edge.key)}, {route.latency_class}; needs {', '.join(route.capabilities)}"
    for number, candidate in enumerate(models.candidates(route), start=1):
        yield f"candidate {number}", _candidate(models, candidate)
    yield from _times(route)
    if route.output_limit:
        yield "output limit", f"{route.output_limit.max_tokens} tokens, {RUNTIME}"
    for name in route.budgets:
        yield "budget", _budget(name, models.budgets[name])
    for candidate in models.candidates(route):
        if candidate.tokens_per_minute and models.quota_store:
            tokens = f"{candidate.tokens_per_minute:,} tokens in 1m"
            yield "quota", f"{candidate.name}: {tokens}, by runtime in {models.quota_store}"
    yield "cache", f"exact, by {', '.join(route.cache.scope)}, {RUNTIME}" if route.cache else "none"
    yield "prompts", "captured in spans, by runtime" if route.privacy.capture else "never captured, by runtime"


def _candidate(models: ModelDependency, candidate: Deployment) -> str:
    provider, latency = models.provider(candidate), candidate.latency
    pace = f" and {latency.per_token / Duration('1ms'):g}ms a token" if latency.per_token else ""
    return (
        f"{candidate.name}: {candidate.model.name} at {provider.host.host} through {provider.host.egress}; "
        f"P95 {latency.first_token} to the first token{pace}"
    )


def _times(route: ModelRoute) -> Iterator[Row]:
    fallback, timeout, cooldown = route.fallback, route.timeout, route.cooldown
    each = " at different candidates" if fallback.distinct else ""
    yield "fallback", f"{fallback.max_attempts} attempts{each}, wait ≤ {fallback.backoff}, {RUNTIME}"
    if hedge := route.hedge:
        yield "hedge", f"a second request after {hedge.delay}, at most {hedge.budget.ratio} of the calls, {RUNTIME}"
    begin = f"connect {timeout.connect}, first token {timeout.first_token}"
    yield "stream timeout", f"{begin}, idle {timeout.idle}, total {timeout.total}, {RUNTIME}"
    long = f"{cooldown.quota} for a spent quota, a refused key or an unknown model"
    yield "cooldown", f"{cooldown.default}, at most {cooldown.max}; {long}, {RUNTIME}"


def _budget(name: str, budget: TokenBudget) -> str:
    away = {"local_share": "each replica's share", "closed": "no call", None: "no behaviour is declared"}
    down = away[budget.when_store_unavailable]
    tokens = f"{budget.tokens:,} tokens in {budget.window} for each {budget.key}"
    return f"{name}: {tokens}, by runtime in {budget.store}; while the store is down: {down}"
