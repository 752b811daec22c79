from __future__ import annotations

import json
import re

import pytest
from voice_policies import CircuitBreaker, Duration, InvalidInputError, Rate, Ratio, Retry, RetryBudget

from components.node import Node, Replicas
from components.operation import hard, loop, operation, stage
from stack.audit import RULES
from stack.audit.solver import Solution, solve
from stack.audit.solver.report import REPORTS
from stack.audit.solver.values import Values, with_values
from stack.model.flow import Flow
from stack.model.platform import Platform
from stack.model.settings import ROOT
from tests.platforms import DAY, ENVIRONMENTS, platform
from tests.small import datastore, gateway, service, small_platform
from tests.stack.audit.rule_findings import STORE, THRICE, TWICE, flow, verdict
from tests.stack.audit.test_retries import chain, stacked


def broken_rules(looked_at: Platform) -> set[str]:
    return {
        rule.id
        for rule in RULES
        for found in rule.verdict(looked_at, DAY).findings
        if rule.id[0] in "TCR" and found.severity != "info"
    }


def solved(*nodes: Node, flows: tuple[Flow, ...] = ()) -> Solution:
    return solve(small_platform(*nodes, flows=flows), on=DAY)


def changed_values(solution: Solution) -> dict[tuple[str, str], tuple[str, str]]:
    return {(change.path, change.field): (change.old, change.new) for change in solution.changes}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_platform_that_satisfies_the_rules_does_not_change(name: str) -> None:
    solution = solve(platform(name), on=DAY)
    assert (solution.changes, solution.following, solution.infeasible, solution.remaining) == ((), (), (), ())


def test_retries_in_every_layer_are_reduced_to_one_layer() -> None:
    before = small_platform(*stacked(gateway_retries=True), flows=(flow("ask"),))
    assert broken_rules(before) >= {"R01", "R02", "R03", "R04", "R09", "T01", "T02", "T03"}
    solution = solve(before, on=DAY)
    assert (broken_rules(solution.platform), solution.infeasible, solution.remaining) == (set(), (), ())
    retries = {path: values for (path, field), values in changed_values(solution).items() if field.startswith("retr")}
    assert set(retries) == {
        "gateway.ask → hop1.run",
        "hop1.run → hop2.run",
        "hop2.run → hop3.run",
        "hop3.run → hop4.run",
        "store by openai-python",
    }
    assert changed_values(solution)["store by openai-python", "retries"] == ("None", "0")
    assert changed_values(solution)["gateway.ask → hop1.run", "retry"][1] == "None"


def impatient_callers(gateway_timeout: str, client: str, adapter: str, sdk: str) -> list[Node]:
    provider = datastore("provider", operation("ask", p95="1500ms", deadline=sdk))
    call = hard("provider.ask", "idempotent")
    adapting = service("adapter", operation("ask", stage(call), p95="1600ms", deadline=adapter))
    retry = Retry(max_retries=2, base_delay=Duration("100ms"))
    asking = stage(hard("adapter.ask", "idempotent", timeout=Duration(client), retry=retry))
    clients = service("client", operation("ask", asking, p95="1700ms", deadline=client))
    route = stage(hard("client.ask", "idempotent", timeout=Duration(gateway_timeout)))
    return [provider, adapting, clients, gateway(operation("ask", route, p95="2s", deadline=gateway_timeout))]


def test_callers_wait_at_least_as_long_as_their_callees_work() -> None:
    before = small_platform(*impatient_callers("30s", "120s", "180s", "600s"), flows=(flow("ask", "2s"),))
    assert broken_rules(before) >= {"T01", "T02", "T03"}
    solution = solve(before, on=DAY)
    assert (broken_rules(solution.platform), solution.infeasible, solution.remaining) == (set(), (), ())
    graph = solution.platform.graph
    entrance = graph.entrance(graph.flows[0])[1]
    assert entrance.deadline <= Duration("20s"), "ten times the flow's target"
    for edge in graph.edges:
        assert edge.attempt_timeout >= edge.latency
        assert edge.overall_timeout <= edge.operation.deadline


