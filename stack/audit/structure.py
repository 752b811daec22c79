"""C07, E01: the shape of the graph, and who enforces what on it."""

from __future__ import annotations

from collections.abc import Iterator

from stack.audit.finding import Finding, Rule
from stack.model.enforcement import DECLARED, unenforced
from stack.model.platform import Platform


def no_cycles(platform: Platform) -> Iterator[None]:
    """A graph with a cycle of synchronous calls is refused when it is built: one that stands has none."""
    for node in platform.graph.nodes.values():
        yield from (None for _ in node.operations)


def all_enforced(platform: Platform) -> Iterator[Finding | None]:
    """Every declared policy has a layer that can express it."""
    for edge in platform.graph.edges:
        reasons = dict(unenforced(edge))
        for kind in DECLARED:
            if getattr(edge.call, kind) is None:
                continue
            yield (
                None
                if kind not in reasons
                else Finding(
                    "E01",
                    "error",
                    edge.path,
                    f"{kind} is declared, and {reasons[kind]}",
                    f"{edge.call.name}.{kind}",
                    "None",
                )
            )


RULES = (
    Rule("C07", "no cycle of synchronous calls", "a cycle can wait for itself", no_cycles),
    Rule(
        "E01",
        "every policy on an edge is enforced by a layer that can express it",
        "the platform's rules",
        all_enforced,
    ),
)
