"""Objectives and error budgets that the catalogue declares, by operation and by route."""

from __future__ import annotations

from voice_policies import Duration, Ratio

from stack.model.call_graph import CallGraph

__all__ = ["RATE_LIMITED_BUDGET", "SLOW_BUDGET", "TIMEOUT_BUDGET", "failure_budget", "first_byte_objective"]

FAILURE_BUDGET = Ratio("1%")
"""Of a route that no flow with an availability uses: answers with a 5xx status (the platform's targets)."""
TIMEOUT_BUDGET = Ratio("2%")
"""Of a route: answers with status 504 (the platform's targets)."""
RATE_LIMITED_BUDGET = Ratio("0.5%")
"""Of a route: answers with status 429 (the platform's targets)."""
SLOW_BUDGET = Ratio("5%")
"""Requests that may take longer than the objective for their P95, which is what a P95 is."""


def failure_budget(graph: CallGraph, route: str) -> float:
    """Share of a route's answers that may be a failure: what the strictest of its flows leaves."""
    availabilities = [float(flow.availability) for flow in graph.flows if flow.route == route and flow.availability]
    return 1 - max(availabilities, default=1 - float(FAILURE_BUDGET))


def first_byte_objective(graph: CallGraph, route: str) -> Duration | None:
    """P95 objective of the first byte of a route's streamed answer; `None` where no flow declares one."""
    milestones = (each for flow in graph.flows if flow.route == route for each in flow.milestones)
    return min((each.target for each in milestones if each.first_stage), default=None)
