"""The availability of each flow over its hard dependencies, and the calls to soften for a target (rules A01, A02)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import compress, product
from math import prod
from operator import itemgetter

from voice_policies import ModelRoute

from components.models import ModelDependency
from components.node import Dependency, External, Gateway, Host, InCluster, Node, Service
from components.operation import Operation
from stack.audit.ledgers.table import Cell, Column, Ledger, Table
from stack.model.call_graph import CallGraph, Edge
from stack.model.flow import Flow
from stack.model.platform import Platform
from stack.model.site import Site

__all__ = ["flow_availability"]

GAIN = 1e-9
"""Smallest difference between two availabilities that counts. Floating-point errors are smaller."""


@dataclass(frozen=True, slots=True)
class Group:
    """Addresses of a dependency. A call succeeds if at least one of them is up.

    The group of a model call has the addresses of the first `fallback.max_attempts` candidates of its route.
    """

    availability: float
    """Availability of each member."""
    members: tuple[tuple[str, str | None], ...]
    """Address and egress proxy of each member, in the order of the addresses."""

    def any_up(self, up: Collection[str]) -> float:
        """Probability that at least one member can be reached while only the proxies in `up` are up."""
        down = [1 - self.availability if proxy is None or proxy in up else 1.0 for _, proxy in self.members]
        return 1 - prod(down)

    @property
    def proxies(self) -> set[str]:
        """The egress proxies of the members."""
        return {proxy for _, proxy in self.members if proxy is not None}


def _group(dependency: Dependency, route: ModelRoute | None) -> Group:
    """The addresses of a dependency, or of the candidates that the attempts of a model call can reach."""
    addresses = dependency.addresses
    if route and isinstance(dependency, ModelDependency):
        reached = dependency.candidates(route)[: route.fallback.max_attempts]
        addresses = tuple(dict.fromkeys(dependency.provider(each).host for each in reached))
    members = tuple((_name(address), address.egress if isinstance(address, Host) else None) for address in addresses)
    return Group(float(dependency.availability), tuple(sorted(members, key=itemgetter(0))))


def _name(address: Host | InCluster | External) -> str:
    return address.service if isinstance(address, InCluster) else address.host


@dataclass(slots=True)
class HardDependencies:
    """Everything that must be up for an operation to succeed.

    Each node and each group counts once, however often it is called.
    """

    site: Site
    singles: dict[str, float] = field(default_factory=dict)
    """Node → its own availability."""
    groups: dict[str, Group] = field(default_factory=dict)
    """Name → the addresses of a dependency with several addresses."""
    egress: set[str] = field(default_factory=set)
    """Egress proxies of the dependencies that have only one address."""
    calls: dict[str, list[Edge]] = field(default_factory=lambda: defaultdict(list))
    """Callee → the hard calls to it."""
    soft: dict[str, list[Edge]] = field(default_factory=lambda: defaultdict(list))
    """Callee → the soft calls to it."""

    def add(self, node: Node, operation: Operation) -> None:
        """Add a node, because its operation must succeed."""
        if isinstance(node, Service):
            self.singles[node.name] = self.site.own_availability[node.tier]
        elif isinstance(node, Gateway):
            self.singles[node.name] = node.availability
        elif isinstance(node, Dependency) and len((group := _group(node, operation.route)).members) > 1:
            self.groups[self._name_of(node, operation, group)] = group
        elif isinstance(node, Dependency):
            self.singles[node.name] = node.availability
            self.egress |= group.proxies

    def _name_of(self, node: Node, operation: Operation, group: Group) -> str:
        """Key of the group: the node's name, or `node.operation` if the node's name has another group already."""
        return node.name if self.groups.get(node.name, group) == group else f"{node.name}.{operation.name}"

    def availability(self) -> float:
        """Probability that every dependency is up. An egress proxy that several dependencies share counts once.

        A proxy that is down is down for all its callers. So the sum runs over every combination of working proxies.
        Within one combination, a group is up if at least one member and the proxy of that member are up. Two groups
        with different addresses count as independent, even if they share an address.
        """
        proxies = sorted(self.egress | {proxy for group in self.groups.values() for proxy in group.proxies})
        each = self.site.egress_availability
        total = 0.0
        for state in product((True, False), repeat=len(proxies)):
            up = set(compress(proxies, state))
            if self.egress <= up:
                chance = prod(each if proxy in up else 1 - each for proxy in proxies)
                total += chance * prod(group.any_up(up) for group in self.groups.values())
        return total * prod(self.singles.values())

    def each(self) -> dict[str, float]:
        """Availability of every dependency with one address, of their egress proxies, and of every group.

        A group's availability assumes that its egress proxies are up.
        """
        alone = {name: group.any_up(group.proxies) for name, group in self.groups.items()}
        return {**self.singles, **dict.fromkeys(sorted(self.egress), float(self.site.egress_availability)), **alone}

    @property
    def soft_alone(self) -> dict[str, list[Edge]]:
        """Callee → the calls to it, for callees without a hard call."""
        return {name: calls for name, calls in self.soft.items() if name not in self.calls}

    def arithmetic(self) -> str:
        """The factors of the product, for a finding."""
        singles = [f"{name} {100 * value:.10g}%" for name, value in self.singles.items()]
        groups = [f"{name} 1 − Π(1 − {100 * group.availability:.10g}% × egress)" for name, group in self.groups.items()]
        return " × ".join(
            [*singles, *(f"{proxy} {self.site.egress_availability}" for proxy in sorted(self.egress)), *groups]
        )


def flow_availability(graph: CallGraph, flow: Flow, softened: Collection[str] = ()) -> HardDependencies:
    """The direct and indirect hard dependencies of a flow. Calls to the callees in `softened` count as soft."""
    found = HardDependencies(graph.site)
    seen: set[tuple[str, str]] = set()

    def visit(node: Node, operation: Operation) -> None:
        if (node.name, operation.name) in seen:
            return
        seen.add((node.name, operation.name))
        found.add(node, operation)
        for call in operation.calls:
            edge = graph.edge(node, operation, call)
            if (call.soft and not call.needed_by_flows) or call.callee in softened:
                found.soft[call.callee].append(edge)
            else:
                found.calls[call.callee].append(edge)
                visit(edge.callee, edge.target)

    visit(*graph.entrance(flow))
    return found


@dataclass(frozen=True, slots=True)
class Softening:
    """A callee, and a flow's availability if all its hard calls to the callee become soft."""

    calls: tuple[Edge, ...]
    availability: float

    @property
    def text(self) -> str:
        """The calls to change."""
        return "; ".join(edge.path for edge in self.calls)


