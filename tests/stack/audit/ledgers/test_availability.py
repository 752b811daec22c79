"""The availability of flows, and the calls to soften, computed by hand."""

from __future__ import annotations

import pytest

from components.node import Service
from components.operation import Stage, hard, operation, soft, stage
from stack.model.platform import Platform
from tests.small import gateway, service, small_platform
from tests.stack.audit.ledgers.rows import ledger, rows
from tests.stack.audit.rule_findings import STORE, flow

ROUTE = operation("a-run", stage(hard("a.run", "idempotent")), p95="1s", deadline="4s")
STORE_CALL = hard("store.read", "idempotent")


def runs(name: str, *stages: Stage) -> Service:
    """Own availability 99.95 %."""
    return service(name, operation("run", *stages, p95="1s", deadline="2s"))


def with_target(target: str | None, *nodes: Service) -> Platform:
    return small_platform(gateway(ROUTE), STORE, *nodes, flows=(flow("a-run", availability=target),))


@pytest.mark.parametrize(
    ("target", "way"),
    [
        ("99.93%", "it holds"),
        ("99.94%", "a.run → store.read"),
        ("99.95%", "not reached, even with a.run → store.read"),
        (None, "no target"),
    ],
)
def test_a_flow_names_the_call_whose_softening_reaches_its_target(target: str | None, way: str) -> None:
    """Gateway 99.99 % × a 99.95 % × store 99.99 % = 99.93 %. Without the store: 99.94 %."""
    found = rows(with_target(target, runs("a", stage(STORE_CALL))), "availability", "availability of the flows")["flow"]
    assert found[1] == pytest.approx(0.9999 * 0.9995 * 0.9999)
    assert found[3:] == (3, 0, way)


def test_a_flow_names_several_calls_where_one_is_not_enough() -> None:
    """Gateway × a × b × store = 99.88 %. Without b: 99.93 %. Without b and the store: 99.94 %."""
    calls = stage(STORE_CALL, hard("b.run", "idempotent"))
    platform = with_target("99.94%", runs("a", calls), runs("b"))
    (of_flow,) = rows(platform, "availability", "availability of the flows").values()
    assert of_flow[-1] == "a.run → b.run; a.run → store.read"


def test_a_shared_dependency_counts_once_and_all_its_calls_change_together() -> None:
    """Gateway × a × b × store; b and the store are called by a, the store by b as well."""
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
