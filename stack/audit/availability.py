"""A01, A02: a flow is at most as available as the product over its hard dependencies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from math import prod

from components.node import Dependency, Gateway, Host, Node, Service
from components.operation import Operation
from stack.audit.finding import Breach, Rule
from stack.model.call_graph import CallGraph
from stack.model.flow import Flow
from stack.model.platform import Platform
from stack.model.site import Site

__all__ = ["flow_availability"]

NINE = 0.1
"""Share of the budget that one dependency may spend."""
ROUNDING = 1e-12
"""Tolerance for floating-point errors, smaller than any difference between two targets."""


@dataclass(slots=True)
class HardDependencies:
    """Everything that must be up for an operation to succeed. Each node counts once, however often it is called."""

    site: Site
    singles: dict[str, float] = field(default_factory=dict)
    """Node → its own availability."""
    groups: dict[str, Dependency] = field(default_factory=dict)
    """Dependencies with several addresses, any of which suffices."""
    egress: set[str] = field(default_factory=set)
    """Egress proxies that the calls of dependencies with one address need."""

    def add(self, node: Node) -> None:
        """Add a node that must be up."""
        if isinstance(node, Service):
            self.singles[node.name] = self.site.own_availability[node.tier]
        elif isinstance(node, Gateway):
            self.singles[node.name] = node.availability
        elif isinstance(node, Dependency) and len(node.addresses) > 1:
            self.groups[node.name] = node
        elif isinstance(node, Dependency):
            self.singles[node.name] = node.availability
            self.egress.update(address.egress for address in node.addresses if isinstance(address, Host))

    def availability(self) -> float:
        """Probability that every dependency is up. An egress proxy that several dependencies share counts once.

        The result is exact. A proxy is up or down for all its callers at once, so the sum runs over the states of all
        proxies. Within one state, a group is up if any member is up whose proxy is up.
        """
        proxies = sorted(self.egress | {proxy for group in self.groups.values() for proxy in _proxies(group)})
        each = self.site.egress_availability
        total = 0.0
        for state in product((True, False), repeat=len(proxies)):
            up = {proxy for proxy, is_up in zip(proxies, state, strict=True) if is_up}
            if self.egress <= up:
                chance = prod(each if proxy in up else 1 - each for proxy in proxies)
                total += chance * prod(_any_up(group, up) for group in self.groups.values())
        return total * prod(self.singles.values())

    def each(self) -> dict[str, float]:
        """Availability of every single dependency, every group and every egress proxy by itself."""
        alone = {name: _any_up(group, {*_proxies(group)}) for name, group in self.groups.items()}
        return {**self.singles, **dict.fromkeys(sorted(self.egress), float(self.site.egress_availability)), **alone}

    def arithmetic(self) -> str:
        """The factors of the product, for a finding."""
        singles = [f"{name} {100 * value:.10g}%" for name, value in self.singles.items()]
        groups = [f"{name} 1 − Π(1 − {group.availability} × egress)" for name, group in self.groups.items()]
        return " × ".join(
            [*singles, *(f"{proxy} {self.site.egress_availability}" for proxy in sorted(self.egress)), *groups]
        )


def _proxies(group: Dependency) -> Iterator[str]:
    return (address.egress for address in group.addresses if isinstance(address, Host))


def _any_up(group: Dependency, up: Iterable[str]) -> float:
    members = [
        group.availability if not isinstance(address, Host) or address.egress in up else 0.0
        for address in group.addresses
    ]
    return 1 - prod(1 - member for member in members)


def hard_dependencies(graph: CallGraph, node: Node, operation: Operation) -> HardDependencies:
    """The direct and indirect hard dependencies of a flow through this operation."""
    found = HardDependencies(graph.site)
    seen: set[tuple[str, str]] = set()

    def visit(node: Node, operation: Operation) -> None:
        if (node.name, operation.name) in seen:
            return
        seen.add((node.name, operation.name))
        found.add(node)
        for call in operation.calls:
            if not call.soft or call.needed_by_flows:
                edge = graph.edge(node, operation, call)
                visit(edge.callee, edge.target)

    visit(node, operation)
    return found


def flow_availability(graph: CallGraph, flow: Flow) -> HardDependencies:
    """The hard dependencies of a flow, starting at its route."""
    return hard_dependencies(graph, *graph.entrance(flow))


def flows_attainable(platform: Platform) -> Iterator[Breach | None]:
    """Compare each flow's target with the product over its hard dependencies."""
    for flow in platform.graph.flows:
        if flow.availability is None:
            continue
        needed = flow_availability(platform.graph, flow)
        reached = needed.availability()
        yield (
            None
            if reached >= flow.availability
            else Breach(
                f"flow {flow.name}",
                f"{needed.arithmetic()} = {reached:.4%} < {flow.availability}",
                f"flows.{flow.name}.availability, or make a dependency soft",
                f"{reached:.4%}",
            )
        )


def one_nine_better(platform: Platform) -> Iterator[Breach | None]:
    """Check that each hard dependency of a flow spends at most a tenth of the flow's error budget."""
    for flow in platform.graph.flows:
        if flow.availability is None:
            continue
        least = 1 - (1 - float(flow.availability)) * NINE
        needed = flow_availability(platform.graph, flow)
        weak = {name: value for name, value in needed.each().items() if value < least - ROUNDING}
        told = ", ".join(f"{name} {100 * value:.6g}%" for name, value in weak.items())
        text = f"{told} < {least:.4%} = 1 − (1 − {float(flow.availability):.4%}) × {NINE}"
        found = Breach(f"flow {flow.name}", text, "the target of the flow, or a fallback", "", flow.location)
        yield found if weak else None


RULES = (
    Rule(
        id="A01",
        title="a flow's target is at most the product of the availability of its hard dependencies",
        severity="error",
        rationale="a target above this product is missed even if every dependency meets its own objective",
        source="ACM Queue, Calculus of Service Availability",
        violates="99.95% over a gateway of 99.99%, a service of 99.95% and a store of 99.99% (99.93% together)",
        holds="99.93% over the same three dependencies",
        check=flows_attainable,
    ),
    Rule(
        id="A02",
        title="a hard dependency is one nine better than the flows that need it",
        severity="warning",
        rationale="a dependency that is only as good as its caller spends the whole error budget alone",
        source="ACM Queue, Calculus of Service Availability: the rule of the extra 9",
        violates="a flow of 99.9% over a store of 99.98%",
        holds="the same flow over a store of 99.99%",
        check=one_nine_better,
    ),
)
