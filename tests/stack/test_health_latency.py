"""A gRPC callee that answers its health check later than its operation should answer is slow."""

from __future__ import annotations

import pytest
from voice_policies import Duration

from components.operation import hard, operation, stage
from stack.policy_bundles import policy_bundle
from tests.platforms import datastore, service, small_platform


@pytest.mark.parametrize(
    ("objective", "max_latency"), [("80ms", "80ms"), ("999ms", "999ms"), ("1s", None), ("8s", None)]
)
def test_the_threshold_is_the_callees_objective_where_the_timeout_is_not_shorter(
    objective: str, max_latency: str | None
) -> None:
    callee = service("callee", operation("answer", objective, "20s"))
    caller = service("caller", operation("run", "10s", "30s", stage(hard("callee.answer", "idempotent"))))
    small = small_platform(caller, callee)
    (check,) = policy_bundle(small.graph, caller, small.environment).health.checks
    expected = None if max_latency is None else Duration(max_latency)
    assert (check.kind, check.max_latency) == ("grpc", expected)


def test_a_store_has_none() -> None:
    """Its check signs in and asks, which its operations do not."""
    store = datastore("store", operation("read", "10ms", "50ms"))
    caller = service("caller", operation("run", "1s", "2s", stage(hard("store.read", "idempotent"))))
    small = small_platform(caller, store)
    (check,) = policy_bundle(small.graph, caller, small.environment).health.checks
    assert check.max_latency is None
