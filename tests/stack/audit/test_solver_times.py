"""The solver gives a call of `store.read` between 10 ms, the P95 of the operation, and 50 ms, its deadline."""

from __future__ import annotations

from typing import Any

import pytest
from voice_policies import Duration, Saga, SagaStep

from components.node import Node
from components.operation import Call, Operation, Stage, hard, loop, operation, soft, stage
from stack.model.flow import Flow
from tests.small import datastore, gateway, service, small_platform
from tests.stack.audit.rule_findings import STORE, THRICE, TWICE, flow
from tests.stack.audit.test_solver import changed_values
from tests.stack.audit.test_solver_attempts import solution_of

Changes = dict[tuple[str, str], tuple[str, str]]


def times(*nodes: Node, flows: tuple[Flow, ...] = ()) -> Changes:
    return changed_values(solution_of(small_platform(*nodes, flows=flows)))


def running(*stages: Stage, p95: str = "20ms", deadline: str = "2s", **options: Any) -> Operation:
    return operation("run", *stages, p95=p95, deadline=deadline, **options)


def read(**options: Any) -> Call:
    return hard("store.read", "idempotent", **options)


def calling(name: str, target: str = "b.run", *, p95: str = "1s", **options: Any) -> Node:
    return service(name, running(stage(hard(target, "idempotent", **options)), p95=p95, deadline="9s"))


@pytest.mark.parametrize("timeout", [None, "50ms"], ids=["callee's deadline", "own timeout"])
def test_the_calls_of_an_operation_share_the_time_that_its_caller_waits(timeout: str | None) -> None:
    """`a` waits for `b` for 10 × 20 ms = 200 ms. `b` makes 1 + 5 calls of the store: 200 ms ÷ 6 = 33 ms for each."""
    own = {"timeout": Duration(timeout)} if timeout else {}
    stages = stage(read(**own)), loop(read(**own, purpose="again"), at_most=5, typically=1)
    assert times(calling("a"), service("b", running(*stages)), STORE) == {
        ("store.read", "deadline"): ("50ms", "33ms"),
        ("b.run", "deadline"): ("2s", "200ms"),
        **({(f"b.run → store.read{each}", "timeout"): ("50ms", "33ms") for each in ("", ":again")} if timeout else {}),
    }


@pytest.mark.parametrize(
    ("timeout", "latency", "changes"),
    [
        ("5ms", None, {("a.run → b.run", "timeout"): ("5ms", "50ms")}),
        ("60ms", None, {}),
        ("300ms", None, {("a.run → b.run", "timeout"): ("300ms", "200ms")}),
        (
            "5ms",
            "3ms",
            {("a.run → b.run", "timeout"): ("5ms", "30ms"), ("store.read", "deadline"): ("50ms", "30ms")},
        ),
    ],
)
def test_a_timeout_leaves_time_for_one_attempt_of_the_hard_calls_of_the_callee(
    timeout: str, latency: str | None, changes: Changes
) -> None:
    """A timeout is at most ten times the P95 objective of the call: 10 × 20 ms, or 10 × 3 ms.

    It may be shorter than b's deadline, because b gets the remaining time of the call.
    """
    callee = service("b", running(stage(read()), stage(soft("slow.read", "without"), overlaps=True)))
    slow = datastore("slow", operation("read", p95="20ms", deadline="150ms"))
    own: dict[str, Any] = {"timeout": Duration(timeout), "latency": Duration(latency) if latency else None}
    assert times(calling("a", **own), callee, STORE, slow) == changes


@pytest.mark.parametrize(
    ("latencies", "deadline"), [(("20ms", "15ms"), "150ms"), (("15ms", "20ms"), "150ms"), (("20ms", "20ms"), "200ms")]
)
def test_the_caller_that_waits_least_determines_the_deadline(latencies: tuple[str, str], deadline: str) -> None:
    callers = (
        calling(name, latency=Duration(latency)) for name, latency in zip(("first", "second"), latencies, strict=True)
    )
    assert times(*callers, service("b", running())) == {("b.run", "deadline"): ("2s", deadline)}


