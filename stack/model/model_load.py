"""The load of model routes: the calls that each kind of request causes, with the tokens and deadline of these calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from voice_policies import Duration, ModelRoute

from components.models import Deployment, ModelDependency
from components.operation import ModelUse
from stack.model.call_graph import CallGraph, Edge, OperationKey
from stack.model.load import calls_per_run, entrances, executions

__all__ = ["ModelDemand", "model_demands", "model_edges"]


@dataclass(frozen=True, slots=True)
class ModelDemand:
    """The calls of one route that one kind of request causes."""

    edge: Edge
    """The call to the model."""
    arrival: Edge | None
    """The call by which the requests arrive at the caller; `None` if they come from outside the platform."""
    rate: float
    """Calls a second."""
    route: ModelRoute
    models: ModelDependency

    @property
    def path(self) -> str:
        """The kind of request and the route."""
        return f"{self.arrival.path} → {self.name}" if self.arrival else self.edge.path

    @property
    def name(self) -> str:
        """The name of the route."""
        return ".".join(self.edge.key)

    @property
    def use(self) -> ModelUse:
        """The size of a call, declared by the arriving call or by the route."""
        declared = self.arrival.call.model_use if self.arrival else None
        return declared or self.edge.target.model_use or ModelUse()

    @property
    def objective(self) -> Duration:
        """P95 latency that the arriving call expects, or else the objective of the operation that calls the model."""
        return self.arrival.latency if self.arrival else self.edge.operation.latency

    @property
    def deadline(self) -> Duration:
        """Longest time that a call to the model may take.

        It is the shortest of the route's total timeout, the operation's deadline and a propagated deadline.
        """
        own = min(self.route.timeout.total, self.edge.operation.deadline)
        if self.arrival is None or not self.arrival.propagates_deadline:
            return own
        return min(own, self.arrival.attempt_timeout)

    @property
    def candidates(self) -> tuple[Deployment, ...]:
        """The deployments of the route, in order of preference."""
        return self.models.candidates(self.route)

    @property
    def requests_per_call(self) -> float:
        """Maximum number of requests for each call while no provider fails: 1 plus the hedged share."""
        return 1.0 + (float(self.route.hedge.budget.ratio.fraction) if self.route.hedge else 0.0)

    @property
    def tokens_per_minute(self) -> float:
        """Mean number of input and output tokens of all calls in a minute, hedged requests included."""
        return self.rate * self.requests_per_call * (self.use.input_mean + self.use.output_mean) * 60

    @property
    def streams(self) -> float:
        """Mean number of the provider's streams that are open."""
        return self.rate * self.use.seconds_mean

    @property
    def micro_usd(self) -> int:
        """Mean cost of a request to the preferred candidate, in millionths of a US dollar. 0 without a price."""
        price = self.candidates[0].model.price
        return price.micro_usd(self.use.input_mean, self.use.output_mean) if price else 0


def model_edges(graph: CallGraph) -> Iterator[tuple[Edge, ModelRoute, ModelDependency]]:
    """Every call to a model, with its route and the dependency that serves the route."""
    for edge in graph.edges:
        if edge.route and isinstance(edge.callee, ModelDependency):
            yield edge, edge.route, edge.callee


def model_demands(graph: CallGraph, entering: Mapping[OperationKey, float] | None = None) -> Iterator[ModelDemand]:
    """The demand on every route, by the kinds of requests that cause it.

    `entering` maps entrances to their arrivals per second. The default is the declared load of every entrance.
    """
    if next(model_edges(graph), None) is None:
        return
    outside = entrances(graph) if entering is None else entering
    rates = executions(graph, arrivals=outside)
    arrivals: dict[OperationKey, list[tuple[Edge | None, float]]] = defaultdict(list)
    for run in graph.bottom_up:
        for edge, (_, each) in zip(run.edges, calls_per_run(run.operation), strict=True):
            arrivals[edge.key].append((edge, rates[run.key] * each))
        if run.key in outside:
            arrivals[run.key].append((None, outside[run.key]))
    for run in graph.bottom_up:
        for edge, (_, each) in zip(run.edges, calls_per_run(run.operation), strict=True):
            if edge.route and isinstance(edge.callee, ModelDependency):
                for arrival, rate in arrivals[run.key] or [(None, rates[run.key])]:
                    yield ModelDemand(edge, arrival, rate * each, edge.route, edge.callee)