def softenings(graph: CallGraph, flow: Flow, softened: tuple[str, ...] = ()) -> list[Softening]:
    """The callees whose softening raises a flow's availability, the largest gain first.

    Callees that the gateway calls are not among them.

    All hard calls to a callee change together: as long as one call is hard, the callee must be up.
    """
    before = flow_availability(graph, flow, softened)
    found = (
        Softening(tuple(calls), flow_availability(graph, flow, (*softened, callee)).availability())
        for callee, calls in before.calls.items()
        if not any(isinstance(edge.caller, Gateway) for edge in calls)
    )
    gains = [each for each in found if each.availability > before.availability() + GAIN]
    return sorted(gains, key=lambda each: -each.availability)


def softenings_to_target(graph: CallGraph, flow: Flow, target: float) -> list[Softening]:
    """The calls to soften until a flow reaches its target. Each step softens the calls with the largest gain.

    Empty if the flow reaches the target already, or if no call can be softened. If softening is not
    enough, the last entry still misses the target.
    """
    chosen: list[Softening] = []
    reached = flow_availability(graph, flow).availability()
    while reached < target and (best := softenings(graph, flow, tuple(each.calls[0].callee.name for each in chosen))):
        chosen.append(best[0])
        reached = best[0].availability
    return chosen


def availability_ledger(platform: Platform) -> Ledger:
    """Three tables: the flows, their dependencies, and the calls to soften for a higher availability."""
    graph = platform.graph
    return Ledger("availability", (_flows(graph), _dependencies(graph), _softenings(graph)))


FLOW_COLUMNS = (
    Column("flow"),
    Column("target", ".4%"),
    Column("product of dependencies", ".4%"),
    Column("minutes down a month", ",.1f"),
    Column("hard dependencies", ",d"),
    Column("soft dependencies", ",d"),
    Column("calls to soften to reach the target"),
)


def _flows(graph: CallGraph) -> Table:
    return Table("availability of the flows", FLOW_COLUMNS, tuple(_flow_row(graph, flow) for flow in graph.flows))


MINUTES = 730 * 60
"""Minutes of a mean month."""


def _flow_row(graph: CallGraph, flow: Flow) -> tuple[Cell, ...]:
    found = flow_availability(graph, flow)
    reached, target = found.availability(), None if flow.availability is None else float(flow.availability)
    return (
        flow.name,
        target,
        reached,
        (1 - reached) * MINUTES,
        len(found.each()),
        len(found.soft_alone),
        "no target" if target is None else _way_text(graph, flow, target),
    )


def _way_text(graph: CallGraph, flow: Flow, target: float) -> str:
    if flow_availability(graph, flow).availability() >= target:
        return "already reached"
    chosen = softenings_to_target(graph, flow, target)
    calls = "; ".join(each.text for each in chosen)
    if chosen and chosen[-1].availability >= target:
        return calls
    return f"not reached, even with {calls}" if chosen else "not reached: no call can be softened"


def _dependencies(graph: CallGraph) -> Table:
    columns = (
        Column("flow"),
        Column("dependency"),
        Column("kind"),
        Column("own availability", ".4%"),
        Column("calls"),
    )
    rows = tuple(row for flow in graph.flows for row in _dependency_rows(graph, flow))
    note = (
        "A dependency counts once for a flow, however many calls reach it. A dependency of the kind “one of several”"
        " has several addresses, or several candidates for a model call. A call succeeds if one of these is up. Model"
        " calls with different candidates have separate rows."
    )
    return Table("dependencies of the flows", columns, rows, (note,))


def _dependency_rows(graph: CallGraph, flow: Flow) -> Iterator[tuple[Cell, ...]]:
    found = flow_availability(graph, flow)
    for name, availability in found.each().items():
        kind = "one of several" if name in found.groups else "hard"
        yield flow.name, name, kind, availability, _callers(found.calls.get(name, ()))
    for name, calls in found.soft_alone.items():
        yield flow.name, name, "soft", None, _callers(calls)


def _callers(edges: Iterable[Edge]) -> str:
    return ", ".join(dict.fromkeys(f"{edge.caller.name}.{edge.operation.name}" for edge in edges)) or "–"


def _softenings(graph: CallGraph) -> Table:
    columns = (Column("flow"), Column("new availability", ".4%"), Column("gain", ".4%"), Column("calls to soften"))
    rows = []
    for flow in graph.flows:
        reached = flow_availability(graph, flow).availability()
        rows += [
            (flow.name, each.availability, each.availability - reached, each.text) for each in softenings(graph, flow)
        ]
    return Table("availability if all calls to one callee were soft", columns, tuple(rows))