def test_a_gateway_route_may_take_ten_times_the_target_of_its_flow() -> None:
    """The route may take 10 × 30 ms. The gateway waits 150 ms longer than the deadline of its callee."""
    route = operation("go", stage(hard("b.run", "idempotent")), p95="30ms", deadline="9s")
    assert times(gateway(route), service("b", running(p95="30ms")), flows=(flow("go", "30ms"),)) == {
        ("gateway.go", "deadline"): ("9s", "300ms"),
        ("b.run", "deadline"): ("2s", "150ms"),
    }


def test_a_call_without_a_timeout_gets_a_timeout_of_ten_times_the_objective_of_its_callee() -> None:
    route = operation("go", stage(hard("b.run", "idempotent", timeout=Duration("0s"))), p95="1s", deadline="9s")
    assert times(gateway(route), service("b", running(p95="30ms"))) == {
        ("gateway.go → b.run", "timeout"): ("0s", "300ms"),
        ("b.run", "deadline"): ("2s", "150ms"),
    }


@pytest.mark.parametrize("compensates", [True, False], ids=["compensation", "step without compensation"])
def test_the_calls_of_a_step_share_its_attempt_timeout(compensates: bool) -> None:
    """An attempt of a step may take 3 s by default. The step makes three calls of b: 3 s ÷ 3 = 1 s for each.

    b makes one call of `slow.read`, which also gets 1 s.
    """
    called = "compensation_calls" if compensates else "calls"
    undone = {"compensation": "undo"} if compensates else {"no_compensation_because": "it only reads"}
    step = SagaStep.model_validate({"name": "read", "timeout": Duration("60s"), called: ("b.run",), **undone})
    saga = Saga(name="reading", steps=(step,), timeout=Duration("2m"))
    made = loop(hard("b.run", "idempotent", timeout=Duration("1s")), at_most=3, typically=1)
    slow = datastore("slow", operation("read", p95="200ms", deadline="2s"))
    callee = service("b", running(stage(hard("slow.read", "idempotent")), p95="200ms", deadline="60s"))
    caller = service("a", running(made, p95="1s", deadline="100s", saga=saga))
    assert times(caller, callee, slow) == {("slow.read", "deadline"): ("2s", "1s")}


@pytest.mark.parametrize(
    ("wait", "removed"),
    [("120ms", ()), ("70ms", ("second",)), ("30ms", ("first", "second"))],
)
def test_the_longest_call_loses_its_retries_first_until_the_calls_fit(wait: str, removed: tuple[str, ...]) -> None:
    """Without retries the two calls take 20 ms. The first call's retry adds 20 ms, the second call's adds 50 ms."""
    waiting = TWICE.model_copy(update={"base_delay": Duration("40ms"), "max_delay": Duration("40ms")})
    calls = (read(purpose=name, retry=retry) for name, retry in (("first", TWICE), ("second", waiting)))
    callee = service("b", running(*map(stage, calls)))
    latency = Duration.of_units(Duration(wait).units // 10)
    changed = times(calling("a", latency=latency), callee, STORE)
    assert {path for path, field in changed if field == "retry"} == {f"b.run → store.read:{each}" for each in removed}


def test_retries_that_fit_are_kept_and_count_in_the_deadline() -> None:
    """Three attempts of 50 ms and two waits of 10 ms take 170 ms, so the deadline of 100 ms is too short."""
    callee = service("b", running(stage(read(retry=THRICE, circuit_breaker="off")), deadline="100ms"))
    assert times(calling("a"), callee, STORE) == {("b.run", "deadline"): ("100ms", "170ms")}


def test_a_deadline_does_not_rise_above_the_wait_of_its_caller() -> None:
    """`b` wants 50 ms for its call, and gets the time that its caller `a` waits: 10 × 4 ms."""
    callee = service("b", running(stage(read()), deadline="20ms"))
    assert times(calling("a", latency=Duration("4ms")), callee, STORE) == {
        ("store.read", "deadline"): ("50ms", "40ms"),
        ("b.run", "deadline"): ("20ms", "40ms"),
    }


def test_a_deadline_below_the_objective_is_raised_to_the_objective() -> None:
    callee = service("b", running(p95="30ms", deadline="20ms"))
    assert times(calling("a"), callee) == {("b.run", "deadline"): ("20ms", "30ms")}


def test_a_timeout_that_fits_is_not_rounded_to_milliseconds() -> None:
    assert times(service("a", running(stage(read(timeout=Duration("50500us"))))), STORE) == {}
