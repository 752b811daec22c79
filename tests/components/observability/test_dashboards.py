"""Grafana's dashboards and links: every query parses, every name in it exists, and every link leads somewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from pydantic import ValidationError
from voice_policies import faults_of
from voice_runtime.metrics import METRICS

from components.observability import dashboards, tempo
from components.observability.dashboards import Dashboard, Panel, Query
from components.observability.grafana import Grafana
from components.observability.prometheus import Prometheus
from tests.components.observability.servers import rendered, the

TARGET_LABELS = {"job", "instance", "namespace", "pod", "node"}
"""The labels that Prometheus adds to every series of a scraped target."""
SPANS = {name: {*tempo.SPAN_LABELS, "le", "source"} for name in tempo.METRICS if "spanmetrics" in name}
EDGES = {name: {*tempo.EDGE_LABELS, "le", "source"} for name in tempo.METRICS if "service_graph" in name}
KNOWN: dict[str, set[str]] = {
    **dict.fromkeys(("up", "probe_success"), TARGET_LABELS | {"probe"}),
    **{metric.name: TARGET_LABELS | set(metric.labels) for metric in METRICS},
    **SPANS,
    **EDGES,
}
"""Every metric that something exports, and its labels."""


def expressions() -> Iterator[str]:
    for board in the(Grafana).dashboards:
        for panel in board.panels:
            yield from (query.expression for query in panel.queries)
    sources = yaml.safe_load(the(Grafana).files["datasources.yaml"])["datasources"]
    for source in sources:
        for query in source["jsonData"].get("tracesToMetrics", {}).get("queries", ()):
            yield query["query"].replace("$$__tags", 'service="orders"')


def parsed(expression: str) -> promql_parser.Expr:
    """The query after Grafana has replaced its variables, parsed as Prometheus parses it."""
    sent = expression.replace("$__rate_interval", "2m").replace("$service", "orders")
    assert "$" not in sent
    return promql_parser.parse(sent)


def strangers(expression: str) -> list[str]:
    """Metrics and labels in a query that nothing exports."""
    found: list[str] = []
    labels: set[str] = set()

    def visit(node: Any) -> None:
        nonlocal labels
        if isinstance(node, promql_parser.VectorSelector):
            name = node.name or ""
            known = KNOWN.get(name)
            if known is None:
                found.append(name)
                return
            labels |= known
            found.extend(f"{name}{{{each.name}}}" for each in node.matchers.matchers if each.name not in known)

    tree = parsed(expression)
    promql_parser.walk(tree, pre_visit=visit)

    def grouped(node: Any) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            found.extend(label for label in node.modifier.labels if label not in labels)

    promql_parser.walk(tree, pre_visit=grouped)
    return found


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_a_query_parses_and_names_what_exists(expression: str) -> None:
    assert strangers(expression) == []


@pytest.mark.parametrize(
    ("wrong", "seen"),
    [
        ("sum by (job) (rate(voice_operation_request_total[5m]))", ["voice_operation_request_total", "job"]),
        ('voice_circuitbreaker_state{stat="open"}', ["voice_circuitbreaker_state{stat}"]),
        ("sum by (operatio) (voice_operation_requests_total)", ["operatio"]),
    ],
)
def test_a_misspelt_metric_or_label_is_seen(wrong: str, seen: list[str]) -> None:
    assert strangers(wrong) == seen


def test_an_invalid_promql_expression_is_refused() -> None:
    with pytest.raises(ValueError, match=r"invalid|unexpected|unclosed"):
        parsed("sum by (job) (rate(up[5m])")


def test_panels_stand_beside_and_below_each_other_and_never_upon() -> None:
    for board in the(Grafana).dashboards:
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(board.text)["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert place["x"] + place["w"] <= 24
            assert not cells & taken
            taken |= cells


def test_uids_are_fixed_and_every_link_leads_to_one() -> None:
    sources = yaml.safe_load(the(Grafana).files["datasources.yaml"])["datasources"]
    uids = [source["uid"] for source in sources]
    assert uids == ["prometheus", "alertmanager", "tempo", "jaeger", "logs"]
    boards = [json.loads(each.text) for each in the(Grafana).dashboards]
    assert set(named([sources, boards])) <= set(uids)
    kinds = {source["uid"]: source["type"] for source in sources}
    for board in boards:
        assert all(panel["datasource"]["type"] == kinds[panel["datasource"]["uid"]] for panel in board["panels"])


def named(document: Any) -> Iterator[str]:
    """Every data source that something refers to."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in {"datasourceUid", "alertmanagerUid"}:
                yield value
            elif key == "datasource":
                yield value["uid"]
            yield from named(value)
    elif isinstance(document, list):
        for value in document:
            yield from named(value)


