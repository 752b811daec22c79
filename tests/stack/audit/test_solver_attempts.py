from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from voice_policies import CircuitBreaker, Duration, Fault, InvalidInputError, Ratio, Retry, Saga, SagaStep

from components.node import Client, Node, Replicas
from components.operation import hard, operation, stage
from stack.audit import solver
from stack.audit.retries import layers
from stack.audit.solver import Solution, solve
from stack.audit.solver.constraint import Constraint
from stack.audit.solver.report import REPORTS
from stack.audit.solver.values import policy_of
from stack.model.platform import Platform
from stack.model.profile import AcceptedFinding
from tests import toy
from tests.platforms import DAY
from tests.small import gateway, models, service, small_platform
from tests.stack.audit.rule_findings import READ, SNAPSHOT_LINES, STORE, THRICE, TWICE, flow
from tests.stack.audit.test_retries import chain

BY_RATIO = CircuitBreaker(consecutive_failures=None, failure_ratio=Ratio("50%"))


def solution_of(looked_at: Platform) -> Solution:
    found = solve(looked_at, on=DAY)
    SNAPSHOT_LINES.extend(re.sub(r"\.py:\d+", ".py", line) for line in REPORTS["text"](found).splitlines())
    return found


def changed_fields(looked_at: Platform) -> dict[str, tuple[str, str]]:
    return {change.field: (change.old, change.new) for change in solution_of(looked_at).changes}


def calling(idempotency: Any = "idempotent", *, language: str = "python", **call: Any) -> Node:
    made = hard("store.read", idempotency, **call)
    return service("a", operation("run", stage(made), p95="1s", deadline="60s", load="1/s"), language=language)


@pytest.mark.parametrize(
    ("retry", "idempotency", "change"),
    [
        ({"max_retries": 2}, "idempotent", None),
        ({"max_retries": 3}, "idempotent", ("retry.max_retries", "3", "2")),
        ({}, "never", ("retry", "Retry(max_retries=1, base_delay=10ms, max_delay=10ms)", "None")),
        ({"conditions": ("connection_failed",)}, "never", None),
        ({"base_delay": Duration("0s")}, "idempotent", ("retry.base_delay", "0s", "100ms")),
        ({"base_delay": Duration("0s"), "max_retries": 3}, "idempotent", ("retry.max_retries", "3", "2")),
    ],
    ids=[
        "3 attempts",
        "4 attempts",
        "not idempotent",
        "not idempotent, only if unsent",
        "no backoff",
        "4 attempts without backoff",
    ],
)
def test_the_solver_changes_only_those_values_of_a_retry_that_break_a_rule(
    retry: dict[str, Any], idempotency: str, change: tuple[str, str, str] | None
) -> None:
    call = calling(idempotency, retry=TWICE.model_copy(update=retry), circuit_breaker="off")
    found = changed_fields(small_platform(call, STORE))
    assert found.get("retry.max_retries", found.get("retry", found.get("retry.base_delay"))) == (
        change[1:] if change else None
    )


def test_a_backoff_without_a_base_delay_gets_a_base_delay_and_keeps_its_maximum() -> None:
    late = TWICE.model_copy(update={"base_delay": Duration("0s"), "max_delay": Duration("2s")})
    assert changed_fields(small_platform(calling(retry=late, circuit_breaker="off"), STORE)) == {
        "retry.base_delay": ("0s", "100ms")
    }


def go_platform(retry: Retry, *, mesh: bool, accepted: tuple[AcceptedFinding, ...] = ()) -> Platform:
    asked = stage(hard("b.read", "idempotent", retry=retry))
    nodes = (service("a", operation("run", asked, p95="1s", deadline="60s"), language="go"), service("b", READ))
    settings = toy.ENVIRONMENT.settings.model_copy(update={"mesh": mesh, "accepted_findings": accepted})
    return small_platform(*nodes, environment=toy.ENVIRONMENT.model_copy(update={"settings": settings}))


BOTH = ("unavailable", "connection_failed")
"""gRPC has one status for both, so a call names both."""


def acceptance(rule: str = "C05", path: str = "a.run → b.read", days: int = 0) -> AcceptedFinding:
    return AcceptedFinding(rule=rule, path=path, reason="in a test", expires=DAY + timedelta(days=days))


