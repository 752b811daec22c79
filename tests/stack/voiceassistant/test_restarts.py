from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from voice_policies import Duration, Ratio

from components.node import Node, Service, Sizing
from stack.model.environments import Environment
from stack.model.platform import Platform
from stack.model.settings import ROOT
from stack.model.tenant import Tenant
from stack.output.difference import Side, compare
from stack.output.difference.sides import side_of_platform
from stack.voiceassistant import TENANT
from tests.platforms import real_environment

NODES = TENANT.catalogue.nodes
SERVICES = {node.name: node for node in NODES if isinstance(node, Service)}
RAG = SERVICES["rag-engine"]
Change = Callable[[Environment], tuple[Tenant, Environment]]


def setting(**values: object) -> Change:
    def change(environment: Environment) -> tuple[Tenant, Environment]:
        settings = environment.settings.model_copy(update=values)
        return TENANT, environment.model_copy(update={"settings": settings})

    return change


def rag(**values: object) -> Change:
    return nodes(*(node.model_copy(update=values) if node == RAG else node for node in NODES))


def nodes(*changed: Node) -> Change:
    """Replace the nodes of the catalogue. Drop `only_callers`, because it would forbid the calls of a new service."""
    catalogue = TENANT.catalogue.model_copy(update={"nodes": changed, "only_callers": {}})
    return lambda environment: (replace(TENANT, catalogue=catalogue), environment)


def another(service: str) -> Change:
    return nodes(*NODES, SERVICES[service].model_copy(update={"name": "another-service"}))


FIRST, *OTHERS = RAG.operations
CHANGES: Mapping[str, Change] = {
    "`log_level`": setting(log_level="warning"),
    "`trace_sample_ratio`": setting(trace_sample_ratio=Ratio("7%")),
    "`image_tag`": setting(image_tag="9.9.9"),
    "a deadline of rag-engine": rag(
        operations=(FIRST.model_copy(update={"deadline": Duration("3900ms")}), *OTHERS),
    ),
    "sizing of rag-engine": rag(sizing=Sizing.of(cpu=("1", "2"), memory=("3Gi", "4Gi"))),
    "replicas of rag-engine": rag(replicas=RAG.replicas.model_copy(update={"max": 14})),
    "HTTP port of rag-engine": rag(http_port=8106),
    "gRPC port of rag-engine": rag(grpc_port=9106),
    "a service is added or removed": another("retrieval-service"),
    "a service that uses PostgreSQL and the cache is added or removed": another("identity-service"),
    "a service that uses PostgreSQL and publishes events is added or removed": another("knowledge-service"),
    "a service that calls an external provider is added or removed": another("model-adapter"),
}


def documented() -> Mapping[str, tuple[set[str], set[str]]]:
    """Change → the workloads whose pods restart, and the workloads whose pods reload."""
    _, _, below = (ROOT / "docs" / "deploy.md").read_text().partition("## Which change restarts which pods")
    table, *_ = below.partition("\n## ")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {change: (_workloads(restart), _workloads(reload)) for change, restart, reload in rows[2:]}


def _workloads(cell: str) -> set[str]:
    every = SERVICES.keys() if "every service" in cell else set()
    return {*every, *re.findall("`([a-z-]+)`", cell)}


def tree(tenant: Tenant, environment: Environment) -> Side:
    return side_of_platform(Platform(tenant, environment))


def affected(environment: Environment, change: Change) -> tuple[set[str], set[str]]:
    effects = compare(tree(TENANT, environment), tree(*change(environment))).effects
    restart, reload = ({each.workload.name for each in effects if each.pods == pods} for pods in ("restart", "reload"))
    return restart, reload


def test_the_deployment_document_lists_exactly_the_tested_changes() -> None:
    assert list(documented()) == list(CHANGES)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_restarts_and_reloads_the_documented_pods(change: str) -> None:
    assert affected(real_environment("prod"), CHANGES[change]) == documented()[change]


def test_in_dev_a_new_service_restarts_redis_and_events_and_not_the_database() -> None:
    restart, _ = affected(real_environment("dev"), another("conversation-service"))
    assert restart == {"redis", "events"}
