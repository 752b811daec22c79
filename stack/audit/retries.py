"""R01, R02, R06: how attempts multiply, and what may be repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

from components.node import Node, Service
from components.operation import Operation
from stack.audit.finding import Breach, Rule, Severity
from stack.model.call_graph import CallGraph, Edge
from stack.model.platform import Platform

WARN_ATTEMPTS = 5
MAX_ATTEMPTS = 10
Path = tuple[Edge, ...]


def worst_paths(graph: CallGraph, weight: Callable[[Path], float]) -> Iterator[Path]:
    """For each operation that nobody calls, the path of calls from it that weighs most.

    `weight` must not fall when a heavier tail is put behind an edge: products and sums qualify. Each operation is
    solved once.
    """
    best: dict[tuple[str, str], Path] = {}

    def solve(node: Node, operation: Operation) -> Path:
        key = (node.name, operation.name)
        if key not in best:
            edges = (graph.edge(node, operation, call) for call in operation.calls)
            best[key] = max(((edge, *solve(edge.callee, edge.target)) for edge in edges), key=weight, default=())
        return best[key]

    called = {(edge.callee.name, edge.target.name) for edge in graph.edges}
    for node in graph.nodes.values():
        for operation in node.operations:
            if (node.name, operation.name) not in called and operation.calls:
                yield solve(node, operation)


def _attempts(path: Path) -> int:
    return _step_attempts(path) * prod(edge.call.max_attempts for edge in path)


def _step_attempts(path: Path) -> int:
    """Of the saga step that makes the path's first call. Compensations are left out: they wait longer each time."""
    sagas = path[0].operation.sagas if path else ()
    made = [step.retry.max_attempts for saga in sagas for step in saga.steps if path[0].call.name in step.calls]
    return max(made, default=1)


def _interior_retries(path: Path) -> int:
    return sum(edge.call.max_attempts > 1 and isinstance(edge.callee, Service) for edge in path)


def _text(path: Path) -> str:
    first = f"{path[0].caller.name}.{path[0].operation.name}"
    return " → ".join([first, *(edge.call.name for edge in path)])


def amplification(platform: Platform) -> Iterator[Breach | None]:
    """The product of attempts along every path."""
    for path in worst_paths(platform.graph, _attempts):
        attempts = _attempts(path)
        if attempts <= WARN_ATTEMPTS:
            yield None
            continue
        retrying = [edge for edge in path if edge.call.max_attempts > 1]
        factors = [_step_attempts(path), *(edge.call.max_attempts for edge in retrying)]
        product = " × ".join(str(factor) for factor in factors if factor > 1)
        severity: Severity = "error" if attempts > MAX_ATTEMPTS else "warning"
        field = f"{(retrying or path)[0].path}: retry.max_retries"
        yield Breach(
            _text(path),
            f"{product} = {attempts} attempts > {WARN_ATTEMPTS}",
            field,
            "0",
            path[0].call.location,
            severity,
        )


def one_retrying_layer(platform: Platform) -> Iterator[Breach | None]:
    """One layer an edge by construction (`enforced_by.retry` names one); one interior hop a path by this check."""
    for path in worst_paths(platform.graph, _interior_retries):
        hops = [edge.path for edge in path if edge.call.max_attempts > 1 and isinstance(edge.callee, Service)]
        yield (
            None
            if len(hops) <= 1
            else Breach(
                _text(path),
                f"{len(hops)} interior hops retry: {'; '.join(hops)}",
                f"{hops[0]}: retry",
                "None",
            )
        )


def repeatable(platform: Platform) -> Iterator[Breach | None]:
    """A call that may not be repeated retries only what provably never left."""
    for edge in platform.graph.edges:
        retry = edge.call.retry
        if retry is None or retry.max_retries == 0:
            continue
        unsafe = sorted(set(retry.conditions) - {"connection_failed"})
        yield (
            None
            if edge.call.idempotency != "never" or not unsafe
            else Breach(
                edge.path,
                f"{edge.call.max_attempts} attempts on {', '.join(unsafe)}; the call has no key and is not idempotent",
                f"{edge.call.name}.retry",
                "None, or an idempotency key",
            )
        )


RULES = (
    Rule(
        id="R01",
        title="attempts along a path stay few",
        severity="warning",
        rationale="every retrying hop multiplies the load on the last one, and does so while it is failing",
        source="CascadeGuard; SRE book ch. 22 (4³ = 64); AWS Builders' Library (3⁵ = 243)",
        violates="two hops of 3 attempts each: 3 × 3 = 9 attempts > 5",
        holds="one hop of 5 attempts",
        check=amplification,
    ),
    Rule(
        id="R02",
        title="one layer retries an edge, one interior hop a path",
        severity="warning",
        rationale="retries at several depths repeat each other's work; only one of them knows what is worth repeating",
        source="SRE book ch. 21; AWS REL05-BP03",
        violates="a → b and b → c are services, and both calls retry",
        holds="a → b makes one attempt, b → c retries",
        check=one_retrying_layer,
    ),
    Rule(
        id="R06",
        title="only what may be repeated is retried",
        severity="error",
        rationale="an attempt that timed out may have done its work: the second one does it again",
        source="istio#50506 (double payouts); gRPC A6",
        violates='hard("store.write", "never", retry=Retry()) retries on unavailable and attempt_timeout',
        holds='the same call with the condition "connection_failed" alone, or with an idempotency key',
        check=repeatable,
    ),
)
