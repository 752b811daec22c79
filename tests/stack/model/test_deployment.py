from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from voice_policies import InvalidInputError

from components.operation import operation, soft, stage
from stack.model.platform import Platform
from stack.model.settings import PROJECT, ROOT, Settings, parse_settings
from stack.voiceassistant import TENANT
from stack.voiceassistant.catalog import SERVICES
from tests import toy
from tests.platforms import VARIANTS, platform, real_environment, resources
from tests.small import service, tenant_of

CONFIGURED = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())["config"]
RUN = operation("run", p95="1s", deadline="2s")


def deployed_without(*names: str, environment: str = "prod", **changes: Any) -> Platform:
    real = real_environment(environment)
    settings = real.settings.model_copy(update={"without": names, **changes})
    return Platform(TENANT, real.model_copy(update={"settings": settings}))


def refused(*names: str) -> list[str]:
    with pytest.raises(InvalidInputError) as caught:
        parse_settings({**CONFIGURED, f"{PROJECT}:without": [*names]}, "prod", TENANT)
    assert caught.value.source == "Pulumi.prod.yaml"
    return [str(fault) for fault in caught.value.faults]


def text(name: str) -> str:
    """All rendered resources as text, without the name of the environment."""
    return json.dumps(resources(name)).replace(name, "")


@pytest.mark.parametrize(
    ("name", "left_out"), [("prod-text", ("voice-engine", "speech")), ("dev-internal", ("voice-gateway",))]
)
def test_no_rendered_resource_names_a_node_that_is_left_out(name: str, left_out: tuple[str, ...]) -> None:
    assert [word for word in left_out if word in text(name)] == []
    assert [word for word in left_out if word not in text(name.partition("-")[0])] == []


def test_without_a_service_its_routes_and_their_flows_are_left_out() -> None:
    graph, whole = platform("prod-text").graph, platform("prod").graph
    assert graph.gateway
    assert whole.gateway
    routes = {operation.name for operation in whole.gateway.operations}
    assert routes - {operation.name for operation in graph.gateway.operations} == {"voice-engine-dialogue"}
    assert {flow.name for flow in whole.flows} - {flow.name for flow in graph.flows} == {"voice-dialogue"}
    assert platform("dev-internal").graph.flows == ()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_resource_is_in_a_namespace_that_is_rendered(name: str) -> None:
    named = {each["metadata"]["name"] for each in resources(name) if each["kind"] == "Namespace"}
    assert {each["metadata"]["namespace"] for each in resources(name) if "namespace" in each["metadata"]} == named


def test_a_soft_call_is_left_out_with_its_callee() -> None:
    whole, found = platform("prod"), deployed_without("multimodal-engine")
    callers = {edge.caller.name for edge in whole.graph.edges_to(whole.graph.nodes["multimodal-engine"])}
    assert callers == {"ai-orchestrator"}
    (bundle,) = (each.bundle for each in found.microservices if each.name == "ai-orchestrator")
    assert {call.callee for call in bundle.outbound} == {"redis", "model-router", "agent-engine"}
    answer = found.graph.nodes["ai-orchestrator"].operation("answer")
    assert [call.callee for call in answer.stages[-1].calls] == ["agent-engine"]


def test_a_stage_without_remaining_calls_is_left_out() -> None:
    caller = service("caller", operation("run", stage(soft("callee.run", "nothing")), p95="1s", deadline="2s"))
    settings = toy.ENVIRONMENT.settings.model_copy(update={"without": ("callee",)})
    tenant, environment = tenant_of(caller, service("callee", RUN)), toy.ENVIRONMENT
    found = Platform(tenant, environment.model_copy(update={"settings": settings}))
    assert found.graph.nodes["caller"].operations[0].stages == ()


def test_the_error_for_leaving_out_a_needed_service_names_its_hard_callers() -> None:
    (fault,) = refused("model-adapter")
    assert fault.startswith("config.voiceassistant:without[0]: is 'model-adapter'; still needed by ")
    assert fault.endswith(": leave those callers out, too")
    assert "rag-engine.context" not in fault, "the call of rag-engine.context is soft"
    assert "rag-engine.answer → model-adapter.generate" in fault


def test_the_document_on_environments_quotes_the_refusal_exactly() -> None:
    assert refused("agent-engine")[0] in (ROOT / "docs/environments.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "caller"),
    [
        ("ai-orchestrator", "conversation-service.send → ai-orchestrator.answer"),
        ("redis", "gateway.identity-service-login → redis.access"),
        ("redis", "agent-engine.run → redis.access"),
        ("knowledge-graph-service", "indexing-service.index → knowledge-graph-service.build,"),
        ("events", "knowledge-service.upload → events.append"),
    ],
)
def test_a_node_that_is_still_needed_cannot_be_left_out(name: str, caller: str) -> None:
    (fault,) = refused(name)
    assert caller in fault


def test_all_faults_are_reported_in_one_message() -> None:
    faults = refused("voice-engin", "agent-engine", "voice-engine")
    assert [fault.partition(": ")[0].removeprefix("config.voiceassistant:") for fault in faults] == [
        "without[0]",
        "without[1]",
    ]
    assert "did you mean voice-engine? expected one of agent-engine, " in faults[0]


def test_several_services_may_be_left_out_together() -> None:
    found = deployed_without("voice-engine", "multimodal-engine")
    assert len([*found.graph.services]) == len(SERVICES) - 2
    assert found.components


def test_a_node_is_left_out_only_if_a_setting_names_it() -> None:
    assert Settings.model_fields["without"].default == ()
    assert real_environment("prod-text").settings.without == ("voice-engine",)
