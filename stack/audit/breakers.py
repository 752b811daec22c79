"""C01 to C04: circuit breakers that open too easily, never open, or stay open for the wrong time.

C05: retries of calls that an open breaker has refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from voice_policies import CircuitBreaker, Retry, RetryCondition

from components.node import Service
from stack.audit.finding import Breach, Rule, Severity
from stack.model.call_graph import Edge, OperationKey
from stack.model.enforcement import enforcer, in_force
from stack.model.load import calls_per_run, executions
from stack.model.platform import Platform

SAFE_REQUESTS = 2
"""A breaker must stay closed after this many failed requests. They may have failed by coincidence."""
SHORTEST_WINDOW = 2
"""Shortest sampling window, as a multiple of the attempt timeout (.NET refuses a shorter sampling duration)."""
LONGEST_BREAK = 10
"""Longest break, as a multiple of the callee's restart time."""
ONE_STATUS = frozenset({"unavailable", "connection_failed"})
"""gRPC reports both conditions as UNAVAILABLE, so a call must retry both or neither."""


def _breakers(platform: Platform) -> Iterator[tuple[Edge, CircuitBreaker]]:
    for edge in platform.graph.edges:
        if breaker := edge.circuit_breaker:
            yield edge, breaker


def threshold_exceeds_attempts(platform: Platform) -> Iterator[Breach | None]:
    """Compare the threshold of consecutive failures with the attempts of one request."""
    for edge, breaker in _breakers(platform):
        threshold, attempts = breaker.consecutive_failures, edge.call.max_attempts
        if threshold is None:
            continue
        if threshold > SAFE_REQUESTS * attempts:
            yield None
            continue
        severity: Severity = "error" if threshold <= attempts else "warning"
        text = (
            f"{threshold} consecutive failures open the breaker,"
            f" ≤ {SAFE_REQUESTS} failed requests × {attempts} attempts"
        )
        field = f"{edge.path}: circuit_breaker.consecutive_failures"
        yield Breach(edge.path, text, field, str(SAFE_REQUESTS * attempts + 1), edge.call.location, severity)


def throughput_is_reached(platform: Platform) -> Iterator[Breach | None]:
    """If a breaker has only ratios, compare its minimum throughput with one replica's calls in the window."""
    rates = executions(platform.graph)
    for edge, breaker in _breakers(platform):
        # A threshold of consecutive failures needs no minimum throughput. Every default breaker has such a threshold.
        if breaker.consecutive_failures is not None:
            continue
        rate, replicas = call_rate(platform, edge, rates)
        if not rate:
            continue
        calls = rate * breaker.sampling_duration.seconds / replicas
        text = (
            f"{rate:.4g}/s × {breaker.sampling_duration} ÷ {replicas} replicas = {calls:.4g} calls"
            f" < minimum_throughput {breaker.minimum_throughput}: the breaker never opens"
        )
        field = f"{edge.path}: circuit_breaker.minimum_throughput"
        found = Breach(edge.path, text, field, str(max(1, int(calls))), edge.call.location)
        yield found if calls < breaker.minimum_throughput else None


def call_rate(platform: Platform, edge: Edge, rates: Mapping[OperationKey, float]) -> tuple[float, int]:
    """Calls per second over all replicas of the caller, and the caller's minimum number of replicas."""
    load = rates[edge.caller.name, edge.operation.name] * platform.environment.profile.load_share
    each = dict(calls_per_run(edge.operation))[edge.call]
    replicas = platform.environment.replicas(edge.caller).min if isinstance(edge.caller, Service) else 1
    return load * each, replicas


def window_holds_attempts(platform: Platform) -> Iterator[Breach | None]:
    """If a breaker has a ratio, compare its sampling window with the timeout of an attempt."""
    for edge, breaker in _breakers(platform):
        if breaker.failure_ratio is None and breaker.slow_call_ratio is None:
            continue
        least = edge.attempt_timeout * SHORTEST_WINDOW
        text = f"window {breaker.sampling_duration} < {SHORTEST_WINDOW} × {edge.attempt_timeout}, an attempt's timeout"
        field = f"{edge.path}: circuit_breaker.sampling_duration"
        found = Breach(edge.path, text, field, str(least), edge.call.location)
        yield found if breaker.sampling_duration < least else None


