from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from voice_policies import Duration, Retry

from components.node import Node
from components.operation import Call, Operation, Stage, hard, loop, operation, soft, stage
from stack.audit.solver import Solution, solve
from stack.audit.solver.constraint import Constraint
from stack.audit.timeouts import critical_path, worst_case
from stack.model.platform import Platform
from tests.platforms import DAY
from tests.small import datastore, gateway, service, small_platform
from tests.stack.audit import rule_findings
from tests.stack.audit.test_solver import broken_rules

PROPERTY = settings(max_examples=100, deadline=None)
MILLISECONDS = st.integers(1, 300).map(lambda count: f"{count}ms")
DEADLINES = st.integers(1, 9000).map(lambda count: f"{count}ms")
RETRIES = st.builds(
    Retry,
    max_retries=st.integers(0, 4),
    base_delay=st.sampled_from([Duration("0s"), Duration("20ms"), Duration("900ms")]),
)


@st.composite
def calls(draw: st.DrawFn, targets: list[str], number: int, *, with_timeouts: bool) -> Call:
    options: dict[str, Any] = {
        "purpose": f"call-{number}",
        "retry": draw(st.none() | RETRIES),
        "timeout": draw(st.none() | DEADLINES.map(Duration)) if with_timeouts else None,
    }
    target = draw(st.sampled_from(targets))
    if draw(st.booleans()):
        return hard(target, "idempotent", **options)
    return soft(target, "without", "idempotent", **options)


@st.composite
def stages(draw: st.DrawFn, targets: list[str], number: int, *, with_timeouts: bool) -> Stage:
    made = [
        draw(calls(targets, 10 * number + index, with_timeouts=with_timeouts))
        for index in range(draw(st.integers(1, 2)))
    ]
    rounds = draw(st.integers(1, 30))
    return stage(*made) if rounds % 3 else loop(*made, at_most=rounds, typically=1)


@st.composite
def platforms(draw: st.DrawFn, *, with_timeouts: bool = True) -> Platform:
    """Up to four services and a route to the last service. Each service calls stores or earlier services."""
    nodes: list[Node] = [
        datastore(name, operation("read", p95=draw(MILLISECONDS), deadline=draw(DEADLINES))) for name in ("one", "two")
    ]
    targets = ["one.read", "two.read"]
    for index in range(draw(st.integers(1, 4))):
        made = [draw(stages(targets, number, with_timeouts=with_timeouts)) for number in range(draw(st.integers(1, 2)))]
        run = operation("run", *made, p95=draw(MILLISECONDS), deadline=draw(DEADLINES))
        nodes.append(service(f"hop{index}", run))
        targets.append(f"hop{index}.run")
    route = operation("go", stage(hard(targets[-1], "idempotent")), p95=draw(MILLISECONDS), deadline=draw(DEADLINES))
    return small_platform(*nodes, gateway(route), flows=(rule_findings.flow("go", draw(MILLISECONDS)),))


def with_catalogue(whole: Platform, **changes: object) -> Platform:
    catalogue = whole.tenant.catalogue.model_copy(update=changes)
    return Platform(replace(whole.tenant, catalogue=catalogue), whole.environment)


def with_operation(whole: Platform, node: Node, old: Operation, **changes: object) -> Platform:
    nodes: Iterable[Node] = whole.tenant.catalogue.nodes
    changed = tuple(each.model_copy(update=changes) if each.name == old.name else each for each in node.operations)
    return with_catalogue(
        whole,
        nodes=tuple(
            each.model_copy(update={"operations": changed}) if each.name == node.name else each for each in nodes
        ),
    )


def relaxed(whole: Platform, bound: Constraint) -> Platform:
    needed = Duration(bound.needed)
    if bound.path.startswith("flow "):
        flows = (
            each.model_copy(update={"latency": max(each.latency, needed)}) for each in whole.tenant.catalogue.flows
        )
        return with_catalogue(whole, flows=tuple(flows))
    return with_call_objective(whole, bound.path, needed)


