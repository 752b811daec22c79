from __future__ import annotations

import pytest
from voice_policies import Duration, Ratio

from components.node import Dependency, Host, Node, Service
from components.operation import Stage, hard, operation, soft, stage
from stack.audit.ledgers.availability import flow_availability
from stack.model.platform import Platform
from tests.small import CANDIDATES, PROVIDERS, datastore, deployment, gateway, models, provider, service, small_platform
from tests.stack.audit.ledgers.rows import ledger, rows
from tests.stack.audit.rule_findings import READ, STORE, flow

ROUTE = operation("a-run", stage(hard("a.run", "idempotent")), p95="1s", deadline="4s")
STORE_CALL = hard("store.read", "idempotent")


def runs(name: str, *stages: Stage) -> Service:
    """A service that has an availability of 99.95 % without its dependencies."""
    return service(name, operation("run", *stages, p95="1s", deadline="2s"))


def with_target(target: str | None, *nodes: Node) -> Platform:
    return small_platform(gateway(ROUTE), STORE, *nodes, flows=(flow("a-run", availability=target),))


@pytest.mark.parametrize(
    ("target", "softened"),
    [
        ("99.93%", "already reached"),
        ("99.94%", "a.run → store.read"),
        ("99.95%", "not reached, even with a.run → store.read"),
        (None, "no target"),
    ],
)
def test_a_flow_names_the_call_whose_softening_reaches_its_target(target: str | None, softened: str) -> None:
    """`gateway` 99.99 % × `a` 99.95 % × `store` 99.99 % = 99.93 %. If the call to `store` is soft: 99.94 %."""
    found = rows(with_target(target, runs("a", stage(STORE_CALL))), "availability", "availability of the flows")["flow"]
    assert found[1] == pytest.approx(0.9999 * 0.9995 * 0.9999)
    assert found[3:] == (3, 0, softened)


def test_a_flow_names_several_calls_if_one_is_not_enough() -> None:
    """`gateway` × `a` × `b` × `store` = 99.88 %. Without `b`: 99.93 %. Without `b` and `store`: 99.94 %."""
    calls = stage(STORE_CALL, hard("b.run", "idempotent"))
    platform = with_target("99.94%", runs("a", calls), runs("b"))
    (of_flow,) = rows(platform, "availability", "availability of the flows").values()
    assert of_flow[-1] == "a.run → b.run; a.run → store.read"


def test_a_shared_dependency_counts_once_and_all_its_calls_become_soft_together() -> None:
    """The availability is `gateway` × `a` × `b` × `store`, although `a` and `b` both call `store`."""
    platform = with_target(
        "99%", runs("a", stage(STORE_CALL, hard("b.run", "idempotent"))), runs("b", stage(STORE_CALL))
    )
    (of_flow,) = rows(platform, "availability", "availability of the flows").values()
    assert of_flow[1] == pytest.approx(0.9999**2 * 0.9995**2)
    gains = {row[2]: row[0] for row in _softenings(platform)}
    assert gains == {
        "a.run → b.run": pytest.approx(0.9999**2 * 0.9995),
        "a.run → store.read; b.run → store.read": pytest.approx(0.9999 * 0.9995**2),
    }


def _softenings(platform: Platform) -> list[tuple[object, ...]]:
    return [row[1:] for row in ledger(platform, "availability").tables[2].rows]


def test_a_soft_dependency_is_listed_with_its_callers() -> None:
    platform = with_target(None, runs("a", stage(soft("c.run", "without"))), runs("c"))
    dependencies = [row[1:] for row in ledger(platform, "availability").tables[1].rows]
    assert dependencies == [
        ("gateway", "hard", 0.9999, "–"),
        ("a", "hard", 0.9995, "gateway.a-run"),
        ("c", "soft", None, "a.run"),
    ]


def test_the_entrance_of_a_flow_cannot_be_softened() -> None:
    found = rows(with_target("99.99%", runs("a")), "availability", "availability of the flows")["flow"]
    assert found[-1] == "not reached: no call can be softened"


def test_a_flow_that_just_reaches_its_target_needs_no_softening() -> None:
    """Only the gateway is a hard dependency."""
    route = operation("a-run", stage(soft("a.run", "without")), p95="1s", deadline="4s")
    platform = small_platform(gateway(route), runs("a"), flows=(flow("a-run", availability="99.99%"),))
    assert rows(platform, "availability", "availability of the flows")["flow"][-1] == "already reached"


