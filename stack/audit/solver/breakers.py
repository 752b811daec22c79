"""Circuit breakers: change the declared thresholds, windows and breaks as little as the C rules require."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from voice_policies import CircuitBreaker, Duration

from components.node import Service
from stack.audit.breakers import LONGEST_BREAK, SAFE_REQUESTS, SHORTEST_WINDOW, call_rate
from stack.audit.solver.values import PolicyKey, Values, policy_of
from stack.model.call_graph import Edge, OperationKey
from stack.model.load import executions
from stack.model.platform import Platform


def breakers(platform: Platform) -> Values:
    """The breaker of each call. Calls that share a breaker get one breaker that satisfies the rules for all of them."""
    groups: dict[PolicyKey, list[tuple[Edge, CircuitBreaker]]] = defaultdict(list)
    for run in platform.graph.bottom_up:
        for edge in run.edges:
            if breaker := edge.circuit_breaker:
                groups[_breaker_of(edge)].append((edge, breaker))
    rates, values = executions(platform.graph), Values()
    for members in groups.values():
        breaker = members[0][1]
        fitting = _with_throughput(platform, members, rates, _fitting([edge for edge, _ in members], breaker))
        for edge, known in members:
            if known != fitting:
                values.set_call(edge, circuit_breaker=fitting)
    return values


def _breaker_of(edge: Edge) -> PolicyKey:
    """The key of a call's breaker. For the calls of a Go service the mesh has the breakers, one for each callee."""
    if isinstance(edge.caller, Service) and edge.caller.language == "go":
        return edge.caller.name, edge.callee.name
    return policy_of(edge)


def _fitting(edges: list[Edge], breaker: CircuitBreaker) -> CircuitBreaker:
    """Raise the threshold above the attempts of two requests (C01), and the window to two attempt timeouts (C03).

    The break becomes at least as long as one restart of the callee, and at most as long as ten restarts (C04).
    """
    attempts = max(edge.call.max_attempts for edge in edges)
    restart = edges[0].callee.restart
    pause = min(max(breaker.break_duration, restart), restart * LONGEST_BREAK)
    update: dict[str, object] = {"break_duration": pause, "max_break_duration": max(breaker.max_break_duration, pause)}
    if breaker.consecutive_failures is not None:
        update["consecutive_failures"] = max(breaker.consecutive_failures, SAFE_REQUESTS * attempts + 1)
    if breaker.failure_ratio is not None or breaker.slow_call_ratio is not None:
        window = max(edge.attempt_timeout for edge in edges) * SHORTEST_WINDOW
        update["sampling_duration"] = max(breaker.sampling_duration, window)
    return breaker.model_copy(update=update)


def _with_throughput(
    platform: Platform,
    members: list[tuple[Edge, CircuitBreaker]],
    rates: Mapping[OperationKey, float],
    breaker: CircuitBreaker,
) -> CircuitBreaker:
    """Lower the minimum throughput so that every call reaches it (C02).

    If less than one request of the least frequent call arrives in the window, lengthen the window.
    """
    if breaker.consecutive_failures is not None:
        return breaker
    arriving = (call_rate(platform, edge, rates) for edge, _ in members)
    slowest = min((rate / replicas for rate, replicas in arriving if rate), default=None)
    if slowest is None:
        return breaker
    window = breaker.sampling_duration
    if slowest * window.seconds < 1:
        window = Duration(f"{math.ceil(1 / slowest)}s")
    throughput = min(breaker.minimum_throughput, max(int(slowest * window.seconds), 1))
    return breaker.model_copy(update={"sampling_duration": window, "minimum_throughput": throughput})