@pytest.mark.parametrize(
    ("conditions", "mesh", "accepted", "kept"),
    [
        ((*BOTH, "aborted"), True, (), ("retry.conditions", "aborted")),
        (BOTH, True, (), ("retry", "None")),
        (BOTH, False, (), None),
        (BOTH, True, (acceptance(),), None),
        (BOTH, True, (acceptance(days=-1),), ("retry", "None")),
        (BOTH, True, (acceptance("R05"),), ("retry", "None")),
    ],
    ids=[
        "one more condition",
        "only refusals",
        "mesh is off",
        "accepted",
        "acceptance expired",
        "another rule accepted",
    ],
)
def test_a_go_service_does_not_retry_the_meshs_refusals_unless_the_finding_is_accepted(
    conditions: tuple[str, ...], mesh: bool, accepted: tuple[AcceptedFinding, ...], kept: tuple[str, str] | None
) -> None:
    retry = TWICE.model_copy(update={"conditions": conditions})
    solution = solution_of(go_platform(retry, mesh=mesh, accepted=accepted))
    changed = [(each.field, each.new) for each in solution.changes if each.field.startswith("retry")]
    assert [field for field, _ in changed] == ([kept[0]] if kept else [])
    assert all(kept and kept[1] in new and "unavailable" not in new for _, new in changed)
    assert solution.refused == ()


@pytest.mark.parametrize(("library", "retries", "changed"), [("unknown", None, False), ("unknown", 1, True)])
def test_a_client_library_is_changed_only_if_it_retries(library: str, retries: int | None, changed: bool) -> None:
    store = STORE.model_copy(update={"clients": (Client(library=library, retries=retries),)})
    assert ("retries" in changed_fields(small_platform(calling(), store))) == changed


@pytest.mark.parametrize("attempts", [(2, 1, 1), (5, 1, 1), (1, 2, 2), (3, 3, 1), (2, 2, 2), (3, 1, 3)], ids=str)
def test_the_retries_of_a_chain_are_reduced_until_the_r_rules_hold(attempts: tuple[int, ...]) -> None:
    hops = [TWICE.model_copy(update={"max_retries": each - 1}) if each > 1 else None for each in attempts]
    assert not [each for each in solution_of(small_platform(*chain(*hops))).remaining if each.rule.startswith("R")]


def test_the_attempts_of_a_model_route_limit_the_retries_of_the_callers() -> None:
    """3 attempts of `a` × 2 candidates = 6 > 5."""
    asking = stage(hard("llm.generate", "idempotent"))
    inner = service("b", operation("run", asking, p95="9s", deadline="60s"), capacity="1000/s")
    thrice = TWICE.model_copy(update={"max_retries": 2})
    outer = service("a", operation("run", stage(hard("b.run", "idempotent", retry=thrice)), p95="9s", deadline="200s"))
    assert changed_fields(small_platform(outer, inner, models()))["retry.max_retries"] == ("2", "1")


def test_retries_of_failed_connections_multiply_the_attempts_of_the_caller() -> None:
    """If the store cannot be reached, hop2 makes 3 attempts, and hop1 makes 2 attempts at hop2. 2 × 3 = 6 > 5."""
    unsent = THRICE.model_copy(update={"conditions": ("connection_failed",)})
    solution = solution_of(small_platform(*chain(TWICE, unsent)))
    assert {change.path for change in solution.changes if change.field == "retry"} == {"hop1.run → hop2.run"}


def test_the_solver_removes_a_hops_retry_if_a_later_hop_retries() -> None:
    calls = stage(hard("hop1.run", "idempotent"), hard("store.read", "idempotent", purpose="side"))
    middle = service("middle", operation("run", calls, p95="1s", deadline="60s"))
    repeated = stage(hard("middle.run", "idempotent", retry=TWICE))
    first = service("first", operation("run", repeated, p95="1s", deadline="200s"))
    solution = solution_of(small_platform(first, middle, *chain(TWICE, None)))
    assert {change.path for change in solution.changes if change.field == "retry"} == {"first.run → middle.run"}
    assert not [each for each in solution.remaining if each.rule == "R02"]


@pytest.mark.parametrize(
    ("declared", "kept"),
    [((THRICE, TWICE), TWICE), ((TWICE, THRICE), TWICE), ((TWICE, None), None)],
    ids=["fewer in the second call", "fewer in the first call", "no retry in the second call"],
)
def test_calls_that_share_a_policy_all_get_the_policy_with_the_fewest_attempts(
    declared: tuple[Retry | None, ...], kept: Retry | None
) -> None:
    made = [
        hard("b.read", "idempotent", purpose=purpose, retry=retry)
        for purpose, retry in zip(("first", "second"), declared, strict=True)
    ]
    caller = service("a", operation("run", stage(*made), p95="1s", deadline="60s"), language="go")
    graph = solution_of(small_platform(caller, service("b", READ))).platform.graph
    assert [edge.call.retry for edge in graph.edges] == [kept, kept]


