"""The impact of a node's outage: failing operations, and operations that continue with a fallback."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from components.node import Gateway, Node
from stack.model.call_graph import CallGraph, Edge, OperationKey

__all__ = ["impact"]


class RouteImpact(NamedTuple):
    """The answer of one route during the outage."""

    route: str
    fails: bool
    """True if the route answers with an error."""
    losses: tuple[Edge, ...]
    """Soft calls behind the route that get no answer. Their fallbacks answer instead."""
    flows: tuple[str, ...]
    """Titles of flows that do not reach their end, although the route answers."""


@dataclass(slots=True)
class Impact:
    """The effects of a node's outage on its operations, and on operations that call them directly or indirectly."""

    failing: set[OperationKey]
    """Operations that fail: the node's operations, and operations with a hard call to a failing operation."""
    losses: dict[OperationKey, tuple[Edge, ...]] = field(default_factory=dict)
    """Operation that continues → the soft calls of the operation and of its callees that get no answer."""
    broken: set[OperationKey] = field(default_factory=set)
    """Operations that continue but do not complete a flow. The flow needs a call that gets no answer."""
    routes: tuple[RouteImpact, ...] = ()
    """Routes of the gateway that the outage reaches, in the catalogue's order."""


def impact(graph: CallGraph, node: Node) -> Impact:
    """The impact of the complete outage of a node. One pass suffices, because callees come before callers."""
    found = Impact({(node.name, operation.name) for operation in node.operations})
    for run in graph.bottom_up:
        if run.key in found.failing:
            continue
        if any(edge.key in found.failing and not edge.call.soft for edge in run.edges):
            found.failing.add(run.key)
            continue
        losses = dict.fromkeys(loss for edge in run.edges for loss in _losses(found, edge))
        if losses:
            found.losses[run.key] = tuple(losses)
        if any(_breaks(found, edge) for edge in run.edges):
            found.broken.add(run.key)
    found.routes = tuple(_routes(graph, found))
    return found


def _losses(found: Impact, edge: Edge) -> tuple[Edge, ...]:
    return (edge,) if edge.key in found.failing else found.losses.get(edge.key, ())


def _breaks(found: Impact, edge: Edge) -> bool:
    if edge.key in found.broken:
        return not edge.call.soft or edge.call.needed_by_flows
    return edge.key in found.failing and edge.call.needed_by_flows


def _routes(graph: CallGraph, found: Impact) -> Iterator[RouteImpact]:
    gateways = (node for node in graph.nodes.values() if isinstance(node, Gateway))
    for gateway in gateways:
        for operation in gateway.operations:
            key = (gateway.name, operation.name)
            fails, losses = key in found.failing, found.losses.get(key, ())
            flows = tuple(flow.title for flow in graph.flows if flow.route == operation.name and key in found.broken)
            if fails or losses:
                yield RouteImpact(operation.name, fails, losses, flows)