def test_metric_trace_and_log_lead_to_each_other() -> None:
    sources = {
        each["uid"]: each["jsonData"] for each in yaml.safe_load(the(Grafana).files["datasources.yaml"])["datasources"]
    }
    exemplars = sources[dashboards.PROMETHEUS]["exemplarTraceIdDestinations"]
    assert {each["name"] for each in exemplars} == {tempo.EXEMPLAR_LABEL, "trace_id"}
    assert {each["datasourceUid"] for each in exemplars} == {dashboards.TEMPO}
    (servers,) = rendered(the(Prometheus), "StatefulSet")
    assert "--enable-feature=exemplar-storage" in servers["spec"]["template"]["spec"]["containers"][0]["args"]
    for traces in (dashboards.TEMPO, dashboards.JAEGER):
        assert sources[traces]["tracesToLogsV2"]["datasourceUid"] == dashboards.ELASTICSEARCH
        assert sources[traces]["tracesToLogsV2"]["query"] == 'trace_id:"$${__span.traceId}"'
    assert sources[dashboards.TEMPO]["tracesToMetrics"]["datasourceUid"] == dashboards.PROMETHEUS
    assert sources[dashboards.TEMPO]["serviceMap"]["datasourceUid"] == dashboards.PROMETHEUS
    (link,) = sources[dashboards.ELASTICSEARCH]["dataLinks"]
    assert (link["field"], link["datasourceUid"]) == ("trace_id", dashboards.TEMPO)


def large(uid: str, size: int) -> Dashboard:
    panel = Panel(title="Large", description="takes room", queries=(Query(expression="x" * size),))
    return Dashboard(uid=uid, title="Large", panels=(panel,))


def test_dashboards_that_no_config_map_holds_are_refused_all_at_once() -> None:
    boards = (large("first", 1 << 20), *the(Grafana).dashboards, large("second", 1 << 20), large("second", 10))
    with pytest.raises(ValidationError) as caught:
        Grafana.model_validate({**dict(the(Grafana)), "dashboards": boards})
    sentences = [fault.accepted for fault in faults_of(caught.value, Grafana)]
    assert [sentence.partition(" has ")[0] for sentence in sentences] == [
        "dashboard second is declared twice",
        "dashboard first",
        "dashboard second",
    ]
    assert all(sentence.endswith("a ConfigMap holds 1048576") for sentence in sentences[1:])
    envelope = len(large("just", 0).text.encode())
    Grafana.model_validate({**dict(the(Grafana)), "dashboards": (large("just", (1 << 20) - envelope),)})


def test_each_dashboard_is_a_config_map_that_is_mounted_where_the_provider_looks() -> None:
    grafana = the(Grafana)
    maps = {found["metadata"]["name"]: found["data"] for found in rendered(grafana, "ConfigMap")}
    (deployment,) = rendered(grafana, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (config,) = (volume for volume in pod["volumes"] if volume["name"] == "config")
    files = {
        item["path"]: maps[source["configMap"]["name"]][item["key"]]
        for source in config["projected"]["sources"]
        for item in source["configMap"]["items"]
    }
    (provider,) = yaml.safe_load(files["provisioning/dashboards/dashboards.yaml"])["providers"]
    (mounted,) = (each["mountPath"] for each in pod["containers"][0]["volumeMounts"] if each["name"] == "config")
    assert provider["options"]["path"] == f"{mounted}/dashboards"
    assert {name for name in files if name.startswith("dashboards/")} == {
        "dashboards/platform.json",
        "dashboards/service.json",
    }
    assert {"grafana.ini", "provisioning/datasources/datasources.yaml"} <= files.keys()