def test_a_breaker_inside_the_retry_stays_closed_after_two_failed_requests() -> None:
    call = hard("store.read", "idempotent", retry=THRICE, circuit_breaker=CircuitBreaker(consecutive_failures=3))
    before = small_platform(service("a", operation("run", stage(call), p95="1s", deadline="9s")), STORE)
    assert verdict("C01", before).findings
    with pytest.raises(InvalidInputError, match="one request could open the breaker"):
        _ = before.components
    solution = solve(before, on=DAY)
    assert (broken_rules(solution.platform), solution.remaining, solution.refused) == (set(), (), ())
    changed = changed_values(solution)
    assert changed["a.run → store.read", "circuit_breaker.consecutive_failures"] == ("3", "7")
    change = next(each for each in solution.changes if "consecutive" in each.field)
    assert change.where is not None
    assert change.where.file == "tests/stack/audit/test_solver.py"


def test_a_target_below_the_objectives_of_its_path_is_infeasible_and_the_reason_names_the_path() -> None:
    inner = service("b", operation("run", stage(hard("store.read", "idempotent")), p95="30ms", deadline="200ms"))
    calls = (stage(hard("store.read", "idempotent")), stage(hard("b.run", "idempotent")))
    outer = service("a", operation("run", *calls, p95="60ms", deadline="400ms"))
    nodes = [
        STORE,
        inner,
        outer,
        gateway(operation("go", stage(hard("a.run", "idempotent")), p95="60ms", deadline="1s")),
    ]
    (missed,) = solved(*nodes, flows=(flow("go", "50ms"),)).infeasible
    assert (missed.rule, missed.path, missed.bound, missed.needed) == ("T04", "flow flow", "50ms", "60ms")
    assert missed.why == "gateway.go = 60ms a.run; a.run = 10ms store.read + 30ms b.run; b.run = 10ms store.read"
    assert solved(*nodes, flows=(flow("go", "60ms"),)).infeasible == ()


def test_a_loop_that_cannot_end_within_ten_times_the_objective_is_infeasible() -> None:
    slow = service(
        "a",
        operation("run", loop(hard("store.read", "idempotent"), at_most=20, typically=1), p95="10ms", deadline="5s"),
    )
    caller = service("b", operation("run", stage(hard("a.run", "idempotent")), p95="20ms", deadline="9s"))
    (bound,) = solved(STORE, slow, caller).infeasible
    assert (bound.rule, bound.path, bound.bound, bound.needed) == ("T03", "b.run → a.run", "10ms", "20ms")
    assert bound.why == "with one attempt per call the callee needs 200ms > 10 × 10ms = 100ms"


def test_raising_the_objective_of_a_call_also_raises_the_bound_of_its_caller() -> None:
    def bounds(inner_objective: Duration | None) -> set[str]:
        twenty = loop(hard("store.read", "idempotent"), at_most=20, typically=1)
        inner = stage(hard("a.run", "idempotent", latency=inner_objective))
        nodes = (
            STORE,
            service("a", operation("run", twenty, p95="10ms", deadline="5s")),
            service("b", operation("run", inner, p95="10ms", deadline="9s")),
            service("c", operation("run", stage(hard("b.run", "idempotent")), p95="20ms", deadline="9s")),
        )
        return {bound.path for bound in solved(*nodes).infeasible}

    assert bounds(None) == {"b.run → a.run", "c.run → b.run"}
    assert bounds(Duration("20ms")) == set()


def test_an_objective_below_the_sum_of_its_calls_is_raised_if_the_flow_permits() -> None:
    twice = (stage(hard("store.read", "idempotent")),) * 2
    inner = service("a", operation("run", *twice, p95="15ms", deadline="100ms"))
    route = gateway(
        operation("go", stage(hard("a.run", "idempotent", latency=Duration("30ms"))), p95="50ms", deadline="1s")
    )
    solution = solved(STORE, inner, route, flows=(flow("go", "100ms"),))
    assert changed_values(solution)["a.run", "latency"] == ("15ms", "20ms")
    assert broken_rules(solution.platform) == set()


def test_an_objective_that_is_raised_raises_the_objectives_of_its_callers() -> None:
    twice = (stage(hard("store.read", "idempotent")),) * 2
    inner = service("a", operation("run", *twice, p95="15ms", deadline="100ms"))
    outer = service("b", operation("run", stage(hard("a.run", "idempotent")), p95="15ms", deadline="200ms"))
    assert changed_values(solved(STORE, inner, outer)) == {
        ("a.run", "latency"): ("15ms", "20ms"),
        ("b.run", "latency"): ("15ms", "20ms"),
    }


