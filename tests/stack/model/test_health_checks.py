from __future__ import annotations

import pytest

from components.node import Dependency
from components.operation import hard, operation, soft, stage
from stack.model.policy_bundles import policy_bundle
from tests.platforms import ENVIRONMENTS, platform
from tests.small import datastore, service, small_platform

READ, WRITE = operation("read", p95="10ms", deadline="50ms"), operation("write", p95="10ms", deadline="50ms")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_dependency_and_hard_callee_has_a_check(environment: str) -> None:
    looked_at = platform(environment)
    for microservice in looked_at.microservices:
        edges = looked_at.graph.edges_from(microservice.service)
        assert {check.name for check in microservice.bundle.health.checks} == {
            edge.callee.name for edge in edges if not edge.call.soft or isinstance(edge.callee, Dependency)
        }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_check_is_critical_only_if_a_hard_call_goes_to_postgresql_or_redis(environment: str) -> None:
    looked_at = platform(environment)
    for microservice in looked_at.microservices:
        callees = [edge.callee for edge in looked_at.graph.edges_from(microservice.service) if not edge.call.soft]
        assert {check.name for check in microservice.bundle.health.checks if check.critical} == {
            each.name for each in callees if isinstance(each, Dependency) and each.protocol in {"postgresql", "redis"}
        }


@pytest.mark.parametrize("hard_first", [True, False], ids=["hard call first", "soft call first"])
def test_a_store_is_critical_if_one_of_its_calls_is_hard(*, hard_first: bool) -> None:
    calls = [hard("store.read", "idempotent"), soft("store.write", "without")]
    made = stage(*(calls if hard_first else reversed(calls)))
    small = small_platform(
        service("a", operation("run", made, p95="1s", deadline="2s")), datastore("store", READ, WRITE)
    )
    (check,) = policy_bundle(small.graph, next(iter(small.graph.services)), small.environment).health.checks
    assert (check.target, check.critical) == ("store.read", True)
