"""R01, R02, R05: retries multiply the attempts along a path. R10: a service serves its load with retries.

A hop retries only some outcomes. So the rules compute the attempts on a path for each failure of the last hop.
Earlier hops may see another outcome. For example, a callee that cannot connect to its own callee answers `unavailable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from voice_policies import RetryCondition

from components.node import Service
from stack.audit.finding import Breach, Rule, Severity
from stack.audit.library_defaults import client_retries
from stack.model.call_graph import CallGraph, Edge, OperationKey, Run
from stack.model.enforcement import enforcer
from stack.model.load import by_node, executions
from stack.model.platform import Platform

__all__ = ["FALLBACK", "layers"]

WARN_ATTEMPTS = 5
"""R01 warns if a path makes more attempts."""
MAX_ATTEMPTS = 10
"""R01 reports an error if a path makes more attempts."""
Path = tuple[Edge, ...]
SEEN_BY_CALLERS: dict[RetryCondition, RetryCondition] = {
    "connection_failed": "unavailable",
    "attempt_timeout": "attempt_timeout",
    "unavailable": "unavailable",
    "resource_exhausted": "resource_exhausted",
}
"""Failure of a callee's own call → the outcome that the caller sees. A timeout is a timeout at every hop."""
SPOKEN: dict[RetryCondition, str] = {
    "connection_failed": "cannot be reached",
    "attempt_timeout": "times out",
    "unavailable": "answers 5xx",
    "resource_exhausted": "answers 429",
}
"""Failure of the last hop → the failure in words, for findings."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer that retries the calls of an edge."""

    name: str
    attempts: int
    conditions: tuple[RetryCondition, ...]
    budget: float | None
    """Retries per call that the retry budget permits while the callee stays down. `None`: the layer has no budget."""

    def sustained(self) -> float:
        """Attempts per call while the callee stays down."""
        return self.attempts if self.budget is None else min(self.attempts, 1 + self.budget)


FALLBACK = "model fallback"
"""Layer that tries the candidates of a model route in turn. It has no retry budget, because each candidate has its
own quota."""
SAGA = "saga"
"""Layer that repeats a step of a saga."""
BUDGETED = {"runtime", "grpc"}
"""Layers that enforce a retry budget. The gateway and the client libraries do not."""


def layers(edge: Edge) -> Iterator[Layer]:
    """Every layer that retries a call.

    The layers are the enforcer of the call's retry policy, the model route, client libraries, and the saga step.
    """
    retry, layer = edge.call.retry, enforcer(edge, "retry")
    if retry and retry.max_retries:
        budget = float(retry.budget.ratio) if layer in BUDGETED else None
        yield Layer(layer or "the policy", retry.max_attempts, retry.conditions, budget)
    if edge.route and edge.route.fallback.max_attempts > 1:
        yield Layer(FALLBACK, edge.route.fallback.max_attempts, tuple(SEEN_BY_CALLERS), None)
    for client in client_retries(edge):
        yield Layer(client.library, 1 + client.retries, client.conditions, None)
    # Compensations do not count, because the wait between their attempts grows.
    steps = [step for saga in edge.operation.sagas for step in saga.steps if edge.call.name in step.calls]
    if (again := max((step.retry.max_attempts for step in steps), default=1)) > 1:
        yield Layer(SAGA, again, tuple(SEEN_BY_CALLERS), None)


def attempts(edge: Edge, failure: RetryCondition) -> int:
    """Attempts of one call over all layers, if the callee fails with `failure`."""
    return prod(layer.attempts for layer in layers(edge) if failure in layer.conditions)


def sustained(edge: Edge, failure: RetryCondition) -> float:
    """Attempts per call while the failure lasts."""
    return prod(layer.sustained() for layer in layers(edge) if failure in layer.conditions)


def _sustained_at_worst(edge: Edge) -> float:
    """`sustained` for the failure that causes the most attempts."""
    found = tuple(layers(edge))
    return max(prod(layer.sustained() for layer in found if failure in layer.conditions) for failure in SPOKEN)


class Worst(NamedTuple):
    """The heaviest path of an operation."""

    weight: float
    first: Edge | None
    """The first call of the path. `None` if the operation makes no calls."""
    ends: bool = True
    """True if the path ends after the first call."""


Weigh = Callable[[Edge, float], tuple[float, bool]]
"""Takes an edge, and the weight of the path behind its callee. Returns the weight of both together, and True if the
path ends after the edge."""


