"""The rate of each operation, computed from the declared load and the typical calls of each operation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from components.operation import Call, Operation
from stack.model.call_graph import CallGraph, Edge, OperationKey

__all__ = ["by_node", "calls_per_run", "entrances", "executions"]


def calls_per_run(operation: Operation) -> Iterator[tuple[Call, float]]:
    """Each call, with the typical number of times that one run of the operation makes the call."""
    for stage in operation.stages:
        choices = len(stage.calls) if stage.choice == "one" else 1
        yield from ((call, stage.typical_rounds / choices * float(call.share)) for call in stage.calls)


def once(_edge: Edge) -> float:
    """One attempt for each call."""
    return 1.0


def entrances(graph: CallGraph) -> dict[OperationKey, float]:
    """The operations at which requests arrive from outside, and their declared rate per second."""
    return {run.key: run.operation.load.per_second for run in graph.bottom_up if run.operation.load}


def executions(
    graph: CallGraph,
    attempts: Callable[[Edge], float] = once,
    arrivals: Mapping[OperationKey, float] | None = None,
) -> dict[OperationKey, float]:
    """The rate of each operation in runs per second, caused by arrivals from outside and by the events that follow.

    `attempts` is the number of requests that one call makes. `arrivals` maps operations to their requests per second
    from outside; the default is `entrances`.
    """
    rates: dict[OperationKey, float] = defaultdict(float)
    arrivals = entrances(graph) if arrivals is None else arrivals
    consumers: dict[str, list[OperationKey]] = defaultdict(list)
    for run in graph.bottom_up:
        for event in run.operation.consumes:
            consumers[event].append(run.key)
    # Each round adds the runs that the previous round's events cause. If events form a cycle, the range ends the loop.
    for _ in range(1 + sum(map(len, consumers.values()))):
        added = _called(graph, arrivals, attempts)
        caused: dict[OperationKey, float] = defaultdict(float)
        for run in graph.bottom_up:
            rate = added[run.key]
            rates[run.key] += rate
            for event in run.operation.publishes if rate else ():
                for consumer in consumers[event]:
                    caused[consumer] += rate
        if not caused:
            break
        arrivals = caused
    return rates


def by_node(rates: Mapping[OperationKey, float]) -> dict[str, float]:
    """The rate of each node, over all its operations. 0 for a node without load."""
    total: dict[str, float] = defaultdict(float)
    for (node, _), rate in rates.items():
        total[node] += rate
    return total


def _called(
    graph: CallGraph, arrivals: Mapping[OperationKey, float], attempts: Callable[[Edge], float]
) -> dict[OperationKey, float]:
    """The runs that the arrivals cause through synchronous calls, including the arrivals themselves."""
    rates: dict[OperationKey, float] = defaultdict(float, arrivals)
    for run in reversed(graph.bottom_up):
        if rate := rates[run.key]:
            for edge, (_, each) in zip(run.edges, calls_per_run(run.operation), strict=True):
                rates[edge.key] += rate * each * attempts(edge)
    return rates
