"""The call graph as pictures (Mermaid) and as data (JSON)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

from components.node import Dependency, Gateway, Node, Service
from components.operation import Call, Operation, Stage
from stack.model.call_graph import CallGraph, Edge, OperationKey
from stack.model.flow import Flow
from stack.model.policy_bundles import outbound_call
from stack.model.site import Site

__all__ = ["component_diagram", "graph_document"]

FEW_HOPS = 3
"""A sub-flow of at most this many hops is drawn in place, because a reference would take as much room."""
_GROUPS = (("core", "Core"), ("standard", "Standard"), ("batch", "Batch"))


def component_diagram(graph: CallGraph) -> str:
    """The call graph by tier. An arrow is solid if any of its calls is hard, and dashed if all are soft."""
    lines = ["flowchart LR"]
    lines += [f'  {_id(node)}(["{node.name}"])' for node in graph.nodes.values() if isinstance(node, Gateway)]
    for tier, title in _GROUPS:
        members = [f'    {_id(service)}["{service.name}"]' for service in graph.services if service.tier == tier]
        lines += [f"  subgraph {title}", *members, "  end"]
    outside = [node for node in graph.nodes.values() if isinstance(node, Dependency)]
    lines += [f'  {_id(node)}[("{node.name}")]' for node in outside if node.kind == "datastore"]
    lines += [f'  {_id(node)}{{{{"{node.name}"}}}}' for node in outside if node.kind != "datastore"]
    necessity: dict[tuple[str, str], bool] = {}
    for edge in graph.edges:
        pair = (_id(edge.caller), _id(edge.callee))
        necessity[pair] = necessity.get(pair, True) and edge.call.soft
    lines += [f"  {caller} {'-.->' if is_soft else '-->'} {callee}" for (caller, callee), is_soft in necessity.items()]
    return "\n".join(lines)


def _id(node: Node) -> str:
    """An identifier without words that Mermaid reserves, such as `graph` and `end`."""
    return node.name.title().replace("-", "")


def sequence_diagram(graph: CallGraph, flow: Flow) -> str:
    """One flow, hop by hop: each call with its attempt timeout, attempts, breaker and fallback.

    If another diagram draws a sub-flow, this diagram only refers to it.
    """
    lines = ["sequenceDiagram", "  participant client"]
    for number, (node, operation) in enumerate(_entry_operations(graph, flow)):
        started = f"client->>{node.name}: {operation.name}"
        lines.append(f"  events-){node.name}: {', '.join(operation.consumes)}" if number else f"  {started}")
        lines += _steps(graph, node, operation, "  ")
    return "\n".join(lines)


def sub_flow_diagram(graph: CallGraph, key: OperationKey) -> str:
    """An operation that several diagrams refer to, hop by hop."""
    node = graph.nodes[key[0]]
    lines = ["sequenceDiagram", f"  caller->>{node.name}: {key[1]}"]
    return "\n".join([*lines, *_steps(graph, node, node.operation(key[1]), "  ")])


@cache
def sub_flows(graph: CallGraph) -> tuple[OperationKey, ...]:
    """The operations that have a diagram of their own, callers first.

    Such an operation has more than `FEW_HOPS` hops, and the diagrams reach it at several places.
    """
    places: Counter[OperationKey] = Counter()
    sizes: dict[OperationKey, int] = {}
    for run in graph.bottom_up:
        sizes[run.key] = sum(1 + sizes[edge.key] for edge in run.edges)

    def visit(node: Node, operation: Operation) -> None:
        for call in operation.calls:
            edge = graph.edge(node, operation, call)
            places[edge.key] += 1
            if places[edge.key] == 1:
                visit(edge.callee, edge.target)

    for flow in graph.flows:
        if flow.diagram:
            for begin in _entry_operations(graph, flow):
                visit(*begin)
    return tuple(run.key for run in reversed(graph.bottom_up) if places[run.key] > 1 and sizes[run.key] > FEW_HOPS)


def _entry_operations(graph: CallGraph, flow: Flow) -> Iterator[tuple[Node, Operation]]:
    """The operations at which the parts of a flow begin: its route, and the operation that an event starts."""
    yield graph.entrance(flow)
    if flow.continues:
        service, _, name = flow.continues.partition(".")
        yield graph.nodes[service], graph.nodes[service].operation(name)


def _steps(graph: CallGraph, node: Node, operation: Operation, indent: str) -> Iterator[str]:
    for stage in operation.stages:
        opening, separator = _frame(stage)
        if opening:
            yield f"{indent}{opening}"
        inner = indent + "  " if opening else indent
        for number, call in enumerate(stage.calls):
            if number and separator:
                yield f"{indent}{separator}"
            yield from _hop(graph, node, operation, call, inner)
        if opening:
            yield f"{indent}end"
    if operation.publishes:
        yield f"{indent}{node.name}-)events: {', '.join(operation.publishes)} (outbox)"


def _frame(stage: Stage) -> tuple[str, str]:
    """The frame around a stage, and the separator of its calls. Both are empty for one call in one round."""
    if stage.max_rounds > 1:
        choice = ", each round makes one of these calls" if stage.choice == "one" and len(stage.calls) > 1 else ""
        return f"loop at most {stage.max_rounds} rounds, typically {stage.typical_rounds}{choice}", ""
    if len(stage.calls) > 1:
        return "par", "and"
    return "", ""


def _hop(graph: CallGraph, node: Node, operation: Operation, call: Call, indent: str) -> Iterator[str]:
    edge = graph.edge(node, operation, call)
    arrow = "-->>" if call.soft else "->>"
    yield f"{indent}{node.name}{arrow}{call.callee}: {hop_text(edge, graph.site)}"
    if edge.key in sub_flows(graph):
        yield f"{indent}Note over {edge.callee.name}: see the diagram of {'.'.join(edge.key)}"
    else:
        yield from _steps(graph, edge.callee, edge.target, indent)


def hop_text(edge: Edge, site: Site) -> str:
    """A hop in a few words, such as `search ≤ 1800ms × 2, breaker 5, else no graph hits`."""
    policy = outbound_call(edge, site, mesh=True)
    text = edge.call.name.removeprefix(f"{edge.call.callee}.").replace(":", " ")
    text += f" ≤ {time_limit(edge)}"
    if breaker := policy.circuit_breaker:
        text += f", breaker {breaker.consecutive_failures or breaker.failure_ratio or breaker.slow_call_ratio}"
    return f"{text}, else {edge.call.fallback}" if edge.call.fallback else text


def time_limit(edge: Edge) -> str:
    """The time limit of a call: of each attempt, or of all attempts over a route's candidates."""
    if edge.route:
        return f"{edge.route.timeout.total} over {len(edge.route.candidates)} candidates"
    return f"{edge.attempt_timeout} × {edge.call.max_attempts}"


def graph_document(graph: CallGraph) -> dict[str, Any]:
    """Nodes and edges as plain values."""
    return {
        "nodes": [
            {
                "name": node.name,
                "kind": type(node).__name__.lower(),
                "operations": [operation.name for operation in node.operations],
                **({"tier": node.tier, "language": node.language} if isinstance(node, Service) else {}),
            }
            for node in graph.nodes.values()
        ],
        "edges": [_edge_document(edge, graph.site) for edge in graph.edges],
    }


def _edge_document(edge: Edge, site: Site) -> dict[str, Any]:
    policy = outbound_call(edge, site, mesh=True)
    return {
        "caller": edge.caller.name,
        "caller_operation": edge.operation.name,
        "callee": edge.call.callee,
        "callee_operation": edge.call.operation,
        "necessity": policy.necessity,
        "idempotency": edge.call.idempotency,
        "attempt_timeout": str(policy.timeout.attempt),
        "max_attempts": edge.max_attempts,
        "enforced_by": policy.enforced_by.model_dump(exclude_none=True),
        **({"fallback": edge.call.fallback} if edge.call.fallback else {}),
    }
