"""Rows for the architecture document: the tokens and speed of each request's model call, and each route's load."""

from __future__ import annotations

from collections.abc import Iterator

from stack.model.call_graph import CallGraph
from stack.model.model_load import ModelDemand, model_demands, model_edges

Row = dict[str, str]


def demand_rows(graph: CallGraph) -> Iterator[Row]:
    """Each kind of request with the size of its model call, its objective, and the speed that the objective needs."""
    for demand in model_demands(graph):
        use, slowest = demand.use, max(each.latency.whole(demand.use.output_max) for each in demand.candidates)
        yield {
            "request": demand.arrival.path if demand.arrival else demand.edge.path,
            "route": demand.name,
            "input": f"{use.input_p95:,} ({use.input_mean:,})" if use.input_p95 else f"({use.input_mean:,})",
            "output": f"{use.output_max:,} ({use.output_mean:,})" if use.output_max else "–",
            "whole": _milliseconds(slowest.seconds),
            "objective": str(demand.objective),
            "speed": _needed_speed(demand),
        }


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"


def _needed_speed(demand: ModelDemand) -> str:
    """The tokens a second, after the first token, with which the longest answer meets the objective."""
    tokens = demand.use.output_max - 1
    if tokens < 1:
        return "–"
    first = max(each.latency.first_token for each in demand.candidates)
    return f"{tokens / (demand.objective - first).seconds:,.0f}" if first < demand.objective else "impossible"


def route_rows(graph: CallGraph) -> Iterator[Row]:
    """Each route with its candidates, attempts and time limits, its load, and the quotas of its candidates."""
    demands = list(model_demands(graph))
    for edge, route, models in model_edges(graph):
        name, timeout = ".".join(edge.key), route.timeout
        of_route = [demand for demand in demands if demand.name == name]
        tokens, streams = (sum(getattr(each, field) for each in of_route) for field in ("tokens_per_minute", "streams"))
        yield {
            "route": name,
            "class": route.latency_class,
            "candidates": ", ".join(
                f"{each.name} ({models.provider(each).host.host})" for each in models.candidates(route)
            ),
            "attempts": str(route.fallback.max_attempts)
            + (f", hedged after {route.hedge.delay}" if route.hedge else ""),
            "timeout": f"{timeout.first_token}, {timeout.idle}, {timeout.total}",
            "load": f"{tokens / 1e6:,.1f} million tokens a minute" if not streams else f"{streams:,.0f} streams",
            "quota": " + ".join(_quota(each.tokens_per_minute, each.streams) for each in models.candidates(route)),
        }


def _quota(tokens: int | None, streams: int | None) -> str:
    return f"{tokens / 1e6:,.0f} million" if tokens else f"{streams:,}" if streams else "none"
