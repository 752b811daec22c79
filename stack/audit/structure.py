"""C07, E01: cycles of calls, and policies that no layer enforces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from stack.audit.finding import Breach, Rule
from stack.model.call_graph import Edge
from stack.model.enforcement import DECLARED, declares, in_force, unenforced
from stack.model.platform import Platform
from stack.model.settings import path_of


def no_cycles(platform: Platform) -> Iterator[None]:
    """Count the operations. `CallGraph` refuses cycles of synchronous calls, so every graph here has none."""
    for node in platform.graph.nodes.values():
        yield from (None for _ in node.operations)


def all_enforced(platform: Platform) -> Iterator[Breach | None]:
    """Check that a layer of this environment can enforce every declared policy."""
    mesh = platform.environment.settings.mesh
    only_by_mesh: dict[str, list[Edge]] = defaultdict(list)
    for edge in platform.graph.edges:
        reasons = dict(unenforced(edge))
        for kind in DECLARED:
            if not declares(edge, kind):
                continue
            if kind in reasons:
                text = f"{kind} is declared, but {reasons[kind]}"
                yield Breach(edge.path, text, f"{edge.call.name}.{kind}", "None", edge.call.location)
            elif in_force(edge, kind, mesh=mesh) is None:
                only_by_mesh[kind].append(edge)
            else:
                yield None
    for policy, edges in only_by_mesh.items():
        callers = sorted({edge.caller.name for edge in edges})
        text = f"only the mesh can enforce {policy} for {', '.join(callers)} ({len(edges)} calls), but the mesh is off"
        yield Breach(f"{policy} without mesh", text, path_of("mesh"), "true", edges[0].call.location)


RULES = (
    Rule(
        id="C07",
        title="no cycle of synchronous calls",
        severity="error",
        rationale="an operation that waits for itself holds a slot at every hop until its deadline",
        source="the declared calls",
        violates="a.run calls b.run, and b.run calls a.run: the model is refused",
        holds="a.run calls b.run, and b.run publishes an event that a consumes",
        check=no_cycles,
    ),
    Rule(
        id="E01",
        title="every policy on an edge is enforced by a layer that can express it",
        severity="error",
        rationale="a declared policy that no layer enforces has no effect during an incident",
        source="the platform's rules",
        violates="a Go service declares a circuit breaker, which only the mesh can enforce, and the mesh is off",
        holds='the mesh is on, or the call declares circuit_breaker="off"',
        check=all_enforced,
    ),
)
