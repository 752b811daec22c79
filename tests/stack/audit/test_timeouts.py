from __future__ import annotations

import pytest
from voice_policies import Duration

from components.node import Node
from components.operation import Operation, hard, loop, operation, soft, stage
from stack.audit.timeouts import critical_path, worst_case
from stack.model.call_graph import CallGraph
from tests.small import datastore, gateway, graph_of, service
from tests.stack.audit.rule_findings import READ, STORE, TWICE, findings, flow


def test_t01_finds_a_deadline_below_the_worst_case() -> None:
    slow = operation("run", stage(hard("store.read", "idempotent", retry=TWICE)), p95="1s", deadline="100ms")
    (found,) = findings("T01", service("a", slow), STORE)
    assert found.arithmetic == "deadline 100ms < 110ms, the worst case of its calls"
    assert found.proposal == "110ms"
    longer = slow.model_copy(update={"deadline": Duration("110ms")})
    assert findings("T01", service("a", longer), STORE) == ()


def test_t01_finds_a_gateway_that_gives_up_before_its_callee() -> None:
    """HTTP does not propagate the deadline."""
    inner = service(
        "a", operation("run", stage(hard("store.read", "idempotent", timeout=Duration("4s"))), p95="1s", deadline="5s")
    )
    route = operation("a-run", stage(hard("a.run", "idempotent", timeout=Duration("3s"))), p95="1s", deadline="9s")
    (found,) = findings("T01", gateway(route), inner, STORE)
    assert found.arithmetic == "timeout 3s < 4s, the callee's worst case; the deadline is not propagated on this edge"


def test_t01_accepts_a_timeout_of_one_attempt_if_the_deadline_propagates() -> None:
    def caller(timeout: str) -> Node:
        return service(
            "b",
            operation("run", stage(hard("a.run", "idempotent", timeout=Duration(timeout))), p95="1s", deadline="9s"),
        )

    inner = service(
        "a", operation("run", stage(hard("store.read", "idempotent", retry=TWICE)), p95="1s", deadline="5s")
    )
    assert findings("T01", caller("60ms"), inner, STORE) == ()
    assert findings("T01", caller("50ms"), inner, STORE) == ()
    (found,) = findings("T01", caller("40ms"), inner, STORE)
    assert found.arithmetic == "timeout 40ms < 50ms, one attempt of a.run → store.read"


def test_t04_finds_an_objective_below_the_sum_of_the_objectives_along_its_critical_path() -> None:
    slow = operation(
        "run",
        stage(hard("store.read", "idempotent")),
        stage(hard("store.read", "idempotent")),
        p95="15ms",
        deadline="1s",
    )
    route = operation("a-run", stage(hard("a.run", "idempotent")), p95="1s", deadline="2s")
    found = findings("T04", gateway(route), service("a", slow), STORE, flows=(flow("a-run", "10ms"),))
    assert [(f.path, f.arithmetic) for f in found] == [
        ("flow flow", "the P95 objectives along the critical path add up to 15ms > 10ms"),
        ("a.run", "the P95 objectives along the critical path add up to 20ms > 15ms"),
    ]
    higher = service("a", slow.model_copy(update={"latency": Duration("20ms")}))
    assert findings("T04", gateway(route), higher, STORE, flows=(flow("a-run", "20ms"),)) == ()


def run(*stages: object) -> tuple[CallGraph, Node, Operation]:
    target = operation("run", *stages, p95="1s", deadline="60s")  # type: ignore[arg-type]  # every test passes stages
    node = service("a", target)
    store = datastore("store", READ, operation("scan", p95="30ms", deadline="200ms"))
    return graph_of(node, store), node, target


def test_the_critical_path_adds_stages_and_loops_but_not_parallel_calls_and_streams() -> None:
    graph, node, target = run(
        stage(hard("store.read", "idempotent"), soft("store.scan", "without")),
        loop(hard("store.read", "idempotent", purpose="each"), at_most=5, typically=2),
        stage(hard("store.scan", "idempotent", purpose="stream"), overlaps=True),
    )
    assert critical_path(graph, node, target) == Duration("50ms")
    assert worst_case(graph, node, target) == Duration("650ms")


@pytest.mark.parametrize(("deadline", "count"), [("109ms", 1), ("110ms", 0)])
def test_t02_finds_attempts_that_cannot_finish(deadline: str, count: int) -> None:
    call = stage(hard("store.read", "idempotent", retry=TWICE))
    found = findings("T02", service("a", operation("run", call, p95="1s", deadline=deadline)), STORE)
    assert [each.arithmetic for each in found] == [
        "2 × 50ms + 10ms of backoff = 110ms > 109ms, the operation's deadline"
    ] * count


@pytest.mark.parametrize(("timeout", "severity"), [("100ms", None), ("101ms", "warning"), ("0s", "error")])
def test_t03_finds_a_timeout_far_above_the_callees_objective(timeout: str, severity: str | None) -> None:
    call = stage(hard("store.read", "idempotent", timeout=Duration(timeout)))
    found = findings("T03", service("a", operation("run", call, p95="1s", deadline="60s")), STORE)
    assert [each.severity for each in found] == ([severity] if severity else [])


@pytest.mark.parametrize(("deadline", "count"), [("10s", 0), ("10001ms", 1)])
def test_t03_finds_a_route_that_waits_long_after_its_flows_target(deadline: str, count: int) -> None:
    inner = service("a", operation("run", stage(hard("store.read", "idempotent")), p95="1s", deadline="2s"))
    route = operation("a-run", stage(hard("a.run", "idempotent")), p95="1s", deadline=deadline)
    found = findings("T03", gateway(route), inner, STORE, flows=(flow("a-run", "1s"),))
    assert [(each.path, each.arithmetic, each.severity) for each in found] == [
        ("flow flow", "deadline 10001ms > 10 × 1s, the target of flow flow", "warning")
    ] * count


def test_t01_checks_the_operation_that_follows_an_operation_without_calls() -> None:
    slow = operation("run", stage(hard("store.read", "idempotent", retry=TWICE)), p95="1s", deadline="100ms")
    verdicts = findings("T01", service("a", operation("answer", p95="1s", deadline="2s"), slow), STORE)
    assert [each.path for each in verdicts] == ["a.run"]
