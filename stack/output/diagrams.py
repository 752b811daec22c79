"""The call graph as pictures (Mermaid) and as data (JSON)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from components.node import Dependency, Gateway, Node, Service
from components.operation import Call, Operation, Stage
from stack.model.call_graph import CallGraph, Edge
from stack.model.flow import Flow
from stack.model.policy_bundles import outbound_call
from stack.model.site import Site

__all__ = ["component_diagram", "graph_document"]

_GROUPS = (("core", "Core"), ("standard", "Standard"), ("batch", "Batch"))


def component_diagram(graph: CallGraph) -> str:
    """The call graph by tier: solid arrows are hard calls, dashed arrows are soft calls."""
    lines = ["flowchart LR"]
    lines += [f"  {node.name}([{node.name}])" for node in graph.nodes.values() if isinstance(node, Gateway)]
    for tier, title in _GROUPS:
        members = [f"    {service.name}" for service in graph.services if service.tier == tier]
        lines += [f"  subgraph {title}", *members, "  end"]
    outside = [node for node in graph.nodes.values() if isinstance(node, Dependency)]
    lines += [f"  {node.name}[({node.name})]" for node in outside if node.kind == "datastore"]
    lines += [f"  {node.name}{{{{{node.name}}}}}" for node in outside if node.kind != "datastore"]
    necessity: dict[tuple[str, str], bool] = {}
    for edge in graph.edges:
        pair = (edge.caller.name, edge.callee.name)
        necessity[pair] = necessity.get(pair, True) and edge.call.soft
    lines += [f"  {caller} {'-.->' if is_soft else '-->'} {callee}" for (caller, callee), is_soft in necessity.items()]
    return "\n".join(lines)


def sequence_diagram(graph: CallGraph, flow: Flow) -> str:
    """One flow, hop by hop: each call with its attempt timeout, attempts, breaker and fallback."""
    gateway, route = graph.entrance(flow)
    lines = ["sequenceDiagram", "  participant client", f"  client->>{gateway.name}: {route.name}"]
    lines += _steps(graph, gateway, route, "  ")
    if flow.continues:
        service, _, name = flow.continues.partition(".")
        node = graph.nodes[service]
        operation = node.operation(name)
        lines.append(f"  events-){service}: {', '.join(operation.consumes)}")
        lines += _steps(graph, node, operation, "  ")
    return "\n".join(lines)


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
    """The frame around a stage, and the separator of its calls. None for a single call."""
    if stage.max_rounds > 1:
        choice = ", one of" if stage.choice == "one" and len(stage.calls) > 1 else ""
        return f"loop at most {stage.max_rounds} rounds, typically {stage.typical_rounds}{choice}", ""
    if len(stage.calls) > 1:
        return "par", "and"
    return "", ""


def _hop(graph: CallGraph, node: Node, operation: Operation, call: Call, indent: str) -> Iterator[str]:
    edge = graph.edge(node, operation, call)
    arrow = "-->>" if call.soft else "->>"
    yield f"{indent}{node.name}{arrow}{call.callee}: {hop_text(edge, graph.site)}"
    yield from _steps(graph, edge.callee, edge.target, indent)


def hop_text(edge: Edge, site: Site) -> str:
    """A hop in a few words, such as `search ≤ 1800ms × 2, breaker 5, else no graph hits`."""
    policy = outbound_call(edge, site, mesh=True)
    text = edge.call.name.removeprefix(f"{edge.call.callee}.").replace(":", " ")
    text += f" ≤ {time_limit(edge)}"
    if policy.circuit_breaker:
        text += f", breaker {policy.circuit_breaker.consecutive_failures}"
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