def saga_platform(attempts: int) -> Platform:
    step = SagaStep(
        name="read",
        no_compensation_because="it only reads",
        calls=("b.read",),
        timeout=Duration("60s"),
        retry=TWICE.model_copy(update={"max_retries": attempts - 1}),
    )
    made = stage(hard("b.read", "idempotent"), hard("store.read", "idempotent"))
    saga = Saga(name="reading", steps=(step,), timeout=Duration("2m"))
    caller = service("a", operation("run", made, p95="1s", deadline="100s", saga=saga))
    return small_platform(caller, service("b", READ), STORE)


def test_a_step_of_a_saga_is_a_layer_of_the_calls_that_it_makes() -> None:
    found = {edge.path: [(each.name, each.attempts) for each in layers(edge)] for edge in saga_platform(2).graph.edges}
    assert found == {"a.run → b.read": [("saga", 2)], "a.run → store.read": []}


def test_the_attempts_of_a_saga_step_limit_the_retries_of_later_calls() -> None:
    """A step makes 2 attempts by default, and `b` makes 3 attempts in each. 2 × 3 = 6 > 5."""
    step = SagaStep(name="read", no_compensation_because="it only reads", calls=("b.run",))
    saga = Saga(name="reading", steps=(step,), timeout=Duration("2m"))
    outer = service("a", operation("run", stage(hard("b.run", "idempotent")), p95="1s", deadline="60s", saga=saga))
    inner = stage(hard("store.read", "idempotent", retry=THRICE))
    callee = service("b", operation("run", inner, p95="100ms", deadline="2s"))
    assert changed_fields(small_platform(outer, callee, STORE))["retry.max_retries"] == ("2", "1")


@pytest.mark.parametrize(("attempts", "feasible"), [(5, True), (6, False)], ids=["5 attempts", "6 attempts"])
def test_a_saga_step_with_more_than_5_attempts_is_infeasible(attempts: int, feasible: bool) -> None:
    why = f"saga steps and model routes alone make {attempts} attempts"
    bound = Constraint("R01", "b.read", "5 attempts", f"{attempts} attempts", why, "max_attempts of a step or route")
    assert solve(saga_platform(attempts), on=DAY).infeasible == (() if feasible else (bound,))


@pytest.mark.parametrize(("objective", "feasible"), [("3s", True), ("4s", False)])
def test_an_attempt_timeout_below_the_objectives_of_a_steps_calls_is_infeasible(objective: str, feasible: bool) -> None:
    callee = service("b", operation("read", p95=objective, deadline="9s"))
    step = SagaStep(name="read", no_compensation_because="it only reads", calls=("b.read",), timeout=Duration("60s"))
    made = stage(hard("b.read", "idempotent", timeout=Duration("1s")))
    saga = Saga(name="reading", steps=(step,), timeout=Duration("2m"))
    running = operation("run", made, p95="5s", deadline="100s", saga=saga)
    why = "with one attempt per call the step needs 4s"
    bound = Constraint("T01", "a.run: read", "3s", "4s", why, "read.attempt_timeout", running.location)
    found = solve(small_platform(service("a", running), callee), on=DAY).infeasible
    assert found == (() if feasible else (bound,))


@pytest.mark.parametrize(("latency", "feasible"), [("400ms", True), ("399ms", False)])
def test_a_route_that_needs_over_10_times_its_target_without_retries_is_infeasible(
    latency: str, feasible: bool
) -> None:
    target = flow("ask", latency)
    route = operation("ask", stage(hard("b.read", "idempotent")), p95="4s", deadline="20s")
    callee = service("b", operation("read", p95="3s", deadline="9s"))
    why = "with one attempt per call the route needs 4s > 10 × 399ms = 3990ms"
    bound = Constraint("T03", "flow flow", "399ms", "400ms", why, "flows.flow.latency", target.location)
    found = solve(small_platform(callee, gateway(route), flows=(target,)), on=DAY).infeasible
    assert [each for each in found if each.rule == "T03"] == ([] if feasible else [bound])


def test_calls_that_share_a_policy_must_all_meet_the_lowest_of_their_objectives() -> None:
    made = stage(
        *(
            hard("b.read", "idempotent", purpose=purpose, latency=latency)
            for purpose, latency in (("first", None), ("second", Duration("10ms")))
        )
    )
    caller = service("a", operation("run", made, p95="1s", deadline="60s"), language="go")
    callee = service("b", operation("read", p95="200005us", deadline="1s"))
    (bound,) = solution_of(small_platform(caller, callee)).infeasible
    assert (bound.path, bound.bound, bound.needed) == ("a.run → b.read:second", "10ms", "20001us")