def heaviest(graph: CallGraph, weigh: Weigh) -> dict[OperationKey, Worst]:
    """Operation → its heaviest path. An operation without calls weighs 1."""
    found: dict[OperationKey, Worst] = {}
    for run in graph.bottom_up:
        worst = Worst(1, None)
        for edge in run.edges:
            weight, ends = weigh(edge, found[edge.key].weight)
            if worst.first is None or weight > worst.weight:
                worst = Worst(weight, edge, ends)
        found[run.key] = worst
    return found


def path_of(found: dict[OperationKey, Worst], key: OperationKey) -> Path:
    """The edges of an operation's heaviest path."""
    path: list[Edge] = []
    while edge := found[key].first:
        path.append(edge)
        if found[key].ends:
            break
        key = edge.key
    return tuple(path)


def _by_failure(
    graph: CallGraph, each: Callable[[Edge, RetryCondition], float]
) -> dict[RetryCondition, dict[OperationKey, Worst]]:
    """Failure of the last hop → the heaviest path of each operation."""
    # Most calls make only one attempt. Such a call does not change the weight of a path.
    repeated = {id(edge) for run in graph.bottom_up for edge in run.edges if any(layers(edge))}

    def weigh(failure: RetryCondition) -> Weigh:
        def of_edge(edge: Edge, behind: float) -> tuple[float, bool]:
            if id(edge) not in repeated:
                return behind, False
            # Either the callee itself fails, or it passes on the failure of its own callee.
            itself, passed = each(edge, failure), each(edge, SEEN_BY_CALLERS[failure]) * behind
            return max(itself, passed), itself > passed

        return of_edge

    return {failure: heaviest(graph, weigh(failure)) for failure in SPOKEN}


def _text(path: Path) -> str:
    first = f"{path[0].caller.name}.{path[0].operation.name}"
    return " → ".join([first, *(edge.call.name for edge in path)])


def _factors(path: Path, failure: RetryCondition, each: Callable[[Edge, RetryCondition], float]) -> str:
    *earlier, last = path
    factors = [*(each(edge, SEEN_BY_CALLERS[failure]) for edge in earlier), each(last, failure)]
    return " × ".join(f"{factor:g}" for factor in factors if factor > 1)


class Amplified(NamedTuple):
    """The heaviest path of an operation that nothing calls."""

    root: Run
    failure: RetryCondition
    """The failure of the last hop that causes the most attempts."""
    path: Path
    attempts: float


def amplified(graph: CallGraph) -> Iterator[Amplified]:
    """The worst-case attempts of every operation that nothing calls, over all layers."""
    found = _by_failure(graph, attempts)
    for root in graph.roots:
        failure = max(SPOKEN, key=lambda failure: found[failure][root.key].weight)
        yield Amplified(root, failure, path_of(found[failure], root.key), found[failure][root.key].weight)


def amplification(platform: Platform) -> Iterator[Breach | None]:
    """Find each path with more than `WARN_ATTEMPTS` attempts, over all layers."""
    for found in amplified(platform.graph):
        yield _too_many(found) if found.attempts > WARN_ATTEMPTS else None


def _too_many(found: Amplified) -> Breach:
    path, failure, most = found.path, found.failure, found.attempts
    retrying = next(edge for edge in path if any(layers(edge)))
    severity: Severity = "error" if most > MAX_ATTEMPTS else "warning"
    factors = _factors(path, failure, attempts)
    product = f"{factors} = {most:g}" if "×" in factors else factors
    text = f"{product} attempts > {WARN_ATTEMPTS} when {path[-1].call.target} {SPOKEN[failure]}"
    return Breach(_text(path), text, f"{retrying.path}: retry.max_retries", "0", retrying.call.location, severity)


def one_retrying_layer(platform: Platform) -> Iterator[Breach | None]:
    """Check that at most one layer retries each edge, and that a path has at most one retried call to a service.

    A saga that repeats a step does not count as a layer.
    """
    for run in platform.graph.bottom_up:
        for edge in run.edges:
            if counted := [layer for layer in layers(edge) if layer.name != SAGA]:
                yield _stacked(edge, counted) if len(counted) > 1 else None
    found = heaviest(platform.graph, lambda edge, behind: (is_interior(edge) + behind, False))
    for root in platform.graph.roots:
        path = path_of(found, root.key)
        hops = [edge for edge in path if is_interior(edge)]
        yield _several_hops(path, hops) if len(hops) > 1 else None


def is_interior(edge: Edge) -> bool:
    """True if the call is retried and its callee is a service, not a dependency at the end of the chain."""
    return edge.call.max_attempts > 1 and isinstance(edge.callee, Service)


def _stacked(edge: Edge, counted: list[Layer]) -> Breach:
    product = " × ".join(str(layer.attempts) for layer in counted)
    text = f"{' and '.join(layer.name for layer in counted)} retry the same call: {product} attempts"
    field = f"{edge.callee.name}.clients: retries, or {edge.path}: retry"
    return Breach(edge.path, text, field, "retries=0", edge.call.location, "error")