def with_call_objective(whole: Platform, path: str, latency: Duration) -> Platform:
    (edge,) = (edge for edge in whole.graph.edges if edge.path == path)
    changed_call = edge.call.model_copy(update={"latency": latency})
    changed = tuple(
        each.model_copy(update={"calls": tuple(changed_call if call is edge.call else call for call in each.calls)})
        for each in edge.operation.stages
    )
    return with_operation(whole, edge.caller, edge.operation, stages=changed)


def pinned(whole: Platform, bound: Constraint) -> Platform:
    """The platform with the bound declared at its call. So relaxing other bounds does not relax this bound.

    By default the bound of a call is the callee's objective. The solver raises that objective together with the
    objectives of the callee's own calls.
    """
    return whole if bound.path.startswith("flow ") else with_call_objective(whole, bound.path, Duration(bound.bound))


def with_least_values(whole: Platform) -> Platform:
    """One attempt of each call, and the shortest deadlines that are enough.

    The audit's own functions compute these values, so that T01 holds, and T04 holds for each operation.
    """
    for key in [run.key for run in whole.graph.bottom_up]:
        run = next(each for each in whole.graph.bottom_up if each.key == key)
        bare = {"retry": None, "timeout": None}
        once = tuple(
            each.model_copy(update={"calls": tuple(call.model_copy(update=bare) for call in each.calls)})
            for each in run.operation.stages
        )
        latency = max(run.operation.latency, critical_path(whole.graph, run.node, run.operation))
        whole = with_operation(whole, run.node, run.operation, stages=once, latency=latency, deadline=latency)
        run = next(each for each in whole.graph.bottom_up if each.key == key)
        least = max(latency, worst_case(whole.graph, run.node, run.operation))
        whole = with_operation(whole, run.node, run.operation, deadline=least)
    return whole


def exceeded(whole: Platform) -> set[tuple[str, str]]:
    findings = (found for rule in ("T01", "T03", "T04") for found in rule_findings.verdict(rule, whole).findings)
    return {(found.rule, found.path) for found in findings}


def named(solution: Solution) -> set[tuple[str, str]]:
    return {(bound.rule, bound.path) for bound in solution.infeasible}


@PROPERTY
@given(platforms())
def test_relaxing_only_the_named_bounds_lets_the_solver_satisfy_every_rule(declared: Platform) -> None:
    """If the objective of a call is relaxed, the target of a flow may be too low, and is relaxed in the next round.

    Three rounds are enough.
    """
    solution = solve(declared, on=DAY)
    for _ in range(3):
        for bound in solution.infeasible:
            declared = relaxed(declared, bound)
        solution = solve(declared, on=DAY)
    assert (solution.infeasible, solution.remaining, solution.refused) == ((), (), ())
    assert broken_rules(solution.platform) == set()
    assert solve(solution.platform, on=DAY).changes == (), "the solver accepts its own values"


@PROPERTY
@given(platforms(with_timeouts=False))
def test_the_solver_names_exactly_the_bounds_that_even_the_least_values_exceed(declared: Platform) -> None:
    assert named(solve(declared, on=DAY)) == exceeded(with_least_values(declared))


def behind(whole: Platform, path: str) -> set[str]:
    """The paths of all calls that the callee of a call makes, directly or through its own callees."""
    found: set[str] = set()
    called = {edge.key for edge in whole.graph.edges if edge.path == path}
    while called:
        edges = [each for each in whole.graph.edges if (each.caller.name, each.operation.name) in called]
        found |= {edge.path for edge in edges}
        called = {edge.key for edge in edges}
    return found


@PROPERTY
@given(platforms(), st.data())
def test_the_solver_still_names_a_bound_after_the_other_bounds_are_relaxed(
    declared: Platform, data: st.DataObject
) -> None:
    """Bounds of the callee's own calls are not relaxed. That would raise the callee's P95, and so the bound."""
    bounds = solve(declared, on=DAY).infeasible
    assume(bounds)
    kept = data.draw(st.sampled_from(bounds))
    declared = pinned(declared, kept)
    for bound in bounds:
        if bound.path not in {kept.path, *behind(declared, kept.path)}:
            declared = relaxed(declared, bound)
    assert (kept.rule, kept.path) in named(solve(declared, on=DAY))
