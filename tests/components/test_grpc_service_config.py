from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voice_policies import Duration, InvalidInputError, OutboundCall, PolicyBundle, Ratio, Retry, RetryBudget

from components.grpc_service_config import GRPC_FILE_NAME, grpc_channels, protobuf_duration
from components.operation import Stage, hard, operation, soft, stage
from stack.audit.structure import all_enforced
from stack.model.platform import Platform
from stack.model.policy_bundles import policy_bundle
from stack.model.settings import ROOT
from tests.platforms import ENVIRONMENTS, of_kind, platform, real_environment
from tests.small import service, small_platform

ANSWER = operation("answer-all", p95="10ms", deadline="1s")
ONCE = Retry(max_retries=1, conditions=("unavailable", "aborted"))


def policy_files(environment: str) -> dict[str, dict[str, str]]:
    found = {resource["metadata"]["name"]: resource["data"] for resource in of_kind(environment, "ConfigMap")}
    return {name.removesuffix("-policy"): data for name, data in found.items() if name.endswith("-policy")}


def go_platform(*stages: Stage) -> Platform:
    return small_platform(
        service("a", operation("run", *stages, p95="1s", deadline="60s"), language="go"), service("callee-b", ANSWER)
    )


def bundle_of_a(small: Platform) -> PolicyBundle:
    return policy_bundle(small.graph, next(iter(small.graph.services)), small.environment)


def channel(*stages: Stage) -> dict[str, Any]:
    config: dict[str, Any] = grpc_channels(bundle_of_a(go_platform(*stages)).outbound)["callee-b"]["serviceConfig"]
    return config


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_service_config_contains_exactly_the_calls_that_the_bundle_assigns_to_grpc(environment: str) -> None:
    for files in policy_files(environment).values():
        bundle = json.loads(files["policy.json"])
        guarded = {call["operation"]: call for call in bundle["outbound"] if call["enforced_by"]["timeout"] == "grpc"}
        assert (GRPC_FILE_NAME in files) == bool(guarded)
        configs = [each["serviceConfig"] for each in json.loads(files.get(GRPC_FILE_NAME, "{}")).values()]
        methods = {each["name"][0]["method"].lower(): each for config in configs for each in config["methodConfig"]}
        assert methods.keys() == guarded.keys()
        for name, call in guarded.items():
            assert ("retryPolicy" in methods[name]) == (call["enforced_by"].get("retry") == "grpc")
            assert Duration(methods[name]["timeout"]) == Duration(call["timeout"]["overall"])


def test_only_go_services_that_call_over_grpc_have_a_service_config() -> None:
    having = {name for name, files in policy_files("prod").items() if GRPC_FILE_NAME in files}
    assert having == {"ai-orchestrator", "conversation-service", "knowledge-service"}


def test_a_retry_is_written_in_the_format_of_grpc() -> None:
    config = channel(stage(hard("callee-b.answer-all", "idempotent", retry=ONCE)))
    assert config["methodConfig"] == [
        {
            "name": [{"service": "voiceassistant.v1.CalleeB", "method": "AnswerAll"}],
            "timeout": "2.1s",
            "retryPolicy": {
                "maxAttempts": 2,
                "initialBackoff": "0.1s",
                "maxBackoff": "10s",
                "backoffMultiplier": 2.0,
                "retryableStatusCodes": ["UNAVAILABLE", "ABORTED"],
            },
        }
    ]
    assert config["retryThrottling"] == {"maxTokens": 8, "tokenRatio": 0.1}


def test_a_channel_without_a_retry_has_no_throttling() -> None:
    config = channel(stage(hard("callee-b.answer-all", "idempotent")))
    assert config.keys() == {"loadBalancingConfig", "healthCheckConfig", "methodConfig"}
    assert "retryPolicy" not in config["methodConfig"][0]


def test_two_calls_of_one_method_share_an_entry_and_must_agree() -> None:
    one = hard("callee-b.answer-all", "idempotent", purpose="one")
    two = soft("callee-b.answer-all", "goes on", purpose="two")
    assert len(channel(stage(one, two))["methodConfig"]) == 1
    with pytest.raises(InvalidInputError, match=r"answer-all:two: differs from callee-b\.answer-all:one"):
        channel(stage(one, two.model_copy(update={"timeout": Duration("3s")})))


