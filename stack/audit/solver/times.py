"""Objectives and timeouts: four passes over the graph, each linear in its edges.

1. From the callees to the callers, compute the least values. Each call makes one attempt, with the shortest timeout
   that the rules allow. No smaller values satisfy T01. If a least value exceeds a bound, no values satisfy the rules.
   The solver reports that bound as infeasible.
2. From the callees to the callers, compute the wanted values: the values of the catalogue, raised where the callees
   need more time.
3. From the callers to the callees, compute the budgets. The callers and the flows of an operation limit its deadline,
   and all its calls together must fit into the deadline. If the wanted values do not fit, the solver first removes
   retries until the least values fit. Then each call gets least + share × (wanted - least). For example, with share 0.5
   a call between 100 ms and 300 ms gets 200 ms. All calls of the operation have the same share. The total time is
   convex in the share, so the new values fit.
4. From the callees to the callers, lower each raised deadline to the time that its calls need, but not below the
   declared deadline.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from operator import attrgetter

from voice_policies import Duration, SagaStep

from components.node import Node
from components.operation import Operation
from stack.audit.solver.constraint import Constraint
from stack.audit.solver.values import PolicyKey, Values, policy_of
from stack.audit.timeouts import LONGEST_WAIT, ZERO, OfEdge, critical_path, longest, must_fit
from stack.model.call_graph import CallGraph, Edge, OperationKey, Run

FOREVER = Duration("365d")
"""Stands for no limit: the deadline of an operation that nobody calls, or a timeout of `0s`."""
WHOLE = Duration("1ms")
"""The solver rounds a reduced budget down to a multiple of this unit."""
LATENCY: OfEdge = attrgetter("latency")


def objectives(graph: CallGraph) -> Values:
    """Raise each P95 objective that is lower than the sum of the objectives along its critical path (rule T04)."""
    values = Values()
    for run in graph.bottom_up:
        path = critical_path(graph, run.node, run.operation, _latency(values))
        values.operations[run.key]["latency"] = max(run.operation.latency, path)
    return values


def _latency(values: Values) -> OfEdge:
    return lambda edge: edge.call.latency or values.operations[edge.key]["latency"]


def missed_targets(graph: CallGraph) -> Iterator[Constraint]:
    """The flows whose target is below the sum of the objectives along their critical path.

    The graph must already have the latencies that `objectives` returns.
    """
    for flow in graph.flows:
        gateway, route = graph.entrance(flow)
        least = critical_path(graph, gateway, route)
        if least > flow.latency:
            why = "; ".join(_critical_calls(graph, gateway, route))
            field = f"flows.{flow.name}.latency"
            yield Constraint("T04", f"flow {flow.name}", str(flow.latency), str(least), why, field, flow.location)


def _critical_calls(graph: CallGraph, node: Node, operation: Operation) -> Iterator[str]:
    """One sum for each operation on the critical path, such as `a.run = 20ms b.read + 10ms c.read`."""
    while operation.stages:
        slowest = [
            max((graph.edge(node, operation, call) for call in stage.calls), key=LATENCY)
            for stage in operation.stages
            if not stage.overlaps
        ]
        terms = " + ".join(f"{edge.latency} {edge.call.target}" for edge in slowest)
        yield f"{node.name}.{operation.name} = {terms}"
        longest_call = max(slowest, key=LATENCY)
        node, operation = longest_call.callee, longest_call.target


class Budgets:
    """The timeouts of one graph. Calls with the same policy have the same timeout and the same number of attempts."""

    def __init__(self, graph: CallGraph) -> None:
        self._graph = graph
        self._members: dict[PolicyKey, list[Edge]] = defaultdict(list)
        self._callers: dict[OperationKey, list[Edge]] = defaultdict(list)
        for edge in graph.edges:
            self._members[policy_of(edge)].append(edge)
            self._callers[edge.key].append(edge)
        self._once = dict.fromkeys(self._members, 1)
        self._attempts = {
            policy: max(edge.call.max_attempts for edge in edges) for policy, edges in self._members.items()
        }
        self._most = {
            policy: min(edge.latency for edge in edges) * LONGEST_WAIT for policy, edges in self._members.items()
        }
        self._least: dict[PolicyKey, Duration] = {}
        self._least_deadline: dict[OperationKey, Duration] = {}
        for run in graph.bottom_up:
            for edge in run.edges:
                self._least[policy_of(edge)] = self._least_attempt(edge)
            # The model route that an operation serves fixes the deadline of the operation.
            fixed = run.operation.deadline if run.operation.route else run.operation.latency
            self._least_deadline[run.key] = max(fixed, self._sum(run, self._once, self._least))
        for edge in graph.edges:
            self._least.setdefault(policy_of(edge), self._least_attempt(edge))

    def infeasible(self) -> Iterator[Constraint]:
        """The bounds that the least values exceed."""
        for policy, least in self._least.items():
            if least > self._most[policy]:
                yield _too_close(min(self._members[policy], key=LATENCY), least)
        for flow in self._graph.flows:
            gateway, route = self._graph.entrance(flow)
            least, most = self._least_deadline[gateway.name, route.name], flow.latency * LONGEST_WAIT
            if least > most:
                why = f"with one attempt per call the route needs {least} > {LONGEST_WAIT} × {flow.latency} = {most}"
                needed, field = str(_tenth(least)), f"flows.{flow.name}.latency"
                yield Constraint("T03", f"flow {flow.name}", str(flow.latency), needed, why, field, flow.location)
        for run in self._graph.bottom_up:
            for step, total in _saga_steps(run):
                least = total(lambda edge: self._least[policy_of(edge)])
                if least > step.attempt_timeout:
                    path = f"{run.node.name}.{run.operation.name}: {step.name}"
                    why = f"with one attempt per call the step needs {least}"
                    bound, field = str(step.attempt_timeout), f"{step.name}.attempt_timeout"
                    yield Constraint("T01", path, bound, str(least), why, field, run.operation.location)

    def values(self) -> Values:
        """The new timeouts and deadlines, and the removed retries. Call it only if `infeasible` yields nothing."""
        wanted, wanted_deadline = self._wanted()
        given, deadlines = dict(wanted), {}
        for run in reversed(self._graph.bottom_up):
            deadlines[run.key] = min(wanted_deadline[run.key], self._allowed_by_callers(run, given))
            self._share_out(run, deadlines[run.key], given)
        self._lower(deadlines, given)
        return self._changed(given, deadlines)

    def _lower(self, deadlines: dict[OperationKey, Duration], given: dict[PolicyKey, Duration]) -> None:
        for run in self._graph.bottom_up:
            for edge in run.edges:
                if edge.call.timeout is None:
                    given[policy_of(edge)] = deadlines[edge.key] + edge.margin
            needed = max(self._least_deadline[run.key], self._sum(run, self._attempts, given))
            deadlines[run.key] = min(deadlines[run.key], max(run.operation.deadline, needed))

    def _least_attempt(self, edge: Edge) -> Duration:
        """The shortest timeout of one attempt, at least the callee's P95 objective.

        If it may be below the callee's deadline, it is at least the shortest timeout of each hard call of the callee.
        Otherwise it is at least the callee's least deadline.
        """
        promised = max(each.latency for each in self._members[policy_of(edge)])
        if not _may_be_below_deadline(edge):
            return max(promised, self._least_deadline[edge.key] + edge.margin)
        return max([promised, *(self._least[policy_of(inner)] for inner in must_fit(self._graph, edge))])

    def _sum(self, run: Run, attempts: dict[PolicyKey, int], timeouts: dict[PolicyKey, Duration]) -> Duration:
        """The longest time of an operation's calls with these attempts and timeouts."""
        return longest(self._graph, run.node, run.operation, self._overall(attempts, timeouts))

    def _overall(self, attempts: dict[PolicyKey, int], timeouts: dict[PolicyKey, Duration]) -> OfEdge:
        def overall(edge: Edge) -> Duration:
            number, timeout = attempts[policy_of(edge)], timeouts[policy_of(edge)]
            return timeout * number + (edge.waits if number > 1 else ZERO)

        return overall

    def _wanted(self) -> tuple[dict[PolicyKey, Duration], dict[OperationKey, Duration]]:
        """The catalogue's timeouts and deadlines, within their bounds, and raised where the callees need more time."""
        wanted: dict[PolicyKey, Duration] = {}
        deadlines: dict[OperationKey, Duration] = {}
        for run in self._graph.bottom_up:
            for edge in run.edges:
                wanted[policy_of(edge)] = self._within(edge, self._wanted_attempt(edge, wanted, deadlines))
            needed = self._sum(run, self._attempts, wanted)
            deadlines[run.key] = max(run.operation.deadline, needed, self._least_deadline[run.key])
        for edge in self._graph.edges:
            wanted.setdefault(policy_of(edge), self._within(edge, self._wanted_attempt(edge, wanted, deadlines)))
        return wanted, deadlines

    def _wanted_attempt(
        self, edge: Edge, wanted: dict[PolicyKey, Duration], deadlines: dict[OperationKey, Duration]
    ) -> Duration:
        declared, deadline = edge.call.timeout, deadlines[edge.key] + edge.margin
        if declared is None:
            return deadline
        if not declared:
            return FOREVER
        if not _may_be_below_deadline(edge):
            return max(declared, deadline)
        return max([declared, *(wanted[policy_of(inner)] for inner in must_fit(self._graph, edge))])

    def _within(self, edge: Edge, timeout: Duration) -> Duration:
        policy = policy_of(edge)
        return min(max(timeout, self._least[policy]), self._most[policy])

    def _allowed_by_callers(self, run: Run, given: dict[PolicyKey, Duration]) -> Duration:
        """The longest deadline that the callers and the flows of an operation allow."""
        callers = (edge for edge in self._callers[run.key] if not _may_be_below_deadline(edge))
        limits = (given[policy_of(edge)] - edge.margin for edge in callers)
        targets = (flow.latency for flow in self._graph.flows if run.operation is self._graph.entrance(flow)[1])
        return min([FOREVER, *limits, *(target * LONGEST_WAIT for target in targets)])

    def _share_out(self, run: Run, deadline: Duration, given: dict[PolicyKey, Duration]) -> None:
        """Give each call of an operation its part of the deadline."""
        callers = (edge for edge in self._callers[run.key] if _may_be_below_deadline(edge))
        for caller in callers:
            for edge in must_fit(self._graph, caller):
                given[policy_of(edge)] = min(given[policy_of(edge)], given[policy_of(caller)])
        bounds: list[tuple[Duration, Callable[[OfEdge], Duration]]] = [
            (deadline, lambda overall: longest(self._graph, run.node, run.operation, overall)),
            *((step.attempt_timeout, total) for step, total in _saga_steps(run)),
        ]
        share = min(self._fitting_share(run, bound, total, given) for bound, total in bounds)
        for edge in run.edges if share < 1 else ():
            least, most = self._least[policy_of(edge)], given[policy_of(edge)]
            given[policy_of(edge)] = max(least, _whole(least + (most - least) * share))

    def _fitting_share(
        self, run: Run, bound: Duration, total: Callable[[OfEdge], Duration], given: dict[PolicyKey, Duration]
    ) -> float:
        """The largest share, up to 1, with which the calls fit into the bound (pass 3).

        First removes retries, beginning with the call that takes longest, until the least values fit.
        """
        while (least := total(self._overall(self._attempts, self._least))) > bound:
            costs = self._overall(self._attempts, self._least)
            retried = (edge for edge in run.edges if self._attempts[policy_of(edge)] > 1)
            self._attempts[policy_of(max(retried, key=costs))] = 1
        wanted = total(self._overall(self._attempts, given))
        return 1 if wanted <= bound else (bound - least) / (wanted - least)

    def _changed(self, given: dict[PolicyKey, Duration], deadlines: dict[OperationKey, Duration]) -> Values:
        values = Values()
        for run in self._graph.bottom_up:
            if run.operation.deadline != deadlines[run.key]:
                values.operations[run.key]["deadline"] = deadlines[run.key]
            for edge in run.edges:
                policy = policy_of(edge)
                if edge.call.timeout is not None and edge.call.timeout != given[policy]:
                    values.set_call(edge, timeout=given[policy])
                if edge.call.max_attempts != self._attempts[policy]:
                    values.set_call(edge, retry=None)
        return values


