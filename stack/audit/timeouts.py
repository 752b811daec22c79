"""T01 to T04: the timeouts, deadlines and latency objectives of callers fit those of their callees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter

from voice_policies import Duration

from components.node import Dependency, Node
from components.operation import Operation
from stack.audit.finding import Breach, Rule
from stack.model.call_graph import CallGraph, Edge
from stack.model.platform import Platform

__all__ = ["critical_path"]

ZERO = Duration("0s")
LONGEST_WAIT = 10
"""Longest useful wait, as a multiple of the callee's P95 objective. After this time an answer is unlikely."""


OfEdge = Callable[[Edge], Duration]


def worst_case(graph: CallGraph, node: Node, operation: Operation) -> Duration:
    """Longest time of an operation's calls with all attempts, or the deadline of a dependency's operation."""
    if isinstance(node, Dependency):
        return operation.deadline
    return longest(graph, node, operation, attrgetter("overall_timeout"))


def longest(graph: CallGraph, node: Node, operation: Operation, overall: OfEdge) -> Duration:
    """The sum over the stages: slowest call × maximum rounds. `overall` returns the longest time of a call."""
    slowest = (
        max(overall(graph.edge(node, operation, call)) for call in stage.calls) * stage.max_rounds
        for stage in operation.stages
    )
    return sum(slowest, ZERO)


def callers_wait_for_callees(platform: Platform) -> Iterator[Breach | None]:
    """Compare each caller's attempt timeout with its callee's worst case."""
    graph = platform.graph
    longest = {run.key: worst_case(graph, run.node, run.operation) for run in graph.bottom_up}
    for edge in graph.edges:
        worst = longest[edge.key]
        if edge.attempt_timeout >= worst:
            yield None
        elif edge.propagates_deadline:
            yield _holds_one_attempt(graph, edge)
        else:
            yield _too_short(edge, worst, "the callee's worst case; the deadline is not propagated on this edge")


def must_fit(graph: CallGraph, edge: Edge) -> Iterator[Edge]:
    """The hard calls of the callee of `edge`. One attempt of each must fit into the timeout of `edge`.

    Calls to models are left out. Their attempts end earlier, at the first-token timeout, so rule M03 checks them.
    """
    for call in edge.target.calls:
        inner = graph.edge(edge.callee, edge.target, call)
        if not call.soft and not inner.route:
            yield inner


def _holds_one_attempt(graph: CallGraph, edge: Edge) -> Breach | None:
    """A propagated deadline stops the callee in time. `edge` must allow one attempt of each hard call of the callee."""
    for inner in must_fit(graph, edge):
        if inner.attempt_timeout > edge.attempt_timeout:
            return _too_short(edge, inner.attempt_timeout, f"one attempt of {inner.path}")
    return None


def _too_short(edge: Edge, needed: Duration, why: str) -> Breach:
    field = f"{edge.path}: timeout, or the callee's deadline"
    return Breach(edge.path, f"timeout {edge.attempt_timeout} < {needed}, {why}", field, str(needed))


def deadlines_cover_calls(platform: Platform) -> Iterator[Breach | None]:
    """Compare each operation's own deadline with the worst case of its calls."""
    graph = platform.graph
    for node in graph.nodes.values():
        for operation in node.operations:
            if isinstance(node, Dependency) or not operation.stages:
                continue
            worst = worst_case(graph, node, operation)
            path = f"{node.name}.{operation.name}"
            yield (
                None
                if operation.deadline >= worst
                else Breach(
                    path,
                    f"deadline {operation.deadline} < {worst}, the worst case of its calls",
                    f"{path}.deadline",
                    str(worst),
                )
            )


def attempts_fit_the_deadline(platform: Platform) -> Iterator[Breach | None]:
    """Compare all attempts and waits of a retrying call with the deadline of its operation."""
    for edge in platform.graph.edges:
        retry, deadline = edge.call.retry, edge.operation.deadline
        if retry is None or not retry.max_retries:
            continue
        text = (
            f"{retry.max_attempts} × {edge.attempt_timeout} + {retry.longest_wait()} of backoff = "
            f"{edge.overall_timeout} > {deadline}, the operation's deadline"
        )
        field = f"{edge.path}: timeout or retry, or {edge.caller.name}.{edge.operation.name}.deadline"
        found = Breach(edge.path, text, field, str(edge.overall_timeout), edge.call.location)
        yield found if edge.overall_timeout > deadline else None


