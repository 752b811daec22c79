"""How much telemetry the declared load makes: arrivals at every operation, and the spans and log lines of each."""

from __future__ import annotations

from collections import defaultdict

from components.node import Node, Service
from components.operation import Operation
from stack.call_graph import CallGraph


def arrivals(graph: CallGraph) -> dict[tuple[str, str], float]:
    """Requests per second of every operation, by node and name: the routes' loads, followed along calls and events."""
    found: dict[tuple[str, str], float] = defaultdict(float)
    consumers = _consumers(graph)

    def arrive(node: Node, operation: Operation, rate: float) -> None:
        found[node.name, operation.name] += rate
        for stage in operation.stages:
            for call in stage.calls:
                edge = graph.edge(node, operation, call)
                arrive(edge.callee, edge.target, rate * _share(stage.choice, len(stage.calls)) * stage.typical_rounds)
        for event in operation.publishes:
            for consumer, consuming in consumers[event]:
                arrive(consumer, consuming, rate)

    for node in graph.nodes.values():
        for operation in node.operations:
            if operation.load is not None:
                arrive(node, operation, operation.load.per_second)
    return dict(found)


def _share(choice: str, calls: int) -> float:
    """Of one call in each round: every one is made, or one of them."""
    return 1 / calls if choice == "one" else 1


def _consumers(graph: CallGraph) -> dict[str, list[tuple[Service, Operation]]]:
    found: dict[str, list[tuple[Service, Operation]]] = defaultdict(list)
    for service in graph.services:
        for operation in service.operations:
            for event in operation.consumes:
                found[event].append((service, operation))
    return found


def log_lines(graph: CallGraph) -> float:
    """Lines per second: each of our services prints one for each request."""
    return sum(rate for (node, _), rate in arrivals(graph).items() if isinstance(graph.nodes[node], Service))


def spans(graph: CallGraph) -> float:
    """Spans per second, were every trace kept: one of who serves a request, and one of who makes it.

    What is not ours makes none, so its caller's stands alone; and so does the gateway's, whose callers are outside.
    """
    return sum(
        rate * (2 if isinstance(graph.nodes[node], Service) else 1) for (node, _), rate in arrivals(graph).items()
    )
