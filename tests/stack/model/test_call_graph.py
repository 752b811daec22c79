from __future__ import annotations

from typing import Any

import pytest
from voice_policies import CircuitBreaker, Duration, InvalidInputError

from components.node import Node
from components.operation import hard, operation, soft, stage
from stack.model.flow import Flow
from stack.voiceassistant import TENANT, catalog
from tests.small import datastore, gateway, graph_of, models, service

READ = operation("read", p95="10ms", deadline="50ms")


def faults(*nodes: Node, **rules: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        graph_of(*nodes, **rules)
    return str(caught.value)


def test_the_catalogue_of_voiceassistant_is_accepted() -> None:
    assert {service.language for service in TENANT.graph.services} == {"go", "python"}


def test_a_callee_that_nobody_declares_is_refused() -> None:
    said = faults(service("a", operation("run", stage(hard("nobody.run", "idempotent")), p95="1s", deadline="2s")))
    assert "a.run → nobody.run: calls 'nobody', which is no declared service or dependency; expected one of a" in said


def test_an_operation_that_nobody_offers_is_refused() -> None:
    said = faults(
        service("a", operation("run", stage(hard("store.write", "with_key")), p95="1s", deadline="2s")),
        datastore("store", READ),
    )
    assert "calls operation 'write', which store does not offer; expected one of read" in said


def test_a_name_declared_twice_is_refused() -> None:
    assert "a: is declared 2 times" in faults(service("a", READ), service("a", READ))


def test_a_forbidden_call_is_refused() -> None:
    caller = service("a", operation("run", stage(hard("store.read", "idempotent")), p95="1s", deadline="2s"))
    nodes = (caller, service("b", READ), datastore("store", READ))
    assert "only b may call store" in faults(*nodes, only_callers={"store": "b"})
    assert "a may never call store" in faults(*nodes, forbidden=frozenset({("a", "store")}))


def test_a_rule_that_names_an_undeclared_node_is_refused() -> None:
    said = faults(datastore("store", READ), only_callers={"stor": "a"}, forbidden=frozenset({("a", "store")}))
    assert "only_callers: names 'stor'; did you mean store?" in said
    assert "only_callers: names 'a'; expected one of store" in said
    assert "forbidden: names 'a'; expected one of store" in said


def test_a_second_gateway_is_refused() -> None:
    said = faults(gateway(), gateway().model_copy(update={"name": "door"}))
    assert "door: is a gateway; expected one gateway: 'gateway' is the first" in said


def test_a_long_chain_of_calls_is_accepted_and_a_cycle_at_its_end_is_found() -> None:
    chain = [
        service(f"s{n}", operation("run", stage(hard(f"s{n + 1}.run", "idempotent")), p95="1s", deadline="2s"))
        for n in range(1500)
    ]
    last = service("s1500", operation("run", p95="1s", deadline="2s"))
    assert len(graph_of(*chain, last).bottom_up) == 1501
    back = service("s1500", operation("run", stage(hard("s1499.run", "idempotent")), p95="1s", deadline="2s"))
    assert "s1499.run → s1500.run → s1499.run: is a cycle; make one of its calls an event" in faults(*chain, back)


def test_a_cycle_of_operations_is_refused_with_its_path() -> None:
    said = faults(
        service("a", operation("run", stage(hard("b.run", "idempotent")), p95="1s", deadline="2s")),
        service("b", operation("run", stage(soft("c.run", "without")), p95="1s", deadline="2s")),
        service("c", operation("run", stage(hard("a.run", "idempotent")), p95="1s", deadline="2s")),
    )
    assert "a.run → b.run → c.run → a.run: is a cycle" in said


def test_two_services_may_call_each_other_if_no_operation_waits_for_itself() -> None:
    graph = graph_of(
        service("a", READ, operation("run", stage(hard("b.read", "idempotent")), p95="1s", deadline="2s")),
        service("b", READ, operation("run", stage(hard("a.read", "idempotent")), p95="1s", deadline="2s")),
    )
    assert [edge.path for edge in graph.edges] == ["a.run → b.read", "b.run → a.read"]


def test_a_flow_that_names_a_missing_route_or_operation_is_refused() -> None:
    flow = Flow(name="f", title="a flow", route="nowhere", latency=Duration("1s"), continues="a.nothing")
    said = faults(gateway(), service("a", READ), flows=[flow])
    assert "flows.f.route: is 'nowhere'" in said
    assert "flows.f.continues: is 'a.nothing'" in said


def test_a_dependency_with_calls_is_refused() -> None:
    store = datastore("store", operation("read", stage(hard("a.read", "idempotent")), p95="1s", deadline="2s"))
    assert "expected a dependency without calls" in faults(service("a", READ), store)


def test_all_faults_are_named_in_one_message() -> None:
    said = faults(
        service(
            "a",
            operation(
                "run", stage(hard("nobody.run", "idempotent"), hard("a.nothing", "idempotent")), p95="1s", deadline="2s"
            ),
        ),
        service("a", READ),
    )
    assert "3 faults" in said


@pytest.mark.parametrize("event", [event for s in catalog.SERVICES for o in s.operations for event in o.consumes])
def test_every_consumed_event_is_published_by_a_service(event: str) -> None:
    assert any(event in (*o.publishes, *o.appends) for s in catalog.SERVICES for o in s.operations)


def test_publishing_and_consuming_are_calls_to_the_event_streams() -> None:
    edges = TENANT.graph.edges
    assert {edge.caller.name for edge in edges if edge.call.name == "events.append"} == {
        "conversation-service",
        "knowledge-service",
        "model-adapter",
        "voice-engine",
    }
    assert {edge.caller.name for edge in edges if edge.call.name == "events.consume"} == {
        "notification-service",
        "analytics-service",
        "indexing-service",
    }


def breaker_of(**declared: Any) -> CircuitBreaker | None:
    call = hard("store.read", "idempotent", **declared)
    store = datastore("store", READ).model_copy(update={"restart": Duration("40s")})
    (edge,) = graph_of(service("a", operation("run", stage(call), p95="1s", deadline="2s")), store).edges
    return edge.circuit_breaker


def test_a_breaker_is_derived_from_the_restart_time_of_the_callee() -> None:
    assert breaker_of() == CircuitBreaker.for_restart(Duration("40s"))


def test_a_call_can_declare_its_breaker_or_turn_it_off() -> None:
    own = CircuitBreaker(break_duration=Duration("7s"))
    assert breaker_of(circuit_breaker=own) == own
    assert breaker_of(circuit_breaker="off") is None


def test_every_break_lasts_one_to_ten_restarts_of_the_callee() -> None:
    breakers = [(edge, edge.circuit_breaker) for edge in TENANT.graph.edges if edge.circuit_breaker]
    assert len(breakers) > 50
    for edge, breaker in breakers:
        restart = edge.callee.restart.seconds
        assert restart <= breaker.break_duration.seconds, edge.path
        longest = breaker.max_break_duration.seconds * (1 + breaker.break_duration_jitter.fraction)
        assert longest <= 10 * restart, edge.path


def test_a_default_route_that_nobody_declares_is_refused() -> None:
    choose = operation("choose", p95="30ms", deadline="150ms", default_route="llm.generat")
    with pytest.raises(
        InvalidInputError, match=r"choose\.default_route: is 'llm\.generat'; did you mean llm\.generate\?"
    ):
        graph_of(service("router", choose), models())