def test_the_reason_of_an_infeasible_target_names_the_slowest_call_of_each_stage() -> None:
    quick, slow = (
        service(name, operation("run", p95=p95, deadline="1s")) for name, p95 in (("quick", "20ms"), ("slow", "30ms"))
    )
    parallel = stage(hard("quick.run", "idempotent"), hard("slow.run", "idempotent"))
    calls = (parallel, stage(hard("store.read", "idempotent")))
    outer = service("a", operation("run", *calls, p95="40ms", deadline="2s"))
    route = operation("go", stage(hard("a.run", "idempotent")), p95="40ms", deadline="3s")
    (missed,) = solved(STORE, quick, slow, outer, gateway(route), flows=(flow("go", "39ms"),)).infeasible
    assert missed.why == "gateway.go = 40ms a.run; a.run = 30ms slow.run + 10ms store.read"


def test_retries_that_do_not_fit_the_deadline_are_removed_and_the_grace_period_follows() -> None:
    """The caller waits at most 10 × the objective of 30 ms. A backoff of 2 s does not fit."""
    slow = TWICE.model_copy(update={"base_delay": Duration("2s"), "max_delay": Duration("2s")})
    inner = service(
        "a", operation("run", stage(hard("store.read", "idempotent", retry=slow)), p95="30ms", deadline="9s")
    )
    caller = service("b", operation("run", stage(hard("a.run", "idempotent")), p95="40ms", deadline="9s"))
    solution = solved(STORE, inner, caller)
    assert changed_values(solution)["a.run → store.read", "retry"][1] == "None"
    assert changed_values(solution)["a.run", "deadline"] == ("9s", "300ms")
    assert broken_rules(solution.platform) == set()
    assert ("shop/a", "terminationGracePeriodSeconds") in {(each.path, each.field) for each in solution.following}


def test_retries_that_would_overload_a_service_are_removed_and_missing_capacity_is_named() -> None:
    """Two replicas serve 200/s. Retries add their default budget of 10 %, so 182/s become 200.2/s."""

    def loaded(load: str) -> Solution:
        callee = service("a", operation("run", p95="1s", deadline="2s"), replicas=Replicas.exactly(2))
        call = stage(hard("a.run", "idempotent", retry=TWICE))
        caller = service("b", operation("run", call, p95="1s", deadline="9s", load=load), capacity=Rate("900/s"))
        return solve(small_platform(callee, caller, load_share=1), on=DAY)

    assert "R10" not in broken_rules(loaded("182/s").platform)
    assert changed_values(loaded("182/s"))["b.run → a.run", "retry"][1] == "None"
    (bound,) = loaded("201/s").infeasible
    assert (bound.rule, bound.path, bound.bound, bound.needed) == ("R10", "a", "200/s", "a maximum of 3 replicas")


def test_retries_that_just_fit_the_capacity_are_kept() -> None:
    """A budget of 100 % doubles 100/s. Two replicas serve 200/s."""
    callee = service("a", operation("run", p95="1s", deadline="2s"), replicas=Replicas.exactly(2))
    doubling = TWICE.model_copy(update={"budget": RetryBudget(ratio=Ratio("100%"))})
    call = stage(hard("a.run", "idempotent", retry=doubling))
    caller = service("b", operation("run", call, p95="1s", deadline="9s", load="100/s"))
    solution = solve(small_platform(callee, caller, load_share=1), on=DAY)
    assert "retry" not in {change.field for change in solution.changes}


@pytest.mark.parametrize("load", ["1/m", "1/s", "50/s"])
def test_the_solver_corrects_the_window_and_throughput_of_a_ratio_breaker(
    load: str,
) -> None:
    breaker = CircuitBreaker(
        consecutive_failures=None,
        failure_ratio=Ratio("50%"),
        sampling_duration=Duration("50ms"),
        break_duration=Duration("1s"),
    )
    call = hard("store.read", "idempotent", circuit_breaker=breaker)
    caller = service("a", operation("run", stage(call), p95="1s", deadline="9s", load=load))
    before = small_platform(caller, STORE, load_share=1)
    assert broken_rules(before) == {"C02", "C03", "C04"}
    assert broken_rules(solve(before, on=DAY).platform) == set()


