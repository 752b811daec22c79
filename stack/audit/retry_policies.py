"""R03, R04, R06, R07, R08: the number, conditions and backoff of the retries on one edge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from voice_policies import Retry, RetryCondition

from stack.audit.finding import Breach, Rule, Severity
from stack.audit.library_defaults import client_retries
from stack.audit.retries import BUDGETED, FALLBACK, SAGA, Layer, layers
from stack.model.call_graph import Edge
from stack.model.enforcement import enforcer
from stack.model.platform import Platform

WARN_ATTEMPTS = 3
"""R03 warns if one layer makes more attempts."""
MAX_ATTEMPTS = 5
"""R03 reports an error if one layer makes more attempts. gRPC clients treat more than 5 attempts as 5 (gRFC A6)."""
TRANSIENT = frozenset(get_args(RetryCondition))


def _retrying(platform: Platform) -> Iterator[tuple[Edge, Retry]]:
    for edge in platform.graph.edges:
        if edge.call.retry and edge.call.retry.max_retries:
            yield edge, edge.call.retry


def _layers(platform: Platform) -> Iterator[tuple[Edge, Layer]]:
    for edge in platform.graph.edges:
        yield from ((edge, layer) for layer in layers(edge))


def attempts_are_limited(platform: Platform) -> Iterator[Breach | None]:
    """Compare the attempts of every layer that retries an edge with `WARN_ATTEMPTS` and `MAX_ATTEMPTS`."""
    for edge, layer in _layers(platform):
        severity: Severity = "error" if layer.attempts > MAX_ATTEMPTS else "warning"
        text = f"{layer.name} makes 1 + {layer.attempts - 1} = {layer.attempts} attempts > {WARN_ATTEMPTS}"
        found = Breach(edge.path, text, _field(edge, layer), str(WARN_ATTEMPTS - 1), edge.call.location, severity)
        yield found if layer.attempts > WARN_ATTEMPTS else None


EXPRESSED = BUDGETED | {"gateway"}
"""Layers whose retries are configured by the field `retry` of a call."""


def _field(edge: Edge, layer: Layer) -> str:
    return f"{edge.path}: retry.max_retries" if layer.name in EXPRESSED else f"the retries of {layer.name}"


def retries_have_a_budget(platform: Platform) -> Iterator[Breach | None]:
    """Check that every layer that retries an edge has a budget."""
    for edge, layer in _layers(platform):
        text = f"{layer.name} makes up to {layer.attempts} attempts of a call and has no retry budget"
        field = f"{edge.path}: retry, enforced by a layer with a budget"
        found = Breach(edge.path, text, field, "", edge.call.location)
        # A saga needs no budget, because one process makes its attempts and the wait between them grows. A fallback
        # sends the request to another model, so it adds no load to the failed one.
        yield found if layer.budget is None and layer.name not in {SAGA, FALLBACK} else None


def retries_are_idempotent(platform: Platform) -> Iterator[Breach | None]:
    """Check that no layer repeats a non-idempotent call, unless the request was never sent."""
    for edge, layer in _layers(platform):
        # A fallback sends the request to another model, so it repeats no call. Rule M06 reports its cost.
        if layer.name != FALLBACK:
            unsafe = sorted(set(layer.conditions) - {"connection_failed"})
            text = f"{layer.name} makes {layer.attempts} attempts on {', '.join(unsafe)}"
            text = f"{text}, but the call is not idempotent and has no idempotency key"
            found = Breach(edge.path, text, _field(edge, layer), "0, or an idempotency key", edge.call.location)
            yield found if edge.call.idempotency == "never" and unsafe else None


def retry_conditions_are_transient(platform: Platform) -> Iterator[Breach | None]:
    """Check that every condition of a retry is a transient outcome."""
    for edge, retry in _retrying(platform):
        permanent = sorted(set(retry.conditions) - TRANSIENT)
        text = f"{retry.max_attempts} attempts on {', '.join(permanent)}: each attempt has the same outcome"
        kept = ", ".join(each for each in retry.conditions if each in TRANSIENT) or "no retry"
        found = Breach(edge.path, text, f"{edge.path}: retry.conditions", kept, edge.call.location)
        yield found if permanent else None


def backoffs_have_jitter(platform: Platform) -> Iterator[Breach | None]:
    """Check that backoffs are random."""
    for edge, retry in _retrying(platform):
        if enforcer(edge, "retry") == "gateway":
            why = "the gateway retries immediately, without a backoff"
        elif not retry.base_delay:
            why = f"base_delay {retry.base_delay}: every client retries at the same moment"
        else:
            yield None
            continue
        yield Breach(edge.path, why, f"{edge.path}: retry.base_delay", "100ms", edge.call.location)
    for edge in platform.graph.edges:
        for client in client_retries(edge):
            text = f"{client.library} makes its {1 + client.retries} attempts without random waits between them"
            found = Breach(edge.path, text, f"{edge.callee.name}.clients: retries", "0", edge.call.location)
            yield None if client.jitter else found


RULES = (
    Rule(
        id="R03",
        title="each layer makes few attempts of a call",
        severity="warning",
        rationale="a call that failed three times is likely to fail again, so more attempts only add load and delay",
        source="SRE book ch. 21; gRPC A6 (clients treat more than 5 attempts as 5)",
        violates="Retry(max_retries=3): 4 attempts > 3",
        holds="Retry(max_retries=2): 3 attempts",
        check=attempts_are_limited,
    ),
    Rule(
        id="R04",
        title="retries have a budget",
        severity="warning",
        rationale="without a budget, retries multiply the load on a failed callee for the whole outage",
        source="10% in SRE book ch. 21; 20% in Envoy, Istio and Gateway API",
        violates="the gateway retries a route, and APISIX has no retry budget",
        holds="a service retries, with RetryBudget(ratio=10%)",
        check=retries_have_a_budget,
    ),
    Rule(
        id="R06",
        title="only idempotent calls are retried",
        severity="error",
        rationale="an attempt that timed out may have done its work, and a second attempt does the work again",
        source="istio#50506 (double payouts); gRPC A6",
        violates='hard("store.write", "never", retry=Retry()) retries on unavailable and attempt_timeout',
        holds='the same call, if "connection_failed" is its only condition or it has an idempotency key',
        check=retries_are_idempotent,
    ),
    Rule(
        id="R07",
        title="only transient outcomes are retried",
        severity="error",
        rationale="an invalid request stays invalid, so its retries only add load",
        source="dapr#4568; AWS REL05-BP03",
        violates="a retry on INVALID_ARGUMENT or HTTP 400, which the typed conditions cannot name",
        holds="a retry on unavailable, attempt_timeout, connection_failed, resource_exhausted or aborted",
        check=retry_conditions_are_transient,
    ),
    Rule(
        id="R08",
        title="backoffs are random and bounded",
        severity="warning",
        rationale="clients that wait equally long all retry at the same moment, and overload the callee again",
        source="SRE book ch. 22; AWS Architecture Blog, Exponential Backoff and Jitter",
        violates="Retry(base_delay=0s), which retries immediately",
        holds="Retry(base_delay=100ms, max_delay=10s), with full jitter",
        check=backoffs_have_jitter,
    ),
)
