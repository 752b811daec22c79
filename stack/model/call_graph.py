"""The graph of operations. It joins every declared call with its callee, or refuses the call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from graphlib import TopologicalSorter
from typing import NamedTuple, TypeAlias

from voice_policies import CircuitBreaker, Duration, Fault, InvalidInputError, ModelRoute, Saga, one_of

from components.node import Caller, Dependency, Gateway, Node, Service
from components.operation import Call, Operation, soft
from stack.model.catalogue import Catalogue
from stack.model.flow import Flow

__all__ = ["NETWORK_MARGIN", "CallGraph", "Edge", "OperationKey", "Run"]

OperationKey: TypeAlias = tuple[str, str]
"""Names of a node and of one of its operations."""
NO_TIME = Duration("0s")
NETWORK_MARGIN = Duration("150ms")
"""Time that the gateway waits beyond the callee's deadline, so that the callee ends first. The gateway's requests carry
no deadline."""
# Fallbacks of the calls that publishing and consuming events cause.
OUTBOX = "the event waits in the outbox until its stream accepts it"
APPENDED = "the event is lost and counted"
STREAM = "events wait in their stream"


class Run(NamedTuple):
    """An operation with the calls that it makes synchronously."""

    node: Node
    operation: Operation
    edges: tuple[Edge, ...]

    @property
    def key(self) -> OperationKey:
        """The names of node and operation."""
        return self.node.name, self.operation.name


@cache
def _breaker(restart: Duration) -> CircuitBreaker:
    """The breaker for a restart time. Cached: thousands of calls share a few frozen breakers."""
    return CircuitBreaker.for_restart(restart)


@dataclass(frozen=True, slots=True)
class Edge:
    """One call of one operation, joined with the operation that it calls."""

    caller: Caller
    operation: Operation
    call: Call
    callee: Node
    target: Operation

    @property
    def path(self) -> str:
        """`caller.operation → callee.operation`."""
        return self.caller.label + self.operation.label + self.call.label

    @property
    def source(self) -> str:
        """The line that declares the call."""
        return str(self.call.location)

    @property
    def key(self) -> OperationKey:
        """The names of the called node and of its operation."""
        return self.callee.name, self.target.name

    @property
    def propagates_deadline(self) -> bool:
        """True if the callee receives the caller's deadline: over gRPC between two of our own services."""
        return isinstance(self.caller, Service) and isinstance(self.callee, Service)

    @property
    def route(self) -> ModelRoute | None:
        """The route of a call to a model. `None` for other calls."""
        return self.target.route

    @property
    def max_attempts(self) -> int:
        """Largest number of attempts of one call: by its model route if it has one, else by its retry."""
        return self.route.fallback.max_attempts if self.route else self.call.max_attempts

    @property
    def attempt_timeout(self) -> Duration:
        """Longest time of one attempt."""
        return self.target.deadline + self.margin if self.call.timeout is None else self.call.timeout

    @property
    def margin(self) -> Duration:
        """Time that the caller waits beyond the callee's deadline, so that the answer can arrive."""
        return NETWORK_MARGIN if isinstance(self.caller, Gateway) and isinstance(self.callee, Service) else NO_TIME

    @property
    def waits(self) -> Duration:
        """Longest sum of the waits between all attempts."""
        return self.call.retry.longest_wait() if self.call.retry else NO_TIME

    @property
    def overall_timeout(self) -> Duration:
        """Longest time of the call: every attempt and every wait."""
        return self.attempt_timeout * self.call.max_attempts + self.waits

    @property
    def circuit_breaker(self) -> CircuitBreaker | None:
        """The breaker of the call; by default it stays open for as long as the callee takes to restart."""
        declared = self.call.circuit_breaker
        if declared is None:
            return _breaker(self.callee.restart)
        return None if declared == "off" else declared

    @property
    def latency(self) -> Duration:
        """P95 latency of the call: its own declaration, or the objective of the called operation."""
        return self.call.latency or self.target.latency


def event_calls(operation: Operation) -> Iterator[Call]:
    """The calls that publishing and consuming events cause. They are never on the operation's critical path."""
    if operation.publishes:
        yield soft("events.append", OUTBOX, "with_key").at(operation.location)
    if operation.appends:
        yield soft("events.append", APPENDED, "with_key").at(operation.location)
    if operation.consumes:
        yield soft("events.consume", STREAM).at(operation.location)


def sagas(nodes: Iterable[Node]) -> Iterator[tuple[Node, Operation, Saga]]:
    """Every version of every saga, with the operation that the saga carries out and the node of that operation."""
    for node in nodes:
        for operation in node.operations:
            yield from ((node, operation, saga) for saga in operation.sagas)


