"""The numbers of one environment that `voice diff` compares. `voice render` writes them beside the manifests.

To compare one more number, add a measure here and its sentence to `stack/output/difference/blast_radius.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from components.network_policy import NetworkEnd, Peer
from stack.audit.ledgers.availability import flow_availability
from stack.audit.ledgers.capacity import NODE_POOL, rooms
from stack.audit.ledgers.connections import stores
from stack.audit.ledgers.cost import costs
from stack.audit.retries import amplified
from stack.model.platform import Platform

__all__ = ["Measures", "measures"]

Measures: TypeAlias = Mapping[str, Mapping[str, float | str]]
"""Measure → subject → value."""


def measures(platform: Platform) -> Measures:
    """The measures of a platform. No value is a secret."""
    graph, found = platform.graph, costs(platform)
    return {
        "attempts": dict(_attempts(platform)),
        "availability": {flow.name: flow_availability(graph, flow).availability() for flow in graph.flows},
        "connections": {store.name: store.at_maximum for store in stores(platform)},
        "pooler_connections": {store.name: most for store in stores(platform) if (most := store.of_poolers)},
        "requests": {
            room.amount.removesuffix("_requests"): room.in_unit(room.asked.with_surge)
            for room in rooms(platform)
            if room.place == NODE_POOL
        },
        "cost": {"services": found.application.expected, "infrastructure": found.infrastructure.expected}
        if found
        else {},
        "model_cost": {flow.entrance: flow.models for flow in found.flows if flow.models} if found else {},
        "edges": dict(_edges(platform)),
    }


def _attempts(platform: Platform) -> Iterator[tuple[str, float]]:
    """Name → the largest number of attempts behind an operation that nothing calls.

    The name is the flow that begins at the operation. If no flow begins there, the name is `node.operation`.
    """
    for found in amplified(platform.graph):
        flows = platform.graph.flows_at(found.root.key)
        yield from ((name, found.attempts) for name in [flow.name for flow in flows] or [".".join(found.root.key)])


def _edges(platform: Platform) -> Iterator[tuple[str, str]]:
    """Declared calls, and the links of the tiers. Rule N02 reports every other connection that is permitted."""
    for tier in platform.tenant.tiers:
        for link in tier.links(platform.graph, platform.environment):
            yield f"{_end(link.source)} → {_end(link.target)}", "link"
    # Hard calls come last, so they replace the soft calls of the same pair.
    for edge in sorted(platform.graph.edges, key=lambda edge: not edge.call.soft):
        yield f"{edge.caller.name} → {edge.callee.name}", "soft" if edge.call.soft else "hard"


def _end(end: NetworkEnd) -> str:
    return f"{end.namespace}/{end.name}" if isinstance(end, Peer) else end.name
