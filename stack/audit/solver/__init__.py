"""The budget solver: values with which the T, C and R rules hold, and the bounds that no values satisfy.

The solver chooses attempts, P95 objectives, timeouts, deadlines and circuit breakers. Grace periods and the timeouts of
gateway and mesh follow from these values when the platform is rendered. The solver never changes targets, objectives of
dependencies, loads or capacities. It keeps each declared value that the rules permit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial

from voice_policies import Fault, InvalidInputError

from components.network_policy import NAME_LABEL
from stack.audit import audit_outcome
from stack.audit.finding import Finding
from stack.audit.idle_connections import gateway_timeouts
from stack.audit.rendered import rendered
from stack.audit.solver import attempts
from stack.audit.solver.breakers import breakers
from stack.audit.solver.constraint import Constraint
from stack.audit.solver.times import Budgets, missed_targets, objectives
from stack.audit.solver.values import Change, Values, changes, with_values
from stack.model.platform import Platform

__all__ = ["solve"]

FAMILIES = ("T", "C", "R")


@dataclass(frozen=True, slots=True)
class Solution:
    """The solver's result for one environment."""

    platform: Platform
    """The platform with the solver's values."""
    changes: tuple[Change, ...]
    following: tuple[Change, ...]
    """Rendered values that follow from the changes: grace periods, and timeouts of gateway and mesh."""
    infeasible: tuple[Constraint, ...]
    remaining: tuple[Finding, ...]
    """Other findings of the T, C and R rules that the values do not remove and that nobody accepted."""
    refused: tuple[Fault, ...]
    """Faults of the catalogue. Because of them the platform refuses to render, even with the new values."""

    @property
    def clean(self) -> bool:
        """True if nothing needs a change."""
        return not (self.changes or self.infeasible or self.remaining or self.refused)


def solve(platform: Platform, *, on: date) -> Solution:
    """Values that satisfy the T, C and R rules, as near to the declared values as possible.

    `on` is the day for which the audit decides whether an acceptance has expired.
    """
    steps: tuple[Callable[[Platform], Values], ...] = (
        attempts.clients,
        partial(attempts.retries, on=on),
        attempts.relief,
        lambda solved: objectives(solved.graph),
        lambda solved: Values() if _too_tight(solved) else Budgets(solved.graph).values(),
        breakers,
    )
    solved = platform
    for step in steps:
        solved = with_values(solved, step(solved))
    infeasible = (*missed_targets(solved.graph), *_too_tight(solved), *attempts.infeasible(solved))
    changed = tuple(changes(platform, solved))
    try:
        found = audit_outcome(solved, on=on).open
    except InvalidInputError as refusal:
        return Solution(solved, changed, (), infeasible, (), refusal.faults)
    named = {(bound.rule, bound.path) for bound in infeasible}
    others = (finding for finding in found if (finding.rule, finding.path) not in named)
    remaining = tuple(finding for finding in others if finding.rule.startswith(FAMILIES))
    return Solution(solved, changed, tuple(_following(platform, solved)), infeasible, remaining, ())


def _too_tight(platform: Platform) -> tuple[Constraint, ...]:
    return tuple(Budgets(platform.graph).infeasible())


def _following(before: Platform, after: Platform) -> Iterator[Change]:
    """The rendered times that differ. Empty if the platform refuses to render the declared values."""
    try:
        old, new = _rendered_times(before), _rendered_times(after)
    except InvalidInputError:
        return
    for (path, field), value in new.items():
        if (known := old.get((path, field))) != value:
            yield Change(path, field, str(known), value, None)


def _rendered_times(platform: Platform) -> dict[tuple[str, str], str]:
    """Grace periods of pods, and timeouts of the gateway's routes and of the mesh's routes."""
    found = rendered(platform)
    graces = {(each.path, "terminationGracePeriodSeconds"): str(each.grace) for each in found.workloads}
    routes = {(f"route {route}", "upstream.timeout"): timeout for route, timeout in gateway_timeouts(platform)}
    meshed = {
        (f"VirtualService {service['metadata']['name']}, {match['sourceLabels'][NAME_LABEL]}", "timeout"): each[
            "timeout"
        ]
        for service in found.of_kind("VirtualService")
        for each in service["spec"]["http"]
        for match in each.get("match", ())
    }
    return graces | routes | meshed