def test_only_the_last_interior_hop_keeps_its_retry() -> None:
    solution = solved(*chain(TWICE, TWICE, None))
    assert {path for path, field in changed_values(solution) if field == "retry"} == {"hop1.run → hop2.run"}
    assert "R02" not in broken_rules(solution.platform)


def test_the_longest_retry_is_removed_first_if_time_is_short() -> None:
    slow = TWICE.model_copy(update={"base_delay": Duration("2s"), "max_delay": Duration("2s")})
    calls = (
        hard("store.read", "idempotent", retry=each, purpose=name) for name, each in (("quick", TWICE), ("slow", slow))
    )
    inner = service("a", operation("run", *(stage(call) for call in calls), p95="30ms", deadline="300ms"))
    solution = solved(
        STORE, inner, service("b", operation("run", stage(hard("a.run", "idempotent")), p95="30ms", deadline="9s"))
    )
    assert {path for path, field in changed_values(solution) if field == "retry"} == {"a.run → store.read:slow"}


def test_a_timeout_below_the_callees_deadline_is_raised_and_the_deadline_stays() -> None:
    inner = service("a", operation("run", stage(hard("store.read", "idempotent")), p95="1s", deadline="4s"))
    route = operation("go", stage(hard("a.run", "idempotent", timeout=Duration("20ms"))), p95="1s", deadline="9s")
    assert changed_values(solved(STORE, inner, gateway(route))) == {
        ("gateway.go → a.run", "timeout"): ("20ms", "4150ms")
    }


def test_the_report_names_each_change_with_its_line_and_the_infeasible_bounds() -> None:
    solution = solved(*impatient_callers("30s", "120s", "180s", "600s"), flows=(flow("ask", "1s"),))
    lines = REPORTS["text"](solution).splitlines()
    change = next(number for number, line in enumerate(lines) if line.startswith("  provider.ask: deadline 10m → "))
    assert lines[change + 1].strip().startswith("tests/stack/audit/test_solver.py:")
    assert lines[-1] == "dev: no values satisfy every T, C and R rule"
    bound = lines.index(
        "  T04  flow flow: gateway.ask = 1700ms client.ask; client.ask = 1600ms adapter.ask; "
        "adapter.ask = 1500ms provider.ask"
    )
    assert "bound 1s, needed 1700ms: change flows.flow.latency" in lines[bound + 1]
    document = json.loads(REPORTS["json"](solution))
    assert [each["rule"] for each in document["infeasible"]] == ["T04"]
    assert document["changes"][0].keys() == {"path", "field", "old", "new", "where"}
    assert not solution.clean
    shown = (ROOT / "docs/review.md").read_text(encoding="utf-8")
    assert re.sub(r"\.py:\d+", ".py", "\n".join(lines)) in re.sub(r"\.py:\d+", ".py", shown)
    assert REPORTS["text"](solve(platform("prod"), on=DAY)) == "prod: the T, C and R rules hold; nothing to change"


def test_grace_periods_and_the_timeouts_of_gateway_and_mesh_follow_a_lowered_deadline() -> None:
    """The flow `search` permits 10 × its target of 500 ms, and the gateway waits 150 ms longer than knowledge-service.

    So knowledge-service may take 4850 ms.

    It makes two attempts at retrieval-service with a backoff between them, and a call of PostgreSQL:
    2 × 2348 ms + 100 ms + 52 ms = 4848 ms.
    """
    late = Values()
    late.operations["retrieval-service", "search"]["deadline"] = Duration("40s")
    solution = solve(with_values(platform("prod"), late), on=DAY)
    assert changed_values(solution)["retrieval-service.search", "deadline"] == ("40s", "2348ms")
    following = {(each.path, each.field): (each.old, each.new) for each in solution.following}
    assert following["VirtualService retrieval-service-grpc, knowledge-service", "timeout"] == ("40s", "2.348s")
    assert following["voice-apps/retrieval-service", "terminationGracePeriodSeconds"] == ("55", "18")
    assert ("route knowledge-service-search", "upstream.timeout") in following
    assert solution.remaining == ()