def test_a_shared_operation_lists_its_calls_once() -> None:
    both = stage(hard("b.run", "idempotent"), hard("c.run", "idempotent"))
    shared = stage(hard("d.run", "idempotent"))
    nodes = (runs("a", both), runs("b", shared), runs("c", shared), runs("d", stage(STORE_CALL)))
    assert "d.run → store.read" in [row[-1] for row in _softenings(with_target(None, *nodes))]


def test_a_call_is_left_out_if_softening_it_gains_nothing() -> None:
    sure = datastore("sure", READ, availability="100%")
    caller = runs("a", stage(STORE_CALL, hard("sure.read", "idempotent")))
    assert [row[-1] for row in _softenings(with_target(None, caller, sure))] == ["a.run → store.read"]


def test_several_flows_each_list_their_own_calls() -> None:
    routes = [
        operation(f"{name}-run", stage(hard(f"{name}.run", "idempotent")), p95="1s", deadline="4s") for name in "ab"
    ]
    flows = tuple(flow(f"{name}-run").model_copy(update={"name": name}) for name in "ab")
    nodes = (runs("a", stage(STORE_CALL)), runs("b", stage(STORE_CALL)))
    found = ledger(small_platform(gateway(*routes), STORE, *nodes, flows=flows), "availability")
    assert [row[0] for row in found.tables[2].rows] == ["a", "b"]


def test_a_dependency_with_two_candidates_is_listed_as_one_of_several() -> None:
    caller = runs("a", stage(hard("llm.generate", "never")))
    caller = service("a", caller.operations[0].model_copy(update={"deadline": Duration("60s")}))
    slow = ROUTE.model_copy(update={"deadline": Duration("70s")})
    platform = small_platform(gateway(slow), caller, models(), flows=(flow("a-run"),))
    kinds = {row[1]: row[2] for row in ledger(platform, "availability").tables[1].rows}
    assert kinds["llm"] == "one of several"


def test_only_routes_over_the_same_providers_share_a_row() -> None:
    asked = [hard(f"llm.{name}", "never") for name in ("generate", "plan", "embed")]
    caller = runs("a", stage(*asked))
    caller = service("a", caller.operations[0].model_copy(update={"deadline": Duration("60s")}))
    third = deployment("three-fast", "three")
    llm = models(*CANDIDATES, third, providers=(*PROVIDERS, provider("three", "egress-proxy-a")))
    over_all = llm.operations[0]
    assert over_all.route is not None
    operations = []
    for name, *candidates in (("generate", "one", "two"), ("plan", "two", "one"), ("embed", "one", "three")):
        named = {"candidates": tuple(f"{each}-fast" for each in candidates)}
        operations.append(over_all.model_copy(update={"name": name, "route": over_all.route.model_copy(update=named)}))
    dependency = llm.model_copy(update={"operations": tuple(operations)})
    slow = ROUTE.model_copy(update={"deadline": Duration("70s")})
    platform = small_platform(gateway(slow), caller, dependency, flows=(flow("a-run"),))
    kinds = {row[1]: row[2] for row in ledger(platform, "availability").tables[1].rows}
    assert kinds == {"gateway": "hard", "a": "hard", "llm": "one of several", "llm.embed": "one of several"}
    needed = flow_availability(platform.graph, platform.graph.flows[0])
    assert "llm 1 − Π(1 − 99.5% × egress)" in needed.arithmetic()


def test_the_egress_proxy_of_each_provider_is_a_dependency() -> None:
    names = ("a", "b")
    providers = [
        Dependency(
            name=f"provider-{name}",
            kind="provider",
            purpose="answers in a test",
            protocol="https",
            addresses=(Host(host=f"api-{name}.example.com", port=443, egress=f"egress-proxy-{name}"),),
            availability=Ratio("99.5%"),
            operations=(READ,),
        )
        for name in names
    ]
    caller = runs("a", stage(*(hard(f"provider-{name}.read", "idempotent") for name in names)))
    graph = with_target(None, caller, *providers).graph
    needed = flow_availability(graph, graph.flows[0])
    assert needed.egress == {"egress-proxy-a", "egress-proxy-b"}