def break_covers_a_restart(platform: Platform) -> Iterator[Breach | None]:
    """Compare the break duration of each breaker with the restart time of its callee."""
    for edge, breaker in _breakers(platform):
        restart, opened = edge.callee.restart, breaker.break_duration
        if restart <= opened <= restart * LONGEST_BREAK:
            yield None
            continue
        why = (
            f"{opened} < {restart}: the breaker's probes fail until {edge.callee.name} has restarted"
            if opened < restart
            else f"{opened} > {LONGEST_BREAK} × {restart}: the breaker stays open long after {edge.callee.name} is back"
        )
        field = f"{edge.path}: circuit_breaker.break_duration, or {edge.callee.name}.restart"
        yield Breach(edge.path, why, field, str(restart), edge.call.location)


def retries_respect_breakers(platform: Platform) -> Iterator[Breach | None]:
    """Check that no retry repeats a call that an open breaker has refused."""
    mesh = platform.environment.settings.mesh
    for edge, _ in _breakers(platform):
        retry = edge.call.retry
        if retry is None or not retry.max_retries:
            continue
        strange = sorted(set(retry.conditions) - set(get_args(RetryCondition)))
        if any("circuit" in condition or "breaker" in condition for condition in strange):
            text = f"{', '.join(strange)} is retried up to {retry.max_retries} times"
            refused: frozenset[str] = frozenset(strange)
        elif repeats_ejections(edge, retry, mesh=mesh):
            text = (
                f"grpc retries UNAVAILABLE up to {retry.max_retries} times, and the mesh answers UNAVAILABLE"
                " when its breaker has ejected every endpoint"
            )
            refused = ONE_STATUS
        else:
            yield None
            continue
        kept = ", ".join(each for each in retry.conditions if each not in refused) or "no retry"
        yield Breach(edge.path, text, f"{edge.path}: retry.conditions", kept, edge.call.location)


def repeats_ejections(edge: Edge, retry: Retry, *, mesh: bool) -> bool:
    """True if gRPC retries UNAVAILABLE, and the mesh enforces the breaker.

    The mesh answers UNAVAILABLE when its breaker has ejected every endpoint.
    """
    by_mesh = enforcer(edge, "retry") == "grpc" and in_force(edge, "circuit_breaker", mesh=mesh) == "mesh"
    return by_mesh and "unavailable" in retry.conditions


RULES = (
    Rule(
        id="C01",
        title="one or two failed requests do not open a circuit breaker",
        severity="error",
        rationale="a breaker counts every attempt of a request, so one bad request can open it for all requests",
        source="resilience4j, order of decorators; Polly, Retry around CircuitBreaker",
        violates="3 attempts, and a breaker that opens after 3 consecutive failures",
        holds="3 attempts, and a breaker that opens after 7 consecutive failures",
        check=threshold_exceeds_attempts,
    ),
    Rule(
        id="C02",
        title="a circuit breaker sees enough calls to open",
        severity="error",
        rationale="below its minimum throughput a breaker never opens, however many calls fail",
        source="resilience4j: minimumNumberOfCalls 100 of slidingWindowSize 100",
        violates="1/s × 30s ÷ 2 replicas = 15 calls, and a minimum throughput of 20",
        holds="the same calls with a minimum throughput of 15",
        check=throughput_is_reached,
    ),
    Rule(
        id="C03",
        title="a sampling window lasts at least two attempt timeouts",
        severity="error",
        rationale="a call counts when it ends; a shorter window may hold too few timed-out calls to open the breaker",
        source=".NET resilience, HttpStandardResilienceOptions validation",
        violates="a window of 1s, and an attempt timeout of 600ms",
        holds="a window of 1200ms, and the same attempt timeout",
        check=window_holds_attempts,
    ),
    Rule(
        id="C04",
        title="a circuit breaker stays open at least while its callee restarts, and not much longer",
        severity="warning",
        rationale="after a shorter break the probes fail; a longer break refuses calls that would succeed",
        source="the declared times of restart and failover",
        violates="a break of 14s for a service that restarts in 15s",
        holds="a break of 15s for the same service",
        check=break_covers_a_restart,
    ),
    Rule(
        id="C05",
        title="no retry repeats a call that an open circuit breaker has refused",
        severity="error",
        rationale="a retry on a refusal by the breaker turns a quick refusal into a slow one",
        source="Polly, Retry around CircuitBreaker: BrokenCircuitException is not handled",
        violates="grpc retries UNAVAILABLE, and the mesh's breaker answers UNAVAILABLE",
        holds="the runtime enforces retry and breaker, and its retry does not repeat a refusal by the breaker",
        check=retries_respect_breakers,
    ),
)
