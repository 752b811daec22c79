"""C07, E01: the shape of the graph, and who enforces what on it."""

from __future__ import annotations

from collections.abc import Iterator

from stack.audit.finding import Breach, Rule
from stack.model.enforcement import DECLARED, unenforced
from stack.model.platform import Platform


def no_cycles(platform: Platform) -> Iterator[None]:
    """A graph with a cycle of synchronous calls is refused when it is built: one that stands has none."""
    for node in platform.graph.nodes.values():
        yield from (None for _ in node.operations)


def all_enforced(platform: Platform) -> Iterator[Breach | None]:
    """Every declared policy has a layer that can express it."""
    for edge in platform.graph.edges:
        reasons = dict(unenforced(edge))
        for kind in DECLARED:
            if getattr(edge.call, kind) is None:
                continue
            yield (
                None
                if kind not in reasons
                else Breach(
                    edge.path,
                    f"{kind} is declared, and {reasons[kind]}",
                    f"{edge.call.name}.{kind}",
                    "None",
                )
            )


RULES = (
    Rule(
        id="C07",
        title="no cycle of synchronous calls",
        severity="error",
        rationale="an operation that waits for itself holds a slot at every hop until its deadline",
        source="a cycle can wait for itself",
        violates="a.run calls b.run, and b.run calls a.run: the catalogue is refused",
        holds="a.run calls b.run, and b.run publishes an event that a consumes",
        check=no_cycles,
    ),
    Rule(
        id="E01",
        title="every policy on an edge is enforced by a layer that can express it",
        severity="error",
        rationale="a policy that nothing enforces is a belief: it fails on the day it is needed",
        source="the platform's rules",
        violates="a Go service declares a circuit breaker, and the mesh, which would enforce it, is off",
        holds='the mesh is on, or the call declares circuit_breaker="off"',
        check=all_enforced,
    ),
)