class CallGraph:
    """Nodes and the edges between their operations. The constructor refuses a catalogue that has faults."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Join the nodes by their calls. Raises `InvalidInputError` with every fault of nodes, flows and calls.

        Cycles, sagas and the operations that flows name are checked only if there is no such fault.
        """
        self._all = tuple(node for node in catalogue.nodes if not node.faults)
        self._faulty = {node.name for node in catalogue.nodes if node.faults}
        self.nodes: dict[str, Node] = {node.name: node for node in self._all}
        self.flows = catalogue.flows
        self.site = catalogue.site
        self.source = catalogue.source
        self.only_callers = catalogue.only_callers
        self.forbidden = catalogue.forbidden
        faults = [fault for declared in (*catalogue.nodes, *catalogue.flows) for fault in declared.faults]
        faults += [*self._name_faults(), *self._call_faults(), *self._route_faults()]
        if not faults:
            faults += [*self._flow_faults(), *self._cycle_faults(), *self._saga_faults()]
        if faults:
            raise InvalidInputError(catalogue.source, faults)

    @property
    def services(self) -> Iterator[Service]:
        """Our own services, in the catalogue's order."""
        return (node for node in self.nodes.values() if isinstance(node, Service))

    @property
    def gateway(self) -> Gateway | None:
        """The gateway, if there is one."""
        return next((node for node in self.nodes.values() if isinstance(node, Gateway)), None)

    def dependency(self, name: str) -> Dependency | None:
        """The dependency of that name, if it is declared."""
        node = self.nodes.get(name)
        return node if isinstance(node, Dependency) else None

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Every call of every operation, events included."""
        return tuple(
            self.edge(node, operation, call)
            for node in self.nodes.values()
            for operation in node.operations
            for call in (*operation.calls, *event_calls(operation))
        )

    def edge(self, caller: Node, operation: Operation, call: Call) -> Edge:
        """A call joined with its callee; raises `TypeError` for a dependency, which makes no calls."""
        if not isinstance(caller, Caller):
            raise TypeError(f"{caller.name} makes no calls")
        callee = self.nodes[call.callee]
        return Edge(caller, operation, call, callee, callee.operation(call.operation))

    @cached_property
    def _runs(self) -> dict[OperationKey, Run]:
        """Every operation, in the catalogue's order."""
        runs = (
            Run(node, operation, tuple(self.edge(node, operation, call) for call in operation.calls))
            for node in self.nodes.values()
            for operation in node.operations
        )
        return {run.key: run for run in runs}

    @cached_property
    def bottom_up(self) -> tuple[Run, ...]:
        """Every operation, callees before callers, so that one pass can add values up along the calls."""
        callees = {key: [edge.key for edge in run.edges] for key, run in self._runs.items()}
        return tuple(self._runs[key] for key in TopologicalSorter(callees).static_order())

    @cached_property
    def roots(self) -> tuple[Run, ...]:
        """Operations that make calls and that nothing calls, in the catalogue's order."""
        called = {edge.key for run in self._runs.values() for edge in run.edges}
        return tuple(run for run in self._runs.values() if run.key not in called and run.edges)

    def entrance(self, flow: Flow) -> tuple[Gateway, Operation]:
        """The gateway and the route at which a flow begins."""
        if self.gateway is None:
            raise KeyError(flow.route)
        return self.gateway, self.gateway.operation(flow.route)

    def flows_at(self, key: OperationKey) -> tuple[Flow, ...]:
        """The flows that begin at an operation. Flows begin only at routes of the gateway."""
        if self.gateway is None or key[0] != self.gateway.name:
            return ()
        return tuple(flow for flow in self.flows if flow.route == key[1])

    def edges_from(self, node: Node) -> Sequence[Edge]:
        """The calls of one node."""
        return self._edges_by_end[0][node.name]

    def edges_to(self, node: Node) -> Sequence[Edge]:
        """The calls to one node."""
        return self._edges_by_end[1][node.name]

    @cached_property
    def _edges_by_end(self) -> tuple[dict[str, list[Edge]], dict[str, list[Edge]]]:
        """Edges by caller and by callee. Searching all edges for each node would take quadratic time."""
        by_caller: dict[str, list[Edge]] = {name: [] for name in self.nodes}
        by_callee: dict[str, list[Edge]] = {name: [] for name in self.nodes}
        for edge in self.edges:
            by_caller[edge.caller.name].append(edge)
            by_callee[edge.callee.name].append(edge)
        return by_caller, by_callee

    def _name_faults(self) -> Iterator[Fault]:
        lines = defaultdict(list)
        for node in self._all:
            lines[node.name].append(str(node.location))
        for name, found in lines.items():
            if len(found) > 1:
                yield Fault(name, f"is declared {len(found)} times", "expected a unique name", " and ".join(found))
        gateways = [node for node in self._all if isinstance(node, Gateway)]
        for gateway in gateways[1:]:
            accepted = f"expected one gateway: {gateways[0].name!r} is the first"
            yield Fault(gateway.name, "is a gateway", accepted, str(gateway.location))
        known = self.nodes.keys() | self._faulty
        pairs = {"only_callers": self.only_callers.items(), "forbidden": sorted(self.forbidden)}
        for rule, named in pairs.items():
            for name in dict.fromkeys(name for pair in named for name in pair if name not in known):
                yield Fault(rule, f"names {name!r}", one_of(name, known))

    def _call_faults(self) -> Iterator[Fault]:
        for caller in self._all:
            for operation in caller.operations:
                label = caller.label + operation.label
                for call in (*operation.calls, *event_calls(operation)):
                    path, source = label + call.label, str(call.location)
                    yield from self._target_faults(path, call, source)
                    yield from self._rule_faults(path, caller.name, call.callee, source)
                if isinstance(caller, Dependency) and operation.calls:
                    accepted = "expected a dependency without calls: only services and gateways make calls"
                    yield Fault(label, "makes calls", accepted, str(operation.location))

    def _target_faults(self, path: str, call: Call, source: str) -> Iterator[Fault]:
        callee = self.nodes.get(call.callee)
        if call.callee in self._faulty:
            return
        if callee is None or isinstance(callee, Gateway):
            known = {name for name, node in self.nodes.items() if not isinstance(node, Gateway)} | self._faulty
            value = f"calls {call.callee!r}, which is no declared service or dependency"
            yield Fault(path, value, one_of(call.callee, known), source)
        elif not callee.offers(call.operation):
            value = f"calls operation {call.operation!r}, which {call.callee} does not offer"
            yield Fault(path, value, one_of(call.operation, (each.name for each in callee.operations)), source)

    def _route_faults(self) -> Iterator[Fault]:
        """Default routes that nobody declares."""
        routes = {f"{node.name}.{each.name}" for node in self._all for each in node.operations if each.route}
        for node in self._all:
            for operation in node.operations:
                if operation.default_route is not None and operation.default_route not in routes:
                    path, value = f"{node.label}{operation.label}.default_route", f"is {operation.default_route!r}"
                    yield Fault(path, value, one_of(operation.default_route, routes), str(operation.location))

    def _rule_faults(self, path: str, caller: str, callee: str, source: str) -> Iterator[Fault]:
        only = self.only_callers.get(callee)
        if only is not None and caller != only:
            yield Fault(path, "breaks a rule of the catalogue", f"only {only} may call {callee}", source)
        if (caller, callee) in self.forbidden:
            yield Fault(path, "breaks a rule of the catalogue", f"{caller} may never call {callee}", source)

    def _flow_faults(self) -> Iterator[Fault]:
        gateway = self.gateway
        routes = {operation.name for operation in gateway.operations} if gateway else set()
        for flow in self.flows:
            if flow.route not in routes:
                yield Fault(f"{flow.label}.route", f"is {flow.route!r}", one_of(flow.route, routes), str(flow.location))
            named = {f"milestones.{index}.operation": each.operation for index, each in enumerate(flow.milestones)}
            if flow.continues:
                named["continues"] = flow.continues
            for path, name in named.items():
                node, _, operation = name.partition(".")
                if node not in self.nodes or not self.nodes[node].offers(operation):
                    accepted = "expected a declared service.operation"
                    yield Fault(f"{flow.label}.{path}", f"is {name!r}", accepted, str(flow.location))

    def _saga_faults(self) -> Iterator[Fault]:
        """Faults of saga steps that can time out before their calls. A call in a loop counts once for each round."""
        for node, operation, saga in sagas(self._all):
            longest = {
                call.name: self.edge(node, operation, call).overall_timeout * stage.max_rounds
                for stage in operation.stages
                for call in stage.calls
            }
            title = f"{node.label}{operation.label}: saga {saga.name} version {saga.version}"
            for step in saga.steps:
                needed = max(
                    sum((longest[call] for call in calls), NO_TIME) for calls in (step.calls, step.compensation_calls)
                )
                if step.attempt_timeout < needed:
                    path, value = f"{title}: {step.name}.attempt_timeout", f"is {step.attempt_timeout}"
                    accepted = f"expected at least {needed}, the longest time of its calls"
                    yield Fault(path, value, accepted, str(operation.location))

    def _cycle_faults(self) -> Iterator[Fault]:
        """Cycles of synchronous calls, found by depth-first search. If there are cycles, it finds at least one."""
        done: set[OperationKey] = set()
        for start in self._runs.values():
            trail = {} if start.key in done else {start.key: iter(start.edges)}
            while trail:
                key, edges = next(reversed(trail.items()))
                edge = next(edges, None)
                if edge is None:
                    done.add(key)
                    del trail[key]
                elif edge.key in trail:
                    keys = list(trail)
                    path = " → ".join(".".join(each) for each in (*keys[keys.index(edge.key) :], edge.key))
                    yield Fault(path, "is a cycle", "make one of its calls an event", str(edge.target.location))
                elif edge.key not in done:
                    trail[edge.key] = iter(self._runs[edge.key].edges)
