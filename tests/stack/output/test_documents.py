from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from voice_policies import CircuitBreaker, Duration, Ratio

from components.operation import hard, operation, stage
from stack.model.settings import environments
from stack.output.diagrams import hop_text
from stack.output.documents import SCHEMA, architecture, bundle_schema, documents
from stack.voiceassistant import TENANT
from tests.platforms import ENVIRONMENTS, platform
from tests.small import graph_of, service

DOCUMENTS = dict(documents(TENANT, [platform(name) for name in environments()]))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_generated_document_is_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == DOCUMENTS[path], "run `make accept`"


def test_the_table_of_targets_names_every_target_once() -> None:
    (text,) = (text for path, text in DOCUMENTS.items() if path.name == "targets.md")
    assert [text.count(f"**{target.title}**") for target in TENANT.targets] == [1] * len(TENANT.targets)


def test_the_bundle_schema_is_current() -> None:
    assert SCHEMA.read_text() == bundle_schema(), "run `make accept`"


def test_every_bundle_satisfies_the_published_schema() -> None:
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    for environment in ENVIRONMENTS:
        for each in platform(environment).microservices:
            assert list(validator.iter_errors(each.bundle.to_document())) == []


def test_the_schema_refuses_an_invalid_duration_and_an_unknown_key() -> None:
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    document = platform("prod").microservices[0].bundle.to_document()
    document["outbound"][0]["timeout"]["attempt"] = "5"
    document["health"]["cach_duration"] = "1s"
    assert len(list(validator.iter_errors(document))) == 2


def test_the_schema_describes_each_field_of_a_circuit_breaker() -> None:
    properties = json.loads(SCHEMA.read_text())["$defs"]["CircuitBreaker"]["properties"]
    assert properties["break_duration"]["description"].startswith("Time for which the breaker stays open")
    assert all("description" in field for field in properties.values())


def test_each_flow_is_drawn_down_to_its_providers() -> None:
    text = architecture(TENANT)
    assert text.count("sequenceDiagram") == 7
    for name in ("ai-orchestrator.answer", "agent-engine.run", "retrieval-service.search"):
        assert text.count(f"### {name}\n") == 1
        assert f"see the diagram of {name}" in text
    assert "llm: generate ≤ 3s over 2 candidates, breaker 5" in text
    assert "rag-engine: context ≤ 3s × 1, breaker 5, else no citations" in text


@pytest.mark.parametrize(
    ("threshold", "drawn"),
    [
        ({"consecutive_failures": 7}, "breaker 7"),
        ({"consecutive_failures": None, "failure_ratio": Ratio("50%")}, "breaker 50%"),
        (
            {"consecutive_failures": None, "slow_call_ratio": Ratio("20%"), "slow_call_duration": Duration("1s")},
            "breaker 20%",
        ),
    ],
    ids=["failures in a row", "share of failures", "share of slow calls"],
)
def test_a_hop_shows_the_threshold_of_its_breaker(threshold: dict[str, Any], drawn: str) -> None:
    call = hard("b.run", "idempotent", circuit_breaker=CircuitBreaker(**threshold))
    graph = graph_of(
        service("a", operation("run", stage(call), p95="1s", deadline="5s")),
        service("b", operation("run", p95="1s", deadline="2s")),
    )
    (edge,) = graph.edges
    assert hop_text(edge, graph.site).endswith(drawn)