def test_calls_of_one_grpc_method_share_a_policy_in_go_but_not_in_python() -> None:
    def policies(language: str) -> list[tuple[str, str]]:
        made = stage(*(hard("b.read", "idempotent", purpose=purpose) for purpose in ("first", "second")))
        caller = service("a", operation("run", made, p95="1s", deadline="60s"), language=language)
        return [policy_of(edge) for edge in small_platform(caller, service("b", READ)).graph.edges]

    assert policies("python") == [("a", "b.read:first"), ("a", "b.read:second")]
    assert policies("go") == [("a", "b.read"), ("a", "b.read")]


def test_missing_capacity_is_reported_with_the_line_of_the_overloaded_service() -> None:
    callee = service("a", operation("run", p95="1s", deadline="2s"), replicas=Replicas.exactly(2))
    caller = service(
        "b",
        operation("run", stage(hard("a.run", "idempotent")), p95="1s", deadline="9s", load="201/s"),
        capacity="900/s",
    )
    (bound,) = solution_of(small_platform(callee, caller, load_share=1)).infeasible
    assert bound.where == callee.location


@pytest.mark.parametrize(("load", "replicas"), [("1/m", 2), ("2/m", 2), ("3/m", 2), ("1/s", 2), ("135/h", 3)], ids=str)
def test_the_window_of_a_breaker_holds_at_least_one_call_of_each_replica(load: str, replicas: int) -> None:
    """135 calls an hour ÷ 3 replicas: each replica makes one call in 80 s. Float arithmetic gives slightly less."""
    made = stage(hard("store.read", "idempotent", circuit_breaker=BY_RATIO))
    run = operation("run", made, p95="1s", deadline="9s", load=load)
    caller = service("a", run, replicas=Replicas.exactly(replicas))
    solution_of(small_platform(caller, STORE, load_share=1))


def test_the_breaker_of_a_call_without_load_keeps_its_minimum_throughput() -> None:
    made = stage(hard("store.read", "idempotent", circuit_breaker=BY_RATIO))
    caller = service("a", operation("run", made, p95="1s", deadline="9s"))
    assert "circuit_breaker.minimum_throughput" not in changed_fields(small_platform(caller, STORE))


@pytest.mark.parametrize(
    ("window", "found"), [("500ms", "500ms"), ("750ms", "750ms"), ("499ms", "1s"), ("100ms", "1s")]
)
def test_a_window_that_holds_one_call_stays_and_a_shorter_window_is_raised(window: str, found: str) -> None:
    """Each of the two replicas makes 2 calls a second, so a window of 500 ms holds one call."""
    by_ratio = BY_RATIO.model_copy(update={"sampling_duration": Duration(window)})
    made = stage(hard("store.read", "idempotent", circuit_breaker=by_ratio))
    caller = service("a", operation("run", made, p95="1s", deadline="9s", load="4/s"))
    (edge,) = solution_of(small_platform(caller, STORE, load_share=1)).platform.graph.edges
    assert edge.circuit_breaker
    assert edge.circuit_breaker.sampling_duration == Duration(found)


def test_calls_to_one_callee_share_a_breaker_only_in_a_go_service() -> None:
    def calls(language: str) -> dict[str, tuple[str, str]]:
        made = [
            hard(target, "idempotent", circuit_breaker=CircuitBreaker(consecutive_failures=failures))
            for target, failures in (("b.read", 1), ("b.list", 9))
        ]
        caller = service("a", operation("run", stage(*made), p95="1s", deadline="60s"), language=language)
        callee = service("b", READ, operation("list", p95="10ms", deadline="50ms"))
        return {each.path: (each.old, each.new) for each in solution_of(small_platform(caller, callee)).changes}

    assert calls("python") == {"a.run → b.read": ("1", "3")}
    assert calls("go") == {"a.run → b.read": ("1", "3"), "a.run → b.list": ("9", "3")}


def test_a_break_that_the_solver_lengthens_also_raises_the_maximum_break() -> None:
    brief = CircuitBreaker(consecutive_failures=3, break_duration=Duration("1s"), max_break_duration=Duration("2s"))
    found = changed_fields(small_platform(calling(circuit_breaker=brief), STORE))
    assert found["circuit_breaker.max_break_duration"] == ("2s", "15s")


def test_a_solution_lists_the_faults_that_remain_with_the_new_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault = Fault("a.run", "is refused", "something else")

    def refuse(*_: object, **__: object) -> None:
        raise InvalidInputError("tests", [fault])

    monkeypatch.setattr(solver, "audit_outcome", refuse)
    solution = solution_of(small_platform(*chain(TWICE, TWICE, None)))
    assert (solution.refused, solution.following, solution.remaining, solution.infeasible) == ((fault,), (), (), ())
    assert "hop1.run → hop2.run" in {change.path for change in solution.changes}
    assert solution.platform.graph.nodes.keys() == {"hop1", "hop2", "hop3", "store"}
