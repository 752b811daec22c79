"""The reasons why one node may or may not call another: the declared calls, their policies, and the connection's steps.

The declaration comes from the catalogue. The steps of the connection are read from the rendered resources. So the
explanation also shows a resource that contradicts the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from voice_policies import Fault, InboundOperation, InvalidInputError, OutboundCall, one_of

from components.node import Caller, Gateway, Node
from components.operation import Operation, hard
from stack.model.call_graph import CallGraph, Edge
from stack.model.platform import Platform
from stack.model.policy_bundles import outbound_call
from stack.model.settings import file_of, path_of
from stack.output.explanation.connection import Step, connection
from stack.output.explanation.permission import Permission, permission

__all__ = ["explain"]


@dataclass(frozen=True, slots=True)
class DeclaredCall:
    """One declared call, with the policies in force on it."""

    edge: Edge
    policy: OutboundCall
    """The caller's policies that some layer enforces in this environment."""
    inbound: InboundOperation | None
    """The policies at the callee. `None` for a dependency, which has no policies of ours."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer for one caller and one callee in one environment."""

    environment: str
    caller: str
    """The caller as the user named it: a node or `node.operation`."""
    callee: str
    calls: tuple[DeclaredCall, ...]
    connection: tuple[Step, ...]
    """The steps of the connection, in the order in which a request needs them."""
    through: tuple[str, ...] = ()
    """The shortest path of declared calls from caller to callee, if no call is direct."""
    permission: Permission | None = None
    """The change that would permit an undeclared call. `None` for a declared pair."""

    @property
    def broken(self) -> Step | None:
        """The first step of the connection that does not hold."""
        return next((step for step in self.connection if not step.holds), None)

    @property
    def permitted(self) -> bool:
        """True if the call is declared and every step of its connection holds."""
        return bool(self.calls) and self.broken is None


def explain(platform: Platform, caller: str, callee: str) -> Explanation:
    """Explain a pair. Both ends are nodes or `node.operation`. Raises `InvalidInputError` for unknown names."""
    declared = platform.tenant.graph
    if faults := [*_unknown(declared, "X", caller), *_unknown(declared, "Y", callee)]:
        raise InvalidInputError("voice explain", faults)
    deployed = platform.graph
    left_out = [name for name in dict.fromkeys(map(_node, (caller, callee))) if name not in deployed.nodes]
    edges = _edges(declared if left_out else deployed, caller, callee)
    if left_out:
        steps = [_not_deployed(platform, name) for name in left_out]
    else:
        steps = [
            step
            for edge in edges[:1] or _hypothetical_call(deployed, caller, callee)
            for step in connection(platform, edge)
        ]
    return Explanation(
        environment=platform.environment.name,
        caller=caller,
        callee=callee,
        calls=() if left_out else tuple(_declared_call(platform, edge) for edge in edges),
        connection=tuple(steps),
        through=() if edges else _shortest_path(declared, caller, callee),
        permission=None if edges else permission(platform, caller, callee),
    )


def _unknown(graph: CallGraph, path: str, name: str) -> Iterator[Fault]:
    node, dot, operation = name.partition(".")
    if node not in graph.nodes:
        yield Fault(path, f"is {name!r}", one_of(node, graph.nodes))
    elif dot and not graph.nodes[node].offers(operation):
        offered = (each.name for each in graph.nodes[node].operations)
        yield Fault(path, f"is {name!r}, which {node} does not offer", one_of(operation, offered))


def _node(name: str) -> str:
    return name.partition(".")[0]


def _is_end(name: str, node: Node, operation: Operation) -> bool:
    return name in {node.name, f"{node.name}.{operation.name}"}


def _edges(graph: CallGraph, caller: str, callee: str) -> tuple[Edge, ...]:
    """The declared calls between the two ends."""
    edges = graph.edges_from(graph.nodes[_node(caller)])
    return tuple(
        edge
        for edge in edges
        if _is_end(caller, edge.caller, edge.operation) and _is_end(callee, edge.callee, edge.target)
    )


def _hypothetical_call(graph: CallGraph, caller: str, callee: str) -> tuple[Edge, ...]:
    """A call that nobody declares, to look up the connection that it would need. Empty if no such call is possible."""
    node, target = graph.nodes[_node(caller)], graph.nodes[_node(callee)]
    if not isinstance(node, Caller) or not node.operations or isinstance(target, Gateway) or not target.operations:
        return ()
    call = hard(f"{target.name}.{target.operations[0].name}", "idempotent")
    return (Edge(node, node.operations[0], call, target, target.operations[0]),)


def _not_deployed(platform: Platform, name: str) -> Step:
    file = file_of(platform.environment.name)
    return Step("deployment", f"{name} is not deployed: {path_of('without')} in {file} lists it", holds=False)


def _declared_call(platform: Platform, edge: Edge) -> DeclaredCall:
    inbound = (
        operation
        for service in platform.microservices
        if service.name == edge.callee.name
        for operation in service.bundle.inbound
        if operation.operation == edge.target.name
    )
    policy = outbound_call(edge, platform.site, mesh=platform.environment.settings.mesh)
    return DeclaredCall(edge, policy, next(inbound, None))


def _shortest_path(graph: CallGraph, caller: str, callee: str) -> tuple[str, ...]:
    """The shortest path from caller to callee over several calls, by breadth-first search."""
    node = graph.nodes[_node(caller)]
    paths: list[tuple[Edge, ...]] = [
        (edge,) for edge in graph.edges_from(node) if _is_end(caller, edge.caller, edge.operation)
    ]
    seen = {path[-1].key for path in paths}
    for path in paths:
        last = path[-1]
        if _is_end(callee, last.callee, last.target):
            first = f"{path[0].caller.name}.{path[0].operation.name}"
            return (first, *(edge.call.target for edge in path))
        for edge in graph.edges_from(last.callee):
            if edge.operation is last.target and edge.key not in seen:
                seen.add(edge.key)
                paths.append((*path, edge))
    return ()