def test_the_channel_has_the_strictest_budget_of_its_calls() -> None:
    frugal = ONCE.model_copy(update={"budget": RetryBudget(ratio=Ratio("20%"), reserve=1)})
    small = small_platform(
        service(
            "a",
            operation(
                "run",
                stage(
                    hard("callee-b.answer-all", "idempotent", retry=ONCE),
                    hard("callee-b.ask", "idempotent", retry=frugal),
                ),
                p95="1s",
                deadline="60s",
            ),
            language="go",
        ),
        service("callee-b", ANSWER, operation("ask", p95="10ms", deadline="1s")),
    )
    throttling = grpc_channels(bundle_of_a(small).outbound)["callee-b"]["serviceConfig"]["retryThrottling"]
    assert throttling == {"maxTokens": 4, "tokenRatio": 0.1}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"max_retries": 5}, "gRPC makes 5 attempts at most, not 6: lower max_retries to 4"),
        ({"base_delay": Duration("0s")}, "gRPC always waits before a retry: set base_delay above 0s"),
        ({"budget": RetryBudget(reserve=500)}, "a reserve of at most 499"),
        ({"budget": RetryBudget(ratio=Ratio("0.09%"))}, "a ratio of at least 0.1%"),
        ({"conditions": ("unavailable", "resource_exhausted")}, "even if the callee sends no retry delay"),
        (
            {"conditions": ("connection_failed",)},
            "gRPC cannot tell connection_failed from unavailable",
        ),
    ],
)
def test_a_retry_that_grpc_cannot_express_is_refused_and_found_by_the_audit(
    change: dict[str, object], why: str
) -> None:
    small = go_platform(
        stage(hard("callee-b.answer-all", "idempotent", retry=Retry.model_validate({**dict(ONCE), **change})))
    )
    with pytest.raises(InvalidInputError, match=why):
        _ = small.components
    assert [breach for breach in all_enforced(small) if breach and why in breach.arithmetic]


def test_one_error_lists_everything_that_grpc_cannot_express() -> None:
    retry = Retry(max_retries=9, base_delay=Duration("0s"), conditions=("connection_failed",))
    with pytest.raises(InvalidInputError) as refused:
        _ = go_platform(stage(hard("callee-b.answer-all", "idempotent", retry=retry))).components
    (fault,) = refused.value.faults
    assert fault.accepted.count("; ") == 2


@pytest.mark.parametrize(("mesh", "layer"), [(True, "mesh"), (False, None)], ids=["mesh", "no-mesh"])
def test_only_a_mesh_enforces_the_attempt_timeout_of_a_retried_call(mesh: bool, layer: str | None) -> None:
    small = go_platform(stage(hard("callee-b.answer-all", "idempotent", retry=ONCE)))
    environment = real_environment("prod" if mesh else "dev")
    (call,) = policy_bundle(small.graph, next(iter(small.graph.services)), environment).outbound
    assert (call.enforced_by.timeout, call.enforced_by.attempt_timeout) == ("grpc", layer)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_service_config_retries_exactly_the_calls_whose_retry_the_bundle_assigns_to_grpc(environment: str) -> None:
    for microservice in platform(environment).microservices:
        configs = [each["serviceConfig"] for each in grpc_channels(microservice.bundle.outbound).values()]
        repeated = sum("retryPolicy" in method for config in configs for method in config["methodConfig"])
        assert repeated == sum(by_grpc(call) for call in microservice.bundle.outbound)


def by_grpc(call: OutboundCall) -> bool:
    return call.enforced_by.retry == "grpc"


@given(st.integers(1, 10**12))
def test_a_duration_is_written_without_rounding(microseconds: int) -> None:
    duration = Duration.of_units(microseconds)
    text = protobuf_duration(duration)
    assert re.fullmatch(r"\d+(\.\d{1,6})?s", text)
    assert Duration(text) == duration


def test_the_client_in_the_documentation_is_the_tested_client() -> None:
    documented = (ROOT / "docs/go.md").read_text().partition("```go\n")[2].partition("```")[0]
    assert documented == (ROOT / "tests/go/dial.go").read_text()