def _may_be_below_deadline(edge: Edge) -> bool:
    """True if the call's own timeout may be shorter than its callee's deadline."""
    return edge.call.timeout is not None and edge.propagates_deadline


def _saga_steps(run: Run) -> Iterator[tuple[SagaStep, Callable[[OfEdge], Duration]]]:
    """Each step twice: first with a function for the total time of its calls, then for those of its compensation."""
    rounds = {call.name: stage.max_rounds for stage in run.operation.stages for call in stage.calls}
    edges = {edge.call.name: edge for edge in run.edges}

    def total(names: tuple[str, ...]) -> Callable[[OfEdge], Duration]:
        return lambda overall: sum((overall(edges[name]) * rounds[name] for name in names), ZERO)

    for saga in run.operation.sagas:
        for step in saga.steps:
            yield from ((step, total(names)) for names in (step.calls, step.compensation_calls))


def _whole(duration: Duration) -> Duration:
    return Duration.of_units(duration.units // WHOLE.units * WHOLE.units)


def _tenth(duration: Duration) -> Duration:
    return Duration.of_units(-(-duration.units // LONGEST_WAIT))


def _too_close(edge: Edge, least: Duration) -> Constraint:
    most = edge.latency * LONGEST_WAIT
    why = f"with one attempt per call the callee needs {least} > {LONGEST_WAIT} × {edge.latency} = {most}"
    field = f"{edge.call.target}.latency"
    return Constraint("T03", edge.path, str(edge.latency), str(_tenth(least)), why, field, edge.call.location)
