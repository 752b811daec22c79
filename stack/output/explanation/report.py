"""An explanation as text and JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from voice_policies import Adaptive, Bulkhead, CircuitBreaker, RateLimit, Retry, TokenBucket

from components.files import file_text
from components.node import Gateway
from stack.audit.retries import FALLBACK, layers
from stack.output.explanation import DeclaredCall, Explanation
from stack.output.explanation.connection import Step
from stack.output.explanation.model_route import route_rows
from stack.output.explanation.permission import Permission

__all__ = ["REPORTS"]

Row = tuple[str, str]


def text(explanation: Explanation) -> str:
    """The verdict, the policies of each call, the steps of the connection, and the line that would permit the call."""
    lines = [_verdict(explanation)]
    for call in explanation.calls:
        lines += ["", f"{call.edge.path.strip()} ({call.edge.source})", *_table(_policies(call))]
    if explanation.connection:
        lines += ["", "connection", *_table(map(_step, explanation.connection))]
    if explanation.permission:
        lines += ["", *_permission(explanation.permission)]
    return "\n".join(lines)


def _verdict(explanation: Explanation) -> str:
    pair, where = f"{explanation.caller} → {explanation.callee}", f"in {explanation.environment}"
    if explanation.permitted:
        return f"{pair}: permitted {where}"
    if explanation.permission is None and explanation.broken:
        return f"{pair}: declared, but the connection fails {where}: {explanation.broken.text}"
    path = f"; the shortest declared path is {' → '.join(explanation.through)}" if explanation.through else ""
    return f"{pair}: not permitted {where}: no call is declared{path}"


def _table(rows: Iterator[Row]) -> Iterator[str]:
    found = list(rows)
    width = max(len(name) for name, _ in found) + 2
    return (f"  {name:<{width}}{value}" for name, value in found)


def _step(step: Step) -> Row:
    return step.title, step.text if step.holds else f"BROKEN: {step.text}"


def _policies(call: DeclaredCall) -> Iterator[Row]:
    """The properties of one call and its policies, one row each.

    The row of a retry, timeout, circuit breaker or bulkhead ends with the layer that enforces it.
    """
    policy, by = call.policy, call.policy.enforced_by
    yield "call", f"{policy.necessity}, {policy.idempotency}"
    yield from route_rows(call.edge)
    if not call.edge.route:
        yield "retry", f"{_retry(policy.retry)}, by {by.retry}" if policy.retry else "1 attempt"
    for layer in layers(call.edge):
        if layer.name not in {by.retry, FALLBACK}:
            yield "retry", f"{layer.attempts} attempts, by {layer.name}"
    attempt = f", by {by.attempt_timeout}" if by.attempt_timeout else ""
    if not call.edge.route:
        yield (
            "timeout",
            f"{policy.timeout.attempt} an attempt{attempt}; {policy.timeout.overall} in all, by {by.timeout}",
        )
    shorter = ", or the caller's remaining time if that is shorter" if call.edge.propagates_deadline else ""
    yield "deadline", f"{call.edge.target.deadline} at the callee{shorter}"
    if policy.circuit_breaker:
        yield "circuit breaker", f"{_breaker(policy.circuit_breaker)}, by {by.circuit_breaker}"
    elif call.edge.circuit_breaker:
        yield "circuit breaker", "declared, but only the mesh could enforce it, and the mesh is off"
    yield "degradation", policy.fallback or "none: the operation fails without the call"
    if policy.bulkhead:
        yield "bulkhead", f"{_bulkhead(policy.bulkhead)} at the caller, by {by.bulkhead}"
    if call.inbound and call.inbound.bulkhead:
        yield "bulkhead", f"{_bulkhead(call.inbound.bulkhead)} at the callee, by runtime"
    limits = {
        "gateway": call.edge.operation.rate_limits if isinstance(call.edge.caller, Gateway) else (),
        "callee": call.inbound.rate_limits if call.inbound else (),
    }
    for place, found in limits.items():
        yield from (("rate limit", f"{_limit(limit)}, at the {place}") for limit in found)


def _retry(retry: Retry) -> str:
    waits = f"{retry.base_delay} × {retry.multiplier:g} ≤ {retry.max_delay}"
    return f"{retry.max_attempts} attempts on {', '.join(retry.conditions)}; wait {waits}; budget {retry.budget.ratio}"


def _breaker(breaker: CircuitBreaker) -> str:
    window = f"of {breaker.minimum_throughput} calls or more in {breaker.sampling_duration}"
    opens = {
        f"{breaker.consecutive_failures} failures in a row": breaker.consecutive_failures,
        f"{breaker.failure_ratio} failures {window}": breaker.failure_ratio,
        f"{breaker.slow_call_ratio} slow calls (≥ {breaker.slow_call_duration}) {window}": breaker.slow_call_ratio,
    }
    after = " or ".join(condition for condition, value in opens.items() if value is not None)
    probes = f"{breaker.success_threshold} of {breaker.half_open_max_requests} probes close it"
    return f"opens after {after}, for {breaker.break_duration}; {probes}"


def _bulkhead(bulkhead: Bulkhead) -> str:
    queue = f" and {bulkhead.max_queue} waiting up to {bulkhead.queue_timeout}" if bulkhead.max_queue else ""
    return f"{bulkhead.max_concurrent} calls at the same time{queue}"


def _limit(limit: RateLimit) -> str:
    rate = limit.limit
    if isinstance(rate, TokenBucket):
        amount = f"{rate.rate}, burst {rate.burst}"
    elif isinstance(rate, Adaptive):
        amount = f"{rate.min_rate} to {rate.max_rate} by error ratio {rate.error_ratio}"
    else:
        amount = f"{rate.limit} in {rate.window}"
    each = "" if limit.key == "none" else f" for each {limit.key}"
    return f"{amount}{each}, {'all replicas together' if limit.scope == 'distributed' else 'each replica'}"


def _permission(change: Permission) -> Iterator[str]:
    where = f" ({change.where})" if change.where else ""
    if change.line:
        yield f"one line in {change.into}{where} would permit the call:"
        yield f"  {change.line}"
    for reason in change.refused:
        refusal = "the platform would refuse the line" if change.line else "no line can permit the call"
        yield f"{refusal}: {reason}"
    for finding in change.found:
        yield f"the audit would then find {finding.rule}: {finding.path}: {finding.arithmetic}"


def as_json(explanation: Explanation) -> str:
    """The complete explanation. Policies have the form of the policy bundle."""
    change = explanation.permission
    return file_text(
        {
            "environment": explanation.environment,
            "caller": explanation.caller,
            "callee": explanation.callee,
            "permitted": explanation.permitted,
            "broken": explanation.broken.title if explanation.broken else None,
            "calls": [_call_document(call) for call in explanation.calls],
            "connection": [step._asdict() for step in explanation.connection],
            "through": list(explanation.through),
            "permission": _permission_document(change) if change else None,
        }
    ).rstrip()


def _call_document(call: DeclaredCall) -> dict[str, Any]:
    return {
        "path": call.edge.path,
        "declared_in": call.edge.source,
        "outbound": call.policy.model_dump(mode="json", exclude_none=True),
        "route": call.edge.route.model_dump(mode="json", exclude_none=True) if call.edge.route else None,
        "inbound": call.inbound.model_dump(mode="json", exclude_none=True) if call.inbound else None,
    }


def _permission_document(change: Permission) -> dict[str, Any]:
    return {
        "line": change.line,
        "into": change.into,
        "declared_in": str(change.where) if change.where else None,
        "refused": list(change.refused),
        "findings": [{"rule": each.rule, "path": each.path, "arithmetic": each.arithmetic} for each in change.found],
    }


REPORTS: dict[str, Callable[[Explanation], str]] = {"text": text, "json": as_json}
