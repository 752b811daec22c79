from __future__ import annotations

import pytest
from voice_policies import ModelFallback, Ratio

from components.node import Dependency, Host
from components.operation import hard, operation, soft, stage
from stack.audit.ledgers.availability import flow_availability
from tests.small import datastore, gateway, graph_of, models, service
from tests.stack.audit.rule_findings import READ, STORE, findings, flow


def test_a01_finds_a_target_above_the_product_of_availabilities() -> None:
    route = operation("a-run", stage(hard("a.run", "idempotent")), p95="1s", deadline="2s")
    inner = service(
        "a", operation("run", stage(hard("store.read", "idempotent")), p95="1s", deadline="2s"), tier="standard"
    )
    (found,) = findings("A01", gateway(route), inner, STORE, flows=(flow("a-run", availability="99.95%"),))
    assert found.arithmetic.startswith("gateway 99.99% × a 99.95% × store 99.99% = 99.93")
    assert findings("A01", gateway(route), inner, STORE, flows=(flow("a-run", availability="99.9%"),)) == ()


def test_a01_allows_a_target_equal_to_the_product() -> None:
    route = operation("a-run", stage(soft("store.read", "without")), p95="1s", deadline="2s")
    assert findings("A01", gateway(route), STORE, flows=(flow("a-run", availability="99.99%"),)) == ()


def test_a01_and_a02_skip_a_flow_without_a_target() -> None:
    route = operation("a-run", stage(soft("store.read", "without")), p95="1s", deadline="2s")
    other = operation("b-run", stage(soft("store.read", "without")), p95="1s", deadline="2s")
    none, high = (flow("b-run"), flow("a-run", availability="99.995%").model_copy(update={"name": "high"}))
    for rule in ("A01", "A02"):
        found = findings(rule, gateway(route, other), STORE, flows=(none, high))
        assert [each.path for each in found] == ["flow high"], rule


def test_a01_counts_a_shared_dependency_once_and_no_soft_dependency() -> None:
    route = operation("a-run", stage(hard("a.run", "idempotent")), p95="1s", deadline="2s")
    calls = stage(hard("store.read", "idempotent"), hard("b.run", "idempotent"), soft("c.run", "without"))
    nodes = [
        gateway(route),
        service("a", operation("run", calls, p95="1s", deadline="2s")),
        service("b", operation("run", stage(hard("store.read", "idempotent")), p95="1s", deadline="2s")),
        service("c", operation("run", p95="1s", deadline="2s")),
        STORE,
    ]
    asked = flow("a-run", availability="99%")
    graph = graph_of(*nodes, flows=[asked])
    assert flow_availability(graph, asked).availability() == pytest.approx(0.9999**2 * 0.9995**2, abs=1e-12)


def providers(*egress: str) -> Dependency:
    return Dependency(
        name="providers",
        kind="provider",
        purpose="either suffices",
        protocol="https",
        addresses=tuple(Host(host=f"api-{n}.example.com", port=443, egress=proxy) for n, proxy in enumerate(egress)),
        availability=Ratio("99.5%"),
        operations=(READ,),
    )


@pytest.mark.parametrize(
    ("egress", "expected"),
    [
        (("egress-proxy-a", "egress-proxy-b"), 1 - (1 - 0.995 * 0.999) ** 2),
        (("egress-proxy-a", "egress-proxy-a"), 0.999 * (1 - 0.005**2)),
        (("egress-proxy-a",), 0.999 * 0.995),
    ],
    ids=["two proxies", "one shared proxy", "one address"],
)
def test_a01_counts_the_shared_proxy_of_two_addresses_once(egress: tuple[str, ...], expected: float) -> None:
    route = operation("read", stage(hard("providers.read", "idempotent")), p95="1s", deadline="2s")
    asked = flow("read", availability="99%")
    graph = graph_of(gateway(route), providers(*egress), flows=[asked])
    assert flow_availability(graph, asked).availability() == pytest.approx(0.9999 * expected, abs=1e-12)


@pytest.mark.parametrize(("availability", "count"), [("99.98%", 1), ("99.99%", 0)])
def test_a02_finds_a_dependency_that_spends_over_a_tenth_of_the_error_budget(availability: str, count: int) -> None:
    route = operation("read", stage(hard("store.read", "idempotent")), p95="1s", deadline="2s")
    store = datastore("store", READ, availability=availability)
    found = findings("A02", gateway(route), store, flows=(flow("read", availability="99.9%"),))
    assert [each.arithmetic for each in found] == ["store 99.98% < 99.9900% = 1 − (1 − 99.9000%) × 0.1"] * count


def test_a02_counts_two_addresses_as_one_dependency() -> None:
    route = operation("read", stage(hard("providers.read", "idempotent")), p95="1s", deadline="2s")
    pair = providers("egress-proxy-a", "egress-proxy-b")
    assert findings("A02", gateway(route), pair, flows=(flow("read", availability="99.9%"),)) == ()


@pytest.mark.parametrize(
    ("attempts", "expected"), [(2, 1 - (1 - 0.995 * 0.999) ** 2), (1, 0.995 * 0.999)], ids=["2 attempts", "1 attempt"]
)
def test_a01_counts_at_most_one_candidate_for_each_attempt(attempts: int, expected: float) -> None:
    route = operation("ask", stage(hard("llm.generate", "idempotent")), p95="1s", deadline="3s")
    asked = flow("ask", availability="99%")
    llm = models(route_policy={"fallback": ModelFallback(max_attempts=attempts)})
    graph = graph_of(gateway(route), llm, flows=[asked])
    assert flow_availability(graph, asked).availability() == pytest.approx(0.9999 * expected, abs=1e-12)


def test_a02_names_every_dependency_that_spends_over_a_tenth_of_the_error_budget() -> None:
    calls = [hard(f"{name}.read", "idempotent") for name in ("one", "two")]
    route = operation("read", stage(*calls), p95="1s", deadline="2s")
    stores = [datastore(name, READ, availability="99.98%") for name in ("one", "two")]
    (found,) = findings("A02", gateway(route), *stores, flows=(flow("read", availability="99.9%"),))
    assert found.arithmetic.startswith("one 99.98%, two 99.98% < 99.9900%")
