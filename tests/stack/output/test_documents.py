"""Generated documents are current and match their source."""

from __future__ import annotations

import json

from jsonschema import Draft202012Validator

from stack.output.documents import (
    ARCHITECTURE,
    LEDGER_PAGE,
    SCHEMA,
    architecture,
    bundle_schema,
    ledger_page,
)
from stack.voiceassistant import TENANT
from tests.platforms import ENVIRONMENTS, platform


def test_the_architecture_document_is_current() -> None:
    assert ARCHITECTURE.read_text() == architecture(TENANT), "run `make accept`"


def test_the_ledgers_of_prod_are_current() -> None:
    assert LEDGER_PAGE.read_text() == ledger_page(map(platform, ENVIRONMENTS)), "run `make accept`"


def test_the_bundle_schema_is_current() -> None:
    assert SCHEMA.read_text() == bundle_schema(), "run `make accept`"


def test_every_bundle_satisfies_the_published_schema() -> None:
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    for environment in ENVIRONMENTS:
        for service in platform(environment).microservices:
            assert list(validator.iter_errors(service.bundle.to_document())) == []


def test_the_schema_refuses_what_the_model_refuses() -> None:
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    document = platform("prod").microservices[0].bundle.to_document()
    document["outbound"][0]["timeout"]["attempt"] = "5"
    document["health"]["cach_duration"] = "1s"
    assert len(list(validator.iter_errors(document))) == 2


def test_the_schema_says_what_each_field_means() -> None:
    properties = json.loads(SCHEMA.read_text())["$defs"]["CircuitBreaker"]["properties"]
    assert properties["break_duration"]["description"].startswith("How long the breaker stays open")
    assert all("description" in field for field in properties.values())


def test_each_flow_is_drawn_down_to_its_providers() -> None:
    text = architecture(TENANT)
    assert text.count("sequenceDiagram") == 4
    assert "llm: generate ≤ 3s over 2 candidates, breaker 5" in text
    assert "rag-engine: context ≤ 3s × 1, breaker 5, else no citations" in text