def timeouts_are_bounded(platform: Platform) -> Iterator[Breach | None]:
    """Compare each timeout with the callee's objective, and each flow's target with the deadline of its route."""
    for edge in platform.graph.edges:
        timeout, promised = edge.attempt_timeout, edge.latency
        yield _far(edge) if not timeout or timeout.units > LONGEST_WAIT * promised.units else None
    for flow in platform.graph.flows:
        gateway, route = platform.graph.entrance(flow)
        most = flow.latency * LONGEST_WAIT
        text = f"deadline {route.deadline} > {LONGEST_WAIT} × {flow.latency}, the target of flow {flow.name}"
        field = f"{gateway.name}.{route.name}.deadline"
        late = Breach(f"flow {flow.name}", text, field, str(most), route.location, "warning")
        yield late if route.deadline > most else None


def _far(edge: Edge) -> Breach:
    most, field = edge.latency * LONGEST_WAIT, f"{edge.path}: timeout, or {edge.call.target}.deadline"
    if not edge.attempt_timeout:
        return Breach(edge.path, "the call may wait for ever: its timeout is 0s", field, str(most), edge.call.location)
    text = f"timeout {edge.attempt_timeout} > {LONGEST_WAIT} × {edge.latency}, the callee's P95 objective"
    return Breach(edge.path, text, field, str(most), edge.call.location, "warning")


def critical_path(
    graph: CallGraph, node: Node, operation: Operation, latency: OfEdge = attrgetter("latency")
) -> Duration:
    """P95 of an operation's calls: the sum over the stages of the slowest parallel call × the typical rounds.

    If a stage overlaps the stages before it, only the longer of the two times counts. `latency` returns the P95 of one
    call.
    """
    total = ZERO
    for stage in operation.stages:
        slowest = max(latency(graph.edge(node, operation, call)) for call in stage.calls) * stage.typical_rounds
        total = max(total, slowest) if stage.overlaps else total + slowest
    return total


def objectives_fit_the_target(platform: Platform) -> Iterator[Breach | None]:
    """Compare the target of each flow and the objective of each operation with the objectives on the critical path."""
    graph = platform.graph
    for flow in graph.flows:
        needed = critical_path(graph, *graph.entrance(flow))
        yield _over(f"flow {flow.name}", needed, flow.latency, f"flows.{flow.name}.latency")
    for node in graph.nodes.values():
        for operation in node.operations:
            if operation.stages:
                path = f"{node.name}.{operation.name}"
                yield _over(path, critical_path(graph, node, operation), operation.latency, f"{path}.latency")


def _over(path: str, needed: Duration, target: Duration, field: str) -> Breach | None:
    if needed <= target:
        return None
    return Breach(path, f"the P95 objectives along the critical path add up to {needed} > {target}", field, str(needed))


RULES = (
    Rule(
        id="T01",
        title="callers wait at least as long as their callees may take",
        severity="error",
        rationale="a caller that times out first loses the answer, and its retry adds load to the busy callee",
        source="CascadeGuard, for one edge",
        violates="the gateway waits 3s for a call that may take 4s",
        holds="the gateway waits 4s",
        check=lambda platform: (*callers_wait_for_callees(platform), *deadlines_cover_calls(platform)),
    ),
    Rule(
        id="T02",
        title="every retry can finish within the operation's deadline",
        severity="warning",
        rationale="an attempt that ends after the deadline adds load, and nobody reads its answer",
        source="Envoy, per_try_timeout and timeout",
        violates="2 × 50ms + 10ms of backoff in an operation with a deadline of 100ms",
        holds="the same attempts in an operation with a deadline of 110ms",
        check=attempts_fit_the_deadline,
    ),
    Rule(
        id="T03",
        title="every call has a timeout close to its callee's objective, and every flow a deadline close to its target",
        severity="error",
        rationale="a call without a timeout holds its slot for ever; a long timeout outlasts the user's patience",
        source="AWS Builders' Library, Timeouts; Zalando's timeout guide",
        violates="a timeout of 101ms for a callee with a P95 of 10ms",
        holds="a timeout of 100ms for the same callee",
        check=timeouts_are_bounded,
    ),
    Rule(
        id="T04",
        title="objectives along the critical path add up to at most the objective of the operation or flow",
        severity="error",
        rationale="if every callee just meets its objective, the caller cannot meet an objective below their sum",
        source="Zalando's timeout guide",
        violates="two calls in sequence with a P95 of 10ms each, in an operation with an objective of 15ms",
        holds="the same operation with an objective of 20ms",
        check=objectives_fit_the_target,
    ),
)
