from __future__ import annotations

import json
import re
from pathlib import Path

import promql_parser
import pytest

from components.node import Gateway, Node, Service
from components.observability.rules import Alert
from stack.model.impact import impact
from stack.model.settings import environments
from stack.output.runbook import FOLDER, first_look, runbook
from stack.voiceassistant import TENANT, site
from tests import toy
from tests.documents import blocks
from tests.platforms import of_kind, platform

PAGES = dict(runbook(TENANT, [platform(name) for name in environments()]))
LINK = re.compile(r"\]\(([^)#:]*)(?:#([^)]*))?\)")


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as repository hosts make them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_folder_has_exactly_the_pages_of_the_runbook() -> None:
    assert {path.name for path in PAGES} == {path.name for path in FOLDER.iterdir()}


def test_every_runbook_url_leads_to_a_section_that_names_its_alert() -> None:
    (rules,) = (
        json.loads(each["data"]["rules.json"]) for each in of_kind("prod", "ConfigMap") if "rules.json" in each["data"]
    )
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    page, _, _ = site.RUNBOOK.partition("#")
    assert page.endswith(str((FOLDER / "alerts.md").relative_to(FOLDER.parents[1])))
    assert alerts
    sections = dict(re.findall(r"^## (\w+)\n\n(.+)$", PAGES[FOLDER / "alerts.md"], re.MULTILINE))
    assert {alert["annotations"]["runbook_url"] for alert in alerts} == {f"{page}#{name.lower()}" for name in sections}
    assert {alert["alert"] for alert in alerts} == set(sections)


@pytest.mark.parametrize(
    "alert", [*TENANT.alerting.objective_alerts, *TENANT.alerting.platform_alerts], ids=lambda alert: alert.name
)
def test_an_alert_keeps_the_namespace_label_that_its_first_command_needs(alert: Alert) -> None:
    first, *_ = first_look(alert) or [""]
    aggregations = re.findall(r"\bby \(([^)]*)\)", alert.expression)
    assert "-n NAMESPACE" not in first or all("namespace" in labels.split(", ") for labels in aggregations)


@pytest.mark.parametrize("node", TENANT.graph.nodes.values(), ids=lambda node: node.name)
def test_one_page_answers_who_calls_a_node_and_what_happens_without_it(node: Node) -> None:
    text = PAGES[FOLDER / f"{node.name}.md"]
    for edge in TENANT.graph.edges_to(node):
        (line,) = re.findall(rf"^- \[{edge.caller.name}\].*$", text.partition("## Who calls it")[2], re.MULTILINE)
        consequence = f"{edge.call.fallback}." if edge.call.soft else "**hard**"
        assert consequence in line
        assert f"{edge.caller.name}.{edge.operation.name}" in line
        assert edge.call.name.removeprefix(f"{node.name}.") in line
    for route in impact(TENANT.graph, node).routes if not isinstance(node, Gateway) else ():
        assert f"Route `{route.route}` {'**fails**' if route.fails else 'still answers'}" in text
    assert "## Who is notified" in text


def test_an_outage_of_model_adapter_fails_only_the_routes_without_a_fallback() -> None:
    found = {each.route: each for each in impact(TENANT.graph, TENANT.graph.nodes["model-adapter"]).routes}
    assert {name for name, each in found.items() if each.fails} == {
        "ai-orchestrator-task",
        "knowledge-service-search",
        "voice-engine-dialogue",
    }
    chat = found["conversation-service-send"]
    assert [edge.call.fallback for edge in chat.losses] == ["the message is kept and answered later"]
    assert chat.flows == ("Chat with retrieval and re-rank",)


def test_a_route_does_not_fail_if_it_loses_only_a_soft_call() -> None:
    lost = impact(toy.TENANT.graph, toy.PRICES)
    assert lost.failing == {("prices", "list")}
    assert [edge.call.fallback for edge in lost.losses["orders", "place"]] == ["the price of yesterday"]
    assert ("orders", "place") in impact(toy.TENANT.graph, toy.STOCK).failing


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_to_a_page_and_a_heading(path: Path) -> None:
    for target, anchor in LINK.findall(PAGES[path]):
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(PAGES.get(found) or found.read_text(encoding="utf-8")), f"{target}#{anchor}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_query_in_a_command_is_promql(path: Path) -> None:
    queries = re.findall(r"promtool query instant \S+ '([^']+)'", PAGES[path])
    assert all(promql_parser.parse(query) for query in queries)
    assert all(block.language in {"sh", "promql"} for block in blocks(path))


@pytest.mark.parametrize("service", list(TENANT.graph.services), ids=lambda service: service.name)
def test_the_first_look_asks_the_layer_that_has_the_breakers_of_the_service(service: Service) -> None:
    first_look = PAGES[FOLDER / f"{service.name}.md"].partition("## First look")[2].partition("##")[0]
    mesh = f'envoy_cluster_outlier_detection_ejections_active{{caller="{service.name}"}}'
    runtime = f'voice_circuitbreaker_state{{job="{service.name}"'
    assert (mesh in first_look, runtime in first_look) == (service.language == "go", service.language == "python")


@pytest.mark.parametrize("service", list(TENANT.graph.services), ids=lambda service: service.name)
def test_the_page_of_a_service_lists_only_alerts_on_series_that_the_service_has(service: Service) -> None:
    listed = set(re.findall(r"\[(\w+)\]", PAGES[FOLDER / f"{service.name}.md"].partition("## Its alerts")[2]))
    of_runtime = {"BreakerOpen", "CallsRejected", "RetryBudgetSpent", "FirstMessageLate", "BundleRefused"}
    of_mesh = {"MeshBreakerOpen", "MeshCallsRejected"}
    own, other = (of_mesh, of_runtime) if service.language == "go" else (of_runtime, of_mesh)
    assert listed >= own | {"OperationFailing", "AttemptsAboveBound", "BundleNotMounted", "BundlesDiffer"}
    assert not listed & other
    python, operations = service.language == "python", service.operations
    assert ("SagaParked" in listed) == (python and any(operation.saga for operation in operations))
    assert ("DeadLetters" in listed) == (python and any(operation.consumes for operation in operations))
    assert ("ServiceDegraded" in listed) == (python and bool(service.features))


@pytest.mark.parametrize("store", TENANT.alerting.store_alerts)
def test_the_page_of_a_store_lists_its_own_alerts_and_queries_them(store: str) -> None:
    names = [alert.name for alert in TENANT.alerting.store_alerts[store]]
    text = PAGES[FOLDER / f"{store}.md"]
    assert names
    assert "|".join(names) in text.partition("## First look")[2].partition("##")[0]
    assert all(f"[{name}](alerts.md#{name.lower()})" in text.partition("## Its alerts")[2] for name in names)


def test_a_tenant_without_handwritten_parts_gets_the_generated_pages() -> None:
    pages = {path.name for path, _ in runbook(toy.TENANT, [])}
    assert pages == {"alerts.md", "index.md", "orders.md", "prices.md", "stock.md"}
