"""C07, E01: cycles of calls, and policies that no layer enforces or that apply to no pod."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from stack.audit import mesh
from stack.audit.finding import Breach, Rule
from stack.audit.rendered import rendered
from stack.model.call_graph import Edge
from stack.model.enforcement import DECLARED, declares, in_force, unenforced
from stack.model.platform import Platform
from stack.model.settings import path_of

SELECTORS = {**mesh.SELECTORS, "NetworkPolicy": "podSelector", "PodDisruptionBudget": "selector"}
"""Kind of policy → the field that selects the pods to which the policy applies."""


def no_cycles(platform: Platform) -> Iterator[None]:
    """Count the operations. `CallGraph` refuses cycles of synchronous calls, so no graph here has a cycle."""
    for node in platform.graph.nodes.values():
        yield from (None for _ in node.operations)


def all_enforced(platform: Platform) -> Iterator[Breach | None]:
    """Check that a layer of this environment can enforce every declared policy."""
    mesh_on = platform.environment.settings.mesh
    only_by_mesh: dict[str, list[Edge]] = defaultdict(list)
    for edge in platform.graph.edges:
        reasons = dict(unenforced(edge))
        for kind in DECLARED:
            if not declares(edge, kind):
                continue
            if kind in reasons:
                text = f"{kind} is declared, but {reasons[kind]}"
                yield Breach(edge.path, text, f"{edge.call.name}.{kind}", "None", edge.call.location)
            elif (layer := in_force(edge, kind, mesh=mesh_on)) is None:
                only_by_mesh[kind].append(edge)
            elif layer == "mesh" and not mesh.is_rendered(platform, edge, kind):
                text = f"only the mesh can enforce {kind}, but no DestinationRule of {edge.caller.name} contains it"
                yield Breach(edge.path, text, "DestinationRule: spec.trafficPolicy", "", edge.call.location)
            else:
                yield None
    for policy, edges in only_by_mesh.items():
        callers = sorted({edge.caller.name for edge in edges})
        text = f"only the mesh can enforce {policy} for calls of {', '.join(callers)}, but the mesh is off"
        yield Breach(f"{policy} without mesh", text, path_of("mesh"), "true", edges[0].call.location)


def all_select_pods(platform: Platform) -> Iterator[Breach | None]:
    """Check that the selector of each NetworkPolicy, disruption budget and policy of the mesh selects a pod."""
    found, labelled = rendered(platform), defaultdict[tuple[str, str, str], list[Mapping[str, str]]](list)
    for namespace, labels in _pods(platform):
        for label in labels.items():
            labelled[namespace, *label].append(labels)
    for kind, field in SELECTORS.items():
        for policy in found.of_kind(kind):
            namespace, name = policy["metadata"].get("namespace", "default"), policy["metadata"]["name"]
            chosen = mesh.selected_labels(policy, field)
            first = next(iter(chosen.items()), None)
            selected = first is None or any(chosen.items() <= each.items() for each in labelled[namespace, *first])
            text = f"no pod has the labels {', '.join(f'{key}={value}' for key, value in chosen.items())}"
            yield None if selected else Breach(f"{kind} {namespace}/{name}", text, f"spec.{field}")


def _pods(platform: Platform) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Namespace and labels of each kind of pod, the pods that CloudNativePG creates included."""
    yield from ((workload.namespace, workload.labels) for workload in rendered(platform).pods)
    yield from ((component.namespace, labels) for component in platform.components for labels in component.pods)


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
        title="every policy on an edge is enforced by a layer that can express it, and every selector selects pods",
        severity="error",
        rationale="a declared policy that no layer enforces has no effect during an incident",
        source="the platform's rules",
        violates="a Go service declares a circuit breaker, which only the mesh can enforce, and the mesh is off",
        holds='the mesh is on, or the call declares circuit_breaker="off"',
        check=lambda platform: (*all_enforced(platform), *all_select_pods(platform)),
    ),
)
