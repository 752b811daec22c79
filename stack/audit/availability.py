"""A01, A02: a flow's availability is at most the product of the availabilities of its hard dependencies."""

from __future__ import annotations

from collections.abc import Iterator

from stack.audit.finding import Breach, Rule
from stack.audit.ledgers.availability import flow_availability
from stack.model.platform import Platform

NINE = 0.1
"""Largest share of a flow's error budget that one dependency may spend."""
ROUNDING = 1e-12
"""Tolerance for floating-point errors, smaller than any difference between two targets."""


def flows_attainable(platform: Platform) -> Iterator[Breach | None]:
    """Compare each flow's target with the product of the availabilities of its hard dependencies."""
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


def dependencies_are_one_nine_better(platform: Platform) -> Iterator[Breach | None]:
    """Check that each hard dependency of a flow spends at most a tenth of the flow's error budget."""
    for flow in platform.graph.flows:
        if flow.availability is None:
            continue
        least = 1 - (1 - float(flow.availability)) * NINE
        needed = flow_availability(platform.graph, flow)
        weak = {name: value for name, value in needed.each().items() if value < least - ROUNDING}
        weakest = ", ".join(f"{name} {100 * value:.6g}%" for name, value in weak.items())
        text = f"{weakest} < {least:.4%} = 1 − (1 − {float(flow.availability):.4%}) × {NINE}"
        found = Breach(f"flow {flow.name}", text, "the target of the flow, or a fallback", "", flow.location)
        yield found if weak else None


RULES = (
    Rule(
        id="A01",
        title="a flow's target is at most the product of the availability of its hard dependencies",
        severity="error",
        rationale="a target above this product is missed even if every dependency meets its own objective",
        source="ACM Queue, Calculus of Service Availability",
        violates="a target of 99.95% with a gateway of 99.99%, a service of 99.95%, a store of 99.99%: product 99.93%",
        holds="a target of 99.93% with the same three dependencies",
        check=flows_attainable,
    ),
    Rule(
        id="A02",
        title="a hard dependency spends at most a tenth of the error budget of each flow that needs it",
        severity="warning",
        rationale="a dependency with the same target as the flow can spend the flow's whole error budget",
        source="ACM Queue, Calculus of Service Availability: the rule of the extra 9",
        violates="a flow with a target of 99.9% that needs a store of 99.98%",
        holds="the same flow with a store of 99.99%",
        check=dependencies_are_one_nine_better,
    ),
)