def _several_hops(path: Path, hops: list[Edge]) -> Breach:
    text = f"{len(hops)} calls to services are retried on this path: {'; '.join(edge.path for edge in hops)}"
    return Breach(_text(path), text, f"{hops[0].path}: retry", "None", hops[0].call.location)


def burst_and_sustained(platform: Platform) -> Iterator[Breach | None]:
    """Report the amplification of each operation without callers: in a burst, and sustained."""
    burst, lasting = _by_failure(platform.graph, attempts), _by_failure(platform.graph, sustained)
    for root in platform.graph.roots:
        products = [
            f"{burst[failure][root.key].weight:g} (sustained {lasting[failure][root.key].weight:.3g})"
            f" when this hop {spoken}"
            for failure, spoken in SPOKEN.items()
            if burst[failure][root.key].weight > 1
        ]
        text = f"attempts at the last hop: {'; '.join(products)}"
        path = f"{root.node.name}.{root.operation.name}"
        field = "retry.budget.ratio of the calls on the path"
        yield Breach(path, text, field, where=root.operation.location) if products else None


class ServiceLoad(NamedTuple):
    """Requests per second at one service in an environment."""

    offered: float
    """The load if each call makes one attempt."""
    with_retries: float
    """The load while all callees fail and every caller retries as often as its policies permit."""


def service_loads(platform: Platform) -> dict[str, ServiceLoad]:
    """Each service with its load."""
    graph, share = platform.graph, platform.environment.profile.load_share
    offered = by_node(executions(graph))
    repeated = by_node(executions(graph, _sustained_at_worst))
    return {
        service.name: ServiceLoad(offered[service.name] * share, repeated[service.name] * share)
        for service in graph.services
    }


def loads_and_capacities(platform: Platform) -> Iterator[tuple[Service, ServiceLoad, float]]:
    """Each service that has load, with its load and with its capacity in requests per second at maximum replicas."""
    loads = service_loads(platform)
    for service in platform.graph.services:
        if loads[service.name].with_retries:
            yield service, loads[service.name], service.capacity.per_second * platform.environment.replicas(service).max


def within_capacity(platform: Platform) -> Iterator[Breach | None]:
    """Compare each service's load under sustained retries with its capacity at maximum replicas."""
    for service, (offered, load), capacity in loads_and_capacities(platform):
        text = (
            f"{offered:.4g}/s offered, {load:.4g}/s with sustained retries > {service.capacity}"
            f" × {platform.environment.replicas(service).max} replicas = {capacity:g}/s"
        )
        needed = -int(-load // service.capacity.per_second)
        field = f"replicas.{service.name}: max, or its capacity"
        yield None if load <= capacity else Breach(service.name, text, field, f"max: {needed}", service.location)


RULES = (
    Rule(
        id="R01",
        title="attempts along a path stay few",
        severity="warning",
        rationale="every hop that retries multiplies the load on the last hop while the last hop is failing",
        source="CascadeGuard; SRE book ch. 22 (4³ = 64); AWS Builders' Library (3⁵ = 243)",
        violates="two hops of 3 attempts each: 3 × 3 = 9 attempts > 5",
        holds="one hop of 5 attempts",
        check=amplification,
    ),
    Rule(
        id="R02",
        title="at most one layer retries each edge, and a path has at most one retried call to a service",
        severity="warning",
        rationale="retries at several hops of a path multiply, and each hop repeats the work of all later hops",
        source="SRE book ch. 21; AWS REL05-BP03",
        violates="a → b and b → c are calls between services, and both are retried",
        holds="a → b makes one attempt, b → c is retried",
        check=one_retrying_layer,
    ),
    Rule(
        id="R05",
        title="the audit reports how much retries multiply calls, in a burst and sustained",
        severity="info",
        rationale="a hop makes A attempts per call until it has spent its retry budget B, and then min(A, 1 + B)",
        source="SRE book ch. 21",
        violates="any path that retries, such as 2 attempts in a burst and 1.1 sustained with a budget of 10%",
        holds="a path without retries",
        check=burst_and_sustained,
    ),
    Rule(
        id="R10",
        title="a service serves its load while its callers retry",
        severity="error",
        rationale="a callee does not recover by itself while its callers' retries keep it overloaded",
        source="the declared loads and capacities",
        violates="195/s × 1.1 = 214.5/s at a service of 50/s × 4 replicas = 200/s",
        holds="180/s × 1.1 = 198/s at the same service",
        check=within_capacity,
    ),
)
