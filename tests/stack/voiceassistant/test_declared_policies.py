from __future__ import annotations

from components.node import Service
from components.operation import operation
from stack.voiceassistant import TENANT
from tests.small import service

SERVICES = [node for node in TENANT.graph.nodes.values() if isinstance(node, Service)]


def test_rate_limits_of_python_services_use_every_algorithm_and_scope() -> None:
    limits = [
        (limit.limit.algorithm, limit.key, limit.scope)
        for each in SERVICES
        if each.language == "python"
        for run in each.operations
        for limit in run.rate_limits
    ]
    assert {algorithm for algorithm, _, _ in limits} == {"token_bucket", "sliding_window", "adaptive"}
    assert {key for _, key, _ in limits} >= {"tenant", "user"}
    assert {scope for _, _, scope in limits} == {"local", "distributed"}


def test_every_core_service_declares_features_or_the_reason_why_it_has_no_feature() -> None:
    core = [each for each in SERVICES if each.tier == "core"]
    assert len(core) == 5
    for each in core:
        assert bool(each.features) != bool(each.without_features), each.name


def test_a_service_with_features_and_a_reason_for_having_no_feature_is_refused() -> None:
    adapter = TENANT.graph.nodes["model-adapter"]
    assert isinstance(adapter, Service)
    both = service(
        "a",
        operation("run", p95="1s", deadline="2s"),
        features=adapter.features,
        without_features="nothing to leave out",
    )
    assert "features and without_features" in str(both.faults)
