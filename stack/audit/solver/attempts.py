"""Attempts: as many as the rules on retries permit, and never more than the catalogue declares.

`retries` passes over the graph twice. Each pass takes time linear in the number of edges. The first pass goes from the
callers to the callees. It multiplies the attempts that saga steps and model routes make. The solver never changes these
attempts. The second pass goes from the callees to the callers. Each call keeps as many of its attempts as the product
along the worst path permits. So the last calls of a path keep their attempts first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import date

from voice_policies import Duration, Retry, RetryCondition

from components.node import Dependency
from stack.audit.breakers import ONE_STATUS, repeats_ejections
from stack.audit.library_defaults import DEFAULTS
from stack.audit.retries import (
    BUDGETED,
    SEEN_BY_CALLERS,
    SPOKEN,
    WARN_ATTEMPTS,
    attempts,
    is_interior,
    loads_and_capacities,
)
from stack.audit.retry_policies import WARN_ATTEMPTS as WARN_ATTEMPTS_OF_A_LAYER
from stack.audit.solver.constraint import Constraint
from stack.audit.solver.values import PolicyKey, Values, policy_of
from stack.model.call_graph import Edge, OperationKey
from stack.model.enforcement import enforcer
from stack.model.platform import Platform

BACKOFF = Duration("100ms")
"""First delay of a retry that declares no delay (the platform's default)."""
OTHERS_REPEAT: RetryCondition = "unavailable"
"""The failure for which the solver counts the attempts of saga steps and model routes. Every failure gives the same
number, because both retry after every kind of failure."""


def clients(platform: Platform) -> Values:
    """Turn off the retries of client libraries, because the libraries enforce no retry budget."""
    values = Values()
    for node in platform.graph.nodes.values():
        for client in node.clients if isinstance(node, Dependency) else ():
            if client.retries or (client.retries is None and client.library in DEFAULTS):
                values.clients[node.name, client.library]["retries"] = 0
    return values


def retries(platform: Platform, *, on: date) -> Values:
    """The retry of each call. If calls share a policy, the call with the fewest permitted attempts decides."""
    graph, above = platform.graph, _repeated_by_others(platform)
    weights: dict[RetryCondition, dict[OperationKey, float]] = {failure: {} for failure in SPOKEN}
    interior: dict[OperationKey, bool] = {}
    fewest: dict[PolicyKey, Retry | None] = {}
    edges = [edge for run in graph.bottom_up for edge in run.edges]
    for run in graph.bottom_up:
        chosen = []
        for edge in run.edges:
            behind = {failure: found[edge.key] for failure, found in weights.items()}
            most = WARN_ATTEMPTS / above[run.key]
            kept = _kept(edge, _permitted(platform, edge, on), behind, most, alone=not interior[edge.key])
            chosen.append(kept)
            known = fewest.setdefault(policy_of(edge), kept.call.retry)
            fewest[policy_of(edge)] = min((known, kept.call.retry), key=_attempts)
        for failure, found in weights.items():
            found[run.key] = max((_weight(edge, failure, found[edge.key]) for edge in chosen), default=1)
        interior[run.key] = any(is_interior(edge) or interior[edge.key] for edge in chosen)
    values = Values()
    for edge in edges:
        if edge.call.retry != fewest[policy_of(edge)]:
            values.set_call(edge, retry=fewest[policy_of(edge)])
    return values


def relief(platform: Platform) -> Values:
    """Rule R10: if retries overload a service, remove the retries of interior hops on the paths to this service."""
    graph, values = platform.graph, Values()
    tired = {service.name for service, load, capacity in loads_and_capacities(platform) if load.with_retries > capacity}
    reaches: dict[OperationKey, bool] = {}
    for run in graph.bottom_up:
        reaches[run.key] = run.node.name in tired or any(reaches[edge.key] for edge in run.edges)
        for edge in run.edges:
            if is_interior(edge) and reaches[edge.key]:
                values.set_call(edge, retry=None)
    return values


def infeasible(platform: Platform) -> Iterator[Constraint]:
    """The bounds that stay exceeded after the solver has removed retries. `platform` has the solved values."""
    for service, (_, load), capacity in loads_and_capacities(platform):
        if load > capacity:
            needed = f"a maximum of {-int(-load // service.capacity.per_second)} replicas"
            why = f"{load:.4g}/s offered without retries > {capacity:g}/s"
            yield Constraint(
                "R10", service.name, f"{capacity:g}/s", needed, why, "replicas or capacity", service.location
            )
    above = _repeated_by_others(platform)
    for run in platform.graph.bottom_up:
        if not run.edges and above[run.key] > WARN_ATTEMPTS:
            why = f"saga steps and model routes alone make {above[run.key]:g} attempts"
            path = f"{run.node.name}.{run.operation.name}"
            needed = f"{above[run.key]:g} attempts"
            yield Constraint(
                "R01",
                path,
                f"{WARN_ATTEMPTS} attempts",
                needed,
                why,
                "max_attempts of a step or route",
            )


def _attempts(retry: Retry | None) -> int:
    return retry.max_attempts if retry else 1


def _with_retry(edge: Edge, retry: Retry | None) -> Edge:
    return replace(edge, call=edge.call.model_copy(update={"retry": retry}))


def _repeated_by_others(platform: Platform) -> dict[OperationKey, float]:
    """Operation → the attempts that saga steps and model routes make on the worst path to it."""
    above: dict[OperationKey, float] = defaultdict(lambda: 1.0)
    for run in reversed(platform.graph.bottom_up):
        for edge in run.edges:
            once = attempts(_with_retry(edge, None), OTHERS_REPEAT)
            above[edge.key] = max(above[edge.key], above[run.key] * once)
    return above


def _permitted(platform: Platform, edge: Edge, on: date) -> Retry | None:
    """The call's retry, reduced to what the rules on a single call permit. `None` if they permit no retry."""
    retry = edge.call.retry
    if not retry or enforcer(edge, "retry") not in BUDGETED:
        return None
    if edge.call.idempotency == "never" and set(retry.conditions) != {"connection_failed"}:
        return None
    update: dict[str, object] = {"max_retries": min(retry.max_retries, WARN_ATTEMPTS_OF_A_LAYER - 1)}
    if not retry.base_delay:
        update |= {"base_delay": BACKOFF, "max_delay": max(BACKOFF, retry.max_delay)}
    mesh = platform.environment.settings.mesh
    if repeats_ejections(edge, retry, mesh=mesh) and not _accepted(platform, "C05", edge, on):
        update["conditions"] = tuple(each for each in retry.conditions if each not in ONE_STATUS)
    permitted = retry.model_copy(update=update)
    return permitted if permitted.max_retries and permitted.conditions else None


def _accepted(platform: Platform, rule: str, edge: Edge, on: date) -> bool:
    environment = platform.environment
    accepted = (*environment.profile.accepted_findings, *environment.settings.accepted_findings)
    return any((entry.rule, entry.path) == (rule, edge.path) and entry.expires >= on for entry in accepted)


def _kept(edge: Edge, retry: Retry | None, behind: dict[RetryCondition, float], most: float, *, alone: bool) -> Edge:
    """The call with as many attempts as `most` permits.

    `alone` is true if no later interior hop retries. Otherwise an interior hop makes no retry.
    """
    if retry:
        for number in range(retry.max_retries, 0, -1):
            tried = _with_retry(edge, retry.model_copy(update={"max_retries": number}))
            fits = all(_weight(tried, failure, weight) <= most for failure, weight in behind.items())
            if fits and (alone or not is_interior(tried)):
                return tried
    return _with_retry(edge, None)


def _weight(edge: Edge, failure: RetryCondition, behind: float) -> float:
    """Attempts at the last hop of the worst path that begins with this call."""
    return max(attempts(edge, failure), attempts(edge, SEEN_BY_CALLERS[failure]) * behind)
